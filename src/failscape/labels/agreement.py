"""How far labellers agree, beyond what chance alone would give, and which answer they give most often."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, final

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from failscape.errors import LabelError
from failscape.labels.records import Event
from failscape.metrics import Estimate, mean_share

_RESAMPLES = 1000
_WEIGHTS_AT_ONCE = 1_000_000


@final
@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """How far two labellers agree, on the images that both labelled.

    Attributes:
        labellers: their names.
        images: how many both labelled.
        percent: share of them with the same answer.
        kappa: Cohen's kappa; NaN where chance alone would always agree.
    """

    labellers: tuple[str, str]
    images: int
    percent: float
    kappa: float


@final
@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far all labellers agree, on the images with at least two labels.

    Attributes:
        labellers: who labelled any of these images.
        images: how many there are.
        coefficient: "cohen" for two labellers, "fleiss" for more, None where nobody shares an image.
        percent: share of the pairs of labels of an image that are the same, averaged over the images, with Wilson's
            interval.
        kappa: agreement beyond chance, 1 at most, 0 for chance alone, NaN where chance alone would always agree. Its
            interval is NaN where the images cannot tell: each resample of them has the same kappa.
        pairs: every two labellers that share an image.
    """

    labellers: tuple[str, ...]
    images: int
    coefficient: Literal["cohen", "fleiss"] | None
    percent: Estimate
    kappa: Estimate
    pairs: tuple[PairAgreement, ...]


def measure_agreement(labels: Sequence[Event]) -> Agreement:
    """Measure how far labellers agree; "not any class" is an answer like the others.

    Args:
        labels: labels that hold, at most one a labeller and image, as `LabelStore.labels` gives them.

    Raises:
        LabelError: if one is an undo, or a labeller has two of one image.
    """
    answers: dict[str, dict[str, int]] = {}
    for label in labels:
        of_image = answers.setdefault(label.image_id, {})
        if label.label is None or label.labeller in of_image:
            raise LabelError(
                f"Expected one label that holds for each labeller and image, but {label.labeller!r} has another event "
                "for the same image. Pass what LabelStore.labels returns."
            )
        of_image[label.labeller] = label.label
    shared = [of_image for of_image in answers.values() if len(of_image) >= 2]
    names = tuple(sorted({name for of_image in shared for name in of_image}))
    found = (_pair(shared, first, second) for first, second in combinations(names, 2))
    pairs = tuple(pair for pair in found if pair is not None)
    if not shared:
        nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
        return Agreement(labellers=(), images=0, coefficient=None, percent=nothing, kappa=nothing, pairs=())
    categories = sorted({answer for of_image in shared for answer in of_image.values()})
    counts = torch.tensor([[Counter(one.values())[answer] for answer in categories] for one in shared])

    if len(names) == 2:
        first, second = (torch.tensor([categories.index(one[name]) for one in shared]) for name in names)

        def kappa(weights: Tensor) -> Tensor:
            return _cohen(first, second, weights)
    else:

        def kappa(weights: Tensor) -> Tensor:
            return _fleiss(counts, weights)

    return Agreement(
        labellers=names,
        images=len(shared),
        coefficient="cohen" if len(names) == 2 else "fleiss",
        percent=mean_share(_agreeing_pairs(counts)),
        kappa=_estimate(kappa, len(shared)),
        pairs=pairs,
    )


def consensus(answers: Sequence[int], *, least: int = 1) -> int | None:
    """Return the answer that was given more often than any other, be it by half of the people or fewer.

    None for a tie, and where fewer than `least` answered.
    """
    most = Counter(answers).most_common(2)
    if len(answers) < least or not most or (len(most) == 2 and most[0][1] == most[1][1]):
        return None
    return most[0][0]


