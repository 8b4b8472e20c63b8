import pytest
import torch

from failscape.errors import MetricError
from failscape.metrics import kernel_distance


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_distribution_has_distance_zero_and_another_a_positive_one() -> None:
    first, second = torch.randn(4000, 8, generator=rng()), torch.randn(4000, 8, generator=rng(1))
    same = kernel_distance(first, second, rng=rng(2), subsets=40, subset_size=500)
    assert abs(same.value) < 0.005
    other = kernel_distance(first, second + 0.5, rng=rng(2), subsets=40, subset_size=500)
    assert other.low > 5 * abs(same.value)


def test_the_distance_is_that_of_the_definition() -> None:
    a, b = torch.randn(30, 3, generator=rng(), dtype=torch.float64), torch.rand(30, 3, generator=rng(1)).double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / 3 + 1) ** 3

    off = ~torch.eye(30, dtype=torch.bool)
    expected = kernel(a, a)[off].mean() + kernel(b, b)[off].mean() - 2 * kernel(a, b).mean()
    # Subsets of all rows are the whole.
    found = kernel_distance(a.float(), b.float(), rng=rng(), subsets=2, subset_size=30)
    assert found.value == pytest.approx(float(expected), rel=1e-4)
    assert found.high - found.low < 1e-6


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(MetricError, match="at most 10 rows, but got 100 of 1000"):
        kernel_distance(torch.zeros(10, 2), torch.zeros(20, 2), rng=rng())
