import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from failscape.metrics import difference_of_rates, difference_of_shares, mean, mean_share, rate, ratio_of_means


def outcomes(successes: int, n: int) -> torch.Tensor:
    return torch.arange(n) < successes


class TestRate:
    @pytest.mark.parametrize(
        ("successes", "n", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_interval_is_the_published_one(self, successes: int, n: int, low: float, high: float) -> None:
        # Newcombe, "Two-Sided Confidence Intervals for the Single Proportion", 1998, table I, method 3.
        estimate = rate(outcomes(successes, n))
        assert estimate.value == successes / n
        assert estimate.low == pytest.approx(low, abs=5e-5)
        assert estimate.high == pytest.approx(high, abs=5e-5)
        assert estimate.n == n

    @given(n=st.integers(1, 500), share=st.floats(0, 1))
    def test_interval_holds_the_rate_and_stays_a_rate(self, n: int, share: float) -> None:
        estimate = rate(outcomes(round(share * n), n))
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1

    @pytest.mark.parametrize("level", [0.8, 0.95, 0.995])
    def test_its_ends_are_where_a_score_test_of_that_level_turns(self, level: float) -> None:
        estimate = rate(outcomes(30, 40), level=level)
        for end in (estimate.low, estimate.high):
            z = abs(0.75 - end) / math.sqrt(end * (1 - end) / 40)
            assert math.erf(z / math.sqrt(2)) == pytest.approx(level, abs=1e-6)

    def test_nothing_observed(self) -> None:
        estimate = rate(outcomes(0, 0))
        assert estimate.n == 0
        assert all(math.isnan(value) for value in (estimate.value, estimate.low, estimate.high))

    def test_reads_as_text(self) -> None:
        assert str(rate(outcomes(0, 20))) == "0.000 [0.000, 0.161] (n = 20)"


class TestDifferenceOfRates:
    @pytest.mark.parametrize(
        ("a", "m", "b", "n", "low", "high"),
        [
            (56, 70, 48, 80, 0.0524, 0.3339),
            (9, 10, 3, 10, 0.1705, 0.8090),
            (5, 56, 0, 29, -0.0381, 0.1926),
            (0, 10, 0, 20, -0.1611, 0.2775),
            (10, 10, 0, 10, 0.6075, 1.0),
        ],
    )
    def test_interval_is_the_published_one(self, a: int, m: int, b: int, n: int, low: float, high: float) -> None:
        # Newcombe, "Interval Estimation for the Difference between Independent Proportions", 1998, table II, method 10.
        estimate = difference_of_rates(outcomes(a, m), outcomes(b, n))
        assert estimate.value == a / m - b / n
        assert estimate.low == pytest.approx(low, abs=5e-5)
        assert estimate.high == pytest.approx(high, abs=5e-5)
        assert estimate.n == m + n

    def test_a_higher_level_is_wider_and_the_other_way_round_is_the_mirror(self) -> None:
        first, second = outcomes(20, 50), outcomes(45, 60)
        one, wide = difference_of_rates(first, second), difference_of_rates(first, second, level=0.995)
        back = difference_of_rates(second, first)
        assert wide.low < one.low < one.value < one.high < wide.high
        assert (back.low, back.high) == pytest.approx((-one.high, -one.low))

    def test_nothing_observed(self) -> None:
        estimate = difference_of_rates(outcomes(1, 2), outcomes(0, 0))
        assert all(math.isnan(value) for value in (estimate.value, estimate.low, estimate.high))


class TestMean:
    def test_interval_is_close_to_that_of_the_normal_distribution(self) -> None:
        values = 3 + 2 * torch.randn(400, generator=torch.Generator().manual_seed(0))
        estimate = mean(values)
        half = 1.96 * values.std().item() / math.sqrt(400)
        assert estimate.value == pytest.approx(values.double().mean().item())
        assert estimate.low == pytest.approx(estimate.value - half, abs=0.1 * half)
        assert estimate.high == pytest.approx(estimate.value + half, abs=0.1 * half)

    def test_interval_covers_the_truth_about_as_often_as_it_says(self) -> None:
        rng = torch.Generator().manual_seed(0)
        estimates = [mean(torch.randn(60, generator=rng), resamples=300) for _ in range(200)]
        covered = sum(estimate.low <= 0 <= estimate.high for estimate in estimates) / 200
        # Three standard errors about 0.95, and the known small-sample shortfall of percentile intervals.
        assert 0.89 <= covered <= 0.995

    def test_same_values_same_interval(self) -> None:
        values = torch.rand(30, generator=torch.Generator().manual_seed(0))
        before = torch.random.get_rng_state()
        assert mean(values) == mean(values)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_equal_values_have_no_spread_and_none_have_no_mean(self) -> None:
        estimate = mean(torch.full((7,), 2.5))
        assert (estimate.value, estimate.low, estimate.high, estimate.n) == (2.5, 2.5, 2.5, 7)
        nothing = mean(torch.zeros(0))
        assert nothing.n == 0
        assert math.isnan(nothing.value)

    def test_adds_up_in_double_precision(self) -> None:
        values = torch.full((100_001,), 0.1)
        values[0] = 2.0**24
        assert mean(values, resamples=1).value == pytest.approx(float(values.double().sum()) / 100_001, rel=1e-12)


class TestRatioOfMeans:
    def test_value_is_the_ratio(self) -> None:
        above, below = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([2.0, 2.0, 2.0])
        assert ratio_of_means(above, below).value == pytest.approx(1.5)

    def test_below_a_constant_it_is_a_mean(self) -> None:
        above = torch.rand(50, generator=torch.Generator().manual_seed(0))
        ratio, average = ratio_of_means(above, torch.full((50,), 2.0)), mean(above)
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx(
            (average.value / 2, average.low / 2, average.high / 2), rel=1e-6
        )

    def test_pairs_are_kept_together(self) -> None:
        # Perfectly tied pairs have one ratio in every resample; apart they would spread.
        below = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.1
        estimate = ratio_of_means(3 * below, below)
        assert (estimate.low, estimate.high) == pytest.approx((3.0, 3.0), rel=1e-6)

    def test_no_pairs(self) -> None:
        estimate = ratio_of_means(torch.zeros(0), torch.zeros(0))
        assert estimate.n == 0
        assert math.isnan(estimate.value)


def test_the_mean_of_shares_that_are_0_or_1_is_a_rate() -> None:
    right = torch.tensor([True, False, True, True])
    assert mean_share(right.double()) == rate(right)
    shares = mean_share(torch.tensor([0.25, 0.75]))
    assert (shares.value, shares.n) == (0.5, 2)
    assert math.isnan(mean_share(torch.tensor([])).low)


def test_the_difference_of_shares_of_0_and_1_is_that_of_rates() -> None:
    first, second = torch.arange(9) < 4, torch.arange(5) < 1
    assert difference_of_shares(first.double(), second.double()) == difference_of_rates(first, second)
