"""Frontiers: what lies at 50/50, or at any target distribution, between classes?"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier, target_distribution
from failscape.errors import GeneratorError, SpecError, UnsupportedGenerator
from failscape.explain.frontier_result import FrontierResult
from failscape.explain.latent_space import LatentSpace, realism_of
from failscape.explain.method import Method, to_8_bits, to_8_bits_with_gradient
from failscape.generators import Generator, StyleGenerator
from failscape.search import TargetSearch, reach_target
from failscape.training import steer

PAIRS, TRIPLES = "pairs", "triples"

_BATCH = 512
_RADIUS = 2.0
# At each step from its first start a point gives up this part of its way from the prior's mode, across the gradients.
# From later ones nothing: of seven pairs of unlike garments 16 % of the points arrived with it, and 55 % without.
_PULL = 0.02
_SHIFTS = ((1, 1), (-1, -1), (1, -1), (-1, 1))
# A start is drawn among so many times as many as are needed, those nearest to the target.
_CHOICE = 4
# Part of the tolerance that the search may use. The images are rounded in it, so nothing else is to be lost.
_WITHIN = 0.95


@final
@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Samples of the generator.

    Attributes:
        points: in the latent space.
        probs: the classifier's, of their 8-bit images.
    """

    points: Float[Tensor, "M D"]
    probs: Float[Tensor, "M K"]

    def starts(self, target: Float[Tensor, " K"], n: int, rng: torch.Generator) -> Float[Tensor, "N D"]:
        """Return points to set out from: at random among those nearest to the target, none twice while there are more.

        Near is what has little of a divergence of the target from what the classifier says.
        """
        divergence = -(target * self.probs.clamp_min(1e-12).log()).sum(dim=1)
        near = divergence.topk(min(_CHOICE * n, len(divergence)), largest=False).indices
        order = torch.randperm(len(near), generator=rng)
        return self.points[near[order[torch.arange(n) % len(near)]]]

    def between(self, target: Float[Tensor, " K"], rng: torch.Generator) -> Float[Tensor, " D"]:
        """Return a point with a weighted mean of samples of the target's classes, each in its share."""
        wanted = (target > 0).nonzero()[:, 0].tolist()
        point = torch.zeros(self.points.shape[1])
        for k in wanted:
            promising = self.probs[:, k].topk(max(1, len(self.probs) // (2 * self.probs.shape[1]))).indices
            point += target[k] * self.points[promising[torch.randint(len(promising), (), generator=rng)]]
        # A mean of independent points lies nearer to the middle than they do.
        return point / (target.square().sum().sqrt())


@final
class Frontier(Method[FrontierResult]):
    r"""What lies at 50/50, or at any target distribution, between classes?

    Images of which the classifier says what the target says: two classes equally, three, all, or any shares. Two ways
    are known:

    - *search*: from samples of the generator that are nearest to the target already, walk to where the 8-bit image has
      it, by Gauss-Newton steps on the log-odds (`failscape.search.reach_target`); those that do not arrive begin again
      between samples of the classes.
    - *training*, as the paper does it: for each target a copy of the generator goes on training with $k \cdot KL(t \|
      p)$ added to its loss (eq. 2), and draws.

    An image is on the frontier if the total variation distance of the classifier's probabilities from the target is
    within the tolerance. The more *typical* of them, by the prior's density and by the generator's critic where it
    keeps one, come first; what only the classifier believes, and an oracle does not, is marked.

    Args:
        targets: "pairs" for every two classes of the classifier, equally; "triples" for every three; "uniform"; classes
            with commas between them, for equal shares; or shares such as `3=0.7,8=0.3`. Several make one list.
        by: "search" or "training".
        per_target: images of each.
        tolerance: the largest total variation distance from the target.
        samples: of the generator, among which the starts are, and from which the length of the way is measured.
        steps: of the search from a start, at most.
        restarts: of each image, at most.
        guard: shifted copies of the image, at most 4, whose verdicts guide the search beside its own.
        training_steps: of each training.
        weight: $k$ of the training.
        shown: images of each target in the report.

    Raises:
        ValueError: if a setting is out of its range.
        SpecError: if a target names an unknown class, or its shares are no probabilities that sum to 1.
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator has a condition and no styles, or cannot be trained further.
        GeneratorError: if a target asks for a class that the generator was never shown.

    Example:
        >>> method = Frontier(targets=("3=0.7,8=0.3",), per_target=8)
        >>> method(classifier, vae, x, y, rng=torch.Generator().manual_seed(0)).summary["rate"]
        1.0

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", section 4.2, eq. 2, figures 6 to 8.
    """

    result_type: ClassVar[type[FrontierResult]] = FrontierResult

    def __init__(
        self,
        *,
        targets: tuple[str, ...] = (PAIRS,),
        by: Literal["search", "training"] = "search",
        per_target: int = 64,
        tolerance: float = 0.05,
        samples: int = 4000,
        steps: int = 20,
        restarts: int = 10,
        guard: int = 0,
        training_steps: int = 200,
        weight: float = 1.0,
        shown: int = 16,
    ) -> None:
        if not targets:
            raise ValueError('Expected `targets` to name at least one target, such as "pairs", but got none.')
        if min(per_target, samples, steps, training_steps, shown) < 1 or restarts < 0:
            raise ValueError(
                "Expected `per_target`, `samples`, `steps`, `training_steps` and `shown` of at least 1, and `restarts` "
                f"of at least 0, but got {per_target}, {samples}, {steps}, {training_steps}, {shown}, {restarts}."
            )
        if not 0 < tolerance < 1 or not weight > 0:
            raise ValueError(
                f"Expected `tolerance` between 0 and 1 and a positive `weight`, but got {tolerance} and {weight}."
            )
        self.targets = targets
        self.by = by
        self.per_target = per_target
        self.tolerance = tolerance
        self.samples = samples
        self.steps = steps
        self.restarts = restarts
        self.guard = guard
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
    ) -> FrontierResult:
        """Find images of each target; `x` are real images, which a training goes on learning from."""
        classifier.require_gradients("frontiers", "Export the network in a form that keeps them.")
        names, targets = frontier_targets(self.targets, classifier.class_names)
        _check_generator(classifier, generator, targets)
        space = LatentSpace(generator, rng=rng)
        points = space.sample(self.samples, rng=rng)
        pool = _Pool(points=points, probs=classifier.probs(space.drawn(points)))
        asked = torch.arange(len(targets)).repeat_interleave(self.per_target)
        nothing = torch.full((len(asked),), torch.nan)
        if self.by == "search":
            found, steps = self._search(classifier, space, pool, targets[asked], rng)
            images, log_prior = space.drawn(found), space.log_prior(found)
            way = _ways(found, targets[asked], pool)
        else:
            parts = [self._trained(classifier, generator, target, x, rng) for target in targets]
            images, log_prior, way, steps = to_8_bits(torch.cat(parts)), nothing, nothing, torch.zeros_like(asked)
        return FrontierResult(
            images=images,
            ids=tuple(f"{names[row]} {i % self.per_target}" for i, row in enumerate(asked.tolist())),
            asked=asked,
            targets=targets,
            target_names=names,
            log_prior=log_prior,
            realism=realism_of(generator, images),
            way=way,
            steps=steps,
            tolerance=self.tolerance,
            shown=self.shown,
            class_names=classifier.class_names,
        )

    def _search(
        self,
        classifier: Classifier,
        space: LatentSpace,
        pool: _Pool,
        target: Float[Tensor, "N K"],
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Return the points that came nearest, and the gradients that each took."""
        left = torch.arange(len(target))
        best = torch.full((len(target),), torch.inf)
        found = torch.zeros(len(target), pool.points.shape[1])
        steps = torch.zeros(len(target), dtype=torch.long)
        starts = torch.cat([pool.starts(rows[0], len(rows), rng) for rows in target.split(self.per_target)])
        for turn in range(1 + self.restarts):
            search = self._walk(classifier, space, starts, target[left], pull=0.0 if turn else _PULL)
            nearer = search.total_variation < best[left]
            found[left[nearer]], best[left[nearer]] = search.point[nearer], search.total_variation[nearer]
            steps[left] += search.steps
            left = left[~search.arrived]
            if not len(left):
                break
            arrived = torch.ones(len(target), dtype=torch.bool)
            arrived[left] = False
            starts = torch.stack([self._again(row, arrived, found, target, pool, rng) for row in left.tolist()])
        return found, steps

    def _walk(
        self,
        classifier: Classifier,
        space: LatentSpace,
        starts: Float[Tensor, "N D"],
        target: Float[Tensor, "N K"],
        *,
        pull: float,
    ) -> TargetSearch:
        def log_probs(point: Tensor, rows: Tensor) -> Tensor:
            x = to_8_bits_with_gradient(space.draw(point))
            views = [x, *(x.roll(shift, dims=(2, 3)) for shift in _SHIFTS[: self.guard])]
            logits: Tensor = classifier(torch.cat(views)).cpu().unflatten(0, (len(views), -1))
            return logits.log_softmax(dim=2)

        return reach_target(
            log_probs,
            starts,
            target,
            tolerance=_WITHIN * self.tolerance,
            steps=self.steps,
            radius=_RADIUS,
            pull=pull,
            batch_size=_BATCH,
        )

    def _again(
        self,
        row: int,
        arrived: Bool[Tensor, " N"],
        found: Float[Tensor, "N D"],
        target: Float[Tensor, "N K"],
        pool: _Pool,
        rng: torch.Generator,
    ) -> Float[Tensor, " D"]:
        """Return another start for a row: half-way from one that arrived at the same target to a sample, if any did."""
        first = row - row % self.per_target
        others = first + arrived[first : first + self.per_target].nonzero()[:, 0]
        if not len(others):
            return pool.between(target[row], rng)
        one = found[others[torch.randint(len(others), (), generator=rng)]]
        other = pool.points[torch.randint(len(pool.points), (), generator=rng)]
        # Of two independent points as far out as the prior's, so is this one.
        return math.sqrt(0.5) * (one + other)

    def _trained(
        self,
        classifier: Classifier,
        generator: Generator,
        target: Float[Tensor, " K"],
        x: Float[Tensor, "N C H W"],
        rng: torch.Generator,
    ) -> Float[Tensor, "M C H W"]:
        try:
            steered = steer(generator, classifier, target, x, steps=self.training_steps, weight=self.weight, rng=rng)
        except UnsupportedGenerator as error:
            raise UnsupportedGenerator(f'{error} Set `by` to "search".') from error
        counts = [min(_BATCH, self.per_target - start) for start in range(0, self.per_target, _BATCH)]
        return torch.cat([steered.sample(count, rng=rng) for count in counts])


def frontier_targets(
    targets: tuple[str, ...], class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], Float[Tensor, "T K"]]:
    """Return the name of each target and its distribution.

    Args:
        targets: as `Frontier` takes them.
        class_names: the K classes.

    Raises:
        SpecError: if a target names an unknown class, or its shares are no probabilities that sum to 1.

    Example:
        >>> frontier_targets(("pairs",), ("cat", "cow", "dog"))[0]
        ('cat | cow', 'cat | dog', 'cow | dog')
    """
    found: dict[str, Tensor] = {}
    for text in targets:
        size = {PAIRS: 2, TRIPLES: 3}.get(text)
        if size is not None and text not in class_names:
            if len(class_names) < size:
                raise SpecError(
                    f"Expected at least {size} classes for {text!r}, but there are {len(class_names)}. Name targets."
                )
            for chosen in combinations(class_names, size):
                share = dict.fromkeys(chosen, 1 / size)
                found[" | ".join(chosen)] = target_distribution(share, class_names)
            continue
        distribution = target_distribution(text, class_names)
        wanted = (distribution > 0).nonzero()[:, 0].tolist()
        even = bool((distribution[wanted] == distribution[wanted[0]]).all())
        name = " | ".join(class_names[k] for k in wanted) if even else text
        found[text if len(wanted) == len(class_names) > 3 else name] = distribution
    return tuple(found), torch.stack(list(found.values()))


def _check_generator(classifier: Classifier, generator: Generator, targets: Float[Tensor, "T K"]) -> None:
    space = generator.condition_space
    if space is None:
        return
    if not isinstance(generator, StyleGenerator):
        raise UnsupportedGenerator(
            f"Expected a generator without condition, or one with styles, for frontiers, but this {generator.family} "
            "takes the class from its condition and not from its latents. Train one without: `failscape train wgan`."
        )
    if space.num_classes != classifier.num_classes:
        raise GeneratorError(
            f"Expected a generator of the {classifier.num_classes} classes of {classifier.name}, but this one takes "
            f"conditions of {space.num_classes}. Use one that was trained on the classifier's classes."
        )
    known = set(space.classes.tolist())
    for k in (targets > 0).any(dim=0).nonzero()[:, 0].tolist():
        if k not in known:
            raise GeneratorError(
                f"Expected targets of classes that the generator was shown, but it was shown no image of "
                f"{classifier.class_names[k]!r}. Leave that class out of the targets, or train one on images of it."
            )


def _ways(found: Float[Tensor, "N D"], target: Float[Tensor, "N K"], pool: _Pool) -> Float[Tensor, " N"]:
    """Return from each point the sum of the ways to the nearest samples of its target's classes.

    A class of which there is no sample makes it NaN.
    """
    verdicts = pool.probs.argmax(dim=1)
    nearest = torch.full(target.shape, torch.nan)
    for k in range(target.shape[1]):
        rows, samples = target[:, k] > 0, pool.points[verdicts == k]
        if rows.any() and len(samples):
            nearest[rows, k] = torch.cdist(found[rows], samples).amin(dim=1)
    return torch.where(target > 0, nearest, 0.0).sum(dim=1)
