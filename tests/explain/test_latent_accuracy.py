import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_styles import (
    CLASSES,
    GREY,
    HARM,
    SHAPE,
    PlantedStyles,
    always,
    blind_to,
    misled_beyond,
)
from torch import Tensor
from torch.distributions import Normal

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, FailscapeError, GeneratorError, UnsupportedClassifier
from failscape.explain import LatentAccuracy, LatentAccuracyResult, load_result
from failscape.explain.latent_accuracy_result import FAR, NEAR
from failscape.explain.style_gradients import measure_influence
from failscape.generators import Condition, Generator, StyleGenerator
from failscape.metrics import rate

# Harm is rounded to 8 bits in steps of 0.039: what the classifier is misled beyond is the middle between two of them.
BEYOND, STEP = 1.5, 1 / 25.5
THRESHOLD = (math.floor(BEYOND / STEP) + 0.5) * STEP
NORMAL = Normal(0.0, 1.0)
# The mean of a standard normal variable below the threshold.
CENTRE = -float(NORMAL.log_prob(torch.tensor(THRESHOLD)).exp() / NORMAL.cdf(torch.tensor(THRESHOLD)))
SMALL = {"samples": 6000, "influence_samples": 300, "bins": 12}


def explain(
    classifier: Classifier, generator: Generator | None = None, seed: int = 0, **settings: Any
) -> LatentAccuracyResult:
    x, y = torch.zeros(1, *SHAPE), torch.tensor([0])
    method = LatentAccuracy(**{**SMALL, **settings})
    return method(classifier, generator or PlantedStyles(), x, y, rng=torch.Generator().manual_seed(seed))


def accuracy_at(distance: Tensor) -> Tensor:
    """What accuracy is at a distance from the middle, which lies to either side of it."""
    left, right = (NORMAL.log_prob(CENTRE + side * distance).exp() for side in (-1, 1))
    return torch.where(CENTRE + distance < THRESHOLD, 1.0, left / (left + right))


def mirrored(classifier: Classifier) -> Classifier:
    """Return the classifier that is misled by too little harm as this one is by too much."""

    def logits(x: Tensor) -> Tensor:
        flipped = x.clone()
        flipped[:, 0, 2, 2] = 2 * GREY - x[:, 0, 2, 2]
        return classifier(flipped)

    return Classifier(logits, image_shape=SHAPE, name="mirrored")


def without_gradients(classifier: Classifier) -> Classifier:
    return Classifier(lambda x: classifier(x).detach().numpy(), image_shape=SHAPE, name="numpy")


@pytest.fixture(scope="module")
def planted() -> LatentAccuracyResult:
    return explain(misled_beyond(BEYOND), samples=20_000)


def test_accuracy_against_distance_is_that_of_the_analysis(planted: LatentAccuracyResult) -> None:
    assert planted.styles.tolist() == [HARM]
    assert planted.influential == 1
    edges, kept = planted.edges[0], planted.count[0] >= planted.smallest_bin
    assert int(kept.sum()) >= 10
    for index in kept.nonzero()[:, 0].tolist():
        # Of a bin the mean over its samples, which are as dense as two normal tails.
        grid = torch.linspace(float(edges[index]), float(edges[index + 1]), 200)
        density = sum(NORMAL.log_prob(CENTRE + side * grid).exp() for side in (-1, 1))
        expected = float((accuracy_at(grid) * density).sum() / density.sum())
        measured = planted.accuracy(0, torch.tensor([index]))
        # Twelve intervals of 95 %: one and a half times as wide they miss once in a hundred runs or so.
        assert abs(measured.value - expected) < 1.5 * max(measured.high - measured.low, 0.01) / 2 + 0.02, index
    assert planted.summary["near"] == 1
    assert planted.summary["far"] < 0.5
    area = float(accuracy_at((edges[1:] + edges[:-1])[kept] / 2).mean())
    assert planted.summary["area"] == pytest.approx(area, abs=0.02)
    assert planted.summary["trend_high"] < 0


