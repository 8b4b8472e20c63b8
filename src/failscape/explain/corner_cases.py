"""Corner cases: the smallest move in style space that makes the classifier lose the true class."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.classifiers.uncertainty import class_logit
from failscape.explain.corner_result import BEYOND, TRIPLE, WITHIN, CornerCasesResult
from failscape.explain.direction_names import name_directions
from failscape.explain.method import Method, to_8_bits, to_8_bits_with_gradient
from failscape.explain.style_crossing import HALF, centre_probability, cross_half, true_probability
from failscape.explain.style_gradients import Influence, influence_for
from failscape.explain.style_population import images_of, layer_name, require_class_styles, sample_styles
from failscape.generators import Generator, StyleGenerator
from failscape.search import first_crossing, minimal_norm

# A dimension that lowers the probability by less, wherever it is moved, has no effect.
_NO_EFFECT = 0.01
# Dimensions tried at once, down the ranking: twice as many as are wanted, and so many at most.
_CHUNK = 16
_NAMED = 48
_BISECTIONS = 20


@final
@dataclass
class _Found:
    """Corner cases of one class by single dimensions, and what was met on the way."""

    dimensions: list[int]
    shifts: list[float]
    tried: int = 0
    without_effect: int = 0
    not_reached: int = 0


@final
class CornerCases(Method[CornerCasesResult]):
    r"""What is the smallest move that makes the classifier lose the true class?

    *By single dimensions*: from the mean styles of each class, down the ranking of the dimensions by their effect on
    that class, each dimension is moved by itself, both ways, to the smallest shift at which the 8-bit image has the
    probability 0.50 of the true class (coarse scan, then bisection), until as many as asked for are found. A case lies
    *within* the values that were observed for its dimension in the population, within *three times* their range, or
    *beyond*. Dimensions that nowhere lower the probability by 0.01 are counted as without effect.

    *Joint*: over all dimensions at once, from the class means or from samples, the smallest perturbation in units of
    each style's deviation, $\min \|\epsilon\|$ so that $p_y(g(s_0 + \sigma \epsilon)) \leq 0.5$, by
    `failscape.search.minimal_norm`. With starts drawn from the population there are as many as are wanted.

    The images given are not used; the population is the generator's.

    Args:
        per_class: corner cases by single dimensions to find for each class.
        joint: joint corner cases for each class, none for a classifier without gradients; the first starts from the
            class's mean styles, the others from samples that the classifier gets right.
        samples: population from which effects and ranges are measured.
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

    def __init__(
        self,
        *,
        per_class: int = 10,
        joint: int = 5,
        samples: int = 10_000,
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
        influence = influence_for(classifier, styled, self.samples, rng=rng)
        cases = _Cases(styled, influence, classifier)
        for label in (influence.count > 0).nonzero()[:, 0].tolist():
            if not cases.add_start(label):
                continue
            if self.per_class:
                cases.add_single(label, self._single(classifier, styled, influence, label), rng)
            if joint:
                cases.add_joint(label, self._joint(classifier, styled, influence, label, rng))
        return cases.result(sought=self.joint > 0 and joint == 0)

    def _single(self, classifier: Classifier, generator: StyleGenerator, influence: Influence, label: int) -> _Found:
        """Go down the ranking until there are enough."""
        found = _Found(dimensions=[], shifts=[])
        centre = influence.centre[label]
        start = centre_probability(classifier, generator, influence, label)
        for chunk in influence.ranking(label)[: self.most].split(min(_CHUNK, 2 * self.per_class)):
            crossings = cross_half(classifier, generator, centre, None, label, chunk, influence)
            for d, shift, reached, lowest in zip(
                chunk.tolist(),
                crossings.shift.tolist(),
                crossings.found.tolist(),
                crossings.lowest.tolist(),
                strict=True,
            ):
                if len(found.dimensions) == self.per_class:
                    return found
                found.tried += 1
                if reached:
                    found.dimensions.append(d)
                    found.shifts.append(shift)
                elif start - lowest < _NO_EFFECT:
                    found.without_effect += 1
                else:
                    found.not_reached += 1
        return found

    def _joint(
        self, classifier: Classifier, generator: StyleGenerator, influence: Influence, label: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return starts, noise maps and the smallest perturbations found from them, in the styles' own units."""
        s, noise = _starts(classifier, generator, influence, label, self.joint, rng)
        spread = influence.spread
        others = [k for k in (influence.count > 0).nonzero()[:, 0].tolist() if k != label]
        # Toward the other classes the true one is lost for certain, if anywhere.
        ways = [(influence.centre[k] - s) / spread.clamp_min(1e-6) for k in others]
        candidates = torch.stack(ways, dim=1) if ways else s.new_zeros(len(s), 1, s.shape[1])

        def score(epsilon: Tensor, rows: Tensor) -> Tensor:
            x = generator.synthesize(s[rows] + epsilon * spread, noise[rows])
            logits = classifier(to_8_bits_with_gradient(x)).cpu()
            return -class_logit(logits, torch.full((len(rows),), label))

        best = minimal_norm(score, candidates, rng=rng, starts=2, steps=self.steps)
        # From the start to the best, to where the probability is one half and not merely below.
        line = first_crossing(score, best.epsilon, torch.arange(len(s)), scan=8, bisections=_BISECTIONS)
        epsilon = torch.where(line.found[:, None], line.inside, torch.nan)
        return s, noise, epsilon * spread


def _starts(
    classifier: Classifier, generator: StyleGenerator, influence: Influence, label: int, n: int, rng: torch.Generator
) -> tuple[Float[Tensor, "N S"], Float[Tensor, "N P"]]:
    """Return the mean styles of a class with the shared noise, and then samples that are classified rightly."""
    centre = influence.centre[label][None]
    styles, noises, wanted = [centre], [generator.shared_noise()], n - 1
    for _ in range(20):
        if wanted <= 0:
            break
        samples = sample_styles(generator, 2 * wanted + 8, rng=rng, y=torch.full((2 * wanted + 8,), label))
        right = true_probability(classifier, images_of(generator, samples.s, samples.noise), label) > HALF
        rows = right.nonzero()[:wanted, 0]
        styles.append(samples.s[rows])
        noises.append(samples.noise[rows])
        wanted -= len(rows)
    return torch.cat(styles)[:n], torch.cat(noises)[:n]


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
        self._rows: list[tuple[int, int, float, int]] = []
        self._descriptions: list[str] = []
        self._tried: list[tuple[int, int, int]] = []
        self._labels: list[int] = []
        self._without: list[str] = []

    def add_start(self, label: int) -> bool:
        """Take note of a class; false if the mean digit of it is none to the classifier, so nothing can be lost."""
        if centre_probability(self._classifier, self._generator, self._influence, label) <= HALF:
            self._without.append(self._classifier.class_names[label])
            return False
        self._labels.append(label)
        self._tried.append((0, 0, 0))
        return True

    def add_single(self, label: int, found: _Found, rng: torch.Generator) -> None:
        """Add cases of single dimensions, with their names as measured on samples of the class."""
        self._tried[-1] = (found.tried, found.without_effect, found.not_reached)
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
        for d, shift in zip(found.dimensions, found.shifts, strict=True):
            self._rows.append((label, d, shift, self._place(d, float(centre[d]) + shift)))

    def add_joint(self, label: int, found: tuple[Tensor, Tensor, Tensor]) -> None:
        """Add joint cases; those that were not found are left out."""
        start, noise, move = found
        rows = move.isfinite().all(dim=1)
        start, noise, move = start[rows], noise[rows], move[rows]
        if not len(move):
            return
        self._add(start, start + move, noise)
        self._descriptions += [""] * len(move)
        places = (start + move - self._influence.middle).abs() / self._influence.half_range
        for norm, farthest in zip(
            (move / self._influence.spread.clamp_min(1e-6)).norm(dim=1).tolist(),
            places.amax(dim=1).tolist(),
            strict=True,
        ):
            self._rows.append((label, -1, norm, place_of(farthest)))

    def result(self, *, sought: bool) -> CornerCasesResult:
        """Put all together."""
        generator = self._generator
        empty, styles = torch.empty(0, *generator.image_shape), torch.empty(0, generator.style_dim)
        noise = torch.empty(0, generator.noise_dim)
        columns = list(zip(*self._rows, strict=True)) or [(), (), (), ()]
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
                [move if d < 0 else move / max(1e-6, float(self._influence.spread[d])) for _, d, move, _ in self._rows]
            ),
            place=torch.tensor(columns[3], dtype=torch.long),
            before=self._before(),
            styles=torch.cat([styles, *self._styles]),
            starts=torch.cat([styles, *self._starts]),
            noise=torch.cat([noise, *self._noise]),
            layers=tuple("all" if d < 0 else layer_name(generator, d) for d in dimension.tolist()),
            descriptions=tuple(self._descriptions),
            classes=torch.tensor(self._labels, dtype=torch.long),
            tried=torch.tensor(self._tried, dtype=torch.long).view(-1, 3),
            without=tuple(self._without),
            gradients_missing=int(sought),
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

    def _place(self, d: int, value: float) -> int:
        return place_of(abs(value - float(self._influence.middle[d])) / float(self._influence.half_range[d]))


def place_of(half_ranges: float) -> int:
    """Return where a value lies that is so many half ranges from the middle of the observed ones."""
    return WITHIN if half_ranges <= 1 else TRIPLE if half_ranges <= 3 else BEYOND