def cohen_kappa(first: Integer[Tensor, " N"], second: Integer[Tensor, " N"]) -> float:
    r"""Return $\kappa = (p_o - p_e) / (1 - p_e)$ of two labellers of the same images.

    $p_o$ is the share of images on which they agree, $p_e$ the share on which they would agree by chance if each gave
    every answer as often as they did. NaN where $p_e = 1$.

    Raises:
        LabelError: if the numbers of answers differ, or there are none.

    References:
        Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    if first.shape != second.shape or len(first) == 0:
        raise LabelError(
            f"Expected answers of two labellers to the same images, but got {len(first)} and {len(second)}."
        )
    return _cohen(first, second, torch.ones(1, len(first), dtype=torch.float64)).item()


def fleiss_kappa(counts: Integer[Tensor, "N C"]) -> float:
    r"""Return $\kappa = (\bar P - \bar P_e) / (1 - \bar P_e)$ of several labellers.

    $\bar P$ is the mean over images of the share of pairs of labels that are the same, $\bar P_e = \sum_c p_c^2$ with
    the share $p_c$ of answer c among all labels. Images may have different numbers of labels, at least two. NaN where
    $\bar P_e = 1$.

    Args:
        counts: how many labellers gave each image each answer.

    Raises:
        LabelError: if there is no image, or one with fewer than two labels.

    References:
        Fleiss, "Measuring nominal scale agreement among many raters", 1971, equations 1 to 7.
    """
    if len(counts) == 0 or int(counts.sum(dim=1).min()) < 2:
        raise LabelError("Expected images with at least two labels each, but got none or one with fewer.")
    return _fleiss(counts, torch.ones(1, len(counts), dtype=torch.float64)).item()


def _pair(shared: Sequence[dict[str, int]], first: str, second: str) -> PairAgreement | None:
    both = [(one[first], one[second]) for one in shared if first in one and second in one]
    if not both:
        return None
    a, b = torch.tensor(both).unbind(dim=1)
    return PairAgreement(
        labellers=(first, second),
        images=len(both),
        percent=(a == b).double().mean().item(),
        kappa=cohen_kappa(a, b),
    )


def _agreeing_pairs(counts: Integer[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """Return the share of pairs of labels of each image that are the same."""
    counts = counts.double()
    n = counts.sum(dim=1)
    share: Tensor = (counts * (counts - 1)).sum(dim=1) / (n * (n - 1))
    return share


def _cohen(first: Int[Tensor, " N"], second: Int[Tensor, " N"], weights: Float[Tensor, "R N"]) -> Float[Tensor, " R"]:
    """Return Cohen's kappa for each row of weights of the images."""
    answers = torch.cat([first, second]).unique()
    total = weights.sum(dim=1)
    observed = weights @ (first == second).double() / total
    shares = [weights @ (one[:, None] == answers).double() / total[:, None] for one in (first, second)]
    return _beyond_chance(observed, (shares[0] * shares[1]).sum(dim=1))


def _fleiss(counts: Integer[Tensor, "N C"], weights: Float[Tensor, "R N"]) -> Float[Tensor, " R"]:
    """Return Fleiss's kappa for each row of weights of the images."""
    observed = weights @ _agreeing_pairs(counts) / weights.sum(dim=1)
    given = weights @ counts.double()
    share = given / given.sum(dim=1, keepdim=True)
    return _beyond_chance(observed, share.square().sum(dim=1))


def _beyond_chance(observed: Float[Tensor, " R"], expected: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    # A share of one is one up to rounding.
    room = torch.where(1 - expected > 1e-12, 1 - expected, torch.nan)
    return (observed - expected) / room


def _estimate(statistic: Callable[[Tensor], Tensor], n: int) -> Estimate:
    """Return a statistic of weighted images with its percentile bootstrap interval over the images.

    The same labels always have the same interval: the resampling has a seed of its own. Where all resamples that have a
    value have the same one, they say nothing of how far the truth may be off, and there is no interval.
    """
    rng = torch.Generator().manual_seed(0)
    value = statistic(torch.ones(1, n, dtype=torch.float64)).item()
    drawn = []
    # As many resamples at a time as fill some megabytes.
    for many in torch.arange(_RESAMPLES).split(max(1, _WEIGHTS_AT_ONCE // n)):
        rows = torch.randint(n, (len(many), n), generator=rng)
        times = torch.zeros(len(many), n, dtype=torch.float64)
        drawn.append(statistic(times.scatter_add_(1, rows, torch.ones_like(times))))
    known = torch.cat(drawn)
    known = known[known.isfinite()]
    if len(known) == 0 or known.max() - known.min() < 1e-12:
        return Estimate(value=value, low=math.nan, high=math.nan, n=n)
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value=value, low=low, high=high, n=n)
