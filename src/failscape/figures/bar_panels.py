"""Several numbers of the same few things, each on an axis of its own."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing

_COLUMNS = 3


def bar_panels(
    panels: Mapping[str, Sequence[float]],
    *,
    names: Sequence[str],
    references: Mapping[str, tuple[str, float]] | None = None,
) -> Drawing:
    """Draw a panel a number with a bar for each thing, its value written at the end.

    Args:
        panels: what each number is, with its unit, to its values, which are not negative.
        names: of the things, one a value.
        references: of some panels, a value to compare with and what it is: a dashed line.
    """
    references = references or {}
    places = np.arange(len(names))[::-1]
    rows = -(-len(panels) // _COLUMNS)
    with house_style():
        drawing = new_drawing(7.4, rows * (0.24 * len(names) + 0.95))
        grid = drawing.subplots(rows, _COLUMNS, sharey=True, squeeze=False).flatten()
        for ax, (title, values) in zip(grid, panels.items(), strict=False):
            ax.barh(places, values, 0.7, color=SERIES[0] + "66", edgecolor="#222222", linewidth=0.5)
            # Room at the right for the numbers.
            ax.set(xlim=(0, 1.45 * max(*values, 1e-12)), ylim=(-0.7, len(names) - 0.3))
            ax.set_title(title, fontsize=8.5)
            ax.set_yticks(places, names)
            ax.grid(False, axis="y")
            for place, value in zip(places, values, strict=True):
                ax.annotate(_short(value), (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
            if title in references:
                what, value = references[title]
                ax.axvline(value, color="#222222", linestyle="--", linewidth=1, label=f"{what}: {_short(value)}")
                ax.legend(loc="lower right", fontsize=7.5)
        for ax in grid[len(panels) :]:
            ax.set_visible(False)
    return drawing


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
