from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from failscape.search import MinimalNorm, Objective, is_valid, minimal_norm


def search(objective: Objective, n: int, dim: int, candidates: Tensor | None = None, **options: Any) -> MinimalNorm:
    candidates = torch.zeros(n, 1, dim) if candidates is None else candidates
    return minimal_norm(objective, candidates, rng=torch.Generator().manual_seed(0), **options)


def assert_nearest(found: MinimalNorm, objective: Any, tolerance: float = 0.01) -> None:
    assert found.valid.all()
    assert is_valid(objective(found.epsilon, torch.arange(len(found.epsilon)))).all()
    excess = found.epsilon.norm(dim=1) / objective.nearest.norm(dim=1) - 1
    assert excess.min() > -1e-4, "nearer than the nearest: the problem is wrong"
    assert excess.max() < tolerance
    assert torch.allclose(found.epsilon, objective.nearest, atol=0.15 * float(objective.nearest.norm(dim=1).max()))


class TestTruths:
    def test_nearest_point_of_a_half_space(self, half_spaces: Any) -> None:
        assert_nearest(search(half_spaces, 40, 6), half_spaces)

    @settings(max_examples=25, deadline=None)
    @given(slope=st.floats(0.01, 100), distance=st.floats(0.05, 4), dim=st.integers(1, 12))
    def test_nearest_point_of_a_half_space_of_any_slope(self, slope: float, distance: float, dim: int) -> None:
        normal = slope * torch.ones(dim) / dim**0.5
        found = search(lambda e, r: e @ normal - slope * distance, 1, dim)
        assert found.valid.all()
        assert found.epsilon.norm().item() == pytest.approx(distance, rel=0.01)

    def test_nearest_point_of_a_ball(self, balls: Any) -> None:
        assert_nearest(search(balls, 40, 6, candidates=balls.centre[:, None]), balls)

    def test_nearest_point_of_a_ball_that_a_candidate_lies_in(self) -> None:
        centre, radius = torch.tensor([4.0, 0.0, 3.0]), 1.0

        def score(epsilon: Tensor, rows: Tensor) -> Tensor:
            # Flat far away: without the candidate there is no gradient to follow.
            return (radius - (epsilon - centre).norm(dim=1)).clamp_min(-0.5)

        candidates = torch.stack([torch.full((3,), -5.0), centre + 0.3])[None]
        found = search(score, 1, 3, candidates=candidates)
        assert found.valid.all()
        assert found.epsilon.norm().item() == pytest.approx(4.0, rel=0.02)

    def test_of_two_valid_regions_the_nearer(self) -> None:
        near, far = torch.tensor([0.0, -2.0]), torch.tensor([3.0, 0.0])

        def score(epsilon: Tensor, rows: Tensor) -> Tensor:
            return torch.maximum(0.5 - (epsilon - near).norm(dim=1), 0.5 - (epsilon - far).norm(dim=1))

        found = search(score, 1, 2, candidates=torch.stack([far, near])[None])
        assert found.epsilon.norm().item() == pytest.approx(1.5, rel=0.01)

    def test_what_is_valid_already_needs_nothing(self) -> None:
        found = search(lambda e, r: 1.0 - e.square().sum(dim=1), 3, 2, candidates=torch.full((3, 2, 2), 0.4))
        assert found.valid.all()
        assert found.epsilon.norm(dim=1).tolist() == [0.0] * 3

    def test_rows_that_cannot_be_valid_say_so_and_do_their_best(self) -> None:
        reachable = torch.tensor([True, False, True])
        centre = torch.tensor([0.5, 0.5])

        def score(epsilon: Tensor, rows: Tensor) -> Tensor:
            inside = 0.2 - (epsilon - centre).norm(dim=1)
            return torch.where(reachable[rows], inside, inside - 1)

        found = search(score, 3, 2)
        assert found.valid.tolist() == reachable.tolist()
        best = score(found.epsilon, torch.arange(3))
        assert best[1] > score(torch.zeros(1, 2), torch.tensor([1]))[0]

    def test_where_the_gradient_vanishes_nothing_breaks(self) -> None:
        found = search(lambda e, r: 0 * e.sum(dim=1) - 1, 2, 3)
        assert not found.valid.any()
        assert found.epsilon.isfinite().all()


