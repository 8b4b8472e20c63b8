"""Images in a NumPy array, in memory or mapped from a file, in any of the usual axis orders."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from failscape.errors import ImageError, LabelError

Layout = Literal["NHW", "NCHW", "NHWC"]
_CHANNELS = (1, 3)


class ArraySource:
    """Reads images from an array; only the rows asked for are copied and converted.

    Args:
        array: uint8 from 0 to 255, or floating-point in [0, 1]; `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)`
            with 1 or 3 channels. Where both orders are possible, `(N, C, H, W)` is taken.
        name: of the array, for messages.

    Raises:
        ImageError: if the shape or the type is none of these.
    """

    def __init__(self, array: NDArray[np.generic], name: str) -> None:
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            raise ImageError(
                f"Expected uint8 images from 0 to 255 or floating-point ones in [0, 1] in {name}, but got "
                f"{array.dtype}. Convert them."
            )
        self._array = array
        self._layout = _layout(array.shape, name)
        sizes = array.shape[1:]
        channels, height, width = {
            "NHW": (1, *sizes),
            "NCHW": sizes,
            "NHWC": (sizes[-1], *sizes[:-1]),
        }[self._layout]
        self.image_shape = (int(channels), int(height), int(width))

    def __len__(self) -> int:
        return len(self._array)

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        """Copy the rows at `indices`; 8-bit values are divided by 255."""
        rows = np.asarray(self._array[indices.numpy()])
        if self._layout == "NHW":
            rows = rows[:, None]
        elif self._layout == "NHWC":
            rows = rows.transpose(0, 3, 1, 2)
        if rows.dtype == np.uint8:
            return torch.from_numpy(np.ascontiguousarray(rows)).float().div_(255)
        return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))


def labels_from(array: NDArray[np.generic], name: str) -> Tensor:
    """Return integer labels `(N,)` from an array `(N,)` or `(N, 1)`.

    Raises:
        LabelError: if the array has another shape or type.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise LabelError(
            f"Expected integer labels of shape (N,) in {name}, but got {array.dtype} of shape {array.shape}. "
            "Save one class number an image."
        )
    return torch.from_numpy(array.astype(np.int64))


def _layout(shape: tuple[int, ...], name: str) -> Layout:
    if 0 not in shape:
        if len(shape) == 3:
            return "NHW"
        if len(shape) == 4 and shape[1] in _CHANNELS:
            return "NCHW"
        if len(shape) == 4 and shape[3] in _CHANNELS:
            return "NHWC"
    raise ImageError(
        f"Expected images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels in {name}, "
        f"but got {shape}. Reshape them, or drop the other channels."
    )
