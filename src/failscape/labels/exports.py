"""Labels and images as files for other programs. No name of a class or an image ever becomes a path unchecked."""

import base64
import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args
from xml.sax.saxutils import quoteattr

from failscape.errors import LabelStoreError
from failscape.labels.decision import Decision, decisions
from failscape.labels.records import NOT_ANY, LabelImage, Project
from failscape.labels.spreadsheet import guarded
from failscape.labels.store import LabelStore
from failscape.labels.task import NOT_ANY_NAME
from failscape.storage import atomic_path, require_empty, write_bytes, write_json

ExportFormat = Literal["zip", "folders", "parquet", "label-studio", "fiftyone", "csv"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

CSV_COLUMNS = (
    "image",
    "name",
    "origin",
    "labeller",
    "label",
    "class_name",
    "time",
    "seconds",
    "queue",
    "prediction",
    "predicted_class",
    "confidence",
)
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9 _.-]{0,98}[A-Za-z0-9_-])?")
# The earliest moment that a zip file can name, so that the same labels give the same bytes.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@final
@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export wrote, and what it had to leave out.

    Attributes:
        folder: what was written.
        images: images written.
        unfinished: images with labels, but fewer than are needed.
        tied: images of which two answers or more were given most often.
        not_any: images that were decided to belong to no class.
        unlabelled: images that nobody has labelled.
    """

    folder: Path
    images: int
    unfinished: int
    tied: int
    not_any: int
    unlabelled: int


def export_labels(
    store: LabelStore, project_id: str, folder: Path, *, kind: ExportFormat, least: int | None = None
) -> ExportReport:
    """Write the labels of a project that hold into a new or empty folder.

    - "zip": the two files of the paper: `images.zip`, the images on which people and the classifier differ, and
      `labels.zip`, the new labels of these.
    - "folders": a folder a class, in the order of the classes, with `classes.json`, which says which is which.
    - "parquet": `labels.parquet`, images and labels as Hugging Face publishes them.
    - "label-studio": `tasks.json`, every label an annotation and the classifier a prediction, and `config.xml`.
    - "fiftyone": `data/` and `labels.json`, its layout for image classification.
    - "csv": `labels.csv`, a row a label of each labeller.

    "folders", "parquet" and "fiftyone" hold what is said most often where that is a class; "zip" also the images that
    belong to none; "label-studio" and "csv" whatever was said. Files of images are numbered as in the store.

    Args:
        store: where from.
        project_id: the project.
        folder: where to.
        kind: the format.
        least: labels that an image must have to be decided; by default as many as the project asks for.

    Raises:
        NotInStore: if there is no such project.
        LabelStoreError: if nothing is labelled, or the format is unknown.
        StorageError: if the folder holds something already, or cannot be written.

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", section 4.4, for the two zip files.
    """
    if kind not in _WRITERS:
        raise LabelStoreError(f"Expected a format of {', '.join(FORMATS)}, but got {kind!r}.")
    project = store.project(project_id)
    every = decisions(store, project.id, least=least)
    if not any(one.labels for one in every):
        raise LabelStoreError(f"Expected labels in {project.name!r}, but nothing is labelled yet. Label some images.")
    require_empty(folder)
    export = _Export(store, project, every, folder)
    return ExportReport(
        folder=folder,
        images=_WRITERS[kind](export),
        unfinished=sum(one.unfinished for one in every),
        tied=sum(one.tied for one in every),
        not_any=sum(one.label == NOT_ANY for one in every),
        unlabelled=sum(not one.labels for one in every),
    )


@final
class _Export:
    """A project on its way into a folder."""

    def __init__(self, store: LabelStore, project: Project, every: Sequence[Decision], folder: Path) -> None:
        self._store = store
        self.project = project
        self.every = every
        self.folder = folder
        self._stems = {one.image.id: f"{row:06d}{_readable(one.image.name)}" for row, one in enumerate(every)}

    @property
    def classed(self) -> list[tuple[Decision, int]]:
        """Images that were decided to be of a class, and the class."""
        return [(one, one.label) for one in self.every if one.label is not None and one.label != NOT_ANY]

    def stem(self, image: LabelImage) -> str:
        """Return the name of the image's file, without its suffix."""
        return self._stems[image.id]

    def png(self, image: LabelImage) -> bytes:
        return self._store.png(image.id)


