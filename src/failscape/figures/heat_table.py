"""Tables of rates as shades, with each number in its cell."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.style import house_style, new_drawing

# Of a cell, in inches; a number of three digits and a point fits in.
_WIDTH, _HEIGHT = 0.52, 0.3
_MOST_BESIDE = 2
# Lightness above which black reads better than white.
_MIDDLE = 0.5


def heat_tables(
    rates: Mapping[str, Float[Tensor, "R S"]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    x_label: str,
    y_label: str = "",
    dark: Literal["low", "high"] = "low",
) -> Drawing:
    """Draw tables of rates side by side, in percent, on a scale from dark to light.

    Args:
        rates: name of each table to its rates in [0, 1]; NaN leaves a gap.
        row_labels: R names.
        column_labels: S names.
        x_label: what the columns are.
        y_label: what the rows are.
        dark: which rates are dark; those that the table is about.
    """
    assert rates, "a drawing needs a table"
    columns = min(_MOST_BESIDE, len(rates))
    rows = -(-len(rates) // columns)
    across, down = len(column_labels), len(row_labels)
    with house_style():
        drawing = new_drawing(columns * (across * _WIDTH + 0.15) + 1.5, rows * (down * _HEIGHT + 0.75))
        axes = drawing.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, (name, values) in zip(axes.flat, rates.items(), strict=False):
            _draw_table(ax, values, column_labels, "Blues_r" if dark == "low" else "Blues")
            ax.set_yticks(range(down), row_labels, fontsize=8.5)
            ax.set_title(name)
            ax.set_xlabel(x_label)
        axes[0, 0].set_ylabel(y_label)
        for ax in list(axes.flat)[len(rates) :]:
            ax.set_visible(False)
    return drawing


def _draw_table(ax: Axes, values: Float[Tensor, "R S"], column_labels: Sequence[str], colours: str) -> None:
    shades = mpl.colormaps[colours]
    ax.imshow(values.numpy(), cmap=shades, vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            if value == value:
                ink = "white" if _luma(shades(value)) < _MIDDLE else "black"
                ax.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=8.5, color=ink)
    ax.set_xticks(range(len(column_labels)), column_labels, fontsize=8.5)
    ax.tick_params(length=0)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _luma(colour: tuple[float, float, float, float]) -> float:
    """Return how light a colour is, from 0 to 1 (Rec. 709)."""
    red, green, blue, _ = colour
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
