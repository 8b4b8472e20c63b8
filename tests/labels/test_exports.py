import base64
import csv
import io
import json
import uuid
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
import torch
from tests.labels.conftest import CLASSES, make_project, make_task

from failscape.data.class_folder import read_class_folder
from failscape.data.encoded import ImageDecoder
from failscape.data.parquet import read_parquet
from failscape.errors import LabelStoreError, StorageError
from failscape.labels import (
    FORMATS,
    NOT_ANY,
    QUEUES,
    LabelStore,
    NewLabel,
    Project,
    decisions,
    export_labels,
    labelled_images,
)

HOSTILE = ("<img onerror=alert(1)>", "../../x", "=1+1", ".hidden", "CON", "a/b\\c", "é")


def say(store: LabelStore, project: Project, who: str, answers: dict[int, int]) -> None:
    images = store.images(project.id)
    new = [NewLabel(image_id=images[i].id, label=k, client_id=str(uuid.uuid4())) for i, k in answers.items()]
    store.label_all(project.id, who, new)


@pytest.fixture
def project(local: LabelStore) -> Project:
    """Eight images: 0 to 3 decided on a class, 4 on none, 5 tied, 6 with one label of two, 7 not labelled."""
    project = make_project(local, 8, labellers=2)
    say(local, project, "Ada", {0: 0, 1: 1, 2: 2, 3: 0, 4: NOT_ANY, 5: 0, 6: 1})
    say(local, project, "Bo", {0: 0, 1: 1, 2: 2, 3: 0, 4: NOT_ANY, 5: 1})
    return project


def decode(png: bytes) -> torch.Tensor:
    return (ImageDecoder(png, "png").decode(png, "png") * 255).round().to(torch.uint8)


def test_what_is_said_most_often(local: LabelStore, project: Project) -> None:
    every = decisions(local, project.id)
    assert [one.label for one in every] == [0, 1, 2, 0, NOT_ANY, None, None, None]
    assert [one.tied for one in every] == [False] * 5 + [True, False, False]
    assert [one.unfinished for one in every] == [False] * 6 + [True, False]
    predictions = make_task(8).probs.argmax(dim=1).tolist()
    assert [one.differs for one in every[:5]] == [k != p for k, p in zip([0, 1, 2, 0, -1], predictions, strict=False)]
    assert not any(one.differs for one in every[5:])
    fewer = decisions(local, project.id, least=1)
    assert [one.label for one in fewer] == [0, 1, 2, 0, NOT_ANY, None, 1, None]
    assert not any(one.unfinished for one in fewer)
    assert labelled_images(local, project.id, least=1).y.tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(LabelStoreError, match="no image has a class yet; 7 have fewer labels than are needed"):
        labelled_images(local, project.id, least=3)
    with pytest.raises(LabelStoreError, match="at least 1 label an image, but got 0"):
        decisions(local, project.id, least=0)


def test_the_labelled_images_are_a_set_to_train_on(local: LabelStore, project: Project) -> None:
    images = labelled_images(local, project.id)
    assert (images.class_names, images.y.tolist()) == (CLASSES, [0, 1, 2, 0])
    assert images.ids == make_task(8).names[:4]
    assert torch.equal((images.x * 255).round().to(torch.uint8), make_task(8).images[:4])


