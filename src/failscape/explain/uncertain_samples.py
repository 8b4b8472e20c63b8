"""Uncertain samples: what the classifier is unsure of, and how an image becomes so."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import SCORES, Classifier
from failscape.errors import GeneratorError, UnsupportedGenerator
from failscape.explain.class_names import class_numbers
from failscape.explain.method import Method, to_8_bits_with_gradient
from failscape.explain.uncertain_result import (
    ALONE,
    GRID,
    REAL,
    REAL_GRID,
    REAL_SWEEP,
    REFINED,
    SWEEP,
    UncertainResult,
)
from failscape.generators import Autoencoder, Condition, ConditionSpace, Generator, StyleGenerator
from failscape.generators.condition import SUREST, VECTOR
from failscape.search import reach_level

_BATCH = 250
# Requests are met to this in the logit of the score.
_TOLERANCE = 0.02
# Of confidences and probabilities, where the generator supports them; else, as many over what it supports.
_LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)
# A real image stands for a request if its own score is as near as this.
_SAME_SCORE = 0.01


@final
@dataclass(frozen=True, kw_only=True)
class _Draw:
    """Latents, noise and conditions of images to be drawn."""

    z: Float[Tensor, "N D"]
    noise: Float[Tensor, "N P"] | None
    condition: Condition

    def rows(self, part: slice) -> "_Draw":
        noise = None if self.noise is None else self.noise[part]
        return _Draw(z=self.z[part], noise=noise, condition=self.condition[part])


@final
class UncertainSamples(Method[UncertainResult]):
    r"""What do images look like that the classifier is unsure of, and how does this image become one?

    Three views by a generator that was trained on class and score (the confidence, unless it says otherwise):

    - *Globally*: samples of each class, from sure to unsure.
    - *Locally*: one latent with its noise, and the requested score swept from 1 down; the same for real images, whose
      latents the encoder gives.
    - *Requested against obtained*: requests spread evenly over the scores that the training images support, from 0.5
      for a confidence. Once as the generator draws them, and once *refined*: from the generator's own sample a few
      steps of search (in W where there is one, else in Z; noise fixed) to where the 8-bit image has the requested
      score, $\epsilon^+ = \epsilon + (t - s(\epsilon)) \, g / \|g\|^2$ on the logit of the score.

    Real images of the same classes and scores, chosen from the images given, are the measure for the oracle.

    Args:
        per_class: requests of each class.
        steps: of the refinement at most; with 0 what is called refined is the generator alone.
        levels: scores of the grid and the sweeps, falling; by default ten from 1 to 0.55, and where one of them is
            outside what the training images of all classes shown support, or the score is an entropy or a margin, ten
            spread evenly over that.
        rows: latents that are swept; the classes take turns.
        real_rows: real images that are swept: the first correctly classified ones that are surer than the second of
            the levels.
        classes: names of the classes to show; by default all.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedClassifier: if the classifier has no gradients, and there are `steps`.
        UnsupportedGenerator: if the generator was trained without condition.
        GeneratorError: if a level lies outside what the training images support, naming the range; or if, without
            levels, the classes shown have no range in common.
        LabelError: if a class to show is none of the classifier's.

    References:
        Le Coz et al., "Explaining an image classifier with a generative model conditioned by uncertainty", 2023.
    """

    result_type: ClassVar[type[UncertainResult]] = UncertainResult

    def __init__(
        self,
        *,
        per_class: int = 200,
        steps: int = 10,
        levels: tuple[float, ...] | None = None,
        rows: int = 100,
        real_rows: int = 20,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        if per_class < 2 or steps < 0 or rows < 1 or real_rows < 0:
            raise ValueError(
                "Expected `per_class` of at least 2, `rows` of at least 1, and `steps` and `real_rows` of at least 0, "
                f"but got {per_class}, {rows}, {steps}, {real_rows}."
            )
        if levels is not None and not _fall(levels):
            raise ValueError(f"Expected at least two falling `levels` in (0, 1], but got {levels}.")
        if classes is not None and not classes:
            raise ValueError("Expected `classes` to name at least one class, but got none. Leave it out to show all.")
        self.per_class = per_class
        self.steps = steps
        self.levels = levels
        self.rows = rows
        self.real_rows = real_rows
        self.classes = classes

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> UncertainResult:
        """Draw, refine and sweep; `y` are the labels of the real images."""
        space = _require_space(generator)
        if self.steps:
            classifier.require_gradients("the refinement", "Set `steps` to 0: the generator alone then answers.")
        drawer = RequestDrawer(classifier, generator, space, self.steps)
        labels = torch.tensor(
            class_numbers(self.classes or classifier.class_names, classifier.class_names, setting="classes")
        )
        probs = classifier.probs(x)
        parts: list[tuple[int, Tensor, Condition, Tensor]] = []

        # Requested against obtained, alone and refined, and real images of the same scores.
        asked = drawer.requests(labels.repeat_interleave(self.per_class), None, probs, rng)
        draw = drawer.draw(asked, rng)
        none = torch.full((len(asked),), -1)
        parts.append((ALONE, drawer.images(draw), asked, none))
        parts.append((REFINED, drawer.refined(draw), asked, none))
        same, chosen = _same_scores(asked, probs, y, space.score)
        parts.append((REAL, x[chosen], asked[same], same))

        # The global view: fresh samples at each level.
        shown = self._shown_levels(classifier, space, labels)
        levels = torch.tensor(shown).clamp_max(SUREST)
        grid = drawer.requests(labels.repeat(len(levels)), levels.repeat_interleave(len(labels)), probs, rng)
        parts.append((GRID, drawer.refined(drawer.draw(grid, rng)), grid, torch.arange(len(grid)) // len(labels)))

        # Beside it real images of the same, as far as there are any.
        same, chosen = _same_scores(grid, probs, y, space.score)
        parts.append((REAL_GRID, x[chosen], grid[same], same))

        # The local view: one latent and its noise at all levels; of samples, and of real images.
        numbers = torch.arange(self.rows).repeat_interleave(len(levels))
        sweep = drawer.requests(labels[numbers % len(labels)], levels.repeat(self.rows), probs, rng)
        first = drawer.draw(sweep[torch.arange(0, len(sweep), len(levels))], rng)
        noise = None if first.noise is None else first.noise[numbers]
        repeated = _Draw(z=first.z[numbers], noise=noise, condition=sweep)
        parts.append((SWEEP, drawer.refined(repeated), sweep, numbers))
        sources, unswept = self._sources(generator, space, shown, probs, y, labels)
        if isinstance(generator, Autoencoder) and len(sources):
            numbers = torch.arange(len(sources)).repeat_interleave(len(levels))
            sweep = drawer.requests(y[sources][numbers], levels.repeat(len(sources)), probs, rng)
            with torch.no_grad():
                z = generator.encode(x[sources])[numbers]
            parts.append((REAL_SWEEP, drawer.refined(_Draw(z=z, noise=None, condition=sweep)), sweep, numbers))

        return UncertainResult(
            images=torch.cat([images for _, images, _, _ in parts]),
            part=torch.cat([torch.full((len(images),), part) for part, images, _, _ in parts]),
            row=torch.cat([numbers for _, _, _, numbers in parts]),
            asked=torch.cat([condition.y for _, _, condition, _ in parts]),
            requested=torch.cat([condition.score.float() for _, _, condition, _ in parts]),
            sources=x[sources],
            source_ids=tuple(ids[i] for i in sources.tolist()),
            unswept=unswept,
            score=space.score,
            class_names=classifier.class_names,
        )

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse `classes` that the classifier does not know."""
        class_numbers(self.classes or (), class_names, setting="classes")

    def _shown_levels(self, classifier: Classifier, space: ConditionSpace, labels: Tensor) -> tuple[float, ...]:
        """Return the levels that were asked for, or else those that the training images of all classes support."""
        names = classifier.class_names
        if self.levels is not None:
            for label in labels.tolist():
                for level in self.levels:
                    space.require_supported(label, level, names[label])
            return self.levels
        for label in labels.tolist():
            space.require_class(label, names[label])
        if space.score not in ("entropy", "margin") and all(
            space.supports(label, level) for label in labels.tolist() for level in _LEVELS
        ):
            return _LEVELS
        ranges = [space.supported[label] for label in labels.tolist()]
        low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
        if space.score in ("confidence", VECTOR) and high > _LEVELS[-1]:
            low = max(low, _LEVELS[-1])
        low, high = max(low, 1 - SUREST), min(high, SUREST)
        levels = tuple(torch.linspace(high, low, len(_LEVELS), dtype=torch.float64).tolist())
        if not _fall(levels):
            raise GeneratorError(
                f"Expected classes whose training images have scores in common, to take levels from, but of "
                f"{', '.join(names[label] for label in labels.tolist())} the highest low is {low:.3f} and the lowest "
                f"high {high:.3f}. Show fewer `classes`, each with its own `levels`."
            )
        return levels

    def _sources(
        self,
        generator: Generator,
        space: ConditionSpace,
        levels: tuple[float, ...],
        probs: Tensor,
        y: Tensor,
        labels: Tensor,
    ) -> tuple[Int[Tensor, " R"], str]:
        """Choose real images to sweep: the first that are classified rightly and surely, class by class in turn.

        Returns:
            Their positions, and why there are none.
        """
        none = torch.empty(0, dtype=torch.long)
        if not self.real_rows:
            return none, "none were asked for"
        if not isinstance(generator, Autoencoder):
            return none, "the generator has no encoder, which finds their latents"
        if space.score == VECTOR:
            return none, "the generator takes whole distributions, and an encoder gives none to go with a latent"
        value = SCORES[space.score].of(_logits(probs), y)
        # An entropy alone grows as the classifier gets less sure: its surest levels are the last.
        rises = space.score == "entropy"
        beyond = value < levels[-2] if rises else value > levels[1]
        sure = (probs.argmax(dim=1) == y) & beyond
        found = [(sure & (y == label)).nonzero()[:, 0] for label in labels.tolist()]
        turns = [rows[turn] for turn in range(self.real_rows) for rows in found if turn < len(rows)]
        if not turns:
            bound = f"below {levels[-2]:.3g}" if rises else f"above {levels[1]:.3g}"
            return none, f"of the {len(y):,} given none of these classes is taken for its own with a score {bound}"
        return torch.stack(turns[: self.real_rows]), ""


