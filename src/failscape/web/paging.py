"""Long lists, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
@dataclass(frozen=True, kw_only=True)
class Part(Generic[T]):
    """A page of a list.

    Attributes:
        items: what stands on it.
        page: its number, from 1.
        pages: how many there are.
        first: the place of its first item in the list, from 1; 0 on an empty page.
        count: items of the whole list.
    """

    items: Sequence[T]
    page: int
    pages: int
    first: int
    count: int

    @property
    def last(self) -> int:
        """The place of its last item in the list."""
        return max(0, self.first + len(self.items) - 1)


def cut(items: Sequence[T], page: int, size: int) -> Part[T]:
    """Return a page of a list; the last one for a page beyond it, since what was there may have become fewer.

    Args:
        items: the list.
        page: number of the page, from 1.
        size: items on a page.
    """
    pages = max(1, -(-len(items) // size))
    page = min(page, pages)
    first = (page - 1) * size
    shown = items[first : first + size]
    return Part(items=shown, page=page, pages=pages, first=first + 1 if shown else 0, count=len(items))
