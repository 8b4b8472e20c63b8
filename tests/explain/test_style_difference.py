"""Differences between classifiers that are misled by a planted style, each more or less than the other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted_styles import CLASSES, HARM, SCALE, SHAPE, PlantedStyles, always, misled_beyond

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, UnsupportedGenerator
from failscape.explain import StyleDifference, StyleDifferenceResult, load_result
from failscape.figures import Gallery

# The margin falls by so much for one unit of harm, for each unit of slope; a unit is the deviation of the harm.
FALL = 0.04


def compare(*classifiers: Classifier, generator: Any = None, seed: int = 0, **settings: Any) -> StyleDifferenceResult:
    drawn = PlantedStyles() if generator is None else generator
    method = StyleDifference(**{"others": classifiers[1:], "samples": 600, "top": 2} | settings)
    x, y = torch.full((1, *SHAPE), 0.5), torch.zeros(1, dtype=torch.long)
    return method(classifiers[0], drawn, x, y, rng=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def result() -> StyleDifferenceResult:
    """Of one that is wrong beyond one deviation, one that is beyond three, and one that heeds nothing."""
    return compare(misled_beyond(1.0, slope=100, name="weak"), misled_beyond(3.0, slope=25, name="strong"), always(0))


def test_the_planted_style_comes_first_and_by_as_much_as_was_planted(result: StyleDifferenceResult) -> None:
    assert int(result.ranking[0]) == HARM
    # Within a class the deviation of the harm is one unit, up to the sampling of 600.
    assert result.effect[:, HARM].tolist() == pytest.approx([-100 * FALL, -25 * FALL, 0], rel=0.1, abs=1e-6)
    assert result.difference[:, HARM].tolist() == pytest.approx([75 * FALL, 100 * FALL], rel=0.1)
    assert result.beyond_chance.nonzero()[:, 0].tolist() == [HARM]
    assert result.summary["differing"] == 1
    assert result.table["rank"].to_pylist()[HARM] == 1


def test_all_are_measured_on_the_same_samples(result: StyleDifferenceResult) -> None:
    # Gradients are in proportion, sample for sample, so their errors are, too.
    ratio = result.effect[0] / result.effect[1]
    heeded = result.effect[0].abs() > 1e-6
    assert torch.allclose(ratio[heeded], torch.tensor(4.0), rtol=1e-3)
    assert result.samples == 600
    # Right are those below one deviation, of which a normal distribution holds 84 %, and below three.
    assert result.summary["accuracy"] == pytest.approx(0.841, abs=0.05)
    assert result.summary["accuracy of strong"] >= 0.99
    assert result.summary["accuracy of constant"] == pytest.approx(1 / CLASSES)
    assert result.summary["accuracy_low"] < result.summary["accuracy"] < result.summary["accuracy_high"]


def test_the_difference_is_told_in_its_standard_errors(result: StyleDifferenceResult) -> None:
    error = (result.error[1].square() + result.error[0].square()).sqrt()
    heeded = error > 0
    assert torch.allclose(result.z[0][heeded], ((result.effect[1] - result.effect[0]) / error)[heeded])
    column = result.table["standard errors of strong"].to_pylist()
    assert column[HARM] == pytest.approx(float(result.z[0, HARM]))


def test_equal_classifiers_differ_on_nothing() -> None:
    same = compare(misled_beyond(1.0), misled_beyond(1.0))
    assert same.classifiers == ("planted", "planted (2)")
    assert same.difference.abs().max() == 0
    assert same.summary["differing"] == 0
    assert same.summary["agreement with planted (2)"] == pytest.approx(1)
    (finding,) = same.findings
    assert finding.sentence.startswith("On none of 7 directions in which the images vary do planted and planted (2)")
    assert len(finding.panels) == 0


def test_the_pictures_are_the_mean_picture_moved_and_what_each_says_of_them(result: StyleDifferenceResult) -> None:
    assert result.verification is not None
    assert int(result.shown[0]) == HARM
    assert result.deviations.tolist() == pytest.approx([-3, -2, -1, 0, 1, 2, 3])
    harm = result.images[:7, 0, 2, 2]
    # One unit of harm is a tenth of the grey values; the mean harm of 600 samples is about 0.
    assert harm.diff().tolist() == pytest.approx([0.1] * 6, rel=0.1)
    label = int(result.start[0])
    assert result.probability[0, 0].tolist() == pytest.approx(result.verification.probs[:7, label].tolist())
    again = misled_beyond(3.0, slope=25).probs(result.images)[:7, label]
    assert result.probability[1, 0].tolist() == pytest.approx(again.tolist())
    # The weak one is wrong from two deviations on, the strong one nowhere short of three.
    assert (result.verification.probs[:7].argmax(dim=1) == label).tolist() == [True] * 4 + [True, False, False] or (
        result.verification.probs[:7].argmax(dim=1) == label
    ).tolist() == [True] * 4 + [False] * 3


def test_the_finding_names_the_direction_and_what_it_does_to_each() -> None:
    two = compare(misled_beyond(1.0, slope=100, name="weak"), misled_beyond(9.0, slope=50, name="strong"))
    (finding,) = two.findings
    assert finding.sentence.startswith("weak and strong differ on 1 of 7 directions in which the images vary; moved")
    assert f"along one that {two.descriptions[0].split(' (')[0]}, a " in finding.sentence
    assert " for weak and " in finding.sentence
    assert finding.sentence.endswith(" for strong.")
    assert len(finding.panels) == 4
    assert torch.equal(finding.panels[0].pixels, two.images[3]), "from the start"
    assert torch.equal(finding.panels[3].pixels, two.images[6]), "to where more harm misleads one of them"
    assert all(panel.label.startswith("weak: ") and "; strong: " in panel.label for panel in finding.panels)


def test_cases_say_whether_the_verdicts_part(result: StyleDifferenceResult) -> None:
    *plots, gallery = result.figures
    assert [plot.name for plot in plots] == ["differences-1", "differences-2", "side-by-side"]
    assert isinstance(gallery, Gallery)
    assert gallery.cases[0].line is not None
    assert list(gallery.cases[0].line.curves) == ["weak", "strong", "constant"]
    pair = compare(misled_beyond(50.0, slope=50, name="one"), misled_beyond(50.0, slope=25, name="other"))
    (case, *_) = pair.figures[-1].cases  # type: ignore[attr-defined]
    assert not case.good
    assert case.verdict.startswith("Failed: the classifiers say the same")


def test_without_gradients_differences_find_the_same() -> None:
    def blind(classifier: Classifier) -> Classifier:
        return Classifier(lambda x: classifier(x.detach()).numpy(), image_shape=SHAPE, name=classifier.name)

    weak, strong = misled_beyond(1.0, slope=100, name="weak"), misled_beyond(3.0, slope=25, name="strong")
    for pair in ((blind(weak), strong), (weak, blind(strong))):
        found = compare(*pair)
        assert int(found.ranking[0]) == HARM
        assert found.samples == 200
        assert float(found.difference[0, HARM]) == pytest.approx(75 * FALL, rel=0.15)


def test_styles_in_other_units_are_told_alike() -> None:
    # The harm's style has twice the units of `w`: per deviation that makes no difference.
    assert float(SCALE[HARM]) == 2
    influence = compare(misled_beyond(1.0, slope=100), misled_beyond(1.0, slope=50))
    assert float(influence.difference[0, HARM]) == pytest.approx(50 * FALL, rel=0.1)


def test_follows_the_seed_and_survives_saving(result: StyleDifferenceResult, tmp_path: Path) -> None:
    result.save(tmp_path)
    loaded = load_result(tmp_path)
    assert loaded.table.equals(result.table)
    assert loaded.findings[0].sentence == result.findings[0].sentence
    again = compare(misled_beyond(1.0), misled_beyond(2.0), seed=3)
    assert torch.equal(again.effect, compare(misled_beyond(1.0), misled_beyond(2.0), seed=3).effect)
    assert not torch.equal(again.effect, compare(misled_beyond(1.0), misled_beyond(2.0), seed=4).effect)


def test_what_cannot_be_compared_is_refused(world: Any) -> None:
    three = Classifier(lambda x: torch.zeros(len(x), 2) + x.mean(), image_shape=SHAPE, name="two classes")
    with pytest.raises(ClassifierError, match="two classes takes"):
        compare(misled_beyond(1.0), three)
    with pytest.raises(UnsupportedGenerator, match="styles for style difference"):
        StyleDifference(others=(world.classifier,))(
            world.classifier, world.ten, world.images.x[:1], world.images.y[:1], rng=torch.Generator()
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"others": ()}, "at least one classifier in `others`"),
        ({"score": "loss"}, "`score` to be one of logit-margin"),
        ({"samples": 19}, "`samples` of at least 20"),
        ({"top": 0}, "`top` of at least 1"),
        ({"reach": 0.0}, "positive `reach`"),
        ({"reach": float("inf")}, "positive `reach`"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str, as_installed: None) -> None:
    with pytest.raises(ValueError, match=words):
        StyleDifference(**{"others": (always(0),)} | settings)
