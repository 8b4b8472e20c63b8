"""The runs that are served: each read when it is asked for, and again when a step has been written since."""

import hashlib
import threading
from pathlib import Path
from typing import final

from failscape.report.page import StepView, view_step
from failscape.report.run import Run, Step, read_run


@final
class OpenRun:
    """A run folder behind an identifier that says nothing of its path, and stays the same when served again.

    Args:
        folder: the run folder.

    Raises:
        StorageError: if there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.id = hashlib.sha256(str(self.folder).encode(errors="surrogateescape")).hexdigest()[:16]
        self.name = self.folder.name
        self._lock = threading.Lock()
        self._run = read_run(self.folder)
        self._state = self._written()
        self._views: dict[int, StepView] = {}

    def read(self) -> Run:
        """Return what the folder holds now."""
        with self._lock:
            return self._current()

    def step(self, number: int) -> Step | None:
        """Return a step; they are numbered from 1."""
        steps = self.read().steps
        return steps[number - 1] if 1 <= number <= len(steps) else None

    def view(self, number: int) -> StepView | None:
        """Return a step as the report lays it out."""
        with self._lock:
            steps = self._current().steps
            if not 1 <= number <= len(steps):
                return None
            if number not in self._views:
                self._views[number] = view_step(steps[number - 1], f"s{number}")
            return self._views[number]

    def _current(self) -> Run:
        state = self._written()
        if state != self._state:
            self._run, self._state, self._views = read_run(self.folder), state, {}
        return self._run

    def _written(self) -> list[tuple[str, int]]:
        """Return which steps there are, and when each was written."""
        records = sorted(self.folder.glob("steps/[!.]*/step.json"))
        return [(str(record), record.stat().st_mtime_ns) for record in records if record.exists()]
