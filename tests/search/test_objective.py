import torch
from torch import Tensor

from failscape.search import is_valid, scores_of, value_and_gradient


def wave(epsilon: Tensor, rows: Tensor) -> Tensor:
    return (epsilon.sin() * (1 + rows[:, None])).prod(dim=1)


def test_gradient_agrees_with_finite_differences() -> None:
    epsilon = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.arange(7) % 3
    with torch.no_grad():
        scores, gradient = value_and_gradient(wave, epsilon, rows)
    assert torch.equal(scores, wave(epsilon, rows))
    for k, unit in enumerate(torch.eye(3, dtype=torch.float64) * 1e-6):
        difference = (wave(epsilon + unit, rows) - wave(epsilon - unit, rows)) / 2e-6
        assert torch.allclose(gradient[:, k], difference, atol=1e-8)
    assert not epsilon.requires_grad
    assert not gradient.requires_grad


def test_scores_of_many_candidates_are_those_of_each() -> None:
    # More than fit into one chunk.
    candidates = torch.randn(5, 1500, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([2, 0, 1, 1, 4])
    scores = scores_of(wave, candidates, rows)
    assert not scores.requires_grad
    for index, row in enumerate(rows):
        assert torch.equal(scores[index], wave(candidates[index], row.expand(1500)))


def test_no_candidates_have_no_scores() -> None:
    assert scores_of(wave, torch.zeros(4, 0, 3), torch.arange(4)).shape == (4, 0)
    assert scores_of(wave, torch.zeros(0, 2, 3), torch.arange(0)).shape == (0, 2)


def test_zero_is_valid() -> None:
    assert is_valid(torch.tensor([-1e-30, 0.0, 1.0])).tolist() == [False, True, True]
