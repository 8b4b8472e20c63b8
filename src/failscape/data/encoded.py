"""Decoding PNG, JPEG and WebP to images of one shape, with every guard that a file from outside needs."""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
# What Pillow raises on files that are cut off or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError)
_TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


class ImageDecoder:
    """Decodes images to one shape, which the first image decides unless it is given.

    A grey image (8 or 16 bits) has 1 channel, any other 3. A palette is looked up; what is transparent is
    laid on white, as viewers show it. A grey image among colour ones gets three equal channels, and a colour
    image without colour among grey ones gets one: nothing is lost. Whatever would lose something is refused,
    unless `image_shape` asks for it. EXIF rotation is not applied.

    Args:
        first: the content of the first image, or its path.
        name: of the first image, for messages.
        image_shape: `(C, H, W)` to which every image is converted and resized (bicubic, not keeping its
            aspect ratio), instead of that of the first.

    Raises:
        ImageError: if the first image is unreadable or enormous, or `image_shape` is not a shape.
    """

    def __init__(self, first: Path | bytes, name: str, *, image_shape: tuple[int, int, int] | None = None) -> None:
        if image_shape is not None and (image_shape[0] not in (1, 3) or min(image_shape) < 1):
            raise ImageError(f"Expected `image_shape` as (C, H, W) with C of 1 or 3, but got {image_shape}.")
        self._first = name
        self._resizes = image_shape is not None
        self.image_shape = image_shape or self._shape_of(first, name)

    def decode(self, content: Path | bytes, name: str) -> Float[Tensor, "C H W"]:
        """Decode one image, float32 in [0, 1].

        Args:
            content: the encoded image or its path.
            name: for messages.

        Raises:
            ImageError: if it is corrupt, truncated, enormous, or does not fit the shape.
        """
        with _Opened(content, name) as image:
            fitted = self._fit(image, name)
            values = np.asarray(fitted)
        scale = 255 if values.dtype == np.uint8 else 65535
        tensor = torch.from_numpy(values.astype(np.float32)).div_(scale).clamp_(0, 1)
        # A grey image among colour ones has no channel axis yet; it gets three equal channels.
        tensor = tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor.expand(self.image_shape)
        return tensor.contiguous()

    def _shape_of(self, content: Path | bytes, name: str) -> tuple[int, int, int]:
        with _Opened(content, name) as image:
            return (1 if image.mode in _GREY_MODES else 3, image.height, image.width)

    def _fit(self, image: "Image", name: str) -> "Image":
        """Return the image as mode L, F (16 bits) or RGB, of the right size."""
        from PIL.Image import Resampling

        channels, height, width = self.image_shape
        if not self._resizes and image.size != (width, height):
            raise ImageError(
                f"Expected images of one size, but {self._first} is {width} x {height} and {name} is "
                f"{image.width} x {image.height} pixels. Resize them, or pass image_shape=(C, H, W) to have "
                "them resized."
            )
        flat = _flattened(image)
        if channels == 1 and flat.mode == "RGB":
            if not self._resizes and not _is_colourless(flat):
                raise ImageError(
                    f"Expected only grey images, as {self._first} is, but {name} has colours. Convert them, "
                    f"or pass image_shape=(3, {height}, {width}) or (1, {height}, {width}) to have all "
                    "converted."
                )
            flat = flat.convert("L")
        return flat if flat.size == (width, height) else flat.resize((width, height), Resampling.BICUBIC)


class _Opened:
    """An image opened by Pillow, its size checked before a pixel is decoded; failures become `ImageError`."""

    def __init__(self, content: Path | bytes, name: str) -> None:
        self._content = content
        self._name = name

    def __enter__(self) -> "Image":
        from PIL import Image, UnidentifiedImageError

        file: Any = io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content
        try:
            with warnings.catch_warnings():
                # Pillow's own, larger limit only warns; ours below is the one that counts.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                self._image = Image.open(file, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise self._enormous(_claimed_size(str(error))) from error
        except UnidentifiedImageError as error:
            raise self._unreadable("no PNG, JPEG or WebP") from error
        except _BROKEN as error:
            if isinstance(error, OSError) and error.strerror:
                raise ImageError(
                    f"Expected a readable image {self._name}, but got: {error.strerror}. Check the path."
                ) from error
            raise self._unreadable(str(error)) from error
        if self._image.width * self._image.height > MAX_PIXELS:
            size = f"{self._image.width} x {self._image.height} pixels"
            self._image.close()
            raise self._enormous(size)
        return self._image

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._image.close()
        if isinstance(error, _BROKEN):
            raise self._unreadable(str(error)) from error

    def _unreadable(self, reason: str) -> ImageError:
        return ImageError(
            f"Expected a readable image {self._name}, but got: "
            f"{reason.splitlines()[0] if reason else 'nothing'}. It is corrupt or truncated; replace it or "
            "leave it out."
        )

    def _enormous(self, size: str) -> ImageError:
        return ImageError(
            f"Expected an image of at most {MAX_PIXELS // 10**6} megapixels, but {self._name} claims "
            f"{size}. It may be a decompression bomb; shrink it or leave it out."
        )


def _claimed_size(complaint: str) -> str:
    """Return the number of pixels from Pillow's complaint, which names another limit than ours."""
    claimed = re.search(r"(\d+) pixels", complaint)
    return f"{claimed[1]} pixels" if claimed else "far more"


def _flattened(image: "Image") -> "Image":
    """Return the image as mode L (grey, 8 bits), F (grey, 16 bits) or RGB, without transparency."""
    from PIL import Image

    if image.mode in ("1", "L") and "transparency" not in image.info:
        return image.convert("L")
    if image.mode.startswith("I"):
        return image.convert("F")
    grey = image.mode in _GREY_MODES
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _is_colourless(image: "Image") -> bool:
    values = np.asarray(image)
    return bool((values == values[..., :1]).all())
