from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_styles import HARM, HARMLESS, PlantedStyles, always, blind_to, misled_beyond
from scipy.stats import ks_2samp, norm

from failscape.classifiers import Classifier, load_classifier
from failscape.data import load_images
from failscape.errors import UnsupportedClassifier, UnsupportedGenerator
from failscape.explain import StyleInfluence, StyleInfluenceResult
from failscape.explain.corner_result import BEYOND, TRIPLE, WITHIN
from failscape.explain.style_gradients import Influence
from failscape.explain.style_influence import _compared, _in_like_mix, _within_class
from failscape.generators import load_generator


def measure(classifier: Any, generator: Any, **settings: Any) -> StyleInfluenceResult:
    x, y = torch.full((3, *classifier.image_shape), 0.5), torch.tensor([0, 1, 2])
    method = StyleInfluence(**({"samples": 3000, "top": 2} | settings))
    return method(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def planted() -> StyleInfluenceResult:
    return measure(misled_beyond(1.0), PlantedStyles())


class TestPlanted:
    def test_the_harmful_style_leads_the_table(self, planted: StyleInfluenceResult) -> None:
        row = planted.table.to_pylist()[HARM]
        assert row["rank"] == 1
        assert row["lowered_by"] == "up"
        assert row["layer"] == "layer 2, convolution, 4 × 4"
        assert row["gradient"] == pytest.approx(-1.0, abs=0.02)
        assert row["effect"] == pytest.approx(-2.0, rel=0.05)
        assert row["shift"] == pytest.approx(0.9, abs=0.3)

    def test_the_statistic_of_the_harmful_style_is_one_and_of_others_small(self, planted: StyleInfluenceResult) -> None:
        # What is misclassified lies beyond 1, what is not below: the two do not overlap, but for rounding.
        assert float(planted.ks[HARM]) > 0.97
        assert float(planted.ks[HARMLESS]) < 0.08
        assert float(planted.ks_p[HARM]) < 1e-6
        assert float(planted.ks_p[HARMLESS]) > 0.05
        assert planted.summary["misclassified"] / 3000 == pytest.approx(norm.sf(1.0), abs=0.03)

    def test_histograms_show_both_kinds(self, planted: StyleInfluenceResult) -> None:
        plots = {figure.name: figure for figure in planted.figures}
        assert list(plots) == ["effects", "by-class", "histograms", "dimensions"]
        axes = plots["histograms"].draw().axes  # type: ignore[attr-defined]
        assert axes[0].get_title(loc="left").startswith(f"telling s{HARM}: D = ")

    def test_pictures_end_where_the_class_is_lost(self, planted: StyleInfluenceResult) -> None:
        assert int(planted.shown[0]) == HARM
        assert int(planted.reached[0]) == 1
        assert float(planted.probability[0, -1]) == pytest.approx(0.5, abs=0.03)
        assert float(planted.probability[0, 1]) > 0.7

    def test_what_tells_best_is_chosen_on_one_half_and_measured_on_the_other(
        self, planted: StyleInfluenceResult
    ) -> None:
        assert int(planted.telling[0]) == HARM
        assert float(planted.ks_held[HARM]) > 0.97
        assert planted.summary["ks_influential"] <= planted.summary["ks_top"] + 0.05
        assert not torch.isin(planted.random, planted.telling).any()

    def test_its_strip_says_how_far_each_picture_was_moved(self, planted: StyleInfluenceResult) -> None:
        (finding,) = planted.findings
        shown = next(i for i, text in enumerate(planted.descriptions) if not text.startswith("changes nothing"))
        deviations = float(planted.shift[shown] / planted.spread[planted.shown[shown]])
        moves = [deviations * fraction for fraction in planted.fractions.tolist()]
        expected = [f"{move:+.1f} σ".replace("-", "−") if move else "start" for move in moves]
        assert [panel.label.split(": ")[0] for panel in finding.panels] == expected
        assert expected[1] == "start"
        probabilities = [float(panel.label.split(": ")[1].split("; ")[0]) for panel in finding.panels]
        assert probabilities == pytest.approx(planted.probability[shown].tolist(), abs=0.006)
        assert "at the start and moved by so many deviations (σ) along it" in finding.sentence

    def test_its_strip_says_where_each_picture_lies_beside_the_observed_values(
        self, planted: StyleInfluenceResult, tmp_path: Path
    ) -> None:
        # Three thousand values of a standard normal style go to about 3.5; the whole shift of harm is about 1.
        assert planted.place[0].tolist() == [WITHIN] * 6
        far = replace(planted, place=torch.tensor([[WITHIN, WITHIN, WITHIN, TRIPLE, TRIPLE, BEYOND]] * 2))
        (finding,) = far.findings
        assert [panel.label.partition("; ")[2] for panel in finding.panels] == [
            "within the range of values",
            "",
            "within the range of values",
            "up to 3 times the range",
            "up to 3 times the range",
            "beyond 3 times the range",
        ]
        assert "and where that lies beside the range of values that its style has." in finding.sentence
        planted.save(tmp_path)
        loaded = StyleInfluenceResult.load(tmp_path)
        assert isinstance(loaded, StyleInfluenceResult)
        assert torch.equal(loaded.place, planted.place)

    def test_a_shift_that_goes_beyond_is_marked_so(self) -> None:
        # No harm that was drawn misleads it: the style is moved to about 4.5, and back to half as much.
        result = measure(misled_beyond(4.5), PlantedStyles(), samples=300)
        assert int(result.shown[0]) == HARM
        assert result.place[0].tolist() == [WITHIN, WITHIN, WITHIN, WITHIN, TRIPLE, TRIPLE]

    def test_top_directions_without_a_name_are_told_of_with_their_pictures(self, planted: StyleInfluenceResult) -> None:
        (finding,) = replace(planted, descriptions=("changes nothing that is measured",) * 2).findings
        assert finding.sentence.startswith(
            "Of 7 directions in which the images vary, what the 2 that cost it most change in a picture cannot be "
            "named: nothing that is measured. The pictures show the mean "
        )
        assert len(finding.panels) == len(planted.fractions)

    def test_one_that_real_images_confirm_leads_before_one_that_they_do_not(
        self, planted: StyleInfluenceResult
    ) -> None:
        told = replace(planted, descriptions=("brightens (+0.35)", "blurs (−0.10 per px)"))
        first, second = (planted.ids[d] for d in planted.shown.tolist())
        for said in ("seen only in generated images", "real images fail at its other end", "rises on real images"):
            (finding,) = told.with_checks({first: said, second: "confirmed on real images"}).findings
            assert "most of those that real images confirm and whose effect can be named: it blurs" in finding.sentence
            assert "Real images confirm it" in finding.sentence
            assert "Others that cost it much: one brightens." in finding.sentence
            assert torch.equal(finding.panels[0].pixels, told.images[len(told.fractions)])
            (finding,) = told.with_checks({first: said}).findings
            assert "this one costs it most: it brightens" in finding.sentence
            assert "Real images confirm it" not in finding.sentence
            assert (said == "seen only in generated images") == ("seen only in generated images" in finding.sentence)

    def test_halves_agree(self, planted: StyleInfluenceResult) -> None:
        assert planted.split_half > 0.5


def two_classes(shift: float, n: int = 4000, dim: int = 20) -> Influence:
    """Classes of deviations 0.3 and 1.4, 2 and 40 % of them misclassified; the mistakes lie higher on dimension 3."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    wrong = torch.rand(n, generator=rng) < torch.tensor([0.02, 0.4])[y]
    deviation = torch.tensor([0.3, 1.4])[y, None]
    kept = deviation * torch.randn(n, dim, generator=rng) + 5.0 * y[:, None]
    kept[:, 3] += shift * deviation[:, 0] * wrong
    nothing = torch.zeros(2, dim)
    return Influence(
        mean=nothing,
        error=nothing,
        halves=nothing,
        count=y.bincount(),
        right=y[~wrong].bincount(),
        predicted=y.bincount(),
        centre=torch.stack([kept[y == k].mean(dim=0) for k in range(2)]),
        spread=torch.ones(dim),
        low=kept.amin(dim=0),
        high=kept.amax(dim=0),
        kept=kept,
        kept_right=~wrong,
        kept_y=y,
    )


def within_class(influence: Influence) -> tuple[Any, ...]:
    kept, right, y = influence.kept, influence.kept_right, influence.kept_y
    return _within_class(influence, kept, y), right, y


class TestMoreMistakes:
    """Of 600 samples, about four are beyond 2.5 deviations and misclassified: too few to compare with."""

    @pytest.fixture(scope="class")
    @classmethod
    def few(cls) -> StyleInfluenceResult:
        return measure(misled_beyond(2.5), PlantedStyles(), samples=600, mistakes=0)

    @pytest.fixture(scope="class")
    @classmethod
    def more(cls) -> StyleInfluenceResult:
        return measure(misled_beyond(2.5), PlantedStyles(), samples=600, mistakes=30)

    def test_are_drawn_until_there_are_as_many_as_asked_for(
        self, few: StyleInfluenceResult, more: StyleInfluenceResult
    ) -> None:
        assert few.summary["misclassified"] == more.summary["misclassified"] < 10
        assert few.summary["compared"] == pytest.approx(few.summary["misclassified"], abs=2)
        assert 28 <= more.summary["compared"] < 36

    def test_are_misclassified_as_those_of_the_population_are(self, more: StyleInfluenceResult) -> None:
        assert more.telling[0] == HARM
        assert float(more.ks[HARM]) > 0.97

    def test_take_away_what_is_chance(self, few: StyleInfluenceResult, more: StyleInfluenceResult) -> None:
        assert float(few.ks[HARMLESS]) > 0.25
        assert float(more.ks[HARMLESS]) < 0.25

    def test_change_nothing_else(self, few: StyleInfluenceResult, more: StyleInfluenceResult) -> None:
        for name in ("mean", "error", "count", "right", "spread", "shift", "images"):
            assert torch.equal(getattr(few, name), getattr(more, name)), name

    def test_are_given_up_after_eight_times_the_population(self) -> None:
        found = measure(misled_beyond(2.5), PlantedStyles(), samples=600, mistakes=10_000)
        assert 20 < found.summary["compared"] < 60


class TestComparedWithinClasses:
    def test_classes_that_differ_in_spread_and_in_mistakes_make_no_difference(self) -> None:
        influence = two_classes(shift=0.0)
        _, p = _compared(*within_class(influence))
        assert float(p.min()) > 0.05

    def test_a_difference_within_the_classes_is_found(self) -> None:
        influence = two_classes(shift=0.5)
        statistic, p = _compared(*within_class(influence))
        assert (p < 0.05).nonzero()[:, 0].tolist() == [3]
        # Of two normal distributions half a deviation apart.
        assert float(statistic[3]) == pytest.approx(2 * norm.cdf(0.25) - 1, abs=0.04)

    def test_of_one_class_it_is_the_statistic_of_scipy_and_p_a_bound_of_its_exact_one(self) -> None:
        rng = torch.Generator().manual_seed(0)
        for well, wrong in ((200, 120), (60, 7), (5, 4)):
            n = well + wrong
            # Rounded, so that some values are equal.
            values = (torch.randn(n, 8, generator=rng) * 5).round()
            right = torch.arange(n) < well
            statistic, p = _compared(values, right, torch.zeros(n, dtype=torch.long))
            for d in range(8):
                known = ks_2samp(values[right, d].numpy(), values[~right, d].numpy(), method="exact")
                assert float(statistic[d]) == pytest.approx(known.statistic, abs=1e-6)
                assert float(p[d]) >= min(1.0, 8 * known.pvalue) - 1e-6

    @pytest.mark.parametrize("counts", [[(200, 100)], [(20, 2)] * 10, [(490, 10), (5, 300)], [(1, 1)] * 10])
    def test_p_is_below_a_twentieth_no_more_often_than_it_may(self, counts: list[tuple[int, int]]) -> None:
        rng = torch.Generator().manual_seed(0)
        right = torch.cat([torch.arange(m + n) < m for m, n in counts])
        y = torch.cat([torch.full((m + n,), k) for k, (m, n) in enumerate(counts)])
        tests = [_compared(torch.randn(len(y), 1, generator=rng), right, y)[1] for _ in range(1000)]
        # 99.9 % of a binomial distribution of 1000 and 0.05 is below 0.073.
        assert float((torch.cat(tests) < 0.05).double().mean()) < 0.073

    def test_histograms_have_the_same_mix_of_classes_on_both_sides(self) -> None:
        influence = two_classes(shift=0.0)
        well, wrong = _in_like_mix(influence.kept_right, influence.kept_y)
        assert influence.kept_right[well].all()
        assert not influence.kept_right[wrong].any()
        shares = [influence.kept_y[rows].double().mean() for rows in (well, wrong)]
        assert float(shares[0]) == pytest.approx(float(shares[1]), abs=0.002)


class TestBadInput:
    def test_no_misclassified_sample_leaves_the_comparison_out(self) -> None:
        result = measure(misled_beyond(50.0), PlantedStyles(), samples=300)
        assert result.summary["misclassified"] == 0
        assert result.ks.isnan().all()
        assert "histograms" not in [figure.name for figure in result.figures]
        said = "None of 300 samples is misclassified: there are no two kinds to compare."
        assert result.findings[0].sentence.endswith(said)
        assert result.figures[0].caption.endswith(said)

    def test_no_rightly_classified_sample_is_said(self) -> None:
        result = measure(misled_beyond(-50.0), PlantedStyles(), samples=300)
        assert "It takes no sample for 2. It is wrong about every sample of 0 or 1." in result.findings[0].sentence
        assert "All of 300 samples are misclassified" in result.findings[0].sentence

    def test_a_class_that_is_never_predicted_is_named(self) -> None:
        result = measure(blind_to(2, harm=1.0), PlantedStyles(), samples=300)
        assert int(result.predicted[2]) == int(result.right[2]) == 0
        assert int(result.predicted.sum()) == 300
        assert result.findings[0].sentence.endswith("It takes no sample for 2.")
        assert result.figures[0].caption.endswith("It takes no sample for 2.")

    def test_a_constant_classifier_is_moved_by_nothing(self) -> None:
        result = measure(always(1), PlantedStyles(), samples=300)
        assert result.summary["significant"] == 0
        # Its mistakes are of other classes than what it gets right: that alone is no difference of styles.
        assert result.ks.isnan().all()
        assert result.findings[0].sentence == (
            "It gives every sample the same answer, 1. No class has samples of both kinds, well- and misclassified, to "
            "compare. No direction in which the images vary changes its score."
        )
        assert result.reached.tolist() == [0, 0]

    def test_exact_gradients_must_exist(self) -> None:
        known = misled_beyond(1.0)
        plain = Classifier(lambda x: known(x.detach()), image_shape=known.image_shape, name="plain")
        with pytest.raises(UnsupportedClassifier, match='Set `gradients` to "finite-differences"'):
            measure(plain, PlantedStyles(), gradients="exact")
        result = measure(plain, PlantedStyles(), difference_samples=60)
        assert float(result.gradient[HARM]) == pytest.approx(-1.0, abs=0.1)

    def test_a_generator_without_styles_or_condition_is_refused(self) -> None:
        with pytest.raises(UnsupportedGenerator, match="has no condition"):
            measure(misled_beyond(1.0), PlantedStyles(condition=False))
        vae = load_generator("embedded:mnist-vae-2d")
        x, y = torch.zeros(1, 1, 28, 28), torch.tensor([0])
        with pytest.raises(UnsupportedGenerator, match="a generator with styles for style influence"):
            StyleInfluence()(load_classifier("embedded:mnist-clean"), vae, x, y, rng=torch.Generator())

    @pytest.mark.usefixtures("as_installed")
    @pytest.mark.parametrize(
        "settings",
        [
            {"score": "luck"},
            {"gradients": "maybe"},
            {"samples": 1},
            {"top": 0},
            {"difference_samples": 2},
            {"mistakes": -1},
        ],
    )
    def test_settings_out_of_range_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Expected `"):
            StyleInfluence(**settings)


def test_digits_say_in_words_what_weighs_most() -> None:
    images = load_images("embedded:mnist-test").select(torch.arange(3))
    classifier, generator = load_classifier("embedded:mnist-corrupted"), load_generator("embedded:mnist-stylegan2")
    method = StyleInfluence(samples=600, top=3)
    result = method(classifier, generator, images.x, images.y, rng=torch.Generator().manual_seed(0))
    assert result.summary["significant"] > 10
    assert len(result.descriptions) == 3
    assert all(result.descriptions)
    drawing = next(figure for figure in result.figures if figure.name == "effects").draw()  # type: ignore[attr-defined]
    assert len(drawing.axes[0].get_yticklabels()) == 25
