"""What labels and pixel values must be, and what is said when they are not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from failscape.errors import ImageError, LabelError

MAX_CLASSES = 100_000


def default_class_names(y: Tensor) -> tuple[str, ...]:
    """Name the classes "0", "1", … up to the largest label.

    Raises:
        LabelError: if the largest label is too large to be a class number.
    """
    largest = int(y.max()) if y.numel() else 0
    if largest >= MAX_CLASSES:
        raise LabelError(
            f"Expected class numbers below {MAX_CLASSES}, but got the label {largest}. Number the classes 0, 1, 2, …."
        )
    return tuple(str(k) for k in range(max(0, largest) + 1))


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        LabelError: if there are none, or one is repeated.
    """
    if isinstance(names, str) or not names or len(set(names)) != len(names):
        raise LabelError(f"Expected different class names, one a class, but got {names!r}.")
    return tuple(str(name) for name in names)


def checked_labels(y: Tensor, num_classes: int, ids: Sequence[str]) -> Tensor:
    """Return the labels as int64 on the CPU.

    Raises:
        LabelError: if they are not integers `(N,)` from 0 to `num_classes` - 1.
    """
    if y.ndim != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise LabelError(
            f"Expected integer labels of shape (N,), but got {y.dtype} of shape {tuple(y.shape)}. Give one "
            "class number an image, not one-hot rows or scores."
        )
    y = y.detach().long().cpu()
    wrong = ((y < 0) | (y >= num_classes)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        image = ids[first] if first < len(ids) else str(first)
        raise LabelError(
            f"Expected labels from 0 to {num_classes - 1}, but got {int(y[first])} for image {image}"
            f"{f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''}. Number the classes from 0, or name "
            "them all."
        )
    return y


def check_values(x: Tensor, ids: Sequence[str]) -> None:
    """Refuse NaN and values outside [0, 1].

    Raises:
        ImageError: naming the first such image.
    """
    if x.numel() == 0:
        return
    # A comparison with NaN is false, so one test of the extremes covers both.
    low, high = x.aminmax()
    if low >= 0 and high <= 1:
        return
    flat = x.flatten(1)
    first = int((~((flat >= 0) & (flat <= 1)).all(dim=1)).nonzero()[0])
    row = flat[first]
    if row.isnan().any():
        raise ImageError(f"Expected values in [0, 1] in image {ids[first]}, but got NaN. Mend or leave out the image.")
    low, high = row.aminmax()
    advice = "Divide 8-bit images by 255." if high > 2 and low >= 0 else "Undo the normalisation: scale to [0, 1]."
    raise ImageError(
        f"Expected values in [0, 1] in image {ids[first]}, but got {float(low):.4g} to {float(high):.4g}. {advice}"
    )
