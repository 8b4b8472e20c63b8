"""The frozen classifier as an objective: generated images are to be given a target distribution."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError
from failscape.training.guidance import guarded, target_divergence
from failscape.training.schedule import ramp


@final
class TargetGuidance:
    r"""What a family adds to the loss of its generator so that a classifier gives its images a target distribution.

    $k \cdot \frac1n \sum_i KL(t \| p(\hat x_i)) = k \cdot \frac1n \sum_i \sum_c t_c \log \frac{t_c}{p_c(\hat x_i)}$

    For a target that is one class this is the cross-entropy $-k \frac1n \sum_i \log p_c(\hat x_i)$. The paper prints
    its eq. 1 without the minus, which would reward the wrong class; its eq. 2 without the mean over images, and with a
    sum over "n, the number of images" where it must go over the classes. In both "y * y_gen" stands for the critic's
    score.

    Args:
        classifier: gives the verdicts; it is never changed.
        target: $t$, the distribution wanted, shape `(K,)`.
        weight: k.
        start: part of the training at which it begins.
        full: part of the training at which it has its whole weight.
        guard: move and noise every second image before it is shown, so that no shortcut of single pixels serves.

    Raises:
        UnsupportedClassifier: if the classifier has no gradients.
        ClassifierError: if it knows another number of classes than the target has.

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", eq. 1 and 2.
    """

    def __init__(
        self,
        classifier: Classifier,
        target: Float[Tensor, " K"],
        *,
        weight: float,
        start: float = 0.0,
        full: float = 0.0,
        guard: bool = True,
    ) -> None:
        classifier.require_gradients("guidance", "Search in the latent space of a trained generator instead.")
        if len(target) != classifier.num_classes:
            raise ClassifierError(
                f"Expected a target for the {classifier.num_classes} classes of {classifier.name}, but got one for "
                f"{len(target)}. Give a share for each class."
            )
        self._classifier, self._target = classifier, target
        self._weight, self._start, self._full, self._guard = weight, start, full, guard

    def weight(self, progress: float) -> float:
        """Return the weight at a part of the training."""
        return self._weight * ramp(progress, self._start, self._full)

    def __call__(self, x: Float[Tensor, "N C H W"], *, rng: torch.Generator) -> Float[Tensor, ""]:
        """Return the mean divergence of generated images, in nats, without the weight; NaN where an image is."""
        if not x.isfinite().all():
            # The loop ends at a loss of NaN and says where; the classifier would complain of itself.
            return x.sum() * torch.nan
        shown = guarded(x, rng=rng) if self._guard else x
        return target_divergence(self._classifier(shown), self._target).mean()
