"""What is reachable at all in two dimensions: every point of a fine grid is tried."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from failscape.search.objective import is_valid

_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class GridSearch:
    """The valid grid point nearest to the origin, for each row.

    Attributes:
        epsilon: that point, or NaN where no point of the grid is valid, shape `(N, 2)`.
        reachable: whether any point is valid.
    """

    epsilon: Float[Tensor, "N 2"]
    reachable: Bool[Tensor, " N"]


@torch.no_grad()
def search_grid(
    scores: Callable[[Tensor], Tensor],
    centres: Float[Tensor, "M 2"],
    low: Float[Tensor, " 2"],
    high: Float[Tensor, " 2"],
    *,
    resolution: int = 200,
) -> GridSearch:
    """Try every point of one square grid for all rows.

    Args:
        scores: from points of the plane `(P, 2)` to the score of each for each row `(M, P)`, valid where it is not
            negative.
        centres: the point of each row from which perturbations count.
        low: lower corner of the grid, in latent units.
        high: upper corner.
        resolution: points along each side.
    """
    epsilon = torch.full_like(centres, torch.nan)
    best = torch.full((len(centres),), torch.inf)
    for points in grid_points(low, high, resolution).split(_CHUNK):
        distance = torch.where(is_valid(scores(points)), torch.cdist(centres, points), torch.inf)
        nearest, place = distance.min(dim=1)
        better = nearest < best
        best[better] = nearest[better]
        epsilon[better] = points[place[better]] - centres[better]
    return GridSearch(epsilon=epsilon, reachable=best.isfinite())


def grid_points(low: Float[Tensor, " 2"], high: Float[Tensor, " 2"], resolution: int) -> Float[Tensor, "P 2"]:
    """Return the points of the grid; the first coordinate runs fastest."""
    axes = [torch.linspace(float(low[k]), float(high[k]), resolution) for k in (0, 1)]
    second, first = torch.meshgrid(axes[1], axes[0], indexing="ij")
    return torch.stack([first.flatten(), second.flatten()], dim=1)