@final
class RequestDrawer:
    """Draws and refines images of conditions.

    Args:
        classifier: judges them.
        generator: draws them.
        space: the generator's.
        steps: of the refinement at most; with 0 the generator alone answers.
    """

    def __init__(self, classifier: Classifier, generator: Generator, space: ConditionSpace, steps: int) -> None:
        self._classifier = classifier
        self._generator = generator
        self._space = space
        self._steps = steps
        self._score = SCORES["confidence" if space.score == VECTOR else space.score]

    def requests(
        self, y: Int[Tensor, " N"], score: Float[Tensor, " N"] | None, probs: Float[Tensor, "M K"], rng: torch.Generator
    ) -> Condition:
        """Return conditions; without `score`, spread evenly over what each class supports (a confidence from 0.5).

        A generator of whole distributions is asked for those of real images: of each class, the ones whose
        confidences are nearest.
        """
        score = self._space.even_scores(y, rng=rng) if score is None else score.clamp(1 - SUREST, SUREST)
        if self._space.score != VECTOR:
            return Condition(y=y, score=score)
        confidence, prediction = probs.max(dim=1)
        chosen = torch.empty_like(y)
        for label in y.unique().tolist():
            rows, wanted = (prediction == label).nonzero()[:, 0], y == label
            if not len(rows):
                raise UnsupportedGenerator(
                    f"Expected real images that are taken for class {label}, to ask for their distributions, but got "
                    "none. Give more images."
                )
            chosen[wanted] = rows[(confidence[rows][None] - score[wanted][:, None]).abs().argmin(dim=1)]
        return Condition(y=y, score=confidence[chosen], probs=probs[chosen])

    def draw(self, condition: Condition, rng: torch.Generator) -> _Draw:
        """Draw latents and noise for conditions."""
        z = self._generator.sample_latents(len(condition), rng=rng)
        generator = self._generator
        noise = generator.draw_noise(len(condition), rng=rng) if isinstance(generator, StyleGenerator) else None
        return _Draw(z=z, noise=noise, condition=condition)

    @torch.no_grad()
    def images(self, draw: _Draw) -> Float[Tensor, "N C H W"]:
        """Draw the images as the generator does."""
        parts = [draw.rows(part) for part in _parts(len(draw.z))]
        return torch.cat([self._synthesize(part, self._latents(part)) for part in parts])

    def refined(self, draw: _Draw) -> Float[Tensor, "N C H W"]:
        """Draw the images, and search from each to where its 8-bit form has the requested score."""
        if not self._steps:
            return self.images(draw)
        return torch.cat([self._refined(draw.rows(part)) for part in _parts(len(draw.z))])

    def _refined(self, draw: _Draw) -> Tensor:
        with torch.no_grad():
            latents = self._latents(draw)

        def logit(epsilon: Tensor, rows: Tensor) -> Tensor:
            part = _Draw(
                z=draw.z[rows], noise=None if draw.noise is None else draw.noise[rows], condition=draw.condition[rows]
            )
            x = self._synthesize(part, latents[rows] + epsilon)
            return self._score.logit(self._classifier(to_8_bits_with_gradient(x)).cpu(), part.condition.y)

        level = torch.logit(draw.condition.score.double()).float()
        found = reach_level(logit, level, latents.shape[1], steps=self._steps, tolerance=_TOLERANCE)
        with torch.no_grad():
            return self._synthesize(draw, latents + found.epsilon)

    def _latents(self, draw: _Draw) -> Tensor:
        """Return where the search moves: intermediate latents, or latents where there are none."""
        if isinstance(self._generator, StyleGenerator):
            return self._generator.mapping(draw.z, draw.condition)
        return draw.z

    def _synthesize(self, draw: _Draw, latents: Tensor) -> Tensor:
        if isinstance(self._generator, StyleGenerator):
            return self._generator.synthesize(self._generator.styles(latents), draw.noise)
        images: Tensor = self._generator(latents, draw.condition)
        return images


