"""Classifiers of more classes than fifty, of which no gradients are to be had: 200 samples are not four of each."""

from typing import Any

import pytest
import torch

from failscape.classifiers import Classifier
from failscape.errors import DataError
from failscape.explain import (
    CornerCases,
    Degradation,
    LatentAccuracy,
    RealDirections,
    StyleDifference,
    StyleInfluence,
)
from failscape.explain.style_gradients import measure_influence
from failscape.generators import StyleGAN2

CLASSES = 60
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    torch.manual_seed(0)
    small = {"channels": (4, 2), "latent_dim": 4, "style_dim": 8, "mapping_layers": 1}
    return StyleGAN2(image_shape=SHAPE, condition={"num_classes": CLASSES}, **small).eval()  # type: ignore[arg-type]


def detached(label: int | None = None) -> Classifier:
    """Wrap a classifier whose logits are sums of pixels, taken without gradients; or one that says `label` of all."""
    weight = torch.randn(64, CLASSES, generator=torch.Generator().manual_seed(1))
    bias = torch.zeros(CLASSES) if label is None else 100.0 * torch.nn.functional.one_hot(torch.tensor(label), CLASSES)
    return Classifier(lambda x: (x.detach().flatten(1) @ weight + bias).numpy(), image_shape=SHAPE, name="detached")


@pytest.mark.parametrize(
    "method",
    [
        CornerCases(samples=240, per_class=1, most=2),
        Degradation(samples=240, dimensions=1, most=1),
        LatentAccuracy(samples=480, influence_samples=240),
        RealDirections(samples=240, steps=1),
        StyleDifference(others=(detached(),), samples=240),
        StyleInfluence(samples=240),
    ],
    ids=lambda method: type(method).__name__,
)
def test_default_settings_find_a_way(method: Any, generator: StyleGAN2) -> None:
    # One class is certain, so that degradation has a start.
    x, y = torch.full((2, *SHAPE), 0.5), torch.tensor([0, 1])
    method(detached(7), generator, x, y, rng=torch.Generator().manual_seed(0))


def test_differences_are_taken_of_four_samples_of_each_class(generator: StyleGAN2) -> None:
    rng = torch.Generator().manual_seed(0)
    influence = measure_influence(detached(), generator, 300, rng=rng, gradients=False)
    assert influence.count.tolist() == [5] * CLASSES
    assert influence.mean.isfinite().all()
    assert influence.error.isfinite().all()


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        (StyleInfluence(difference_samples=200), "difference_samples"),
        (StyleDifference(others=(detached(),), samples=200), "samples"),
        (LatentAccuracy(influence_samples=200), "influence_samples"),
        (RealDirections(samples=200), "samples"),
    ],
)
def test_too_small_a_number_is_refused_by_the_name_of_its_setting(
    method: Any, setting: str, generator: StyleGAN2
) -> None:
    x, y = torch.full((2, *SHAPE), 0.5), torch.tensor([0, 1])
    with pytest.raises(DataError, match=f"Expected `{setting}` of at least 240, 4 for each of the 60 classes, but got"):
        method(detached(), generator, x, y, rng=torch.Generator().manual_seed(0))
