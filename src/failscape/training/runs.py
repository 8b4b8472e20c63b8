"""Whole trainings: from settings to a numbered run folder that holds what a user loads."""

import shlex
import sys
from functools import partial
from pathlib import Path

import failscape
from failscape.data import ImageSet, load_images
from failscape.storage import next_run_folder
from failscape.training.classifier_task import ClassifierTask
from failscape.training.loop import check_images, train
from failscape.training.settings import ClassifierSettings, TrainingSettings, VAESettings, read_settings
from failscape.training.task import Task
from failscape.training.vae_task import VAETask


def train_classifier(settings: ClassifierSettings, out: Path) -> Path:
    """Train a reference classifier and save it.

    Args:
        settings: of the training.
        out: holds the numbered run folders, such as `out/00007-classifier`.

    Returns:
        The run folder, with `train.toml`, `log.jsonl`, `checkpoints/`, `classifier.safetensors` and
        `classifier.json`; `failscape.load_classifier` takes it.

    Raises:
        FailscapeError: what `load_images` and `train` raise.
    """
    return _run(settings, out)


def train_vae(settings: VAESettings, out: Path) -> Path:
    """Train a variational autoencoder and save it.

    Args:
        settings: of the training.
        out: holds the numbered run folders, such as `out/00007-vae`.

    Returns:
        The run folder, with `train.toml`, `log.jsonl`, `checkpoints/`, `generator.safetensors` and
        `generator.json`; `failscape.load_generator` takes it.

    Raises:
        FailscapeError: what `load_images` and `train` raise.
    """
    return _run(settings, out)


def resume_run(folder: Path) -> Path:
    """Go on with the training in a run folder, by the settings written there.

    Raises:
        ConfigError: if the folder holds no readable `train.toml`.
        FailscapeError: what `load_images` and `train` raise.
    """
    settings = read_settings(folder / "train.toml")
    _train_in(folder, settings, _images_of(settings), resume=True)
    return folder


def _run(settings: ClassifierSettings | VAESettings, out: Path) -> Path:
    # Images first: wrong ones must not leave an empty run behind.
    images = _images_of(settings)
    check_images(*images)
    folder = next_run_folder(out, settings.name)
    _train_in(folder, settings, images, resume=False)
    return folder


def _images_of(settings: TrainingSettings) -> tuple[ImageSet, ImageSet | None]:
    # Labels matter to a classifier alone.
    load = partial(load_images, allow_one_class=not isinstance(settings, ClassifierSettings))
    return load(settings.data), None if settings.validation == "none" else load(settings.validation)


def _train_in(
    folder: Path,
    settings: ClassifierSettings | VAESettings,
    images: tuple[ImageSet, ImageSet | None],
    *,
    resume: bool,
) -> None:
    learnt, validation = images
    task = _task(settings, learnt)
    reached = train(task, learnt, folder, settings, validation=validation, resume=resume)
    provenance = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "settings": settings.model_dump(mode="json"),
        "reached": reached,
        "failscape": failscape.__version__,
    }
    task.export(folder, provenance)


def _task(settings: ClassifierSettings | VAESettings, images: ImageSet) -> Task:
    if isinstance(settings, VAESettings):
        return VAETask(settings, image_shape=images.image_shape)
    return ClassifierTask(settings, image_shape=images.image_shape, class_names=images.class_names)
