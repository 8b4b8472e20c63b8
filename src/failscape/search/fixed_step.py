"""Gradient descent with a fixed step, stopped at the first success: the published baseline."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# From perturbations `(M, D)` and their rows `(M,)` to losses `(M,)` and whether each succeeds `(M,)`.
StoppedLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Where the descent of each row ended.

    Attributes:
        epsilon: the first success of each row, or its last point where none was met, shape `(N, D)`.
        valid: whether it succeeded.
        steps: gradient evaluations made.
        path: every point passed, the start first; a row that is done repeats its last, shape `(N, T, D)`.
    """

    epsilon: Float[Tensor, "N D"]
    valid: Bool[Tensor, " N"]
    steps: Int[Tensor, " N"]
    path: Float[Tensor, "N T D"]


def descend_fixed_step(
    loss: StoppedLoss, start: Float[Tensor, "N D"], *, step: float = 0.1, max_steps: int = 500
) -> Descent:
    r"""Follow $\epsilon_{n+1} = \epsilon_n - \lambda \, \partial L / \partial \epsilon_n$ until the first success.

    Rows are independent, and one that is done leaves the batch.

    Args:
        loss: the loss and the stopping rule.
        start: where to begin, in latent units.
        step: $\lambda$.
        max_steps: give up after so many.

    References:
        "Explaining the Mistakes of Neural Networks with Latent Sympathetic Examples", eq. 2.
    """
    epsilon = start.clone()
    valid = torch.zeros(len(start), dtype=torch.bool)
    steps = torch.zeros(len(start), dtype=torch.long)
    rows = torch.arange(len(start))
    path = [epsilon.clone()]
    for _ in range(max_steps + 1):
        with torch.enable_grad():
            points = epsilon[rows].requires_grad_()
            losses, done = loss(points, rows)
            valid[rows] = done
            if done.all():
                break
            (gradient,) = torch.autograd.grad(losses.sum(), points)
        rows, gradient = rows[~done], gradient[~done]
        if int(steps[rows].max()) == max_steps:
            break
        epsilon[rows] -= step * gradient
        steps[rows] += 1
        path.append(epsilon.clone())
    return Descent(epsilon=epsilon, valid=valid, steps=steps, path=torch.stack(path, dim=1))
