"""Reliability diagrams: how often a classifier is right, against how sure it is."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import HATCHES, LINE_STYLES, MARKERS, house_style, new_drawing


def reliability_diagram(
    confidence: Mapping[str, Float[Tensor, " B"]],
    accuracy: Mapping[str, Float[Tensor, " B"]],
    intervals: Mapping[str, tuple[Float[Tensor, " B"], Float[Tensor, " B"]]],
    counts: Mapping[str, Int[Tensor, " B"]],
) -> Drawing:
    """Draw accuracy against confidence, bin by bin, over the number of images in each bin.

    A point on the diagonal keeps its word; one below it is too sure. The bins are equal parts of [0, 1]; one
    without images is left out. Numbers of images are on a logarithmic axis.

    Args:
        confidence: name of each series to the mean confidence of its bins; NaN where a bin is empty.
        accuracy: to the share of images in each bin that are right.
        intervals: to the lower and upper end of the interval of each accuracy.
        counts: to the number of images in each bin.
    """
    with house_style():
        drawing = new_drawing(4.6, 5.6)
        upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=[4.4, 1])
        upper.plot([0, 1], [0, 1], color="#666666", linewidth=1, linestyle="-", zorder=1)
        for place, text, side in (((0.97, 0.03), "below the line: too sure", "right"),
                                  ((0.03, 0.95), "above: not sure enough", "left")):  # fmt: skip
            upper.text(*place, text, ha=side, fontsize=8, color="#555555")
        for i, name in enumerate(confidence):
            _draw_curve(upper, i, name, confidence[name], accuracy[name], intervals[name])
            _draw_counts(lower, i, len(counts), counts[name])
        upper.set(ylabel="accuracy", xlim=(0, 1.01), ylim=(-0.01, 1.02))
        lower.set(xlabel="confidence (maximum softmax probability)", ylabel="images", yscale="log", ylim=(0.5, None))
        drawing.legend(loc="outside upper right", ncols=len(confidence))
    return drawing


def _draw_curve(
    ax: Axes,
    index: int,
    name: str,
    confidence: Float[Tensor, " B"],
    accuracy: Float[Tensor, " B"],
    interval: tuple[Float[Tensor, " B"], Float[Tensor, " B"]],
) -> None:
    filled = accuracy.isfinite()
    heights, low, high = (values[filled].double().numpy() for values in (accuracy, *interval))
    # A rate at the end of its interval may stand outside it by a rounding error.
    reach = np.clip([heights - low, high - heights], 0, None)
    ax.errorbar(
        confidence[filled].numpy(), heights, reach, label=name, color=SERIES[index % len(SERIES)],
        linestyle=LINE_STYLES[index % len(LINE_STYLES)], linewidth=0.9, elinewidth=1, capsize=2.5,
        marker=MARKERS[index % len(MARKERS)], markersize=4, zorder=2 + index,
    )  # fmt: skip


def _draw_counts(ax: Axes, index: int, series: int, counts: Int[Tensor, " B"]) -> None:
    width = 1 / len(counts)
    part = 0.86 * width / series
    places = (np.arange(len(counts)) + 0.07) * width + (index + 0.5) * part
    ax.bar(
        places, counts.numpy(), part, color=SERIES[index % len(SERIES)] + "99", edgecolor="#222222", linewidth=0.5,
        hatch=HATCHES[index % len(HATCHES)],
    )  # fmt: skip
