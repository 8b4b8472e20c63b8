from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted_styles import PlantedStyles, misled_beyond
from torch import Tensor

from failscape.classifiers import Classifier, load_classifier
from failscape.errors import DataError
from failscape.explain import (
    CornerCases,
    CornerCasesResult,
    Degradation,
    DegradationResult,
    LatentAccuracy,
    LatentAccuracyResult,
    Method,
    RealDirections,
    RealDirectionsResult,
)
from failscape.explain.shared_influence import shared_influence as influence_of
from failscape.explain.shared_influence import sharing_influence
from failscape.explain.style_gradients import Influence, ScoreName, measure_influence
from failscape.generators import StyleGenerator, load_generator

N = 300


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ask(classifier: Classifier, generator: StyleGenerator, n: int = N, **settings: Any) -> tuple[Influence, Tensor]:
    """Return the influence, and what the random stream gives next."""
    stream = settings.pop("rng", None) or rng()
    asked: dict[str, Any] = {"score": "logit-margin", "gradients": True} | settings
    return influence_of(classifier, generator, n, rng=stream, **asked), torch.rand(3, generator=stream)


def test_what_is_remembered_is_what_would_be_measured(measured: list[int]) -> None:
    classifier, generator = misled_beyond(1.0), PlantedStyles()
    alone, next_alone = ask(classifier, generator)
    with sharing_influence():
        first, next_first = ask(classifier, generator)
        again, next_again = ask(classifier, generator)
    assert measured == [N, N]
    assert again is first
    assert first.mean.equal(alone.mean)
    assert next_again.equal(next_first)
    assert next_first.equal(next_alone)


def test_only_the_very_same_is_remembered(measured: list[int]) -> None:
    classifier, generator = misled_beyond(1.0), PlantedStyles()
    with sharing_influence():
        ask(classifier, generator)
        ask(classifier, generator, 30)
        ask(classifier, generator, score="probability")
        ask(classifier, generator, gradients=False, differences=30)
        ask(classifier, generator, rng=rng(1))
        ask(misled_beyond(1.0), generator)
        ask(classifier, PlantedStyles())
    assert measured == [N, 30, N, N, N, N, N]
    # Nothing of it outlives the study.
    ask(classifier, generator)
    assert len(measured) == 8


def test_too_few_samples_are_refused_by_the_name_of_the_setting() -> None:
    with pytest.raises(DataError, match="Expected `influence_samples` of at least 12"):
        ask(misled_beyond(1.0), PlantedStyles(), 3, setting="influence_samples")


def corners_tried(result: CornerCasesResult) -> list[int]:
    """Return the dimensions that were tried for class 1; the only one found ends the search."""
    passed, found = result.passed_dimension[result.passed_y == 1], result.dimension[result.single & (result.y == 1)]
    tried: list[int] = torch.cat([passed, found]).tolist()
    return tried


def degraded_along(result: DegradationResult) -> list[int]:
    shown: list[int] = result.dimension.unique_consecutive().tolist()
    return shown


def real_along(result: RealDirectionsResult) -> list[int]:
    return result.dimensions.tolist()


def distance_over(result: LatentAccuracyResult) -> list[int]:
    return result.styles.tolist()


@pytest.mark.parametrize("score", ["logit-margin", "probability"])
@pytest.mark.parametrize(
    ("method", "settings", "along", "label"),
    [
        (CornerCases, {"samples": N, "per_class": 1, "joint": 0, "most": 4}, corners_tried, 1),
        (Degradation, {"samples": N, "dimensions": 2, "most": 20, "classes": ("1",)}, degraded_along, 1),
        (LatentAccuracy, {"influence_samples": N, "samples": 60, "smallest_bin": 1, "top": 9}, distance_over, None),
        (RealDirections, {"samples": N, "steps": 0}, real_along, None),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_by_itself_a_method_ranks_by_the_score_over_samples_of_its_own(
    method: Callable[..., Method[Any]],
    settings: dict[str, Any],
    along: Any,
    label: int | None,
    score: ScoreName,
    measured: list[int],
) -> None:
    classifier, generator = load_classifier("embedded:mnist-corrupted"), load_generator("embedded:mnist-stylegan2")
    assert isinstance(generator, StyleGenerator)
    x, y = torch.full((2, *classifier.image_shape), 0.5), torch.tensor([0, 1])
    ranked = [
        along(method(**settings, score=score)(classifier, generator, x, y, rng=rng())),
        measure_influence(classifier, generator, N, rng=rng(), score=score).ranking(label).tolist(),
    ]
    assert measured == [N]
    assert ranked[0]
    # Degradation leaves out what never brings the class to one half.
    reached = ranked[1] if method is Degradation else ranked[1][: len(ranked[0])]
    assert [d for d in reached if d in ranked[0]] == ranked[0]
