"""A path of images with curves beneath: what is met on the way, and what is said of it."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.grids import show_image
from failscape.figures.style import MARKERS, house_style, new_drawing

_WIDTH = 7.2


def path_drawing(
    images: Float[Tensor, "S C H W"],
    position: Float[Tensor, " T"],
    curves: Mapping[str, Float[Tensor, " T"]],
    *,
    second: Mapping[str, Float[Tensor, " T"]] | None = None,
    changes: Sequence[float] = (),
    x_label: str,
    y_label: str,
) -> Drawing:
    """Draw images evenly spaced from one end to the other, and under them curves over the same way.

    Args:
        images: from the first to the last.
        position: where the curves have values, from 0 to 1.
        curves: name to values in [0, 1].
        second: name of a curve to what another observer says of the same, dotted in the curve's colour.
        changes: positions to be marked, such as where a verdict changes.
        x_label: what the axis is, with its unit.
        y_label: likewise.
    """
    count = len(images)
    with house_style():
        drawing = new_drawing(_WIDTH, _WIDTH / count + 2.7)
        grid = drawing.add_gridspec(2, count, height_ratios=[_WIDTH / count, 2.5])
        for column in range(count):
            show_image(drawing.add_subplot(grid[0, column]), images[column])
        ax = drawing.add_subplot(grid[1, :])
        for place in changes:
            ax.axvline(place, color="#777777", linewidth=0.9, linestyle=(0, (2, 2)))
        for i, (name, values) in enumerate(curves.items()):
            colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            ax.plot(
                position.numpy(), values.numpy(), label=name, color=colour, linestyle="-",
                marker=marker, markersize=3.5, markevery=max(1, len(position) // 12),
            )  # fmt: skip
            if second and name in second:
                ax.plot(position.numpy(), second[name].numpy(), color=colour, linestyle=":", linewidth=1.3)
        # Half an image beyond the ends, so that each image stands above its own position.
        edge = 0.5 / max(1, count - 1)
        ax.set(xlabel=x_label, ylabel=y_label, xlim=(-edge, 1 + edge), ylim=(-0.02, 1.04))
        drawing.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(curves)))
    return drawing
