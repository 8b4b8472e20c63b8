"""The one training loop: batches in, checkpoints and records out."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from failscape.data import ImageSet
from failscape.errors import CheckpointError, DataError, TrainingError
from failscape.storage import write_bytes
from failscape.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from failscape.training.distributed import workers
from failscape.training.ema import ema_decay
from failscape.training.log import LossWindow, ProgressLine, RunLog
from failscape.training.memory import keep_freed_memory
from failscape.training.settings import (
    ConvolutionalSettings,
    GANSettings,
    PolishSettings,
    TrainingSettings,
    WGANSettings,
    read_settings,
)
from failscape.training.task import Task

Hook = Callable[[Task, int, Path], Mapping[str, float]]
"""Called with the task, the images seen and the run folder at each evaluation; what it returns is logged."""

_IN_MEMORY_BYTES = 2**30
# An evaluation of samples looks at three neighbours of each image.
_FEWEST_COMPARED = 4

_log = logging.getLogger(__name__)


@dataclass
class _Position:
    """Where a training stands, apart from the task's own state and that of the random generator."""

    images: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    numbers: dict[str, float] = field(default_factory=dict)


def train(
    task: Task,
    images: ImageSet,
    folder: Path,
    settings: TrainingSettings,
    *,
    validation: ImageSet | None = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
) -> dict[str, float]:
    """Train a task until `settings.images` images have been seen.

    `folder` comes to hold `train.toml` (the resolved settings), `log.jsonl` and `checkpoints/`. A training
    that was killed at any instant goes on from its last checkpoint with `resume` and, on the CPU with as many
    threads, ends with the same bits as one that was not.

    The process keeps memory that is freed from then on, as `keep_freed_memory` says.

    Within `process_group` every process calls this, works on its share of each batch, and ends with the same
    weights. The first writes all files and evaluates, while the others wait; an error in it ends all.

    Args:
        task: what is trained; freshly made, also when resuming.
        images: to learn from; kept in memory up to 1 GiB, else read batch by batch.
        folder: of this run alone.
        settings: of this run.
        validation: what the task is evaluated on.
        resume: go on in a folder that holds a training.
        hooks: called at each evaluation.

    Returns:
        The numbers of the last evaluation, with "seconds" and "images_per_second" of the whole training.

    Raises:
        CheckpointError: if the folder holds a training and `resume` is false; if it is true, when it
            has other settings, other images, or none but broken checkpoints.
        TrainingError: if a loss, a weight or an evaluation is not finite; checkpoints before it are kept. Also if
            the processes cannot share each batch evenly, or one of them has ended.
        DataError: if there are no images, or those of the validation are of another kind or too few.
        StorageError: if the folder cannot be written or the disk is full; checkpoints before are kept.
    """
    group = workers()
    keep_freed_memory()
    check_images(images, validation, settings)
    check_shares(settings)
    if group.first:
        warn_of_shares(settings)
    group.agree(partial(_claim, folder, settings, resume))

    # All state: the task's, the random generator's, and the position, which is the sampler's state too.
    checkpoints = folder / "checkpoints"
    rng = torch.Generator().manual_seed(settings.seed)
    at = _Position()
    resuming = group.agree(lambda: resume and has_checkpoint(checkpoints))
    if resuming:
        at = _restore(checkpoints, task, rng, images)
    sampler = task.sampler(images, settings.seed)
    batch_of = _reader(images)
    window = LossWindow()

    with (
        RunLog(folder / "log.jsonl" if group.first else Path(os.devnull), keep=at.log_bytes) as log,
        ProgressLine(settings.name, settings.images, at.images, shown=group.first) as line,
    ):
        log.write("resume" if resuming else "start", at.images, _environment())
        clock = _Clock(at)
        while at.images < settings.images:
            # One step, the same in all processes but for the rows of the batch.
            before = at.images
            size = min(settings.batch, settings.images - before)
            x, y = batch_of(sampler.indices(before, size)[group.share_of(size)])
            losses = task.step(x, y, progress=before / settings.images, rng=rng)
            task.average(ema_decay(size, before, half_life=settings.ema_half_life))
            at.images = before + size
            values = {name: float(loss) for name, loss in losses.items()}
            _require_finite(values, at.images, folder)
            window.add(values, size)
            line.move(at.images)

            # Records. A checkpoint flushes the window, so that a resumed log has the same records.
            evaluating = _due(settings.evaluate_every, before, at.images, settings.images)
            saving = _due(settings.checkpoint_every, before, at.images, settings.images)
            if evaluating or saving or _due(settings.log_every, before, at.images, settings.images):
                means, speed = window.take(), clock.lap()
                log.write("losses", at.images, {**means, "seconds": at.seconds, "images_per_second": speed})
                line.note(speed, next(iter(means.values())))

            # Evaluation, outside the clock.
            if evaluating:
                at.numbers = group.agree(partial(_evaluate, task, validation, hooks, at.images, folder))
                log.write("evaluation", at.images, at.numbers)

            # Checkpoint, last, so that all records up to here are in the log that it refers to.
            if saving:
                group.agree(partial(_save, folder, task, rng, images, at, log))
            if evaluating or saving:
                clock.restart()

    return at.numbers | {"seconds": at.seconds, "images_per_second": settings.images / max(at.seconds, 1e-9)}


