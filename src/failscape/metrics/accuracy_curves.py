"""How accuracy changes over an axis, for one or several judges of the same samples: areas, differences, trends."""

from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.errors import MetricError

_ENDS = (0.025, 0.975)
# Each takes a bit beside the bin.
MOST_JUDGES = 32
# Bootstrap samples for each pair, where there are many: p times the number of pairs comes down to twice their inverse.
_RESAMPLES_A_PAIR = 400
# Bootstrap samples that are held at once.
_CHUNK = 500


@final
@dataclass(frozen=True, kw_only=True)
class CurveSummary:
    """What curves amount to; rows of three hold a value and the ends of its 95 % bootstrap interval.

    Attributes:
        area: mean of the accuracies of the bins, one row a curve; NaN without a bin.
        trend: Spearman's rank correlation of the accuracy of a bin with its place, one row a curve: -1 where the curve
            falls all the way, NaN where it is flat throughout or has fewer than 3 bins. Resampled curves are noisier
            than the curve and fall less evenly, so its interval is made to reach the value.
        pairs: indices of two curves, one row a pair.
        difference: of the areas of each pair, the first less the second.
        p: of each pair, how likely a difference at least as large is if there is none; by itself, not corrected for
            the number of pairs.
    """

    area: Float[Tensor, "C 3"]
    trend: Float[Tensor, "C 3"]
    pairs: Int[Tensor, "P 2"]
    difference: Float[Tensor, "P 3"]
    p: Float[Tensor, " P"]


def equal_bins(values: Float[Tensor, " N"], bins: int, *, tail: float = 0.001) -> Float[Tensor, " B1"]:
    """Return the edges of bins of equal width, without a tail of the values at either end that would stretch them."""
    low, high = values.double().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return torch.linspace(low, high if high > low else low + 1, bins + 1)


def bin_of(values: Float[Tensor, " N"], edges: Float[Tensor, " B1"]) -> Int[Tensor, " N"]:
    """Return the bin that each value lies in, -1 for one that lies in none."""
    place = torch.bucketize(values, edges, right=True) - 1
    place[values == edges[-1]] = len(edges) - 2
    place[place == len(edges) - 1] = -1
    return place


def count_by_bin(
    place: Int[Tensor, " N"], right: Bool[Tensor, "C N"], bins: int
) -> tuple[Int[Tensor, " B"], Int[Tensor, "C B"]]:
    """Return how many samples lie in each bin, and how many of them each judge is right about."""
    inside = place >= 0
    count = place[inside].bincount(minlength=bins)
    return count, torch.stack([place[inside & row].bincount(minlength=bins) for row in right])


def summarize_curves(
    place: Int[Tensor, " N"],
    right: Bool[Tensor, "C N"],
    kept: Bool[Tensor, " B"],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> CurveSummary:
    """Measure curves of accuracy over bins of equal width, and compare each two of them.

    The bootstrap draws samples, with what all judges say of them, so that differences are paired: what a sample that is
    hard for all does to two curves cancels. As nothing counts of a sample but its bin and who is right about it, the
    numbers of samples of each such kind are drawn, multinomially, which is the same.

    Args:
        place: the bin of each sample, -1 for none.
        right: which samples each judge is right about.
        kept: bins that count.
        resamples: bootstrap samples at least; 400 a pair where that is more, since no p can be less than twice their
            inverse, and of many pairs it must be far smaller to count.
        seed: seeds the resampling.

    Raises:
        MetricError: if there is no sample, or more judges than can be compared.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16.
    """
    judges, n = right.shape
    if not n or not 1 <= judges <= MOST_JUDGES:
        raise MetricError(
            f"Expected samples and 1 to {MOST_JUDGES} judges of them, but got {n} and {judges}. Compare fewer."
        )
    # A kind is a bin and a bit for each judge.
    bits = 2 ** torch.arange(judges)
    kinds, seen = ((place + 1) * 2**judges + (right.long() * bits[:, None]).sum(dim=0)).unique(return_counts=True)
    lies_in = (kinds[:, None] // 2**judges - 1) == kept.nonzero()[:, 0]
    members = torch.stack([lies_in, *(lies_in & (kinds[:, None] & bit > 0) for bit in bits)]).double()

    def measured(counts: Float[Tensor, "R M"]) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R C"]]:
        """Return areas and trends of some numbers of each kind."""
        total, *hits = counts @ members
        accuracy = torch.stack([hit / total for hit in hits], dim=1)
        return accuracy.nanmean(dim=2), _rank_correlations(accuracy)

    pairs = list(combinations(range(judges), 2))
    rng, draws = np.random.default_rng(seed), max(resamples, _RESAMPLES_A_PAIR * len(pairs))
    # The first row is what was seen.
    found = [measured(seen[None].double())]
    for start in range(0, draws, _CHUNK):
        drawn = rng.multinomial(n, seen.numpy() / n, size=min(draws - start, _CHUNK))
        found.append(measured(torch.from_numpy(drawn).double()))
    area, trend = (torch.cat(parts) for parts in zip(*found, strict=True))
    differences = torch.stack([area[:, i] - area[:, j] for i, j in pairs], dim=1) if pairs else area[:, :0]
    return CurveSummary(
        area=_with_ends(area),
        trend=_with_ends(trend),
        pairs=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        difference=_with_ends(differences),
        p=_p_values(differences[1:]),
    )


def _with_ends(values: Float[Tensor, "R1 C"]) -> Float[Tensor, "C 3"]:
    """Return the first row and quantiles of the others."""
    if not values.shape[1]:
        return torch.empty(0, 3)
    value = values[0]
    low, high = (values[1:].nanquantile(end, dim=0) for end in _ENDS)
    # What could not be measured has no interval either, whatever some resamples say: NaN spreads.
    return torch.stack([value, torch.minimum(low, value), torch.maximum(high, value)], dim=1).float()


def _p_values(differences: Float[Tensor, "R P"]) -> Float[Tensor, " P"]:
    """Return twice the share of resamples on the rarer side of zero, never less than their number can tell."""
    least = torch.minimum((differences >= 0).sum(dim=0), (differences <= 0).sum(dim=0))
    p = (2 * (least + 1) / (len(differences) + 1)).clamp_max(1)
    return p.where(differences.isfinite().all(dim=0), torch.nan).float()


def _rank_correlations(accuracy: Float[Tensor, "R C B"]) -> Float[Tensor, "R C"]:
    """Return Spearman's correlation of values with their places along the last axis; ties share a rank."""
    if accuracy.shape[2] < 3:
        return torch.full(accuracy.shape[:2], torch.nan, dtype=torch.float64)
    above, equal = accuracy[..., None] > accuracy[..., None, :], accuracy[..., None] == accuracy[..., None, :]
    ranks = (above.double() + equal.double() / 2).sum(dim=-1)
    ranks -= ranks.mean(dim=-1, keepdim=True)
    places = torch.arange(accuracy.shape[2]).double()
    places -= places.mean()
    size = ranks.square().sum(dim=-1).sqrt() * places.square().sum().sqrt()
    return torch.where(size > 0, (ranks * places).sum(dim=-1) / size, torch.nan)
