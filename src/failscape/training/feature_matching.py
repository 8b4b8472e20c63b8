"""Matching of features: generated images of a class should, taken together, look to classifiers as real ones do."""

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

# As many real images, or all, tell what means and covariances are to be met.
_REAL = 100_000
_BATCH = 1000
# In one batch there are a few images of a class, whose mean differs by more than those of all real and all generated
# ones. So differences are averaged over batches: over fifty at first, and over more the slower the generator moves,
# since what is averaged for longer comes later, and a generator that moves quickly then swings about.
_RATE, _LEAST = 0.02, 0.004
# Batches after which the way from the covariances of generated images to those of real ones is found anew.
_ANEW = 10
# Of the mean variance of a feature: so much is added to all, for in directions in which real images hardly differ the
# covariances of some thousand differ by chance alone.
_RIDGE = 0.05


@final
class FeatureMatching(nn.Module):
    r"""How far the features of generated images are from those of real ones, class by class.

    A discriminator sees single images and hardly notices that, over thousands, one hand of writing a class is drawn
    too often. In the features $f$ of a frozen classifier, scaled to a sum of variances of 1, this is
    $\sum_k p_k (\|\mu_k - m_k\|^2 + \lambda\, tr(\Sigma_k + S_k - 2 (S_k^{1/2} \Sigma_k S_k^{1/2})^{1/2}))$, with the
    shares $p_k$ of the classes, the means $m_k$ and covariances $S_k$ of real images, and $\mu_k$ and $\Sigma_k$, both
    about $m_k$, of generated ones: with $\lambda = 1$ the Fréchet distance of each class. Those of real images are
    taken once, those of generated ones run.

    The second term pulls each feature to where the linear map leads it that carries the one covariance to the other.

    Args:
        classifiers: in whose features; at least one, to be called.
        pool: of real images, and of the conditions that images are generated for.
        spread: $\lambda$; with 0 means alone are matched.

    Raises:
        ClassifierError: if a classifier takes images of another shape.

    References:
        Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 3.1: feature matching.
        Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982.
        Gelbrich, "On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces", 1990:
            the linear map.
    """

    def __init__(self, classifiers: Sequence[Classifier], pool: ConditionPool, *, spread: float = 0.0) -> None:
        super().__init__()
        assert pool.space is not None, "there is a classifier"
        for classifier in classifiers:
            if classifier.image_shape != pool.images.image_shape:
                raise ClassifierError(
                    f"Expected classifiers of images of shape {pool.images.image_shape}, to match what they see, but "
                    f"{classifier.name} takes {classifier.image_shape}. Name others in `matched_by`."
                )
        shares = torch.tensor(pool.space.shares)
        shares = (shares / shares.sum()).clamp_min(1e-6)
        self._judges = nn.ModuleList(_Judge(classifier, pool, shares, spread) for classifier in classifiers)

    def forward(
        self, fake: Float[Tensor, "N C H W"], condition: Condition, *, pace: float
    ) -> tuple[dict[str, Tensor], Float[Tensor, "N C H W"]]:
        """Take a batch into what runs; return both terms, without the weight, and the gradient of their sum.

        Args:
            fake: images generated.
            condition: of each.
            pace: the learning rate as a part of its peak.

        Returns:
            `matching`, of the means, and if it counts `spread`, of the covariances: means over the classifiers; and the
            gradient in the fakes.
        """
        fake = fake.detach().requires_grad_()
        rate = max(_LEAST, _RATE * pace)
        terms = [judge(fake, condition, rate) for judge in self._judges]
        (gradient,) = torch.autograd.grad(torch.stack([pull for _, pull in terms]).mean(), fake)
        names = terms[0][0]
        return {name: torch.stack([losses[name] for losses, _ in terms]).mean() for name in names}, gradient


