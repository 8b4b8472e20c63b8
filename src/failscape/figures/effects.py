"""Signed effects with their intervals, matrices of them, and pairs of histograms side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES, diverging_map
from failscape.figures.style import MINUS, house_style, new_drawing


def signed_effects(
    values: Float[Tensor, " T"], half_widths: Float[Tensor, " T"], *, names: Sequence[str], x_label: str
) -> Drawing:
    """Draw signed values as points with intervals, one a line, the first on top.

    Args:
        values: of either sign.
        half_widths: of their intervals.
        names: one a value.
        x_label: what the value is, with its unit.
    """
    places = np.arange(len(names))[::-1]
    with house_style():
        drawing = new_drawing(6.2, 0.24 * len(names) + 0.9)
        ax = drawing.subplots()
        ax.axvline(0, color="#222222", linewidth=1)
        for sign, colour, marker in ((-1, SERIES[1], "o"), (1, SERIES[0], "s")):
            rows = (values.sign() == sign).numpy()
            ax.errorbar(
                values.numpy()[rows], places[rows], xerr=half_widths.numpy()[rows], fmt=marker, color=colour,
                markersize=4.5, elinewidth=1.2, capsize=2.5,
            )  # fmt: skip
        ax.set_yticks(places, names)
        ax.set(xlabel=x_label, ylim=(-0.7, len(names) - 0.3))
        ax.grid(False, axis="y")
    return drawing


def effect_matrix(
    values: Float[Tensor, "R S"], *, row_labels: Sequence[str], column_labels: Sequence[str], label: str
) -> Drawing:
    """Draw signed values as a matrix in the diverging map, zero in the middle, each with its number.

    Args:
        values: of either sign; NaN is left blank.
        row_labels: R names.
        column_labels: S names.
        label: what is shown, with its unit.
    """
    shown = values.numpy()
    finite = np.abs(shown[np.isfinite(shown)])
    scale = float(finite.max()) if len(finite) and finite.max() > 0 else 1.0
    with house_style():
        drawing = new_drawing(0.62 * len(column_labels) + 1.6, 0.34 * len(row_labels) + 0.9)
        ax = drawing.subplots()
        picture = ax.imshow(shown, cmap=diverging_map(), vmin=-scale, vmax=scale, aspect="auto")
        for row, column in np.argwhere(np.isfinite(shown)):
            value = shown[row, column]
            # The map runs from dark to light, middle grey at zero.
            ink = "#ffffff" if value < 0.15 * scale else "#111111"
            text = f"{value:.2f}".replace("-", MINUS)
            ax.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)
        ax.set_xticks(range(len(column_labels)), column_labels)
        ax.set_yticks(range(len(row_labels)), row_labels)
        ax.grid(False)
        bar = drawing.colorbar(picture, ax=ax, fraction=0.04, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
    return drawing


def histogram_grid(
    panels: Mapping[str, tuple[Float[Tensor, " N"], Float[Tensor, " M"]]],
    *,
    names: tuple[str, str],
    columns: int,
    bins: int = 30,
) -> Drawing:
    """Draw pairs of distributions in shares, a panel each: one filled, one as a dark outline.

    Args:
        panels: title to the two samples; a panel whose samples are both empty stays blank.
        names: of the two samples, for the legend.
        columns: panels side by side.
        bins: the same for both samples of a panel.
    """
    rows = -(-len(panels) // columns)
    with house_style():
        drawing = new_drawing(2.6 * columns, 2.0 * rows + 0.4)
        axes = drawing.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        for ax, (title, samples) in zip(axes.flat, panels.items(), strict=False):
            ax.set_title(title, fontsize=8.5)
            together = np.concatenate([sample.numpy() for sample in samples])
            if not len(together):
                continue
            edges = np.histogram_bin_edges(together, bins=bins)
            first, second = (np.histogram(sample.numpy(), edges)[0] / max(1, len(sample)) for sample in samples)
            ax.stairs(first, edges, label=names[0], fill=True, facecolor="#9cc5e0", edgecolor="#9cc5e0")
            ax.stairs(second, edges, label=names[1], edgecolor="#8a3b00", linewidth=1.4, linestyle="--")
            ax.set_ylim(0, None)
        for ax in axes[:, 0]:
            ax.set_ylabel("share of samples")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper left", ncols=2)
    return drawing
