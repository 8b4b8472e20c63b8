"""Whole trainings: from settings to a numbered run folder that holds what a user loads."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import failscape
from failscape.classifiers import Classifier, load_classifier, provenance_of, target_distribution
from failscape.data import ImageSet, load_images
from failscape.errors import ClassifierError, ConfigError, TrainingError
from failscape.generators import generator_provenance, load_generator, save_generator
from failscape.storage import next_run_folder, read_json, write_json
from failscape.training.checkpoint import has_checkpoint, load_checkpoint
from failscape.training.classifier_task import ClassifierTask
from failscape.training.distributed import Workers, find_device, process_group, workers
from failscape.training.gan_task import GANTask
from failscape.training.intro_vae_task import IntroVAETask
from failscape.training.loop import Hook, check_images, check_same_images, check_shares, train
from failscape.training.polish_task import PolishTask
from failscape.training.sample_grid import write_sample_grid
from failscape.training.settings import (
    AnySettings,
    ClassifierSettings,
    FineTuningSettings,
    GANSettings,
    GuidedSettings,
    IntroVAESettings,
    PolishSettings,
    TrainingSettings,
    VAEGANSettings,
    VAESettings,
    read_settings,
)
from failscape.training.target_guidance import TargetGuidance
from failscape.training.task import Task
from failscape.training.vae_gan_task import VAEGANTask
from failscape.training.vae_task import VAETask
from failscape.training.wgan_task import WGANTask

# What a run that began with another holds of where that one came from.
_START = "start.json"
# Of one that polishes, the generator itself, which it goes on comparing with.
_BEFORE = "start"


def start_run(settings: AnySettings, out: Path, *, allow_code: bool = False) -> Path:
    """Train a classifier or a generator and save it.

    Under `torchrun` all processes work on this one training.

    Args:
        settings: of the training; their class says what is trained.
        out: holds the numbered run folders, such as `out/00007-vae`.
        allow_code: let a `python:` spec of a classifier run its file.

    Returns:
        The run folder, with `train.toml`, `log.jsonl`, `checkpoints/`, and a classifier that
        `failscape.load_classifier` takes, or a generator that `failscape.load_generator` takes; beside a generator
        lies `samples/`.

    Raises:
        TrainingError: if there are several processes and what is trained is no GAN, or the device is missing.
        CheckpointError: if it is to begin with a run that holds no checkpoint, or one of other networks.
        FailscapeError: what `load_images`, `load_classifier`, `GANTask` and `train` raise.
    """
    with process_group(_device_of(settings)) as group:
        _require_shareable(settings, group)
        # All that can be wrong comes first: it must not leave an empty run behind.
        check_shares(settings)
        images = group.in_turn(partial(_images_of, settings))
        check_images(*images, settings)
        task, hooks = _task(settings, images[0], allow_code)
        begun = _begin(task, settings)
        folder = group.agree(partial(next_run_folder, out, settings.name))
        if begun is not None:
            # Kept here, because the other run may be gone when this one is complete.
            group.agree(partial(write_json, folder / _START, begun))
        if isinstance(settings, PolishSettings):
            save_generator(load_generator(settings.start), folder / _BEFORE)
        _train_in(folder, task, hooks, settings, images, resume=False)
        return folder


def resume_run(folder: Path, *, allow_code: bool = False) -> Path:
    """Go on with the training in a run folder, by the settings written there.

    Under `torchrun` all processes work on this one training; they need not be as many as it was begun with.

    Args:
        folder: of the run; read by all processes.
        allow_code: let a `python:` spec of a classifier run its file.

    Raises:
        ConfigError: if the folder holds no readable `train.toml`.
        CheckpointError: if the images are not those that the training was begun with.
        FailscapeError: what `start_run` raises.
    """
    settings = read_settings(folder / "train.toml")
    with process_group(_device_of(settings)) as group:
        _require_shareable(settings, group)
        images = group.in_turn(partial(_images_of, settings))
        # Before anything is built for images of another shape, and complains of that.
        check_same_images(folder, images[0])
        told = settings
        if isinstance(settings, PolishSettings) and (folder / _BEFORE / "generator.json").exists():
            told = settings.model_copy(update={"start": str(folder / _BEFORE)})
        task, hooks = _task(told, images[0], allow_code)
        if not has_checkpoint(folder / "checkpoints"):
            _begin(task, told)
        _train_in(folder, task, hooks, settings, images, resume=True)
    return folder


def _begin(task: Task, settings: AnySettings) -> dict[str, Any] | None:
    """Begin with the networks of another run, if the settings name one, and return where these came from."""
    if isinstance(settings, PolishSettings):
        # The task was built with them.
        return generator_provenance(settings.start)
    if not isinstance(task, GANTask) or not isinstance(settings, GANSettings) or settings.start == "none":
        return None
    run = Path(settings.start)
    state = load_checkpoint(run / "checkpoints")[1]
    task.begin_with(state["task"])
    if (run / "generator.json").exists():
        provenance: dict[str, Any] = read_json(run / "generator.json")["provenance"]
        return provenance
    # One that was cut off; it counts as far as it came.
    at = state["at"]
    reached = at["numbers"] | {"images": at["images"], "seconds": at["seconds"]}
    earlier = read_settings(run / "train.toml").model_dump(mode="json")
    return {"settings": earlier, "reached": reached} | _start_of(run)


def _start_of(folder: Path) -> dict[str, Any]:
    """Return the provenance of what a run began with, as a part of its own."""
    return {"start": read_json(folder / _START)} if (folder / _START).exists() else {}


def _runs_of(specs: Sequence[str]) -> dict[str, Any]:
    """Return the provenance of classifiers that are runs of one's own: nothing else says where they came from."""
    return {spec: provenance_of(spec) for spec in specs if Path(spec).is_dir()}


