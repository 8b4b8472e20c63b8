"""Rates and means with their 95 % intervals."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A rate or a mean with its 95 % interval.

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


def rate(successes: Bool[Tensor, " N"]) -> Estimate:
    """Return a rate with its Wilson score interval, which stays within [0, 1] and is honest near the ends.

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    n = len(successes)
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    p = successes.double().mean().item()
    centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
    # At p = 0 or 1 the ends are exact; rounding must not push them past the rate itself.
    return Estimate(value=p, low=min(p, max(0.0, centre - half)), high=max(p, min(1.0, centre + half)), n=n)


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