class _Judge(nn.Module):
    """The distance in the features of one classifier; what runs is part of the state of a training.

    Args:
        classifier: in whose features.
        pool: of real images.
        shares: of the classes.
        spread: weight of the covariances.
    """

    gaps: Tensor
    excess: Tensor
    pull: Tensor
    distance: Tensor
    turn: Tensor

    def __init__(self, classifier: Classifier, pool: ConditionPool, shares: Float[Tensor, " K"], spread: float) -> None:
        super().__init__()
        self._classifier, self._shares, self._spread = classifier, shares, spread
        self._means, self._covariances, self._scale = _moments(classifier, pool)
        self.register_buffer("gaps", torch.zeros_like(self._means))
        if spread > 0:
            ridge = _RIDGE * self._covariances.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-9)
            self._ridge = ridge[:, None, None] * torch.eye(self._covariances.shape[1])
            self._root = _square_root(self._covariances + self._ridge)
            self.register_buffer("excess", torch.zeros_like(self._covariances))
            self.register_buffer("pull", torch.zeros_like(self._covariances))
            self.register_buffer("distance", torch.zeros(()))
            self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    def forward(self, fake: Tensor, condition: Condition, rate: float) -> tuple[dict[str, Tensor], Tensor]:
        """Return both terms, and what has the gradient of their sum."""
        rows = F.one_hot(condition.y, len(self._shares)).to(fake) / len(fake)
        seen = _features(self._classifier, fake) / self._scale
        with torch.no_grad():
            self.gaps.lerp_(rows.T @ seen - rows.sum(dim=0)[:, None] * self._means, rate)
            pull = 2 * rows @ (self.gaps / self._shares[:, None])
            losses = {"matching": (self.gaps.square() / self._shares[:, None]).sum()}
            if self._spread > 0:
                away = seen - self._means[condition.y]
                self._follow(away, rows, rate)
                pull += 2 * self._spread * torch.einsum("nd,nde->ne", away, self.pull[condition.y]) / len(fake)
                losses["spread"] = self.distance.clone()
        return losses, (pull * seen).sum()

    def _follow(self, away: Float[Tensor, "N F"], rows: Float[Tensor, "N K"], rate: float) -> None:
        """Take a batch into the covariances and, when its turn has come, find the way to the real ones anew."""
        for label, part in enumerate(rows.T):
            seen = (away * part[:, None]).T @ away
            self.excess[label].lerp_(seen - part.sum() * self._covariances[label], rate)
        if self.turn % _ANEW == 0:
            generated = self._covariances + self.excess / self._shares[:, None, None] + self._ridge
            self.pull, self.distance = self._way(generated)
        self.turn += 1

    def _way(self, generated: Float[Tensor, "K F F"]) -> tuple[Float[Tensor, "K F F"], Tensor]:
        """Return the gradient of the distance of covariances in those generated, and the distance over all classes."""
        values, vectors = torch.linalg.eigh(self._root @ generated.double() @ self._root)
        roots = values.clamp_min(1e-12).sqrt()
        carried = self._root @ ((vectors / roots[:, None]) @ vectors.mT) @ self._root
        traces = (generated + self._covariances + self._ridge).diagonal(dim1=1, dim2=2).sum(dim=1)
        distance = (self._shares * (traces - 2 * roots.sum(dim=1))).sum()
        return (torch.eye(generated.shape[1]) - carried).float(), distance.float()


@torch.no_grad()
def _moments(
    classifier: Classifier, pool: ConditionPool
) -> tuple[Float[Tensor, "K F"], Float[Tensor, "K F F"], Tensor]:
    """Return means and covariances of the scaled features of the real images of each class, and the scale."""
    assert pool.conditions is not None
    assert pool.space is not None
    part = min(1.0, _REAL / len(pool.images))
    means, covariances, counts = [], [], []
    for label in range(pool.space.num_classes):
        members = (pool.conditions.y == label).nonzero()[:, 0]
        # Of each class as many as its share, at least one.
        rows = members[torch.linspace(0, len(members) - 1, math.ceil(part * len(members))).long()]
        seen = torch.cat([_features(classifier, pool.images.read(some)).double() for some in rows.split(_BATCH)])
        means.append(seen.mean(dim=0))
        covariances.append(seen.T.cov(correction=0))
        counts.append(len(rows))
    shares, mean, covariance = torch.tensor(counts).double() / sum(counts), torch.stack(means), torch.stack(covariances)
    between = shares @ (mean - shares @ mean).square().sum(dim=1)
    within = shares @ covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
    scale = (between + within).sqrt().clamp_min(1e-6)
    return (mean / scale).float(), (covariance / scale**2).float(), scale.float()


def _square_root(matrices: Float[Tensor, "K F F"]) -> Float[Tensor, "K F F"]:
    values, vectors = torch.linalg.eigh(matrices.double())
    root: Tensor = (vectors * values.clamp_min(0).sqrt()[:, None]) @ vectors.mT
    return root


def _features(classifier: Classifier, x: Tensor) -> Tensor:
    return classifier_features(classifier, x)[0].to(x.device)
