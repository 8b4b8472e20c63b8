from dataclasses import replace

import pytest
import torch
from planted_styles import DEAD, HARM, HARMLESS, SCALE, PlantedStyles, misled_beyond

from failscape.classifiers import Classifier
from failscape.explain.method import to_8_bits
from failscape.explain.style_crossing import cross_half, true_probability
from failscape.explain.style_gradients import Influence, measure_influence
from failscape.explain.style_population import images_of

GENERATOR, CLASSIFIER = PlantedStyles(), misled_beyond(1.5)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def influence() -> Influence:
    return measure_influence(CLASSIFIER, GENERATOR, 900, rng=rng())


def test_the_harmful_style_crosses_where_it_is_known_to(influence: Influence) -> None:
    start = influence.centre[0]
    found = cross_half(CLASSIFIER, GENERATOR, start, None, 0, torch.tensor([HARM]), influence)
    assert found.found.tolist() == [True]
    # Three classes: one half is a little before the margin is lost. A grey value is 0.04 units of harm.
    harm = float((start[HARM] + found.shift[0]) / SCALE[HARM])
    assert harm == pytest.approx(1.5, abs=0.6)
    moved = start.clone()
    moved[HARM] += found.shift[0]
    p = float(true_probability(CLASSIFIER, images_of(GENERATOR, moved[None]), 0))
    assert p <= 0.5
    # The smallest: one grey value before it, the probability is still above one half.
    moved[HARM] -= 0.045 * SCALE[HARM]
    assert float(true_probability(CLASSIFIER, images_of(GENERATOR, moved[None]), 0)) > 0.5


def test_styles_without_harm_never_cross(influence: Influence) -> None:
    dimensions = torch.tensor([HARMLESS, DEAD])
    found = cross_half(CLASSIFIER, GENERATOR, influence.centre[1], None, 1, dimensions, influence)
    start = float(true_probability(CLASSIFIER, images_of(GENERATOR, influence.centre[1][None]), 1))
    assert not found.found.any()
    assert found.shift.isnan().all()
    assert found.lowest.tolist() == pytest.approx([start] * 2, abs=1e-6)


def test_the_nearer_way_is_taken(influence: Influence) -> None:
    def both_ways(x: torch.Tensor) -> torch.Tensor:
        """Say class 0 unless the harmless pixel is 0.12 brighter, or 0.25 darker, than grey."""
        pixel = x[:, 0, 2, 3] - 128 / 255
        lost = torch.maximum(pixel - 0.12, -0.25 - pixel)
        return torch.stack([-200 * lost, 0 * lost, 0 * lost - 99], dim=1)

    classifier = Classifier(both_ways, image_shape=(1, 4, 4), name="both ways")
    start = influence.centre[0]
    found = cross_half(classifier, GENERATOR, start, None, 0, torch.tensor([HARMLESS]), influence)
    units = float((start[HARMLESS] + found.shift[0]) / SCALE[HARMLESS])
    assert units == pytest.approx(1.2, abs=0.05)
    # Or the other, if that alone is asked for.
    one = torch.tensor([HARMLESS])
    for way, expected in ((1.0, 1.2), (-1.0, -2.5)):
        found = cross_half(classifier, GENERATOR, start, None, 0, one, influence, ways=torch.tensor([way]))
        units = float((start[HARMLESS] + found.shift[0]) / SCALE[HARMLESS])
        assert units == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("before", "behind", "grey"), [(0.9, 0.498, 31), (0.9, 0.3, 30), (0.503, 0.3, 29), (0.503, 0.498, 29)]
)
def test_where_a_grey_value_jumps_over_one_half_the_nearest_that_has_it_is_taken(
    influence: Influence, before: float, behind: float, grey: int
) -> None:
    def jumping(x: torch.Tensor) -> torch.Tensor:
        """Say class 0 with `before` up to 30 grey values of the harmless pixel over grey, with 0.3, then `behind`."""
        brighter = (255 * x[:, 0, 2, 3]).round() - 128
        p = torch.where(brighter < 30, before, torch.where(brighter == 30, 0.3, behind))
        return torch.stack([p.log(), (1 - p).log(), 0 * p - 99], dim=1)

    classifier = Classifier(jumping, image_shape=(1, 4, 4), name="jumping")
    # Four times as wide, a tenth of a step of the scan is four grey values.
    wide = replace(influence, low=4 * influence.low, high=4 * influence.high)
    start = influence.centre[0]
    found = cross_half(classifier, GENERATOR, start, None, 0, torch.tensor([HARMLESS]), wide)
    moved = start.clone()
    moved[HARMLESS] += found.shift[0]
    pixel = to_8_bits(images_of(GENERATOR, moved[None]))[0, 0, 2, 3]
    assert round(255 * float(pixel)) - 128 == grey
    assert float(found.fall) == pytest.approx(before - 0.3, abs=1e-5)


def test_the_fall_is_that_of_two_neighbouring_pictures(influence: Influence) -> None:
    """Of a logit that falls by 0.05 a grey value the probability falls by a quarter of that about one half."""

    def sloping(x: torch.Tensor) -> torch.Tensor:
        brighter = (255 * x[:, 0, 2, 3]).round() - 128
        return torch.stack([0.05 * (10.5 - brighter), 0 * brighter, 0 * brighter - 99], dim=1)

    classifier = Classifier(sloping, image_shape=(1, 4, 4), name="sloping")
    found = cross_half(classifier, GENERATOR, influence.centre[0], None, 0, torch.tensor([HARMLESS, DEAD]), influence)
    assert found.fall[0] == pytest.approx(0.0125, abs=1e-4)
    assert found.fall[1].isnan()