def test_samples_shown_lie_at_their_distance_and_examples_are_what_they_claim(planted: LatentAccuracyResult) -> None:
    harm = (planted.images[:, 0, 2, 2] - GREY) / 0.1
    # The deviation of harm is 2 in the units of its layer and 1 in those of the pixel.
    assert torch.allclose((harm - CENTRE).abs(), planted.image_distance, atol=STEP / 2 + 0.05)
    strip = planted.image_place >= 0
    means = [planted.image_distance[planted.image_place == row].mean() for row in range(6)]
    assert means == sorted(means)
    assert int(strip.sum()) == 60
    assert planted.verification is not None
    right = planted.verification.prediction == planted.image_y
    assert right[planted.image_place == NEAR].tolist() == [True] * 3
    assert right[planted.image_place == FAR].tolist() == [False] * 3
    labels = [panel.label for panel in planted.findings[0].panels]
    assert [label.split(":")[0] for label in labels] == ["near"] * 3 + ["far"] * 3
    assert all("taken for" in label for label in labels[3:])
    assert re.fullmatch(
        r"Accuracy falls from 100\s% near the centre of what it gets right to [\d.]+\s% far from it\.",
        planted.findings[0].sentence,
    )


def test_accuracy_does_not_fall_where_its_trend_may_be_none(planted: LatentAccuracyResult) -> None:
    trend = planted.trend.clone()
    assert float(trend[0, 2]) < 0
    trend[0, 2] = 0.01
    (finding, *_) = replace(planted, trend=trend).findings
    assert finding.sentence.startswith("Accuracy does not clearly fall with distance")


def test_of_two_classifiers_the_one_that_is_misled_sooner_has_the_smaller_area() -> None:
    sooner = misled_beyond(1.0, name="sooner")
    result = explain(misled_beyond(BEYOND, name="later"), others=(sooner,))
    (value, low, high) = result.difference[0].tolist()
    assert 0 < low < value < high
    assert result.p[0] < 0.01
    assert result.summary["difference of later and sooner"] == pytest.approx(
        float(result.area[0, 0] - result.area[1, 0])
    )
    assert any("later is right about" in finding.sentence for finding in result.findings)
    swapped = explain(sooner, others=(misled_beyond(BEYOND, name="later"),))
    assert float(swapped.difference[0, 2]) < 0
    assert any("later is right about" in finding.sentence for finding in swapped.findings)


def test_what_is_said_of_a_pair_is_corrected_for_the_number_of_pairs() -> None:
    result = explain(misled_beyond(BEYOND), others=(misled_beyond(1.0, name="a"), misled_beyond(1.0, name="b")))
    assert result.p.tolist()[2] == 1
    assert result.summary["p of a and b"] == 1
    assert result.summary["p of planted and a"] == pytest.approx(3 * float(result.p[0]))
    assert sum("right about" in finding.sentence for finding in result.findings) == 2
    # By itself 0.02 is beyond chance, as one of three pairs it is not.
    doubtful = replace(result, p=torch.tensor([0.02, 0.01, 1.0]))
    told = [finding.sentence for finding in doubtful.findings if "right about" in finding.sentence]
    assert len(told) == 1
    assert " b about " in told[0]
    assert "flatters it and classifiers like it" in result.figures[0].caption
    assert "flatters" not in explain(misled_beyond(BEYOND), samples=1000).figures[0].caption


def test_of_eleven_classifiers_the_one_that_is_plainly_worse_is_told() -> None:
    alike = tuple(misled_beyond(BEYOND, name=f"alike {i}") for i in range(9))
    result = explain(misled_beyond(BEYOND), others=(*alike, misled_beyond(0.5, name="worse")), samples=2000)
    assert len(result.pairs) == 55
    assert result.summary["p of planted and worse"] < 0.01
    told = [finding.sentence for finding in result.findings if "is right about" in finding.sentence]
    assert len(told) == 10
    assert all(" worse about " in sentence for sentence in told)


@pytest.mark.usefixtures("as_installed")
def test_more_classifiers_than_can_be_compared_are_refused_at_the_border() -> None:
    one = misled_beyond(BEYOND)
    assert len(LatentAccuracy(others=(one,) * 31).others) == 31
    with pytest.raises(ValueError, match="Expected at most 31 `others`, but got 32"):
        LatentAccuracy(others=(one,) * 32)


def test_the_class_that_is_right_least_often_is_named() -> None:
    result = explain(misled_beyond(BEYOND))
    areas = result.area.clone()
    areas[1:] = torch.tensor([[0.9, 0.88, 0.92], [0.5, 0.48, 0.52], [0.8, 0.78, 0.82]])
    sentence = replace(result, area=areas).findings[-1].sentence
    assert sentence.startswith("Away from its centre, class 1 is right least often: averaged over the distances 50")


