"""A matrix of pictures: what stands for each pair of a row and a column, empty where nothing does."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing

_GAP = 0.06
_CELL = 0.62


def picture_matrix(
    pictures: Mapping[tuple[int, int], Float[Tensor, "C H W"]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    marked: Mapping[tuple[int, int], bool] | None = None,
) -> Drawing:
    """Draw pictures at their rows and columns; a cell without one holds a dash, those that are marked a dashed frame.

    Args:
        pictures: in [0, 1], by row and column.
        row_labels: names, from top to bottom.
        column_labels: names, from left to right.
        marked: whether a cell is framed.
    """
    rows, columns = len(row_labels), len(column_labels)
    with house_style():
        drawing = new_drawing(_CELL * columns + 1.3, _CELL * rows + 0.9)
        ax = drawing.subplots()
        for row in range(rows):
            for column in range(columns):
                picture = pictures.get((row, column))
                low, high = _GAP / 2, 1 - _GAP / 2
                if picture is None:
                    if row != column or rows != columns:
                        ax.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color="#666666")
                    continue
                pixels = picture.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
                ax.imshow(
                    np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels,
                    extent=(column + low, column + high, row + high, row + low), interpolation="nearest",
                )  # fmt: skip
                if marked and marked.get((row, column)):
                    ax.add_patch(
                        Rectangle((column + low, row + low), high - low, high - low, fill=False, edgecolor=SERIES[1],
                                  linewidth=1.8, linestyle="--")
                    )  # fmt: skip
        ax.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")
        ax.set_xticks(np.arange(columns) + 0.5, column_labels, rotation=40, ha="left")
        ax.set_yticks(np.arange(rows) + 0.5, row_labels)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return drawing
