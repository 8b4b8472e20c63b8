import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from failscape.classifiers import fit_temperature, load_classifier
from failscape.data import ImageSet
from failscape.errors import DataError
from failscape.metrics import expected_calibration_error
from failscape.training import ClassifierSettings, ClassifierTask, train


def task_of(settings: ClassifierSettings, images: ImageSet) -> ClassifierTask:
    return ClassifierTask(settings, image_shape=images.image_shape, class_names=images.class_names)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"augment": False, "label_smoothing": 0.1},
        {"architecture": "residual-cnn", "width": 8, "bf16": True},
    ],
)
def test_learns_what_chance_does_not_know(
    changes: dict[str, object],
    images: ImageSet,
    unseen: ImageSet,
    classifier_settings: ClassifierSettings,
    tmp_path: Path,
) -> None:
    settings = ClassifierSettings.parse(
        classifier_settings.model_dump() | {"images": 3200, "validation": "none"} | changes
    )

    reached = train(task_of(settings, images), images, tmp_path, settings, validation=unseen)

    # Chance reaches 0.5 and log 2.
    assert reached["accuracy"] > 0.9
    assert reached["cross_entropy"] < 0.5 * math.log(2)
    assert reached["n"] == 200


def test_evaluation_counts_as_the_saved_classifier_does(
    images: ImageSet, unseen: ImageSet, classifier_settings: ClassifierSettings, tmp_path: Path
) -> None:
    task = task_of(classifier_settings, images)
    reached = train(task, images, tmp_path, classifier_settings, validation=unseen)

    task.export(tmp_path, {"reached": reached})
    classifier = load_classifier(tmp_path)

    assert classifier.class_names == ("upright", "lying")
    logits = classifier(unseen.x)
    assert (logits.argmax(1) == unseen.y).float().mean().item() == pytest.approx(reached["accuracy"])
    assert F.cross_entropy(logits, unseen.y).item() == pytest.approx(reached["cross_entropy"], rel=1e-5)


def test_a_calibrated_classifier_is_saved_with_the_temperature_of_the_first_half(
    images: ImageSet, unseen: ImageSet, classifier_settings: ClassifierSettings, tmp_path: Path
) -> None:
    settings = ClassifierSettings.parse(classifier_settings.model_dump() | {"validation": "some", "calibrate": True})
    task = task_of(settings, images)
    reached = train(task, images, tmp_path, settings, validation=unseen)
    task.export(tmp_path, {})
    classifier = load_classifier(tmp_path)

    assert classifier.temperature == reached["temperature"] != 1
    x, y = unseen.x[100:], unseen.y[100:]
    plain = classifier.with_temperature(1.0)
    logits = plain(unseen.x[:100]).detach()
    assert fit_temperature(logits, unseen.y[:100]) == pytest.approx(reached["temperature"], rel=1e-4)
    for when, each in (("before", plain), ("after", classifier)):
        error = expected_calibration_error(each.probs(x), y)
        assert reached[f"calibration_error_{when}"] == pytest.approx(error, abs=1e-5)
    # The cross-entropy stays that of the network, of all images.
    assert F.cross_entropy(plain(unseen.x), unseen.y).item() == pytest.approx(reached["cross_entropy"], rel=1e-5)

    # A training that was cut off between its last checkpoint and the export knows the temperature still.
    again = task_of(settings, images)
    assert (
        train(again, images, tmp_path, settings, validation=unseen, resume=True)["temperature"]
        == classifier.temperature
    )
    again.export(tmp_path / "again", {})
    assert load_classifier(tmp_path / "again").temperature == classifier.temperature


def test_without_an_evaluation_there_is_no_temperature_to_save(
    images: ImageSet, classifier_settings: ClassifierSettings, tmp_path: Path
) -> None:
    task = task_of(classifier_settings.model_copy(update={"calibrate": True}), images)
    with pytest.raises(DataError, match="Pass `validation` to `train`"):
        task.export(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_loss_is_the_smoothed_cross_entropy_before_the_step(
    images: ImageSet, classifier_settings: ClassifierSettings
) -> None:
    settings = classifier_settings.model_copy(update={"label_smoothing": 0.2, "augment": False})
    task = task_of(settings, images)
    log_probs = task.networks["classifier"](images.x).log_softmax(1).detach().double()
    smooth = 0.8 * F.one_hot(images.y, 2) + 0.1

    loss = task.step(images.x, images.y, progress=0.5, rng=torch.Generator())["loss"]

    assert loss.item() == pytest.approx(float(-(smooth * log_probs).sum(1).mean()), rel=1e-5)


def test_first_weights_depend_on_the_seed_alone(images: ImageSet, classifier_settings: ClassifierSettings) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = task_of(classifier_settings, images), task_of(classifier_settings, images)
    other = task_of(classifier_settings.model_copy(update={"seed": 1}), images)

    weights = [next(task.networks.parameters()) for task in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)
