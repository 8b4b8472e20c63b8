"""How the score of the true class changes with each style, averaged over a population as it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.classifiers.uncertainty import class_probability
from failscape.errors import DataError
from failscape.explain.method import to_8_bits, to_8_bits_with_gradient
from failscape.explain.style_population import StyleSamples, style_batches
from failscape.generators import StyleGenerator

ScoreName = Literal["logit-margin", "probability", "log-probability"]

# Styles of so many samples of each kind are kept for histograms, however many are drawn.
_KEPT = 5000
# Of finite differences two images a style are drawn for each sample. Of many classes it takes more: see `_LEAST`.
DIFFERENCE_SAMPLES = 200
# Samples of each class below which there is no standard error in either half.
_LEAST = 4
# In deviations of each style. On digits the rank correlation with gradients was 0.80 at 0.05, 0.87 at 0.1, 0.92 at 0.2
# and 0.95 here: smaller steps drown in the rounding to 8 bits.
_STEP = 0.4
# Images that go through generator and classifier at once where no gradients are taken.
_CHUNK = 500


def logit_margin(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    r"""Return $z_y - \max_{k \neq y} z_k$: negative where the image is misclassified."""
    is_class = torch.zeros_like(logits, dtype=torch.bool).scatter(1, y[:, None], value=True)
    return logits.gather(1, y[:, None])[:, 0] - logits.masked_fill(is_class, -torch.inf).amax(dim=1)


def log_probability(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    r"""Return $\log p_y$, in nats."""
    return logits.log_softmax(dim=1).gather(1, y[:, None])[:, 0]


STYLE_SCORES: dict[ScoreName, Callable[[Tensor, Tensor], Tensor]] = {
    "logit-margin": logit_margin,
    "probability": class_probability,
    "log-probability": log_probability,
}


def known_score(score: ScoreName) -> ScoreName:
    """Return the name of a score as it was given.

    Raises:
        ValueError: if there is no such score.
    """
    if score not in STYLE_SCORES:
        raise ValueError(f"Expected `score` to be one of {', '.join(STYLE_SCORES)}, but got {score!r}.")
    return score


def gradient_of(
    classifier: Classifier, generator: StyleGenerator, samples: StyleSamples, score: ScoreName
) -> tuple[Float[Tensor, "N S"], Float[Tensor, "N K"]]:
    """Return the gradient of each sample's score in its styles, and the logits of its 8-bit image.

    The gradient is that of the image before rounding, taken where the 8-bit image is.
    """
    with torch.enable_grad():
        s = samples.s.detach().requires_grad_()
        x = generator.synthesize(s, samples.noise)
        logits = classifier(to_8_bits_with_gradient(x)).cpu()
        (gradient,) = torch.autograd.grad(STYLE_SCORES[score](logits, samples.y).sum(), s)
    return gradient, logits.detach()


@torch.no_grad()
def difference_of(
    classifier: Classifier,
    generator: StyleGenerator,
    samples: StyleSamples,
    score: ScoreName,
    step: Float[Tensor, " S"],
) -> tuple[Float[Tensor, "N S"], Float[Tensor, "N K"]]:
    r"""Return central differences in place of the gradient: $(f(s + h_j e_j) - f(s - h_j e_j)) / 2 h_j$.

    For classifiers without gradients; two images are drawn and classified for each style of each sample.

    Args:
        classifier: any.
        generator: draws the images.
        samples: at which the differences are taken.
        score: of the true class.
        step: $h$ of each style, in its own units.
    """
    logits = classifier(to_8_bits(generator.synthesize(samples.s, samples.noise))).cpu()
    n, dim = samples.s.shape
    differences = torch.empty(n, dim)
    # Where a style has no spread at all there is nothing to step over.
    moves = torch.diag(step.clamp_min(1e-6))
    for index in range(n):
        noise = samples.noise[index : index + 1]
        scores = []
        for sign in (1, -1):
            moved = samples.s[index] + sign * moves
            parts = [
                classifier(to_8_bits(generator.synthesize(part, noise.expand(len(part), -1)))).cpu()
                for part in moved.split(_CHUNK)
            ]
            scores.append(STYLE_SCORES[score](torch.cat(parts), samples.y[index].expand(dim)))
        differences[index] = (scores[0] - scores[1]) / (2 * moves.diagonal())
    return differences, logits


def error_over_classes(error: Float[Tensor, "K S"], count: Int[Tensor, " K"]) -> Float[Tensor, " S"]:
    """Return the standard errors of the mean over all classes that were drawn."""
    drawn = error[count > 0]
    return drawn.square().sum(dim=0).sqrt() / len(drawn)


@final
@dataclass(frozen=True, kw_only=True)
class Influence:
    """Mean gradients over a population, and what is known of the population.

    Attributes:
        mean: the mean gradient of each class's score, shape `(K, S)`; NaN for a class that was not drawn.
        error: its standard errors.
        halves: the mean over classes in two halves of the population, shape `(2, S)`.
        count: samples of each class in the population.
        right: how many of them are classified as what was asked for.
        predicted: how many samples are classified as each class.
        centre: mean styles of each class, shape `(K, S)`.
        spread: standard deviation of each style within its class.
        low: the smallest value of each style in the population.
        high: the largest.
        kept: styles of some samples, at most so many of each kind, for histograms.
        kept_right: which of those are classified rightly.
        kept_y: their classes.
    """

    mean: Float[Tensor, "K S"]
    error: Float[Tensor, "K S"]
    halves: Float[Tensor, "2 S"]
    count: Int[Tensor, " K"]
    right: Int[Tensor, " K"]
    predicted: Int[Tensor, " K"]
    centre: Float[Tensor, "K S"]
    spread: Float[Tensor, " S"]
    low: Float[Tensor, " S"]
    high: Float[Tensor, " S"]
    kept: Float[Tensor, "M S"]
    kept_right: Bool[Tensor, " M"]
    kept_y: Int[Tensor, " M"]

    @property
    def middle(self) -> Float[Tensor, " S"]:
        """The middle of the range of values of each style."""
        return (self.low + self.high) / 2

    @property
    def half_range(self) -> Float[Tensor, " S"]:
        """Half that range; never quite zero, so that it can be divided by."""
        return ((self.high - self.low) / 2).clamp_min(1e-6)

    @property
    def overall(self) -> Float[Tensor, " S"]:
        """The mean gradient over all classes, each counting the same."""
        return self.mean[self.count > 0].mean(dim=0)

    @property
    def overall_error(self) -> Float[Tensor, " S"]:
        """Its standard errors."""
        return error_over_classes(self.error, self.count)

    def effect(self, label: int | None = None) -> Float[Tensor, " S"]:
        """Return the change of the score per standard deviation of each style, of one class or over all."""
        return (self.overall if label is None else self.mean[label]) * self.spread

    def ranking(self, label: int | None = None) -> Int[Tensor, " S"]:
        """Return the styles in the order of the size of their effect, the largest first."""
        return self.effect(label).abs().argsort(descending=True, stable=True)


class _Sums:
    """Sums over the samples of each class, in double precision."""

    def __init__(self, classes: int, dim: int) -> None:
        self.n = torch.zeros(classes, dtype=torch.int64)
        # Of finite differences there are fewer than samples.
        self.differentiated = torch.zeros(classes, dtype=torch.int64)
        self.in_half = torch.zeros(2, classes, dtype=torch.int64)
        self.right, self.predicted = (torch.zeros(classes, dtype=torch.int64) for _ in range(2))
        self.gradient, self.gradient_squares, self.style, self.style_squares = (
            torch.zeros(classes, dim, dtype=torch.float64) for _ in range(4)
        )
        self.halves = torch.zeros(2, classes, dim, dtype=torch.float64)
        self.low, self.high = torch.full((dim,), torch.inf), torch.full((dim,), -torch.inf)

    def add(self, samples: StyleSamples, prediction: Tensor) -> None:
        """Add the styles and verdicts of a batch."""
        y, s = samples.y, samples.s.double()
        self.n.index_add_(0, y, torch.ones_like(y))
        self.right.index_add_(0, y, (prediction == y).long())
        self.predicted.index_add_(0, prediction, torch.ones_like(y))
        self.style.index_add_(0, y, s)
        self.style_squares.index_add_(0, y, s.square())
        self.low = torch.minimum(self.low, samples.s.amin(dim=0))
        self.high = torch.maximum(self.high, samples.s.amax(dim=0))

    def add_gradients(self, y: Tensor, gradient: Tensor) -> None:
        """Add the gradients of a batch, or of some of it."""
        g = gradient.double()
        # Every second sample of each class is of the second half.
        ranks = torch.empty_like(y)
        for label in y.unique().tolist():
            rows = y == label
            ranks[rows] = torch.arange(int(rows.sum())) + int(self.differentiated[label])
        for half in range(2):
            rows = ranks % 2 == half
            self.halves[half].index_add_(0, y[rows], g[rows])
            self.in_half[half].index_add_(0, y[rows], torch.ones_like(y[rows]))
        self.differentiated.index_add_(0, y, torch.ones_like(y))
        self.gradient.index_add_(0, y, g)
        self.gradient_squares.index_add_(0, y, g.square())


class _Kept:
    """Styles of some samples of either kind.

    In tensors that are there from the start: some small ones of each batch would keep the heap from shrinking between
    batches, and memory would grow with them.
    """

    def __init__(self, n: int, dim: int) -> None:
        size = min(n, 2 * _KEPT)
        self.s, self.right = torch.empty(size, dim), torch.empty(size, dtype=torch.bool)
        self.y = torch.empty(size, dtype=torch.int64)
        self.used = 0
        self._room = {True: _KEPT, False: _KEPT}

    def add(self, samples: StyleSamples, right: Tensor) -> None:
        """Keep samples of a batch, as far as there is room for their kind."""
        for kind in (True, False):
            rows = (right == kind).nonzero()[:, 0][: self._room[kind]]
            places = slice(self.used, self.used + len(rows))
            self.s[places], self.right[places], self.y[places] = samples.s[rows], right[rows], samples.y[rows]
            self.used += len(rows)
            self._room[kind] -= len(rows)


def measure_influence(
    classifier: Classifier,
    generator: StyleGenerator,
    n: int,
    *,
    rng: torch.Generator,
    score: ScoreName = "logit-margin",
    gradients: bool = True,
    differences: int | None = None,
    setting: str = "samples",
) -> Influence:
    """Draw `n` samples and average the gradient of the true class's score in the styles.

    Memory does not grow with `n`: sums are kept, and styles of a bounded number of samples.

    Args:
        classifier: what is explained.
        generator: as `require_class_styles` returns it.
        n: samples, shared out evenly among the classes.
        rng: draws them.
        score: of the true class, a key of `STYLE_SCORES`.
        gradients: take the classifier's; false takes finite differences, see `difference_of`.
        differences: samples of which finite differences are taken, at most; the population has `n` all the same. By
            default `DIFFERENCE_SAMPLES`, or four of each class where that is more.
        setting: what the caller's user calls `n`, for the message.

    Raises:
        DataError: if there are fewer than four gradients a class, which no standard error can be had of.
    """
    space = generator.condition_space
    assert space is not None, "checked at the border"
    least = _LEAST * len(space.classes)
    taken = max(DIFFERENCE_SAMPLES, least) if differences is None else differences
    for name, given in ((setting, n), ("difference_samples", n if gradients else taken)):
        if given < least:
            raise DataError(
                f"Expected `{name}` of at least {least}, {_LEAST} for each of the {len(space.classes)} classes, but "
                f"got {given}. Take more."
            )
    sums = _Sums(space.num_classes, generator.style_dim)
    kept = _Kept(n, generator.style_dim)
    step = _steps(generator, least, rng) if not gradients else torch.empty(0)
    left = n if gradients else min(n, taken)
    for samples in style_batches(generator, n, rng=rng):
        if gradients:
            gradient, logits = gradient_of(classifier, generator, samples, score)
            sums.add_gradients(samples.y, gradient)
        else:
            with torch.no_grad():
                logits = classifier(to_8_bits(generator.synthesize(samples.s, samples.noise))).cpu()
            if left > 0:
                some = samples[slice(0, left)]
                sums.add_gradients(some.y, difference_of(classifier, generator, some, score, step)[0])
                left -= len(some)
        prediction = logits.argmax(dim=1)
        sums.add(samples, prediction)
        kept.add(samples, prediction == samples.y)
    count = sums.differentiated[:, None].double()
    mean = sums.gradient / count
    variance = (sums.gradient_squares / count - mean.square()).clamp_min(0) * count / (count - 1)
    centre = sums.style / sums.n[:, None]
    drawn = sums.n > 0
    within = (sums.style_squares - sums.n[:, None] * centre.square())[drawn].sum(dim=0) / max(1, n - int(drawn.sum()))
    halves = [total / number[:, None] for total, number in zip(sums.halves, sums.in_half, strict=True)]
    return Influence(
        mean=mean.float(),
        error=(variance / count).sqrt().float(),
        halves=torch.stack([each[drawn].mean(dim=0) for each in halves]).float(),
        count=sums.n,
        right=sums.right,
        predicted=sums.predicted,
        centre=centre.float(),
        spread=within.clamp_min(0).sqrt().float(),
        low=sums.low,
        high=sums.high,
        kept=kept.s[: kept.used].clone(),
        kept_right=kept.right[: kept.used].clone(),
        kept_y=kept.y[: kept.used].clone(),
    )


def _steps(generator: StyleGenerator, n: int, rng: torch.Generator) -> Float[Tensor, " S"]:
    """Return the step of each style: a part of its deviation within its class, over `n` samples or more."""
    samples = list(style_batches(generator, max(1000, n), rng=rng))
    s, y = torch.cat([each.s for each in samples]), torch.cat([each.y for each in samples])
    centred = torch.cat([s[y == label] - s[y == label].mean(dim=0) for label in y.unique().tolist()])
    return _STEP * centred.square().mean(dim=0).sqrt()
