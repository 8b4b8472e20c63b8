"""Drawings of which everything is known."""

import math

import torch
from torch import Tensor

# Points along either axis of a pixel whose mean is the pixel's value.
_FINE = 10


def bar(
    width: float,
    length: float = 18,
    *,
    angle: float = 0,
    shear: float = 0,
    at: tuple[float, float] = (0, 0),
    side: int = 28,
) -> Tensor:
    """Draw an upright white bar on black, `(side, side)`, edges in grey as far as they cover a pixel.

    Args:
        width: in pixels.
        length: in pixels.
        angle: by which it is turned clockwise, in degrees.
        shear: by which it leans to the right, in degrees.
        at: its centre, px to the right and downwards from that of the image.
        side: of the image.
    """
    fine = (torch.arange(side * _FINE, dtype=torch.float64) + 0.5) / _FINE - side / 2
    right, down = fine[None, :] - at[0], fine[:, None] - at[1]
    right = right + math.tan(math.radians(shear)) * down
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across, along = right * cos + down * sin, down * cos - right * sin
    inside = (across.abs() < width / 2) & (along.abs() < length / 2)
    return inside.double().reshape(side, _FINE, side, _FINE).mean(dim=(1, 3)).float()


def images(*drawings: Tensor) -> Tensor:
    """Put drawings together as images of one channel."""
    return torch.stack(drawings)[:, None]
