"""Differences between classifiers that are misled by a planted style, each more or less than the other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted_styles import CLASSES, GREY, HARM, HARMLESS, SCALE, SHAPE, STYLES, PlantedStyles, always, misled_beyond
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, UnsupportedGenerator
from failscape.explain import StyleDifference, StyleDifferenceResult, load_result
from failscape.figures import Gallery

# Of effects of which one alone is not zero, that one in units of the root mean square of all.
ALONE = STYLES**0.5


def heeding_both(limit: float, name: str = "both") -> Classifier:
    """Wrap a classifier that is right where 0.8 of the harm and 0.6 of the harmless are together below a limit.

    Its margin falls in these proportions, whose squares sum to one.
    """

    def logits(x: Tensor) -> Tensor:
        quadrants = x[:, 0].unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)).flatten(1)[:, :CLASSES]
        left = 0.1 * limit - 0.8 * (x[:, 0, 2, 2] - GREY) - 0.6 * (x[:, 0, 2, 3] - GREY)
        return 25 * left[:, None] * (quadrants - GREY)

    return Classifier(logits, image_shape=SHAPE, name=name)


def compare(*classifiers: Classifier, generator: Any = None, seed: int = 0, **settings: Any) -> StyleDifferenceResult:
    drawn = PlantedStyles() if generator is None else generator
    method = StyleDifference(**{"others": classifiers[1:], "samples": 600, "top": 2} | settings)
    x, y = torch.full((1, *SHAPE), 0.5), torch.zeros(1, dtype=torch.long)
    return method(classifiers[0], drawn, x, y, rng=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def result() -> StyleDifferenceResult:
    """Of one that is wrong beyond one deviation, one that heeds another style, too, and one that heeds nothing."""
    return compare(misled_beyond(1.0, slope=100, name="weak"), heeding_both(3.0, "strong"), always(0))


def test_the_planted_style_comes_first_and_by_as_much_as_was_planted(result: StyleDifferenceResult) -> None:
    assert int(result.ranking[0]) == HARM
    # Within a class the deviations of harm and harmless are one unit, up to the sampling of 600.
    planted = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 0.0]]) * -ALONE
    assert torch.allclose(result.effect[:, [HARM, HARMLESS]], planted, atol=0.1)
    assert torch.allclose(result.difference[:, [HARM, HARMLESS]], planted[1:] - planted[0], atol=0.1)
    assert result.beyond_chance.nonzero()[:, 0].tolist() == [HARM, HARMLESS]
    assert result.summary["differing"] == 2
    assert result.table["rank"].to_pylist()[HARM] == 1


def test_all_are_measured_on_the_same_samples(result: StyleDifferenceResult) -> None:
    assert result.samples == 600
    # Right are those below one deviation, of which a normal distribution holds 84 %, and below three.
    assert result.summary["accuracy"] == pytest.approx(0.841, abs=0.05)
    assert result.summary["accuracy of strong"] >= 0.99
    assert result.summary["accuracy of constant"] == pytest.approx(1 / CLASSES)
    assert result.summary["accuracy_low"] < result.summary["accuracy"] < result.summary["accuracy_high"]


def test_the_difference_is_told_in_its_standard_errors() -> None:
    # The gradient of a probability differs from sample to sample, that of these margins does not.
    result = compare(misled_beyond(1.0), heeding_both(3.0, "strong"), score="probability")
    error = (result.error[1].square() + result.error[0].square()).sqrt()
    heeded = error > 1e-3
    assert heeded.nonzero()[:, 0].tolist() == [HARM, HARMLESS]
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


@pytest.mark.parametrize("factor", [2.0, 0.3])
def test_a_temperature_is_no_difference(factor: float) -> None:
    classifier = heeding_both(1.0).with_temperature(0.7)
    same = compare(classifier, classifier.with_temperature(0.7 * factor))
    assert torch.allclose(same.effect[0], same.effect[1], rtol=1e-4, atol=1e-6)
    assert same.summary["differing"] == 0
    assert same.effect.square().mean(dim=1).tolist() == pytest.approx([1, 1])


def test_the_pictures_are_the_mean_picture_moved_and_what_each_says_of_them(result: StyleDifferenceResult) -> None:
    assert result.verification is not None
    assert int(result.shown[0]) == HARM
    assert result.deviations.tolist() == pytest.approx([-3, -2, -1, 0, 1, 2, 3])
    harm = result.images[:7, 0, 2, 2]
    # One unit of harm is a tenth of the grey values; the mean harm of 600 samples is about 0.
    assert harm.diff().tolist() == pytest.approx([0.1] * 6, rel=0.1)
    label = int(result.start[0])
    assert result.probability[0, 0].tolist() == pytest.approx(result.verification.probs[:7, label].tolist())
    again = heeding_both(3.0).probs(result.images)[:7, label]
    assert result.probability[1, 0].tolist() == pytest.approx(again.tolist())
    # The weak one is wrong from two deviations on, the strong one nowhere short of three.
    assert (result.verification.probs[:7].argmax(dim=1) == label).tolist() == [True] * 4 + [True, False, False] or (
        result.verification.probs[:7].argmax(dim=1) == label
    ).tolist() == [True] * 4 + [False] * 3


def test_the_finding_names_the_direction_and_what_it_does_to_each() -> None:
    two = compare(misled_beyond(1.0, slope=100, name="weak"), heeding_both(9.0, "strong"))
    (finding,) = two.findings
    assert finding.sentence.startswith("weak and strong differ on 2 of 7 directions in which the images vary; moved")
    # They differ most on the harmless, which within reach changes no verdict; harm, the second, does.
    assert two.shown.tolist() == [HARMLESS, HARM]
    assert f"along one that {two.descriptions[1].split(' (')[0]}, a " in finding.sentence
    assert " for weak and " in finding.sentence
    assert finding.sentence.endswith(" for strong.")
    assert len(finding.panels) == 4
    assert torch.equal(finding.panels[0].pixels, two.images[10]), "from the start"
    assert torch.equal(finding.panels[3].pixels, two.images[13]), "to where more harm misleads one of them"
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

    weak, strong = misled_beyond(1.0, slope=100, name="weak"), heeding_both(3.0, "strong")
    for pair in ((blind(weak), strong), (weak, blind(strong))):
        found = compare(*pair)
        assert int(found.ranking[0]) == HARMLESS
        assert found.samples == 600
        assert float(found.difference[0, HARMLESS]) == pytest.approx(-0.6 * ALONE, rel=0.15)


def test_styles_in_other_units_are_told_alike() -> None:
    # The harm's style has twice the units of `w`, the harmless half: per deviation that makes no difference.
    assert SCALE[[HARM, HARMLESS]].tolist() == [2, 0.5]
    effect = compare(heeding_both(1.0), always(0)).effect[0]
    assert float(effect[HARM] / effect[HARMLESS]) == pytest.approx(4 / 3, rel=0.1)


def test_follows_the_seed_and_survives_saving(result: StyleDifferenceResult, tmp_path: Path) -> None:
    result.save(tmp_path)
    loaded = load_result(tmp_path)
    assert loaded.table.equals(result.table)
    assert loaded.findings[0].sentence == result.findings[0].sentence
    again = compare(misled_beyond(1.0), heeding_both(2.0), seed=3)
    assert torch.equal(again.effect, compare(misled_beyond(1.0), heeding_both(2.0), seed=3).effect)
    assert not torch.equal(again.effect, compare(misled_beyond(1.0), heeding_both(2.0), seed=4).effect)


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
