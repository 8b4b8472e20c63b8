from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from failscape.search import is_valid, least_change

NORMAL = torch.tensor([1.0, 3.0, 2.0])


def beyond(distances: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Say that a row is valid where it is so far along `NORMAL`."""
    return lambda epsilon, rows: epsilon @ NORMAL - distances[rows]


def length(weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda epsilon, rows: (epsilon * weights).norm(dim=1)


def steps_sideways(n: int) -> Tensor:
    return torch.tensor([3.0, 1.0, -1.0]) * torch.linspace(1, 2, n)[:, None]


class TestTruths:
    @pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 4.0, 1.0), (0.5, 1.0, 3.0)])
    def test_nearest_point_of_a_half_space_by_any_ellipse(self, weights: tuple[float, ...]) -> None:
        scale, distances = torch.tensor(weights), torch.linspace(0.5, 2, 5)
        # Lagrange: the point is in the direction of the normal divided by the squared weights.
        direction = NORMAL / scale.square()
        nearest = distances[:, None] * direction / (direction @ NORMAL)
        score, change = beyond(distances), length(scale)
        found = least_change(score, change, steps_sideways(5))
        rows = torch.arange(5)
        assert is_valid(score(found, rows)).all()
        assert (change(found, rows) / change(nearest, rows) - 1).max() < 0.05
        assert torch.allclose(found, nearest, atol=0.1)

    def test_a_sum_of_sizes_is_least_where_one_number_changes(self) -> None:
        found = least_change(beyond(torch.ones(2)), lambda epsilon, rows: epsilon.abs().sum(dim=1), steps_sideways(2))
        assert torch.allclose(found, torch.tensor([0.0, 1 / 3, 0.0]).expand(2, 3), atol=0.05)

    def test_where_the_least_is_inside_the_boundary_does_not_hold_it_back(self) -> None:
        found = least_change(
            lambda epsilon, rows: 10 - epsilon[:, 0], length(torch.ones(2)), torch.tensor([[3.0, 4.0], [9.0, -1.0]])
        )
        assert found.norm(dim=1).max() < 0.2

    @pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
    def test_the_unit_of_the_score_is_no_matter_if_the_room_is_in_it_too(self, unit: float) -> None:
        score, change = beyond(torch.ones(1)), length(torch.ones(3))
        found = least_change(lambda e, rows: unit * score(e, rows), change, steps_sideways(1), room=0.02 * unit)
        assert torch.allclose(found, least_change(score, change, steps_sideways(1)), atol=1e-3)

    def test_the_last_step_is_looked_at(self) -> None:
        start = torch.tensor([[4.0, 0.0, 0.0]])
        found = least_change(beyond(torch.ones(1)), length(torch.ones(3)), start, steps=1, rate=1.0)
        assert found.norm() < start.norm()


class TestPromises:
    def test_none_changes_more_than_its_start_or_is_no_longer_valid(self) -> None:
        start = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        rows = torch.arange(40)
        # Rough, so that many a step leads out.
        rough = lambda epsilon, rows: (7 * epsilon).sin().sum(dim=1) + epsilon @ NORMAL  # noqa: E731
        start *= rough(start, rows).sign()[:, None]
        change = length(torch.ones(3))
        assert is_valid(rough(start, rows)).all()
        found = least_change(rough, change, start, steps=20, rate=0.5)
        assert is_valid(rough(found, rows)).all()
        assert (change(found, rows) <= change(start, rows)).all()
        assert (change(found, rows) < change(start, rows)).any()

    def test_rows_do_not_influence_each_other(self) -> None:
        start, distances = steps_sideways(4), torch.linspace(0.5, 2, 4)
        together = least_change(beyond(distances), length(torch.ones(3)), start)
        alone = least_change(beyond(distances[2:3]), length(torch.ones(3)), start[2:3])
        assert torch.allclose(together[2:3], alone, atol=1e-5)

    def test_nothing_is_left_as_it_is(self) -> None:
        found = least_change(beyond(-torch.ones(2)), length(torch.ones(3)), torch.zeros(2, 3))
        assert torch.equal(found, torch.zeros(2, 3))
        assert len(least_change(beyond(torch.ones(0)), length(torch.ones(3)), torch.zeros(0, 3))) == 0

    def test_the_start_is_not_written_to(self) -> None:
        start = steps_sideways(3)
        kept = start.clone()
        least_change(beyond(torch.ones(3)), length(torch.ones(3)), start)
        assert torch.equal(start, kept)
