"""Do a classifier's probabilities mean what they say: of the images it is 80 % sure of, are 80 % right?"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics.intervals import rate

# A confidence of exactly 1 belongs to the last bin; torchmetrics would open another one for it.
_BELOW_ONE = 1 - 2**-24


@final
@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often a classifier is right, by how sure it is.

    The bins cut [0, 1] into equal parts; a bin that no confidence lies in has NaN for everything but its count.

    Attributes:
        count: images a bin.
        confidence: their mean confidence, the maximum softmax probability.
        accuracy: share of them that are right.
        low: lower end of the 95 % Wilson interval of the accuracy.
        high: upper end.
    """

    count: Int[Tensor, " B"]
    confidence: Float[Tensor, " B"]
    accuracy: Float[Tensor, " B"]
    low: Float[Tensor, " B"]
    high: Float[Tensor, " B"]


def expected_calibration_error(probs: Float[Tensor, "N K"], y: Int[Tensor, " N"], *, bins: int = 15) -> float:
    r"""Return the expected calibration error (ECE), computed by torchmetrics.

    $$\sum_b \frac{n_b}{N} \lvert \mathrm{accuracy}_b - \mathrm{confidence}_b \rvert$$

    Args:
        probs: class probabilities.
        y: labels.
        bins: equal parts of [0, 1] by which the images are put together.

    Raises:
        MetricError: if there is no image, the probabilities are not in [0, 1], the labels do not fit them, or
            `bins` is less than 1.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1]]).expand(10, 2)
        >>> round(expected_calibration_error(probs, (torch.arange(10) < 3).long()), 3)  # 7 of 10 right
        0.2

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
    """
    _check(probs, y, bins)
    from torchmetrics.functional.classification import multiclass_calibration_error

    # Beyond [0, 1], if only by a rounding error, torchmetrics takes probabilities for logits.
    inside = probs.float().clamp(0, _BELOW_ONE)
    return float(multiclass_calibration_error(inside, y.long(), num_classes=probs.shape[1], n_bins=bins, norm="l1"))


def reliability(probs: Float[Tensor, "N K"], y: Int[Tensor, " N"], bins: int = 15) -> Reliability:
    """Return accuracy and mean confidence by bins of the confidence, those of `expected_calibration_error`.

    Args:
        probs: class probabilities.
        y: labels.
        bins: equal parts of [0, 1] by which the images are put together.

    Raises:
        MetricError: as for `expected_calibration_error`.
    """
    _check(probs, y, bins)
    confidence, prediction = probs.float().clamp(0, _BELOW_ONE).max(dim=1)
    right = prediction == y
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1), right=True) - 1
    count = torch.bincount(place, minlength=bins)
    total = torch.zeros(bins, dtype=torch.float64).index_add(0, place, confidence.double())
    rates = [rate(right[place == b]) for b in range(bins)]
    return Reliability(
        count=count,
        confidence=(total / count).float(),
        accuracy=torch.tensor([each.value for each in rates]),
        low=torch.tensor([each.low for each in rates]),
        high=torch.tensor([each.high for each in rates]),
    )


def _check(probs: Tensor, y: Tensor, bins: int) -> None:
    if bins < 1:
        raise MetricError(f"Expected `bins` to be at least 1, but got {bins}. Guo et al. take 15.")
    if probs.ndim != 2 or len(probs) == 0 or probs.shape[1] < 2:
        raise MetricError(
            f"Expected probabilities of shape (N, K) of at least 1 image and 2 classes, but got {tuple(probs.shape)}. "
            "Give one row an image."
        )
    if not (probs.min() >= 0 and probs.max() <= 1.001):  # false for NaN, too
        raise MetricError(
            f"Expected probabilities in [0, 1], but got {float(probs.min()):.3g} to {float(probs.max()):.3g}. Take the "
            "softmax of logits first."
        )
    if y.shape != (len(probs),) or y.is_floating_point() or y.min() < 0 or y.max() >= probs.shape[1]:
        raise MetricError(
            f"Expected {len(probs)} labels from 0 to {probs.shape[1] - 1}, one an image, but got {y.dtype} of shape "
            f"{tuple(y.shape)}{f' up to {int(y.max())}' if y.numel() else ''}. Number them as the classifier does."
        )
