"""Small random changes of training images that leave their labels true."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from failscape.training.distributed import workers


def jitter(
    x: Float[Tensor, "N C H W"],
    *,
    rng: torch.Generator,
    max_shift: float = 2.0,
    max_angle: float = 10.0,
    max_scale: float = 0.1,
) -> Float[Tensor, "N C H W"]:
    """Shift, turn and scale each image by its own random amounts, drawn evenly; edges are continued.

    Args:
        x: images.
        rng: the source of the amounts.
        max_shift: in pixels, to each side.
        max_angle: in degrees, to each side.
        max_scale: 0.1 means from 0.9 to 1.1 times.
    """
    height, width = x.shape[2:]
    # One row an image, so that each of several processes can keep its own.
    amounts = workers().mine(lambda m: torch.rand(4, m, generator=rng).T, len(x)).T
    turn, zoom, across, down = (2 * amounts - 1).to(x.device)
    angle, scale = turn * math.radians(max_angle), 1 + zoom * max_scale
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # `affine_grid` counts both axes from -1 to 1: a rotation needs the aspect ratio, and a shift the size.
    theta = torch.stack(
        [
            torch.stack([cos, -sin * (height / width), across * (2 * max_shift / width)], dim=1),
            torch.stack([sin * (width / height), cos, down * (2 * max_shift / height)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False).clamp(0, 1)
