"""Labels from files of other programs: CSV and Label Studio."""

import csv
import io
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from failscape.errors import DataError, LabelError, LabelStoreError
from failscape.labels.records import NOT_ANY, QUEUES, NewLabel, Project, Queue
from failscape.labels.spreadsheet import unguarded
from failscape.labels.store import LabelStore
from failscape.labels.task import NOT_ANY_NAME
from failscape.labels.writing import LONGEST_LABELLER, checked_name

_MAX_BYTES = 512 * 2**20


@final
@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        new: labels where the labeller had none.
        changed: labels that took the place of another one of the same labeller.
        same: labels that held already; nothing was written for them.
    """

    new: int
    changed: int
    same: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A label as a file has it; `where` names the place in it for messages."""

    where: str
    image_id: str | None
    name: str | None
    labeller: str | None
    label: int
    seconds: float | None
    queue: Queue | None = None


def import_labels(store: LabelStore, project_id: str, file: Path, *, labeller: str | None = None) -> ImportReport:
    """Take over labels from a file, after all of it was found sound. Importing it again changes nothing.

    A `.csv` file has a column `image` (ids) or `name`, a column `label` (numbers, -1 for none of the classes) or
    `class_name`, and may have `labeller`, `seconds` and `queue`: in which order it was asked, which is not known
    without. A `.json` file is what Label Studio exports or what
    `export_labels` wrote for it: the image is found by `image_id` or `name` among a task's data, the class is the
    one choice of an annotation.

    Args:
        store: where to.
        project_id: the project.
        file: the file.
        labeller: whose labels they are, where the file does not say.

    Raises:
        NotInStore: if there is no such project.
        DataError: if the file cannot be read, is of another kind, or names an image that the project has not.
        LabelError: if a label is none of the project's classes, nobody is said to have given it, or the same person
            gave an image two.
    """
    project = store.project(project_id)
    readers = {".csv": _csv_rows, ".json": _label_studio_rows}
    if file.suffix.lower() not in readers:
        raise DataError(f"Expected a .csv file, or a .json file of Label Studio, but got {file.name}.")
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"Expected a file of at most {_MAX_BYTES >> 20} MiB, but {file} is larger. Split it.")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"Expected a readable file {file}, but got: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"Expected UTF-8 text in {file.name}, but got other bytes. Save it as UTF-8.") from error

    images = store.images(project.id)
    names_of, names = {image.id: image.name for image in images}, {image.name: image.id for image in images}
    wanted: dict[tuple[str, str], _Row] = {}
    for row in readers[file.suffix.lower()](text, project, file.name):
        image_id = row.image_id if row.image_id in names_of else names.get(row.name or "")
        if image_id is None:
            raise DataError(
                f"Expected an image of {project.name!r} in {row.where}, but got {row.name or row.image_id!r}. Import "
                "into the project that was exported."
            )
        who = _labeller(row, labeller)
        if (who, image_id) in wanted:
            raise LabelError(
                f"Expected one label of {names_of[image_id]!r} by {who!r}, but got one in "
                f"{wanted[who, image_id].where} and another in {row.where}. Leave out all but one."
            )
        wanted[who, image_id] = row
    return _write(store, project, wanted)


def _write(store: LabelStore, project: Project, wanted: Mapping[tuple[str, str], _Row]) -> ImportReport:
    held = {(label.labeller, label.image_id): label.label for label in store.labels(project.id)}
    missing = {key: row for key, row in wanted.items() if held.get(key) != row.label}
    new: dict[str, list[NewLabel]] = {}
    for (who, image_id), row in missing.items():
        label = NewLabel(
            image_id=image_id,
            label=row.label,
            client_id=f"import-{uuid.uuid4()}",
            seconds=row.seconds,
            queue=row.queue,
        )
        new.setdefault(who, []).append(label)
    store.label_by_each(project.id, new)
    changed = sum(key in held for key in missing)
    return ImportReport(new=len(missing) - changed, changed=changed, same=len(wanted) - len(missing))


def _labeller(row: _Row, otherwise: str | None) -> str:
    """Return who gave a label."""
    who = row.labeller or otherwise or ""
    if not who.strip():
        raise LabelError(f"Expected a labeller in {row.where}, but got none. Say whose labels they are.")
    try:
        return checked_name(who, "labeller", LONGEST_LABELLER)
    except LabelStoreError as error:
        raise LabelError(f"{error} That is the labeller in {row.where}.") from error