class TestConduct:
    def test_a_row_is_searched_the_same_alone_and_in_a_batch(self, balls: Any) -> None:
        rng = torch.Generator().manual_seed(5)
        candidates = balls.centre[:, None] + torch.randn(40, 4, 6, generator=rng)
        together = search(balls, 40, 6, candidates=candidates, rounds=0)
        for row in range(0, 40, 7):
            alone = search(
                lambda e, r, row=row: balls(e, r + row), 1, 6, candidates=candidates[row : row + 1], rounds=0
            )
            assert torch.equal(alone.epsilon[0], together.epsilon[row])
            assert torch.equal(alone.steps[0], together.steps[row])
            assert torch.equal(alone.path[0], together.path[row])

    @pytest.mark.parametrize("rounds", [0, 2])
    def test_steps_are_the_gradients_asked_for(
        self, balls: Any, counted: Callable[[Objective, int], Any], rounds: int
    ) -> None:
        objective = counted(balls, 40)
        found = search(objective, 40, 6, rounds=rounds, starts=3, steps=5)
        assert torch.equal(found.steps, objective.gradients)
        # The origin and one candidate at first, then three starts a round, five steps each.
        assert found.steps.max() <= 5 * (2 + 3 * rounds)
        assert found.steps.min() >= 1

    def test_path_leads_from_the_origin_to_what_was_found(self, balls: Any) -> None:
        found = search(balls, 40, 6, steps=9)
        assert found.path.shape == (40, 11, 6)
        assert found.path[:, 0].abs().max() == 0
        assert torch.equal(found.path[:, -1], found.epsilon)

    def test_same_random_stream_same_result(self, balls: Any) -> None:
        one, two = (search(balls, 40, 6, candidates=torch.ones(40, 2, 6)) for _ in range(2))
        assert torch.equal(one.epsilon, two.epsilon)
        before = torch.random.get_rng_state()
        search(balls, 40, 6)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_what_is_valid_already_leaves_at_once(self, counted: Callable[[Objective, int], Any]) -> None:
        objective = counted(lambda e, r: 1.0 - e.square().sum(dim=1), 3)
        search(objective, 3, 2, candidates=torch.full((3, 2, 2), 0.4), starts=3, rounds=2)
        assert objective.gradients.max() <= 3

    def test_the_first_step_is_no_longer_than_the_radius(self) -> None:
        points: list[Tensor] = []

        def far(epsilon: Tensor, rows: Tensor) -> Tensor:
            if epsilon.requires_grad:
                points.append(epsilon.detach().clone())
            return epsilon.sum(dim=1) - 100

        search(far, 1, 2, starts=1, rounds=0, radius=0.3)
        assert (points[1] - points[0]).norm().item() == pytest.approx(0.3, rel=1e-4)

    def test_more_rounds_are_never_worse(self, balls: Any) -> None:
        norms = [search(balls, 40, 6, rounds=rounds).epsilon.norm(dim=1) for rounds in (0, 1, 3)]
        assert (norms[1] <= norms[0]).all()
        assert (norms[2] <= norms[1]).all()

    def test_no_rows(self) -> None:
        assert search(lambda e, r: e.sum(dim=1), 0, 3).epsilon.shape == (0, 3)


def test_with_rows_takes_rows_and_adds_steps(half_spaces: Any) -> None:
    whole = search(half_spaces, 40, 6)
    rows = torch.tensor([5, 2])
    other = MinimalNorm(
        epsilon=torch.ones(2, 6),
        valid=torch.tensor([False, True]),
        steps=torch.tensor([3, 4]),
        path=torch.ones(2, *whole.path.shape[1:]),
    )
    merged = whole.with_rows(rows, other)
    assert torch.equal(merged.epsilon[rows], other.epsilon)
    assert torch.equal(merged.valid[rows], other.valid)
    assert torch.equal(merged.path[rows], other.path)
    assert (merged.steps - whole.steps)[rows].tolist() == [3, 4]
    kept = torch.ones(40, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(merged.epsilon[kept], whole.epsilon[kept])
    assert torch.equal(merged.steps[kept], whole.steps[kept])
