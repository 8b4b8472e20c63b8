"""Calibration: the one number that makes a classifier's probabilities mean what they say."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.errors import ClassifierError, DataError, LabelError

# Between these many spreads of the logits a softmax goes from one class alone to all classes alike.
_COLDEST, _HOTTEST = 1e-2, 1e2
# Halvings of the bracket, which is log(_HOTTEST / _COLDEST) = 9.2 wide: to the ninth digit.
_HALVINGS = 32


@torch.no_grad()
def fit_temperature(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> float:
    r"""Return the temperature T that makes the labels most likely under softmax(logits / T).

    The mean negative log-likelihood is convex in $\beta = 1 / T$, so its one minimum is where

    $$\frac{1}{N} \sum_n \Big(\sum_k p_{nk}(\beta)\, z_{nk} - z_{n y_n}\Big)$$

    changes its sign; found by bisection over log T, in float64. There is no minimum if the images are all right,
    which wants T = 0, or no better than guessed, which wants T = ∞. Then the end of the range that is looked
    through is returned: a hundredth of, or a hundred times, the standard deviation of the logits about the mean of
    their row.

    The predictions do not change. If the logits have a temperature already, the one returned comes on top.

    Args:
        logits: of images that the classifier was not trained on.
        y: their labels.

    Raises:
        ClassifierError: if there are fewer than 2 classes, or the logits are not finite or do not differ.
        DataError: if there are fewer than 2 images.
        LabelError: if there is not one label an image, or one is no class.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).expand(100, 2)
        >>> y = (torch.arange(100) >= 73).long()  # 73 of 100 are right: logit 1
        >>> round(fit_temperature(logits, y), 1)
        4.0

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 9.
    """
    _check(logits, y)
    z = logits.double() - logits.double().mean(dim=1, keepdim=True)
    spread = z.square().mean().sqrt().item()
    if spread <= 1e-12 * float(logits.abs().max()):  # a mean is exact up to a rounding error
        raise ClassifierError(
            "Expected logits that differ between the classes, but got the same for every class of every image, to "
            "which any temperature is as good. Train the classifier first, or check its weights."
        )
    z = z / spread
    of_label = z.gather(1, y[:, None])[:, 0].mean()

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((z * math.exp(-middle)).softmax(dim=1) * z).sum(dim=1).mean()
        # More than the label has: the probabilities are too sure, and T must be higher.
        low, high = (middle, high) if expected > of_label else (low, middle)
    return spread * math.exp((low + high) / 2)


def _check(logits: Tensor, y: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ClassifierError(
            f"Expected logits of shape (N, K) of at least 2 classes, but got {tuple(logits.shape)}. Give one row an "
            "image and one column a class."
        )
    if len(logits) < 2:
        raise DataError(
            f"Expected at least 2 images to fit a temperature, but got {len(logits)}. Take some hundreds for a "
            "temperature to rely on."
        )
    if not logits.isfinite().all():
        raise ClassifierError("Expected finite logits, but got NaN or infinity. Check the classifier's weights.")
    if y.shape != (len(logits),) or y.is_floating_point() or y.dtype == torch.bool:
        raise LabelError(
            f"Expected one integer label an image, shape ({len(logits)},), but got {y.dtype} of shape {tuple(y.shape)}."
        )
    if y.min() < 0 or y.max() >= logits.shape[1]:
        raise LabelError(
            f"Expected labels from 0 to {logits.shape[1] - 1}, the classes of the logits, but got {int(y.min())} to "
            f"{int(y.max())}. Number them as the classifier does."
        )
