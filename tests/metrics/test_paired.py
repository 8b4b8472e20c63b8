import math

import pytest
import torch
from scipy.stats import binom

from failscape.metrics import mcnemar, mean_over_both


def test_mcnemar_counts_what_differs() -> None:
    first = torch.tensor([True] * 12 + [False] * 3 + [True] * 40 + [False] * 40)
    second = torch.tensor([False] * 12 + [True] * 3 + [True] * 40 + [False] * 40)
    # Two-sided: 3 or fewer, or 12 or more, of 15 fair coins.
    assert mcnemar(first, second) == pytest.approx(2 * binom.cdf(3, 15, 0.5))
    assert mcnemar(first, second) == mcnemar(second, first)
    assert mcnemar(first, first) == 1


def test_the_interval_over_both_holds_the_mean_as_often_as_it_says() -> None:
    rng = torch.Generator().manual_seed(0)
    held = []
    for _ in range(400):
        rows, columns = torch.randn(5, 1, generator=rng), torch.randn(1, 40, generator=rng)
        values = 2 + 0.5 * rows + columns + torch.randn(5, 40, generator=rng)
        found = mean_over_both(values)
        held.append(found.low <= 2 <= found.high)
    assert sum(held) / len(held) >= 0.94


def test_without_repetition_there_is_a_mean_and_no_interval() -> None:
    found = mean_over_both(torch.tensor([[0.0, 1.0, 1.0]]))
    assert found.value == pytest.approx(2 / 3)
    assert math.isnan(found.low)
    assert math.isnan(mean_over_both(torch.empty(0, 3)).value)
    same = mean_over_both(torch.ones(3, 4))
    assert (same.value, same.low, same.high) == (1, 1, 1)
