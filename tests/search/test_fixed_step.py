import pytest
import torch
from torch import Tensor

from failscape.search import descend_fixed_step

CENTRES = torch.tensor([[2.0, 1.0], [0.3, 0.0], [-40.0, 9.0], [0.0, 0.0]])


def loss(epsilon: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the row's centre, squared; within 0.25 it succeeds."""
    squared = (epsilon - CENTRES[rows]).square().sum(dim=1)
    return squared, squared.detach() < 0.25**2


def by_hand(row: int, step: float, max_steps: int) -> tuple[list[Tensor], bool]:
    points = [torch.zeros(2)]
    for _ in range(max_steps):
        if (points[-1] - CENTRES[row]).norm() < 0.25:
            return points, True
        points.append(points[-1] - step * 2 * (points[-1] - CENTRES[row]))
    return points, bool((points[-1] - CENTRES[row]).norm() < 0.25)


@pytest.mark.parametrize(("step", "max_steps"), [(0.1, 30), (0.01, 7), (0.3, 1)])
def test_is_the_loop_written_by_hand(step: float, max_steps: int) -> None:
    found = descend_fixed_step(loss, torch.zeros(4, 2), step=step, max_steps=max_steps)
    for row in range(4):
        points, valid = by_hand(row, step, max_steps)
        assert bool(found.valid[row]) == valid
        assert int(found.steps[row]) == len(points) - 1
        assert torch.allclose(found.epsilon[row], points[-1], atol=1e-5)
        path = found.path[row]
        assert torch.allclose(path[: len(points)], torch.stack(points), atol=1e-5)
        assert torch.equal(path[len(points) - 1 :], found.epsilon[row].expand(len(path) - len(points) + 1, 2))
    assert found.path.shape[1] == int(found.steps.max()) + 1


def test_a_start_that_succeeds_stays_and_the_start_is_not_written_to() -> None:
    start = CENTRES.clone()
    found = descend_fixed_step(loss, start)
    assert found.valid.all()
    assert found.steps.tolist() == [0] * 4
    assert torch.equal(found.epsilon, CENTRES)
    assert torch.equal(found.path, CENTRES[:, None])
    descend_fixed_step(loss, start.zero_(), max_steps=3)
    assert start.abs().max() == 0


def test_rows_that_are_done_leave_the_batch() -> None:
    sizes = []

    def watched(epsilon: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(rows))
        return loss(epsilon, rows)

    found = descend_fixed_step(watched, torch.zeros(4, 2), step=0.1, max_steps=40)
    # A row is asked about once more than it steps: to learn that it is done.
    assert sum(sizes) == int((found.steps + 1).sum())
    assert sizes == sorted(sizes, reverse=True)


def test_no_rows() -> None:
    assert descend_fixed_step(loss, torch.zeros(0, 2)).path.shape == (0, 1, 2)
