from pathlib import Path
from typing import Any

import planted_styles as planted
import pytest
import torch
from torch import Tensor

from failscape import load_classifier, load_generator, load_images
from failscape.classifiers import Classifier
from failscape.errors import UnsupportedGenerator
from failscape.explain import RealDirections, RealDirectionsResult, StyleInfluence, StyleInfluenceResult, to_8_bits
from failscape.explain.shared_influence import sharing_influence
from failscape.figures import Gallery
from failscape.generators import Condition, ConditionSpace, Generator
from failscape.metrics import MEASUREMENTS, difference_of_rates
from failscape.report.run import read_run
from failscape.storage import write_json

LIMIT = 0.8
HARM, HARMLESS = 0, 1


def misled(slope: float = 30.0) -> Classifier:
    """Wrap a classifier that is wrong where the harm is above `LIMIT`; the harmless makes it less sure, never wrong."""

    def logits(x: Tensor) -> Tensor:
        quadrants = x[:, 0].unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)).flatten(1)[:, : planted.CLASSES]
        left = planted.GREY + 0.1 * LIMIT - x[:, 0, 2, 2]
        sureness = 2 - 2 * (x[:, 0, 2, 3] - planted.GREY)
        return slope * (left * sureness)[:, None] * (quadrants - planted.GREY)

    return Classifier(logits, image_shape=planted.SHAPE, name="misled")


