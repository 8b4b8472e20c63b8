import pytest
import torch
from planted_styles import DEAD, HARM, HARMLESS, SCALE, PlantedStyles, misled_beyond

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

    from failscape.classifiers import Classifier

    classifier = Classifier(both_ways, image_shape=(1, 4, 4), name="both ways")
    start = influence.centre[0]
    found = cross_half(classifier, GENERATOR, start, None, 0, torch.tensor([HARMLESS]), influence)
    units = float((start[HARMLESS] + found.shift[0]) / SCALE[HARMLESS])
    assert units == pytest.approx(1.2, abs=0.05)
