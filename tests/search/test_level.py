from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from failscape.search import Objective, reach_level

N, D = 40, 6


@dataclass(frozen=True)
class Bent:
    """Row n scores `bend(normal[n] · ε + offset[n])`: the nearest point of a level lies along the normal."""

    normal: Tensor
    offset: Tensor
    bend: Callable[[Tensor], Tensor]

    def __call__(self, epsilon: Tensor, rows: Tensor) -> Tensor:
        return self.bend((self.normal[rows] * epsilon).sum(dim=1) + self.offset[rows])

    def at_origin(self) -> Tensor:
        return self.bend(self.offset)


def bent(bend: Callable[[Tensor], Tensor]) -> Bent:
    rng = torch.Generator().manual_seed(0)
    return Bent(torch.randn(N, D, generator=rng), torch.randn(N, generator=rng), bend)


def identity(score: Tensor) -> Tensor:
    return score


def test_a_linear_score_is_met_in_one_step_by_the_smallest_move() -> None:
    score = bent(identity)
    level = torch.linspace(-3, 3, N)
    found = reach_level(score, level, D, steps=1, radius=1000.0)
    missing = (level - score.offset) / score.normal.square().sum(dim=1)
    assert torch.allclose(found.epsilon, missing[:, None] * score.normal, atol=1e-5)
    assert torch.allclose(found.value, level, atol=1e-5)


def test_a_step_is_no_longer_than_the_radius() -> None:
    score = bent(identity)
    found = reach_level(score, torch.full((N,), 1e6), D, steps=3, radius=0.5)
    assert torch.allclose(found.epsilon.norm(dim=1), torch.full((N,), 1.5))


@pytest.mark.parametrize(
    ("bend", "low", "high"),
    [
        # One flattens and is stepped short of, the other grows steeper and is stepped over.
        (lambda score: 5 * torch.tanh(score / 3), -4.0, 4.0),
        (lambda score: torch.sinh(score), -20.0, 20.0),
    ],
    ids=["flattens", "steepens"],
)
def test_a_bent_score_is_met_to_the_tolerance(bend: Any, low: float, high: float) -> None:
    score = bent(bend)
    level = torch.linspace(low, high, N)
    found = reach_level(score, level, D, steps=30, tolerance=0.01)
    assert (found.value - level).abs().max() <= 0.01
    # The value is that of the very point, which lies along the gradient and no farther than it must.
    assert torch.allclose(score(found.epsilon, torch.arange(N)), found.value, atol=1e-5)
    along = (found.epsilon * score.normal).sum(dim=1) / score.normal.norm(dim=1)
    assert torch.allclose(along.abs(), found.epsilon.norm(dim=1), atol=1e-4)


def test_of_a_level_that_cannot_be_reached_the_nearest_visited_is_kept() -> None:
    visited: list[tuple[Tensor, Tensor]] = []

    def hill(epsilon: Tensor, rows: Tensor) -> Tensor:
        """Score at most 1, where ε = (2, 0, …), so that a walk to 3 steps back and forth over the top."""
        score = 1 - (epsilon - 2 * torch.eye(D)[0]).square().sum(dim=1)
        visited.append((rows, score.detach()))
        return score

    found = reach_level(hill, torch.full((5,), 3.0), D, steps=8)
    scores = torch.stack([score for rows, score in visited if len(rows) == 5])
    assert len(scores) == 9
    assert torch.equal(found.value, scores.max(dim=0).values)
    assert torch.allclose(found.value, torch.ones(5), atol=0.05)
    assert torch.equal(hill(found.epsilon, torch.arange(5)), found.value)


def test_without_steps_it_stays_at_the_origin() -> None:
    score = bent(torch.sinh)
    found = reach_level(score, torch.linspace(-3, 3, N), D, steps=0)
    assert torch.equal(found.epsilon, torch.zeros(N, D))
    assert torch.allclose(found.value, score.at_origin())


def test_a_score_without_slope_is_left_alone() -> None:
    found = reach_level(lambda epsilon, rows: 0 * epsilon.sum(dim=1) + 0.25, torch.ones(3), D)
    assert torch.equal(found.epsilon, torch.zeros(3, D))
    assert torch.equal(found.value, torch.full((3,), 0.25))


def test_rows_do_not_influence_each_other() -> None:
    score = bent(lambda s: 5 * torch.tanh(s / 3))
    level = torch.linspace(-4, 4, N)
    together = reach_level(score, level, D, steps=6)
    for rows in (torch.tensor([3]), torch.tensor([30, 7])):
        part = Bent(score.normal[rows], score.offset[rows], score.bend)
        alone = reach_level(part, level[rows], D, steps=6)
        assert torch.allclose(alone.epsilon, together.epsilon[rows], atol=1e-5)
        assert torch.allclose(alone.value, together.value[rows], atol=1e-5)


def test_rows_that_are_near_enough_are_not_asked_about_again(counted: Callable[[Objective, int], Any]) -> None:
    score = bent(identity)
    level = score.offset.clone()
    level[::2] += 0.5
    asked = counted(score, N)
    reach_level(asked, level, D, steps=10, radius=100.0, tolerance=0.01)
    assert asked.gradients[1::2].tolist() == [1] * (N // 2)
    assert asked.gradients[::2].tolist() == [2] * (N // 2)


def test_no_rows() -> None:
    found = reach_level(lambda epsilon, rows: epsilon.sum(dim=1), torch.empty(0), D)
    assert (found.epsilon.shape, found.value.shape) == ((0, D), (0,))
