"""What was requested of a generator against what was obtained from it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing
from failscape.metrics import QuantileBands

# More dots than these hide each other: every so-manieth is drawn. The bands are made of all of them.
_MOST_DOTS = 3000

Panel = tuple[Tensor, Tensor, QuantileBands]


def requested_against_obtained(
    panels: Mapping[str, tuple[Float[Tensor, " N"], Float[Tensor, " N"], QuantileBands]], *, x_label: str, y_label: str
) -> Drawing:
    """Draw each request as a dot, quantile bands over them, and the diagonal on which all dots should lie.

    The panels stand side by side and share their axes. Bands and median are drawn at the median request of each bin.

    Args:
        panels: name, such as "generator alone" or "refined", to requested values, obtained values, and the bands of
            `failscape.metrics.quantile_bands` for them; one to three.
        x_label: what is requested.
        y_label: what is obtained.
    """
    assert 1 <= len(panels) <= 3, list(panels)
    low = min(float(values.min()) for panel in panels.values() for values in panel[:2])
    high = max(float(values.max()) for panel in panels.values() for values in panel[:2])
    margin = 0.015 * (high - low)
    limits = (low - margin, high + margin)
    with house_style():
        drawing = new_drawing(0.7 + 3.1 * len(panels), 4.1)
        axes = drawing.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for i, (ax, (name, panel)) in enumerate(zip(axes, panels.items(), strict=True)):
            _draw_panel(ax, panel, SERIES[i])
            if len(panels) > 1:
                ax.set_title(name)
            ax.set(xlabel=x_label, xlim=limits, ylim=limits, aspect="equal")
        axes[0].set_ylabel(y_label)
        handles, names = axes[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside upper left", ncols=2 if len(panels) == 1 else 4)
    return drawing


def _draw_panel(ax: Axes, panel: Panel, colour: str) -> None:
    requested, obtained, bands = panel
    step = -(-len(requested) // _MOST_DOTS)
    ax.plot([0, 1], [0, 1], color="#222222", linewidth=1, linestyle="--", zorder=4, label="obtained = requested")
    # As pixels also in a vector graphic, which thousands of dots would make slow to show.
    ax.plot(
        requested[::step].numpy(), obtained[::step].numpy(), linestyle="none", marker=".", markersize=2.5,
        markeredgewidth=0, color=colour, alpha=0.35, rasterized=True, zorder=3,
    )  # fmt: skip
    # At the median request of each bin: at its middle they would be off wherever requests crowd at one end of a bin.
    bins = torch.bucketize(requested, (bands.centre[1:] + bands.centre[:-1]) / 2)
    filled = bins.unique()
    x = [float(requested[bins == index].median()) for index in filled]
    quantiles = bands.quantiles[filled].numpy().T
    ax.fill_between(x, quantiles[0], quantiles[4], color=colour, alpha=0.13, linewidth=0, label="5 to 95 %")
    ax.fill_between(x, quantiles[1], quantiles[3], color=colour, alpha=0.28, linewidth=0, label="25 to 75 %")
    ax.plot(x, quantiles[2], color=colour, linewidth=1.6, linestyle="-", zorder=5, label="median")
