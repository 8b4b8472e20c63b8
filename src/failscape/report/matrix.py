"""A matrix of pictures laid out for the page: cells that lead to groups of pictures, without any script."""

from dataclasses import dataclass
from typing import final

from failscape.figures import PictureGroup, PictureMatrix
from failscape.report.gallery import PanelView, view_panel
from failscape.report.wording import Glossary


@final
@dataclass(frozen=True)
class GroupView:
    """A group of pictures.

    Attributes:
        id: unique on the page; cells lead to it.
        title, note: as in `PictureGroup`.
        pictures: each with its mark, "" where there is none.
        listed: whether no cell leads to it, so that it is listed below the matrix.
    """

    id: str
    title: str
    note: str
    pictures: list[tuple[PanelView, str]]
    listed: bool

    @property
    def cover(self) -> tuple[PanelView, str] | None:
        """What stands for the group: its first picture."""
        return self.pictures[0] if self.pictures else None


@final
@dataclass(frozen=True)
class MatrixView:
    """A matrix with its groups.

    Attributes:
        columns: names from left to right.
        rows: name of each row, and the group at each column, None where there is none.
        groups: all, in order.
        marked: the marks that occur, each once.
    """

    columns: list[str]
    rows: list[tuple[str, list[GroupView | None]]]
    groups: list[GroupView]
    marked: list[str]

    @property
    def has_cells(self) -> bool:
        """Whether any group stands in the matrix."""
        return any(not group.listed for group in self.groups)


def view_matrix(matrix: PictureMatrix, prefix: str) -> MatrixView:
    """Lay out a matrix; each picture is encoded once, however many cells it stands in."""
    groups = [_view_group(group, f"{prefix}-g{i}") for i, group in enumerate(matrix.groups, start=1)]
    places = {cell: view for group, view in zip(matrix.groups, groups, strict=True) for cell in group.cells}
    rows = [
        (name, [places.get((row, column)) for column in range(len(matrix.column_labels))])
        for row, name in enumerate(matrix.row_labels)
    ]
    marks = [mark for group in groups for _, mark in group.pictures if mark]
    return MatrixView(columns=list(matrix.column_labels), rows=rows, groups=groups, marked=list(dict.fromkeys(marks)))


def _view_group(group: PictureGroup, identifier: str) -> GroupView:
    no_terms = Glossary("", {})
    marks = list(group.marks) or [""] * len(group.panels)
    pictures = [
        (view_panel(panel, f"{group.title}, picture {i}: {panel.label}", 0.0, no_terms), mark)
        for i, (panel, mark) in enumerate(zip(group.panels, marks, strict=True), start=1)
    ]
    return GroupView(identifier, group.title, group.note, pictures, listed=not group.cells)
