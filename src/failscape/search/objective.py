"""What a search is given: a score of latent perturbations, valid where it is not negative."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# From perturbations `(M, D)` and the row of the problem that each belongs to `(M,)` to scores `(M,)`. A score
# that is not negative means valid. Rows do not influence each other.
Objective = Callable[[Tensor, Tensor], Tensor]

_CHUNK = 1024


def value_and_gradient(
    objective: Objective, epsilon: Float[Tensor, "M D"], rows: Int[Tensor, " M"]
) -> tuple[Float[Tensor, " M"], Float[Tensor, "M D"]]:
    """Return the score of each perturbation and its gradient."""
    with torch.enable_grad():
        epsilon = epsilon.detach().requires_grad_()
        scores = objective(epsilon, rows)
        (gradient,) = torch.autograd.grad(scores.sum(), epsilon)
    return scores.detach(), gradient


@torch.no_grad()
def scores_of(
    objective: Objective, candidates: Float[Tensor, "M C D"], rows: Int[Tensor, " M"]
) -> Float[Tensor, "M C"]:
    """Return the score of each of C candidates for each row, without gradients and with bounded memory."""
    count = candidates.shape[1]
    if not len(rows):
        return candidates.new_empty(0, count)
    flat, owners = candidates.flatten(0, 1), rows.repeat_interleave(count)
    parts = [objective(e, r) for e, r in zip(flat.split(_CHUNK), owners.split(_CHUNK), strict=True)]
    scores: Tensor = torch.cat(parts).unflatten(0, (len(rows), count))
    return scores


def is_valid(scores: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Tell where a score means valid."""
    return scores >= 0
