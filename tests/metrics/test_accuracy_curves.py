import math

import numpy as np
import pytest
import torch

from failscape.errors import MetricError
from failscape.metrics import bin_of, count_by_bin, equal_bins, rank_correlation, summarize_curves


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bins_are_those_of_numpy_and_leave_out_the_tails() -> None:
    values = torch.randn(5000, generator=rng())
    edges = equal_bins(values, 8)
    place = bin_of(values, edges)
    right = torch.rand(2, 5000, generator=rng(1)) < 0.7
    count, hits = count_by_bin(place, right, 8)
    assert count.tolist() == np.histogram(values.numpy(), edges.numpy())[0].tolist()
    for row in range(2):
        assert hits[row].tolist() == np.histogram(values[right[row]].numpy(), edges.numpy())[0].tolist()
    assert 5 <= int((place == -1).sum()) <= 12
    assert torch.allclose(edges.diff(), edges.diff()[0].expand(8), atol=1e-5)


def test_values_on_edges_belong_to_the_bin_above_but_the_last_to_the_last() -> None:
    edges = torch.tensor([0.0, 1.0, 2.0])
    assert bin_of(torch.tensor([-0.1, 0.0, 1.0, 2.0, 2.1]), edges).tolist() == [-1, 0, 1, 1, -1]
    assert len(equal_bins(torch.zeros(5), 3).unique()) == 4


def test_area_is_the_mean_of_the_bins_and_trend_a_rank_correlation() -> None:
    place = torch.arange(4000) % 5
    chance = torch.tensor([0.9, 0.95, 0.7, 0.6, 0.2])
    right = torch.rand(4000, generator=rng()) < chance[place]
    found = summarize_curves(place, right[None], torch.ones(5, dtype=torch.bool))
    accuracy = torch.stack([right[place == index].double().mean() for index in range(5)])
    assert found.area[0, 0] == pytest.approx(float(accuracy.mean()))
    assert found.trend[0, 0] == pytest.approx(rank_correlation(torch.arange(5.0), accuracy), abs=1e-4)
    some = summarize_curves(place, right[None], torch.tensor([True, False, False, True, False]))
    assert some.area[0, 0] == pytest.approx(float(accuracy[[0, 3]].mean()))
    assert some.trend[0].isnan().all()


def test_trend_shares_ranks_and_is_none_where_all_is_flat() -> None:
    place = torch.arange(8) % 4
    right = torch.tensor([True, True, True, False, True, True, True, False])
    found = summarize_curves(place, right[None], torch.ones(4, dtype=torch.bool))
    assert found.trend[0, 0] == pytest.approx(
        rank_correlation(torch.arange(4.0), torch.tensor([1.0, 1, 1, 0])), abs=1e-4
    )
    flat = summarize_curves(place, torch.ones(1, 8, dtype=torch.bool), torch.ones(4, dtype=torch.bool))
    assert flat.area[0].tolist() == [1, 1, 1]
    assert flat.trend[0].isnan().all()


def test_intervals_of_areas_and_of_paired_differences_are_as_wide_as_theory_says() -> None:
    n, bins = 8000, 4
    place = torch.arange(n) % bins
    first = torch.rand(n, generator=rng()) < 0.8
    # The second is right about nine in ten of what the first is right about, and about nothing else.
    second = first & (torch.rand(n, generator=rng(1)) < 0.9)
    found = summarize_curves(place, torch.stack([first, second]), torch.ones(bins, dtype=torch.bool))
    spread = 2 * 1.96
    assert float(found.area[0, 2] - found.area[0, 1]) == pytest.approx(spread * math.sqrt(0.8 * 0.2 / n), rel=0.1)
    lost = 0.08
    expected = spread * math.sqrt(lost * (1 - lost) / n)
    assert float(found.difference[0, 2] - found.difference[0, 1]) == pytest.approx(expected, rel=0.1)
    assert found.difference[0, 0] == pytest.approx(float(found.area[0, 0] - found.area[1, 0]), abs=1e-6)
    assert found.pairs.tolist() == [[0, 1]]
    assert found.p[0] < 0.002


def test_p_is_as_often_below_a_tenth_as_it_should_be_where_there_is_no_difference() -> None:
    place, kept = torch.arange(600) % 3, torch.ones(3, dtype=torch.bool)
    below = 0
    for seed in range(100):
        right = torch.rand(2, 600, generator=rng(seed)) < 0.7
        below += int(summarize_curves(place, right, kept, resamples=300, seed=seed).p[0] < 0.1)
    assert 3 <= below <= 19  # 99.5 % of a binomial distribution of 100 and 0.1


def test_a_judge_does_not_differ_from_itself_and_all_pairs_are_compared() -> None:
    place, right = torch.arange(90) % 3, torch.rand(1, 90, generator=rng()) < 0.5
    found = summarize_curves(place, right.expand(3, -1), torch.ones(3, dtype=torch.bool))
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.difference.count_nonzero() == 0
    assert found.p.tolist() == [1, 1, 1]


def test_of_many_judges_the_one_that_is_plainly_worse_differs_after_the_correction() -> None:
    place = torch.arange(3000) % 3
    right = torch.rand(11, 3000, generator=rng()) < torch.tensor([0.8] * 10 + [0.5])[:, None]
    found = summarize_curves(place, right, torch.ones(3, dtype=torch.bool))
    assert len(found.pairs) == 55
    worse = (found.pairs == 10).any(dim=1)
    corrected = found.p * len(found.pairs)
    assert bool((corrected[worse] < 0.01).all())
    assert bool((corrected[~worse] > 0.05).all())


def test_no_bin_is_no_number_and_no_sample_is_refused() -> None:
    place, right = torch.full((5,), -1), torch.ones(2, 5, dtype=torch.bool)
    found = summarize_curves(place, right, torch.zeros(3, dtype=torch.bool))
    assert found.area.isnan().all()
    assert found.difference.isnan().all()
    assert found.p.isnan().all()
    with pytest.raises(MetricError, match="Expected samples and 1 to 32 judges of them, but got 0 and 1"):
        summarize_curves(place[:0], right[:1, :0], torch.ones(3, dtype=torch.bool))
