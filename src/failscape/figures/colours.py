"""Colours that survive colour blindness and a black-and-white printer."""

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import ListedColormap

# Okabe and Ito, "Color Universal Design", 2008; the yellow is left out, being too pale for lines on white.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

# Light tints for class areas; dark text is legible on each, and neighbours in the list differ in lightness.
_TINTS = (
    "#cfe3f1", "#fbe3c0", "#c9e8dc", "#f1d5e3", "#e4e4ea",
    "#fdf3b5", "#f6cdbb", "#d8d0ee", "#dbeeb8", "#c6ecf2",
)  # fmt: skip

# Lightness and hue of the diverging map at +1. The hue direction has no Rec. 709 luma, so the luma of the
# map rises evenly from dark (removed) by middle grey (zero) to light (added) and is readable without colour.
_LIGHTNESS = 0.72
_HUE = 0.6 * np.array([0.46, -0.0358, -1.0])


def diverging(values: Float[np.ndarray, "*S"], scale: float = 1.0) -> UInt8[np.ndarray, "*S 3"]:
    """Colour signed values: dark blue below zero, middle grey at zero, light gold above.

    Zero is exactly `(128, 128, 128)` and the map is symmetrical: the colours of `+a` and `-a` add up to 256
    in each channel, so equal sizes lie equally far from grey.

    Args:
        values: any shape; clipped to `[-scale, scale]`.
        scale: the value that gets the full colour, positive.
    """
    assert scale > 0, scale
    t = np.clip(np.asarray(values, dtype=np.float64)[..., None] / scale, -1, 1)
    offset = _LIGHTNESS * t + _HUE * t * (2 - np.abs(t))
    colours: UInt8[np.ndarray, "*S 3"] = (128 + np.rint(127 * offset)).astype(np.uint8)
    return colours


@cache
def diverging_map() -> ListedColormap:
    """Return `diverging` as a matplotlib colour map of 255 colours with zero in the middle."""
    return ListedColormap(diverging(np.linspace(-1, 1, 255)) / 255, name="failscape-diverging")


def class_tint(label: int) -> str:
    """Return the light tint of a class area as `#rrggbb`; tints come round again after ten classes."""
    return _TINTS[label % len(_TINTS)]