def test_two_classifiers_that_are_misled_as_often_but_by_other_images_do_not_differ() -> None:
    classifier = misled_beyond(1.2)
    result = explain(classifier, others=(mirrored(classifier), misled_beyond(1.2)))
    assert result.classifiers == ("planted", "mirrored", "planted (2)")
    (mirror, same, _) = result.difference.tolist()
    assert mirror[1] < 0 < mirror[2]
    assert same == [0, 0, 0]
    assert result.p.tolist()[1] == 1
    assert not any("right about" in finding.sentence for finding in result.findings)
    # They are right about as many, but not about the same.
    assert abs(int(result.well[0] - result.well[1])) < 0.02 * result.samples


def test_a_comparison_is_the_same_after_saving_and_loading_and_defines_its_numbers(tmp_path: Path) -> None:
    result = explain(misled_beyond(BEYOND), others=(misled_beyond(1.0, name="sooner"),), samples=1000, smallest_bin=10)
    result.save(tmp_path)
    loaded = load_result(tmp_path)
    assert isinstance(loaded, LatentAccuracyResult)
    assert str(loaded.summary) == str(result.summary)
    assert loaded.table.equals(result.table)
    plain = {re.sub("_(low|high|n)$", "", key) for key in result.summary}
    assert plain <= set(result.definitions)
    assert {"area of sooner", "difference of planted and sooner", "p of planted and sooner", "area of class 2"} <= plain


def test_a_class_has_its_own_middle_deviations_and_curve() -> None:
    # Harm is distributed alike in all classes, and misleads in all of them alike.
    result = explain(misled_beyond(BEYOND))
    assert result.classes == ("0", "1", "2")
    assert result.left_out == ()
    areas = result.area[1:]
    assert areas.shape == (CLASSES, 3)
    assert torch.allclose(areas[:, 0], areas[:, 0].mean().expand(3), atol=0.05)
    assert int(result.count[1:].sum()) <= result.samples
    assert set(result.table["curve"].to_pylist()) == {"planted", "class 0", "class 1", "class 2"}
    for row in result.table.to_pylist():
        wilson = rate(torch.arange(row["count"]) < round(row["count"] * row["right"]))
        assert (row["right_from"], row["right_to"]) == pytest.approx((wilson.low, wilson.high))


def test_a_class_that_is_never_right_has_no_curve_and_is_named() -> None:
    result = explain(blind_to(1, BEYOND))
    assert result.classes == ("0", "2")
    assert result.left_out == ("1 (none of 2,000 samples is classified rightly)",)
    (by_class,) = (figure for figure in result.figures if figure.name == "by-class")
    assert "1 (none of 2,000 samples is classified rightly)" in by_class.caption
    said = " Classes without a curve of their own: 1 (none of 2,000 samples is classified rightly)."
    assert result.findings[0].sentence.endswith(said)


def test_a_classifier_that_is_constant_has_no_influential_style_and_the_result_says_so() -> None:
    result = explain(always(2))
    assert result.influential == 0
    assert result.summary["accuracy"] == pytest.approx(1 / 3)
    assert result.classes == ("2",)
    assert [each.split()[0] for each in result.left_out] == ["0", "1"]
    assert "No style changes what the classifier says" in result.figures[0].caption
    # The distance is over harm, harmless, dead and score, each in its own deviations: that of dead is 100.
    middles = (result.edges[0, 1:] + result.edges[0, :-1]) / 2
    mean = float((middles * result.count[0]).sum() / result.count[0].sum())
    assert mean == pytest.approx(0.95, abs=0.1)


def test_without_a_misclassified_sample_the_curves_are_at_one_and_the_result_says_so() -> None:
    result = explain(misled_beyond(100.0))
    kept = result.count >= result.smallest_bin
    assert bool((result.right[kept] == result.count[kept]).all())
    assert result.area[:, 0].tolist() == [1] * 4
    assert math.isnan(result.summary["trend"])
    assert result.findings[0].sentence == (
        "None of 6,000 generated images is misclassified, however far from the middle."
    )
    assert all("near" in panel.label for panel in result.findings[0].panels)