def real_images(n: int, z: Tensor | None = None, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, labels, and their harm, harmless and dead latents."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, 3, generator=rng)
    z, y = drawn if z is None else z, torch.arange(n) % planted.CLASSES
    score = 0.3 + 0.7 * torch.rand(n, generator=rng)
    return to_8_bits(planted.PlantedStyles()(z, Condition(y=y, score=score))), y, z


def explain(
    x: Tensor, y: Tensor, classifier: Classifier | None = None, generator: Generator | None = None, **settings: Any
) -> RealDirectionsResult:
    method = RealDirections(**({"samples": 300, "top": 5} | settings))
    rng = torch.Generator().manual_seed(0)
    return method(classifier or misled(), generator or planted.PlantedStyles(), x, y, rng=rng)


@pytest.fixture(scope="module")
def truth() -> tuple[RealDirectionsResult, Tensor]:
    """600 real images of a world in which harm and harmless are independent."""
    x, y, z = real_images(600)
    return explain(x, y), z


def test_only_the_direction_that_truly_harms_is_confirmed(truth: Any) -> None:
    result, _ = truth
    assert result.dimensions.tolist() == [planted.HARM, planted.HARMLESS]
    assert [result.verdict(t) for t in range(2)] == ["confirmed on real images", "seen only in generated images"]
    assert (result.summary["confirmed"], result.summary["generated_only"]) == (1, 1)
    assert (result.effect < 0).all()


def test_an_image_has_the_place_that_its_style_gives_it(truth: Any) -> None:
    result, z = truth
    # An 8-bit image tells latents apart that differ by 0.04; the deviation within a class is 1 but for chance.
    for direction in (HARM, HARMLESS):
        slope = result.coordinates[:, direction] @ z[:, direction] / z[:, direction].square().sum()
        assert float(slope) == pytest.approx(1, abs=0.15)
        correlation = torch.corrcoef(torch.stack([result.coordinates[:, direction], z[:, direction]]))[0, 1]
        assert correlation > 0.97


def test_accuracy_is_that_of_the_real_images_in_the_order_of_their_harm(truth: Any) -> None:
    result, z = truth
    assert torch.equal(result.right, misled().predict(result.originals) == result.labels)
    right = z[:, HARM].sort().values < LIMIT
    for found, expected in zip(result.accuracy(HARM), right.tensor_split(5), strict=True):
        assert found.n == 120
        assert found.value == pytest.approx(float(expected.float().mean()), abs=0.1)
    assert result.accuracy(HARM)[0].value == 1


def test_the_interval_is_corrected_for_the_number_of_directions(truth: Any) -> None:
    result, _ = truth
    *rest, last = result.along(HARMLESS).tensor_split(5)
    # Of both ends of two.
    expected = difference_of_rates(result.right[last], result.right[torch.cat(rest)], level=1 - 0.05 / 4)
    assert result.difference(HARMLESS) == expected
    first, *rest = result.along(HARMLESS).tensor_split(5)
    expected = difference_of_rates(result.right[first], result.right[torch.cat(rest)], level=1 - 0.05 / 4)
    assert result.difference_at_other_end(HARMLESS) == expected


def test_reconstructions_are_seen_as_the_images_are(truth: Any) -> None:
    result, _ = truth
    # A mistaken image is asked for as what it is taken for, and shows another class: that is the hard case.
    assert result.agrees[result.right].float().mean() > 0.97
    assert result.summary["agreement"] > 0.8
    assert result.summary["error"] < result.summary["encoder_error"]
    assert result.verification is not None
    assert torch.equal(result.agrees, result.verification.prediction == misled().predict(result.originals))
    assert result.table.num_rows == 600


def test_the_finding_shows_mistakes_of_the_far_end(truth: Any) -> None:
    result, z = truth
    (finding,) = result.findings
    assert finding.sentence.startswith("Real images fail along 1 of the 2 directions along which generated images fail")
    assert ": farthest along s3" in finding.sentence
    assert "of 120 real images" in finding.sentence
    assert len(finding.panels) == 6
    farthest = result.originals[z[:, HARM].argsort(descending=True)[:60]]
    assert all(any(torch.equal(panel.pixels, image) for image in farthest) for panel in finding.panels)
    assert all("taken for" in panel.label for panel in finding.panels)


def test_figures_show_accuracy_ends_and_reconstructions(truth: Any) -> None:
    accuracy, ends, gallery = truth[0].figures
    assert (accuracy.name, ends.name, gallery.name) == ("real-accuracy", "ends", "reconstructions")
    assert isinstance(gallery, Gallery)
    assert [case.good for case in gallery.cases] == truth[0].agrees.tolist()


def test_a_direction_may_help_real_images() -> None:
    # In this world images with much of the harmless have little harm.
    _, _, z = real_images(400)
    x, y, _ = real_images(400, torch.stack([z[:, 0], -z[:, 0] + 0.1 * z[:, 1], z[:, 2]], dim=1))
    result = explain(x, y)
    assert [result.verdict(t) for t in range(2)] == ["confirmed on real images", "rises on real images"]
    assert result.summary["rising"] == 1


def mistaken_where(z: Tensor, mistaken: Tensor) -> RealDirectionsResult:
    """Return what is found where the classifier is right of images but for those whose labels are wrong."""
    x, y, _ = real_images(len(z), z)
    return explain(x, torch.where(mistaken, (y + 1) % planted.CLASSES, y))


@pytest.mark.parametrize(
    ("worse", "verdict"),
    [(0.25, "real images fail at its other end"), (0.0, "real images fail less at its other end")],
)
def test_what_changes_at_the_other_end_is_not_seen_in_generated_images_alone(worse: float, verdict: str) -> None:
    # Accuracy is 90 % but for the fifth of the images with the least of the harmless.
    rng = torch.Generator().manual_seed(5)
    z = torch.randn(1000, 3, generator=rng).clamp_max(LIMIT - 0.2)
    least = z[:, HARMLESS].argsort()[:200]
    chance = torch.full((1000,), 0.1).index_fill(0, least, worse)
    result = mistaken_where(z, torch.rand(1000, generator=rng) < chance)
    assert result.verdict(HARMLESS) == verdict
    assert result.verdict(HARM) == "seen only in generated images"
    assert (result.summary["other_end"], result.summary["generated_only"]) == (1, 1)
    assert result.difference(HARMLESS).low < 0 < result.difference(HARMLESS).high
    sentence = result.findings[0].sentence
    assert sentence.startswith("None of the 2 directions along which generated images fail is confirmed")
    assert ("Along 1 of the 2 real images fail at the end where generated ones do not." in sentence) == (worse > 0)


def test_a_style_that_only_rides_along_is_seen_by_the_control() -> None:
    # The harmless goes with the harm in real images, and is neither looked for nor a cause of anything.
    _, _, z = real_images(600)
    for rides in (True, False):
        latents = torch.stack([z[:, 0], z[:, 0] + 0.3 * z[:, 1], z[:, 2]], dim=1) if rides else z
        x, y, _ = real_images(600, latents)
        result = explain(x, y, top=1)
        assert result.dimensions.tolist() == [planted.HARM]
        assert result.verdict(HARM) == "confirmed on real images"
        # Styles that say the class do not vary within it.
        assert sorted(result.controls.tolist()) == [planted.HARMLESS, planted.DEAD, planted.SCORE]
        assert result.controls_confirmed[result.controls == planted.HARMLESS].tolist() == [rides]
        found = int(result.controls_confirmed.sum())
        chance = ": no more than chance would have it" if found else ""
        said = f"Of 1 directions 1 is confirmed, where {found} of 3 other styles drawn at random are{chance}."
        assert result.is_beyond_chance is (found == 0)
        assert said in result.findings[0].sentence
        assert said in result.figures[0].caption
        assert (result.summary["controls"], result.summary["controls_confirmed"]) == (3, found)


def test_directions_that_find_the_same_images_count_once() -> None:
    _, _, z = real_images(600)
    x, y, _ = real_images(600, torch.stack([z[:, 0], z[:, 0] + 0.3 * z[:, 1], z[:, 2]], dim=1))
    result = explain(x, y, controls=0)
    assert result.confirmed == [HARM, HARMLESS]
    assert result.distinct == [HARM]
    assert (result.summary["confirmed"], result.summary["distinct"]) == (2, 1)
    sentence = result.findings[0].sentence
    assert "Among the 2, 1 is distinct: the last parts of the others hold mostly the same images." in sentence
    assert "at random" not in sentence
    assert len(result.controls) == 0


def test_the_far_end_is_told_by_how_its_images_look() -> None:
    # In this world the quadrants that say the class are darker where there is much harm.
    x, y, z = real_images(200)
    dimmed = x * (1 - 0.3 * (z[:, HARM] > LIMIT).float())[:, None, None, None]
    dimmed[:, :, 2:, 2:] = x[:, :, 2:, 2:]
    dimmed = to_8_bits(dimmed)
    result = explain(dimmed, y)
    contrast = MEASUREMENTS["contrast"](dimmed)
    means = torch.stack([contrast[result.prediction == k].mean() for k in range(planted.CLASSES)])
    within = (contrast - means[result.prediction])[result.along(HARM)]
    lower = float(within[:160].mean() - within[160:].mean())
    assert lower > 0.1
    assert f"lowers the contrast (−{lower:.2f})" in result.descriptions[HARM]
    assert "contrast" not in result.descriptions[HARMLESS]


def test_the_look_of_a_class_that_lies_far_out_is_not_told_as_the_directions() -> None:
    # Class 2 has more harm than others, though never enough to mislead, and darker quadrants, whatever its harm.
    rng = torch.Generator().manual_seed(5)
    z = torch.randn(600, 3, generator=rng)
    dark = torch.arange(600) % planted.CLASSES == 2
    z[:, HARM] = torch.where(dark, 0.2, -1.5) + 0.5 * torch.rand(600, generator=rng)
    x, y, _ = real_images(600, z)
    dimmed = x * (1 - 0.3 * dark.float())[:, None, None, None]
    dimmed[:, :, 2:, 2:] = x[:, :, 2:, 2:]
    dimmed = to_8_bits(dimmed)
    result = explain(dimmed, y)
    assert result.right.all()
    last = result.along(HARM).tensor_split(5)[-1]
    assert dark[last].all()
    for name in ("ink", "vertical position"):
        values = MEASUREMENTS[name](dimmed)
        assert float(values[dark].nanmean() - values[~dark].nanmean()) > MEASUREMENTS[name].smallest
    assert result.descriptions[HARM] == ""


def test_labels_do_not_enter_an_images_place() -> None:
    x, y, _ = real_images(40)
    one, other = explain(x, y), explain(x, (y + 1) % planted.CLASSES)
    assert torch.equal(one.coordinates, other.coordinates)
    assert torch.equal(one.images, other.images)
    assert not torch.equal(one.right, other.right)


def test_an_image_has_its_place_whatever_else_is_given() -> None:
    x, y, _ = real_images(110)
    together, alone = explain(x, y), explain(x[103:], y[103:])
    assert torch.allclose(alone.coordinates, together.coordinates[103:], atol=1e-3)
    assert torch.equal(explain(x[:9], y[:9]).coordinates, explain(x[:9], y[:9]).coordinates)


def test_without_a_mistake_nothing_can_be_tested() -> None:
    x, y, z = real_images(200)
    good = z[:, HARM] < LIMIT - 0.1
    result = explain(x[good], y[good])
    assert bool(result.right.all())
    assert result.summary["untestable"] == 2
    assert "largest_fall" not in result.summary
    (finding,) = result.findings
    assert finding.sentence.endswith(f"cannot be said: none of the {int(good.sum())} real images is misclassified.")
    for figure in result.figures[:2]:
        figure.draw()  # type: ignore[attr-defined]


def test_with_mistakes_alone_nothing_can_be_tested() -> None:
    x, y, z = real_images(200)
    bad = z[:, HARM] > LIMIT + 0.1
    (finding,) = explain(x[bad], y[bad]).findings
    assert finding.sentence.endswith("cannot be said: none is right.")


def test_fewer_images_than_bins_cannot_be_parted() -> None:
    x, y, _ = real_images(4)
    result = explain(x, y)
    assert result.verdict(HARM) == "not testable"
    assert result.findings[0].sentence.endswith("cannot be said: they are fewer than 5.")
    assert [figure.name for figure in result.figures] == ["reconstructions"]


def test_a_constant_classifier_has_no_directions() -> None:
    x, y, _ = real_images(12)
    result = explain(x, y, planted.always(1))
    assert result.coordinates.shape == (12, 0)
    assert result.summary["directions"] == 0
    assert result.findings[0].sentence.startswith("No style of the generator changes this classifier's score")
    assert [figure.name for figure in result.figures] == ["reconstructions"]


def test_nothing_is_confirmed_where_real_images_fail_by_chance() -> None:
    x, y, z = real_images(400)
    kind = z[:, HARM] < LIMIT - 0.1
    x, y = x[kind], y[kind].clone()
    y[::10] = (y[::10] + 1) % planted.CLASSES
    result = explain(x, y)
    assert result.summary["generated_only"] == 2
    assert result.findings[0].sentence.startswith("None of the 2 directions along which generated images fail is con")
    assert not result.findings[0].panels


def test_what_the_classifier_is_sure_of_is_no_place() -> None:
    # Dim images are doubted and often mistaken, whatever their harm; to ask for doubt would be to ask for harm.
    rng = torch.Generator().manual_seed(5)
    z, y = torch.randn(400, 3, generator=rng).clamp_max(LIMIT - 0.2), torch.arange(400) % planted.CLASSES
    x = planted.PlantedStyles()(z, Condition(y=y, score=torch.full((400,), 0.999)))
    dim = torch.arange(400) // planted.CLASSES % 4 == 0
    corner = x[:, :, 2:, 2:].clone()
    x[dim] = planted.GREY + 0.3 * (x[dim] - planted.GREY)
    x[:, :, 2:, 2:] = corner
    labels = torch.where(dim & (torch.rand(400, generator=rng) < 0.7), (y + 1) % planted.CLASSES, y)
    # Without steps: a dim image is none that this generator draws, and no styles but those asked for should tell of it.
    result = explain(to_8_bits(x), labels, generator=planted.PlantedStyles(pull=4.0), steps=0)
    sure = result.probs.amax(dim=1).argsort()
    assert result.right[sure[:80]].float().mean() < result.right[sure[80:]].float().mean() - 0.2
    assert result.dimensions[0] == planted.HARM
    assert result.verdict(HARM) == "seen only in generated images"
    assert result.summary["confirmed"] == 0


@pytest.mark.parametrize(
    ("score", "asked"), [("confidence", [0.999] * 3), ("true-class", [0.999] * 3), ("entropy", [0.4, 0.5, 0.6])]
)
def test_every_image_is_asked_for_at_one_score(score: str, asked: list[float], monkeypatch: Any) -> None:
    from failscape.explain import real_directions

    given: list[Condition] = []

    def invert(generator: Any, x: Tensor, condition: Condition, **settings: Any) -> Any:
        given.append(condition)
        return real_invert(generator, x, condition, **settings)

    real_invert = real_directions.invert
    monkeypatch.setattr(real_directions, "invert", invert)
    generator = planted.PlantedStyles()
    quantiles = [[0.3, median, 1.0] for median in (0.4, 0.5, 0.6)]
    generator.condition_space = ConditionSpace(num_classes=3, score=score, quantiles=quantiles)
    x, y, _ = real_images(30)
    result = explain(x, y, generator=generator)
    (condition,) = given
    assert torch.equal(condition.y, result.prediction)
    assert torch.allclose(condition.score, torch.tensor(asked, dtype=torch.float64)[result.prediction])


def test_too_few_mistakes_can_test_nothing() -> None:
    x, y, z = real_images(400)
    kind = z[:, HARM] < LIMIT - 0.1
    x, y = x[kind][:200], y[kind][:200].clone()
    for mistakes, verdict in ((1, "not testable"), (10, "seen only in generated images")):
        wrong = y.clone()
        wrong[:mistakes] = (y[:mistakes] + 1) % planted.CLASSES
        result = explain(x, wrong)
        assert [result.verdict(t) for t in range(2)] == [verdict] * 2
        last = torch.arange(40) >= mistakes
        best = difference_of_rates(last, torch.ones(160, dtype=torch.bool), level=1 - 0.05 / 4)
        assert (best.high < 0) == (verdict != "not testable")
    wrong = (y + 1) % planted.CLASSES
    wrong[7] = y[7]
    (finding,) = explain(x, wrong).findings
    assert finding.sentence.endswith(
        "cannot be said: 1 of the 200 real images is classified rightly, which is too few."
    )


def test_a_classifier_without_gradients_is_explained_too(truth: Any) -> None:
    x, y, _ = real_images(90)
    blind = Classifier(lambda x: misled()(x.detach()).numpy(), image_shape=planted.SHAPE, name="no gradients")
    result = explain(x, y, blind)
    assert not blind.differentiable
    assert result.dimensions[:1].tolist() == [planted.HARM]
    assert result.verdict(HARM) == "confirmed on real images"


def test_images_of_a_class_that_is_never_drawn_have_no_place() -> None:
    generator = planted.PlantedStyles()
    generator.condition_space = ConditionSpace(num_classes=3, supported=[[0.3, 1.0], [0.3, 1.0], [1.0, 0.0]])
    x, y, _ = real_images(90)
    result = explain(x, y, generator=generator)
    lost = result.prediction == 2
    assert 0 < int(lost.sum()) < 90
    assert torch.equal(result.coordinates[:, HARM].isnan(), lost)
    assert len(result.along(HARM)) == 90 - int(lost.sum())
    assert sum(each.n for each in result.accuracy(HARM)) == 90 - int(lost.sum())


def test_real_digits_are_agreed_on() -> None:
    images = load_images("embedded:mnist-test+half-corrupted").select(torch.arange(40))
    classifier, generator = load_classifier("embedded:mnist-corrupted"), load_generator("embedded:mnist-stylegan2")
    method = RealDirections(samples=100, top=2)
    result = method(classifier, generator, images.x, images.y, rng=torch.Generator().manual_seed(0), ids=images.ids)
    assert result.summary["agreement"] >= 0.95
    assert result.summary["error"] < result.summary["encoder_error"]
    assert result.ids == tuple(images.ids)


def test_the_directions_that_lead_are_those_tested_and_say_what_was_found(tmp_path: Path) -> None:
    x, y, _ = real_images(600)
    methods: dict[str, Any] = {
        "style-influence": StyleInfluence(samples=300, top=3),
        "real-directions": RealDirections(samples=300),
        "of-another-classifier": StyleInfluence(samples=300, top=3),
    }
    classifier, generator = misled(), planted.PlantedStyles()
    with sharing_influence():
        for number, (name, method) in enumerate(methods.items(), start=1):
            result = method(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))
            folder = tmp_path / "steps" / f"{number:02d}-{name}"
            result.save(folder)
            models = {"classifier": "other" if name.startswith("of") else "misled", "generator": "planted"}
            write_json(folder / "step.json", models | {"name": name, "method": name, "status": "done"})
    influence, real, other = (step.result for step in read_run(tmp_path).steps)
    assert isinstance(influence, StyleInfluenceResult)
    assert isinstance(real, RealDirectionsResult)
    assert isinstance(other, StyleInfluenceResult)
    assert influence.ranking[:2].tolist() == real.dimensions.tolist() == [planted.HARM, planted.HARMLESS]
    said = dict(zip(influence.ids, influence.table["on_real_images"].to_pylist(), strict=True))
    # So is one of the two styles drawn at random.
    assert real.controls_confirmed.sum() == 1
    assert said.pop(f"s{planted.HARM}") == "confirmed on real images, as random styles are"
    assert said.pop(f"s{planted.HARMLESS}") == "seen only in generated images"
    assert set(said.values()) == {"not tested"}
    # What the harm does to a picture is none of what is measured: the first that can be named is the harmless.
    assert "this one costs it most of those whose effect can be named" in influence.findings[0].sentence
    assert "It is seen only in generated images" in influence.findings[0].sentence
    (gallery,) = (figure for figure in influence.figures if isinstance(figure, Gallery))
    assert gallery.cases[0].numbers["on_real_images"] == "confirmed on real images, as random styles are"
    assert "on_real_images" not in other.table.column_names
    assert "eal images" not in other.findings[0].sentence


def test_generators_that_cannot_be_asked_are_refused(world: Any) -> None:
    x, y, _ = real_images(3)
    with pytest.raises(UnsupportedGenerator, match="Expected a generator that can be asked for each of the 3 classes"):
        explain(x, y, generator=planted.PlantedStyles(condition=False))
    with pytest.raises(UnsupportedGenerator, match="Expected a generator with styles for real directions"):
        explain(world.mistakes.x[:2], world.mistakes.y[:2], world.classifier, world.ten)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 5}, "Expected `samples` of at least 20"),
        ({"top": 0}, "`top` and `shown` of at least 1"),
        ({"steps": -1}, "`steps` and `controls` of at least 0, but got 20000, 10, 6, -1, 50"),
        ({"controls": -1}, "`steps` and `controls` of at least 0, but got 20000, 10, 6, 25, -1"),
        ({"score": "luck"}, "Expected `score` to be one of logit-margin"),
        ({"bins": 1}, "Expected at least 2 `bins`"),
        ({"space": "z"}, "Expected `space` to be 'w' or 's', but got 'z'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RealDirections(**settings)
