"""Corner cases: the smallest move in style space that makes the classifier lose the true class."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.corner_result import BEYOND, TRIPLE, WITHIN, CornerCasesResult
from failscape.explain.direction_names import name_directions
from failscape.explain.joint_cases import JointCases, joint_cases
from failscape.explain.method import Method, to_8_bits
from failscape.explain.shared_influence import shared_influence
from failscape.explain.style_crossing import HALF, centre_probability, cross_half
from failscape.explain.style_gradients import Influence, ScoreName, known_score
from failscape.explain.style_population import images_of, layer_name, require_class_styles, sample_styles
from failscape.generators import Generator, StyleGenerator

# Dimensions tried at once, down the ranking: twice as many as are wanted, and so many at most.
_CHUNK = 16
_NAMED = 48
# Below this a style does not vary within a class, and no move can be told in its deviations.
_STILL = 1e-6


@final
@dataclass
class _Found:
    """Corner cases of one class by single dimensions, and those that gave none with the lowest probability met."""

    dimensions: list[int] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    falls: list[float] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    lowest: list[float] = field(default_factory=list)


@final
class CornerCases(Method[CornerCasesResult]):
    r"""What is the smallest move that makes the classifier lose the true class?

    *By single dimensions*: from the mean styles of each class, down the ranking of the dimensions by their effect on
    that class, each dimension is moved by itself, both ways, to the smallest shift at which the 8-bit image has the
    probability 0.50 of the true class (coarse scan, then bisection, then a look past a jump), until as many as asked
    for are found. A case lies *within* the values that were observed for its dimension in the population, within *three
    times* their range, or *beyond*. Dimensions that give no case are kept with the lowest probability that was met
    along them; those that nowhere lower it by 0.01 are without effect.

    *Joint*: over all dimensions at once, from the class means or from samples, the smallest perturbation in units of
    each style's deviation, $\min \|\epsilon\|$ so that $p_y(g(s_0 + \sigma \epsilon)) \leq 0.5$, by
    `failscape.search.minimal_norm`, then bisection and the same look past a jump. With starts drawn from the
    population there are as many as are wanted, unless the classifier gets too few samples right; then the result says
    how many are missing.

    The images given are not used; the population is the generator's.

    Args:
        per_class: corner cases by single dimensions to find for each class.
        joint: joint corner cases for each class, none for a classifier without gradients; the first starts from the
            class's mean styles, the others from samples that the classifier gets right.
        samples: population from which effects and ranges are measured. In a study this and `score` are those of its
            `StyleInfluence`, unless others are given: cases are found down the ranking that leads there, unless that
            step is given `gradients` or `difference_samples`.
        score: of the true class, by whose influence dimensions are ranked; as `StyleInfluence` takes it.
        steps: of the search for joint cases.
        most: dimensions to try at most for one class; by default all.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles, or cannot be asked for the classifier's classes.

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        AISafety 2022, sections 2.3 and 3.4, figure 7.
    """

    result_type: ClassVar[type[CornerCasesResult]] = CornerCasesResult
    ranks_over: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        per_class: int = 10,
        joint: int = 5,
        samples: int = 10_000,
        score: ScoreName = "logit-margin",
        steps: int = 16,
        most: int | None = None,
    ) -> None:
        if per_class < 0 or joint < 0 or per_class + joint < 1 or samples < 20 or steps < 1 or (most or 1) < 1:
            raise ValueError(
                "Expected `per_class` and `joint` of at least 0, one of them more, `steps` and `most` of at least 1 "
                f"and `samples` of at least 20, but got {per_class}, {joint}, {steps}, {most}, {samples}."
            )
        self.per_class = per_class
        self.joint = joint
        self.samples = samples
        self.score = known_score(score)
        self.steps = steps
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
    ) -> CornerCasesResult:
        """Measure effects and ranges, then find the cases class after class."""
        styled = require_class_styles(generator, classifier, "corner cases")
        # A search over all dimensions needs gradients, single dimensions do not.
        joint = self.joint if classifier.differentiable else 0
        influence = shared_influence(
            classifier, styled, self.samples, rng=rng, score=self.score, gradients=classifier.differentiable
        )
        cases = _Cases(styled, influence, classifier)
        for label in (influence.count > 0).nonzero()[:, 0].tolist():
            if not cases.add_start(label):
                continue
            if self.per_class:
                cases.add_single(label, self._single(classifier, styled, influence, label), rng)
            if joint:
                found = joint_cases(classifier, styled, influence, label, joint, steps=self.steps, rng=rng)
                cases.add_joint(label, found)
        return cases.result(asked=self.per_class, asked_joint=self.joint)

    def _single(self, classifier: Classifier, generator: StyleGenerator, influence: Influence, label: int) -> _Found:
        """Go down the ranking until there are enough."""
        found = _Found()
        centre = influence.centre[label]
        for chunk in influence.ranking(label)[: self.most].split(min(_CHUNK, 2 * self.per_class)):
            crossings = cross_half(classifier, generator, centre, None, label, chunk, influence)
            for d, shift, fall, reached, lowest in zip(
                chunk.tolist(),
                crossings.shift.tolist(),
                crossings.fall.tolist(),
                crossings.found.tolist(),
                crossings.lowest.tolist(),
                strict=True,
            ):
                if len(found.dimensions) == self.per_class:
                    return found
                if reached:
                    found.dimensions.append(d)
                    found.shifts.append(shift)
                    found.falls.append(fall)
                else:
                    found.passed.append(d)
                    found.lowest.append(lowest)
        return found


class _Cases:
    """Corner cases as they are found, and the result that they make."""

    def __init__(self, generator: StyleGenerator, influence: Influence, classifier: Classifier) -> None:
        self._generator = generator
        self._influence = influence
        self._classifier = classifier
        self._images: list[Tensor] = []
        self._originals: list[Tensor] = []
        self._styles: list[Tensor] = []
        self._starts: list[Tensor] = []
        self._noise: list[Tensor] = []
        self._rows: list[tuple[int, int, float, int, float]] = []
        self._descriptions: list[str] = []
        self._passed: list[tuple[int, int, float, float]] = []
        self._labels: list[int] = []
        self._probabilities: list[float] = []
        self._without: list[str] = []

    def add_start(self, label: int) -> bool:
        """Take note of a class; false if its mean picture is at one half or below already, so nothing can be lost."""
        probability = centre_probability(self._classifier, self._generator, self._influence, label)
        if probability <= HALF:
            self._without.append(self._classifier.class_names[label])
            return False
        self._labels.append(label)
        self._probabilities.append(probability)
        return True

    def add_single(self, label: int, found: _Found, rng: torch.Generator) -> None:
        """Add cases of single dimensions, with their names as measured on samples of the class."""
        before = self._probabilities[-1]
        self._passed += [(label, d, before, low) for d, low in zip(found.passed, found.lowest, strict=True)]
        if not found.dimensions:
            return
        dimensions, shifts = torch.tensor(found.dimensions), torch.tensor(found.shifts)
        centre = self._influence.centre[label]
        moved = centre.repeat(len(dimensions), 1)
        moved[torch.arange(len(dimensions)), dimensions] += shifts
        self._add(centre.expand_as(moved), moved, self._generator.shared_noise())
        samples = sample_styles(self._generator, _NAMED, rng=rng, y=torch.full((_NAMED,), label))
        names = name_directions(self._generator, samples, dimensions, shifts)
        self._descriptions += [name.text for name in names]
        for d, shift, fall in zip(found.dimensions, found.shifts, found.falls, strict=True):
            self._rows.append((label, d, shift, self._place(d, float(centre[d]) + shift), fall))

    def add_joint(self, label: int, found: JointCases) -> None:
        """Add joint cases."""
        if not len(found):
            return
        start, move = found.starts, found.moves
        self._add(start, start + move, found.noise)
        self._descriptions += [""] * len(move)
        places = (start + move - self._influence.middle).abs() / self._influence.half_range
        for norm, farthest in zip(
            (move / self._influence.spread.clamp_min(1e-6)).norm(dim=1).tolist(),
            places.amax(dim=1).tolist(),
            strict=True,
        ):
            self._rows.append((label, -1, norm, place_of(farthest), math.nan))

    def result(self, *, asked: int, asked_joint: int) -> CornerCasesResult:
        """Put all together; so many were asked for of each class, by single dimensions and by all at once."""
        generator = self._generator
        empty, styles = torch.empty(0, *generator.image_shape), torch.empty(0, generator.style_dim)
        noise = torch.empty(0, generator.noise_dim)
        columns = list(zip(*self._rows, strict=True)) or [(), (), (), (), ()]
        passed = list(zip(*self._passed, strict=True)) or [(), (), (), ()]
        dimension = torch.tensor(columns[1], dtype=torch.long)
        return CornerCasesResult(
            images=torch.cat([empty, *self._images]),
            originals=torch.cat([empty, *self._originals]),
            ids=tuple(
                f"{index:04d}-{self._classifier.class_names[label]}-{'joint' if d < 0 else f's{d}'}"
                for index, (label, d, *_) in enumerate(self._rows)
            ),
            y=torch.tensor(columns[0], dtype=torch.long),
            dimension=dimension,
            move=torch.tensor(columns[2], dtype=torch.float32),
            deviations=torch.tensor(
                [move if d < 0 else self._in_deviations(d, move) for _, d, move, *_ in self._rows], dtype=torch.float32
            ),
            place=torch.tensor(columns[3], dtype=torch.long),
            fall=torch.tensor(columns[4], dtype=torch.float32),
            before=self._before(),
            styles=torch.cat([styles, *self._styles]),
            starts=torch.cat([styles, *self._starts]),
            noise=torch.cat([noise, *self._noise]),
            layers=tuple("all" if d < 0 else layer_name(generator, d) for d in dimension.tolist()),
            descriptions=tuple(self._descriptions),
            classes=torch.tensor(self._labels, dtype=torch.long),
            passed_y=torch.tensor(passed[0], dtype=torch.long),
            passed_dimension=torch.tensor(passed[1], dtype=torch.long),
            passed_layers=tuple(layer_name(generator, d) for _, d, *_ in self._passed),
            passed_before=torch.tensor(passed[2], dtype=torch.float32),
            passed_lowest=torch.tensor(passed[3], dtype=torch.float32),
            without=tuple(self._without),
            asked=asked,
            asked_joint=asked_joint,
            gradients_missing=int(asked_joint > 0 and not self._classifier.differentiable),
            class_names=self._classifier.class_names,
        )

    def _add(self, start: Tensor, moved: Tensor, noise: Tensor) -> None:
        self._originals.append(images_of(self._generator, start, noise))
        self._images.append(images_of(self._generator, moved, noise))
        self._starts.append(start)
        self._styles.append(moved)
        self._noise.append(noise.expand(len(moved), -1))

    def _before(self) -> Float[Tensor, " N"]:
        if not self._originals:
            return torch.empty(0)
        probs = self._classifier.probs(to_8_bits(torch.cat(self._originals)))
        return probs.gather(1, torch.tensor([label for label, *_ in self._rows])[:, None])[:, 0]

    def _in_deviations(self, d: int, move: float) -> float:
        spread = float(self._influence.spread[d])
        return move / spread if spread > _STILL else math.nan

    def _place(self, d: int, value: float) -> int:
        return place_of(abs(value - float(self._influence.middle[d])) / float(self._influence.half_range[d]))


def place_of(half_ranges: float) -> int:
    """Return where a value lies that is so many half ranges from the middle of the observed ones."""
    return WITHIN if half_ranges <= 1 else TRIPLE if half_ranges <= 3 else BEYOND
