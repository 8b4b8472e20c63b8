"""Reading a few image files that are given by their paths."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.data.encoded import ImageDecoder
from failscape.errors import DataError


def read_image_files(
    paths: Sequence[Path | str], *, image_shape: tuple[int, int, int] | None = None
) -> tuple[Float[Tensor, "N C H W"], tuple[str, ...]]:
    """Read image files, all of one shape.

    Args:
        paths: PNG, JPEG or WebP files.
        image_shape: `(C, H, W)` to which all are converted and resized; by default that of the first file,
            and a file of another shape is refused.

    Returns:
        The images, and the paths as ids.

    Raises:
        DataError: if there are no paths.
        ImageError: if a file is missing, corrupt, truncated or enormous, or its shape differs.
    """
    if not paths:
        raise DataError("Expected at least one image file, but got none. Give the path of a PNG, JPEG or WebP file.")
    files = [Path(path) for path in paths]
    decoder = ImageDecoder(files[0], str(files[0]), image_shape=image_shape)
    return torch.stack([decoder.decode(file, str(file)) for file in files]), tuple(str(file) for file in files)
