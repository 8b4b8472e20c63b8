"""Latent map: how do well- and misclassified samples lie in the latent spaces Z, W and S?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.method import Method, Result, to_8_bits
from failscape.explain.style_population import images_of, left_unsaid, require_class_styles, style_batches
from failscape.figures import Case, Figure, Finding, Gallery, Panel, Plot, latent_maps, percent
from failscape.generators import Generator, StyleGenerator
from failscape.metrics import nearest, neighbour_vote, rate, rate_of, standardized

SPACES = ("z", "w", "s")
_INTERVAL = "Interval: 95 %, of a Jeffreys posterior of each group."

_DEFINITIONS = {
    "drawn": "Samples drawn until enough of them were misclassified, or as many as were allowed.",
    "misclassified": "Rate at which these are misclassified. Interval: Wilson, 95 %.",
    "samples": "Samples that the numbers are taken over; of those drawn, misclassified ones are kept first.",
    "samples_misclassified": "How many of them are misclassified.",
    "mapped": "How many of them are on the map.",
    "same_class": "Share of the misclassified samples whose nearest rightly classified sample in S is of their class. "
    "Interval: Wilson, 95 %.",
    "pair": "Number of the pair: a misclassified sample and its nearest rightly classified one in S.",
    "role": "Which of the two it is.",
    "asked": "The class that it was asked for: its true one.",
    "prediction": "What the classifier says of it.",
    "holds": "Whether the classifier, asked again about the 8-bit image, is wrong, or right, as claimed.",
    "distance": "How far the two lie apart in S, in deviations: root of the mean square over the styles.",
} | {
    key: text
    for space in SPACES
    for key, text in (
        (
            f"well_{space}",
            f"Accuracy, balanced, with which the nearest neighbours of a sample in {space.upper()}, each less the mean "
            f"of the class asked for, tell whether it is misclassified; chance is 50 %. {_INTERVAL}",
        ),
        (
            f"class_{space}",
            f"Accuracy, balanced, with which the nearest neighbours of a sample in {space.upper()} tell its class. "
            f"{_INTERVAL}",
        ),
    )
}


@final
@dataclass(frozen=True, kw_only=True)
class LatentMapResult(Result):
    """What `LatentMap` found. Rows of three are the spaces Z, W and S; triples hold a value and its interval.

    Attributes:
        images: P misclassified samples, then the rightly classified ones nearest to them in S, 8-bit values in [0, 1].
        image_y: the class that each was asked for.
        pair_distance: how far each two lie apart in S, in deviations.
        position: where t-SNE puts the mapped samples.
        mapped_y: their classes.
        mapped_right: which of them are classified rightly.
        well: balanced accuracy with which neighbours tell well- from misclassified samples; NaN where one kind lacks.
        by_class: that with which they tell the class.
        neighbours: how many neighbours vote.
        same_class: whether the nearest rightly classified sample in S of each misclassified one is of its class.
        samples: how many the numbers are taken over.
        drawn: how many were drawn to find them.
        drawn_misclassified: how many of those are misclassified.
        count: how many of each class were drawn.
        right: how many of those are classified rightly.
        predicted: how many samples drawn are taken for each class.
        kept_misclassified: how many misclassified ones the numbers are taken over.
        class_names: K names.
    """

    image_y: Int[Tensor, " N"]
    pair_distance: Float[Tensor, " P"]
    position: Float[Tensor, "3 M 2"]
    mapped_y: Int[Tensor, " M"]
    mapped_right: Bool[Tensor, " M"]
    well: Float[Tensor, "3 3"]
    by_class: Float[Tensor, "3 3"]
    neighbours: int
    same_class: Bool[Tensor, " E"]
    samples: int
    drawn: int
    drawn_misclassified: int
    count: Int[Tensor, " K"]
    right: Int[Tensor, " K"]
    predicted: Int[Tensor, " K"]
    kept_misclassified: int
    class_names: tuple[str, ...]

    @property
    def holds(self) -> Bool[Tensor, " N"]:
        """Whether the verified 8-bit images are wrong in the first half, and right in the second."""
        assert self.verification is not None
        right = self.verification.prediction == self.image_y
        return right == (torch.arange(len(right)) >= len(self.pair_distance))

    @property
    def summary(self) -> dict[str, float]:
        """What was drawn, and how well each space tells apart."""
        wrong, same = rate_of(self.drawn_misclassified, self.drawn), rate(self.same_class)
        summary = {
            "drawn": float(self.drawn),
            "misclassified": wrong.value,
            "misclassified_low": wrong.low,
            "misclassified_high": wrong.high,
            "samples": float(self.samples),
            "samples_misclassified": float(self.kept_misclassified),
            "mapped": float(len(self.mapped_y)),
        }
        for name, values in (("well", self.well), ("class", self.by_class)):
            for space, (value, low, high) in zip(SPACES, values.tolist(), strict=True):
                key = f"{name}_{space}"
                summary |= {key: value, f"{key}_low": low, f"{key}_high": high}
        return summary | {"same_class": same.value, "same_class_low": same.low, "same_class_high": same.high}

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        assert self.verification is not None
        pairs, names = len(self.pair_distance), self.class_names
        return pa.table(
            {
                "pair": pa.array([*range(pairs)] * 2, pa.int64()),
                "role": pa.array(["misclassified"] * pairs + ["nearest"] * pairs, pa.string()),
                "asked": pa.array([names[k] for k in self.image_y.tolist()], pa.string()),
                "prediction": pa.array([names[k] for k in self.verification.prediction.tolist()], pa.string()),
                "holds": self.holds.numpy(),
                "distance": self.pair_distance.repeat(2).numpy(),
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """The maps, and pairs of neighbours."""
        kept = f"{self.kept_misclassified:,} misclassified ones among {self.samples:,}"
        figures: list[Figure] = [
            Plot(
                name="map",
                title="Where well- and misclassified samples lie in Z, W and S",
                caption=f"The same {len(self.mapped_y):,} samples in each space, laid out by t-SNE, which keeps "
                "neighbours together; distances between groups, and the axes, mean nothing. Crosses are misclassified. "
                "Above, colours are the classes asked for; below, they say what is misclassified. The numbers are how "
                f"often a sample's {self.neighbours} nearest neighbours in the space itself tell its class (above) or, "
                "each less the mean of its class, whether it is misclassified (below), each group counting the same; "
                "chance is one over their number. "
                f"Of {self.drawn:,} samples drawn {self.drawn_misclassified:,} were misclassified; the numbers are "
                f"taken over {kept}, more than come by nature where these are rare.",
                draw=self._draw_map,
            )
        ]
        if len(self.pair_distance):
            figures.append(
                Gallery(
                    name="neighbours",
                    title="Misclassified samples and their nearest rightly classified ones in S",
                    caption="What lies between right and wrong where the two are closest: each misclassified sample "
                    "with the rightly classified one whose styles are nearest, of whatever class.",
                    class_names=self.class_names,
                    cases=[self._case(pair) for pair in range(len(self.pair_distance))],
                    definitions={"distance": _DEFINITIONS["distance"]},
                )
            )
        return figures

    @property
    def findings(self) -> Sequence[Finding]:
        """Whether the place of a sample says that it is misclassified."""
        if not self.drawn_misclassified:
            return (Finding(sentence=f"None of {self.drawn:,} generated images is misclassified.{self._unsaid}"),)
        z, s = self.well[0].tolist(), self.well[2].tolist()
        if math.isnan(s[0]):
            return (Finding(sentence=f"All of {self.drawn:,} generated images are misclassified.{self._unsaid}"),)
        if s[1] > 0.5:
            sentence = (
                "Misclassified images of a class lie together in style space: from the images nearest to one there, it "
                f"can be told in {percent(s[0])} of cases whether it is misclassified (half would be chance; "
                f"{percent(z[0])} in Z)."
            )
        else:
            sentence = (
                "Misclassified images of a class lie wherever others of it do in style space: the images nearest to "
                f"one there do not tell whether it is misclassified ({percent(s[0])}; half is chance)."
            )
        pairs = len(self.pair_distance)
        both = [(pair, pair + pairs) for pair in range(pairs) if bool(self.holds[[pair, pair + pairs]].all())]
        panels = [Panel(label=self._says(row), pixels=self.images[row]) for pair in both[:3] for row in pair]
        return (Finding(sentence=f"{sentence}{self._unsaid}", panels=panels),)

    @property
    def _unsaid(self) -> str:
        return left_unsaid(self.count, self.right, self.predicted, self.class_names)

    def _says(self, row: int) -> str:
        assert self.verification is not None
        asked = self.class_names[int(self.image_y[row])]
        said = self.class_names[int(self.verification.prediction[row])]
        if row < len(self.pair_distance):
            return f"{asked}, taken for {said}"
        return f"beside it: {asked}, rightly" if asked == said else f"beside it: {asked}, taken for {said}"

    def _case(self, pair: int) -> Case:
        assert self.verification is not None
        rows = (pair, pair + len(self.pair_distance))
        asked = [self.class_names[int(self.image_y[row])] for row in rows]
        said = [self.class_names[int(self.verification.prediction[row])] for row in rows]
        holds = bool(self.holds[list(rows)].all())
        return Case(
            id=f"pair {pair}",
            heading=f"A {asked[0]} taken for a {said[0]}, and a {asked[1]} beside it",
            verdict="The first is misclassified, the second is not."
            if holds
            else "Failed: classified again, the first is right or the second is wrong.",
            good=holds,
            panels=(
                Panel(label="misclassified", pixels=self.images[rows[0]]),
                Panel(label="nearest", pixels=self.images[rows[1]]),
            ),
            probabilities={
                "misclassified": self.verification.probs[rows[0]],
                "nearest": self.verification.probs[rows[1]],
            },
            numbers={"distance": f"{self.pair_distance[pair]:.2f}"},
        )

    def _draw_map(self) -> Drawing:
        def note(what: str, values: Tensor) -> str:
            return "" if values[0].isnan() else f"{what} told in {percent(float(values[0]))}"

        return latent_maps(
            {space.upper(): self.position[i] for i, space in enumerate(SPACES)},
            self.mapped_y,
            ~self.mapped_right,
            class_names=self.class_names,
            notes=[(note("class", self.by_class[i]), note("misclassified", self.well[i])) for i in range(len(SPACES))],
        )


@final
class LatentMap(Method[LatentMapResult]):
    """How do well- and misclassified samples lie in the latent spaces Z, W and S?

    Samples are drawn, of all classes alike, until `misclassified` of them are classified as something else than what
    was asked for, or `draws` have been drawn. In each space, every coordinate standardized, the nearest neighbours of a
    sample vote on its class, and, each sample less the mean of its class, on whether it is misclassified: a class that
    is often mistaken is no place where mistakes lie. Each group's votes are divided by its size; the share of each
    group that is told rightly is averaged. A random part of the samples is laid out in the plane by t-SNE.

    The images given to the method are not used.

    Args:
        samples: that the numbers are taken over.
        misclassified: as many of them are to be misclassified; up to half are, where so many are found.
        draws: samples that may be drawn to find them.
        mapped: samples laid out by t-SNE. A thousand take 3 to 5 seconds a space on one core, and more crowd the map.
        neighbours: voters; an odd number avoids ties.
        perplexity: of t-SNE, about the number of neighbours that it heeds.
        pairs: misclassified samples to show with the rightly classified ones nearest in S; the classes take turns.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles or no condition on the classes.

    Example:
        >>> result = LatentMap()(classifier, stylegan2, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.summary["well_s"], result.summary["well_z"]

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        2022, figure 3.
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """

    result_type: ClassVar[type[LatentMapResult]] = LatentMapResult

    def __init__(
        self,
        *,
        samples: int = 2000,
        misclassified: int = 200,
        draws: int = 10_000,
        mapped: int = 1000,
        neighbours: int = 11,
        perplexity: float = 30.0,
        pairs: int = 12,
    ) -> None:
        if not 4 <= mapped <= samples <= draws:
            raise ValueError(f"Expected 4 ≤ `mapped` ≤ `samples` ≤ `draws`, but got {mapped}, {samples} and {draws}.")
        if min(misclassified, pairs) < 0 or neighbours < 1 or perplexity <= 0:
            raise ValueError(
                "Expected `misclassified` and `pairs` of at least 0, `neighbours` of at least 1 and a positive "
                f"`perplexity`, but got {misclassified}, {pairs}, {neighbours} and {perplexity:g}."
            )
        self.samples = samples
        self.misclassified = misclassified
        self.draws = draws
        self.mapped = mapped
        self.neighbours = neighbours
        self.perplexity = perplexity
        self.pairs = pairs

    @torch.no_grad()
    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> LatentMapResult:
        """Draw samples, let neighbours vote, and lay them out."""
        styled = require_class_styles(generator, classifier, "a latent map")
        found = self._draw(classifier, styled, rng)
        spaces = [standardized(space) for space in (found.z, found.w, found.s)]
        well: list[list[float]] = []
        by_class: list[list[float]] = []
        for raw, space in zip((found.z, found.w, found.s), spaces, strict=True):
            # Within classes: else mistakes that are of some classes more than of others would tell these classes apart.
            away = standardized(raw, within=found.y)
            for place, groups, rows in ((away, found.right.long(), well), (space, found.y, by_class)):
                each = neighbour_vote(place, groups, neighbours=self.neighbours).accuracy
                rows.append([each.value, each.low, each.high])

        wrong, right = (~found.right).nonzero()[:, 0], found.right.nonzero()[:, 0]
        beside = torch.empty(0, dtype=torch.int64)
        if len(right):
            beside = right[nearest(spaces[2][wrong], spaces[2][right], 1)[:, 0]]
        else:
            wrong = wrong[:0]
        chosen = _in_turns(found.y[wrong])[: self.pairs]
        pairs = torch.cat([wrong[chosen], beside[chosen]])
        apart = (spaces[2][wrong[chosen]] - spaces[2][beside[chosen]]).square().mean(dim=1).sqrt()

        mapped = torch.randperm(len(found.y), generator=rng)[: self.mapped]
        return LatentMapResult(
            images=found.images[pairs].float() / 255,
            image_y=found.y[pairs],
            pair_distance=apart,
            position=torch.stack([self._lay_out(space[mapped], rng) for space in spaces]),
            mapped_y=found.y[mapped],
            mapped_right=found.right[mapped],
            well=torch.tensor(well),
            by_class=torch.tensor(by_class),
            neighbours=self.neighbours,
            same_class=found.y[wrong] == found.y[beside],
            samples=len(found.y),
            drawn=found.drawn,
            drawn_misclassified=found.drawn - int(found.count_right.sum()),
            count=found.count,
            right=found.count_right,
            predicted=found.predicted,
            kept_misclassified=int((~found.right).sum()),
            class_names=classifier.class_names,
        )

    def _draw(self, classifier: Classifier, generator: StyleGenerator, rng: torch.Generator) -> "_Found":
        """Draw until there are enough of both kinds, and keep no more than could be used."""
        kept: dict[bool, list[tuple[Tensor, ...]]] = {True: [], False: []}
        have = {True: 0, False: 0}
        count, count_right, predicted = torch.zeros(3, classifier.num_classes, dtype=torch.int64)
        for samples in style_batches(generator, self.draws, rng=rng):
            images = to_8_bits(images_of(generator, samples.s, samples.noise))
            prediction = classifier.predict(images).cpu()
            right = prediction == samples.y
            for counted, labels in ((count, samples.y), (count_right, samples.y[right]), (predicted, prediction)):
                counted += labels.bincount(minlength=len(counted))
            eight_bits = (images * 255).round().to(torch.uint8)
            for kind in (True, False):
                rows = (right == kind).nonzero()[:, 0][: self.samples - have[kind]]
                have[kind] += len(rows)
                kept[kind].append(
                    (samples.y[rows], samples.z[rows], samples.w[rows], samples.s[rows], eight_bits[rows])
                )
            drawn = int(count.sum())
            if drawn >= self.samples and drawn - int(count_right.sum()) >= self.misclassified:
                break
        # Misclassified ones first, up to half; more only where there are not enough others.
        number = {False: min(have[False], max(self.samples // 2, self.samples - have[True]))}
        number[True] = min(have[True], self.samples - number[False])
        parts = [
            [torch.cat(column)[: number[kind]] for column in zip(*kept[kind], strict=True)] for kind in (True, False)
        ]
        y, z, w, s, images = (torch.cat(both) for both in zip(*parts, strict=True))
        right = torch.arange(len(y)) < number[True]
        return _Found(y, z, w, s, images, right, drawn, count, count_right, predicted)

    def _lay_out(self, space: Float[Tensor, "M D"], rng: torch.Generator) -> Float[Tensor, "M 2"]:
        """Return the places that t-SNE gives the rows of a space."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=rng))
        if not space.any():
            return torch.zeros(len(space), 2)
        from sklearn.manifold import TSNE

        # A perplexity of more than a third of the others is more neighbours than there are.
        perplexity = min(self.perplexity, (len(space) - 1) / 3)
        init = "pca" if space.shape[1] > 1 else "random"
        places = TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(space.numpy())
        return torch.from_numpy(places).float()


@final
@dataclass(frozen=True)
class _Found:
    """Samples of both kinds, the rightly classified ones first, and of how many they are."""

    y: Int[Tensor, " N"]
    z: Float[Tensor, "N D"]
    w: Float[Tensor, "N V"]
    s: Float[Tensor, "N S"]
    images: UInt8[Tensor, "N C H W"]
    right: Bool[Tensor, " N"]
    drawn: int
    count: Int[Tensor, " K"]
    count_right: Int[Tensor, " K"]
    predicted: Int[Tensor, " K"]


def _in_turns(labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Return an order in which the labels take turns, the smallest first."""
    turn = torch.empty_like(labels)
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        turn[rows] = torch.arange(len(rows))
    return (turn * (1 + labels.max()) + labels).argsort() if len(labels) else turn
