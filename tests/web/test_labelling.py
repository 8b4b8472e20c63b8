"""What the script of the label page asks for, over a real socket."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.web.conftest import CLASSES, Served, make_project, serving

from failscape.labels import NOT_ANY, LabelStore, database
from failscape.report.run import read_run


@pytest.fixture
def served(fresh_run: Path) -> Iterator[Served]:
    make_project(fresh_run, 8, labellers=2)
    with serving([fresh_run]) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client, LabelStore(served_folder(served)) as store:
        (project,) = store.projects()
        client.base_url = f"{served.run}/label/{project.id}/"
        yield client


def served_folder(served: Served) -> Path:
    return next(iter(served.site.runs.values())).folder


def ask(client: httpx.Client, labeller: str = "Ada", count: int = 4, tab: str = "one") -> list[str]:
    body = {"labeller": labeller, "tab": tab, "count": count, "queue": "random"}
    return [image["id"] for image in client.post("next", json=body).raise_for_status().json()["images"]]


def label(client: httpx.Client, image: str, value: int, client_id: str, labeller: str = "Ada") -> httpx.Response:
    one = {"image_id": image, "label": value, "client_id": f"client-{client_id}", "seconds": 0.5}
    return client.post("labels", json={"labeller": labeller, "tab": "one", "labels": [one]})


def test_a_label_is_kept_counted_and_taken_back(client: httpx.Client, served: Served) -> None:
    first, second, *_ = ask(client)
    answer = label(client, first, 2, "a").json()
    assert answer["progress"]["mine"] == 1
    (event,) = answer["events"]
    assert label(client, first, 2, "a").json()["events"] == [event]  # sent twice
    assert label(client, second, NOT_ANY, "b").status_code == 200
    history = client.get("history", params={"labeller": "Ada"}).json()
    assert [(one["image_id"], one["label"]) for one in history["labels"]] == [(first, 2), (second, NOT_ANY)]
    assert history["labels"][0]["image"]["prediction"] in range(len(CLASSES))

    undo = {"labeller": "Ada", "tab": "one", "event_id": event["id"], "client_id": "client-c"}
    assert client.post("undo", json=undo).json()["progress"]["mine"] == 1
    # What was taken back is asked next.
    assert ask(client)[0] == first
    with LabelStore(served_folder(served)) as store:
        assert len(store.events(store.projects()[0].id)) == 3


def test_the_order_of_asking_is_handed_out_kept_and_remembered(client: httpx.Client, served: Served) -> None:
    body = {"labeller": "Ada", "tab": "one", "count": 1}
    events = []
    for number, queue in enumerate(("random", "teaching")):
        (image,) = client.post("next", json=body | {"queue": queue}).json()["images"]
        assert image["queue"] == queue
        one = {"image_id": image["id"], "label": 0, "client_id": f"client-{number}", "queue": image["queue"]}
        sent = {"labeller": "Ada", "tab": "one", "labels": [one]}
        events += client.post("labels", json=sent).raise_for_status().json()["events"]
    history = client.get("history", params={"labeller": "Ada"}).json()["labels"]
    assert [one["image"]["queue"] for one in history] == ["random", "teaching"]
    with LabelStore(served_folder(served)) as store:
        assert [event.queue for event in store.events(store.projects()[0].id)] == ["random", "teaching"]


def test_two_windows_get_different_images_and_two_people_each_their_own(client: httpx.Client) -> None:
    one, other = ask(client, tab="one"), ask(client, tab="two")
    assert not set(one) & set(other)
    assert len(ask(client, labeller="Bo", tab="three", count=8)) == 8
    # Two labels an image were asked for.
    assert ask(client, labeller="Cy", tab="four") == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"label": 3}, 422),
        ({"label": -2}, 422),
        ({"image_id": "nothing"}, 404),
        ({"seconds": -1}, 422),
        ({"seconds": "NaN"}, 422),
        ({"client_id": "short"}, 422),
        ({"given_ms": -1}, 422),
        ({"given_ms": 2**63}, 422),
        ({"queue": "best"}, 422),
        ({"more": 1}, 422),
    ],
)
def test_wrong_labels_are_refused_in_words_and_nothing_is_kept(
    client: httpx.Client, served: Served, change: dict[str, object], status: int
) -> None:
    (image, *_) = ask(client)
    good = {"image_id": image, "label": 1, "client_id": "client-a", "seconds": 1.0}
    other = {"image_id": image, "label": 1, "client_id": "client-b", "seconds": 1.0}
    body = {"labeller": "Ada", "tab": "one", "labels": [other, good | change]}
    answer = client.post("labels", json=body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith("Expected ")
    assert client.get("history", params={"labeller": "Ada"}).json()["labels"] == []


@pytest.mark.parametrize(("event_id", "status"), [(2**63, 422), (2**63 - 1, 404), (0, 422), (-1, 422)])
def test_an_event_that_cannot_be_is_refused(client: httpx.Client, event_id: int, status: int) -> None:
    undo = {"labeller": "Ada", "tab": "one", "event_id": event_id, "client_id": "client-a"}
    answer = client.post("undo", json=undo)
    assert answer.status_code == status
    assert answer.json()["error"].startswith("Expected ")


def test_an_identifier_used_for_something_else_is_a_conflict(client: httpx.Client) -> None:
    first, second, *_ = ask(client)
    label(client, first, 0, "a")
    assert label(client, second, 0, "a").status_code == 409


def test_a_database_that_is_busy_is_told_to_who_labels_and_its_place_to_who_runs_the_server(
    client: httpx.Client, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 50)
    (image, *_) = ask(client)
    with closing(sqlite3.connect(served_folder(served) / database.FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = label(client, image, 1, "a")
    assert answer.status_code == 503
    assert "does not answer just now" in answer.json()["error"]
    assert str(served_folder(served)) not in answer.text
    assert f"{served_folder(served)}/labels.sqlite, but got: database is locked" in caplog.text
    assert label(client, image, 1, "a").json()["events"][0]["label"] == 1


def test_an_image_of_the_store_can_be_seen(client: httpx.Client, served: Served) -> None:
    (image, *_) = ask(client)
    answer = client.get(f"{served.run}/label/images/{image}")
    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]


def test_a_project_is_made_of_images_of_a_run(toy_server: Served) -> None:
    form = {"name": "<b>mine</b>", "source": "step-2", "count": "5", "labellers": "2", "queue": "teaching"}
    with toy_server.client() as client:
        answer = client.post(f"{toy_server.run}/label/projects", data=form)
        assert answer.status_code == 303
        page = client.get(answer.headers["location"])
        assert "&lt;b&gt;mine&lt;/b&gt;" in page.text
        assert client.post(f"{toy_server.run}/label/projects", data=form).status_code == 409
        wrong = form | {"name": "other", "source": "step-9"}
        assert client.post(f"{toy_server.run}/label/projects", data=wrong).status_code == 404
    with LabelStore(served_folder(toy_server)) as store:
        project = store.project("<b>mine</b>")
        assert (project.images, project.labellers_per_image, project.class_names) == (5, 2, CLASSES)
        # Only that may be retrained on the labels.
        assert project.classifier == read_run(served_folder(toy_server)).steps[1].record["classifier"]
