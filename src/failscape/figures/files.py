"""Figures as files: whole plots, and single pictures encoded fast enough for a gallery of thousands."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure as Drawing
from PIL import Image
from torch import Tensor

from failscape.figures.colours import diverging
from failscape.figures.figure import Plot
from failscape.figures.style import house_style
from failscape.storage import write_bytes

# A difference smaller than one of the 256 grey values cannot be seen in a saved image; to blow it up to full
# colour would show rounding noise as if it were a finding.
_SMALLEST_SCALE = 1 / 255


def save_plot(figure: Plot, folder: Path) -> tuple[Path, Path]:
    """Draw a plot and save it as `NAME.png` and `NAME.svg`.

    The same plot gives the same bytes: no date and no random identifiers are written.

    Returns:
        the two paths.

    Raises:
        StorageError: if the folder cannot be written.
    """
    with house_style():
        drawing = figure.draw()
    paths = (folder / f"{figure.name}.png", folder / f"{figure.name}.svg")
    for path in paths:
        write_bytes(path, drawing_bytes(drawing, path.suffix.removeprefix(".")))
    return paths


def drawing_bytes(drawing: Drawing, kind: str) -> bytes:
    """Encode a drawing as "png" or "svg", free of dates."""
    target = io.BytesIO()
    metadata = {"Date": None, "Creator": "failscape"} if kind == "svg" else {"Software": "failscape"}
    with house_style():
        drawing.savefig(target, format=kind, metadata=metadata)
    return target.getvalue()


def png_bytes(
    pixels: Float[Tensor, "C H W"] | Float[Tensor, "H W"], *, signed: bool = False, scale: float | None = None
) -> bytes:
    """Encode one picture as PNG.

    Args:
        pixels: in [0, 1], one channel (grey) or three (RGB); or signed values.
        signed: draw zero as middle grey: one channel in the colours of `diverging`, three channels each about
            its own middle grey.
        scale: the signed value that gets the full colour; by default `symmetrical_scale(pixels)`.
    """
    values = pixels.detach().cpu().double().numpy()
    values = values[None] if values.ndim == 2 else values
    assert len(values) in (1, 3), values.shape
    coloured = _signed(values, scale or symmetrical_scale(pixels)) if signed else _unsigned(values)
    target = io.BytesIO()
    Image.fromarray(coloured).save(target, format="PNG", optimize=True)
    return target.getvalue()


def symmetrical_scale(*pixels: Tensor) -> float:
    """Return the largest absolute value, and at least one grey value of 256, for maps centred on zero."""
    return max(_SMALLEST_SCALE, *(float(picture.abs().max()) for picture in pixels))


def _unsigned(values: Float[np.ndarray, "C H W"]) -> UInt8[np.ndarray, "..."]:
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    shown: np.ndarray = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    return shown


def _signed(values: Float[np.ndarray, "C H W"], scale: float) -> UInt8[np.ndarray, "H W 3"]:
    if len(values) == 1:
        return diverging(values[0], scale)
    offset = np.rint(127 * np.clip(values / scale, -1, 1))
    levels: UInt8[np.ndarray, "H W 3"] = (128 + offset).astype(np.uint8).transpose(1, 2, 0)
    return levels
