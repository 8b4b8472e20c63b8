"""What the frozen classifier sees in an image, handed to the discriminator beside the image."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier, classifier_features
from failscape.data import ImageSet
from failscape.training.guidance import guarded

# Images by which features are brought to unit size.
_STANDARD = 2000
# As in the minibatch deviation: neighbours in the batch, which are of one class.
_GROUP = 4
# Deviations within a group are smaller than those of the whole; so they count as much.
_DEVIATION_GAIN = 2.0


@final
class Perception:
    """A classifier's features and logits of images, standardised, and how much they differ within groups.

    A discriminator that is given them knows what the classifier makes of an image and learns what such an image looks
    like, so that a generator cannot bind its condition by tricks that no real image knows. (Sauer et al., "Projected
    GANs Converge Faster", NeurIPS 2021, judge features of a frozen network in place of images.) Every second image is
    moved and noised before, real and generated ones alike, as under guidance.

    Args:
        classifier: with gradients.
        images: real ones; features are standardised by some of them.

    Attributes:
        width: of a row.
    """

    def __init__(self, classifier: Classifier, images: ImageSet) -> None:
        self._classifier = classifier
        some = images.read(torch.arange(0, len(images), max(1, len(images) // _STANDARD)))
        with torch.no_grad():
            features, logits = classifier_features(classifier, some)
        self._scales = (features.std().clamp_min(1e-6), logits.std().clamp_min(1e-6))
        self._mean = self._scaled(features, logits).mean(dim=0)
        self.width = len(self._mean) + 2

    def __call__(self, x: Float[Tensor, "N C H W"], *, rng: torch.Generator) -> Float[Tensor, "N F"]:
        """Return one row an image; differentiable.

        Args:
            x: images in [0, 1], those of one class next to each other.
            rng: moves and noises every second one.
        """
        with torch.autocast(x.device.type, enabled=False):
            seen = self._scaled(*classifier_features(self._classifier, guarded(x.float(), rng=rng)))
            rows = (seen - self._mean).to(x.device)
        group = math.gcd(_GROUP, len(rows))
        grouped = rows.unflatten(0, (-1, group))
        centred = grouped - grouped.mean(dim=1, keepdim=True)
        deviation = (centred.square().mean(dim=1) + 1e-8).sqrt()
        classes = self._classifier.num_classes
        parts = [deviation[:, :-classes].mean(dim=1), deviation[:, -classes:].mean(dim=1)]
        spread = torch.stack(parts, dim=1).repeat_interleave(group, dim=0)
        return torch.cat([rows, _DEVIATION_GAIN * spread], dim=1)

    def _scaled(self, features: Tensor, logits: Tensor) -> Tensor:
        return torch.cat([features / self._scales[0], logits / self._scales[1]], dim=1)
