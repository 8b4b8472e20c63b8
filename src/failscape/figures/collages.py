"""Rows of images in which some are framed and named."""

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.grids import show_image
from failscape.figures.style import house_style, new_drawing

_CELL = 0.72
_FRAME = 2.2


def collage(
    rows: Sequence[Float[Tensor, "S C H W"]],
    *,
    row_labels: Sequence[str],
    marks: Sequence[Sequence[str]],
) -> Drawing:
    """Draw rows of images, as many in each as there are; those with a mark are framed, and the mark stands above.

    Args:
        rows: images in [0, 1], at least one in all.
        row_labels: one a row.
        marks: for each row one text an image, "" for an image that has no frame.
    """
    assert len(rows) == len(row_labels) == len(marks), "a label and marks for every row"
    columns = max(len(row) for row in rows)
    assert columns > 0, "a drawing needs an image"
    with house_style():
        drawing = new_drawing(_CELL * columns + 1.0, (_CELL + 0.12) * len(rows) + 0.1)
        axes = drawing.subplots(len(rows), columns, squeeze=False)
        for images, label, texts, line in zip(rows, row_labels, marks, axes, strict=True):
            for ax, image, text in zip(line, images, texts, strict=False):
                show_image(ax, image)
                if text:
                    ax.set_title(text, loc="center", fontsize=7.5, color=SERIES[1], pad=3)
                    for spine in ax.spines.values():
                        spine.set(color=SERIES[1], linewidth=_FRAME)
            for ax in line[len(images) :]:
                ax.set_xticks([])
                ax.set_yticks([])
                ax.grid(False)
                ax.spines[:].set_visible(False)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5)
    return drawing
