"""Values with their intervals, in order of size."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing


def ranking(
    values: Float[Tensor, " T"],
    intervals: Float[Tensor, "T 2"],
    *,
    names: Sequence[str],
    x_label: str,
) -> Drawing:
    """Draw values from 0 as bars with their intervals, one a line, the first on top.

    Args:
        values: not negative; NaN leaves a line without a bar.
        intervals: lower and upper end of each.
        names: one a value.
        x_label: what the value is, with its unit.
    """
    places = np.arange(len(names))[::-1]
    middle = values.double().numpy()
    low, high = intervals.double().numpy().T
    with house_style():
        drawing = new_drawing(6.2, 0.2 * len(names) + 0.9)
        ax = drawing.subplots()
        ax.barh(places, middle, 0.7, color=SERIES[0] + "66", edgecolor="#222222", linewidth=0.5)
        reach = np.clip(np.stack([middle - low, high - middle]), 0, None)
        ax.errorbar(middle, places, xerr=reach, fmt="none", ecolor="#222222", elinewidth=1, capsize=2)
        ax.set_yticks(places, names)
        ax.set(xlabel=x_label, xlim=(0, None), ylim=(-0.7, len(names) - 0.3))
        ax.grid(False, axis="y")
    return drawing
