"""How well a space tells groups apart: is a sample's group that of its nearest neighbours?"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics.intervals import Estimate

_CHUNK = 1000
_DRAWS = 10_000


@final
@dataclass(frozen=True, kw_only=True)
class NeighbourVote:
    """What the neighbours of each sample say of its group.

    Attributes:
        accuracy: mean over the groups of the share that is told rightly, so that chance is one over their number
            whatever their sizes; NaN with fewer than two groups.
        vote: the group that each sample's neighbours vote for.
    """

    accuracy: Estimate
    vote: Int[Tensor, " N"]


def standardized(features: Float[Tensor, "N D"], within: Int[Tensor, " N"] | None = None) -> Float[Tensor, "N D"]:
    """Return features of mean zero and unit deviation, those that do not vary as zeros.

    Args:
        features: of the samples.
        within: the group of each sample; means and deviations are then those within the groups, so that a sample's
            place no longer says which group it is of, as far as the groups differ in their means.
    """
    groups = torch.zeros(len(features), dtype=torch.long) if within is None else within
    centred = features.to(torch.float64, copy=True)
    for group in groups.unique().tolist():
        rows = groups == group
        centred[rows] -= centred[rows].mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    still = deviation <= 1e-6 * features.double().abs().amax(dim=0)
    return torch.where(still, 0, centred / deviation.where(~still, 1)).float()


def nearest(
    features: Float[Tensor, "N D"], others: Float[Tensor, "M D"], k: int, *, same: bool = False
) -> Int[Tensor, "N k"]:
    """Return the indices of the k nearest others of each sample, the nearest first.

    Args:
        features: of the samples.
        others: to look among.
        k: how many, fewer than there are.
        same: the others are the samples themselves, none of which is its own neighbour.
    """
    found = []
    for start in range(0, len(features), _CHUNK):
        distance = torch.cdist(features[start : start + _CHUNK], others)
        if same:
            rows = torch.arange(len(distance))
            distance[rows, start + rows] = torch.inf
        found.append(distance.topk(k, dim=1, largest=False).indices)
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64)


def neighbour_vote(
    features: Float[Tensor, "N D"], groups: Int[Tensor, " N"], *, neighbours: int = 11, seed: int = 0
) -> NeighbourVote:
    """Let the nearest neighbours of each sample vote for its group, each group's votes divided by its size.

    Without that division a rare group would never win. The interval is that of the mean of the groups' rates with a
    Jeffreys posterior of each, which is honest near 0 and 1. It takes samples for independent, which those that share
    voters are not quite: of 60 sets of pure noise it held one half in 56 (2000 samples of 64 features, a tenth of them
    of one group), but only in 48 with 3 features, where few voters serve many.

    Args:
        features: compared by Euclidean distance as they are; `standardized` makes them comparable.
        groups: non-negative integers.
        neighbours: voters, at most as many as there are others; an odd number avoids ties of two groups.
        seed: seeds the draws for the interval.

    Raises:
        MetricError: if there are fewer than two samples, or the lengths differ.

    References:
        Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 2001.
    """
    n = len(features)
    if n < 2 or len(groups) != n or neighbours < 1:
        raise MetricError(
            f"Expected at least two samples, a group for each, and a neighbour, but got {n} samples, {len(groups)} "
            f"groups and {neighbours} neighbours."
        )
    voters = groups[nearest(features, features, min(neighbours, n - 1), same=True)]
    size = groups.bincount()
    votes = torch.nn.functional.one_hot(voters, len(size)).sum(dim=1) / size.clamp_min(1)
    vote = votes.argmax(dim=1)
    present = (size > 0).nonzero()[:, 0]
    if len(present) < 2:
        nan = float("nan")
        return NeighbourVote(accuracy=Estimate(value=nan, low=nan, high=nan, n=n), vote=vote)
    total = size[present].numpy()
    hits = groups[vote == groups].bincount(minlength=len(size))[present].numpy()
    value = float((hits / total).mean())
    drawn = np.random.default_rng(seed).beta(hits + 0.5, total - hits + 0.5, size=(_DRAWS, len(present))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return NeighbourVote(
        accuracy=Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=n), vote=vote
    )
