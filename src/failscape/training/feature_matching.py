"""Matching of mean features: generated images of a class should on average look to classifiers as real ones do."""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import Classifier, classifier_features
from failscape.errors import ClassifierError
from failscape.generators import Condition
from failscape.training.conditions import ConditionPool

# As many real images, or all, tell what means are to be met.
_REAL = 100_000
_BATCH = 1000
# In one batch there are a few images of a class, whose mean differs by more than those of all real and all generated
# ones. So differences are averaged over batches: over fifty at first, and over more the slower the generator moves,
# since what is averaged for longer comes later, and a generator that moves quickly then swings about.
_RATE, _LEAST = 0.02, 0.004


@final
class FeatureMatching(nn.Module):
    r"""How far the mean features of generated images are from those of real ones, class by class.

    A discriminator sees single images and hardly notices that, over thousands, one hand of writing a class is drawn
    too often. In the features $f$ of a frozen classifier, scaled to a sum of variances of 1, this is
    $\sum_k p_k \|E[f(x_{generated}) | k] - E[f(x_{real}) | k]\|^2$, with the shares $p_k$ of the classes. The means
    of real images are taken once, those of generated ones run.

    Args:
        classifiers: in whose features; at least one, to be called.
        pool: of real images, and of the conditions that images are generated for.

    Attributes:
        gaps: of each classifier, the running differences times the shares, one row a class; part of the state of a
            training.

    Raises:
        ClassifierError: if a classifier takes images of another shape.

    References:
        Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 3.1: feature matching.
    """

    def __init__(self, classifiers: Sequence[Classifier], pool: ConditionPool) -> None:
        super().__init__()
        assert pool.space is not None, "there is a classifier"
        for classifier in classifiers:
            if classifier.image_shape != pool.images.image_shape:
                raise ClassifierError(
                    f"Expected classifiers of images of shape {pool.images.image_shape}, to match what they see, but "
                    f"{classifier.name} takes {classifier.image_shape}. Name others in `matched_by`."
                )
        self._classifiers = list(classifiers)
        known = [_means_and_scale(classifier, pool) for classifier in classifiers]
        self._means, self._scales = [means for means, _ in known], [scale for _, scale in known]
        self.gaps = nn.ParameterList(nn.Parameter(torch.zeros_like(m), requires_grad=False) for m in self._means)
        shares = torch.tensor(pool.space.shares)
        self._shares = (shares / shares.sum()).clamp_min(1e-6)[:, None]

    def forward(
        self, fake: Float[Tensor, "N C H W"], condition: Condition, *, pace: float
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N C H W"]]:
        """Take a batch into the means; return the distance, a mean over the classifiers, and its gradient in the fakes.

        Args:
            fake: images generated.
            condition: of each.
            pace: the learning rate as a part of its peak.
        """
        rows = F.one_hot(condition.y, len(self._shares)).to(fake) / len(fake)
        fake = fake.detach().requires_grad_()
        rate = max(_LEAST, _RATE * pace)
        terms = [self._term(judge, fake, rows, rate) for judge in range(len(self.gaps))]
        (gradient,) = torch.autograd.grad(torch.stack([term for _, term in terms]).mean(), fake)
        return torch.stack([distance for distance, _ in terms]).mean(), gradient

    def _term(self, judge: int, fake: Tensor, rows: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Return the distance for a classifier, and a term of the same gradient but for the rate."""
        gaps = self.gaps[judge]
        seen = _features(self._classifiers[judge], fake) / self._scales[judge]
        with torch.no_grad():
            gaps.lerp_(rows.T @ seen - rows.sum(dim=0)[:, None] * self._means[judge], rate)
            pull = 2 * rows @ (gaps / self._shares)
        return (gaps.square() / self._shares).sum(), (pull * seen).sum()


@torch.no_grad()
def _means_and_scale(classifier: Classifier, pool: ConditionPool) -> tuple[Float[Tensor, "K F"], Tensor]:
    """Return the scaled mean features of the real images of each class, and by what they are scaled."""
    assert pool.conditions is not None
    assert pool.space is not None
    part = min(1.0, _REAL / len(pool.images))
    sums, squares, counts = [], [], []
    for label in range(pool.space.num_classes):
        members = (pool.conditions.y == label).nonzero()[:, 0]
        # Of each class as many as its share, at least one.
        rows = members[torch.linspace(0, len(members) - 1, math.ceil(part * len(members))).long()]
        seen = [_features(classifier, pool.images.read(some)).double() for some in rows.split(_BATCH)]
        sums.append(torch.stack([batch.sum(dim=0) for batch in seen]).sum(dim=0))
        squares.append(sum(float(batch.square().sum()) for batch in seen))
        counts.append(len(rows))
    n, total = torch.tensor(counts)[:, None], torch.stack(sums)
    scale = (sum(squares) / n.sum() - (total.sum(dim=0) / n.sum()).square().sum()).sqrt().clamp_min(1e-6)
    return (total / n / scale).float(), scale.float()


def _features(classifier: Classifier, x: Tensor) -> Tensor:
    return classifier_features(classifier, x)[0].to(x.device)
