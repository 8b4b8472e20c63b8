"""Matching of mean features: generated images of a class should on average look to classifiers as real ones do."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import Classifier, classifier_features, penultimate_features
from failscape.data import ImageSet
from failscape.errors import ClassifierError
from failscape.generators import Condition, ConditionSpace

# Images by which features are brought to unit variance.
_STANDARD = 2000
# Differences are averaged over about twenty batches: in one there are a few images of a class, whose means differ by
# more than those of all real and all generated ones; and what is averaged for longer comes too late, so that the
# generator swings about.
_RATE = 0.05


@final
class FeatureMatching(nn.Module):
    r"""How far the mean features of generated images are from those of real ones, class by class.

    A discriminator sees single images and hardly notices that, over thousands, one hand of writing a class is drawn
    too often. In the features $f$ of a frozen classifier, scaled to a sum of variances of 1, this is
    $\sum_k p_k \|E[f(x_{generated}) - f(x_{real}) | k]\|^2$, with the shares $p_k$ of the classes. The means run over
    the last twenty batches or so.

    Args:
        classifiers: at least one.
        images: real ones.
        space: of the conditions that images are generated for.

    Attributes:
        gaps: of each classifier, the running differences times the shares, one row a class; part of the state of a
            training.

    Raises:
        ClassifierError: if a classifier takes images of another shape.

    References:
        Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 3.1: feature matching.
    """

    def __init__(self, classifiers: Sequence[Classifier], images: ImageSet, space: ConditionSpace) -> None:
        super().__init__()
        for classifier in classifiers:
            if classifier.image_shape != images.image_shape:
                raise ClassifierError(
                    f"Expected classifiers of images of shape {images.image_shape}, to match what they see, but "
                    f"{classifier.name} takes {classifier.image_shape}. Name others in `matched_by`."
                )
        self._classifiers, self._scales, self.gaps = list(classifiers), [], nn.ParameterList()
        some = images.read(torch.linspace(0, len(images) - 1, min(len(images), _STANDARD)).long())
        for classifier in classifiers:
            seen = penultimate_features(classifier, some)
            self._scales.append(seen.var(dim=0).sum().sqrt().clamp_min(1e-6))
            self.gaps.append(nn.Parameter(torch.zeros(space.num_classes, seen.shape[1]), requires_grad=False))
        shares = torch.tensor(space.shares)
        self._shares = (shares / shares.sum()).clamp_min(1e-6)[:, None]

    def forward(
        self, fake: Float[Tensor, "N C H W"], real: Float[Tensor, "N C H W"], condition: Condition
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N C H W"]]:
        """Take a batch into the means; return the distance, a mean over the classifiers, and its gradient in the fakes.

        Args:
            fake: images generated.
            real: as many real ones.
            condition: of each, generated and real.
        """
        rows = F.one_hot(condition.y, len(self._shares)).to(fake) / len(fake)
        fake = fake.detach().requires_grad_()
        terms = [self._term(judge, fake, real, rows) for judge in range(len(self.gaps))]
        (gradient,) = torch.autograd.grad(torch.stack([term for _, term in terms]).mean(), fake)
        return torch.stack([distance for distance, _ in terms]).mean(), gradient

    def _term(self, judge: int, fake: Tensor, real: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance for a classifier, and a term of the same gradient but for the rate."""
        classifier, scale, gaps = self._classifiers[judge], self._scales[judge], self.gaps[judge]
        seen = _features(classifier, fake) / scale
        with torch.no_grad():
            differences = seen - _features(classifier, real) / scale
            gaps.lerp_(rows.T @ differences, _RATE)
            pull = 2 * rows @ (gaps / self._shares)
        return (gaps.square() / self._shares).sum(), (pull * seen).sum()


def _features(classifier: Classifier, x: Tensor) -> Tensor:
    return classifier_features(classifier, x)[0].to(x.device)