def test_the_two_zip_files(local: LabelStore, project: Project, tmp_path: Path) -> None:
    report = export_labels(local, project.id, tmp_path / "out", kind="zip")
    assert sorted(path.name for path in report.folder.iterdir()) == ["images.zip", "labels.zip"]
    differing = [(row, one) for row, one in enumerate(decisions(local, project.id)) if one.differs]
    assert 0 < len(differing) < 5, "some differ and some do not"
    assert report.images == len(differing)
    with zipfile.ZipFile(report.folder / "labels.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        assert json.loads(archive.read("classes.json")) == list(CLASSES)
    with zipfile.ZipFile(report.folder / "images.zip") as archive:
        assert archive.namelist() == [row["file"] for row in rows]
        for (number, one), row in zip(differing, rows, strict=True):
            assert torch.equal(decode(archive.read(row["file"])), make_task(8).images[number])
            assert (int(row["label"]), int(row["prediction"])) == (one.label, one.image.prediction)
            assert row["class_name"] == project.class_name(int(row["label"]))
    again = export_labels(local, project.id, tmp_path / "again", kind="zip").folder
    for name in ("images.zip", "labels.zip"):
        assert (again / name).read_bytes() == (report.folder / name).read_bytes()


def test_class_folders_load_back(local: LabelStore, project: Project, tmp_path: Path) -> None:
    report = export_labels(local, project.id, tmp_path / "out", kind="folders")
    assert (report.images, report.unfinished, report.tied, report.not_any, report.unlabelled) == (4, 1, 1, 1, 1)
    images = read_class_folder(report.folder)
    assert images.class_names == CLASSES
    assert images.y.tolist() == [0, 0, 1, 2]
    assert torch.equal((images.x * 255).round().to(torch.uint8), make_task(8).images[[0, 3, 1, 2]])


def test_parquet_loads_back(local: LabelStore, project: Project, tmp_path: Path) -> None:
    report = export_labels(local, project.id, tmp_path / "out", kind="parquet")
    images = read_parquet(report.folder / "labels.parquet")
    assert (images.class_names, images.y.tolist()) == (CLASSES, [0, 1, 2, 0])
    assert torch.equal((images.x * 255).round().to(torch.uint8), make_task(8).images[:4])


def test_label_studio(local: LabelStore, project: Project, tmp_path: Path) -> None:
    folder = export_labels(local, project.id, tmp_path / "out", kind="label-studio").folder
    tasks = json.loads((folder / "tasks.json").read_text())
    assert len(tasks) == 7
    first = tasks[0]
    kind, content = first["data"]["image"].split(",")
    assert kind == "data:image/png;base64"
    assert torch.equal(decode(base64.b64decode(content)), make_task(8).images[0])
    assert first["meta"]["labellers"] == ["Ada", "Bo"]
    choices = [[one["result"][0]["value"]["choices"][0] for one in task["annotations"]] for task in tasks]
    agreed = [[name] * 2 for name in ("ant", "bee", "cat", "ant", "not any class")]
    assert choices == [*agreed, ["ant", "bee"], ["bee"]]
    # Label Studio refuses annotations by users that it does not have.
    assert all("completed_by" not in one for task in tasks for one in task["annotations"])
    config = ElementTree.fromstring((folder / "config.xml").read_text())
    tag = config.find("Choices")
    assert tag is not None
    assert [choice.get("value") for choice in tag] == [*CLASSES, "not any class"]
    region = first["annotations"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == (tag.get("name"), tag.get("toName"))
    image = config.find("Image")
    assert image is not None
    assert (image.get("name"), image.get("value")) == (tag.get("toName"), "$image")


def test_fiftyone(local: LabelStore, project: Project, tmp_path: Path) -> None:
    folder = export_labels(local, project.id, tmp_path / "out", kind="fiftyone").folder
    document = json.loads((folder / "labels.json").read_text())
    assert document["classes"] == list(CLASSES)
    # FiftyOne finds an image under its label's key by the file's name without the suffix.
    files = {path.stem: path for path in (folder / "data").iterdir()}
    assert files.keys() == document["labels"].keys()
    assert list(document["labels"].values()) == [0, 1, 2, 0]
    for row, stem in enumerate(document["labels"]):
        assert torch.equal(decode(files[stem].read_bytes()), make_task(8).images[row])


def test_csv_has_a_row_a_label(local: LabelStore, project: Project, tmp_path: Path) -> None:
    folder = export_labels(local, project.id, tmp_path / "out", kind="csv").folder
    rows = list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text())))
    assert len(rows) == 13
    assert [(row["name"], row["labeller"], row["label"]) for row in rows[:3]] == [
        ("image-00", "Ada", "0"),
        ("image-00", "Bo", "0"),
        ("image-01", "Ada", "1"),
    ]
    assert {row["class_name"] for row in rows} == {*CLASSES, "not any class"}
    assert rows[0]["image"] == local.images(project.id)[0].id


