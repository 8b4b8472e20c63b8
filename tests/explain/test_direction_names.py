from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import ttest_1samp
from torch import Tensor

from failscape import load_generator
from failscape.errors import DataError, GeneratorError, MetricError
from failscape.explain import to_8_bits
from failscape.explain.direction_names import name_directions
from failscape.explain.style_population import StyleSamples, images_of, sample_styles
from failscape.generators import Condition, ConditionSpace, StyleGenerator, StyleLayer, require_styles
from failscape.metrics import MEASUREMENTS, Measurement
from metrics.strokes import bar

# Styles of the planted generator.
NOISE, RIGHT, LEVEL, GROUND, DEAD, EITHER_WAY, ERASE = range(7)
_WIDTH, _SIDE = 5, 28


class Bars(StyleGenerator):
    """Draws a grey bar on a darker ground, with styles each of which changes one thing.

    The bar moves right by one pixel a unit of `RIGHT`. `LEVEL` and `GROUND` are added to the grey of the bar, 0.7, and
    of everything, 0.2 without; `NOISE` times the noise maps to every pixel. `EITHER_WAY` moves the bar up in pictures
    of class 0 and down in those of class 1. `ERASE` takes the bar away.
    """

    family: ClassVar[str] = "bars"

    def __init__(self) -> None:
        super().__init__()
        self.config, self.latent_dim, self.image_shape, self.noise_dim = {}, 7, (1, _SIDE, _SIDE), _SIDE**2
        self.style_layers = (StyleLayer(kind="image", start=0, stop=8, resolution=(_SIDE, _SIDE)),)
        self.condition_space = ConditionSpace(num_classes=2, supported=[[0.0, 1.0]] * 2)

    def mapping(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_condition(condition, len(z))
        assert condition is not None
        # Only position, level and ground differ from sample to sample.
        spread = torch.tensor([0, 1, 0.03, 0.02, 1, 0, 0])
        return torch.cat([z * spread + torch.tensor([0.05, 0, 0, 0, 0, 0, 0]), 2.0 * condition.y[:, None] - 1], dim=1)

    def styles(self, w: Tensor) -> Tensor:
        return w

    def synthesize(self, s: Tensor, noise: Tensor | None = None) -> Tensor:
        noise = torch.zeros(1, self.noise_dim) if noise is None else noise
        down = s[:, EITHER_WAY] * s[:, -1]
        bars = torch.stack(
            [bar(_WIDTH, 14, at=at, side=_SIDE) for at in zip(s[:, RIGHT].tolist(), down.tolist(), strict=True)]
        )
        height = (0.5 + s[:, LEVEL]) * (1 - s[:, ERASE])
        grey = 0.2 + s[:, GROUND, None, None] + height[:, None, None] * bars
        return (grey + s[:, NOISE, None, None] * noise.unflatten(1, (_SIDE, _SIDE)))[:, None].clamp(0, 1)

    def draw_noise(self, n: int, *, rng: torch.Generator) -> Tensor:
        return torch.randn(n, self.noise_dim, generator=rng)

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return self.synthesize(self.styles(self.mapping(z, condition)))

    def encode(self, x: Tensor) -> Tensor:
        raise NotImplementedError("no name needs it")


class SpoiltBars(Bars):
    """The same, blurred by as many pixels as `DEAD` lies above 10, and brighter by as much as there is noise."""

    def synthesize(self, s: Tensor, noise: Tensor | None = None) -> Tensor:
        x = (super().synthesize(s, noise) + s[:, NOISE, None, None, None]).clamp(0, 1)
        sigmas = (s[:, DEAD] - 10).clamp_min(0).tolist()
        blurred = [gaussian_filter(image.numpy(), sigma) for image, sigma in zip(x[:, 0], sigmas, strict=True)]
        return torch.from_numpy(np.stack(blurred))[:, None]


@pytest.fixture(scope="module")
def generator() -> Bars:
    return Bars()


@pytest.fixture(scope="module")
def samples(generator: Bars) -> StyleSamples:
    y = torch.arange(40) % 2
    return sample_styles(generator, 40, rng=torch.Generator().manual_seed(0), y=y)


@pytest.mark.parametrize(
    ("dimension", "shift", "text", "name", "change"),
    [
        (NOISE, 0.05, "adds noise (+0.05)", "noise", 0.05),
        (RIGHT, -3, "moves left (−3.0 px)", "horizontal position", -3),
        (LEVEL, -0.2, "lowers the contrast (−0.20)", "contrast", -0.2),
        (GROUND, 0.1, "brightens (+0.10)", "brightness", 0.1),
    ],
)
def test_a_planted_effect_is_told_and_no_other(
    generator: Bars, samples: StyleSamples, dimension: int, shift: float, text: str, name: str, change: float
) -> None:
    (found,) = name_directions(generator, samples, torch.tensor([dimension]), torch.tensor([float(shift)]))
    assert found.text == text
    assert (found.dimension, found.shift) == (dimension, pytest.approx(shift))
    assert [effect.measurement.name for effect in found.effects] == list(MEASUREMENTS)
    (told,) = found.told
    assert told.measurement is MEASUREMENTS[name]
    assert told.change.value == pytest.approx(change, rel=0.03)
    assert told.change.low <= told.change.value <= told.change.high


def test_what_changes_nothing_is_told_as_such(generator: Bars, samples: StyleSamples) -> None:
    dimensions, shifts = torch.tensor([DEAD, NOISE, GROUND]), torch.tensor([50.0, 0.0, 0.0005])
    names = name_directions(generator, samples, dimensions, shifts)
    assert [name.text for name in names] == ["changes nothing that is measured"] * 3
    # The noise maps before and after are the same, so not even the noise has changed.
    for name in names[:2]:
        assert all(effect.change.value == effect.change.low == effect.change.high == 0 for effect in name.effects)


def test_pictures_are_measured_as_they_are_saved(generator: Bars, samples: StyleSamples) -> None:
    seen: list[Tensor] = []

    def measure(x: Tensor) -> Tensor:
        seen.append(x)
        return x.mean(dim=(1, 2, 3))

    recorded = replace(MEASUREMENTS["brightness"], measure=measure)
    name_directions(generator, samples, torch.tensor([GROUND]), torch.tensor([0.1]), measurements={"": recorded})
    before, after = seen
    assert before.shape == after.shape
    assert torch.equal(torch.cat(seen), to_8_bits(torch.cat(seen)))


def test_a_change_that_goes_either_way_is_not_told(generator: Bars, samples: StyleSamples) -> None:
    dimensions, shifts = torch.tensor([EITHER_WAY]), torch.tensor([4.0])
    (name,) = name_directions(generator, samples, dimensions, shifts)
    assert name.text == "changes nothing that is measured"
    for label, text in enumerate(("moves up (−4.0 px)", "moves down (+4.0 px)")):
        (name,) = name_directions(generator, samples[samples.y == label], dimensions, shifts)
        assert name.text == text


def test_intervals_are_those_of_student_corrected_for_all_that_is_looked_at(
    generator: Bars, samples: StyleSamples
) -> None:
    dimensions, shifts = torch.tensor([NOISE, RIGHT]), torch.tensor([0.02, 1.0])
    some = {name: MEASUREMENTS[name] for name in ("noise", "contrast", "slant")}
    names = name_directions(generator, samples, dimensions, shifts, measurements=some)
    before = to_8_bits(images_of(generator, samples.s, samples.noise))
    for name, dimension, shift in zip(names, dimensions.tolist(), shifts.tolist(), strict=True):
        moved = samples.s.clone()
        moved[:, dimension] += shift
        after = to_8_bits(images_of(generator, moved, samples.noise))
        for effect in name.effects:
            changes = (effect.measurement(after) - effect.measurement(before)).double().numpy()
            interval = ttest_1samp(changes, 0).confidence_interval(1 - 0.05 / (3 * 2))
            assert effect.change.value == pytest.approx(changes.mean())
            assert (effect.change.low, effect.change.high) == pytest.approx((interval.low, interval.high))


def test_what_can_no_longer_be_measured_is_not_told(generator: Bars, samples: StyleSamples) -> None:
    (name,) = name_directions(generator, samples, torch.tensor([ERASE]), torch.tensor([1.0]))
    # Without a shape there is no contrast, ink or part; its width and place are undefined, which is no change.
    assert {effect.measurement.name for effect in name.told} == {"contrast", "ink", "parts"}
    effects = {effect.measurement.name: effect for effect in name.effects}
    assert effects["parts"].change.value == -1
    assert effects["stroke width"].change.n == 0
    assert not effects["stroke width"].told


def test_at_most_four_are_told_the_largest_first(generator: Bars, samples: StyleSamples) -> None:
    six = {
        str(smallest): Measurement(
            name=str(smallest),
            unit="",
            measure=lambda x: x.mean(dim=(1, 2, 3)),
            more=f"worth {smallest}",
            less="less",
            digits=1,
            smallest=smallest,
        )
        for smallest in (0.05, 0.01, 0.5, 0.02, 0.03, 0.04)
    }
    (name,) = name_directions(generator, samples, torch.tensor([GROUND]), torch.tensor([0.2]), measurements=six)
    assert name.text == "worth 0.01 (+0.2), worth 0.02 (+0.2), worth 0.03 (+0.2), worth 0.04 (+0.2)"
    assert [effect.told for effect in name.effects] == [True, True, False, True, True, True]


@pytest.mark.parametrize(("dimension", "shift", "first"), [(DEAD, 12.0, "blurs"), (NOISE, 0.25, "adds noise")])
def test_blur_and_grain_are_told_before_what_they_make_of_the_rest(
    samples: StyleSamples, dimension: int, shift: float, first: str
) -> None:
    (name,) = name_directions(SpoiltBars(), samples, torch.tensor([dimension]), torch.tensor([shift]))
    assert name.text.startswith(first)
    tiers = [effect.measurement.tier for effect in name.told]
    assert tiers == sorted(tiers)
    # By its size alone another change would have led.
    assert max((each for each in name.effects if each.told), key=lambda each: each.weight).measurement.tier > 0


def test_own_measurements_take_part(generator: Bars, samples: StyleSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = Measurement(
        name="corner",
        unit="grey levels",
        measure=lambda x: 255 * x[:, 0, 0, 0],
        more="lights the corner",
        less="darkens the corner",
        digits=0,
        smallest=0.1,
    )
    monkeypatch.setitem(MEASUREMENTS, "corner", corner)
    (name,) = name_directions(generator, samples, torch.tensor([GROUND]), torch.tensor([0.2]))
    assert name.text == "brightens (+0.20), lights the corner (+51 grey levels)"


def test_names_of_a_trained_generator_hold_on_other_samples() -> None:
    generator = require_styles(load_generator("embedded:mnist-stylegan2"), "tests")
    first, second = (sample_styles(generator, 32, rng=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    # Styles of the last layer reach every pixel.
    dimensions = torch.arange(generator.style_dim - 2, generator.style_dim)
    shifts = 10 * first.s[:, dimensions].std(dim=0)
    told = [name.told for name in name_directions(generator, first, dimensions, shifts)]
    again = name_directions(generator, second, dimensions, shifts)
    assert sum(map(len, told)) >= 2
    for effects, name in zip(told, again, strict=True):
        fresh = {effect.measurement.name: effect.change for effect in name.effects}
        for effect in effects:
            change = fresh[effect.measurement.name]
            assert change.high >= effect.change.low
            assert change.low <= effect.change.high
            assert change.value * effect.change.value > 0


def test_bad_input_is_refused(generator: Bars, samples: StyleSamples) -> None:
    one, shift = torch.tensor([0]), torch.tensor([1.0])
    with pytest.raises(DataError, match="at least 2 samples to measure a direction on, but got 1"):
        name_directions(generator, samples[:1], one, shift)
    with pytest.raises(MetricError, match="at least one measurement"):
        name_directions(generator, samples, one, shift, measurements={})
    for wrong in (8, -1):
        with pytest.raises(GeneratorError, match=f"dimensions from 0 to 7, but got {wrong}"):
            name_directions(generator, samples, torch.tensor([wrong]), shift)
    with pytest.raises(GeneratorError, match=r"finite shift for each of the 1 dimensions, but got \[nan\]"):
        name_directions(generator, samples, one, torch.tensor([torch.nan]))
    broken = replace(MEASUREMENTS["noise"], measure=lambda x: x.mean())
    with pytest.raises(MetricError, match="one floating-point number an image"):
        name_directions(generator, samples, one, shift, measurements={"noise": broken})


@pytest.mark.usefixtures("as_installed")
def test_as_many_shifts_as_dimensions(generator: Bars, samples: StyleSamples) -> None:
    with pytest.raises(GeneratorError, match="one finite shift for each of the 1 dimensions"):
        name_directions(generator, samples, torch.tensor([0]), torch.tensor([1.0, 2.0]))


def test_no_direction_has_no_name(generator: Bars, samples: StyleSamples) -> None:
    assert name_directions(generator, samples, torch.tensor([], dtype=torch.long), torch.tensor([])) == ()
