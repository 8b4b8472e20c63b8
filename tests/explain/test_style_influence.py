from dataclasses import replace
from typing import Any

import pytest
import torch
from planted_styles import HARM, HARMLESS, PlantedStyles, always, blind_to, misled_beyond
from scipy.stats import norm

from failscape.classifiers import Classifier, load_classifier
from failscape.data import load_images
from failscape.errors import UnsupportedClassifier, UnsupportedGenerator
from failscape.explain import StyleInfluence, StyleInfluenceResult
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
        probabilities = [float(panel.label.split(": ")[1]) for panel in finding.panels]
        assert probabilities == pytest.approx(planted.probability[shown].tolist(), abs=0.006)
        assert "at the start and moved by so many deviations (σ) along it" in finding.sentence

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
        "settings", [{"score": "luck"}, {"gradients": "maybe"}, {"samples": 1}, {"top": 0}, {"difference_samples": 2}]
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
