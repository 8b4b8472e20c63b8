"""Samples of several spaces as points of the plane, by class and by whether they are misclassified."""

from collections.abc import Mapping, Sequence

from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing

# Tol, "Colour Schemes", 2021: nine muted colours that colour blindness does not confuse, and black.
_CLASSES = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
_RIGHT, _WRONG = "#9fb9cb", SERIES[1]


def latent_maps(
    positions: Mapping[str, Float[Tensor, "N 2"]],
    labels: Int[Tensor, " N"],
    wrong: Bool[Tensor, " N"],
    *,
    class_names: Sequence[str],
    notes: Sequence[tuple[str, str]] = (),
) -> Drawing:
    """Draw a column a space: above the samples by class, below by whether they are misclassified.

    Misclassified samples are crosses in both, so that nothing hangs on colour alone.

    Args:
        positions: name of each space to the points.
        labels: class of each sample; colours come round again after ten.
        wrong: whether it is misclassified.
        class_names: names of the classes.
        notes: none, or for each space what to write over its panels.
    """
    assert len(notes) in (0, len(positions)), notes
    present = labels.unique().tolist()
    with house_style():
        drawing = new_drawing(0.3 + 3.0 * len(positions), 6.9)
        axes = drawing.subplots(2, len(positions), squeeze=False)
        for column, (name, points) in enumerate(positions.items()):
            above, below = axes[:, column]
            for label in present:
                mine, colour = labels == label, _CLASSES[label % len(_CLASSES)]
                _dots(above, points[mine & ~wrong], colour, class_names[label])
                _crosses(above, points[mine & wrong], colour)
            _dots(below, points[~wrong], _RIGHT, "rightly classified")
            _crosses(below, points[wrong], _WRONG, "misclassified")
            for ax, note in zip((above, below), notes[column] if notes else ("", ""), strict=True):
                ax.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
                ax.set_title(f"{name}   {note}" if note else name, fontsize=9)
                for spine in ax.spines.values():
                    spine.set(visible=True, color="#cccccc", linewidth=0.5)
        handles, names = axes[0, 0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside upper left", ncols=10, markerscale=3, handletextpad=0.2)
        handles, names = axes[1, 0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower left", ncols=2, markerscale=2, handletextpad=0.2)
    return drawing


def _dots(ax: Axes, points: Float[Tensor, "M 2"], colour: str, name: str) -> None:
    ax.plot(
        *points.numpy().T, linestyle="none", marker="o", markersize=2.4, markeredgewidth=0, color=colour, alpha=0.8,
        rasterized=True, label=name,
    )  # fmt: skip


def _crosses(ax: Axes, points: Float[Tensor, "M 2"], colour: str, name: str | None = None) -> None:
    ax.plot(
        *points.numpy().T, linestyle="none", marker="x", markersize=4.2, markeredgewidth=1.1, color=colour,
        rasterized=True, label=name, zorder=3,
    )  # fmt: skip
