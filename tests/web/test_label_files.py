"""Everybody's labels: who has labelled, how far they agree, and files in and out."""

import csv
import io
import json
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.web.conftest import CLASSES, Served, Watched, make_project, serving
from tests.web.test_pages import check

from failscape.labels import FORMATS, LabelStore, NewLabel, Project, Queue, compare_orders

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

# What Ada and Bo say of six images: they agree on four.
SAID = {"Ada": [0, 1, 2, 0, 1, 2], "<b>Bo</b>": [0, 1, 2, 0, 2, 1]}
ASKED: dict[str, Queue] = {"Ada": "teaching", "<b>Bo</b>": "random"}


@pytest.fixture
def project(fresh_run: Path) -> Project:
    project = make_project(fresh_run, 8, labellers=2)
    with LabelStore(fresh_run) as store:
        images = store.images(project.id)
        for labeller, labels in SAID.items():
            new = [
                NewLabel(image_id=image.id, label=label, client_id=str(uuid.uuid4()), queue=ASKED[labeller])
                for image, label in zip(images, labels, strict=False)
            ]
            store.label_all(project.id, labeller, new)
    return project


@pytest.fixture
def served(fresh_run: Path, project: Project) -> Iterator[Served]:
    with serving([fresh_run]) as served:
        yield served


@pytest.fixture
def client(served: Served, project: Project) -> Iterator[httpx.Client]:
    with served.client() as client:
        client.base_url = f"{served.run}/label/{project.id}/"
        yield client


def test_who_labelled_and_how_far_they_agree(client: httpx.Client) -> None:
    text = client.get("everybody").text
    assert "6 of 8 images have 2 labels; 12 labels in all" in text
    assert "&lt;b&gt;Bo&lt;/b&gt;" in text
    # Agreed on 4 of 6; by chance 1/3.
    assert "66.7 % (" in text
    assert "Cohen’s kappa" in text
    assert ">0.50 (" in "".join(text.split("\n"))


def test_what_each_order_of_asking_brings(client: httpx.Client, fresh_run: Path, project: Project) -> None:
    with LabelStore(fresh_run) as store:
        images = store.images(project.id)
        comparison = compare_orders(store.labels(project.id), images)
        (row,) = (
            " ".join(text.split()) for text in client.get("everybody").text.split("<tr>") if "the control" in text
        )
        share = sum(k != image.prediction for k, image in zip(SAID["<b>Bo</b>"], images, strict=False)) / 6
        assert f"<td>6</td><td>6</td><td>{100 * share:.1f} % (" in row.replace("<td> ", "<td>")
        assert comparison.orders[1].differs.value == pytest.approx(share)
        assert "is not known: imported" not in client.get("everybody").text
        store.label(project.id, "Cy", NewLabel(image_id=images[0].id, label=0, client_id="label-of-Cy"))
    assert "The order of 1 label is not known" in client.get("everybody").text


@pytest.mark.parametrize("kind", FORMATS)
def test_every_export_comes_as_one_file(
    client: httpx.Client, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = tmp_path / "temporary"
    rest.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(rest))
    answer = client.get(f"export/{kind}")
    assert answer.status_code == 200
    name = answer.headers["content-disposition"].partition("filename=")[2].strip('"')
    assert name.startswith("failscape-")
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert len(rows) == 12
    elif kind == "parquet":
        assert answer.content.startswith(b"PAR1")
    else:
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = archive.namelist()
        assert all(not name.startswith("/") and ".." not in name for name in names)
        expected = {
            "zip": "images.zip", "folders": "classes.json", "label-studio": "tasks.json", "fiftyone": "labels.json"
        }  # fmt: skip
        assert expected[kind] in names
    # What was written for it is cleared away, soon after.
    for _ in range(100):
        if not any(rest.iterdir()):
            break
        time.sleep(0.05)
    assert list(rest.iterdir()) == []


def test_what_cannot_be_exported_is_said(client: httpx.Client, served: Served, fresh_run: Path) -> None:
    assert client.get("export/pickle").status_code == 422
    empty = make_project(fresh_run, 2, name="empty")
    answer = client.get(f"{served.run}/label/{empty.id}/export/csv")
    assert answer.status_code == 422
    assert "nothing is labelled yet" in answer.json()["error"]


def upload(client: httpx.Client, name: str, content: bytes, labeller: str = "Cy") -> httpx.Response:
    return client.post("import", files={"file": (name, content)}, data={"labeller": labeller})


def test_labels_come_in_once(client: httpx.Client, fresh_run: Path, project: Project) -> None:
    content = b"name,label\n00000,2\n00001,-1\n"
    assert "2 new labels, 0 changed, 0 as they were" in upload(client, "mine.csv", content).text
    assert "0 new labels, 0 changed, 2 as they were" in upload(client, "mine.CSV", content).text
    with LabelStore(fresh_run) as store:
        assert [event.label for event in store.history(project.id, "Cy")] == [-1, 2]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.exe", b"name,label\n", "Expected a .csv file"),
        ("../../labels", b"name,label\n", "Expected a .csv file"),
        ("../../../x.csv", b"name,label\nnothing,0\n", "Expected an image of"),
        ("x.csv", b"\xff\xfe", "Expected UTF-8 text in upload.csv"),
        ("x.json", b"[" * 100_000, "Expected JSON in upload.json"),
        ("x.csv", b"name,label\n00000,0\n00001,7\n", "Expected a label from -1 to 2"),
    ],
)
def test_a_wrong_file_changes_nothing(
    client: httpx.Client, fresh_run: Path, project: Project, name: str, content: bytes, words: str
) -> None:
    answer = upload(client, name, content)
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    with LabelStore(fresh_run) as store:
        assert store.history(project.id, "Cy") == ()


def test_in_the_browser(
    served: Served,
    project: Project,
    enter: "Callable[[Served], Tab]",
    watched: Watched,
    tmp_path: Path,
    fresh_run: Path,
) -> None:
    tab = enter(served)
    tab.goto(f"{served.run}/label/{project.id}")
    tab.get_by_label("Your name").fill("Cy")
    tab.keyboard.press("Enter")
    tab.get_by_text("Everybody’s labels").click()
    tab.get_by_text("12 labels in all").wait_for()
    check(tab, "label-everybody")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Every label of everybody").click()
    assert download.value.suggested_filename == "failscape-labels.csv"
    exported = Path(download.value.path()).read_text()
    assert exported.count("\n") == 13

    wrong, right = tmp_path / "wrong.csv", tmp_path / "right.json"
    wrong.write_text("name,label\nnothing,0\n")
    task = {"data": {"name": "00006"}, "annotations": [{"result": [{"value": {"choices": [CLASSES[1]]}}]}]}
    right.write_text(json.dumps([task]))
    tab.get_by_label("Whose labels").fill("Dee")
    tab.get_by_label("A CSV file").set_input_files(wrong)
    tab.get_by_role("button", name="Import").click()
    tab.get_by_text("but got 'nothing'").wait_for()
    # A refusal is all that the browser reports.
    assert ["422" in error for error in watched.errors] == [True]
    watched.errors.clear()
    tab.get_by_label("A CSV file").set_input_files(right)
    tab.get_by_role("button", name="Import").click()
    tab.get_by_text("1 new label, 0 changed").wait_for()
    tab.get_by_role("button", name="Look again").click()
    tab.get_by_text("13 labels in all").wait_for()
    # What is typed into the form labels no image.
    with LabelStore(fresh_run) as store:
        assert {event.labeller for event in store.events(project.id)} == {*SAID, "Dee"}
