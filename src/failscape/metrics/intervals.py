"""Rates, their differences, and means, with their intervals: of 95 % where nothing else is asked for."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A rate, a difference or a mean with its interval, of 95 % unless another was asked for.

    Attributes:
        value: the estimate, NaN if `n` is 0.
        low: lower end of the interval.
        high: upper end.
        n: number of observations.
    """

    value: float
    low: float
    high: float
    n: int

    def named(self, key: str) -> dict[str, float]:
        """Return the estimate as a result's summary holds it: KEY, KEY_low, KEY_high and KEY_n."""
        return {key: self.value, f"{key}_low": self.low, f"{key}_high": self.high, f"{key}_n": float(self.n)}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def rate(successes: Bool[Tensor, " N"], *, level: float = 0.95) -> Estimate:
    """Return a rate with its Wilson score interval, which stays within [0, 1] and is honest near the ends.

    Args:
        successes: observations.
        level: the share of such intervals that hold the true rate.

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    return rate_of(int(successes.sum()), len(successes), level=level)


def rate_of(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Return what `rate` does, where only the number of successes among `n` observations is known."""
    return _wilson(successes / n if n else math.nan, n, level)


def mean_share(shares: Float[Tensor, " N"], *, level: float = 0.95) -> Estimate:
    """Return the mean of shares, each in [0, 1], with the interval that `rate` would give it.

    Shares spread less than observations that are 0 or 1 with the same mean, so that the interval is rather too wide.
    """
    return _wilson(shares.double().mean().item(), len(shares), level)


def _wilson(p: float, n: int, level: float) -> Estimate:
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n * n))
    # At p = 0 or 1 the ends are exact; rounding must not push them past the rate itself.
    return Estimate(value=p, low=min(p, max(0.0, centre - half)), high=max(p, min(1.0, centre + half)), n=n)


def mean_by_t(values: Float[Tensor, " N"], *, level: float = 0.95) -> Estimate:
    """Return the mean of the values that are finite with Student's interval; NaN for fewer than two."""
    from scipy.special import stdtrit

    values = values[values.isfinite()]
    n = len(values)
    if n < 2:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n)
    value = values.mean().item()
    half = float(stdtrit(n - 1, (1 + level) / 2)) * values.std().item() / math.sqrt(n)
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def difference_of_means(first: Float[Tensor, " N"], second: Float[Tensor, " M"], *, level: float = 0.95) -> Estimate:
    """Return the first mean less the second, of the values that are finite, with Welch's interval.

    References:
        Welch, "The generalization of 'Student's' problem", Biometrika 1947.
    """
    from scipy.special import stdtrit

    first, second = first[first.isfinite()], second[second.isfinite()]
    n = len(first) + len(second)
    if min(len(first), len(second)) < 2:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n)
    a, b = float(first.var()) / len(first), float(second.var()) / len(second)
    freedom = (a + b) ** 2 / max(a**2 / (len(first) - 1) + b**2 / (len(second) - 1), 1e-300)
    value = float(first.mean() - second.mean())
    half = float(stdtrit(max(1.0, freedom), (1 + level) / 2)) * math.sqrt(a + b)
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def difference_of_rates(first: Bool[Tensor, " N"], second: Bool[Tensor, " M"], *, level: float = 0.95) -> Estimate:
    """Return the first rate less the second, of independent observations, with Newcombe's interval.

    It is made of the Wilson intervals of both, stays within [-1, 1], and is honest where a rate is near 0 or 1. The
    difference is NaN where either has no observations.

    Args:
        first: observations.
        second: others.
        level: the share of such intervals that hold the true difference; for T differences looked at together,
            1 - 0.05 / T.

    References:
        Newcombe, "Interval Estimation for the Difference between Independent Proportions", 1998, method 10.
    """
    return _newcombe(rate(first, level=level), rate(second, level=level))


def difference_of_shares(first: Float[Tensor, " N"], second: Float[Tensor, " M"], *, level: float = 0.95) -> Estimate:
    """Return the first mean less the second, of shares in [0, 1], with the interval that rates would give it.

    As that of `mean_share` it is rather too wide. The difference is NaN where either has no observations.
    """
    return _newcombe(mean_share(first, level=level), mean_share(second, level=level))


def _newcombe(a: Estimate, b: Estimate) -> Estimate:
    difference = a.value - b.value
    below, above = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value=difference, low=difference - below, high=difference + above, n=a.n + b.n)


def mean(values: Float[Tensor, " N"], *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return a mean with its percentile bootstrap interval.

    Args:
        values: observations.
        resamples: bootstrap samples.
        seed: seeds the resampling, so that the same values always have the same interval.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    n = len(values)
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    rng = torch.Generator().manual_seed(seed)
    means = [_resampled_mean(values.double(), rng) for _ in range(resamples)]
    low, high = torch.tensor(means).quantile(torch.tensor([0.025, 0.975])).tolist()
    return Estimate(value=values.double().mean().item(), low=low, high=high, n=n)


def median(values: Float[Tensor, " N"], *, level: float = 0.95) -> Estimate:
    """Return the median of the finite values, with the interval between two of them, whatever their distribution.

    Fewer than six values have no such interval of 95 %; then it reaches from the least to the greatest.

    Args:
        values: observations.
        level: the least share of such intervals that hold the true median.

    References:
        Thompson, "On confidence ranges for the median and other expectation distributions", 1936: order statistics.
    """
    ordered = values[values.isfinite()].double().sort().values
    n = len(ordered)
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    # So many values lie outside at either end: that no more of them are on one side of the true median is rarer than
    # half of what may be missed.
    outside, chance = 0, 0.5**n
    while chance <= (1 - level) / 2:
        outside += 1
        chance += math.comb(n, outside) / 2**n
    value = (ordered[(n - 1) // 2] + ordered[n // 2]).item() / 2
    return Estimate(value=value, low=ordered[outside].item(), high=ordered[n - 1 - outside].item(), n=n)


def ratio_of_means(
    above: Float[Tensor, " N"], below: Float[Tensor, " N"], *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the ratio of the means of paired observations with its percentile bootstrap interval.

    Pairs are resampled together. The ratio is NaN where there is no pair.
    """
    n = len(above)
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    rng = torch.Generator().manual_seed(seed)
    above, below = above.double(), below.double()
    ratios = []
    for _ in range(resamples):
        rows = torch.randint(n, (n,), generator=rng)
        ratios.append((above[rows].mean() / below[rows].mean()).item())
    low, high = torch.tensor(ratios).quantile(torch.tensor([0.025, 0.975])).tolist()
    return Estimate(value=(above.mean() / below.mean()).item(), low=low, high=high, n=n)


def _resampled_mean(values: Tensor, rng: torch.Generator) -> float:
    return values[torch.randint(len(values), (len(values),), generator=rng)].mean().item()
