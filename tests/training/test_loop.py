import json
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from failscape.data import ImageSet
from failscape.errors import CheckpointError, DataError, StorageError, TrainingError
from failscape.training import (
    ClassifierSettings,
    GANSettings,
    PolishSettings,
    Task,
    TrainingSettings,
    VAEGANSettings,
    VAESettings,
    VAETask,
    WGANSettings,
    loop,
    read_settings,
    train,
)
from failscape.training.checkpoint import load_checkpoint
from failscape.training.distributed import Workers
from failscape.training.loop import check_images, warn_of_shares


def task_of(settings: VAESettings, images: ImageSet) -> VAETask:
    return VAETask(settings, image_shape=images.image_shape)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def poison(task: Task, images: int, folder: Path) -> dict[str, float]:
    """Put NaN into a weight, once half of the images have been seen."""
    if images >= 480:
        with torch.no_grad():
            next(task.networks.parameters())[0] = torch.nan
    return {}


def test_records_checkpoints_and_evaluations_come_when_they_are_due(
    images: ImageSet, unseen: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    changes = {"images": 500, "batch": 48, "log_every": 96, "evaluate_every": 200, "checkpoint_every": 250}
    settings = vae_settings.model_copy(update=changes)
    task, seen = task_of(settings, images), []

    def hook(task: Task, count: int, folder: Path) -> dict[str, float]:
        seen.append((count, folder))
        return {"twice": 2.0 * count}

    reached = train(task, images, tmp_path, settings, validation=unseen, hooks=[hook])

    # Batches end at 48, 96, …, 480 and, cut to the total, at 500.
    log = records(tmp_path)
    at = {event: [r["images"] for r in log if r["event"] == event] for event in ("losses", "evaluation")}
    assert at["losses"] == [96, 192, 240, 288, 384, 432, 480, 500]
    assert at["evaluation"] == [240, 432, 500]
    assert seen == [(count, tmp_path) for count in at["evaluation"]]
    assert log[0] == {
        "event": "start",
        "images": 0,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": 1,
    }
    assert log[-1]["twice"] == reached["twice"] == 1000
    assert log[-1]["elbo"] == reached["elbo"]
    assert reached["images_per_second"] == pytest.approx(500 / reached["seconds"])
    assert read_settings(tmp_path / "train.toml") == settings
    assert sorted(path.stem for path in (tmp_path / "checkpoints").glob("*.json")) == [
        "000000000288",
        "000000000500",
    ]


def test_small_and_streamed_sets_are_learnt_alike(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(folder: Path) -> list[torch.Tensor]:
        task = task_of(vae_settings, images)
        train(task, images, folder, vae_settings)
        return list(task.averaged.parameters())

    in_memory = weights(tmp_path / "memory")
    monkeypatch.setattr("failscape.training.loop._IN_MEMORY_BYTES", 0)
    streamed = weights(tmp_path / "streamed")

    assert all(map(torch.equal, in_memory, streamed))


def test_averages_follow_the_formula_over_a_training(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    settings = vae_settings.model_copy(update={"images": 96, "ema_half_life": 40})
    task = task_of(settings, images)
    followed = []
    step = task.step

    def recording(*arguments: Any, **keywords: Any) -> dict[str, torch.Tensor]:
        losses = step(*arguments, **keywords)
        followed.append(next(task.networks.parameters()).detach().clone())
        return losses

    task.step = recording
    train(task, images, tmp_path, settings)

    # Memory is 0 before the first step, then 5 % of 32 and of 64 images, far below the half-life of 40.
    first, second = 0.5 ** (32 / 1.6), 0.5 ** (32 / 3.2)
    expected = (followed[0] * first + followed[1] * (1 - first)) * second + followed[2] * (1 - second)
    torch.testing.assert_close(next(task.averaged.parameters()), expected)


def test_a_loss_of_nan_stops_at_its_image_and_keeps_the_last_good_checkpoint(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    settings = vae_settings.model_copy(update={"evaluate_every": 480, "checkpoint_every": 320})
    task = task_of(settings, images)

    with pytest.raises(TrainingError, match="finite loss after 512 images"):
        train(task, images, tmp_path, settings, hooks=[poison])

    count, state = load_checkpoint(tmp_path / "checkpoints")
    assert count == 320
    assert all(tensor.isfinite().all() for tensor in state["task"]["networks"].values())


def test_weights_of_nan_never_become_a_checkpoint(images: ImageSet, vae_settings: VAESettings, tmp_path: Path) -> None:
    settings = vae_settings.model_copy(update={"evaluate_every": 480, "checkpoint_every": 480})
    task = task_of(settings, images)

    with pytest.raises(TrainingError, match="finite weights after 480 images"):
        train(task, images, tmp_path, settings, hooks=[poison])

    assert not (tmp_path / "checkpoints").exists()


def test_an_evaluation_that_is_not_finite_stops(images: ImageSet, vae_settings: VAESettings, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="finite distance after 320 images"):
        train(
            task_of(vae_settings, images),
            images,
            tmp_path,
            vae_settings,
            hooks=[lambda task, count, folder: {"distance": float("inf")}],
        )


def test_a_folder_that_holds_a_training_is_not_begun_again(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    train(task_of(vae_settings, images), images, tmp_path, vae_settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with pytest.raises(CheckpointError, match="holds one"):
        train(task_of(vae_settings, images), images, tmp_path, vae_settings)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_settings_or_images_are_not_resumed(
    images: ImageSet, unseen: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    train(task_of(vae_settings, images), images, tmp_path, vae_settings)
    faster = vae_settings.model_copy(update={"learning_rate": 1.0})

    with pytest.raises(CheckpointError, match=r"learning_rate = 1\.0 instead of 0\.003"):
        train(task_of(faster, images), images, tmp_path, faster, resume=True)
    with pytest.raises(CheckpointError, match="stripes has changed"):
        train(task_of(vae_settings, unseen), unseen, tmp_path, vae_settings, resume=True)


def test_a_checkpoint_of_another_network_is_refused(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    train(task_of(vae_settings, images), images, tmp_path, vae_settings)
    wider = vae_settings.model_copy(update={"hidden": (17,)})

    with pytest.raises(CheckpointError, match="does not fit") as caught:
        train(task_of(wider, images), images, tmp_path, vae_settings, resume=True)

    assert "\n" not in str(caught.value)


def test_only_broken_checkpoints_are_an_error_and_not_a_new_start(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    train(task_of(vae_settings, images), images, tmp_path, vae_settings)
    log = (tmp_path / "log.jsonl").read_bytes()
    for path in (tmp_path / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")

    with pytest.raises(CheckpointError, match="all are broken"):
        train(task_of(vae_settings, images), images, tmp_path, vae_settings, resume=True)

    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_falls_back_and_ends_the_same_when_the_newest_checkpoint_is_broken(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    task = task_of(vae_settings, images)
    train(task, images, tmp_path, vae_settings)
    expected = [record["images"] for record in records(tmp_path) if record["event"] == "losses"]
    (tmp_path / "checkpoints" / "000000000960.safetensors").write_bytes(b"")

    resumed = task_of(vae_settings, images)
    train(resumed, images, tmp_path, vae_settings, resume=True)

    assert all(map(torch.equal, task.networks.parameters(), resumed.networks.parameters()))
    assert [record["images"] for record in records(tmp_path) if record["event"] == "losses"] == expected


def test_a_full_disk_stops_the_training_and_room_lets_it_go_on(
    images: ImageSet, vae_settings: VAESettings, tmp_path: Path
) -> None:
    whole = task_of(vae_settings, images)
    train(whole, images, tmp_path / "whole", vae_settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(task: Task, count: int, folder: Path) -> dict[str, float]:
        # Room for the log, but for no further checkpoint.
        size = min(path.stat().st_size for path in (folder / "checkpoints").glob("*.safetensors"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
        return {}

    try:
        with pytest.raises(StorageError, match=r"000000000320\.safetensors"):
            train(task_of(vae_settings, images), images, tmp_path / "full", vae_settings, hooks=[fill])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(tmp_path / "full" / "checkpoints")[0] == 160

    resumed = task_of(vae_settings, images)
    train(resumed, images, tmp_path / "full", vae_settings, resume=True)
    assert all(map(torch.equal, whole.networks.parameters(), resumed.networks.parameters()))


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that this process may not write, also when it runs as root: it becomes nobody for a while."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("inside", [".", "new"])
def test_a_read_only_folder_is_a_storage_error(
    inside: str, read_only_folder: Path, images: ImageSet, vae_settings: VAESettings
) -> None:
    with pytest.raises(StorageError, match="Permission denied") as caught:
        train(task_of(vae_settings, images), images, read_only_folder / inside, vae_settings)

    assert "\n" not in str(caught.value)
    assert list(read_only_folder.iterdir()) == []


def test_validation_must_be_of_the_same_kind(
    images: ImageSet, classifier_settings: ClassifierSettings, vae_settings: VAESettings, tmp_path: Path
) -> None:
    other_names = ImageSet.from_tensors(images.x, images.y, ["a", "b"])
    other_shape = ImageSet.from_tensors(images.x[:, :, 1:], images.y, ["upright", "lying"])
    empty = images.select(torch.zeros(0, dtype=torch.int64))

    for validation, message in ((other_names, "other names"), (other_shape, r"\(1, 7, 8\)"), (empty, "none")):
        with pytest.raises(DataError, match=message):
            train(task_of(vae_settings, images), images, tmp_path, vae_settings, validation=validation)
    with pytest.raises(DataError, match="to learn from"):
        train(task_of(vae_settings, images), empty, tmp_path, vae_settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "fewest"),
    [
        (GANSettings(), 4),
        (PolishSettings(), 4),
        (WGANSettings(), 4),
        (VAEGANSettings(oracle="embedded:mnist-clean"), 4),
        (VAEGANSettings(), 1),
        (VAESettings(), 1),
        (ClassifierSettings(), 1),
    ],
)
def test_samples_are_compared_with_some_validation_images_at_least(
    settings: TrainingSettings, fewest: int, images: ImageSet
) -> None:
    check_images(images, images.select(torch.arange(fewest)), settings)
    for count in range(1, fewest):
        with pytest.raises(DataError, match=rf"at least 4 validation images .* but got {count}\. Choose a larger"):
            check_images(images, images.select(torch.arange(count)), settings)


@pytest.mark.parametrize(
    ("world", "changes", "said"),
    [
        (1, {"batch": 6}, ""),
        (2, {}, ""),
        (2, {"batch": 8}, "4 images of a batch, not a multiple of 8"),
        (2, {"batch": 8, "guidance": 0.0, "late_guidance": 0.0}, ""),
        (2, {"batch": 8, "classifier": "none"}, ""),
        (2, {"batch": 8, "guidance": 0.0, "late_guidance": 0.1}, "multiple of 8"),
        (2, {"batch": 12, "images": 24, "guidance": 0.0}, "6 images of a batch, not a multiple of 4"),
        (2, {"images": 200}, "4 or 8 images of a batch, not a multiple of 8: .* multiples of 16"),
    ],
)
def test_warns_of_shares_whose_images_are_compared_otherwise_than_in_one_process(
    world: int,
    changes: dict[str, Any],
    said: str,
    gan_settings: GANSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(loop, "workers", lambda: Workers(rank=0, world=world))
    warn_of_shares(gan_settings.model_copy(update=changes))
    assert bool(caplog.messages) == bool(said)
    assert all(re.search(said, message) for message in caplog.messages)
