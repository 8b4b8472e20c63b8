"""Walking along the influential style dimensions of a run: where one starts, and what one sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import DataError, GeneratorError
from failscape.explain import StyleInfluenceResult
from failscape.explain.style_population import require_class_styles, sample_styles
from failscape.generators import StyleGenerator
from failscape.report.run import Run, Step
from failscape.study.config import ImagesConfig
from failscape.study.inputs import load_labelled
from failscape.web.networks import Networks
from failscape.web.pictures import eight_bit

# Deviations of a style to either side.
REACH = 12.0

StartKind = Literal["sample", "mean", "real"]
_MEAN_SAMPLES = 256


@final
@dataclass(frozen=True, kw_only=True)
class Direction:
    """One influential style dimension.

    Attributes:
        dimension: the style.
        id: its name in tables.
        layer: where it acts.
        description: what moving along it changes in a picture.
        unit: one deviation of the style, signed so that moving along it is what the description says.
    """

    dimension: int
    id: str
    layer: str
    description: str
    unit: float


@final
@dataclass(frozen=True, kw_only=True)
class Start:
    """Where one begins to walk.

    Attributes:
        s: styles.
        noise: noise maps.
        y: its true class: the one asked for, or the label.
    """

    s: Float[Tensor, "1 S"]
    noise: Float[Tensor, "1 P"]
    y: int


@final
@dataclass(frozen=True, kw_only=True)
class View:
    """What one sees.

    Attributes:
        x: the image, 8-bit values.
        s: its styles.
        noise: its noise maps.
        probs: of the classifier, then of the oracle if there is one.
        y: its true class.
    """

    x: Float[Tensor, "1 C H W"]
    s: Float[Tensor, "1 S"]
    noise: Float[Tensor, "1 P"]
    probs: Sequence[Float[Tensor, "1 K"]]
    y: int


def influence_step(run: Run) -> tuple[Step, StyleInfluenceResult] | None:
    """Return the last step that measured the influence of styles."""
    found = [(step, step.result) for step in run.steps if isinstance(step.result, StyleInfluenceResult)]
    return found[-1] if found else None


def directions_of(result: StyleInfluenceResult) -> list[Direction]:
    """Return the dimensions that a result names, of largest effect first."""
    return [
        Direction(
            dimension=d,
            id=result.ids[d],
            layer=result.layers[d],
            description=description,
            unit=float(result.spread[d]) * (-1.0 if shift < 0 else 1.0),
        )
        for d, shift, description in zip(result.shown.tolist(), result.shift.tolist(), result.descriptions, strict=True)
    ]


@final
class Walk:
    """The networks and dimensions of a step.

    Args:
        step: measured the influence of styles.
        result: what it found.
        networks: of the runs.

    Raises:
        FailscapeError: if a network cannot be loaded, or has no styles.
    """

    def __init__(self, step: Step, result: StyleInfluenceResult, networks: Networks) -> None:
        self.record = step.record
        self.classifier = networks.classifier(str(step.record["classifier"]))
        self.oracle = networks.classifier(str(step.record["oracle"])) if step.record.get("oracle") else None
        generator = networks.generator(str(step.record["generator"]))
        self.generator = require_class_styles(generator, self.classifier, "walking along styles")
        self.directions = directions_of(result)

    def start(self, kind: StartKind, value: str) -> Start:
        """Return where a walk begins.

        Args:
            kind: a sample, the mean of a class, or a real image.
            value: the number of the sample, the number of the class, or the id of the image.

        Raises:
            GeneratorError: if the value is no number of a sample or of a class that the generator has seen.
            DataError: if the run's images have none of that id.
        """
        if kind == "sample":
            return _sample(self.generator, _number(value, 2**31 - 1, "the number of a sample"))
        if kind == "mean":
            return _mean(self.generator, _number(value, self.classifier.num_classes - 1, "the number of a class"))
        return _real(self.generator, self.classifier, str(self.record["images"]), value)

    @torch.no_grad()
    def view(self, start: Start, moves: Mapping[int, float]) -> View:
        """Return what one sees after moving along directions, by their place in the list, in deviations."""
        s = start.s.clone()
        for place, deviations in moves.items():
            if not 0 <= place < len(self.directions):
                raise GeneratorError(
                    f"Expected a direction from 0 to {len(self.directions) - 1}, but got {place}. Load the page again."
                )
            s[:, self.directions[place].dimension] += deviations * self.directions[place].unit
        x = eight_bit(self.generator.synthesize(s, start.noise))
        judges = [judge.probs(x) for judge in (self.classifier, self.oracle) if judge is not None]
        return View(x=x, s=s, noise=start.noise, probs=judges, y=start.y)


def _number(value: str, largest: int, what: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > 10 or int(value) > largest:
        raise GeneratorError(f"Expected {what} from 0 to {largest:,}, but got something else. Choose another.")
    return int(value)


@lru_cache(maxsize=128)
def _sample(generator: StyleGenerator, number: int) -> Start:
    drawn = sample_styles(generator, 1, rng=torch.Generator().manual_seed(number))
    return Start(s=drawn.s, noise=drawn.noise, y=int(drawn.y))


@lru_cache(maxsize=128)
def _mean(generator: StyleGenerator, label: int) -> Start:
    space = generator.condition_space
    assert space is not None, "checked when the walk began"
    if label not in space.classes.tolist():
        raise GeneratorError("Expected a class that the generator has seen, but got another. Choose another.")
    y = torch.full((_MEAN_SAMPLES,), label)
    drawn = sample_styles(generator, len(y), rng=torch.Generator().manual_seed(0), y=y)
    return Start(s=drawn.s.mean(dim=0, keepdim=True), noise=generator.shared_noise(), y=label)


@lru_cache(maxsize=128)
@torch.no_grad()
def _real(generator: StyleGenerator, classifier: Classifier, spec: str, name: str) -> Start:
    images, places = _images(spec, classifier)
    row = places.get(name)
    if row is None:
        raise DataError(
            f"Expected the id of one of {len(images):,} images, such as {images.ids[0]}, but there is none of that "
            "name. Copy one from a table of the run."
        )
    x = images.read(torch.tensor([row]))
    space = generator.condition_space
    assert space is not None, "checked when the walk began"
    # As in `RealDirections`: asked for what the classifier sees, so that the start is what it judges.
    condition = space.of_classes(classifier.probs(x).argmax(dim=1))
    s = generator.styles(generator.mapping(generator.encode(x), condition))
    return Start(s=s, noise=generator.shared_noise(), y=int(images.y[row]))


@lru_cache(maxsize=4)
def _images(spec: str, classifier: Classifier) -> tuple[ImageSet, Mapping[str, int]]:
    images = load_labelled(ImagesConfig(spec=spec), classifier)
    return images, {name: row for row, name in enumerate(images.ids)}