def _write_zips(export: _Export) -> int:
    differing = [one for one in export.every if one.differs]
    with (
        atomic_path(export.folder / "images.zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for one in differing:
            archive.writestr(_entry(f"{export.stem(one.image)}.png"), export.png(one.image))
    name = export.project.class_name
    rows = [
        {
            "file": f"{export.stem(one.image)}.png",
            "label": one.label,
            "class_name": name(one.label),
            "prediction": one.image.prediction,
            "predicted_class": name(one.image.prediction),
        }
        for one in differing
        if one.label is not None
    ]
    with (
        atomic_path(export.folder / "labels.zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        columns = ("file", "label", "class_name", "prediction", "predicted_class")
        archive.writestr(_entry("labels.csv"), _csv(columns, rows))
        archive.writestr(_entry("classes.json"), json.dumps(export.project.class_names))
    return len(differing)


def _write_folders(export: _Export) -> int:
    names = _folder_names(export.project.class_names)
    for one, label in export.classed:
        write_bytes(export.folder / names[label] / f"{export.stem(one.image)}.png", export.png(one.image))
    # A class without images keeps its folder, so that readers number the classes as the classifier does.
    for name in names:
        (export.folder / name).mkdir(parents=True, exist_ok=True)
    write_json(export.folder / "classes.json", dict(zip(names, export.project.class_names, strict=True)))
    return len(export.classed)


def _write_parquet(export: _Export) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    classed = export.classed
    columns = {
        "image": pa.array(
            [{"bytes": export.png(one.image), "path": f"{export.stem(one.image)}.png"} for one, _ in classed],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array([label for _, label in classed], pa.int64()),
        "name": pa.array([one.image.name for one, _ in classed], pa.string()),
        "origin": pa.array([one.image.origin for one, _ in classed], pa.string()),
        "prediction": pa.array([one.image.prediction for one, _ in classed], pa.int64()),
        "labels": pa.array([len(one.labels) for one, _ in classed], pa.int64()),
        "queue": pa.array([_queue(one) for one, _ in classed], pa.string()),
    }
    classes = {"names": list(export.project.class_names), "_type": "ClassLabel"}
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": classes, "prediction": classes}
    features |= {"name": _value("string"), "origin": _value("string"), "labels": _value("int64")}
    features |= {"queue": _value("string")}
    metadata = {"huggingface": json.dumps({"info": {"features": {key: features[key] for key in columns}}})}
    with atomic_path(export.folder / "labels.parquet") as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary, row_group_size=1000)
    return len(classed)


def _write_label_studio(export: _Export) -> int:
    project = export.project
    choices = [*project.class_names, NOT_ANY_NAME]
    labelled = [one for one in export.every if one.labels]
    tasks = [
        {
            "data": {
                "image": "data:image/png;base64," + base64.b64encode(export.png(one.image)).decode(),
                "image_id": one.image.id,
                "name": one.image.name,
            },
            # Label Studio knows its own users only, and gives annotations without one to whoever imports them.
            "meta": {"labellers": [label.labeller for label in one.labels]},
            "annotations": [
                {
                    "result": _choice(choices[label.label]),
                    "created_at": label.time.isoformat(),
                    "lead_time": label.seconds,
                }
                for label in one.labels
                if label.label is not None
            ],
            "predictions": [
                {
                    "model_version": "classifier",
                    "score": one.image.confidence,
                    "result": _choice(choices[one.image.prediction]),
                }
            ],
        }
        for one in labelled
    ]
    write_bytes(export.folder / "tasks.json", json.dumps(tasks, indent=1, allow_nan=False).encode())
    config = "".join(f"    <Choice value={quoteattr(choice)}/>\n" for choice in choices)
    write_bytes(
        export.folder / "config.xml",
        (
            '<View>\n  <Image name="image" value="$image"/>\n'
            f'  <Choices name="class" toName="image" choice="single">\n{config}  </Choices>\n</View>\n'
        ).encode(),
    )
    return len(labelled)


def _write_fiftyone(export: _Export) -> int:
    for one, _ in export.classed:
        write_bytes(export.folder / "data" / f"{export.stem(one.image)}.png", export.png(one.image))
    labels = {export.stem(one.image): label for one, label in export.classed}
    write_json(export.folder / "labels.json", {"classes": list(export.project.class_names), "labels": labels})
    return len(labels)


def _write_csv(export: _Export) -> int:
    name = export.project.class_name
    rows = [
        {
            "image": one.image.id,
            "name": one.image.name,
            "origin": one.image.origin,
            "labeller": label.labeller,
            "label": label.label,
            "class_name": name(label.label),
            "time": label.time.isoformat(timespec="milliseconds"),
            "seconds": "" if label.seconds is None else label.seconds,
            "queue": label.queue or "",
            "prediction": one.image.prediction,
            "predicted_class": name(one.image.prediction),
            "confidence": f"{one.image.confidence:.6f}",
        }
        for one in export.every
        for label in one.labels
        if label.label is not None
    ]
    write_bytes(export.folder / "labels.csv", _csv(CSV_COLUMNS, rows).encode())
    return sum(bool(one.labels) for one in export.every)


_WRITERS: Mapping[str, Callable[[_Export], int]] = {
    "zip": _write_zips,
    "folders": _write_folders,
    "parquet": _write_parquet,
    "label-studio": _write_label_studio,
    "fiftyone": _write_fiftyone,
    "csv": _write_csv,
}


def _queue(decision: Decision) -> str | None:
    """Return in which order everybody was asked an image; None where that differs or is not known."""
    queues = {label.queue for label in decision.labels}
    return queues.pop() if len(queues) == 1 else None


def _folder_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return a folder a class: its name where all names suit, and sort as the classes do; else numbered names."""
    plain = all(_FOLDER_NAME.fullmatch(name) for name in class_names)
    distinct = len({name.lower() for name in class_names}) == len(class_names)
    if plain and distinct and list(class_names) == sorted(class_names):
        return tuple(class_names)
    digits = max(3, len(str(len(class_names))))
    return tuple(f"{k:0{digits}d}{_readable(name)}" for k, name in enumerate(class_names))


def _readable(name: str) -> str:
    """Return what of a name may stand behind a number in a file name: `-` and letters, digits, `_` and `-`."""
    kept = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:80]
    return f"-{kept}" if kept else ""


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_NO_DATE)
    entry.external_attr = 0o644 << 16
    return entry


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: guarded(value) if isinstance(value, str) else value for key, value in row.items()})
    return text.getvalue()


def _choice(choice: str) -> list[dict[str, Any]]:
    return [{"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}]


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}
