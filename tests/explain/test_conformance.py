"""Every method keeps the contract that a user's own method is held to."""

from typing import Any

import pytest
import torch

from failscape import load_classifier
from failscape.explain import (
    METHODS,
    Calibration,
    CentroidPath,
    ClassConvergence,
    CornerCases,
    CorruptionTable,
    Degradation,
    EdgeCases,
    Frontier,
    LatentAccuracy,
    LatentMap,
    Method,
    PerturbationHeatmap,
    RealDirections,
    StyleDifference,
    StyleInfluence,
    SympatheticExamples,
    UncertainSamples,
)
from failscape.generators import ConditionSpace, Generator, StyleGAN2, load_generator
from failscape.testing import check_method

CORRUPTED = load_classifier("embedded:mnist-corrupted")
TRIED: dict[str, list[tuple[Method[Any], str]]] = {
    "calibration": [(Calibration(), "ten"), (Calibration(bins=3, shown=1), "two")],
    "centroid-path": [
        (CentroidPath(points=5), "ten"),
        (CentroidPath(way="both", centroids=2, samples=1, points=4, shown=1), "two"),
        (CentroidPath(points=3, shown=0), "on condition"),
    ],
    "class-convergence": [
        (ClassConvergence(samples=4, candidates=5, steps=2), "two"),
        (ClassConvergence(by="both", classes=("7", "1"), samples=3, candidates=4, training_steps=2, shown=2), "ten"),
        (ClassConvergence(samples=2, candidates=2, steps=1, shown=1), "on condition"),
    ],
    "corner-cases": [
        (CornerCases(per_class=1, joint=1, samples=40, steps=2, most=2), "on condition"),
        (CornerCases(per_class=0, joint=1, samples=40, steps=2), "on condition"),
    ],
    "corruption-table": [(CorruptionTable(), "ten"), (CorruptionTable(corruptions=("contrast",), samples=3), "two")],
    "style-difference": [(StyleDifference(others=(CORRUPTED,), samples=40, top=2), "on condition")],
    "style-influence": [
        (StyleInfluence(samples=40, top=1), "on condition"),
        (StyleInfluence(gradients="finite-differences", difference_samples=40, samples=40, top=1), "on condition"),
    ],
    "sympathetic-examples": [
        (SympatheticExamples(), "ten"),
        (SympatheticExamples(mode="confident", batch_size=3), "ten"),
        (SympatheticExamples(plane=8, grid=20), "two"),
        (SympatheticExamples(mode="fixed-step", max_steps=2, plane=8, grid=20), "two"),
    ],
    "perturbation-heatmap": [(PerturbationHeatmap(batch_size=3), "ten")],
    "degradation": [(Degradation(samples=40, dimensions=1, most=1, progress=(0.0, 1.0)), "digits")],
    "edge-cases": [(EdgeCases(batch_size=3), "ten"), (EdgeCases(crossings=1), "two")],
    "frontier": [
        (Frontier(targets=("3,8", "uniform"), per_target=2, samples=60, steps=3, restarts=1), "ten"),
        (Frontier(targets=("1=0.7,7=0.3",), per_target=2, samples=60, steps=2, restarts=0, guard=1), "two"),
        (Frontier(targets=("3,8",), per_target=2, samples=60, steps=2, restarts=0), "on condition"),
        (Frontier(targets=("3,8",), by="training", per_target=2, samples=60, training_steps=2), "ten"),
    ],
    "latent-accuracy": [
        (
            LatentAccuracy(samples=60, influence_samples=40, top=5, bins=3, smallest_bin=1, places=2, shown=3),
            "on condition",
        ),
        (LatentAccuracy(samples=40, influence_samples=40, bins=2, smallest_bin=2, spread=0.5), "on condition"),
    ],
    "latent-map": [
        (LatentMap(samples=40, misclassified=5, draws=60, mapped=20, pairs=3), "on condition"),
        (LatentMap(samples=12, misclassified=0, draws=12, mapped=12, neighbours=50, pairs=1), "on condition"),
    ],
    "real-directions": [
        (RealDirections(samples=40, top=2, bins=2, steps=2, shown=1), "on condition"),
        (RealDirections(samples=40, top=1, space="s", steps=1), "on condition"),
    ],
    "uncertain-samples": [
        (UncertainSamples(per_class=2, steps=2, levels=(0.9, 0.6), rows=2), "on condition"),
        (UncertainSamples(per_class=3, steps=0, levels=(1.0, 0.8, 0.7), rows=1, classes=("7", "1")), "on condition"),
    ],
}


def on_condition() -> Generator:
    """Return a generator of digits by class and confidence, untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = ConditionSpace(num_classes=10).config
        sizes = {"channels": (4, 4, 4), "latent_dim": 4, "style_dim": 8}
        return StyleGAN2(image_shape=(1, 28, 28), condition=space, **sizes).eval()


def test_every_method_is_tried() -> None:
    assert set(TRIED) == set(METHODS)
    for name, tried in TRIED.items():
        assert all(isinstance(method, METHODS[name]) for method, _ in tried)


@pytest.mark.usefixtures("taught_briefly")
@pytest.mark.parametrize(
    ("method", "generator"), [pytest.param(*each, id=name) for name, tried in TRIED.items() for each in tried]
)
def test_keeps_the_contract(method: Method[Any], generator: str, world: Any) -> None:
    x, y = world.mistakes.x[:5], world.mistakes.y[:5]
    drawn = {"on condition": on_condition, "digits": lambda: load_generator("embedded:mnist-stylegan2")}
    draws = drawn[generator]() if generator in drawn else getattr(world, generator)
    check_method(method, world.classifier, draws, x, y)