class _Clock:
    """Adds the time spent in steps to the position."""

    def __init__(self, at: _Position) -> None:
        self._at = at
        self._images = at.images
        self._start = time.perf_counter()

    def restart(self) -> None:
        self._images, self._start = self._at.images, time.perf_counter()

    def lap(self) -> float:
        """Return the images a second since the last lap or restart."""
        seconds = time.perf_counter() - self._start
        speed = (self._at.images - self._images) / max(seconds, 1e-9)
        self._at.seconds += seconds
        self.restart()
        return speed


def check_images(images: ImageSet, validation: ImageSet | None, settings: TrainingSettings) -> None:
    """Refuse images that cannot be learnt from together.

    Raises:
        DataError: if there are none, or those of the validation have another shape or other classes, or are too few to
            compare samples with.
    """
    for role, checked in (("to learn from", images), ("to evaluate on", validation)):
        if checked is not None and len(checked) == 0:
            raise DataError(f"Expected images {role}, but got none. Choose another data set.")
    if validation is None:
        return
    expected, got = [(each.image_shape, tuple(each.class_names)) for each in (images, validation)]
    if expected != got:
        raise DataError(
            f"Expected validation images of the shape and classes learnt from, {expected[0]} and "
            f"{len(expected[1])} classes, but got {got[0]} and {len(got[1])} classes"
            f"{'' if len(expected[1]) != len(got[1]) else ' or other names'}. Choose another validation set."
        )
    if len(validation) < _FEWEST_COMPARED and _compares_samples(settings):
        raise DataError(
            f"Expected at least {_FEWEST_COMPARED} validation images to compare generated ones with, but got "
            f"{len(validation)}. Choose a larger validation set, or none."
        )


def _compares_samples(settings: TrainingSettings) -> bool:
    if isinstance(settings, ConvolutionalSettings) and not isinstance(settings, WGANSettings):
        return settings.oracle != "none"
    return isinstance(settings, GANSettings | PolishSettings | WGANSettings)


def check_shares(settings: TrainingSettings) -> None:
    """Refuse batches that the processes of the training cannot share evenly.

    Raises:
        TrainingError: if a batch, or the last one, is no multiple of the number of processes.
    """
    for size in (min(settings.batch, settings.images), settings.images % settings.batch):
        workers().share_of(size)


