"""What a training tells while it runs: JSON lines in its folder, and a moving line on a terminal."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from failscape.errors import StorageError


class RunLog:
    """Appends records to a file of JSON lines.

    Args:
        path: of the file.
        keep: bytes at its start that stay; what follows was written after the checkpoint resumed from.

    Raises:
        StorageError: if the file cannot be written.
    """

    def __init__(self, path: Path, *, keep: int) -> None:
        self._path = path
        with self._guarded():
            # Unbuffered, so that nothing is left to fail when the file is closed on a full disk.
            self._file = path.open("ab", buffering=0)
            if self._file.tell() > keep:
                self._file.truncate(keep)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, event: str, images: int, values: Mapping[str, Any]) -> None:
        """Append one record.

        Raises:
            StorageError: if the disk is full.
        """
        line = (json.dumps({"event": event, "images": images, **values}, allow_nan=False) + "\n").encode()
        with self._guarded():
            while line:
                line = line[self._file.write(line) :]

    def sync(self) -> int:
        """Bring all records to the disk and return the size of the file in bytes."""
        with self._guarded():
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"Expected to write {self._path}, but got: {error.strerror or error}. Free some space or "
                "choose another folder; earlier checkpoints are untouched."
            ) from error


class LossWindow:
    """Averages losses, weighted by images, from one record to the next; each over the steps that it comes from."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, float], count: int) -> None:
        """Count the mean losses of `count` images."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss * count
            self._counts[name] = self._counts.get(name, 0) + count

    def take(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class ProgressLine:
    """One moving line: the part done, speed, loss, time left.

    Args:
        name: of the training.
        total: images to see.
        done: images seen.
        shown: whether it is, where there is a terminal; of several processes the first shows it.
    """

    def __init__(self, name: str, total: int, done: int, *, shown: bool = True) -> None:
        console = Console(stderr=True)
        self._line = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} / {task.total:,.0f} images"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._line.add_task(name, total=total, completed=done, note="")

    def __enter__(self) -> "ProgressLine":
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.stop()

    def move(self, done: int) -> None:
        """Show that `done` images have been seen."""
        self._line.update(self._task, completed=done)

    def note(self, images_per_second: float, loss: float) -> None:
        """Show the speed and the loss."""
        self._line.update(self._task, note=f"{images_per_second:,.0f} images/s, loss {loss:.4g}")
