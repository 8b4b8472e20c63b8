"""Every method keeps the contract that a user's own method is held to."""

from typing import Any

import pytest

from failscape.explain import METHODS, Calibration, EdgeCases, Method, PerturbationHeatmap, SympatheticExamples
from failscape.testing import check_method

TRIED: dict[str, list[tuple[Method[Any], str]]] = {
    "calibration": [(Calibration(), "ten"), (Calibration(bins=3, shown=1), "two")],
    "sympathetic-examples": [
        (SympatheticExamples(), "ten"),
        (SympatheticExamples(mode="confident", batch_size=3), "ten"),
        (SympatheticExamples(plane=8, grid=20), "two"),
        (SympatheticExamples(mode="fixed-step", max_steps=2, plane=8, grid=20), "two"),
    ],
    "perturbation-heatmap": [(PerturbationHeatmap(batch_size=3), "ten")],
    "edge-cases": [(EdgeCases(batch_size=3), "ten"), (EdgeCases(crossings=1), "two")],
}


def test_every_method_is_tried() -> None:
    assert set(TRIED) == set(METHODS)
    for name, tried in TRIED.items():
        assert all(isinstance(method, METHODS[name]) for method, _ in tried)


@pytest.mark.parametrize(
    ("method", "generator"), [pytest.param(*each, id=name) for name, tried in TRIED.items() for each in tried]
)
def test_keeps_the_contract(method: Method[Any], generator: str, world: Any) -> None:
    x, y = world.mistakes.x[:5], world.mistakes.y[:5]
    check_method(method, world.classifier, getattr(world, generator), x, y)
