import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from failscape.search import first_crossing, is_valid

END = torch.tensor([3.0, 4.0])


def along(epsilon: Tensor) -> Tensor:
    """Return how far along the line to END a point is: 0 at the origin, 1 at the end."""
    return epsilon @ END / 25


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5))
def test_brackets_the_threshold_between_two_tried_points(thresholds: list[float]) -> None:
    threshold = torch.tensor(thresholds)
    n = len(threshold)
    crossing = first_crossing(lambda e, r: along(e) - threshold[r], END.expand(n, 2), torch.arange(n))
    assert crossing.found.all()
    assert (along(crossing.inside) >= threshold).all()
    assert (along(crossing.outside) <= threshold).all()
    gap = along(crossing.inside) - along(crossing.outside)
    assert torch.allclose(gap, torch.full((n,), 1 / (8 * 2**6)), atol=1e-6)
    assert torch.allclose(crossing.score, along(crossing.inside) - threshold, atol=1e-6)


def test_finds_the_first_of_several_valid_stretches() -> None:
    def objective(epsilon: Tensor, rows: Tensor) -> Tensor:
        t = along(epsilon)
        return torch.where((t >= 0.2) & (t <= 0.35) | (t >= 0.7), 1.0, -1.0)

    crossing = first_crossing(objective, END[None], torch.zeros(1, dtype=torch.long))
    assert along(crossing.inside).item() == pytest.approx(0.2, abs=1 / 512)
    assert is_valid(objective(crossing.inside, torch.zeros(1))).all()


def test_the_end_alone_may_be_valid_and_a_line_may_have_no_valid_point() -> None:
    rows = torch.arange(2)
    level = torch.tensor([1.0, 1.5])
    crossing = first_crossing(lambda e, r: along(e) - level[r], END.expand(2, 2), rows, bisections=0)
    assert crossing.found.tolist() == [True, False]
    assert torch.equal(crossing.inside[0], END)
    assert torch.allclose(crossing.outside[0], 7 / 8 * END)


@pytest.mark.parametrize(("scan", "bisections"), [(1, 12), (4, 5), (64, 0)])
def test_width_of_the_bracket(scan: int, bisections: int) -> None:
    crossing = first_crossing(
        lambda e, r: along(e) - 0.501,
        END[None],
        torch.zeros(1, dtype=torch.long),
        scan=scan,
        bisections=bisections,
    )
    assert (crossing.inside - crossing.outside).norm().item() == pytest.approx(5 / (scan * 2**bisections), rel=1e-3)


def test_rows_keep_their_numbers() -> None:
    threshold = torch.tensor([0.9, 0.1, 0.5])
    rows = torch.tensor([2, 0])
    crossing = first_crossing(lambda e, r: along(e) - threshold[r], END.expand(2, 2), rows)
    assert torch.allclose(along(crossing.inside), threshold[rows], atol=1 / 512)


def test_no_lines() -> None:
    crossing = first_crossing(lambda e, r: along(e), torch.zeros(0, 2), torch.arange(0))
    assert crossing.inside.shape == (0, 2)
