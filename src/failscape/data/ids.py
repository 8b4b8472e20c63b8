"""Names of images: of files, and such as are made when asked for, so that a huge set costs no memory for them."""

import os
from collections.abc import Sequence
from typing import overload

from torch import Tensor


def spelled(path: str) -> str:
    r"""Return a path as text that can be shown and written: of bytes that are no UTF-8 their numbers.

    Example:
        >>> spelled(os.fsdecode(b"cats/caf\xe9.png"))
        'cats/caf\\xe9.png'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


class _LazyIds(Sequence[str]):
    """A sequence of which only `_one` and `__len__` are to be written."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self._one(i) for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"Expected an index below {len(self)}, but got {index}.")
        return self._one(index % len(self))

    def _one(self, index: int) -> str:
        raise NotImplementedError


class NumberedIds(_LazyIds):
    """`PREFIX-00000`, `PREFIX-00001`, …, with as many digits as the last one needs, but at least five."""

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self._count = count
        self._digits = max(5, len(str(count - 1)))

    def __len__(self) -> int:
        return self._count

    def _one(self, index: int) -> str:
        return f"{self._prefix}-{index:0{self._digits}d}"


class SelectedIds(_LazyIds):
    """The ids of chosen rows of another sequence."""

    def __init__(self, ids: Sequence[str], rows: Tensor) -> None:
        self._ids = ids
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def _one(self, index: int) -> str:
        return self._ids[int(self._rows[index])]


class RepeatedIds(_LazyIds):
    """Another sequence several times over; the second time each id ends in `-draw2`, then in `-draw3`, …."""

    def __init__(self, ids: Sequence[str], times: int) -> None:
        self._ids = ids
        self._times = times

    def __len__(self) -> int:
        return self._times * len(self._ids)

    def _one(self, index: int) -> str:
        time, row = divmod(index, len(self._ids))
        return f"{self._ids[row]}-draw{time + 1}" if time else self._ids[row]
