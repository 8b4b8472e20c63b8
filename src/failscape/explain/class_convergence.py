"""Class convergence: what does the classifier take for class k?"""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.errors import GeneratorError, UnsupportedGenerator
from failscape.explain.class_convergence_result import REAL, SEARCH, TRAINING, ClassConvergenceResult
from failscape.explain.class_names import class_numbers
from failscape.explain.latent_space import encoded_log_prior, realism_of
from failscape.explain.method import Method, to_8_bits, to_8_bits_with_gradient
from failscape.generators import Condition, Generator, StyleGenerator
from failscape.search import reach_target
from failscape.training import steer

By = Literal["search", "training", "both"]

_BATCH = 250
_RESTARTS = 3
# At each step of the search a point gives up this part of its way from the prior's mode, across the gradient.
_PULL = 0.02
# The longest first step; a latent of 64 numbers is 8 long. From 2,000 draws of a WGAN 3 took two thirds of the
# gradients that 1 took, and ended at the same prior density and score of the critic.
_RADIUS = 3.0
# What is added to the key of a candidate that needs no search, the least probability that counts, and deviation of W.
_FIRST, _LEAST, _NARROWEST = 1e3, 1e-30, 1e-6


@final
class ClassConvergence(Method[ClassConvergenceResult]):
    r"""What does the classifier take for class k?

    A generator is steered to one class after the other, and an oracle says what it sees in the images that the
    classifier then accepts. Two ways are known:

    - *search*, in the latent space of the generator as it is: latents are drawn from the prior, and those are taken
      of which the 8-bit image has the class with the probability wanted, as often as the classifier says so. Where
      these are too few, the most promising of the rest are led on, by the shortest steps, until theirs have it too.
    - *training*, as the paper does it: a copy of the generator goes on training with the classifier's cross-entropy to
      the class added to its loss (eq. 1); then fresh latents are drawn.

    Beside both stand real images that the classifier takes for the class: what the oracle disputes of these is the
    measure for what it disputes of the generated ones.

    Args:
        by: "search", "training", or "both", to compare them.
        classes: names of the classes to converge to; by default all.
        samples: images of each class that the numbers rest on.
        probability: of the class that the search asks for on the 8-bit image.
        candidates: latents that the search draws for each image that it is to find.
        steps: of the search from a start at most; with 0 only what is drawn counts, and no gradients are needed.
        training_steps: of the training, for each class.
        weight: $k$ of the guidance; by default 10, and 100 for a VAE or an IntroVAE, whose loss sums over pixels.
        shown: images of each class in the figures.

    Raises:
        ValueError: if a setting is out of its range.
        LabelError: if a class is none of the classifier's.
        UnsupportedClassifier: if the classifier has no gradients, and the search has `steps` or there is a training.
        UnsupportedGenerator: if the generator cannot be trained further, and there is to be a training.
        GeneratorError: if the generator takes conditions of other classes, or has seen no images of one asked for.

    Example:
        >>> result = ClassConvergence(samples=20)(classifier, vae, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.summary["search_rate"]
        1.0

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", section 4.1, eq. 1, figure 5.
    """

    result_type: ClassVar[type[ClassConvergenceResult]] = ClassConvergenceResult

    def __init__(
        self,
        *,
        by: By = "search",
        classes: tuple[str, ...] | None = None,
        samples: int = 100,
        probability: float = 0.9,
        candidates: int = 20,
        steps: int = 25,
        training_steps: int = 100,
        weight: float | None = None,
        shown: int = 10,
    ) -> None:
        if by not in ("search", "training", "both"):
            raise ValueError(f"Expected `by` to be 'search', 'training' or 'both', but got {by!r}.")
        if classes is not None and not classes:
            raise ValueError("Expected `classes` to name at least one class, but got none. Leave it out to take all.")
        if min(samples, candidates, training_steps, shown) < 1 or steps < 0:
            raise ValueError(
                "Expected `samples`, `candidates`, `training_steps` and `shown` of at least 1, and `steps` of at least "
                f"0, but got {samples}, {candidates}, {training_steps}, {shown}, {steps}."
            )
        if not 0.5 < probability < 1:
            raise ValueError(f"Expected `probability` between 0.5 and 1, but got {probability}.")
        if weight is not None and not 0 < weight < float("inf"):
            raise ValueError(f"Expected a positive `weight`, but got {weight}.")
        self.by = by
        self.classes = classes
        self.samples = samples
        self.probability = probability
        self.candidates = candidates
        self.steps = steps
        self.training_steps = training_steps
        self.weight = weight
        self.shown = shown

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> ClassConvergenceResult:
        """Steer to each class; `x` are real images, which the training goes on learning from."""
        labels = class_numbers(self.classes or classifier.class_names, classifier.class_names, setting="classes")
        _check_conditions(classifier, generator, labels)
        if self.by != "search":
            classifier.require_gradients(
                "training with guidance",
                'Set `by` to "search" and `steps` to 0: what is drawn and accepted then counts.',
            )
        elif self.steps:
            classifier.require_gradients("the search", "Set `steps` to 0: what is drawn and accepted then counts.")

        parts = []
        if self.by != "training":
            parts += [
                (SEARCH, k, found)
                for k, found in zip(labels, self._by_search(classifier, generator, labels, rng), strict=True)
            ]
        if self.by != "search":
            parts += [(TRAINING, k, self._by_training(classifier, generator, k, x, rng)) for k in labels]
        names = [f"{classifier.class_names[k]}-{i}" for _, k, found in parts for i in range(len(found))]
        verdicts = classifier.predict(x)
        for k in labels:
            rows = (verdicts == k).nonzero()[: self.samples, 0]
            parts.append((REAL, k, x[rows]))
            names += [ids[row] for row in rows.tolist()]
        images = to_8_bits(torch.cat([found for _, _, found in parts]))
        return ClassConvergenceResult(
            images=images,
            ids=tuple(names),
            way=torch.cat([torch.full((len(found),), way) for way, _, found in parts]),
            asked=torch.cat([torch.full((len(found),), k) for _, k, found in parts]),
            realism=realism_of(generator, images),
            log_prior=encoded_log_prior(generator, images),
            chosen=torch.tensor(labels),
            shown=self.shown,
            class_names=classifier.class_names,
        )

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse `classes` that the classifier does not know."""
        class_numbers(self.classes or (), class_names, setting="classes")

    def _by_search(
        self, classifier: Classifier, generator: Generator, labels: list[int], rng: torch.Generator
    ) -> list[Float[Tensor, "S C H W"]]:
        """Return images of each class; those too that the search did not lead to it."""
        space = _Space(generator, labels, self.samples * self.candidates, rng)
        y = torch.tensor(labels).repeat_interleave(self.samples)
        points, p = space.starts(classifier, labels, self.samples, self.probability, rng)
        open_rows = (p < self.probability).nonzero()[:, 0]
        if self.steps and len(open_rows):
            wanted = y[open_rows]

            def log_probs(point: Tensor, rows: Tensor) -> list[Tensor]:
                x = to_8_bits_with_gradient(space.draw(point, wanted[rows]))
                return [classifier(x).log_softmax(dim=1).cpu()]

            points[open_rows] = reach_target(
                log_probs,
                points[open_rows],
                F.one_hot(wanted, classifier.num_classes).float(),
                restart=lambda rows: space.fresh(wanted[rows], rng),
                tolerance=1 - self.probability,
                steps=self.steps,
                restarts=_RESTARTS,
                radius=_RADIUS,
                pull=_PULL,
                batch_size=_BATCH,
            ).point
        return list(space.drawn(points, y).split(self.samples))

    def _by_training(
        self, classifier: Classifier, generator: Generator, k: int, x: Float[Tensor, "N C H W"], rng: torch.Generator
    ) -> Float[Tensor, "S C H W"]:
        """Return fresh images of a copy that was trained further, toward a class."""
        target = F.one_hot(torch.tensor(k), classifier.num_classes).float()
        try:
            steered = steer(generator, classifier, target, x, steps=self.training_steps, weight=self.weight, rng=rng)
        except UnsupportedGenerator as error:
            raise UnsupportedGenerator(f'{error} Set `by` to "search".') from error
        counts = [min(_BATCH, self.samples - start) for start in range(0, self.samples, _BATCH)]
        return torch.cat([steered.sample(count, rng=rng) for count in counts])


class _Space:
    """Where the search moves: latents in units of the prior's deviation about its middle.

    Of a generator with styles they are those of W, of which middle and deviation, for each class, are those of what is
    drawn.
    """

    def __init__(self, generator: Generator, labels: Sequence[int], count: int, rng: torch.Generator) -> None:
        self._generator = generator
        self._shared = generator.condition_space is None
        latents = {k: self._latents(torch.full((count,), k), rng) for k in (labels[:1] if self._shared else labels)}
        width = len(latents[labels[0]][0])
        self._middle, self._scale = torch.zeros(max(labels) + 1, width), torch.ones(max(labels) + 1, width)
        for k in labels if isinstance(generator, StyleGenerator) else ():
            mine = latents[labels[0] if self._shared else k]
            self._middle[k], self._scale[k] = mine.mean(dim=0), mine.std(dim=0).clamp_min(_NARROWEST)
        self._candidates = {k: (mine - self._middle[k]) / self._scale[k] for k, mine in latents.items()}

    def starts(
        self, classifier: Classifier, labels: Sequence[int], n: int, probability: float, rng: torch.Generator
    ) -> tuple[Float[Tensor, "S D"], Float[Tensor, " S"]]:
        """Return candidates that have each class with the probability, and where they are too few the most promising.

        Each is drawn as often as the classifier takes it for the class, none twice; with them its probability.

        References:
            Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the keys.
        """
        points, found = [], []
        probs: dict[int, Tensor] = {}
        for k in labels:
            source = labels[0] if self._shared else k
            candidates = self._candidates[source]
            if source not in probs:
                probs[source] = classifier.probs(self.drawn(candidates, torch.full((len(candidates),), source)))
            p = probs[source][:, k]
            key = p.clamp_min(_LEAST).log() - torch.empty(len(p)).exponential_(generator=rng).log()
            chosen = torch.where(p >= probability, key + _FIRST, key).topk(n).indices
            points.append(candidates[chosen])
            found.append(p[chosen])
        return torch.cat(points), torch.cat(found)

    @torch.no_grad()
    def fresh(self, y: Int[Tensor, " S"], rng: torch.Generator) -> Float[Tensor, "S D"]:
        """Draw other points."""
        return (self._latents(y, rng) - self._middle[y]) / self._scale[y]

    def draw(self, points: Float[Tensor, "S D"], y: Int[Tensor, " S"]) -> Float[Tensor, "S C H W"]:
        """Return their images, differentiable; a generator with a condition is asked for the classes."""
        generator, latents = self._generator, points * self._scale[y] + self._middle[y]
        if isinstance(generator, StyleGenerator):
            return generator.synthesize(generator.styles(latents))
        images: Tensor = generator(latents, self._condition(y))
        return images

    @torch.no_grad()
    def drawn(self, points: Float[Tensor, "S D"], y: Int[Tensor, " S"]) -> Float[Tensor, "S C H W"]:
        """Return their 8-bit images."""
        parts = zip(points.split(_BATCH), y.split(_BATCH), strict=True)
        return to_8_bits(torch.cat([self.draw(*part) for part in parts]))

    @torch.no_grad()
    def _latents(self, y: Int[Tensor, " S"], rng: torch.Generator) -> Float[Tensor, "S D"]:
        z = self._generator.sample_latents(len(y), rng=rng)
        if not isinstance(self._generator, StyleGenerator):
            return z
        parts = zip(z.split(_BATCH), y.split(_BATCH), strict=True)
        return torch.cat([self._generator.mapping(part, self._condition(labels)) for part, labels in parts])

    def _condition(self, y: Int[Tensor, " S"]) -> Condition | None:
        space = self._generator.condition_space
        return None if space is None else space.of_classes(y)


def _check_conditions(classifier: Classifier, generator: Generator, labels: list[int]) -> None:
    space = generator.condition_space
    if space is None:
        return
    if space.num_classes != classifier.num_classes:
        raise GeneratorError(
            f"Expected a generator conditioned on the {classifier.num_classes} classes of {classifier.name}, but this "
            f"one takes conditions of {space.num_classes}. Use one that was trained on the classifier's classes."
        )
    for k in labels:
        low, high = space.supported[k]
        space.require_supported(k, min(max(low, 0.5), high), classifier.class_names[k])
