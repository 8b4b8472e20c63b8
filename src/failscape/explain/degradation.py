"""Degradation: what an image becomes as each influential style dimension moves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, final

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import SCORES, Classifier, classifier_features
from failscape.errors import UnsupportedClassifier, UnsupportedGenerator
from failscape.explain.class_names import class_numbers
from failscape.explain.method import SHARED, Method, Origin, Result, to_8_bits
from failscape.explain.shared_influence import shared_influence
from failscape.explain.style_crossing import centre_probability, cross_half, true_probability
from failscape.explain.style_gradients import Influence, ScoreName, known_score
from failscape.explain.style_population import images_of, left_unsaid, require_class_styles, sample_styles
from failscape.figures import Figure, Finding, Panel, Plot, image_grid
from failscape.generators import Condition, Generator, StyleGenerator, invert
from failscape.metrics import Estimate, mean

_FROM = {"sample": "a sample", "class-mean": "the mean styles", "real": "a real image"}
# A start is one that the classifier gives the true class at least this probability.
_SURE = 0.9
_TRIES = 200
# Of a fully reached shift; the classifier must have fallen to one half there.
_FULL = 1.0

_DEFINITIONS = {
    "starts": "Images that were degraded.",
    "dimensions": "Style dimensions that bring the true class to a probability of 0.50, over all starts.",
    "skipped": "Dimensions of larger effect that were passed over, since by themselves they never do.",
    "miss": "Mean distance of the probability from 0.50 where the whole shift is made. Interval: bootstrap, 95 %.",
    "monotone": "Share of dimensions along which the probability never rises by more than 0.01 up to the whole shift.",
    "id": "Start, dimension and progress.",
    "start": "Number of the start.",
    "true_class": "The class that the start is of.",
    "dimension": "The style dimension that was moved.",
    "direction": "Which way: up or down.",
    "progress": "Part of the shift that brings the true class to 0.50; more than 1 is beyond.",
    "shift": "How far it was moved, in the style's own units.",
    "probability": "The classifier's probability of the true class for the 8-bit picture.",
    "prediction": "What the classifier takes the picture for.",
    "oracle_prediction": "What the oracle takes it for.",
}


@final
@dataclass(frozen=True, kw_only=True)
class DegradationResult(Result):
    """What `Degradation` found; pictures go start after start, dimension after dimension, progress after progress.

    Attributes:
        images: the pictures, 8-bit values in [0, 1].
        ids: a name for each.
        row: number of the start of each picture.
        y: its true class.
        dimension: the style that was moved.
        progress: part of the shift.
        shift: how far, in the style's own units.
        skipped: dimensions passed over for want of effect, of each start.
        sources: what the starts are, in words.
        count: samples of each class in the population from which the effects were measured.
        right: how many of them are classified rightly.
        predicted: how many samples are taken for each class.
        class_names: K names.
    """

    ids: tuple[str, ...]
    row: Int[Tensor, " N"]
    y: Int[Tensor, " N"]
    dimension: Int[Tensor, " N"]
    progress: Float[Tensor, " N"]
    shift: Float[Tensor, " N"]
    skipped: Int[Tensor, " R"]
    sources: tuple[str, ...]
    count: Int[Tensor, " K"]
    right: Int[Tensor, " K"]
    predicted: Int[Tensor, " K"]
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Of starts that were drawn, drawn; of real images, not."""
        return tuple("test" if self._given(number) else "generated" for number in self.row.tolist())

    @property
    def made_from(self) -> tuple[str, ...]:
        """The start of each: the id of a real image, or its number."""
        return tuple(self._given(number) or f"start {number}" for number in self.row.tolist())

    @property
    def probability(self) -> Float[Tensor, " N"]:
        """Probability of the true class for each 8-bit picture."""
        assert self.verification is not None
        return self.verification.probs.gather(1, self.y[:, None])[:, 0]

    def _given(self, number: int) -> str:
        """Return the id of the real image that a start is, "" where it is none."""
        name = self.class_names[int(self.y[self.row == number][0])]
        words = f"{_FROM['real']} of class {name}, "
        return self.sources[number].removeprefix(words) if self.sources[number].startswith(words) else ""

    @property
    def _levels(self) -> Float[Tensor, " F"]:
        """Progress of the pictures along one dimension."""
        levels: Tensor = self.progress.unique()
        return levels

    @property
    def miss(self) -> Estimate:
        """Distance from 0.50 where the whole shift is made."""
        return mean((self.probability[self.progress == _FULL] - 0.5).abs())

    @property
    def summary(self) -> dict[str, float]:
        """How many dimensions, and how nearly each reaches one half."""
        miss = self.miss
        summary = {
            "starts": float(len(self.sources)),
            "dimensions": float((self.progress == _FULL).sum()),
            "skipped": float(self.skipped.sum()),
        }
        if miss.n:
            up_to = int((self._levels <= _FULL).sum())
            falling = self.probability.view(-1, len(self._levels))[:, :up_to].diff(dim=1) <= 0.01
            summary |= miss.named("miss")
            summary["monotone"] = falling.all(dim=1).float().mean().item()
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a picture."""
        assert self.verification is not None
        names = self.class_names
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "start": self.row.numpy(),
            "true_class": pa.array([names[k] for k in self.y.tolist()], pa.string()),
            "dimension": self.dimension.numpy(),
            "direction": pa.array(["up" if shift > 0 else "down" for shift in self.shift.tolist()], pa.string()),
            "progress": self.progress.numpy(),
            "shift": self.shift.numpy(),
            "probability": self.probability.numpy(),
            "prediction": pa.array([names[k] for k in self.verification.prediction.tolist()], pa.string()),
        }
        oracle = self.verification.oracle_prediction
        if oracle is not None:
            columns["oracle_prediction"] = pa.array([names[k] for k in oracle.tolist()], pa.string())
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def findings(self) -> Sequence[Finding]:
        """The first start along its first dimension, and the starts that no dimension brings to one half."""
        missing = " ".join(
            f"None of the {tried} direction{'s' * (tried != 1)} tried brings {self.sources[number]} to one half."
            for number, tried in enumerate(self.skipped.tolist())
            if not self._columns(number)
        )
        if not len(self.row):
            return (Finding(sentence=f"{missing}{self._unsaid}"),)
        rows = range(len(self._levels))
        chosen = [r for r in rows if 0 < float(self.progress[r]) <= _FULL or float(self.progress[r]) == 0][-6:]
        assert self.verification is not None
        beyond = self.class_names[int(self.verification.prediction[len(self._levels) - 1])]
        name = self.class_names[int(self.y[0])]
        sentence = f"One direction is enough to turn a sure {name} into one that it is half unsure of"
        sentence += f", and beyond that into a {beyond}." if beyond != name else "."
        panels = [Panel(label=f"{self.probability[r]:.2f}", pixels=self.images[r]) for r in chosen]
        return (Finding(sentence=f"{sentence}{missing and f' {missing}'}{self._unsaid}", panels=panels),)

    @property
    def _unsaid(self) -> str:
        return left_unsaid(self.count, self.right, self.predicted, self.class_names)

    @property
    def figures(self) -> Sequence[Figure]:
        """A grid for each start: a column a dimension, a row a part of the way."""
        return [
            Plot(
                name=f"grid-{number}",
                title=f"{source[:1].upper()}{source[1:]}, moved along {self._columns(number)} directions",
                caption="A column a style dimension, those of largest effect on this class first; the arrow says "
                "which way it moves. A row a part of the move that brings the true class to a probability of 0.50, "
                "written on the left. Above each picture stands the classifier's probability of the true class, "
                "measured on the 8-bit picture.",
                draw=partial(self._draw_grid, number),
            )
            for number, source in enumerate(self.sources)
            if self._columns(number)
        ]

    def _columns(self, number: int) -> int:
        return int((self.row == number).sum()) // max(1, len(self._levels))

    def _draw_grid(self, number: int) -> Drawing:
        rows = (self.row == number).nonzero()[:, 0].view(self._columns(number), -1).T
        first = rows[-1]
        heads = [
            f"s{d} {'↑' if shift > 0 else '↓'}"
            for d, shift in zip(self.dimension[first].tolist(), self.shift[first].tolist(), strict=True)
        ]
        labels = [f"{value:.2f}" for value in self.probability[rows.flatten()].tolist()]
        # The heads of the columns stand on the first row's labels.
        labels[: len(heads)] = [f"{head}\n{label}" for head, label in zip(heads, labels, strict=False)]
        return image_grid(
            self.images[rows],
            row_labels=[f"{value:.0%}" for value in self.progress[rows[:, 0]].tolist()],
            cell_labels=labels,
        )


@final
class Degradation(Method[DegradationResult]):
    r"""What does the image become as each influential style dimension moves?

    From a start $s_0$ one style at a time moves, all others and the noise at rest, the way that lowers the true
    class's probability; the whole shift of a dimension is the smallest at which the 8-bit image has the probability
    0.50, and the rows of the grid are parts of it. Dimensions come in the order of their effect on the start's class;
    those that never reach 0.50 are passed over and counted.

    Args:
        start: "class-mean" (mean styles of a class), "sample" (a sample that the classifier is sure of), or "real" (an
            image given, correctly classified and sure, as the generator reconstructs it).
        classes: names of the classes to start from, one start each; by default the first that is possible.
        dimensions: columns of the grid.
        progress: parts of the shift, rising from 0; 1 must be among them.
        samples: population from which the effects are measured. In a study this and `score` are those of its
            `StyleInfluence`, unless others are given: dimensions come in the order in which they lead there, unless
            that step is given `gradients` or `difference_samples`.
        score: of the true class, by whose influence dimensions are ranked; as `StyleInfluence` takes it.
        most: dimensions to try at most for one start.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles, or cannot be asked for the classifier's classes, or for
            one to start from.
        UnsupportedClassifier: if the classifier is sure of no start.
        LabelError: if a class is none of the classifier's.

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        AISafety 2022, figure 5.
    """

    result_type: ClassVar[type[DegradationResult]] = DegradationResult
    ranks_over: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        start: Literal["sample", "class-mean", "real"] = "class-mean",
        classes: tuple[str, ...] | None = None,
        dimensions: int = 10,
        progress: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5),
        samples: int = 4000,
        score: ScoreName = "logit-margin",
        most: int = 120,
    ) -> None:
        if start not in _FROM:
            raise ValueError(f"Expected `start` to be one of {', '.join(_FROM)}, but got {start!r}.")
        if list(progress) != sorted(set(progress)) or progress[:1] != (0.0,) or _FULL not in progress:
            got = ", ".join(f"{part:g}" for part in progress) or "nothing"
            raise ValueError(f"Expected rising `progress` from 0 with 1 among it, but got {got}.")
        if dimensions < 1 or samples < 20 or most < dimensions:
            raise ValueError(
                "Expected `dimensions` of at least 1, `most` of at least as many and `samples` of at least 20, but got "
                f"{dimensions}, {most}, {samples}."
            )
        if classes is not None and not classes:
            raise ValueError("Expected `classes` to name at least one class, but got none. Leave it out for any.")
        self.start = start
        self.classes = classes
        self.dimensions = dimensions
        self.progress = progress
        self.samples = samples
        self.score = known_score(score)
        self.most = most

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> DegradationResult:
        """Measure effects, choose starts, and move each along its dimensions."""
        styled = require_class_styles(generator, classifier, "degradation")
        self._check_drawn(classifier, styled)
        influence = shared_influence(
            classifier, styled, self.samples, rng=rng, score=self.score, gradients=classifier.differentiable
        )
        starts = self._starts(classifier, styled, influence, x, y, ids, rng)
        parts: list[tuple[Tensor, ...]] = []
        skipped, names = [], []
        levels = torch.tensor(self.progress)
        for number, (label, s, noise, _) in enumerate(starts):
            dimensions, shifts, passed = self._crossed(classifier, styled, influence, label, s, noise)
            skipped.append(passed)
            for d, shift in zip(dimensions.tolist(), shifts.tolist(), strict=True):
                moved = s.repeat(len(levels), 1)
                moved[:, d] += shift * levels
                full = torch.full((len(levels),), number)
                parts.append(
                    (images_of(styled, moved, noise), full, full * 0 + label, full * 0 + d, levels, shift * levels)
                )
                names += [f"{number}-s{d}-{level:g}" for level in self.progress]
        empty = (torch.empty(0, *styled.image_shape), *(torch.empty(0, dtype=torch.long),) * 3, *(torch.empty(0),) * 2)
        images, row, of, dimension, progress, shift = (
            torch.cat(each) for each in zip(*(parts or [empty]), strict=True)
        )
        return DegradationResult(
            images=images,
            ids=tuple(names),
            row=row,
            y=of,
            dimension=dimension,
            progress=progress,
            shift=shift,
            skipped=torch.tensor(skipped),
            sources=tuple(source for *_, source in starts),
            count=influence.count,
            right=influence.right,
            predicted=influence.predicted,
            class_names=classifier.class_names,
        )

    def _crossed(
        self,
        classifier: Classifier,
        generator: StyleGenerator,
        influence: Influence,
        label: int,
        s: Tensor,
        noise: Tensor | None,
    ) -> tuple[Int[Tensor, " T"], Float[Tensor, " T"], int]:
        """Return the first dimensions that reach one half, their shifts, and how many were passed over."""
        ranking = influence.ranking(label)[: self.most]
        dimensions: list[int] = []
        shifts: list[float] = []
        tried = 0
        for chunk in ranking.split(2 * self.dimensions):
            found = cross_half(classifier, generator, s, noise, label, chunk, influence)
            for d, shift, reached in zip(chunk.tolist(), found.shift.tolist(), found.found.tolist(), strict=True):
                if len(dimensions) == self.dimensions:
                    break
                tried += 1
                if reached:
                    dimensions.append(d)
                    shifts.append(shift)
            if len(dimensions) == self.dimensions:
                break
        return torch.tensor(dimensions, dtype=torch.long), torch.tensor(shifts), tried - len(dimensions)

    def _starts(
        self,
        classifier: Classifier,
        generator: StyleGenerator,
        influence: Influence,
        x: Tensor,
        y: Tensor,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> list[tuple[int, Tensor, Tensor | None, str]]:
        """Return of each start its class, styles, noise maps (None: the shared ones), and what it is in words."""
        labels, any_one = self._labels(classifier, influence)
        starts = []
        for label in labels:
            found = {
                "class-mean": lambda k: _class_mean(classifier, generator, influence, k),
                "sample": lambda k: _sample(classifier, generator, k, rng),
                "real": lambda k: _real(classifier, generator, x, y, k),
            }[self.start](label)
            name = classifier.class_names[label]
            if found is not None:
                s, noise, row = found
                source = f"{_FROM[self.start]} of class {name}"
                starts.append((label, s, noise, source if row is None else f"{source}, {ids[row]}"))
                if any_one:
                    break
            elif not any_one:
                raise UnsupportedClassifier(
                    f"Expected {_FROM[self.start]} of class {name} that {classifier.name} is sure of, at least "
                    f"{_SURE:.0%}, but found none. Choose another class or another `start`."
                )
        if not starts:
            raise UnsupportedClassifier(
                f"Expected {_FROM[self.start]} that {classifier.name} is sure of, at least {_SURE:.0%}, but found none "
                "of any class. Choose another `start`, or look at the classifier's accuracy first."
            )
        return starts

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse `classes` that the classifier does not know."""
        class_numbers(self.classes or (), class_names, setting="classes")

    def _check_drawn(self, classifier: Classifier, generator: StyleGenerator) -> None:
        """Refuse `classes` of which there will be no sample: along which styles such a one is lost cannot be told."""
        space = generator.condition_space
        assert space is not None, "checked at the border"
        names, classes = classifier.class_names, space.classes.tolist()
        for label in class_numbers(self.classes or (), names, setting="classes"):
            if label not in classes:
                raise UnsupportedGenerator(
                    f"Expected `classes` that the generator can be asked for, "
                    f"{', '.join(names[k] for k in classes)}, but got {names[label]}. Choose among them."
                )

    def _labels(self, classifier: Classifier, influence: Influence) -> tuple[list[int], bool]:
        """Return the classes to start from, and whether one of them is enough."""
        if self.classes is None:
            return (influence.count > 0).nonzero()[:, 0].tolist(), True
        return class_numbers(self.classes, classifier.class_names, setting="classes"), False


