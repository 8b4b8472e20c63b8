import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from failscape import load_classifier, load_images
from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, DataError
from failscape.explain import Calibration, CalibrationResult, load_result
from failscape.figures import Gallery
from failscape.metrics import expected_calibration_error


@pytest.fixture(scope="module")
def sharp() -> Classifier:
    """A classifier that is four times as sure as its network."""
    return load_classifier("embedded:mnist-clean").with_temperature(0.25)


@pytest.fixture(scope="module")
def result(world: Any, sharp: Classifier) -> CalibrationResult:
    x, y, ids = world.images.x, world.images.y, world.images.ids
    return Calibration()(sharp, world.ten, x, y, rng=torch.Generator().manual_seed(0), ids=ids)


def measured(n: int) -> torch.Tensor:
    """Which images the temperature is not fitted on."""
    mask = torch.ones(n, dtype=torch.bool)
    mask[torch.randperm(n, generator=torch.Generator().manual_seed(0))[: n // 2]] = False
    return mask


def test_the_temperature_is_the_network_s_own_whatever_it_had_before(world: Any, result: CalibrationResult) -> None:
    plain = Calibration()(
        world.classifier, world.ten, world.images.x, world.images.y, rng=torch.Generator().manual_seed(0)
    )
    assert result.temperature == pytest.approx(plain.temperature, rel=1e-4)
    assert (result.temperature_before, plain.temperature_before) == (0.25, 1.0)
    assert result.summary["calibration_error_before"] > 2 * result.summary["calibration_error_after"]


def test_before_may_be_the_bare_network_whatever_temperature_the_classifier_has(world: Any, sharp: Classifier) -> None:
    x, y, ids = world.images.x, world.images.y, world.images.ids
    bare, plain = (
        Calibration(bare=bare)(classifier, world.ten, x, y, rng=torch.Generator().manual_seed(0), ids=ids)
        for classifier, bare in ((sharp, True), (world.classifier, False))
    )
    assert bare.summary == pytest.approx(plain.summary, rel=1e-4)
    assert bare.temperature_before == 1.0
    assert bare.ids == plain.ids
    for column in ("confidence", "calibrated"):
        assert bare.table[column].to_pylist() == pytest.approx(plain.table[column].to_pylist(), abs=1e-4)
    assert bare.findings[0].sentence == plain.findings[0].sentence
    assert [panel.label for panel in bare.findings[0].panels] == [panel.label for panel in plain.findings[0].panels]


def test_numbers_are_those_of_the_other_half(world: Any, sharp: Classifier, result: CalibrationResult) -> None:
    rows = measured(len(world.images))
    x, y = world.images.x[rows], world.images.y[rows]
    mended = sharp.with_temperature(result.temperature)
    for when, classifier in (("before", sharp), ("after", mended)):
        probs = classifier.probs(x)
        assert result.summary[f"calibration_error_{when}"] == pytest.approx(
            expected_calibration_error(probs, y), abs=1e-6
        )
        with torch.no_grad():
            logits = torch.cat([classifier(part) for part in x.split(1000)])
        assert result.summary[f"cross_entropy_{when}"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-4)
    assert result.summary["accuracy"] == pytest.approx((sharp.predict(x) == y).double().mean().item())
    assert result.summary["images"] == result.summary["fitted"] == 5000


def test_the_mistakes_shown_are_the_surest_of_the_other_half(
    world: Any, sharp: Classifier, result: CalibrationResult
) -> None:
    rows = measured(len(world.images)).nonzero().flatten()
    probs = sharp.with_temperature(result.temperature).probs(world.images.x[rows])
    confidence, prediction = probs.max(dim=1)
    confidence[prediction == world.images.y[rows]] = -1
    expected = rows[confidence.topk(12).indices]
    assert result.ids == tuple(world.images.ids[row] for row in expected.tolist())
    assert torch.equal(result.labels, world.images.y[expected])
    assert result.mistaken.all()
    assert torch.allclose(result.probs.amax(dim=1), confidence.topk(12).values, atol=1e-4)
    assert result.probs.amax(dim=1).tolist() == result.table["calibrated"].to_pylist()


def test_the_result_says_which_mistakes_it_shows(result: CalibrationResult) -> None:
    plot, gallery = result.figures
    assert plot.name == "reliability"
    assert isinstance(gallery, Gallery)
    assert len(gallery.cases) == 12
    case = gallery.cases[0]
    assert case.good
    assert re.fullmatch(r"Wrong, and \d+\.\d% sure of it; \d+\.\d% once calibrated\.", case.verdict)
    # An image that rounding has put right is said to be no mistake.
    right = replace(result, labels=torch.tensor([int(name) for name in result.table["prediction"].to_pylist()]))
    assert not right.mistaken.any()
    assert isinstance(right.figures[1], Gallery)
    assert right.figures[1].cases[0].verdict.startswith("Failed")


def test_the_finding_says_whether_the_classifier_is_too_sure(
    world: Any, sharp: Classifier, result: CalibrationResult
) -> None:
    x, y = world.images.x, world.images.y
    rows = measured(len(x))
    sure = sharp.probs(x[rows]).amax(dim=1).mean().item()
    right = (sharp.predict(x[rows]) == y[rows]).double().mean().item()
    (finding,) = result.findings
    assert finding.sentence.startswith("It is too sure of itself: on average ")
    shares = [float(share) / 100 for share in re.findall(r"([\d.]+)\N{NO-BREAK SPACE}%", finding.sentence)]
    assert shares == pytest.approx([sure, right], abs=6e-4)
    assert finding.sentence.endswith("of 5,000 images; here are the mistakes that it is surest of.")
    assert len(finding.panels) == 4
    assert torch.equal(finding.panels[0].pixels, result.images[0])


@pytest.mark.parametrize(
    ("temperature", "judgement"),
    [
        (8.0, "It is right more often than it believes: "),
        (1.1, "On the whole it is about as often right as it is sure"),
    ],
)
def test_the_finding_says_whether_it_is_modest_or_honest(world: Any, temperature: float, judgement: str) -> None:
    x, y = world.images.x[:2000], world.images.y[:2000]
    classifier = world.classifier.with_temperature(temperature)
    result = Calibration()(classifier, world.ten, x, y, rng=torch.Generator().manual_seed(0))
    assert result.findings[0].sentence.startswith(judgement)


def test_a_classifier_without_a_mistake_has_a_diagram_and_an_empty_table(world: Any, tmp_path: Path) -> None:
    x = world.images.x[:40]
    y = world.classifier.predict(x)
    result = Calibration()(world.classifier, world.two, x, y, rng=torch.Generator().manual_seed(0))
    assert result.summary["accuracy"] == 1
    assert [figure.name for figure in result.figures] == ["reliability"]
    assert result.table.num_rows == 0
    assert result.findings[0].panels == ()
    result.save(tmp_path)
    assert load_result(tmp_path).summary == result.summary


def test_needs_no_gradients(world: Any) -> None:
    blind = Classifier(lambda x: world.classifier(x.detach()).detach().numpy(), image_shape=(1, 28, 28))
    x, y = world.images.x[:200], world.images.y[:200]
    results = [
        Calibration()(each, world.two, x, y, rng=torch.Generator().manual_seed(0)) for each in (blind, world.classifier)
    ]
    assert results[0].summary == pytest.approx(results[1].summary)


def test_refuses_what_has_no_temperature(world: Any) -> None:
    images = load_images("embedded:mnist-test")
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(DataError, match=r"at least 4 images, .* but got 3"):
        Calibration()(world.classifier, world.two, images.x[:3], images.y[:3], rng=rng)
    even = Classifier(lambda x: torch.zeros(len(x), 10), image_shape=(1, 28, 28))
    with pytest.raises(ClassifierError, match="logits that differ between the classes"):
        Calibration()(even, world.two, images.x[:8], images.y[:8], rng=rng)


@pytest.mark.parametrize("settings", [{"bins": 0}, {"shown": 0}])
def test_refuses_settings(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="`bins` and `shown` to be at least 1"):
        Calibration(**settings)
