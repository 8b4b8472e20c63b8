import math
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_styles import CLASSES, GREY, SHAPE, PlantedStyles, always, misled_beyond

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedGenerator
from failscape.explain import LatentMap, LatentMapResult, load_result
from failscape.figures import Gallery
from failscape.generators import Generator

# Scores of 0.05 and 0.95 pull the harm 4.5 deviations up or down: which it is cannot be seen in Z.
TWO_KINDS = {"pull": 5.0, "supported": (0.05, 0.95), "quantiles": (0.05, 0.05, 0.95, 0.95)}
SMALL = {"samples": 600, "misclassified": 100, "draws": 1200, "mapped": 12}


def explain(
    classifier: Classifier, generator: Generator | None = None, seed: int = 0, **settings: Any
) -> LatentMapResult:
    x, y = torch.zeros(1, *SHAPE), torch.tensor([0])
    method = LatentMap(**{**SMALL, **settings})
    return method(classifier, generator or PlantedStyles(), x, y, rng=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def planted() -> LatentMapResult:
    return explain(misled_beyond(0.0), PlantedStyles(**TWO_KINDS), mapped=100)


def test_what_is_set_by_the_score_is_told_in_s_and_not_in_z(planted: LatentMapResult) -> None:
    assert planted.summary["well_s"] > 0.95
    assert planted.summary["well_w"] > 0.95
    assert planted.summary["well_z"] == pytest.approx(0.5, abs=0.08)
    assert planted.summary["class_s"] == planted.summary["class_w"] == 1
    assert planted.summary["class_z"] == pytest.approx(1 / CLASSES, abs=0.08)
    for space in "zws":
        for name in ("well", "class"):
            key = f"{name}_{space}"
            assert planted.summary[f"{key}_low"] <= planted.summary[key] <= planted.summary[f"{key}_high"]
    (finding,) = planted.findings
    assert finding.sentence.startswith("Misclassified images of a class lie together in style space")
    assert len(finding.panels) == 6


def test_pairs_are_a_misclassified_sample_and_the_nearest_right_one(planted: LatentMapResult) -> None:
    assert planted.verification is not None
    assert bool(planted.holds.all())
    rows = planted.table.to_pylist()
    assert [row["role"] for row in rows] == ["misclassified"] * 12 + ["nearest"] * 12
    # The classes differ in all of three standardized styles, so that the nearest is of the same class.
    assert planted.summary["same_class"] == 1
    assert [row["asked"] for row in rows[:12]] == [row["asked"] for row in rows[12:]] == ["0", "1", "2"] * 4
    # No two images lie nearer than the harm, the harmless and the score in them do.
    visible = (planted.images[:, 0, 2:, 2:] - GREY) / 0.1
    harm = (visible[:12, 0, 0] - visible[12:, 0, 0]).abs() / (1 + 4.5**2) ** 0.5
    assert bool((planted.pair_distance >= harm / 7**0.5 - 0.05).all())
    gallery = next(figure for figure in planted.figures if isinstance(figure, Gallery))
    assert all(case.good for case in gallery.cases)


def test_drawing_goes_on_until_enough_are_misclassified_or_as_many_as_allowed_are_drawn() -> None:
    # Beyond two deviations lie 2.3 % of a normal distribution.
    enough = explain(misled_beyond(2.0), misclassified=20, draws=3000)
    assert 600 <= enough.drawn < 3000
    assert enough.drawn_misclassified >= enough.kept_misclassified >= 20
    never = explain(misled_beyond(2.0), misclassified=500, draws=1500)
    assert never.drawn == 1500
    assert never.kept_misclassified == never.drawn_misclassified < 100
    assert never.samples == 600
    assert f"Of 1,500 samples drawn {never.drawn_misclassified} were misclassified" in never.figures[0].caption
    most = explain(misled_beyond(-1.0), misclassified=500, draws=1500)
    assert most.drawn_misclassified > 0.8 * most.drawn
    assert most.kept_misclassified == most.samples - min(most.drawn - most.drawn_misclassified, 300)


def test_chance_where_the_place_says_nothing() -> None:
    """Right or wrong by the parity of the noise, which is in none of the spaces."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        right = misled_beyond(100.0)(x)
        odd = ((x[:, 0, 3, 3] * 255).round() % 2 == 1)[:, None]
        return torch.where(odd, right, right.roll(1, dims=1))

    result = explain(Classifier(logits, image_shape=SHAPE, name="parity"), PlantedStyles())
    for space in "zws":
        assert result.summary[f"well_{space}"] == pytest.approx(0.5, abs=0.08)
    assert result.findings[0].sentence.startswith("Misclassified images of a class lie wherever others")


def test_groups_that_t_sne_is_given_stay_apart(planted: LatentMapResult) -> None:
    """Each of the six clusters of class and verdict in S has its neighbours on the map to itself."""
    group = planted.mapped_y * 2 + planted.mapped_right.long()
    places = planted.position[2]
    distance = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert (group[distance.argmin(dim=1)] == group).float().mean() > 0.9
    assert not torch.equal(planted.position[0], planted.position[2])


def test_without_misclassified_or_without_right_samples_the_result_says_so() -> None:
    none = explain(misled_beyond(100.0))
    assert (none.kept_misclassified, len(none.images)) == (0, 0)
    assert math.isnan(none.summary["well_s"])
    assert none.summary["class_s"] == 1
    assert none.findings[0].sentence == "None of 1,200 generated images is misclassified."
    assert [figure.name for figure in none.figures] == ["map"]
    none.figures[0].draw()  # type: ignore[attr-defined]
    # Where two other classes are as likely, the first is said.
    everything = explain(misled_beyond(-100.0))
    assert (everything.kept_misclassified, everything.samples, len(everything.images)) == (600, 600, 0)
    assert everything.findings[0].sentence == (
        "All of 750 generated images are misclassified. It takes no sample for 2. It is wrong about every sample of 0 "
        "or 1."
    )


def test_a_constant_classifier_is_wrong_about_other_classes_and_nowhere_within_them() -> None:
    result = explain(always(1))
    assert result.summary["misclassified"] == pytest.approx(2 / 3, abs=0.01)
    # Which class a sample is of is told without fail, and is not taken for where mistakes lie.
    assert result.summary["class_s"] == 1
    for space in "zws":
        assert result.summary[f"well_{space}"] == pytest.approx(0.5, abs=0.08)
    assert result.findings[0].sentence.startswith("Misclassified images of a class lie wherever others")
    assert result.findings[0].sentence.endswith("It gives every sample the same answer, 1.")
    assert result.count.tolist() == [result.drawn // CLASSES] * CLASSES
    assert result.predicted.tolist() == [0, result.drawn, 0]
    assert result.summary["same_class"] == 0


def test_mistakes_that_lie_together_within_one_class_are_told() -> None:
    """Of class 0 half is wrong, by its harm, of the others nothing."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        seeing, misled = misled_beyond(100.0)(x), misled_beyond(0.0)(x)
        return torch.where((seeing.argmax(dim=1) == 0)[:, None], misled, seeing)

    result = explain(Classifier(logits, image_shape=SHAPE, name="one class"), PlantedStyles(**TWO_KINDS))
    assert result.summary["well_s"] > 0.75
    assert result.summary["well_z"] < result.summary["well_s"] - 0.15


def test_the_result_is_the_same_after_saving_and_loading(planted: LatentMapResult, tmp_path: Path) -> None:
    planted.save(tmp_path)
    loaded = load_result(tmp_path)
    assert isinstance(loaded, LatentMapResult)
    assert loaded.summary == planted.summary
    assert torch.equal(loaded.position, planted.position)


def test_a_generator_without_condition_is_refused() -> None:
    with pytest.raises(UnsupportedGenerator, match="has no condition"):
        explain(misled_beyond(0.0), PlantedStyles(condition=False))


@pytest.mark.parametrize(
    "settings",
    [
        {"mapped": 3},
        {"samples": 100, "mapped": 101},
        {"draws": 1999},
        {"misclassified": -1},
        {"neighbours": 0},
        {"perplexity": 0.0},
        {"pairs": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LatentMap(**settings)