def _require_space(generator: Generator) -> ConditionSpace:
    if generator.condition_space is None:
        raise UnsupportedGenerator(
            f"Expected a generator with a condition for uncertain samples, but this {generator.family} has none. "
            "`failscape train gan` trains one on class and confidence."
        )
    return generator.condition_space


def _same_scores(
    asked: Condition, probs: Float[Tensor, "M K"], y: Int[Tensor, " M"], score: str
) -> tuple[Int[Tensor, " R"], Int[Tensor, " R"]]:
    """Return requests, and for each a real image of its class and its score; no image twice."""
    kind = SCORES["confidence" if score == VECTOR else score]
    logits = _logits(probs)
    classes = kind.classes(logits, y)
    values = kind.value(logits, classes)
    free = torch.ones(len(probs), dtype=torch.bool)
    pairs: list[tuple[int, int]] = []
    for request in range(len(asked)):
        candidates = (free & (classes == asked.y[request])).nonzero()[:, 0]
        if not len(candidates):
            continue
        distance = (values[candidates] - asked.score[request]).abs()
        nearest = int(distance.argmin())
        if distance[nearest] <= _SAME_SCORE:
            pairs.append((request, int(candidates[nearest])))
            free[candidates[nearest]] = False
    requests, images = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(dim=1)
    return requests, images


def _logits(probs: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def _fall(levels: Sequence[float]) -> bool:
    """Tell whether these are at least two levels in (0, 1], each below the one before."""
    falling = all(above > below for above, below in pairwise(levels))
    return len(levels) > 1 and falling and 0 < levels[-1] < levels[0] <= 1


def _parts(n: int) -> Sequence[slice]:
    return [slice(start, start + _BATCH) for start in range(0, n, _BATCH)]
