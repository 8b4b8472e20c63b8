"""Several sets of the same images and classes as one."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data.images import ImageSet, Source
from failscape.errors import DataError


def joined(sets: Sequence[ImageSet], *, name: str) -> ImageSet:
    """Return the images of all sets, one set after the other; nothing is read yet.

    Args:
        sets: at least one; of the same image shape and class names.
        name: how reports call the whole.

    Raises:
        DataError: if a set has images of another shape, or other classes, than the first.
    """
    first, *others = sets
    for other in others:
        if (other.image_shape, other.class_names) != (first.image_shape, first.class_names):
            raise DataError(
                f"Expected images of the shape and classes of {first.name}, {first.image_shape} and "
                f"{', '.join(first.class_names)}, but {other.name} has {other.image_shape} and "
                f"{', '.join(other.class_names)}. Join sets of one task."
            )
    ids = [identifier for each in sets for identifier in each.ids]
    return ImageSet(_Joined(sets), torch.cat([each.y for each in sets]), first.class_names, ids=ids, name=name)


class _Joined:
    """Reads from the set that an index falls into."""

    def __init__(self, sets: Sequence[Source]) -> None:
        self._sets = sets
        self._starts = torch.tensor([0, *accumulate(len(each) for each in sets)])
        self.image_shape = sets[0].image_shape

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        x = torch.empty(len(indices), *self.image_shape)
        for images, start, stop in zip(self._sets, self._starts[:-1], self._starts[1:], strict=True):
            inside = (indices >= start) & (indices < stop)
            if inside.any():
                x[inside] = images.read(indices[inside] - start)
        return x
