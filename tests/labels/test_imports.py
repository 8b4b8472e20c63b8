import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.labels.conftest import make_project, make_task
from tests.labels.test_exports import HOSTILE, say

from failscape.errors import DataError, LabelError, LabelStoreError
from failscape.labels import NOT_ANY, ImportReport, LabelStore, Project, export_labels, import_labels


@pytest.fixture
def project(local: LabelStore) -> Project:
    return make_project(local, 4, labellers=2)


def held(store: LabelStore, project: Project) -> set[tuple[str, str, int | None]]:
    names = {image.id: image.name for image in store.images(project.id)}
    return {(names[label.image_id], label.labeller, label.label) for label in store.labels(project.id)}


@pytest.mark.parametrize(("kind", "file"), [("csv", "labels.csv"), ("label-studio", "tasks.json")])
def test_what_was_exported_comes_back(local: LabelStore, tmp_path: Path, kind: Any, file: str) -> None:
    task = make_task(7, classes=HOSTILE)
    rng = torch.Generator()
    project = local.create_project("one", task, labellers_per_image=2, rng=rng)
    say(local, project, "=Ada", {i: i for i in range(7)})
    say(local, project, "Bo", {0: NOT_ANY, 1: 1})
    path = export_labels(local, project.id, tmp_path / "out", kind=kind).folder / file
    assert import_labels(local, project.id, path) == ImportReport(new=0, changed=0, same=9)
    assert len(local.events(project.id)) == 9
    # Into another store's project of the same images, found by their names.
    (tmp_path / "second").mkdir()
    with LabelStore(tmp_path / "second") as second:
        copy = second.create_project("copy", task, rng=rng)
        assert import_labels(second, copy.id, path) == ImportReport(new=9, changed=0, same=0)
        assert held(second, copy) == held(local, project)
        assert import_labels(second, copy.id, path) == ImportReport(new=0, changed=0, same=9)


def test_a_plain_csv_file(local: LabelStore, project: Project, tmp_path: Path) -> None:
    say(local, project, "Ada", {0: 2, 1: 1})
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffname,class_name,seconds\nimage-00,bee,1.5\nimage-01,bee,\nimage-03,not any class,2\n")
    report = import_labels(local, project.id, path, labeller="Ada")
    assert report == ImportReport(new=1, changed=1, same=1)
    assert held(local, project) == {("image-00", "Ada", 1), ("image-01", "Ada", 1), ("image-03", "Ada", NOT_ANY)}
    assert [event.seconds for event in local.events(project.id)] == [None, None, 1.5, 2.0]