def test_bins_with_too_few_samples_are_left_out_and_none_at_all_is_no_crash() -> None:
    few = explain(misled_beyond(BEYOND), samples=300, smallest_bin=20)
    assert all(row["count"] >= 20 for row in few.table.to_pylist())
    none = explain(misled_beyond(BEYOND), samples=300, smallest_bin=301)
    assert none.table.num_rows == 0
    assert math.isnan(none.summary["area"])
    assert (none.figures, len(none.images)) == ([], 0)
    assert [finding.sentence for finding in none.findings] == [
        "How accuracy changes with distance cannot be told: no bin of distances holds 301 of 300 samples. Classes "
        "without a curve of their own: 0 (100 samples are too few); 1 (100 samples are too few); 2 (100 samples are "
        "too few)."
    ]
    many = replace(none, left_out=tuple(f"{i} (no sample was drawn)" for i in range(12)))
    assert many.findings[0].sentence.endswith("; 9 (no sample was drawn); and 2 more.")


def test_evenly_spread_scores_are_harder_as_planted() -> None:
    # Asked for score 1, as all natural samples are, the harm is four deviations below zero.
    generator = PlantedStyles(pull=4.0, quantiles=(1.0, 1.0))
    natural = explain(misled_beyond(BEYOND), generator, samples=3000)
    even = explain(misled_beyond(BEYOND), generator, samples=3000, spread=1.0)
    half = explain(misled_beyond(BEYOND), generator, samples=3000, spread=0.5)
    pulled = 4 * (2 * torch.linspace(0.3, 1, 1001) - 1)
    expected = float(NORMAL.cdf(THRESHOLD + pulled).mean())
    assert natural.summary["accuracy"] == 1
    assert even.summary["accuracy"] == pytest.approx(expected, abs=0.02)
    assert half.summary["accuracy"] == pytest.approx((1 + expected) / 2, abs=0.02)
    assert half.summary["spread"] == 0.5


def test_without_gradients_differences_find_the_same_style() -> None:
    classifier = without_gradients(misled_beyond(BEYOND))
    assert not classifier.differentiable
    assert explain(classifier, influence_samples=30, samples=600).styles.tolist()[0] == HARM


def test_images_are_drawn_in_batches_once_and_only_those_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    synthesize = PlantedStyles.synthesize

    def counted(self: PlantedStyles, s: Tensor, noise: Tensor | None = None) -> Tensor:
        drawn.append(len(s))
        return synthesize(self, s, noise)

    monkeypatch.setattr(PlantedStyles, "synthesize", counted)
    explain(misled_beyond(BEYOND), samples=2000)
    assert max(drawn) <= 250
    assert 2300 < sum(drawn) <= 2000 + 300 + 66


@pytest.mark.parametrize(
    ("classifier", "generator", "others", "error", "message"),
    [
        (misled_beyond(1.5), PlantedStyles(condition=False), (), GeneratorError, "has no condition"),
        (always(0), None, (always(1),), UnsupportedClassifier, "got none among 6000"),
        (
            misled_beyond(1.5),
            None,
            (Classifier(lambda x: x[:, 0, 0], image_shape=SHAPE, name="four"),),
            ClassifierError,
            "Expected classifiers of the same images and classes",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    classifier: Classifier,
    generator: StyleGenerator | None,
    others: tuple[Classifier, ...],
    error: type[FailscapeError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        explain(classifier, generator, others=others)


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 0},
        {"score": "luck"},
        {"top": 0},
        {"bins": 1},
        {"smallest_bin": 0},
        {"spread": 1.5},
        {"places": 0},
        {"shown": 0},
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LatentAccuracy(**settings)


def test_planted_formulas_hold() -> None:
    generator, classifier = PlantedStyles(pull=2.0), misled_beyond(BEYOND)
    rng = torch.Generator().manual_seed(0)
    z = generator.sample_latents(300, rng=rng)
    condition = Condition(y=torch.arange(300) % CLASSES, score=torch.rand(300, generator=rng).clamp_min(0.01))
    s = generator.styles(generator.mapping(z, condition))
    x = generator.synthesize(s)
    assert torch.allclose(generator.encode(x)[:, :2], z[:, :2], atol=1e-4)
    wrong = classifier.predict(x) != condition.y
    assert torch.equal(wrong, s[:, HARM] / 2 > BEYOND)
    influence = measure_influence(classifier, PlantedStyles(), 300, rng=rng)
    assert influence.effect()[HARM] == pytest.approx(-2, rel=0.15)
    assert influence.effect().count_nonzero() == 1