def test_the_order_of_asking_is_exported(local: LabelStore, tmp_path: Path) -> None:
    project = make_project(local, 4, labellers=2)
    images = local.images(project.id)
    # Ada is asked 0 to 3 in turns; Bo is asked 0 in the same order, 1 in the other, 2 in none.
    asked = {"Ada": [*QUEUES, *QUEUES], "Bo": [QUEUES[0], QUEUES[0], None, QUEUES[1]]}
    for who, queues in asked.items():
        new = [
            NewLabel(image_id=image.id, label=0, client_id=str(uuid.uuid4()), queue=queue)
            for image, queue in zip(images, queues, strict=True)
        ]
        local.label_all(project.id, who, new)
    folder = export_labels(local, project.id, tmp_path / "csv", kind="csv").folder
    rows = list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text())))
    for who, queues in asked.items():
        assert [row["queue"] for row in rows if row["labeller"] == who] == [queue or "" for queue in queues]
    folder = export_labels(local, project.id, tmp_path / "parquet", kind="parquet").folder
    # Of an image the order is known where it is the same for everybody.
    assert pq.read_table(folder / "labels.parquet")["queue"].to_pylist() == ["teaching", None, None, "random"]


@pytest.mark.parametrize("kind", FORMATS)
def test_hostile_names_stay_inside_the_folder(local: LabelStore, tmp_path: Path, kind: str) -> None:
    task = make_task(7, classes=HOSTILE)
    names = ("../../../etc/x", "/abs", "<script>", "a" * 300, "..", "nul\u2028l", "=cmd()")
    hostile = type(task)(**{**vars(task), "names": names})
    project = local.create_project("../../x", hostile, rng=torch.Generator())
    say(local, project, "=HYPERLINK()", {i: i for i in range(7)})
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    folder = export_labels(local, project.id, tmp_path / "out", kind=kind).folder  # type: ignore[arg-type]
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    for path in folder.rglob("*"):
        assert path.resolve().is_relative_to(folder.resolve())
        assert path.name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        assert path.name.isascii()
        assert not path.name.startswith(".")
    for archive_path in folder.glob("*.zip"):
        with zipfile.ZipFile(archive_path) as archive:
            assert all("/" not in name and ".." not in name for name in archive.namelist())
    if kind == "csv":
        cells = [cell for row in csv.reader(io.StringIO((folder / "labels.csv").read_text())) for cell in row]
        assert not any(cell.startswith(("=", "@", "+")) for cell in cells)
    if kind == "folders":
        images = read_class_folder(folder)
        assert images.y.tolist() == list(range(7))
        assert list(json.loads((folder / "classes.json").read_text()).values()) == list(HOSTILE)
    if kind == "parquet":
        assert read_parquet(folder / "labels.parquet").class_names == HOSTILE
    if kind == "label-studio":
        root = ElementTree.fromstring((folder / "config.xml").read_text())
        assert [choice.get("value") for choice in root.iter("Choice")] == [*HOSTILE, "not any class"]


def test_numbers_of_classes_stay_what_the_classifier_says(local: LabelStore, tmp_path: Path) -> None:
    classes = tuple(str(k) for k in range(11))  # "10" sorts before "2"
    project = local.create_project("digits", make_task(11, classes=classes), rng=torch.Generator())
    say(local, project, "Ada", {2: 2, 10: 10})
    images = read_class_folder(export_labels(local, project.id, tmp_path / "out", kind="folders").folder)
    assert images.num_classes == 11
    assert images.y.tolist() == [2, 10]


def test_what_cannot_be_exported(local: LabelStore, project: Project, tmp_path: Path) -> None:
    empty = make_project(local, 2, name="empty")
    with pytest.raises(LabelStoreError, match="nothing is labelled yet"):
        export_labels(local, empty.id, tmp_path / "out", kind="csv")
    with pytest.raises(LabelStoreError, match="no image has a class yet"):
        labelled_images(local, empty.id)
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StorageError, match="new or empty folder"):
        export_labels(local, project.id, tmp_path / "full", kind="csv")


@pytest.mark.usefixtures("as_installed")
def test_an_unknown_format(local: LabelStore, project: Project, tmp_path: Path) -> None:
    with pytest.raises(LabelStoreError, match="a format of zip, folders"):
        export_labels(local, project.id, tmp_path / "out", kind="coco")  # type: ignore[arg-type]
