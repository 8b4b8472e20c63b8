"""The search of a latent space for images that a classifier says a target distribution of."""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.latent_space import LatentSpace
from failscape.explain.method import to_8_bits_with_gradient
from failscape.explain.second_opinion import SecondOpinion
from failscape.search import LogProbs, StandIn, TargetSearch, reach_target, total_variation

SHIFTS = ((1, 1), (-1, -1), (1, -1), (-1, 1))
# Activations of more images than this no longer fit into a processor's cache: a pass back took half as long again.
_BATCH = 128
# The longest first step of a walk. Where the second opinion leads, too, no way is straight: with a first step of two
# deviations a walk was not nearer than its start before its tenth.
_RADIUS, _LED_RADIUS = 0.7, 2.0
# A point is led from one drawn among so many times as many samples as are needed, those nearest to the target.
_CHOICE = 4
# How often the stand-ins lead points to the targets, as many as images are asked for, and learn from what is there; at
# least so many a target, from which they can learn.
_ROUNDS = 2
_LEAST_LED = 64
# By how much points that are led are drawn toward the middle of the prior at each step. Without it they lay farther out
# than samples do, and fewer of what was found of them was what an oracle takes it for.
_PULL = 0.05
# So many times as many as are needed set out toward where the second opinion agrees, for this part of the steps, and
# the most promising go on for as many. Twice as many led hardly farther: of 580 that had not arrived 50 then did.
_SURPLUS, _LED = 1.5, 1 / 3
# The second opinion agrees within this total variation distance, the stand-in for it within the other. Within 0.1, too,
# it cost a sixth more and led to no more images that another network takes for both classes.
_AGREEMENT, _LED_AGREEMENT = 0.2, 0.05
# Part of the tolerance that the search may use. The images are rounded in it, so nothing else is to be lost.
_WITHIN = 0.95