def test_the_order_of_asking_comes_back_or_is_not_known(local: LabelStore, project: Project, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("name,label,queue\nimage-00,0,teaching\nimage-01,1,random\nimage-02,2,\n")
    import_labels(local, project.id, path, labeller="Ada")
    path.write_text("name,label\nimage-00,0\n")
    import_labels(local, project.id, path, labeller="Bo")
    assert [event.queue for event in local.events(project.id)] == ["teaching", "random", None, None]
    # An export tells all of it; Label Studio knows of no order.
    for kind, file, queues in (
        ("csv", "labels.csv", {"teaching", "random", None}),
        ("label-studio", "tasks.json", {None}),
    ):
        exported = export_labels(local, project.id, tmp_path / kind, kind=kind).folder / file  # type: ignore[arg-type]
        (tmp_path / f"{kind}-store").mkdir()
        with LabelStore(tmp_path / f"{kind}-store") as second:
            copy = make_project(second, 4)
            assert import_labels(second, copy.id, exported).new == 4
            assert {event.queue for event in second.labels(copy.id)} == queues


def test_what_label_studio_exports(local: LabelStore, project: Project, tmp_path: Path) -> None:
    def annotation(choice: str, by: Any, **more: Any) -> dict[str, Any]:
        value = {"from_name": "class", "type": "choices", "value": {"choices": [choice]}}
        return {"result": [value], "completed_by": by, "lead_time": 3.25} | more

    tasks = [
        {"id": 1, "data": {"name": "image-00"}, "annotations": [annotation("cat", 7), annotation("ant", {"id": 8})]},
        {"id": 2, "data": {"name": "image-01"}, "annotations": [annotation("bee", {"id": 9, "email": "a@b.c"})]},
        {"id": 3, "data": {"name": "image-02"}, "annotations": [annotation("bee", 7, was_cancelled=True)]},
        {"id": 4, "data": {"name": "image-03"}, "annotations": [{"result": [], "completed_by": 7}]},
        {"id": 5, "data": {"name": "unlabelled elsewhere"}, "annotations": []},
    ]
    path = tmp_path / "project.json"
    path.write_text(json.dumps(tasks))
    assert import_labels(local, project.id, path).new == 3
    assert held(local, project) == {
        ("image-00", "Label Studio user 7", 2),
        ("image-00", "Label Studio user 8", 0),
        ("image-01", "a@b.c", 1),
    }
    assert {event.seconds for event in local.events(project.id)} == {3.25}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataError, "a column image or name"),
        ("file,label\n", DataError, "but got file, label"),
        ("name,label,labeller\nimage-99,0,Ada\n", DataError, "line 2, but got 'image-99'"),
        ("name,label\nimage-00,0\n", LabelError, "a labeller in labels.csv line 2"),
        ("name,label,labeller\nimage-00,0,Ada\nimage-01,3,Ada\n", LabelError, "from -1 to 2 in labels.csv line 3"),
        ("name,label,labeller\nimage-00,one,Ada\n", LabelError, "but got 'one'"),
        ("name,class_name,labeller\nimage-00,dog,Ada\n", LabelError, "one of the classes ant, bee, cat"),
        ("name,label,class_name,labeller\nimage-00,0,bee,Ada\n", LabelError, "the class 'ant' of label 0"),
        ("name,label,labeller,seconds\nimage-00,0,Ada,-1\n", DataError, "seconds of at least 0"),
        ("name,label,labeller,seconds\nimage-00,0,Ada,nan\n", DataError, "seconds of at least 0"),
        ("name,label,labeller,queue\nimage-00,0,Ada,best\n", DataError, "an order of teaching or random, or nothing"),
        (
            f"name,label,labeller\nimage-00,0,Ada\nimage-01,0,{'B' * 101}\n",
            LabelError,
            "the labeller in labels.csv line 3",
        ),
        ("name,label,labeller\nimage-00,0,Ada\nimage-01,0,B\to\n", LabelError, "of 1 to 100 printable characters"),
        (
            "name,label,labeller\nimage-00,0,Ada\nimage-01,0,Ada\nimage-00,1, Ada\n",
            LabelError,
            "one label of 'image-00' by 'Ada', but got one in labels.csv line 2 and another in labels.csv line 4",
        ),
        ('name,label,labeller\n"image-00,0,Ada\n', DataError, "Expected CSV in labels.csv"),
    ],
)
def test_a_csv_file_that_is_not_sound_changes_nothing(
    local: LabelStore, project: Project, tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        import_labels(local, project.id, path)
    assert local.events(project.id) == ()


def test_labels_of_several_people_are_kept_all_or_none(store: LabelStore, tmp_path: Path) -> None:
    project = make_project(store, 4)
    (tmp_path / "labels.csv").write_text("name,label,labeller\nimage-00,0,Ada\nimage-01,1,Bo\n")
    # A database that fails at the second labeller.
    with store._database.writing() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(
                "CREATE TRIGGER fails BEFORE INSERT ON events WHEN NEW.label = 1 "
                "BEGIN SELECT RAISE(ABORT, 'no more'); END"
            )
        else:
            connection.exec_driver_sql("ALTER TABLE events ADD CONSTRAINT fails CHECK (label <> 1)")
    with pytest.raises(LabelStoreError):
        import_labels(store, project.id, tmp_path / "labels.csv")
    assert store.events(project.id) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expected JSON"),
        ("[" * 100_000, "Expected JSON"),
        ("{}", "a list of tasks"),
        ("[1]", "data and annotations in task 0"),
        ('[{"image": "x", "choice": "ant"}]', "not as JSON-MIN"),
        (
            '[{"data": {"name": ["image-00"]}, "annotations": [{"completed_by": 1, "lead_time": 1,'
            ' "result": [{"value": {"choices": ["ant"]}}]}]}]',
            "Expected an image of 'insects'",
        ),
        (
            '[{"data": {"name": "image-00"}, "annotations": [{"completed_by": 1, "lead_time": "x",'
            ' "result": [{"value": {"choices": ["ant"]}}]}]}]',
            "seconds of at least 0",
        ),
    ],
)
def test_a_json_file_that_is_not_sound_changes_nothing(
    local: LabelStore, project: Project, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        import_labels(local, project.id, path)
    assert local.events(project.id) == ()


def test_files_that_cannot_be_read(local: LabelStore, project: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        import_labels(local, project.id, tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"Expected a \.csv file"):
        import_labels(local, project.id, tmp_path / "labels.xlsx")
    (tmp_path / "latin.csv").write_bytes(b"name,label\n\xe9,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        import_labels(local, project.id, tmp_path / "latin.csv")
