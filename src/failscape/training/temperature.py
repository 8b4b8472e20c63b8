"""Fitting a temperature on one half of labelled images, and measuring on the other half what it is good for."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import fit_temperature
from failscape.errors import DataError
from failscape.metrics import Reliability, expected_calibration_error, reliability


@final
@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What probabilities are worth at one temperature.

    Attributes:
        error: expected calibration error.
        cross_entropy: negative log-likelihood of the labels, nats an image.
        reliability: accuracy by bins of the confidence.
    """

    error: float
    cross_entropy: float
    reliability: Reliability


@final
@dataclass(frozen=True, kw_only=True)
class TemperatureFit:
    """A temperature and its effect on images that it was not fitted on.

    Attributes:
        temperature: divides the logits it was fitted on; on top of a temperature that they may have already.
        fitted: images that it was fitted on.
        right: which of the other images are classified as labelled, at whatever temperature.
        before: the other images at the temperature they came with.
        after: the same with the fitted one on top.
    """

    temperature: float
    fitted: int
    right: Bool[Tensor, " M"]
    before: Calibrated
    after: Calibrated


def fit_and_measure(
    logits: Float[Tensor, "N K"], y: Int[Tensor, " N"], *, fitted: Bool[Tensor, " N"], bins: int = 15
) -> TemperatureFit:
    """Fit a temperature on some images and measure its effect on the others.

    Args:
        logits: of images that the classifier was not trained on.
        y: their labels.
        fitted: which images to fit on; at least 2, and at least one must be left.
        bins: of the calibration error.

    Raises:
        DataError: if there are too few images.
        FailscapeError: what `fit_temperature` and `expected_calibration_error` raise.
    """
    count = int(fitted.sum())
    if count < 2 or count == len(y):
        raise DataError(
            f"Expected at least 2 images to fit a temperature on and 1 to measure it on, but got {count} and "
            f"{len(y) - count}. Give at least 4 images, and some hundreds for a temperature to rely on."
        )
    temperature = fit_temperature(logits[fitted], y[fitted])
    others, labels = logits[~fitted], y[~fitted]
    return TemperatureFit(
        temperature=temperature,
        fitted=count,
        right=others.argmax(dim=1) == labels,
        before=_measure(others, labels, bins),
        after=_measure(others / temperature, labels, bins),
    )


def first_half(y: Int[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Return which images are the first half of a set; of a set sorted by class, the first half of each class."""
    place, half = torch.arange(len(y)), torch.full((len(y),), len(y) // 2)
    if len(y) and bool((y[1:] >= y[:-1]).all()):
        counts = torch.bincount(y)
        place, half = place - (counts.cumsum(0) - counts)[y], (counts // 2)[y]
    return place < half


def _measure(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"], bins: int) -> Calibrated:
    probs = logits.softmax(dim=1)
    return Calibrated(
        error=expected_calibration_error(probs, y, bins=bins),
        cross_entropy=F.cross_entropy(logits.double(), y).item(),
        reliability=reliability(probs, y, bins),
    )
