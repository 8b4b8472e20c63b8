"""What a generator reaches: quality, coverage, and how well it does what it is asked."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import SCORES, Classifier, penultimate_features
from failscape.data import ImageSet
from failscape.generators import Condition, ConditionSpace, Generator, StyleGAN2
from failscape.generators.condition import VECTOR
from failscape.metrics import Estimate, frechet_distance, precision_and_recall, rank_correlation
from failscape.training.conditions import ConditionPool, conditions_of

_BATCH = 500
_MOST = 10_000
_EVEN = 2000
_ENCODED = 2000
# The cost of a distance grows with the cube of the number of features: 784 pixels take a third of a second, as many as
# a colour image of 64 x 64 has would take half an hour.
_MOST_PIXELS = 1024


class GeneratorEvaluation:
    """Judges generators beside real images.

    Args:
        images: real ones that were not learned from; the first 10,000 count.
        training: those learned from, or more of their kind; requests are the conditions of some, as many of each class
            as there are among `images`, and the floor is how far these very ones lie from `images`.
        classifier: whose verdicts are the conditions.
        oracle: whose features measure distance, if given; else the classifier's; without either, the pixels do, of an
            image of more than 1,024 numbers the means of patches.
        score: what is asked for beside the class.
        conditions: of images of every class, such as all of those learned from, which requests for whole distributions
            are taken from; by default those of the images drawn from `training`, which may lack a class.
        seed: of all draws.
    """

    def __init__(
        self,
        images: ImageSet,
        training: ImageSet,
        *,
        classifier: Classifier | None,
        oracle: Classifier | None,
        score: str = "confidence",
        conditions: Condition | None = None,
        seed: int,
    ) -> None:
        self._classifier, self._oracle = classifier, oracle
        self._judge = oracle or classifier
        self._score, self._seed = score, seed
        n = min(len(images), len(training), _MOST)
        # Not from `seed` alone: a corruption recipe may have shuffled the same images by that.
        rng = torch.Generator().manual_seed(1_000_003 + seed)
        order = torch.randperm(len(training), generator=rng)
        # Of as many of each class: of 10,000 digits drawn at random the mix alone made the floor 0.014 to 0.053, where
        # it is 0.015 to 0.016 so.
        labels, counts = training.y[order], images.y[:n].bincount(minlength=len(images.class_names))
        rows = torch.cat([order[labels == k][:count] for k, count in enumerate(counts.tolist())]).sort().values
        x, y = training.read(rows), training.y[rows]
        self._real = self._features(images.read(torch.arange(n)))
        self.floor = frechet_distance(self._real, self._features(x))
        self._samples = len(rows)
        self._requests = None if classifier is None else conditions_of(classifier, x, y, score=score)
        self._known = self._requests if conditions is None else conditions

    def __call__(self, generator: Generator) -> dict[str, float]:
        """Return `quality` without intervals, and of a generator with a condition `binding`, as far as it is known."""
        quality = {
            key: number.value if isinstance(number, Estimate) else number
            for key, number in self.quality(generator).items()
        }
        binding = self.binding(generator) if generator.condition_space is not None else {}
        # Of a judge who says the same of all images there is no rank correlation; that must not end a training.
        return quality | {
            key: value for key, value in binding.items() if "spearman" not in key or not math.isnan(value)
        }

    @torch.no_grad()
    def quality(self, generator: Generator) -> dict[str, Estimate | float]:
        """Return the Fréchet distance of samples from the real images, its floor, precision and recall.

        Requests are those of training images, so the samples should be distributed as these are.
        """
        features = self._drawn(generator)
        covered = precision_and_recall(self._real, features)
        return {
            "frechet": frechet_distance(self._real, features),
            "floor": self.floor,
            "recall": covered.recall,
            "precision": covered.precision,
        }

    def distance(self, generator: Generator) -> float:
        """Return the Fréchet distance alone, as of `quality`."""
        return frechet_distance(self._real, self._drawn(generator))

    @torch.no_grad()
    def binding(self, generator: Generator) -> dict[str, float]:
        """Return how well requests spread evenly over classes and scores are met, by the classifier and the oracle."""
        assert self._classifier is not None
        assert self._known is not None
        assert generator.condition_space is not None
        rng = torch.Generator().manual_seed(self._seed + 2)
        y = torch.arange(_EVEN) % generator.condition_space.num_classes
        asked = even_requests(generator.condition_space, y, like=self._known, rng=rng)
        x = draw_images(generator, _EVEN, asked, rng=rng)
        kind = SCORES["confidence" if self._score == VECTOR else self._score]
        numbers = {}
        for prefix, judge in (("", self._classifier), ("oracle_", self._oracle)):
            if judge is None:
                continue
            logits = torch.cat([judge(batch).cpu() for batch in x.split(_BATCH)])
            obtained = kind.of(logits, asked.y)
            numbers[f"{prefix}spearman"] = rank_correlation(asked.score, obtained)
            numbers[f"{prefix}mean_error"] = float((asked.score - obtained).abs().mean())
            numbers[f"{prefix}class"] = float((logits.argmax(dim=1) == asked.y).float().mean())
        return numbers

    @torch.no_grad()
    def _drawn(self, generator: Generator) -> Tensor:
        rng = torch.Generator().manual_seed(self._seed + 1)
        requests = self._requests if generator.condition_space is not None else None
        return self._features(draw_images(generator, self._samples, requests, rng=rng))

    def _features(self, x: Tensor) -> Tensor:
        return _pixels(x) if self._judge is None else penultimate_features(self._judge, x)


def _pixels(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
    """Return the pixels, or the means of patches, as small as makes few enough of them."""
    _, channels, height, width = x.shape
    shrink = min(1.0, math.sqrt(_MOST_PIXELS / (channels * height * width)))
    return F.adaptive_avg_pool2d(x, (max(1, int(height * shrink)), max(1, int(width * shrink)))).flatten(1)


@torch.no_grad()
def draw_images(
    generator: Generator, n: int, condition: Condition | None, *, rng: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Draw `n` images in batches, with bounded memory."""
    parts = []
    for start in range(0, n, _BATCH):
        rows = slice(start, min(start + _BATCH, n))
        asked = None if condition is None else condition[rows]
        parts.append(generator.sample(rows.stop - start, condition=asked, rng=rng))
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_error(generator: Generator, images: ImageSet, pool: ConditionPool) -> float:
    """Return the root mean squared difference of a pixel between images and what is drawn of their latents.

    Args:
        generator: a StyleGAN2.
        images: real ones; the first 2,000 count.
        pool: knows what the classifier says of them.
    """
    rows = torch.arange(min(len(images), _ENCODED))
    x, y = images.read(rows), images.y[rows]
    assert isinstance(generator, StyleGAN2)
    again = generator(generator.encode(x), pool.conditions_of(x, y))
    return float((again - x).square().mean().sqrt())


def even_requests(space: ConditionSpace, y: Int[Tensor, " N"], *, like: Condition, rng: torch.Generator) -> Condition:
    """Draw requests for classes, evenly over the scores that each supports; a confidence from 0.5.

    Args:
        space: of the conditions.
        y: the classes.
        like: conditions of real images, some of each of the classes. A generator of whole distributions is asked for
            theirs: of each class, those whose confidences are nearest.
        rng: draws the scores.
    """
    score = space.even_scores(y, rng=rng)
    if space.score != VECTOR:
        return Condition(y=y, score=score)
    nearest = torch.empty_like(y)
    for label in y.unique().tolist():
        rows, wanted = (like.y == label).nonzero()[:, 0], y == label
        nearest[wanted] = rows[(like.score[rows][None] - score[wanted][:, None]).abs().argmin(dim=1)]
    return like[nearest]
