"""Latent accuracy: how does accuracy fall with distance in style space, by classifier and by class?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedClassifier
from failscape.explain.comparison import require_same_task, told_apart
from failscape.explain.latent_accuracy_result import (
    EXAMPLES,
    FAR,
    NEAR,
    LatentAccuracyResult,
    nearest_and_farthest,
)
from failscape.explain.method import Method, to_8_bits
from failscape.explain.shared_influence import shared_influence
from failscape.explain.style_gradients import Influence, ScoreName, known_score
from failscape.explain.style_population import StyleSamples, images_of, require_class_styles, sample_styles
from failscape.generators import Condition, Generator, StyleGenerator
from failscape.metrics import bin_of, count_by_bin, equal_bins, summarize_curves
from failscape.metrics.accuracy_curves import MOST_JUDGES

_BATCH = 250
# Below this a style does not vary within a class, and no distance can be measured in its deviations.
_STILL = 1e-6
# The smallest score that can be asked for.
_LEAST_SCORE = 1e-3


@final
class LatentAccuracy(Method[LatentAccuracyResult]):
    r"""How does accuracy fall with distance in style space, by classifier and by class?

    Samples are drawn of all classes alike; the class asked for is the true one, and verdicts are those on 8-bit images.
    The distance of a sample $s$ is taken over the $k$ styles that change the true class's score most, from the mean
    $c$ of the samples that are classified rightly (by all classifiers, where several are compared):

    $$d(s) = \sqrt{\frac{1}{k} \sum_j \left(\frac{s_j - c_j}{\sigma_j}\right)^2}$$

    with $\sigma_j$ the deviation of a style within its class. So 1 is how far a sample typically lies from the mean of
    its class. All classifiers are measured on the same samples at the same distances; the styles are those of the
    first. Each class has a curve of its own, of the first classifier, with the styles, the centre and the deviations
    of that class.

    The images given to the method are not used.

    Args:
        samples: drawn for the curves.
        influence_samples: drawn before them, for the ranking of the styles; for a classifier without gradients finite
            differences of 200 of them rank, or of four of each class where that is more. In a study this and
            `score` are those of its `StyleInfluence` of the first classifier, unless others are given: the distance is
            over the styles that lead there.
        score: of the true class, by whose influence styles are ranked; as `StyleInfluence` takes it.
        top: styles that the distance is taken over, k.
        bins: of equal width, that samples are put together by.
        smallest_bin: a bin with fewer samples is left out.
        others: classifiers to compare with the one that is explained, on the same samples; at most 31.
        spread: part of the samples whose scores are drawn evenly over what the generator supports, in place of those
            that are natural. Measured on digits: such samples reach no farther, but are harder at every distance,
            most of all near the middle, where the curve should start; with all of them so drawn the classifier that
            the generator was trained with no longer falls (trend 0.57 in place of −0.87). Hence none by default.
        places: distances at which samples are shown.
        shown: samples shown at each.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles or no condition on the classes.
        UnsupportedClassifier: if no sample is classified rightly by all.
        ClassifierError: if another classifier takes other images or has other classes.

    Example:
        >>> method = LatentAccuracy(samples=5000, others=(trained_on_clean,))
        >>> result = method(classifier, stylegan2, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.summary["area"], result.summary["far"]

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        2022, sections 2.4 and 3.3.
    """

    result_type: ClassVar[type[LatentAccuracyResult]] = LatentAccuracyResult
    ranks_over: ClassVar[str] = "influence_samples"

    def __init__(
        self,
        *,
        samples: int = 20_000,
        influence_samples: int = 2000,
        score: ScoreName = "logit-margin",
        top: int = 100,
        bins: int = 15,
        smallest_bin: int = 50,
        others: tuple[Classifier, ...] = (),
        spread: float = 0.0,
        places: int = 6,
        shown: int = 10,
    ) -> None:
        counts = {
            "samples": samples,
            "influence_samples": influence_samples,
            "top": top,
            "smallest_bin": smallest_bin,
            "places": places,
            "shown": shown,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, but got {value}.")
        if bins < 2:
            raise ValueError(f"Expected at least 2 `bins`, but got {bins}.")
        if len(others) >= MOST_JUDGES:
            raise ValueError(f"Expected at most {MOST_JUDGES - 1} `others`, but got {len(others)}. Compare fewer.")
        if not 0 <= spread <= 1:
            raise ValueError(f"Expected `spread` to be a part of the samples, from 0 to 1, but got {spread:g}.")
        self.samples = samples
        self.influence_samples = influence_samples
        self.score = known_score(score)
        self.top = top
        self.bins = bins
        self.smallest_bin = smallest_bin
        self.others = others
        self.spread = spread
        self.places = places
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
    ) -> LatentAccuracyResult:
        """Rank the styles, draw the samples, and put them together by their distance."""
        styled = require_class_styles(generator, classifier, "latent accuracy")
        require_same_task(classifier, self.others)
        classifiers = (classifier, *self.others)
        influence = shared_influence(
            classifier,
            styled,
            self.influence_samples,
            rng=rng,
            score=self.score,
            gradients=classifier.differentiable,
            setting="influence_samples",
        )
        population = _Population(styled, self.samples, self.spread, rng)
        moments, right = _judge(population, classifiers)
        if not right.all(dim=0).any():
            raise UnsupportedClassifier(
                f"Expected samples that {' and '.join(each.name for each in classifiers)} classify as what was asked "
                f"for, to measure distances from their middle, but got none among {self.samples}. Check that generator "
                "and classifiers have their classes in the same order."
            )
        frame = _frame(influence, moments, None, self.top)
        own = {
            label: _frame(influence, moments, label, self.top)
            for label in range(classifier.num_classes)
            if moments.well_n[label]
        }
        distance, own_distance = _measure(population, frame, own)

        edges = equal_bins(distance, self.bins)
        place = bin_of(distance, edges)
        count, hits = count_by_bin(place, right, self.bins)
        kept = count >= self.smallest_bin
        summary = summarize_curves(place, right, kept)
        classes = self._by_class(population.y, own_distance, right[0], classifier.class_names)
        chosen, where = self._choose(place, kept, right[0], rng)
        return LatentAccuracyResult(
            images=population.images(chosen),
            image_y=population.y[chosen],
            image_distance=distance[chosen],
            image_place=where,
            edges=torch.stack([edges, classes.edges]),
            count=torch.cat([count.expand(len(classifiers), -1), classes.count]),
            right=torch.cat([hits, classes.right]),
            area=torch.cat([summary.area, classes.area]),
            trend=torch.cat([summary.trend, classes.trend]),
            pairs=summary.pairs,
            difference=summary.difference,
            p=summary.p,
            well=right.sum(dim=1),
            samples=self.samples,
            smallest_bin=self.smallest_bin,
            styles=frame.index,
            influential=int((influence.effect()[frame.index] != 0).sum()),
            spread=self.spread,
            classifiers=told_apart([each.name for each in classifiers]),
            class_names=classifier.class_names,
            classes=classes.names,
            left_out=classes.left_out,
        )

    def _by_class(
        self, y: Int[Tensor, " N"], distance: Float[Tensor, " N"], right: Bool[Tensor, " N"], names: Sequence[str]
    ) -> "_ByClass":
        """Return the curve of each class over common bins; a class without a middle has distances of NaN."""
        edges = equal_bins(distance[distance.isfinite()], self.bins)
        place = bin_of(distance, edges)
        counts, hits, kept, left_out = [], [], [], []
        for label, name in enumerate(names):
            rows = y == label
            drawn = int(rows.sum())
            count, hit = count_by_bin(place[rows], right[None, rows], self.bins)
            if not drawn:
                left_out.append(f"{name} (no sample was drawn)")
            elif not right[rows].any():
                left_out.append(f"{name} (none of {drawn:,} samples is classified rightly)")
            elif int(count.max()) < self.smallest_bin:
                left_out.append(f"{name} ({drawn:,} samples are too few)")
            else:
                counts.append(count)
                hits.append(hit)
                kept.append(label)
        if not kept:
            none = torch.empty(0, self.bins, dtype=torch.int64)
            nothing = torch.empty(0, 3)
            return _ByClass(edges, none, none, nothing, nothing, (), tuple(left_out))
        count = torch.stack(counts)
        # Areas can be compared only over distances at which every class has samples.
        common = (count >= self.smallest_bin).all(dim=0)
        parts = [summarize_curves(place[y == label], right[None, y == label], common) for label in kept]
        return _ByClass(
            edges=edges,
            count=count,
            right=torch.cat(hits),
            area=torch.cat([part.area for part in parts]),
            trend=torch.cat([part.trend for part in parts]),
            names=tuple(names[label] for label in kept),
            left_out=tuple(left_out),
        )

    def _choose(
        self, place: Int[Tensor, " N"], kept: Bool[Tensor, " B"], right: Bool[Tensor, " N"], rng: torch.Generator
    ) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
        """Return samples to show and where: some at each distance, right ones and wrong ones as many as they are.

        Then examples for those who look no further: of what is right near the middle, and of what is wrong far from it.
        """
        bins = kept.nonzero()[:, 0]
        near, far = nearest_and_farthest(bins)
        at = torch.linspace(0, len(bins) - 1, min(self.places, len(bins))).round().long()
        wanted = [(row, place == bins[index], self.shown) for row, index in enumerate(at.tolist())]
        wanted += [(NEAR, torch.isin(place, near) & right, EXAMPLES), (FAR, torch.isin(place, far) & ~right, EXAMPLES)]
        chosen, where = [], []
        for row, eligible, most in wanted:
            rows = eligible.nonzero()[:, 0]
            some = rows[torch.randperm(len(rows), generator=rng)[:most]]
            chosen.append(some)
            where.append(torch.full((len(some),), row))
        return torch.cat(chosen), torch.cat(where)


@final
@dataclass(frozen=True)
class _ByClass:
    """Curves of the classes that have one."""

    edges: Float[Tensor, " B1"]
    count: Int[Tensor, "L B"]
    right: Int[Tensor, "L B"]
    area: Float[Tensor, "L 3"]
    trend: Float[Tensor, "L 3"]
    names: tuple[str, ...]
    left_out: tuple[str, ...]


@final
class _Population:
    """Batches of samples that can be drawn again, since each has a seed of its own: none of them need be kept.

    Args:
        generator: as `require_class_styles` returns it.
        n: samples.
        spread: part of them whose scores are drawn evenly.
        rng: draws the seeds.

    Attributes:
        y: the class of each sample; the classes take turns.
    """

    def __init__(self, generator: StyleGenerator, n: int, spread: float, rng: torch.Generator) -> None:
        assert generator.condition_space is not None, "checked at the border"
        self.generator = generator
        self._space = generator.condition_space
        self._spread = spread
        drawn = self._space.classes
        self.y = drawn[torch.arange(n) % len(drawn)]
        self._seeds = torch.randint(2**62, (math.ceil(n / _BATCH),), generator=rng).tolist()

    def __iter__(self) -> Iterator[tuple[slice, StyleSamples]]:
        for number in range(len(self._seeds)):
            yield slice(number * _BATCH, number * _BATCH + _BATCH), self._batch(number)

    def images(self, rows: Int[Tensor, " M"]) -> Float[Tensor, "M C H W"]:
        """Draw the images of some samples again."""
        images = torch.empty(len(rows), *self.generator.image_shape)
        for number in (rows // _BATCH).unique().tolist():
            mine = rows // _BATCH == number
            samples = self._batch(number)[rows[mine] % _BATCH]
            images[mine] = images_of(self.generator, samples.s, samples.noise)
        return images

    def _batch(self, number: int) -> StyleSamples:
        rng = torch.Generator().manual_seed(self._seeds[number])
        y = self.y[number * _BATCH : number * _BATCH + _BATCH]
        samples = sample_styles(self.generator, len(y), rng=rng, y=y)
        if not self._spread:
            return samples
        low, high = torch.tensor(self._space.supported)[y].unbind(dim=1)
        score = (low + (high - low) * torch.rand(len(y), generator=rng)).clamp(_LEAST_SCORE, 1)
        even = (torch.rand(len(y), generator=rng) < self._spread)[:, None]
        w = self.generator.mapping(samples.z, Condition(y=y, score=score))
        w = torch.where(even, w, samples.w)
        return StyleSamples(y=y, z=samples.z, w=w, s=self.generator.styles(w), noise=samples.noise)


@final
@dataclass(frozen=True)
class _Moments:
    """Sums over samples and their styles, in double precision; rows are classes."""

    n: Int[Tensor, " K"]
    style: Float[Tensor, "K S"]
    squares: Float[Tensor, "K S"]
    well_n: Int[Tensor, " K"]
    well: Float[Tensor, "K S"]
    shared_n: Int[Tensor, " K"]
    shared: Float[Tensor, "K S"]


def _judge(population: _Population, classifiers: Sequence[Classifier]) -> tuple[_Moments, Bool[Tensor, "C N"]]:
    """Ask the classifiers about all samples, and add up the styles of all, and of those that are classified rightly."""
    classes, dim = classifiers[0].num_classes, population.generator.style_dim
    n, well_n, shared_n = (torch.zeros(classes, dtype=torch.int64) for _ in range(3))
    style, squares, well, shared = (torch.zeros(classes, dim, dtype=torch.float64) for _ in range(4))
    right = torch.empty(len(classifiers), len(population.y), dtype=torch.bool)
    for part, samples in population:
        x = to_8_bits(images_of(population.generator, samples.s, samples.noise))
        right[:, part] = torch.stack([each.predict(x).cpu() == samples.y for each in classifiers])
        s = samples.s.double()
        for rows, number, total in (
            (torch.ones_like(samples.y, dtype=torch.bool), n, style),
            (right[0, part], well_n, well),
            (right[:, part].all(dim=0), shared_n, shared),
        ):
            number += samples.y[rows].bincount(minlength=classes)
            total.index_add_(0, samples.y[rows], s[rows])
        squares.index_add_(0, samples.y, s.square())
    return _Moments(n, style, squares, well_n, well, shared_n, shared), right


@final
@dataclass(frozen=True)
class _Frame:
    """What distances are measured from, along which styles, and in which units."""

    index: Int[Tensor, " k"]
    centre: Float[Tensor, " k"]
    unit: Float[Tensor, " k"]

    def distance(self, s: Float[Tensor, "N S"]) -> Float[Tensor, " N"]:
        return ((s[:, self.index] - self.centre) / self.unit).square().mean(dim=1).sqrt()


def _frame(influence: Influence, moments: _Moments, label: int | None, top: int) -> _Frame:
    """Return the frame of one class, or of all of them together."""
    rows = slice(None) if label is None else slice(label, label + 1)
    n = moments.n[rows, None].clamp_min(1)
    scatter = moments.squares[rows] - moments.style[rows].square() / n
    # A style's own unit says nothing: layers differ in it by orders of magnitude, and a distance in it would be that of
    # one layer. The deviation is taken within the class, as that between classes is what makes a 3 not a 7.
    unit = (scatter.sum(dim=0) / n.sum()).clamp_min(0).sqrt()
    well, number = (moments.shared, moments.shared_n) if label is None else (moments.well, moments.well_n)
    centre = well[rows].sum(dim=0) / number[rows].sum()
    effect = influence.effect(label).nan_to_num()
    ranking = influence.ranking(label)
    ranking = ranking[unit[ranking] > _STILL]
    effective = ranking[effect[ranking] != 0]
    # Where nothing has an effect, as for a classifier that is constant, the distance is over whatever varies.
    index = (effective if len(effective) else ranking)[:top]
    return _Frame(index, centre[index].float(), unit[index].float())


@torch.no_grad()
def _measure(
    population: _Population, frame: _Frame, own: Mapping[int, _Frame]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return the distance of each sample from the middle of all, and from that of its class, NaN where it has none."""
    distance, own_distance = torch.empty(len(population.y)), torch.full((len(population.y),), torch.nan)
    for part, samples in population:
        distance[part] = frame.distance(samples.s)
        for label in samples.y.unique().tolist():
            if label in own:
                rows = (samples.y == label).nonzero()[:, 0]
                own_distance[part.start + rows] = own[label].distance(samples.s[rows])
    return distance, own_distance
