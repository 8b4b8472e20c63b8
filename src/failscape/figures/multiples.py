"""One small panel a curve: where many curves with bands would hide each other in one."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import SERIES
from failscape.figures.style import house_style, new_drawing

_MOST_COLUMNS = 5
_OTHERS = "#c4c4c4"


def small_multiples(
    x: Float[Tensor, " T"],
    curves: Mapping[str, Float[Tensor, " T"]],
    *,
    bands: Mapping[str, tuple[Float[Tensor, " T"], Float[Tensor, " T"]]],
    notes: Sequence[str] = (),
    x_label: str,
    y_label: str,
) -> Drawing:
    """Draw each curve with its band in a panel of its own, all others behind it in grey, on common axes.

    Args:
        x: positions.
        curves: name to values; NaN leaves a gap.
        bands: name of a curve to the lower and upper end of its band.
        notes: none, or one a curve, which stands after its name.
        x_label: what the axis is, with its unit.
        y_label: likewise.
    """
    assert curves, "a panel needs a curve"
    assert len(notes) in (0, len(curves)), notes
    columns = min(_MOST_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    with house_style():
        drawing = new_drawing(1.0 + 1.6 * columns, 0.6 + 1.6 * rows)
        axes = drawing.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for i, name in enumerate(curves):
            ax = axes[i]
            for other, values in curves.items():
                if other != name:
                    ax.plot(x.numpy(), values.numpy(), color=_OTHERS, linewidth=0.7, linestyle="-")
            if name in bands:
                low, high = bands[name]
                ax.fill_between(x.numpy(), low.numpy(), high.numpy(), color=SERIES[0], alpha=0.25, linewidth=0)
            ax.plot(
                x.numpy(), curves[name].numpy(), color=SERIES[0], linestyle="-", marker="o", markersize=2.5, zorder=3
            )
            ax.set_title(f"{name}   {notes[i]}" if notes else name, fontsize=8.5)
        for ax in list(axes)[len(curves) :]:
            ax.set_visible(False)
        drawing.supxlabel(x_label, fontsize=9, color="#222222")
        drawing.supylabel(y_label, fontsize=9, color="#222222")
    return drawing