def _csv_rows(text: str, project: Project, file: str) -> Iterator[_Row]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = set(reader.fieldnames or ())
        if not columns & {"image", "name"} or not columns & {"label", "class_name"}:
            raise DataError(
                f"Expected a column image or name, and a column label or class_name, in {file}, but got "
                f"{', '.join(sorted(columns)) or 'none'}. Rename the columns."
            )
        for cells in reader:
            where = f"{file} line {reader.line_num}"
            row = {key: unguarded(value) for key, value in cells.items() if isinstance(value, str) and key}
            seconds = row.get("seconds", "").strip()
            yield _Row(
                where=where,
                image_id=row.get("image"),
                name=row.get("name"),
                labeller=row.get("labeller"),
                label=_label(row.get("label", "").strip(), row.get("class_name", ""), project, where),
                seconds=_seconds(seconds or None, where),
                queue=_queue(row.get("queue", "").strip(), where),
            )
    except csv.Error as error:
        raise DataError(f"Expected CSV in {file}, but got: {error}. Save it again.") from error


def _label(number: str, class_name: str, project: Project, where: str) -> int:
    """Return the label that a number or a name says; where both are there they must agree."""
    names = {name: k for k, name in enumerate(project.class_names)} | {NOT_ANY_NAME: NOT_ANY}
    by_name = names.get(class_name) if class_name else None
    if number:
        try:
            label = int(number)
        except ValueError:
            label = NOT_ANY - 1
        if not NOT_ANY <= label < len(project.class_names):
            raise LabelError(
                f"Expected a label from {NOT_ANY} to {len(project.class_names) - 1} in {where}, but got {number!r}."
            )
        if class_name and by_name != label:
            raise LabelError(
                f"Expected the class {project.class_name(label)!r} of label {label} in {where}, but got "
                f"{class_name!r}. Leave out one of the two columns."
            )
        return label
    if by_name is None:
        raise LabelError(
            f"Expected one of the classes {', '.join(project.class_names)}, or {NOT_ANY_NAME!r}, in {where}, but got "
            f"{class_name!r}."
        )
    return by_name


def _label_studio_rows(text: str, project: Project, file: str) -> Iterator[_Row]:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in {file}, but got: {error}. Export it again.") from error
    if not isinstance(tasks, list):
        raise DataError(f"Expected a list of tasks in {file}, but got {type(tasks).__name__}. Export it as JSON.")
    for number, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or not isinstance(task.get("annotations", []), list):
            raise DataError(
                f"Expected data and annotations in task {number} of {file}, but got neither or other. Export it as "
                "JSON, not as JSON-MIN."
            )
        annotations = [one for one in task.get("annotations", []) if isinstance(one, dict)]
        meta = task.get("meta")
        named = meta.get("labellers") if isinstance(meta, dict) else None
        labellers = named if isinstance(named, list) and len(named) == len(annotations) else [None] * len(annotations)
        for annotation, named_labeller in zip(annotations, labellers, strict=True):
            where = f"{file} task {number}"
            choice = _choice(annotation.get("result"))
            # Skipped in Label Studio, or without an answer.
            if annotation.get("was_cancelled") or choice is None:
                continue
            image_id, name = data.get("image_id"), data.get("name")
            yield _Row(
                where=where,
                image_id=image_id if isinstance(image_id, str) else None,
                name=name if isinstance(name, str) else None,
                labeller=_user(annotation.get("completed_by")) or (str(named_labeller) if named_labeller else None),
                label=_label("", choice, project, where),
                seconds=_seconds(annotation.get("lead_time"), where),
            )


def _choice(result: Any) -> str | None:
    """Return the one choice among the regions of an annotation."""
    for region in result if isinstance(result, list) else ():
        value = region.get("value") if isinstance(region, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], str):
            return choices[0]
    return None


def _user(completed_by: Any) -> str | None:
    """Return how a user of Label Studio is called here: by e-mail address, or by number."""
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    if isinstance(completed_by, int):
        return f"Label Studio user {completed_by}"
    return completed_by if isinstance(completed_by, str) else None


def _queue(value: str, where: str) -> Queue | None:
    found = next((queue for queue in QUEUES if queue == value), None)
    if value and found is None:
        raise DataError(f"Expected an order of {' or '.join(QUEUES)}, or nothing, in {where}, but got {value!r}.")
    return found


def _seconds(value: Any, where: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DataError(f"Expected seconds of at least 0 in {where}, but got {value!r}.")
    return seconds
