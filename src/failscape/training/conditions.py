"""What the classifier says of the training images: the conditions that a generator learns."""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import SCORES, Classifier
from failscape.data import ImageSet
from failscape.errors import ClassifierError, DataError
from failscape.generators import Condition, ConditionSpace
from failscape.generators.condition import VECTOR, Embedding
from failscape.training.sampler import Sampler

_BATCH = 1000
# The range of scores that a class supports leaves out this part at its unsure end: single images are no support.
_OUTLIERS = 0.001
_SMALLEST = 1e-6
# So many quantiles of each class's scores are kept with the generator, so that it can draw conditions by itself.
_QUANTILES = 65
_NEIGHBOURS = 8


@final
class ConditionPool:
    """The condition of every training image.

    Args:
        images: to learn from.
        classifier: whose verdicts are the conditions, or None.
        batch: images a step.
        score: what is asked for beside the class.
        embedding: how it enters.

    Attributes:
        images: as given.
        space: of the conditions; None without a classifier.
        conditions: one an image, in their order; None without a classifier.

    Raises:
        DataError: if there are fewer images than a batch, or a class that no image is taken for.
        ClassifierError: if the classifier takes images of another shape, or other classes where the score is that
            of the label.
    """

    def __init__(
        self, images: ImageSet, classifier: Classifier | None, *, batch: int, score: str, embedding: Embedding
    ) -> None:
        if len(images) < batch:
            raise DataError(
                f"Expected at least as many images as a batch, {batch}, but got {len(images)}. Choose a smaller "
                "`batch` or more images."
            )
        self.images = images
        self._classifier = classifier
        self._score = score
        self.space: ConditionSpace | None = None
        self.conditions: Condition | None = None
        if classifier is None:
            return
        if score == "true-class" and tuple(images.class_names) != classifier.class_names:
            raise ClassifierError(
                f"Expected a classifier of the classes that the images are labelled with, {tuple(images.class_names)}, "
                f"for the score of the true class, but {classifier.name} has {classifier.class_names}. Give both the "
                "same class names, in the same order."
            )
        parts = [self.conditions_of(batch.x, batch.y) for batch in images.batches(_BATCH)]
        self.conditions = Condition.cat([part for part in parts if part is not None])
        present = set(self.conditions.y.tolist())
        missing = [name for k, name in enumerate(classifier.class_names) if k not in present]
        if missing:
            raise DataError(
                f"Expected images of every class, but none is taken for {', '.join(missing)}. Add such images, or "
                "explain a classifier without that class."
            )
        self.space = ConditionSpace(
            num_classes=classifier.num_classes,
            score=score,
            embedding=embedding,
            supported=[self._range_of(k) for k in range(classifier.num_classes)],
            shares=[round(float((self.conditions.y == k).float().mean()), 5) for k in range(classifier.num_classes)],
            quantiles=[self._quantiles_of(k) for k in range(classifier.num_classes)],
        )

    def conditions_of(self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"]) -> Condition | None:
        """Return what the classifier says of images, or None without one."""
        return None if self._classifier is None else conditions_of(self._classifier, x, y, score=self._score)

    def draw(self, n: int, *, rng: torch.Generator) -> Condition | None:
        """Draw the conditions of `n` of the images, or None without a classifier."""
        return (
            None if self.conditions is None else self.conditions[torch.randint(len(self.images), (n,), generator=rng)]
        )

    def _range_of(self, label: int) -> list[float]:
        # Entropy alone grows as the classifier becomes less sure.
        ends = [0, 1 - _OUTLIERS] if self._score == "entropy" else [_OUTLIERS, 1]
        return [round(float(mark), 4) for mark in np.quantile(self._scores_of(label), ends)]

    def _quantiles_of(self, label: int) -> list[float]:
        marks = np.quantile(self._scores_of(label), np.linspace(0, 1, _QUANTILES))
        return [round(float(mark), 6) for mark in marks]

    def _scores_of(self, label: int) -> Float[np.ndarray, " M"]:
        assert self.conditions is not None
        scores: np.ndarray = self.conditions.score[self.conditions.y == label].numpy()
        return scores


@final
class StratifiedSampler:
    """Draws a part of each batch evenly over class and score, the rest image after image, and sorts it by class.

    Uncertain images are rare; so drawn, they are learned, by the generator and by its discriminator alike.

    Args:
        pool: of the images.
        share: the part that is drawn evenly.
        seed: of all orders and draws.
    """

    def __init__(self, pool: ConditionPool, *, share: float, seed: int) -> None:
        assert pool.conditions is not None
        assert pool.space is not None
        self._share = share
        self._seed = seed
        self._plain = Sampler(len(pool.conditions), seed=seed)
        self._ranges = torch.tensor(pool.space.supported)
        self._classes = pool.conditions.y
        # Of each class, the images in the order of their scores.
        order = torch.argsort(pool.conditions.score, stable=True)
        self._rows = [order[pool.conditions.y[order] == label] for label in range(pool.space.num_classes)]
        self._scores = [pool.conditions.score[rows].float() for rows in self._rows]

    def indices(self, position: int, size: int) -> Int[Tensor, " size"]:
        """Return the indices of the `size` images that come after `position` images."""
        even = round(size * self._share)
        plain = self._plain.indices(position - round(position * self._share), size - even)
        mixed = np.random.SeedSequence((self._seed, 1, position)).generate_state(1, np.uint64)
        rng = torch.Generator().manual_seed(int(mixed[0]))
        labels = torch.randint(len(self._rows), (even,), generator=rng)
        low, high = self._ranges[labels].unbind(dim=1)
        wanted = low + (high - low) * torch.rand(even, generator=rng)
        drawn = torch.empty(even, dtype=torch.int64)
        for label in labels.unique().tolist():
            mine = labels == label
            # One of the images whose scores are next to the one drawn: the nearest alone would be seen too often.
            place = torch.searchsorted(self._scores[label], wanted[mine])
            place += torch.randint(-_NEIGHBOURS, _NEIGHBOURS + 1, place.shape, generator=rng)
            place = place.clamp(0, len(self._rows[label]) - 1)
            drawn[mine] = self._rows[label][place]
        chosen = torch.cat([plain, drawn])
        # Class after class, so that the groups of the minibatch deviation see how alike images of one class are.
        return chosen[torch.argsort(self._classes[chosen], stable=True)]


@torch.no_grad()
def conditions_of(
    classifier: Classifier, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, score: str
) -> Condition:
    """Return what a classifier says of images, as a condition.

    Args:
        classifier: any.
        x: images.
        y: their labels; they count where the score is that of the label.
        score: a key of `SCORES`, or "vector" for the whole distribution beside the confidence.
    """
    logits = classifier(x)
    kind = SCORES["confidence" if score == VECTOR else score]
    classes = kind.classes(logits, y.to(logits.device))
    # In double precision a confidence of almost 1 keeps its logit.
    value = kind.logit(logits, classes).double().sigmoid().clamp(_SMALLEST, 1)
    probs = logits.softmax(dim=1) if score == VECTOR else None
    return Condition(y=classes, score=value, probs=probs).to(x.device)