_Found = tuple[Tensor, Tensor | None, int | None]


def _class_mean(classifier: Classifier, generator: StyleGenerator, influence: Influence, label: int) -> _Found | None:
    sure = centre_probability(classifier, generator, influence, label) >= _SURE
    return (influence.centre[label], None, None) if sure else None


def _sample(classifier: Classifier, generator: StyleGenerator, label: int, rng: torch.Generator) -> _Found | None:
    samples = sample_styles(generator, _TRIES, rng=rng, y=torch.full((_TRIES,), label))
    probs = true_probability(classifier, images_of(generator, samples.s, samples.noise), label)
    # The surest: others may be hardly a digit from the start.
    row = int(probs.argmax())
    if probs[row] < _SURE:
        return None
    return samples.s[row], samples.noise[row : row + 1], None


def _real(classifier: Classifier, generator: StyleGenerator, x: Tensor, y: Tensor, label: int) -> _Found | None:
    """Return the first sure image of a class whose reconstruction is sure of that class, too."""

    def seen(images: Tensor) -> Tensor:
        return classifier_features(classifier, images)[0].cpu()

    rows = (y == label).nonzero()[:_TRIES, 0]
    space = generator.condition_space
    assert space is not None, "checked at the border"
    for row in rows.tolist():
        with torch.no_grad():
            logits = classifier(to_8_bits(x[row : row + 1])).cpu()
        if logits.softmax(dim=1)[0, label] < _SURE:
            continue
        score = SCORES[space.score].of(logits, y[row : row + 1]).clamp(1e-6, 1)
        s = invert(
            generator,
            x[row : row + 1],
            Condition(y=y[row : row + 1], score=score),
            features=seen if classifier.differentiable else None,
        ).s
        if float(true_probability(classifier, images_of(generator, s), label)) >= _SURE:
            return s[0], None, row
    return None
