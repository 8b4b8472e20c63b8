"""Problems whose nearest valid point is known by analysis."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from failscape.search import Objective


@dataclass(frozen=True)
class HalfSpaces:
    """Row n is valid where `normal[n] · ε >= offset[n]`: the nearest point has the norm offset / ‖normal‖."""

    normal: Tensor
    offset: Tensor

    def __call__(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        return (self.normal[rows] * epsilon).sum(dim=1) - self.offset[rows]

    @property
    def nearest(self) -> Tensor:
        return self.normal * (self.offset / self.normal.square().sum(dim=1))[:, None]


@dataclass(frozen=True)
class Balls:
    """Row n is valid within a ball away from the origin: the nearest point has the norm ‖centre‖ - radius."""

    centre: Tensor
    radius: Tensor

    def __call__(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        return self.radius[rows].square() - (epsilon - self.centre[rows]).square().sum(dim=1)

    @property
    def nearest(self) -> Tensor:
        distance = self.centre.norm(dim=1, keepdim=True)
        return self.centre * (1 - self.radius[:, None] / distance)


@dataclass
class Counted:
    """An objective that counts, for each row, how often its gradient was asked for."""

    objective: Objective
    n: int
    gradients: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.gradients = torch.zeros(self.n, dtype=torch.long)

    def __call__(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        if epsilon.requires_grad:
            self.gradients += rows.bincount(minlength=self.n)
        return self.objective(epsilon, rows)


@pytest.fixture
def half_spaces() -> HalfSpaces:
    rng = torch.Generator().manual_seed(0)
    return HalfSpaces(torch.randn(40, 6, generator=rng), 0.1 + 5 * torch.rand(40, generator=rng))


@pytest.fixture
def balls() -> Balls:
    rng = torch.Generator().manual_seed(1)
    centre = 3 * torch.randn(40, 6, generator=rng)
    return Balls(centre, centre.norm(dim=1) * (0.2 + 0.6 * torch.rand(40, generator=rng)))


@pytest.fixture
def counted() -> Callable[[Objective, int], Counted]:
    return Counted
