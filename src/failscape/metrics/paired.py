"""Comparisons of two verdicts on the same things, and means over repetitions of a whole experiment."""

import math

from jaxtyping import Bool, Float
from torch import Tensor

from failscape.metrics.intervals import Estimate


def mcnemar(first: Bool[Tensor, " N"], second: Bool[Tensor, " N"]) -> float:
    """Return the two-sided p-value of the exact McNemar test: is the one as often true as the other?

    Only things on which the two differ count: of these, half are expected to be true of the first alone. The p-value
    is 1 where they differ nowhere.

    Args:
        first: verdicts.
        second: other verdicts on the same things.

    Example:
        >>> wrong_before = torch.tensor([True] * 12 + [False] * 3)
        >>> wrong_after = torch.tensor([False] * 12 + [False, False, True])
        >>> round(mcnemar(wrong_before, wrong_after), 4)
        0.0034

    References:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 1947.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def mean_over_both(values: Float[Tensor, "R N"], *, level: float = 0.95) -> Estimate:
    r"""Return the mean of repetitions on the same things, with an interval for other repetitions and other things.

    The variance of the mean is that among the means of the $R$ rows, divided by $R$, plus that among the means of the
    $N$ columns, divided by $N$: what both share is counted twice, so that the interval is rather too wide. The degrees
    of freedom are Welch's. With one row, or one column, there is no interval.

    Args:
        values: one row a repetition, such as a seed, and one column a thing, such as an image.
        level: the share of such intervals that hold the true mean.

    References:
        Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007: the variance of a mean over two factors.
    """
    from scipy.special import stdtrit

    rows, columns = values.shape
    if min(rows, columns) == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    values = values.double()
    value = values.mean().item()
    if min(rows, columns) < 2:
        return Estimate(value=value, low=math.nan, high=math.nan, n=columns)
    parts = [float(values.mean(dim=dim).var()) / count for dim, count in ((1, rows), (0, columns))]
    variance = sum(parts)
    if variance == 0:
        return Estimate(value=value, low=value, high=value, n=columns)
    freedom = variance**2 / (parts[0] ** 2 / (rows - 1) + parts[1] ** 2 / (columns - 1))
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance)
    return Estimate(value=value, low=value - half, high=value + half, n=columns)
