"""A run folder as the report reads it. Whatever is missing or broken becomes a sentence and never a crash."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from failscape.errors import FailscapeError, StorageError
from failscape.explain import Result, load_result
from failscape.storage import read_json


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run.

    Attributes:
        folder: where it is.
        record: its `step.json`, empty if unreadable.
        result: what it found, if it is done and can be read.
        problem: why there is no result, as a sentence.
    """

    folder: Path
    record: Mapping[str, Any]
    result: Result | None
    problem: str

    @property
    def title(self) -> str:
        """Its title, or its name in words."""
        name = self.record.get("title") or self.record.get("name") or self.folder.name.partition("-")[2]
        words = str(name or self.folder.name).replace("-", " ").replace("_", " ")
        return words[:1].upper() + words[1:] if not self.record.get("title") else str(self.record["title"])


@final
@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: its steps, what it selected, what it claims and shows beside a paper, and where it ran."""

    folder: Path
    name: str
    study: str
    steps: list[Step]
    selection: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    claims: list[Mapping[str, Any]] = field(default_factory=list)
    figures: list[Mapping[str, Any]] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        StorageError: if there is no such folder.
    """
    if not folder.is_dir():
        raise StorageError(
            f"Expected a run folder, but {folder} is none. Give the path of a folder such as runs/00001-demo."
        )
    steps = sorted(path for path in folder.glob("steps/*") if path.is_dir() and not path.name.startswith("."))
    return Run(
        folder=folder,
        name=folder.resolve().name,
        study=_text(folder / "study.toml"),
        steps=_checked([_read_step(path) for path in steps]),
        selection=_object(folder / "selection.json"),
        environment=_object(folder / "environment.json"),
        claims=_objects(folder / "claims.json"),
        figures=_objects(folder / "figures.json"),
    )


def _read_step(folder: Path) -> Step:
    try:
        record = read_json(folder / "step.json")
    except FailscapeError as error:
        return Step(folder=folder, record={}, result=None, problem=f"This step could not be read: {error}")
    status, message = record.get("status"), record.get("error")
    if status != "done":
        how = {"failed": "This step failed", "skipped": "This step was skipped"}.get(
            str(status), "This step did not end"
        )
        return Step(folder=folder, record=record, result=None, problem=f"{how}: {message}" if message else f"{how}.")
    try:
        result = load_result(folder)
    except FailscapeError as error:
        return Step(folder=folder, record=record, result=None, problem=f"This step could not be read: {error}")
    return Step(folder=folder, record=record, result=result, problem="")


def _checked(steps: list[Step]) -> list[Step]:
    """Let each step tell what others of the same classifier and generator found out about what it names."""

    def models(step: Step) -> tuple[str, str]:
        return str(step.record.get("classifier")), str(step.record.get("generator"))

    try:
        checks: dict[tuple[str, str], dict[str, str]] = {}
        for step in steps:
            if step.result is not None:
                checks.setdefault(models(step), {}).update(step.result.checks)
        return [
            step if step.result is None else replace(step, result=step.result.with_checks(checks[models(step)]))
            for step in steps
        ]
    except Exception:  # noqa: BLE001 - a result that is broken says so itself where it is shown
        return steps


def _objects(path: Path) -> list[Mapping[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    return [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []


def _object(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path)
    except FailscapeError:
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