@final
@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found for each row: `n` for each target, one target after the other.

    Attributes:
        images: of 8 bits.
        log_prior: the log-density of each, in nats.
        way: from each to the nearest samples of its target's classes, in sum; NaN where there are none.
        steps: gradients that each took.
        prediction: what the classifier takes each sample for that the search set out from.
    """

    images: Float[Tensor, "N C H W"]
    log_prior: Float[Tensor, " N"]
    way: Float[Tensor, " N"]
    steps: Int[Tensor, " N"]
    prediction: Int[Tensor, " S"]


@final
@dataclass(frozen=True, kw_only=True)
class _Verdicts:
    """What is said of the 8-bit images of points.

    Attributes:
        prediction: the classifier's class.
        log_probs: its log-probabilities, the mean over the image and its shifts.
        said: the second opinion's, if there is one.
    """

    prediction: Int[Tensor, " M"]
    log_probs: Float[Tensor, "M K"]
    said: Float[Tensor, "M K"] | None

    @property
    def opinions(self) -> list[Float[Tensor, "M K"]]:
        """The log-probabilities of all that say something."""
        return [self.log_probs, *([] if self.said is None else [self.said])]

    def and_of(self, others: "_Verdicts") -> "_Verdicts":
        """Return these and those of other points after them."""
        return _Verdicts(
            prediction=torch.cat([self.prediction, others.prediction]),
            log_probs=torch.cat([self.log_probs, others.log_probs]),
            said=None if self.said is None or others.said is None else torch.cat([self.said, others.said]),
        )


@final
@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Points of which the verdicts are known, the generator's samples first.

    Attributes:
        points: in the latent space.
        verdicts: on them.
        origin: the sample that each was led from, or is.
        drawn: how many are samples.
    """

    points: Float[Tensor, "M D"]
    verdicts: _Verdicts
    origin: Int[Tensor, " M"]
    drawn: int

    @property
    def samples(self) -> Float[Tensor, "S D"]:
        """The points that were drawn from the prior."""
        return self.points[: self.drawn]

    @property
    def prediction(self) -> Int[Tensor, " S"]:
        """What the classifier takes each sample for."""
        return self.verdicts.prediction[: self.drawn]

    def with_led(self, points: Float[Tensor, "N D"], verdicts: _Verdicts, origin: Int[Tensor, " N"]) -> "_Pool":
        """Return the pool with points that were led from its samples."""
        return replace(
            self,
            points=torch.cat([self.points, points]),
            verdicts=self.verdicts.and_of(verdicts),
            origin=torch.cat([self.origin, origin]),
        )

    def near(self, target: Float[Tensor, " K"], n: int) -> Int[Tensor, " N"]:
        """Return points to set out from, the nearest to the target first; some twice if there are too few.

        Near is what has little of a divergence of the target from what is said. Of those that come from one sample it
        is the nearest alone, since they lie close together.
        """
        likeness = torch.stack([said @ target for said in self.verdicts.opinions]).sum(dim=0)
        order = likeness.argsort(descending=True, stable=True)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
        nearest = torch.full((self.drawn,), len(order)).scatter_reduce(0, self.origin, rank, "amin").sort().values
        return order[nearest[torch.arange(n) % len(nearest)]]

    def between(self, target: Float[Tensor, " K"], rng: torch.Generator) -> Float[Tensor, " D"]:
        """Return a point with a weighted mean of samples of the target's classes, each in its share."""
        known = self.verdicts.log_probs[: self.drawn]
        point = torch.zeros(self.points.shape[1])
        for k in (target > 0).nonzero()[:, 0].tolist():
            promising = known[:, k].topk(max(1, len(known) // (2 * known.shape[1]))).indices
            point += target[k] * self.points[promising[torch.randint(len(promising), (), generator=rng)]]
        # A mean of independent points lies nearer to the middle than they do.
        return point / (target.square().sum().sqrt())

    def ways(self, found: Float[Tensor, "N D"], target: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
        """Return from each point the sum of the ways to the nearest samples of its target's classes.

        A class of which there is no sample makes it NaN, and so does a target of one class, which lies between none.
        """
        nearest = torch.full(target.shape, torch.nan)
        for k in range(target.shape[1]):
            rows, samples = target[:, k] > 0, self.samples[self.prediction == k]
            if rows.any() and len(samples):
                nearest[rows, k] = torch.cdist(found[rows], samples).amin(dim=1)
        way = torch.where(target > 0, nearest, 0.0).sum(dim=1)
        return way.masked_fill((target > 0).sum(dim=1) < 2, torch.nan)


@final
class FrontierSearch:
    """Searches a latent space for images of targets, as `failscape.explain.Frontier` says.

    Args:
        classifier: says what they are.
        space: that is searched.
        opinion: agrees where it can, if there is one.
        tolerance: the largest total variation distance from a target.
        steps: of a walk, at most.
        restarts: of each image, at most.
        guard: shifts of the image that join in guiding.
        rng: draws samples and starts.
    """

    def __init__(
        self,
        classifier: Classifier,
        space: LatentSpace,
        opinion: SecondOpinion | None,
        *,
        tolerance: float,
        steps: int,
        restarts: int,
        guard: int,
        rng: torch.Generator,
    ) -> None:
        self._classifier, self._space, self._opinion = classifier, space, opinion
        self._within = _WITHIN * tolerance
        self._tolerance, self._steps, self._restarts, self._guard = tolerance, steps, restarts, guard
        self._rng = rng

    def __call__(self, targets: Float[Tensor, "T K"], *, n: int, samples: int) -> Found:
        """Search for `n` images of each target, from so many samples."""
        points = self._space.sample(samples, rng=self._rng)
        pool = _Pool(points=points, verdicts=self._verdicts(points), origin=torch.arange(samples), drawn=samples)
        stand_ins = [StandIn(points, said, rng=self._rng) for said in pool.verdicts.opinions]
        for _ in range(_ROUNDS):
            pool = self._explored(pool, stand_ins, targets, max(n, _LEAST_LED))
        found, steps = self._searched(pool, targets, n)
        found = self._space.on_prior(found)
        return Found(
            images=self._space.drawn(found),
            log_prior=self._space.log_prior(found),
            way=pool.ways(found, targets.repeat_interleave(n, dim=0)),
            steps=steps,
            prediction=pool.prediction,
        )

    def _explored(self, pool: _Pool, stand_ins: list[StandIn], targets: Float[Tensor, "T K"], n: int) -> _Pool:
        """Lead points to the targets by the stand-ins alone, see what is there, and let them learn from that."""
        near = [pool.near(target, _CHOICE * n) for target in targets]
        starts = torch.cat([rows[torch.randperm(len(rows), generator=self._rng)[:n]] for rows in near])
        led = reach_target(
            lambda point, rows: [stand_in(point) for stand_in in stand_ins],
            pool.points[starts],
            targets.repeat_interleave(n, dim=0),
            tolerance=self._tolerance,
            agreement=_LED_AGREEMENT,
            steps=self._steps,
            radius=_LED_RADIUS,
            pull=_PULL,
            batch_size=_BATCH,
        ).point
        pool = pool.with_led(led, self._verdicts(led), pool.origin[starts])
        # As many samples as points that were led, so that they forget little of what lies elsewhere.
        known = torch.randint(pool.drawn, (len(pool.points) - pool.drawn,), generator=self._rng)
        rows = torch.cat([known, torch.arange(pool.drawn, len(pool.points))])
        for stand_in, said in zip(stand_ins, pool.verdicts.opinions, strict=True):
            stand_in.learn(pool.points[rows], said[rows], rng=self._rng)
        return pool

    def _searched(
        self, pool: _Pool, targets: Float[Tensor, "T K"], n: int
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Return the points that came nearest, and the gradients that each took."""
        found, distance, steps = self._settled(pool, targets, n, self._opinion)
        target = targets.repeat_interleave(n, dim=0)

        def walk(starts: Tensor, left: Tensor) -> None:
            """Walk from starts for some rows, by the classifier alone, and keep what is nearer than before."""
            search = self._walk(starts, target[left], None, steps=self._steps)
            nearer = search.total_variation < distance[left]
            found[left[nearer]], distance[left[nearer]] = search.point[nearer], search.total_variation[nearer]
            steps[left] += search.steps

        if self._opinion is not None:
            left = (distance > self._within).nonzero()[:, 0]
            walk(found[left], left)
            # Where the opinion led all of a target astray, those near it set out again without it.
            lost = (distance.view(-1, n) > self._within).all(dim=1).nonzero()[:, 0]
            if len(lost):
                rows = (lost[:, None] * n + torch.arange(n)).flatten()
                found[rows], distance[rows], more = self._settled(pool, targets[lost], n, None)
                steps[rows] += more
        for turn in range(1 + self._restarts):
            arrived = distance <= self._within
            left = (~arrived).nonzero()[:, 0]
            if not len(left):
                break
            starts = found[left]
            if turn:
                # Each time nearer to one that arrived.
                again = (self._again(row, n, arrived, found, target, pool, 0.5**turn) for row in left.tolist())
                starts = torch.stack(list(again))
            walk(starts, left)
        return found, steps

    def _settled(
        self, pool: _Pool, targets: Float[Tensor, "T K"], n: int, opinion: SecondOpinion | None
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"], Int[Tensor, " N"]]:
        """Walk from more starts than are needed to where the opinion agrees; the most promising of each target go on.

        Of those that arrive the most settled are kept: of which the mean over shifts, and the opinion, say what the
        image is to have. Returns the points, how far they are, beyond 1 where the opinion does not agree, and the
        gradients that each took.
        """
        count = math.ceil(_SURPLUS * n)
        starts = pool.points[torch.cat([pool.near(target, count) for target in targets])]
        wanted = targets.repeat_interleave(count, dim=0)
        led = math.ceil(_LED * self._steps)
        search = self._walk(starts, wanted, opinion, steps=led)
        verdicts = self._verdicts(search.point)
        said = verdicts.opinions if opinion is not None else [verdicts.log_probs]
        unsettled = torch.stack([total_variation(each.softmax(dim=1), wanted) for each in said]).sum(dim=0)
        order = torch.where(search.arrived, unsettled, unsettled.max() + search.total_variation).view(-1, count)
        best = order.topk(n, dim=1, largest=False).indices
        rows = (best + count * torch.arange(len(targets))[:, None]).flatten()
        found, distance, steps = search.point[rows], search.total_variation[rows], search.steps[rows]
        if opinion is not None:
            left = (~search.arrived[rows]).nonzero()[:, 0]
            search = self._walk(found[left], wanted[rows[left]], opinion, steps=led)
            found[left], distance[left] = search.point, search.total_variation
            steps[left] += search.steps
        return found, distance, steps

    def _walk(
        self,
        starts: Float[Tensor, "N D"],
        target: Float[Tensor, "N K"],
        opinion: SecondOpinion | None,
        *,
        steps: int,
    ) -> TargetSearch:
        return reach_target(
            self._log_probs(opinion),
            starts,
            target,
            tolerance=self._within,
            agreement=None if opinion is None else _AGREEMENT,
            steps=steps,
            radius=_LED_RADIUS if opinion is None else _RADIUS,
            batch_size=_BATCH,
        )

    def _again(
        self,
        row: int,
        n: int,
        arrived: Bool[Tensor, " N"],
        found: Float[Tensor, "N D"],
        target: Float[Tensor, "N K"],
        pool: _Pool,
        share: float,
    ) -> Float[Tensor, " D"]:
        """Return another start for a row: on the way from one that arrived at the same target to a sample, if any did.

        `share` is how much of it is the sample's.
        """
        first = row - row % n
        others = first + arrived[first : first + n].nonzero()[:, 0]
        if not len(others):
            return pool.between(target[row], self._rng)
        one = found[others[torch.randint(len(others), (), generator=self._rng)]]
        other = pool.samples[torch.randint(pool.drawn, (), generator=self._rng)]
        # Of two independent points as far out as the prior's, so is this one.
        return math.sqrt(1 - share) * one + math.sqrt(share) * other

    @torch.no_grad()
    def _verdicts(self, points: Float[Tensor, "M D"]) -> _Verdicts:
        """Return what is said of the 8-bit images of points."""
        predictions, means, said = [], [], []
        for part in points.split(_BATCH):
            x = self._space.drawn(part)
            views = self._views(x, len(SHIFTS))
            predictions.append(views[0].argmax(dim=1))
            means.append(torch.stack(views).mean(dim=0))
            if self._opinion is not None:
                said.append(self._opinion(x))
        return _Verdicts(
            prediction=torch.cat(predictions), log_probs=torch.cat(means), said=torch.cat(said) if said else None
        )

    def _log_probs(self, opinion: SecondOpinion | None) -> LogProbs:
        """Return what is said of points, differentiable: of the image, of its shifts together, and by the opinion."""

        def views(point: Tensor, rows: Tensor) -> list[Tensor]:
            x = to_8_bits_with_gradient(self._space.draw(point))
            image, *shifted = self._views(x, self._guard)
            together = [torch.stack(shifted).mean(dim=0)] if shifted else []
            return [image, *together, *([] if opinion is None else [opinion(x)])]

        return views

    def _views(self, x: Float[Tensor, "N C H W"], shifts: int) -> list[Float[Tensor, "N K"]]:
        views = [x, *(x.roll(shift, dims=(2, 3)) for shift in SHIFTS[:shifts])]
        return [self._classifier(view).cpu().log_softmax(dim=1) for view in views]