def warn_of_shares(settings: TrainingSettings) -> None:
    """Warn of shares that several processes cannot divide into the groups of images that one process compares.

    These are groups of 4, with guidance among every second image, which is disturbed, and among the others.
    """
    world = workers().world
    whole = 4
    if isinstance(settings, GANSettings) and settings.classifier != "none":
        whole = 8 if max(settings.guidance, settings.late_guidance) > 0 else 4
    shares = {min(settings.batch, settings.images) // world, settings.images % settings.batch // world}
    if world > 1 and any(share % whole for share in shares):
        _log.warning(
            "Each process has %s images of a batch, not a multiple of %d: images are compared in other groups than in "
            "one process, so that the losses are not the same. Choose `batch` and `images` as multiples of %d.",
            " or ".join(str(share) for share in sorted(shares - {0})),
            whole,
            whole * world,
        )


def check_same_images(folder: Path, images: ImageSet) -> None:
    """Refuse to go on in the folder of a training with other images than it was begun with.

    Raises:
        CheckpointError: if the images of the last checkpoint had another shape, or any of them has changed; or if
            there are only broken checkpoints.
    """
    if has_checkpoint(folder / "checkpoints"):
        _require_same_images(load_checkpoint(folder / "checkpoints")[1], images, folder)


def _claim(folder: Path, settings: TrainingSettings, resume: bool) -> None:
    """Write the settings of a new training, or compare them with those of the one to be resumed."""
    written = folder / "train.toml"
    taken = written.exists() or has_checkpoint(folder / "checkpoints")
    if taken and not resume:
        raise CheckpointError(
            f"Expected a folder without a training, but {folder} holds one. Resume it, or choose another folder."
        )
    if not taken:
        write_bytes(written, settings.to_toml().encode())
    elif (earlier := read_settings(written)) != settings:
        raise CheckpointError(
            f"Expected the settings that {written} was begun with, but got "
            f"{_differences(earlier, settings)}. Resume with the settings in that file, or start "
            "a new training."
        )


def _differences(earlier: TrainingSettings, settings: TrainingSettings) -> str:
    old, new = earlier.model_dump(), settings.model_dump()
    keys = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    return ", ".join(f"{key} = {new.get(key)!r} instead of {old.get(key)!r}" for key in sorted(keys))


def _restore(checkpoints: Path, task: Task, rng: torch.Generator, images: ImageSet) -> _Position:
    group = workers()
    number, state = load_checkpoint(checkpoints)
    newest = group.agree(lambda: number)
    if number != newest:
        raise CheckpointError(
            f"Expected the checkpoint at {newest} images, which the first process goes on from, but process "
            f"{group.rank} finds that at {number} in {checkpoints}. Keep the folder where all processes read the same."
        )
    _require_same_images(state, images, checkpoints.parent)
    task.restore(state["task"])
    rng.set_state(state["rng"])
    return _Position(**state["at"])


def _require_same_images(state: Mapping[str, Any], images: ImageSet, folder: Path) -> None:
    # The first checkpoints held no shape.
    shape = tuple(state.get("image_shape", images.image_shape))
    if shape != images.image_shape:
        raise CheckpointError(
            f"Expected images of shape {shape} (C, H, W), which {folder} was begun with, but those of {images.name} "
            f"are now {images.image_shape}. Restore the images, or start a new training."
        )
    if state["data"] != images.fingerprint():
        raise CheckpointError(
            f"Expected the images that {folder} was begun with, but {images.name} has changed since. Restore the "
            "images, or start a new training."
        )


def _evaluate(
    task: Task, validation: ImageSet | None, hooks: Sequence[Hook], images: int, folder: Path
) -> dict[str, float]:
    numbers = task.evaluate(validation) if validation is not None else {}
    for hook in hooks:
        numbers |= hook(task, images, folder)
    _require_finite(numbers, images, folder)
    return numbers


def _save(folder: Path, task: Task, rng: torch.Generator, images: ImageSet, at: _Position, log: RunLog) -> None:
    if not task.is_finite():
        raise _not_finite("weights", at.images, folder)
    at.log_bytes = log.sync()
    state = {
        "task": task.state(),
        "rng": rng.get_state(),
        "data": images.fingerprint(),
        "image_shape": images.image_shape,
        "at": asdict(at),
    }
    save_checkpoint(folder / "checkpoints", at.images, state)


def _reader(images: ImageSet) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return how a batch is fetched: from memory if all images fit comfortably, else from their source."""
    if len(images) * math.prod(images.image_shape) * 4 > _IN_MEMORY_BYTES:
        return lambda indices: (images.read(indices), images.y[indices])
    x, y = images.x, images.y
    return lambda indices: (x.index_select(0, indices), y.index_select(0, indices))


def _due(every: int, before: int, after: int, total: int) -> bool:
    return after // every > before // every or after == total


def _require_finite(values: Mapping[str, float], images: int, folder: Path) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise _not_finite(name, images, folder)


def _not_finite(name: str, images: int, folder: Path) -> TrainingError:
    return TrainingError(
        f"Expected finite {name} after {images} images, but got NaN or infinity. The last good checkpoint, "
        f"if one was due, is kept in {folder / 'checkpoints'}. Train with a lower learning rate."
    )


def _environment() -> dict[str, Any]:
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "processes": workers().world}
