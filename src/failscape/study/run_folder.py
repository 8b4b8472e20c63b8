"""The run folder: where a study keeps what it did, so that it can be killed at any moment and go on."""

import json
import math
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, final, runtime_checkable

import numpy as np
import pyarrow.parquet as pq
import torch

import failscape
from failscape.errors import StorageError, WeightsError
from failscape.explain import Result
from failscape.figures import Plot, save_plot
from failscape.storage import (
    atomic_path,
    latest_run_folder,
    next_run_folder,
    read_json,
    write_bytes,
    write_json,
)
from failscape.study.config import StepConfig

if sys.platform != "win32":
    import fcntl


@runtime_checkable
class Recorded(Protocol):
    """What a run folder is made by: a study, or a retraining."""

    @property
    def name(self) -> str:
        """Names the folder."""

    def to_toml(self) -> str:
        """Return all settings, every default filled in."""


@final
class RunFolder:
    """A run folder that this process, and no other, is writing.

    Attributes:
        path: such as `runs/00007-mnist-corrupted`.
    """

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    @contextmanager
    def open(cls, config: Recorded, *, out: Path, folder: Path | None) -> Iterator["RunFolder"]:
        """Go on in the latest run of the same name if it is the same study, else make the next number.

        Args:
            config: the study.
            out: the parent of numbered folders.
            folder: use this very folder, whatever its name.

        Raises:
            StorageError: if the folder cannot be written, holds another study, or another process writes it.
        """
        if folder is None:
            latest = latest_run_folder(out, config.name)
            same = latest is not None and _study_in(latest) == config.to_toml()
            path = latest if latest is not None and same else next_run_folder(out, config.name)
        else:
            path = folder
            if _study_in(path) not in (None, config.to_toml()):
                raise StorageError(
                    f"Expected {path} to be empty or to hold the same study, but it holds another. Choose "
                    "another folder; what is there is untouched."
                )
        with _locked(path) as lock:
            run = cls(path, lock)
            _end_torn_line(path / "log.jsonl")
            write_bytes(path / "study.toml", config.to_toml().encode())
            write_json(path / "environment.json", _environment())
            yield run

    def log(self, event: str, **facts: Any) -> None:
        """Append a record to `log.jsonl`.

        Raises:
            StorageError: if it cannot be written.
        """
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | facts
        with _storage_errors(self.path), (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def step_folder(self, index: int, step: StepConfig) -> Path:
        """Return the folder of a step, whether it exists or not; steps are numbered from 1."""
        return self.path / "steps" / f"{index:02d}-{step.name}"

    def is_done(self, index: int, step: StepConfig, fingerprint: str) -> bool:
        """Return whether a step was finished on these very inputs."""
        try:
            record = read_json(self.step_folder(index, step) / "step.json")
        except WeightsError:
            return False
        return record.get("status") == "done" and record.get("fingerprint") == fingerprint

    @contextmanager
    def new_step(self, index: int, step: StepConfig) -> Iterator[Path]:
        """Yield an empty folder that takes the place of the step's folder when the block ends well.

        Raises:
            StorageError: if it cannot be written.
        """
        final = self.step_folder(index, step)
        partial, old = final.with_name(f".{final.name}.partial"), final.with_name(f".{final.name}.old")
        with _storage_errors(self.path):
            # What a killed process left.
            for leftover in (partial, old):
                if leftover.exists():
                    shutil.rmtree(leftover)
            partial.mkdir(parents=True)
        try:
            yield partial
            with _storage_errors(self.path):
                if final.exists():
                    final.rename(old)
                partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def write_result(result: Result, folder: Path) -> None:
    """Write a result as the run folder keeps it: tensors, JSON, Parquet, PNG and SVG.

    Raises:
        StorageError: if it cannot be written.
    """
    result.save(folder)
    # JSON has no NaN: a mean over nothing is null.
    summary = {key: value if math.isfinite(value) else None for key, value in result.summary.items()}
    write_json(folder / "summary.json", summary)
    with atomic_path(folder / "table.parquet") as temporary:
        pq.write_table(result.table, temporary)
    with _storage_errors(folder):
        for figure in result.figures:
            if isinstance(figure, Plot):
                save_plot(figure, folder / "figures")


def read_steps(run: Path) -> list[dict[str, Any]]:
    """Return the `step.json` of each step of a run that has one, in order, with the name of its `folder`.

    Raises:
        WeightsError: if one is broken.
    """
    records = sorted(run.glob("steps/[0-9]*/step.json"))
    return [read_json(path) | {"folder": path.parent.name} for path in records]


def _study_in(path: Path) -> str | None:
    try:
        return (path / "study.toml").read_text()
    except (OSError, ValueError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    with _storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("ab")
    with lock:
        if sys.platform != "win32":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"Expected to be alone in {path}, but another process is running that study. Wait for "
                    "it, or choose another folder."
                ) from error
        yield lock


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Expected to write in {path}, but got: {error.strerror or error}. Free some space or choose "
            "another folder; finished steps are untouched."
        ) from error


def _end_torn_line(log: Path) -> None:
    """Cut off a record that a killed process wrote in part."""
    with _storage_errors(log), log.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _environment() -> dict[str, Any]:
    return {
        "failscape": failscape.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    } | _command()


def _command() -> dict[str, str]:
    """Return the command that was typed, if this is the command line."""
    name = Path(sys.argv[0]).name
    return {"command": shlex.join([name, *sys.argv[1:]])} if name == "failscape" else {}
