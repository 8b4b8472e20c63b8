"""Values of several groups as marks on one line each."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing


def strips(
    values: Mapping[str, Float[Tensor, " N"]],
    *,
    opened: Mapping[str, Bool[Tensor, " N"]],
    x_label: str,
    y_label: str = "",
    x_limits: tuple[float, float] | None = None,
) -> Drawing:
    """Draw the values of each group on a line of its own, the first on top.

    Args:
        values: name of each group to its values.
        opened: of each group, which marks are open circles; the others are bars.
        x_label: what the values are, with their unit.
        y_label: what the groups are.
        x_limits: ends of the axis.
    """
    assert values, "a drawing needs a group"
    places = np.arange(len(values))[::-1]
    with house_style():
        drawing = new_drawing(6.2, 0.26 * len(values) + 0.9)
        ax = drawing.subplots()
        for place, (name, row) in zip(places, values.items(), strict=True):
            hollow = opened[name].numpy()
            ax.plot(row.numpy()[~hollow], np.full((~hollow).sum(), place), "|", color=SERIES[0], markersize=11)
            ax.plot(row.numpy()[hollow], np.full(hollow.sum(), place), "o", mfc="none", mec=SERIES[1], markersize=5)
        ax.set_yticks(places, list(values))
        ax.set(xlabel=x_label, ylabel=y_label, xlim=x_limits, ylim=(-0.7, len(values) - 0.3))
        ax.grid(False, axis="y")
    return drawing