def _device_of(settings: TrainingSettings) -> str:
    return settings.device if isinstance(settings, GANSettings) else "cpu"


def _require_shareable(settings: AnySettings, group: Workers) -> None:
    if group.world > 1 and not isinstance(settings, GANSettings):
        raise TrainingError(
            f"Expected one process for the training of a {settings.kind}, but got {group.world}. Start it without "
            "torchrun: only `failscape train gan` shares its work between processes."
        )


def _images_of(settings: AnySettings) -> tuple[ImageSet, ImageSet | None]:
    # Labels matter to a classifier alone.
    load = partial(
        load_images,
        image_shape=settings.image_shape,
        allow_one_class=not isinstance(settings, ClassifierSettings),
    )
    return load(settings.data), None if settings.validation == "none" else load(settings.validation)


def _train_in(
    folder: Path,
    task: Task,
    hooks: Sequence[Hook],
    settings: AnySettings,
    images: tuple[ImageSet, ImageSet | None],
    *,
    resume: bool,
) -> None:
    learnt, validation = images
    reached = train(task, learnt, folder, settings, validation=validation, resume=resume, hooks=hooks)
    provenance = {
        "command": _command(),
        "settings": settings.model_dump(mode="json"),
        "reached": reached,
        "failscape": failscape.__version__,
    } | _start_of(folder)
    if isinstance(settings, PolishSettings) and (runs := _runs_of(settings.matched_by)):
        provenance["matched_by"] = runs
    workers().agree(partial(task.export, folder, provenance))


def _command() -> str:
    program = Path(sys.argv[0])
    # `python -m failscape` runs failscape/__main__.py.
    return shlex.join([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def _task(settings: AnySettings, images: ImageSet, allow_code: bool) -> tuple[Task, Sequence[Hook]]:
    load = partial(_classifier, allow_code=allow_code)
    if isinstance(settings, FineTuningSettings):
        raise ConfigError(
            "Expected the settings of a training of its own, but got those of a fine-tuning, which is a part of a "
            "retraining. Run the same `failscape retrain` command again; it goes on where it was."
        )
    if isinstance(settings, ClassifierSettings):
        return ClassifierTask(settings, image_shape=images.image_shape, class_names=images.class_names), ()
    if isinstance(settings, GANSettings):
        classifier, oracle = load(settings.classifier), load(settings.oracle)
        if classifier is not None and not settings.calibrated:
            classifier = classifier.with_temperature(1.0)
        if settings.target != "none":
            steering = _guidance(settings, images, classifier)
            return GANTask(settings, images=images, guidance=steering, oracle=oracle), (write_sample_grid,)
        return GANTask(settings, images=images, classifier=classifier, oracle=oracle), (write_sample_grid,)
    if isinstance(settings, PolishSettings):
        judges = [load_classifier(spec, allow_code=allow_code) for spec in (settings.classifier, *settings.matched_by)]
        if not settings.calibrated:
            judges[0] = judges[0].with_temperature(1.0)
        polish = PolishTask(
            settings,
            images=images,
            start=load_generator(settings.start),
            classifier=judges[0],
            matched_by=judges[1:],
            oracle=load(settings.oracle),
        )
        return polish, (write_sample_grid,)
    guidance = _guidance(settings, images, load(settings.classifier))
    if isinstance(settings, VAESettings):
        return VAETask(settings, image_shape=images.image_shape, guidance=guidance), (write_sample_grid,)
    oracle = load(settings.oracle)
    if isinstance(settings, VAEGANSettings):
        return VAEGANTask(settings, images=images, guidance=guidance, oracle=oracle), (write_sample_grid,)
    if isinstance(settings, IntroVAESettings):
        return IntroVAETask(settings, images=images, guidance=guidance, oracle=oracle), (write_sample_grid,)
    return WGANTask(settings, images=images, guidance=guidance, oracle=oracle), (write_sample_grid,)


def _classifier(spec: str, *, allow_code: bool) -> Classifier | None:
    return None if spec == "none" else load_classifier(spec, allow_code=allow_code)


def _guidance(
    settings: GuidedSettings | GANSettings, images: ImageSet, classifier: Classifier | None
) -> TargetGuidance | None:
    if classifier is None:
        return None
    if classifier.image_shape != images.image_shape:
        raise ClassifierError(
            f"Expected a classifier of images of shape {images.image_shape} to steer by, but {classifier.name} takes "
            f"{classifier.image_shape}. Train one on the same images."
        )
    return TargetGuidance(
        classifier.to(find_device(_device_of(settings))),
        target_distribution(settings.target, classifier.class_names),
        weight=settings.guidance,
        start=settings.guidance_from,
        full=settings.guidance_full,
    )
