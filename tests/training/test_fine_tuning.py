from pathlib import Path

import pytest
import torch
from torch import nn

from failscape.classifiers import Classifier, load_classifier
from failscape.data import ImageSet, load_images
from failscape.errors import ConfigError, DataError, UnsupportedClassifier
from failscape.training import FineTuningSettings, fine_tune, resume_run
from failscape.training.fine_tuning import FineTuningTask
from failscape.training.sampler import MixedSampler


def settings(**changes: object) -> FineTuningSettings:
    quick = {"images": 640, "batch": 32, "learning_rate": 3e-3, "warmup": 32, "ema_half_life": 32, "kept": 0.0}
    return FineTuningSettings.parse(quick | {"share": 0.5} | changes)


def turned(images: ImageSet) -> ImageSet:
    """Return the images with the other label."""
    return ImageSet.from_tensors(images.x, 1 - images.y, images.class_names, name="turned")


def test_learns_what_it_is_taught_and_leaves_the_original_alone(
    images: ImageSet, unseen: ImageSet, stripes_classifier_folder: Path, tmp_path: Path
) -> None:
    original = load_classifier(stripes_classifier_folder).with_temperature(2.0)
    before = original(unseen.x).detach().clone()
    told = settings(images=9600, share=1.0, learning_rate=1e-2)
    trained = fine_tune(original, images, turned(images), tmp_path, told, spec=str(stripes_classifier_folder))
    assert torch.equal(original(unseen.x), before)
    assert (original.predict(unseen.x) == unseen.y).float().mean() > 0.95
    assert (trained.predict(unseen.x) != unseen.y).float().mean() > 0.95
    assert trained.temperature == 2.0
    saved = load_classifier(tmp_path)
    assert torch.equal(saved(unseen.x), trained(unseen.x) * 2.0 / saved.temperature)
    # What is complete is loaded.
    again = fine_tune(original, images, turned(images), tmp_path, told, spec=str(stripes_classifier_folder))
    assert torch.equal(again(unseen.x), trained(unseen.x))


def test_its_own_data_keep_it_from_forgetting(
    images: ImageSet, unseen: ImageSet, stripes_classifier_folder: Path, tmp_path: Path
) -> None:
    original = load_classifier(stripes_classifier_folder)
    alone = fine_tune(original, images, None, tmp_path, settings(), spec=str(stripes_classifier_folder))
    assert (alone.predict(unseen.x) == unseen.y).float().mean() > 0.95
    task = FineTuningTask(original, settings(), spec="x", labelled=len(images))
    with pytest.raises(DataError, match="the classifier's own data beside 200 labelled images"):
        task.sampler(images, seed=0)


def test_a_part_of_the_old_weights_is_kept(images: ImageSet, stripes_classifier_folder: Path, tmp_path: Path) -> None:
    original, spec = load_classifier(stripes_classifier_folder), str(stripes_classifier_folder)
    new = fine_tune(original, images, turned(images), tmp_path / "new", settings(), spec=spec)
    mixed = fine_tune(original, images, turned(images), tmp_path / "mixed", settings(kept=0.25), spec=spec)
    assert isinstance(original.network, nn.Module)
    assert isinstance(new.network, nn.Module)
    assert isinstance(mixed.network, nn.Module)
    for old, learnt, both in zip(
        original.network.parameters(), new.network.parameters(), mixed.network.parameters(), strict=True
    ):
        assert torch.allclose(both, 0.25 * old + 0.75 * learnt, atol=1e-6)


def test_statistics_of_batches_stay_as_they_are(images: ImageSet, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    classifier = Classifier(network, image_shape=(1, 8, 8), class_names=images.class_names)
    trained = fine_tune(classifier, images, turned(images), tmp_path, settings(), spec="python:mine.py:make")
    assert isinstance(trained.network, nn.Module)
    old, new = network.state_dict(), trained.network.state_dict()
    assert torch.equal(old["2.running_mean"], new["2.running_mean"])
    assert not torch.equal(old["1.weight"], new["1.weight"])
    assert (tmp_path / "classifier.safetensors").exists()
    assert not (tmp_path / "classifier.json").exists()


def test_a_function_cannot_be_trained(images: ImageSet, tmp_path: Path) -> None:
    classifier = Classifier(lambda x: x.flatten(1)[:, :2], image_shape=(1, 8, 8), class_names=images.class_names)
    with pytest.raises(UnsupportedClassifier, match="Give the PyTorch network itself"):
        fine_tune(classifier, images, None, tmp_path, settings(), spec="python:mine.py:make")


def test_a_fine_tuning_is_resumed_by_the_retraining_around_it(
    stripes_classifier_folder: Path, stripes_file: Path, tmp_path: Path
) -> None:
    images = load_images(stripes_file)
    original = Classifier(load_classifier(stripes_classifier_folder).network, image_shape=(1, 8, 8))
    told = settings(data=str(stripes_file))
    fine_tune(original, images, None, tmp_path / "run", told, spec=str(stripes_classifier_folder))
    with pytest.raises(ConfigError, match="failscape retrain"):
        resume_run(tmp_path / "run")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_every_batch_has_its_share_of_the_second_set(share: float) -> None:
    sampler = MixedSampler(50, 7, share=share, seed=0)
    position, seen = 0, torch.zeros(57, dtype=torch.long)
    for size in (32, 32, 7, 32, 1, 32):
        batch = sampler.indices(position, size)
        position += size
        seen += torch.bincount(batch, minlength=57)
        assert len(batch) == size
        assert abs(int((batch >= 50).sum()) - share * size) <= 1
    for part in (seen[:50], seen[50:]):
        # Each set is gone through before any of it comes again.
        assert part.max() - part.min() <= 1
    assert torch.equal(sampler.indices(39, 32), MixedSampler(50, 7, share=share, seed=0).indices(39, 32))
