"""The perturbation at which a score takes a wanted value, in few steps, for many rows at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.search.objective import Objective, value_and_gradient


@dataclass(frozen=True, kw_only=True)
class Level:
    """The best that was found for each row.

    Attributes:
        epsilon: where the score came nearest to the level, shape `(N, D)`.
        value: the score there.
    """

    epsilon: Float[Tensor, "N D"]
    value: Float[Tensor, " N"]


def reach_level(
    objective: Objective,
    level: Float[Tensor, " N"],
    latent_dim: int,
    *,
    steps: int = 10,
    radius: float = 1.0,
    tolerance: float = 0.01,
) -> Level:
    r"""Walk from the origin to where the score takes the wanted value.

    A step goes to the nearest point at which the linearised score takes it,
    $\epsilon^+ = \epsilon + (t - s) \, g / \|g\|^2$, and no farther than the trust radius of its row, which is halved
    when the wanted value has been stepped over. Started from the origin, such steps stay near the smallest
    perturbation.

    Args:
        objective: the score.
        level: $t$, the wanted value of each row.
        latent_dim: D.
        steps: moves at most; the score is evaluated once more than that.
        radius: the largest first step, in latent units.
        tolerance: a row that is so near its level is done.
    """
    count = len(level)
    epsilon = torch.zeros(count, latent_dim)
    best = Level(epsilon=epsilon.clone(), value=torch.full((count,), torch.inf))
    size = torch.full((count,), radius)
    before = torch.zeros(count)
    rows = torch.arange(count)
    for index in range(steps + 1):
        value, gradient = value_and_gradient(objective, epsilon[rows], rows)
        missing = level[rows] - value
        nearer = missing.abs() < (level[rows] - best.value[rows]).abs()
        best.epsilon[rows[nearer]], best.value[rows[nearer]] = epsilon[rows[nearer]], value[nearer]
        if index == steps:
            break
        size[rows] *= torch.where(missing.sign() * before[rows] < 0, 0.5, 1.0)
        before[rows] = missing.sign()
        move = (missing / gradient.square().sum(dim=1).clamp_min(1e-12))[:, None] * gradient
        move *= (size[rows] / move.norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None]
        epsilon[rows] += move
        rows = rows[missing.abs() > tolerance]
        if not len(rows):
            break
    return best
