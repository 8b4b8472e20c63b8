"""The image set: labelled images that are read when they are needed, and checked whenever they are read."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from numpy.typing import NDArray
from torch import Tensor

from failscape.data.checks import check_values, checked_labels, checked_names, default_class_names
from failscape.data.ids import NumberedIds, SelectedIds
from failscape.errors import DataError, ImageError, LabelError

_STREAM_BYTES = 32 * 2**20


@runtime_checkable
class Source(Protocol):
    """Where the images of a set come from: a reader, or another set."""

    def __len__(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of every image."""

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        """Read the images at `indices`, in that order, as float32 in [0, 1]."""


@dataclass(frozen=True)
class Batch:
    """Some images of a set.

    Attributes:
        x: the images.
        y: their labels.
        ids: their names.
        indices: where they stand in the set that was gone through.
    """

    x: Float[Tensor, "N C H W"]
    y: Int[Tensor, " N"]
    ids: tuple[str, ...]
    indices: Int[Tensor, " N"]


@final
class ImageSet:
    """Labelled images, float32 in [0, 1], all of one shape.

    Nothing is read until it is asked for. `batches` and `read` hold only what they return; `x` reads all
    images and keeps them. Each image is checked when it is read, whatever it is read from.

    Args:
        source: gives the images by index.
        y: the label of each image, from 0 to K - 1.
        class_names: K different names.
        ids: one name an image, by default `NAME-00000`, `NAME-00001`, ….
        name: how reports call the set.

    Raises:
        LabelError: if labels are not integers from 0 to K - 1, or names are repeated.
        DataError: if there are more or fewer labels or ids than images.

    Example:
        >>> images = ImageSet.from_tensors(torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 1, 0, 1]), name="toy")
        >>> [len(batch.ids) for batch in images.batches(2)]
        [2, 2, 1]
        >>> images.select(images.y == 1).ids
        ('toy-00001', 'toy-00002', 'toy-00004')
    """

    def __init__(
        self,
        source: Source,
        y: Tensor,
        class_names: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        name: str = "images",
    ) -> None:
        self._source = source
        self.name = name
        self.class_names = checked_names(class_names)
        self._ids: Sequence[str] = NumberedIds(name, len(source)) if ids is None else ids
        self.y = checked_labels(y, len(self.class_names), self._ids)
        for what, count in (("labels", len(self.y)), ("ids", len(self._ids))):
            if count != len(source):
                raise DataError(f"Expected one of the {what} an image, but got {count} for {len(source)} images.")

    @classmethod
    def from_tensors(
        cls,
        x: Tensor | NDArray[np.generic],
        y: Tensor | NDArray[np.generic],
        class_names: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        *,
        name: str = "images",
    ) -> "ImageSet":
        """Make a set of images that are in memory already.

        Args:
            x: images `(N, C, H, W)` of any floating type, in [0, 1].
            y: integer labels `(N,)`.
            class_names: K names, by default "0", "1", … up to the largest label.
            ids: N different names, by default numbers.
            name: how reports call the set.

        Raises:
            ImageError: if the images have another shape or type, or a value is NaN or outside [0, 1].
            LabelError: if labels are not integers from 0 to K - 1.
            DataError: if the numbers of images, labels and ids differ, or an id is repeated.
        """
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        if x.ndim != 4 or 0 in x.shape[1:]:
            raise ImageError(
                f"Expected images of shape (N, C, H, W), but got {tuple(x.shape)}. Add or move the channel axis."
            )
        if not x.is_floating_point():
            raise ImageError(
                f"Expected floating-point images in [0, 1], but got {x.dtype}. Divide 8-bit images by 255."
            )
        names = default_class_names(y) if class_names is None else class_names
        if ids is not None and len(set(ids)) != len(ids):
            raise DataError("Expected different ids, but some are repeated. Give each image an id of its own.")
        images = cls(_TensorSource(x.detach().float().cpu()), y, names, ids=ids, name=name)
        check_values(x, images._ids)
        return images

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}, {len(self)} images of {self.image_shape}, {self.num_classes} classes)"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)`."""
        return self._source.image_shape

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.class_names)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The name of each image."""
        return tuple(self._ids)

    @cached_property
    def x(self) -> Float[Tensor, "N C H W"]:
        """All images, read once and kept: 4 bytes a value. For sets larger than memory use `batches`."""
        if isinstance(self._source, _TensorSource):
            return self._source.x
        x = torch.empty(len(self), *self.image_shape)
        for indices in self._stream():
            x[indices[0] : indices[-1] + 1] = self.read(indices)
        return x

    def read(self, indices: Integer[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        """Read some images, in the order of `indices`.

        Raises:
            DataError: if an index is outside the set.
            ImageError: if an image is unreadable, of another shape, or has values that are NaN or outside [0,
                1].
        """
        indices = indices.long()
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise DataError(
                f"Expected indices from 0 to {len(self) - 1} in {self.name}, but got {int(indices.min())} to "
                f"{int(indices.max())}."
            )
        if "x" in self.__dict__:
            return self.x[indices]
        if len(indices) == 0:
            return torch.empty(0, *self.image_shape)
        x = self._source.read(indices)
        if x.dtype != torch.float32 or x.shape != (len(indices), *self.image_shape):
            raise ImageError(
                f"Expected float32 images of shape {(len(indices), *self.image_shape)} from the source of "
                f"{self.name}, but got {x.dtype} of shape {tuple(x.shape)}. Make `read` keep to the source's "
                "`image_shape`."
            )
        check_values(x, SelectedIds(self._ids, indices))
        return x

    def batches(self, size: int) -> Iterator[Batch]:
        """Go through the set in its order, `size` images at a time; the last batch may be smaller.

        Raises:
            DataError: if `size` is less than 1.
        """
        if size < 1:
            raise DataError(f"Expected a batch size of at least 1, but got {size}.")
        return (
            Batch(self.read(indices), self.y[indices], tuple(SelectedIds(self._ids, indices)), indices)
            for indices in torch.split(torch.arange(len(self)), size)
            if len(indices)
        )

    def select(self, rows: Integer[Tensor, " M"] | Bool[Tensor, " N"]) -> "ImageSet":
        """Return the set of some images, chosen by index or by mask; nothing is read yet.

        Raises:
            DataError: if the mask has another length than the set, or an index is outside it.
        """
        if rows.dtype == torch.bool:
            if len(rows) != len(self):
                raise DataError(f"Expected a mask of {len(self)} values, one an image, but got {len(rows)}.")
            rows = rows.nonzero().flatten()
        rows = rows.long()
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise DataError(
                f"Expected indices from 0 to {len(self) - 1} in {self.name}, but got {int(rows.min())} to "
                f"{int(rows.max())}."
            )
        return ImageSet(
            _Subset(self, rows),
            self.y[rows],
            self.class_names,
            ids=SelectedIds(self._ids, rows),
            name=self.name,
        )

    def require_two_classes(self) -> None:
        """Refuse a set in which fewer than two classes occur: nothing can be learnt or confused there.

        Raises:
            LabelError: if all images have the same label.
        """
        present = torch.unique(self.y)
        if len(present) < 2:
            found = f"only {self.class_names[int(present[0])]!r}" if len(present) else "no image at all"
            raise LabelError(
                f"Expected images of at least 2 classes in {self.name}, but got {found}. Add images of "
                "another class; where labels do not matter, pass allow_one_class=True or name a target."
            )

    def fingerprint(self) -> str:
        """Return the SHA-256 of images, labels, class names and ids; the images are streamed, not kept."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        sha256 = hashlib.sha256(json.dumps([len(self), self.image_shape, self.class_names]).encode())
        for indices in self._stream():
            sha256.update(self.read(indices).numpy().tobytes())
            sha256.update(self.y[indices].numpy().tobytes())
            sha256.update(json.dumps(list(SelectedIds(self._ids, indices))).encode())
        return sha256.hexdigest()

    def _stream(self) -> Iterator[Tensor]:
        """Yield consecutive indices, as many at a time as fill 32 MiB."""
        channels, height, width = self.image_shape
        size = max(1, _STREAM_BYTES // (4 * channels * height * width))
        return (indices for indices in torch.split(torch.arange(len(self)), size) if len(indices))


class _TensorSource:
    """Images in memory."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.image_shape = (x.shape[1], x.shape[2], x.shape[3])

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        return self.x[indices]


class _Subset:
    """Some images of a set."""

    def __init__(self, images: ImageSet, rows: Tensor) -> None:
        self._images = images
        self._rows = rows
        self.image_shape = images.image_shape

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        return self._images.read(self._rows[indices])
