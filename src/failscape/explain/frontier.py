"""Frontiers: what lies at 50/50, or at any target distribution, between classes?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedGenerator
from failscape.explain.frontier_request import (
    PAIRS,
    Target,
    frontier_targets,
    require_frontiers,
    require_shown,
    takes_targets,
)
from failscape.explain.frontier_result import FrontierResult
from failscape.explain.latent_space import LatentSpace, encoded_log_prior, realism_of
from failscape.explain.method import Method, to_8_bits, to_8_bits_with_gradient
from failscape.explain.second_opinion import SecondOpinion, reduced
from failscape.generators import Condition, Generator
from failscape.search import LogProbs, StandIn, TargetSearch, reach_target, total_variation
from failscape.training import steer

_BATCH = 512
_RADIUS = 2.0
_SHIFTS = ((1, 1), (-1, -1), (1, -1), (-1, 1))
# A point is led from one drawn among so many times as many samples as are needed, those nearest to the target.
_CHOICE = 4
# How often the stand-in leads points to the targets, as many as images are asked for, and learns from what is there; at
# least so many a target, from which it can learn.
_ROUNDS = 2
_LEAST_LED = 64
# So many times as many as are needed set out, since of those that arrive some are less settled than others; and the
# second opinion agrees within this total variation distance. Of 64 garments for each of 45 pairs the oracle had both
# classes first in 0.59 for the pair in the middle with 2 and 0.2, in 0.61 with 2 and 0.1, and in 0.64 with these.
_SURPLUS = 3.0
_AGREEMENT = 0.1
# Part of the tolerance that the search may use. The images are rounded in it, so nothing else is to be lost.
_WITHIN = 0.95


@final
@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Points of which the verdicts are known, the generator's samples first.

    Attributes:
        points: in the latent space.
        log_probs: the classifier's of their 8-bit images, the mean over shifts.
        origin: the sample that each was led from, or is.
        prediction: what the classifier takes each sample for.
    """

    points: Float[Tensor, "M D"]
    log_probs: Float[Tensor, "M K"]
    origin: Int[Tensor, " M"]
    prediction: Int[Tensor, " S"]

    @property
    def samples(self) -> Float[Tensor, "S D"]:
        """The points that were drawn from the prior."""
        return self.points[: len(self.prediction)]

    def with_led(
        self, points: Float[Tensor, "N D"], log_probs: Float[Tensor, "N K"], origin: Int[Tensor, " N"]
    ) -> "_Pool":
        """Return the pool with points that were led from its samples."""
        return replace(
            self,
            points=torch.cat([self.points, points]),
            log_probs=torch.cat([self.log_probs, log_probs]),
            origin=torch.cat([self.origin, origin]),
        )

    def near(self, target: Float[Tensor, " K"], n: int) -> Int[Tensor, " N"]:
        """Return points to set out from, the nearest to the target first; some twice if there are too few.

        Near is what has little of a divergence of the target from what the classifier says. Of those that come from one
        sample it is the nearest alone, since they lie close together.
        """
        order = (self.log_probs @ target).argsort(descending=True, stable=True)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
        nearest = (
            torch.full((len(self.samples),), len(order)).scatter_reduce(0, self.origin, rank, "amin").sort().values
        )
        return order[nearest[torch.arange(n) % len(nearest)]]

    def between(self, target: Float[Tensor, " K"], rng: torch.Generator) -> Float[Tensor, " D"]:
        """Return a point with a weighted mean of samples of the target's classes, each in its share."""
        known = self.log_probs[: len(self.samples)]
        point = torch.zeros(self.points.shape[1])
        for k in (target > 0).nonzero()[:, 0].tolist():
            promising = known[:, k].topk(max(1, len(known) // (2 * known.shape[1]))).indices
            point += target[k] * self.points[promising[torch.randint(len(promising), (), generator=rng)]]
        # A mean of independent points lies nearer to the middle than they do.
        return point / (target.square().sum().sqrt())


@final
@dataclass(frozen=True, kw_only=True)
class _Landscape:
    """What is said of points in a latent space.

    Attributes:
        classifier: says it.
        space: of the points.
        guard: shifts of the image that join in guiding.
    """

    classifier: Classifier
    space: LatentSpace
    guard: int

    @torch.no_grad()
    def verdicts(self, points: Float[Tensor, "M D"]) -> tuple[Int[Tensor, " M"], Float[Tensor, "M K"]]:
        """Return the class of each 8-bit image, and the log-probabilities, the mean over it and its shifts."""
        parts = [self._views(self.space.drawn(part), len(_SHIFTS)) for part in points.split(_BATCH)]
        prediction = torch.cat([views[0].argmax(dim=1) for views in parts])
        return prediction, torch.cat([torch.stack(views).mean(dim=0) for views in parts])

    @torch.no_grad()
    def unsettled(
        self, points: Float[Tensor, "M D"], target: Float[Tensor, "M K"], opinion: SecondOpinion | None
    ) -> Float[Tensor, " M"]:
        """Return how far from the target the mean over shifts of each 8-bit image is, and the opinion, in sum."""
        distance = total_variation(self.verdicts(points)[1].softmax(dim=1), target)
        if opinion is None:
            return distance
        said = torch.cat([opinion(self.space.drawn(part)) for part in points.split(_BATCH)])
        return distance + total_variation(said.softmax(dim=1), target)

    def log_probs(self, opinion: SecondOpinion | None = None) -> LogProbs:
        """Return what is said of points, differentiable: of the image, of its shifts together, and by the opinion."""

        def views(point: Tensor, rows: Tensor) -> list[Tensor]:
            x = to_8_bits_with_gradient(self.space.draw(point))
            image, *shifted = self._views(x, self.guard)
            together = [torch.stack(shifted).mean(dim=0)] if shifted else []
            return [image, *together, *([] if opinion is None else [opinion(x)])]

        return views

    def _views(self, x: Float[Tensor, "N C H W"], shifts: int) -> list[Float[Tensor, "N K"]]:
        views = [x, *(x.roll(shift, dims=(2, 3)) for shift in _SHIFTS[:shifts])]
        return [self.classifier(view).cpu().log_softmax(dim=1) for view in views]


@final
class Frontier(Method[FrontierResult]):
    r"""What lies at 50/50, or at any target distribution, between classes?

    Images of which the classifier says what the target says: two classes equally, three, all, or any shares. Two ways
    are known:

    - *search*: a stand-in for generator and classifier (`failscape.search.StandIn`) learns from samples what the
      classifier says, leads points to the targets at next to no cost, and learns from what is really there. From the
      nearest then, more than are needed, walk by Gauss-Newton steps on the log-odds
      (`failscape.search.reach_target`) to where the 8-bit image has the target and small networks, taught by the
      classifier's verdicts (`SecondOpinion`), agree: they do not share its quirks. Those are kept of which shifts by a
      pixel change least, and of which these networks are nearest to the target. What is missing walks on without them,
      and then begins again, ever nearer to one that arrived.
    - *training*, as the paper does it: for each target a copy of the generator goes on training with $k \cdot KL(t \|
      p)$ added to its loss (eq. 2), and draws.

    An image is on the frontier if the total variation distance of the classifier's probabilities from the target is
    within the tolerance. The more *typical* of them, by the prior's density and by the generator's critic where it
    keeps one, come first; what only the classifier believes, and an oracle does not, is marked.

    Args:
        targets: "pairs" for every two classes of the classifier, equally; "triples" for every three; "uniform"; classes
            with commas between them, for equal shares; or shares such as `3=0.7,8=0.3`, or as `{"3": 0.7, "8": 0.3}`.
            One of these, or several in a tuple or list.
        by: "search" or "training".
        per_target: images of each.
        tolerance: the largest total variation distance from the target.
        samples: of the generator, from which the networks learn, the search sets out, and the way is measured.
        steps: of a walk, at most; of the first one half as many.
        restarts: of each image, at most.
        guard: shifted copies of the image, at most 4, whose mean verdict is to come near the target as well.
        opinions: networks that learn from samples what the classifier says, and are to agree where they can; 0 is none.
        training_steps: of each training.
        weight: $k$ of the training; by default 10, and 100 for a VAE or an IntroVAE, whose loss sums over pixels.
        shown: images of each target in the report.

    Raises:
        ValueError: if a setting is out of its range.
        SpecError: if a target names an unknown class, or its shares are no probabilities that sum to 1.
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator takes a class and a score and has no styles, or cannot be trained
            further.
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
        targets: Target | Sequence[Target] = (PAIRS,),
        by: Literal["search", "training"] = "search",
        per_target: int = 64,
        tolerance: float = 0.05,
        samples: int = 12_000,
        steps: int = 20,
        restarts: int = 10,
        guard: int = 0,
        opinions: int = 3,
        training_steps: int = 200,
        weight: float | None = None,
        shown: int = 16,
    ) -> None:
        if by not in ("search", "training"):
            raise ValueError(f"Expected `by` to be 'search' or 'training', but got {by!r}.")
        if not targets:
            raise ValueError('Expected `targets` to name at least one target, such as "pairs", but got none.')
        # What is neither is refused below, as a target.
        several = (targets,) if isinstance(targets, str | Mapping) else targets
        several = tuple(several) if isinstance(several, Sequence) else (several,)
        for target in several:
            if not isinstance(target, str | Mapping):
                raise ValueError(
                    'Expected each of `targets` as a text, such as "3,8", or as the shares of classes, such as '
                    f'{{"3": 0.7, "8": 0.3}}, but got {target!r}. Name classes as the classifier does.'
                )
        if min(per_target, samples, steps, training_steps, shown) < 1 or min(restarts, opinions) < 0:
            raise ValueError(
                "Expected `per_target`, `samples`, `steps`, `training_steps` and `shown` of at least 1, and `restarts` "
                f"and `opinions` of at least 0, but got {per_target}, {samples}, {steps}, {training_steps}, {shown}, "
                f"{restarts}, {opinions}."
            )
        if not 0 < tolerance < 1:
            raise ValueError(f"Expected `tolerance` between 0 and 1, but got {tolerance}.")
        if weight is not None and not 0 < weight < math.inf:
            raise ValueError(f"Expected a positive, finite `weight`, but got {weight}.")
        if not 0 <= guard <= len(_SHIFTS):
            raise ValueError(f"Expected `guard` from 0 to {len(_SHIFTS)} shifted copies, but got {guard}.")
        self.targets = several
        self.by = by
        self.per_target = per_target
        self.tolerance = tolerance
        self.samples = samples
        self.steps = steps
        self.restarts = restarts
        self.guard = guard
        self.opinions = opinions
        self.training_steps = training_steps
        self.weight = weight
        self.shown = shown
        self._within = _WITHIN * tolerance

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
        require_frontiers(classifier, generator)
        names, targets = frontier_targets(self.targets, classifier.class_names)
        if self.by == "training" and takes_targets(generator):
            raise UnsupportedGenerator(
                f"Expected a generator that keeps what it is trained by, but this {generator.family} takes whole "
                'distributions as they are. Set `by` to "search".'
            )
        require_shown(classifier, generator, targets)
        asked = torch.arange(len(targets)).repeat_interleave(self.per_target)
        if self.by == "search":
            # What is asked for whole distributions is asked for each target, and searched by itself.
            groups = targets.split(1) if takes_targets(generator) else [targets]
            spaces = [self._space(generator, group, rng) for group in groups]
            opinion = self._opinion(classifier, spaces, rng)
            searched = [
                self._searched(classifier, space, group, opinion, rng)
                for space, group in zip(spaces, groups, strict=True)
            ]
            images, log_prior, way, steps, prediction = (torch.cat(parts) for parts in zip(*searched, strict=True))
        else:
            space = LatentSpace(generator, rng=rng)
            prediction = classifier.predict(space.drawn(space.sample(self.samples, rng=rng)))
            parts = [self._trained(classifier, generator, target, x, rng) for target in targets]
            images, steps = to_8_bits(torch.cat(parts)), torch.zeros_like(asked)
            log_prior, way = encoded_log_prior(generator, images), torch.full((len(asked),), torch.nan)
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
            drawn=prediction.bincount(minlength=classifier.num_classes),
            samples=len(prediction),
            tolerance=self.tolerance,
            shown=self.shown,
            class_names=classifier.class_names,
        )

    def _space(self, generator: Generator, targets: Float[Tensor, "T K"], rng: torch.Generator) -> LatentSpace:
        condition = Condition.of_distributions(targets) if takes_targets(generator) else None
        return LatentSpace(generator, rng=rng, condition=condition)

    def _opinion(
        self, classifier: Classifier, spaces: Sequence[LatentSpace], rng: torch.Generator
    ) -> SecondOpinion | None:
        """Return that of networks which learn what the classifier says of samples, if any are asked for."""
        if not self.opinions:
            return None
        each = math.ceil(self.samples / len(spaces))
        examples, log_probs = [], []
        with torch.no_grad():
            for space in spaces:
                for points in space.sample(each, rng=rng).split(_BATCH):
                    x = space.drawn(points)
                    examples.append(reduced(x))
                    log_probs.append(classifier(x).cpu().log_softmax(dim=1))
        return SecondOpinion(torch.cat(examples), torch.cat(log_probs), networks=self.opinions, rng=rng)

    def _searched(
        self,
        classifier: Classifier,
        space: LatentSpace,
        targets: Float[Tensor, "T K"],
        opinion: SecondOpinion | None,
        rng: torch.Generator,
    ) -> tuple[
        Float[Tensor, "N C H W"], Float[Tensor, " N"], Float[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " S"]
    ]:
        """Search one latent space for images of targets.

        Returns:
            The images, the log-density of each, the way from it to the classes, the gradients that it took, and what
            the classifier takes the generator's samples for.
        """
        points = space.sample(self.samples, rng=rng)
        landscape = _Landscape(classifier=classifier, space=space, guard=self.guard)
        prediction, log_probs = landscape.verdicts(points)
        pool = _Pool(points=points, log_probs=log_probs, origin=torch.arange(len(points)), prediction=prediction)
        found, steps = self._search(landscape, pool, targets, opinion, rng)
        way = _ways(found, targets.repeat_interleave(self.per_target, dim=0), pool)
        return space.drawn(found), space.log_prior(found), way, steps, prediction

    def _search(
        self,
        landscape: _Landscape,
        pool: _Pool,
        targets: Float[Tensor, "T K"],
        opinion: SecondOpinion | None,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Return the points that came nearest, and the gradients that each took."""
        stand_in = StandIn(pool.points, pool.log_probs, rng=rng)
        for _ in range(_ROUNDS):
            pool = self._explored(landscape, pool, stand_in, targets, rng)
        found, distance, steps = self._settled(landscape, pool, targets, opinion)
        target = targets.repeat_interleave(self.per_target, dim=0)

        def walk(starts: Tensor, left: Tensor) -> None:
            """Walk from starts for some rows, by the classifier alone, and keep what is nearer than before."""
            search = self._walk(landscape.log_probs(), starts, target[left], steps=self.steps)
            nearer = search.total_variation < distance[left]
            found[left[nearer]], distance[left[nearer]] = search.point[nearer], search.total_variation[nearer]
            steps[left] += search.steps

        if opinion is not None:
            left = (distance > self._within).nonzero()[:, 0]
            walk(found[left], left)
            # Where the opinion led all of a target astray, those near it set out again without it.
            lost = (distance.view(-1, self.per_target) > self._within).all(dim=1).nonzero()[:, 0]
            if len(lost):
                rows = (lost[:, None] * self.per_target + torch.arange(self.per_target)).flatten()
                found[rows], distance[rows], more = self._settled(landscape, pool, targets[lost], None)
                steps[rows] += more
        for turn in range(1 + self.restarts):
            arrived = distance <= self._within
            left = (~arrived).nonzero()[:, 0]
            if not len(left):
                break
            starts = found[left]
            if turn:
                # Each time nearer to one that arrived.
                again = (self._again(row, arrived, found, target, pool, 0.5**turn, rng) for row in left.tolist())
                starts = torch.stack(list(again))
            walk(starts, left)
        return found, steps

    def _explored(
        self, landscape: _Landscape, pool: _Pool, stand_in: StandIn, targets: Float[Tensor, "T K"], rng: torch.Generator
    ) -> _Pool:
        """Lead points to the targets by the stand-in alone, see what is there, and let it learn from that."""
        count = max(self.per_target, _LEAST_LED)
        near = [pool.near(target, _CHOICE * count) for target in targets]
        starts = torch.cat([rows[torch.randperm(len(rows), generator=rng)[:count]] for rows in near])
        led = reach_target(
            lambda point, rows: [stand_in(point)],
            pool.points[starts],
            targets.repeat_interleave(count, dim=0),
            tolerance=self.tolerance,
            steps=self.steps,
            radius=_RADIUS,
            batch_size=_BATCH,
        ).point
        pool = pool.with_led(led, landscape.verdicts(led)[1], pool.origin[starts])
        # As many samples as points that were led, so that it forgets little of what lies elsewhere.
        first_led = len(pool.samples)
        known = torch.randint(first_led, (len(pool.points) - first_led,), generator=rng)
        rows = torch.cat([known, torch.arange(first_led, len(pool.points))])
        stand_in.learn(pool.points[rows], pool.log_probs[rows], rng=rng)
        return pool

    def _settled(
        self, landscape: _Landscape, pool: _Pool, targets: Float[Tensor, "T K"], opinion: SecondOpinion | None
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"], Int[Tensor, " N"]]:
        """Walk from more starts than are needed to where the opinion agrees; the most promising of each target go on.

        Of those that arrive the most settled are kept: of which the mean over shifts, and the opinion, say what the
        image is to have. Returns the points, how far they are, beyond 1 where the opinion does not agree, and the
        gradients that each took.
        """
        agreement = None if opinion is None else _AGREEMENT
        log_probs, count = landscape.log_probs(opinion), math.ceil(_SURPLUS * self.per_target)
        starts = pool.points[torch.cat([pool.near(target, count) for target in targets])]
        wanted = targets.repeat_interleave(count, dim=0)
        search = self._walk(log_probs, starts, wanted, steps=math.ceil(self.steps / 2), agreement=agreement)
        unsettled = landscape.unsettled(search.point, wanted, opinion)
        order = torch.where(search.arrived, unsettled, unsettled.max() + search.total_variation).view(-1, count)
        best = order.topk(self.per_target, dim=1, largest=False).indices
        rows = (best + count * torch.arange(len(targets))[:, None]).flatten()
        found, distance, steps = search.point[rows], search.total_variation[rows], search.steps[rows]
        if opinion is not None:
            left = (~search.arrived[rows]).nonzero()[:, 0]
            search = self._walk(log_probs, found[left], wanted[rows[left]], steps=self.steps, agreement=agreement)
            found[left], distance[left] = search.point, search.total_variation
            steps[left] += search.steps
        return found, distance, steps

    def _walk(
        self,
        log_probs: LogProbs,
        starts: Float[Tensor, "N D"],
        target: Float[Tensor, "N K"],
        *,
        steps: int,
        agreement: float | None = None,
    ) -> TargetSearch:
        return reach_target(
            log_probs,
            starts,
            target,
            tolerance=self._within,
            agreement=agreement,
            steps=steps,
            radius=_RADIUS,
            batch_size=_BATCH,
        )

    def _again(
        self,
        row: int,
        arrived: Bool[Tensor, " N"],
        found: Float[Tensor, "N D"],
        target: Float[Tensor, "N K"],
        pool: _Pool,
        share: float,
        rng: torch.Generator,
    ) -> Float[Tensor, " D"]:
        """Return another start for a row: on the way from one that arrived at the same target to a sample, if any did.

        `share` is how much of it is the sample's.
        """
        first = row - row % self.per_target
        others = first + arrived[first : first + self.per_target].nonzero()[:, 0]
        if not len(others):
            return pool.between(target[row], rng)
        one = found[others[torch.randint(len(others), (), generator=rng)]]
        other = pool.samples[torch.randint(len(pool.samples), (), generator=rng)]
        # Of two independent points as far out as the prior's, so is this one.
        return math.sqrt(1 - share) * one + math.sqrt(share) * other

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


def _ways(found: Float[Tensor, "N D"], target: Float[Tensor, "N K"], pool: _Pool) -> Float[Tensor, " N"]:
    """Return from each point the sum of the ways to the nearest samples of its target's classes.

    A class of which there is no sample makes it NaN, and so does a target of one class, which lies between none.
    """
    nearest = torch.full(target.shape, torch.nan)
    for k in range(target.shape[1]):
        rows, samples = target[:, k] > 0, pool.samples[pool.prediction == k]
        if rows.any() and len(samples):
            nearest[rows, k] = torch.cdist(found[rows], samples).amin(dim=1)
    way = torch.where(target > 0, nearest, 0.0).sum(dim=1)
    return way.masked_fill((target > 0).sum(dim=1) < 2, torch.nan)
