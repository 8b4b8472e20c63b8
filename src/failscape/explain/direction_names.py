"""Names for directions in style space: how a picture changes along each, measured on a population and not guessed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.errors import DataError, GeneratorError, MetricError
from failscape.explain.method import to_8_bits
from failscape.explain.style_population import StyleSamples, images_of
from failscape.generators import StyleGenerator
from failscape.metrics import MEASUREMENTS, Estimate, Measurement, mean_by_t

# Effects that a name tells at most.
_TOLD = 4
_LEVEL = 0.05


@final
@dataclass(frozen=True, kw_only=True)
class Effect:
    """What moving along a direction does to one measurement.

    Attributes:
        measurement: what was measured.
        change: mean of the paired changes with its corrected 95 % interval, over the samples that have a value
            before and after; NaN with fewer than two.
        samples: how many were moved.
    """

    measurement: Measurement
    change: Estimate
    samples: int

    @property
    def weight(self) -> float:
        """The size of the change in units of the smallest that is worth telling."""
        return abs(self.change.value) / self.measurement.smallest

    @property
    def told(self) -> bool:
        """Whether it is beyond chance, worth telling, and seen on at least half of the samples."""
        beyond_chance = self.change.low > 0 or self.change.high < 0
        return beyond_chance and self.weight >= 1 and 2 * self.change.n >= self.samples

    def __str__(self) -> str:
        return self.measurement.change(self.change.value)


def told_first(effects: Iterable[Effect], most: int) -> tuple[Effect, ...]:
    """Return the effects that are told: by the tier of what was measured, and in each the largest first."""
    told = (each for each in effects if each.told)
    return tuple(sorted(told, key=lambda each: (each.measurement.tier, -each.weight))[:most])


@final
@dataclass(frozen=True, kw_only=True)
class DirectionName:
    """What moving along a direction changes in the picture.

    Attributes:
        dimension: the style that was moved.
        shift: how far, in its own units.
        effects: of all measurements, in their order.
    """

    dimension: int
    shift: float
    effects: tuple[Effect, ...]

    @property
    def told(self) -> tuple[Effect, ...]:
        """The effects that are told, at most four: noise and sharpness, contrast and brightness, then the shape.

        Among these the largest come first, in units of what is worth telling.
        """
        return told_first(self.effects, _TOLD)

    @property
    def text(self) -> str:
        """The name, such as "adds noise (+0.21), thins the stroke (−0.8 px)"."""
        return ", ".join(map(str, self.told)) or "changes nothing that is measured"


@torch.no_grad()
def name_directions(
    generator: StyleGenerator,
    samples: StyleSamples,
    dimensions: Int[Tensor, " T"],
    shifts: Float[Tensor, " T"],
    *,
    measurements: Mapping[str, Measurement] = MEASUREMENTS,
) -> tuple[DirectionName, ...]:
    r"""Measure how the pictures of samples change as each style dimension is moved by its shift.

    Each sample is drawn before and after with the same noise maps, rounded to 8 bits, and measured. With $\Delta$ the
    changes of the n samples on which a measurement is defined both times, its effect is

    $$\bar\Delta \pm t_{n-1,\,1 - 0.05 / 2 M T} \cdot s_\Delta / \sqrt{n}$$

    where M is the number of measurements and T that of dimensions: with 95 % probability all intervals of the call
    together hold (Bonferroni).

    Args:
        generator: draws the pictures.
        samples: what is moved, as `sample_styles` draws them; 64 are enough for effects that can be seen.
        dimensions: indices of styles.
        shifts: how far each is moved, with its sign, in the style's own units.
        measurements: what is measured, by name.

    Returns:
        A name for each dimension.

    Raises:
        DataError: if there are fewer than 2 samples.
        GeneratorError: if there is no such style, or shifts are not one finite number a dimension.
        MetricError: if there is no measurement, or one does not return a number an image.

    Example:
        >>> samples = sample_styles(generator, 64, rng=torch.Generator().manual_seed(0))
        >>> (name,) = name_directions(generator, samples, torch.tensor([17]), torch.tensor([3.0]))
        >>> name.text
        'adds noise (+0.21), thins the stroke (−0.8 px)'
    """
    _check(generator, samples, dimensions, shifts, measurements)
    known = tuple(measurements.values())
    comparisons = max(1, len(known) * len(dimensions))
    before = _measured(known, images_of(generator, samples.s, samples.noise))
    names = []
    for dimension, shift in zip(dimensions.tolist(), shifts.tolist(), strict=True):
        moved = samples.s.clone()
        moved[:, dimension] += shift
        after = _measured(known, images_of(generator, moved, samples.noise))
        changes = [mean_by_t(new - old, level=1 - _LEVEL / comparisons) for new, old in zip(after, before, strict=True)]
        effects = (
            Effect(measurement=measurement, change=change, samples=len(samples))
            for measurement, change in zip(known, changes, strict=True)
        )
        names.append(DirectionName(dimension=dimension, shift=shift, effects=tuple(effects)))
    return tuple(names)


def _measured(measurements: Sequence[Measurement], x: Float[Tensor, "N C H W"]) -> list[Float[Tensor, " N"]]:
    rounded = to_8_bits(x).cpu()
    return [measurement(rounded).double() for measurement in measurements]


def _check(
    generator: StyleGenerator,
    samples: StyleSamples,
    dimensions: Tensor,
    shifts: Tensor,
    measurements: Mapping[str, Measurement],
) -> None:
    if len(samples) < 2:
        raise DataError(
            f"Expected at least 2 samples to measure a direction on, but got {len(samples)}. `sample_styles` draws "
            "them; 64 are enough for effects that can be seen."
        )
    if not measurements:
        raise MetricError(
            "Expected at least one measurement to name directions by, but got none. failscape.metrics.MEASUREMENTS "
            "has those that come with failscape."
        )
    if len(dimensions) != len(shifts) or not shifts.isfinite().all():
        raise GeneratorError(
            f"Expected one finite shift for each of the {len(dimensions)} dimensions, but got {shifts.tolist()}. Leave "
            "out dimensions that are not to be moved."
        )
    unknown = [d for d in dimensions.tolist() if not 0 <= d < generator.style_dim]
    if unknown:
        raise GeneratorError(
            f"Expected style dimensions from 0 to {generator.style_dim - 1}, but got {unknown[0]}. `style_layers` of "
            "the generator says which there are."
        )
