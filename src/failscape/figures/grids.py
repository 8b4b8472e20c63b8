"""Images in rows and columns, and signed differences centred on zero."""

from collections.abc import Collection, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures.colours import diverging_map
from failscape.figures.files import symmetrical_scale
from failscape.figures.style import MINUS, house_style, new_drawing


def image_grid(
    images: Float[Tensor, "R S C H W"],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell_labels: Sequence[str] = (),
    signed_columns: Collection[int] = (),
    cell: float = 0.9,
) -> Drawing:
    """Draw R × S images with labels at the left and on top, every pixel a square.

    Args:
        images: in [0, 1], grey or RGB; columns of `signed_columns` in [-1, 1].
        row_labels: none, or R.
        column_labels: none, or S.
        cell_labels: none, or R × S, row by row, above each image.
        signed_columns: columns drawn in the diverging map, on one scale that the colour bar states.
        cell: inches an image.
    """
    rows, columns = images.shape[:2]
    assert len(row_labels) in (0, rows), row_labels
    assert len(column_labels) in (0, columns), column_labels
    assert len(cell_labels) in (0, rows * columns), cell_labels
    signed = sorted(signed_columns)
    scale = symmetrical_scale(images[:, signed]) if signed else 1.0
    with house_style():
        drawing = new_drawing(cell * columns + 0.6 * bool(row_labels), cell * rows + 0.3 + 0.5 * bool(signed))
        axes = drawing.subplots(rows, columns, squeeze=False)
        for row in range(rows):
            for column in range(columns):
                show_image(axes[row, column], images[row, column], column in signed, scale)
        for ax, label in zip(axes[0], column_labels, strict=False):
            ax.set_title(label, loc="center", fontsize=8.5)
        for ax, label in zip(axes.flat, cell_labels, strict=False):
            ax.set_title(label, loc="center", fontsize=8.5)
        for ax, label in zip(axes[:, 0], row_labels, strict=False):
            ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5)
        if signed:
            _colour_bar(drawing, axes[0, signed[0]], list(axes.flat), "horizontal")
    return drawing


def difference_map(values: Float[Tensor, "H W"], *, label: str, scale: float | None = None) -> Drawing:
    """Draw signed values in the diverging map with a colour bar, zero in the middle.

    Args:
        values: of either sign.
        label: what is shown, with its unit, for the colour bar.
        scale: where the map ends on both sides; by default the largest absolute value.
    """
    with house_style():
        drawing = new_drawing(3.6, 3.0)
        ax = drawing.subplots()
        show_image(ax, values[None], True, scale or symmetrical_scale(values))
        _colour_bar(drawing, ax, [ax], "vertical", label)
    return drawing


def show_image(ax: Axes, image: Float[Tensor, "C H W"], signed: bool = False, scale: float = 1.0) -> None:
    """Draw one image without ticks: in [0, 1], or if `signed` in the diverging map that ends at the scale."""
    pixels = image.detach().cpu()
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#cccccc", linewidth=0.5)
    if len(pixels) == 3:
        shown = (0.5 + 0.5 * pixels / scale if signed else pixels).clamp(0, 1)
        ax.imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
        return
    low, colours = (-scale, diverging_map()) if signed else (0.0, "gray")
    ax.imshow(pixels[0].numpy(), cmap=colours, vmin=low, vmax=scale if signed else 1.0, interpolation="nearest")


def _colour_bar(drawing: Drawing, ax: Axes, beside: list[Axes], orientation: str, label: str = "") -> None:
    picture = ax.images[0]
    pixels = picture.get_array()
    if pixels is None or pixels.ndim == 3:  # a colour image carries no map: its channels are about middle grey
        return
    bar = drawing.colorbar(picture, ax=beside, orientation=orientation, fraction=0.05, shrink=0.8, pad=0.02)
    low, high = picture.get_clim()
    bar.set_ticks([low, 0, high], labels=[f"{MINUS}{high:.2g}\nremoved", "0", f"+{high:.2g}\nadded"])
    bar.set_label(label)
    bar.outline.set_visible(False)
