"""Curves with bands, pairs of histograms, and rates with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import HATCHES, LINE_STYLES, MARKERS, house_style, new_drawing

# Inches of a drawing of bars.
_WIDEST = 9.5


def curves_with_bands(
    x: Float[Tensor, " T"],
    curves: Mapping[str, Float[Tensor, " T"]],
    *,
    bands: Mapping[str, tuple[Float[Tensor, " T"], Float[Tensor, " T"]]] | None = None,
    x_label: str,
    y_label: str,
) -> Drawing:
    """Draw named curves, told apart by colour, line style and marker.

    Args:
        x: positions.
        curves: name to values.
        bands: name of a curve to the lower and upper end of its band.
        x_label: what the axis is, with its unit.
        y_label: likewise.
    """
    with house_style():
        drawing = new_drawing(5.6, 3.4)
        ax = drawing.subplots()
        for i, (name, values) in enumerate(curves.items()):
            colour, kind = SERIES[i % len(SERIES)], LINE_STYLES[i % len(LINE_STYLES)]
            ax.plot(
                x.numpy(), values.numpy(), label=name, color=colour, linestyle=kind,
                marker=MARKERS[i % len(MARKERS)], markersize=3.5, markevery=max(1, len(x) // 12),
            )  # fmt: skip
            if bands and name in bands:
                low, high = bands[name]
                ax.fill_between(x.numpy(), low.numpy(), high.numpy(), color=colour, alpha=0.15, linewidth=0)
        ax.set(xlabel=x_label, ylabel=y_label)
        if len(curves) > 1:
            ax.legend()
    return drawing


def histogram_pair(
    first: Float[Tensor, " N"],
    second: Float[Tensor, " M"],
    *,
    names: tuple[str, str],
    x_label: str,
    bins: int = 30,
) -> Drawing:
    """Draw two distributions in shares, on the same bins: one filled, one as a dark outline.

    Values that are not finite are left out, and the legend counts what is shown.
    """
    samples = [sample[sample.isfinite()].numpy() for sample in (first, second)]
    together = np.concatenate(samples)
    edges = np.histogram_bin_edges(together, bins=bins) if len(together) else np.linspace(0, 1, bins + 1)
    with house_style():
        drawing = new_drawing(5.6, 3.0)
        ax = drawing.subplots()
        looks: tuple[dict[str, Any], ...] = (
            {"fill": True, "facecolor": "#9cc5e0", "edgecolor": "#9cc5e0"},
            {"fill": False, "edgecolor": "#8a3b00", "linewidth": 1.6, "linestyle": "--"},
        )
        for sample, name, look in zip(samples, names, looks, strict=True):
            shares = np.histogram(sample, edges)[0] / max(1, len(sample))
            ax.stairs(shares, edges, label=f"{name} (n = {len(sample)})", **look)
        ax.set(xlabel=x_label, ylabel="share of images", ylim=(0, None))
        ax.legend()
    return drawing


def rate_bars(
    rates: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    *,
    groups: Sequence[str],
    y_label: str,
) -> Drawing:
    """Draw rates in [0, 1] as bars with intervals, one bar a series in each group.

    Args:
        rates: name of each series to one rate a group; NaN leaves a gap.
        intervals: name of a series to `(low, high)` a group.
        groups: names under the bars.
        y_label: what the rate is.
    """
    places = np.arange(len(groups))
    width = 0.8 / max(1, len(rates))
    with house_style():
        entry = max(0.6 + 0.08 * len(name) for name in rates)
        # Wider than this it would be shrunk to a page's width, and nobody could read it.
        inches = min(_WIDEST, max(3.6, 0.32 * len(groups) * len(rates) + 1.8, len(rates) * entry))
        drawing = new_drawing(inches, 3.0)
        ax = drawing.subplots()
        for i, (name, values) in enumerate(rates.items()):
            heights = np.asarray(values, dtype=float)
            centre = places - 0.4 + (i + 0.5) * width
            ax.bar(
                centre, heights, width * 0.92, label=name, color=SERIES[i % len(SERIES)] + "99",
                edgecolor="#222222", linewidth=0.6, hatch=HATCHES[i % len(HATCHES)],
            )  # fmt: skip
            if intervals and name in intervals:
                low, high = np.asarray(intervals[name], dtype=float).T
                # A rate at the end of its interval may stand outside it by a rounding error.
                reach = np.clip([heights - low, high - heights], 0, None)
                ax.errorbar(centre, heights, reach, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
        crowded = sum(0.1 + 0.08 * len(name) for name in groups) > inches - 0.8
        ax.set_xticks(places, groups, rotation=45 if crowded else 0, ha="right" if crowded else "center")
        ax.set(ylabel=y_label, ylim=(0, 1.02), xlim=(-0.6, len(groups) - 0.4))
        ax.grid(False, axis="x")
        if len(rates) > 1:
            drawing.legend(loc="outside upper right", ncols=min(len(rates), max(1, int(inches / entry))))
    return drawing
