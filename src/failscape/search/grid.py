"""What is reachable at all in two dimensions: every point of a fine grid is tried."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.search.objective import Objective, is_valid, scores_of


@dataclass(frozen=True, kw_only=True)
class GridSearch:
    """The valid grid point nearest to the origin, for each row.

    Attributes:
        epsilon: that point, or NaN where no point of the grid is valid, shape `(N, 2)`.
        reachable: whether any point is valid.
    """

    epsilon: Float[Tensor, "N 2"]
    reachable: Bool[Tensor, " N"]


def search_grid(
    objective: Objective,
    low: Float[Tensor, "N 2"],
    high: Float[Tensor, "N 2"],
    rows: Int[Tensor, " N"],
    *,
    resolution: int = 200,
) -> GridSearch:
    """Try every point of a square grid over the box of each row.

    Args:
        objective: the score, valid where it is not negative.
        low: lower corner of the box of each row, in latent units.
        high: upper corner.
        rows: the row of the problem that each belongs to.
        resolution: points along each side.
    """
    epsilon = torch.full_like(low, torch.nan)
    for index, row in enumerate(rows):
        points = grid_points(low[index], high[index], resolution)
        scores = scores_of(objective, points[None], row[None])[0]
        valid = points[is_valid(scores)]
        if len(valid):
            epsilon[index] = valid[valid.norm(dim=1).argmin()]
    return GridSearch(epsilon=epsilon, reachable=~epsilon.isnan().any(dim=1))


def grid_points(low: Float[Tensor, " 2"], high: Float[Tensor, " 2"], resolution: int) -> Float[Tensor, "P 2"]:
    """Return the points of the grid; the first coordinate runs fastest."""
    axes = [torch.linspace(float(low[k]), float(high[k]), resolution) for k in (0, 1)]
    second, first = torch.meshgrid(axes[1], axes[0], indexing="ij")
    return torch.stack([first.flatten(), second.flatten()], dim=1)
