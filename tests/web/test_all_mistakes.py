"""All mistakes of a run, also those that no step explained: each is there, and an example can be had of it."""

import itertools
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import torch
from tests.web.conftest import CLASSES, SHAPE, Served, build_run, serving
from tests.web.test_mistakes import known_to
from tests.web.test_pages import check

from failscape.classifiers import build_network, load_classifier, save_classifier
from failscape.explain import SympatheticExamples
from failscape.generators import load_generator
from failscape.report.run import read_run
from failscape.web.judged import FOLDER, Judgements, step_data
from failscape.web.mistakes import key_of
from failscape.web.networks import Networks
from failscape.web.paging import cut
from failscape.web.pictures import eight_bit

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

IMAGES, EXPLAINED = 400, 5


@pytest.fixture(scope="module")
def limited_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps explained the first few of many mistakes."""
    return build_run(tmp_path_factory.mktemp("limited"), images=IMAGES, limit=EXPLAINED)


@pytest.fixture(scope="module")
def limited(limited_run: Path) -> Iterator[Served]:
    with serving([limited_run]) as served:
        yield served


@pytest.fixture
def copied(limited_run: Path, tmp_path: Path) -> Path:
    """A run of one's own on images of one's own."""
    shutil.copytree(limited_run.parents[1], tmp_path / "all")
    run = tmp_path / "all" / "runs" / limited_run.name
    for file in (run / "study.toml", *run.glob("steps/*/step.json")):
        file.write_text(file.read_text().replace(str(limited_run.parents[1]), str(tmp_path / "all")))
    shutil.rmtree(run / FOLDER, ignore_errors=True)
    return run


def truth(run: Path) -> dict[str, tuple[int, int, float]]:
    """Return the true class, the one said, and its probability of each mistake, by what stands for its id."""
    data = np.load(run.parents[1] / "images.npz")
    x = torch.from_numpy((data["x"] * 255).round() / 255).float()[:, None]
    confidence, said = load_classifier(str(run.parents[1] / "classifier")).probs(x).max(dim=1)
    ids = step_images(run)
    return {
        key_of(ids[i]): (int(y), int(said[i]), float(confidence[i])) for i, y in enumerate(data["y"]) if said[i] != y
    }


def step_images(run: Path) -> tuple[str, ...]:
    content = read_run(run)
    data, _ = step_data(content, content.steps[0])
    assert data is not None
    images = Judgements(Networks(allow_code=False)).of(run, data, patience=60.0).images
    assert images is not None
    return tuple(images.ids)


def keys_on(page: str) -> list[str]:
    return re.findall(r'<a href="/runs/\w+/mistakes/1/(\w+)">', page)


def walk(client: httpx.Client, address: str, **query: str) -> list[list[str]]:
    """Return the keys on each page, following the links to the next."""
    pages = []
    page = client.get(address, params=query).text
    while True:
        pages.append(keys_on(page))
        following = re.search(r'<a href="([^"]+)" rel="next">next', page)
        if following is None:
            return pages
        page = client.get(unescape(following[1])).text


def test_every_mistake_is_there_once_and_pages_stay_short(limited: Served, limited_run: Path) -> None:
    expected = truth(limited_run)
    assert len(expected) > 240
    with limited.client() as client:
        pages = walk(client, f"{limited.run}/mistakes")
        found = [key for page in pages for key in page]
        assert sorted(found) == sorted(expected)
        assert max(map(len, pages)) == 120
        # What is wanted stays so from page to page.
        sure = [key for page in walk(client, f"{limited.run}/mistakes", order="confidence", true="1") for key in page]
        assert sorted(sure) == sorted(key for key, (y, _, _) in expected.items() if y == 1)
        values = [expected[key][2] for key in sure]
        assert all(a <= b + 1e-6 for a, b in itertools.pairwise(values))
        # A page beyond the last is the last.
        assert keys_on(client.get(f"{limited.run}/mistakes", params={"page": "999999"}).text) == pages[-1]
    for each in known_to(limited).every:
        assert (each.true, each.predicted) == expected[each.key][:2]
        assert each.confidence == pytest.approx(expected[each.key][2], abs=1e-5)


def test_the_page_says_how_many_there_are_and_how_many_are_explained(limited: Served, limited_run: Path) -> None:
    count = len(truth(limited_run))
    with limited.client() as client:
        page = client.get(f"{limited.run}/mistakes").text
        assert re.search(rf"All {count} images that the classifier classifier gets wrong, of the {IMAGES} of", page)
        assert f"For {EXPLAINED} of them a sympathetic example has been looked for" in page
        assert "choose one to see it. For any other, open it and ask for one." in page
        for success, number in (("untried", count - EXPLAINED), ("true", EXPLAINED)):
            part = client.get(f"{limited.run}/mistakes", params={"success": success}).text
            assert re.search(rf"\b{number} mistakes\.", part), success
        assert CLASSES[0] not in page


def test_an_example_is_made_on_the_spot_as_the_step_makes_it(copied: Path) -> None:
    with serving([copied]) as served, served.client() as client:
        known = known_to(served)
        alone = next(each for each in known.every if each.example is None)
        address = f"{served.run}/mistakes/1/{alone.key}"
        page = client.get(address).text
        assert "The step explained other mistakes, not this one." in page
        assert CLASSES[0] not in page
        assert client.get(f"{address}/at", params={"part": 1}).status_code == 404
        assert client.get(f"{address}/picture/example").status_code == 404
        assert client.post(f"{address}/example", data={"make": "tea"}).status_code == 422
        answer = client.post(f"{address}/example", data={"make": "example"})
        assert answer.status_code == 303
        assert "whose example was made here and is no part of the run" in client.get(address).text
        now = next(each for each in known_to(served).every if each.key == alone.key)
        assert known.judged is not None
        assert known.judged.images is not None
        folder = copied.parents[1]
        settings = json.loads((copied / "steps" / "01-sympathetic-examples" / "step.json").read_text())["settings"]
        assert now.row is not None
        x = (known.judged.images.read(torch.tensor([now.row])) * 255).round() / 255
        expected = SympatheticExamples(**settings)(
            load_classifier(str(folder / "classifier")),
            load_generator(str(folder / "vae")),
            x,
            torch.tensor([now.true]),
            rng=torch.Generator().manual_seed(0),
        )
        assert now.success == bool(expected.success)
        assert now.norm == pytest.approx(float(expected.norm), rel=1e-4)
        there = client.get(f"{address}/at", params={"part": 1}).json()
        assert there["right"] == now.success
        assert now.success
        # It is found among those that have one, and its length counts.
        page = client.get(f"{served.run}/mistakes", params={"success": "true", "longest": str(now.norm + 1e-6)}).text
        assert alone.key in keys_on(page)
        # The run folder is as it was, but for what says which images are wrong.
        assert sorted(path.name for path in copied.iterdir() if path.name != FOLDER) == sorted(
            ["environment.json", "log.jsonl", ".lock", "selection.json", "steps", "study.toml"]
        )


def test_a_run_that_can_make_none_says_what_is_missing(copied: Path) -> None:
    for file in copied.glob("steps/*/step.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"generator": "/nowhere"}))
    with serving([copied]) as served, served.client() as client:
        page = unescape(client.get(f"{served.run}/mistakes").text)
        said = "Expected a generator of this run that encodes images"
        assert f"This run can make no other one: {said}" in page
        alone = next(each for each in known_to(served).every if each.example is None)
        address = f"{served.run}/mistakes/1/{alone.key}"
        page = client.get(address).text
        assert said in unescape(page)
        assert "<form" not in page
        answer = client.post(f"{address}/example", data={"make": "example"})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(said)


def test_where_the_images_are_gone_the_page_shows_what_the_step_kept_and_says_so(copied: Path) -> None:
    images = copied.parents[1] / "images.npz"
    images.rename(images.with_suffix(".away"))
    with serving([copied]) as served, served.client() as client:
        page = client.get(f"{served.run}/mistakes").text
        keys = keys_on(page)
        assert len(keys) == EXPLAINED
        assert f"Not every mistake can be shown, only {EXPLAINED} that were explained by this step" in page
        assert client.get(f"{served.run}/mistakes/1/{keys[0]}").status_code == 200
        assert client.get(f"{served.run}/mistakes/1/{keys[0]}/picture/original").status_code == 200
        # They are looked for again when the page is loaded again, but not with each wish.
        images.with_suffix(".away").rename(images)
        part = client.get(f"{served.run}/mistakes", headers={"HX-Request": "true"}).text
        assert len(keys_on(part)) == EXPLAINED
        page = client.get(f"{served.run}/mistakes").text
        assert f"All {len(truth(copied))} images" in page
        assert len(known_to(served).every) == len(truth(copied))


def test_a_step_of_another_method_has_its_mistakes_too(copied: Path) -> None:
    shutil.rmtree(copied / "steps" / "01-sympathetic-examples")
    with serving([copied]) as served, served.client() as client:
        page = client.get(f"{served.run}/mistakes").text
        assert "For none of them has a sympathetic example been looked for yet" in page
        assert len(known_to(served).every) == len(truth(copied))
        key = known_to(served).every[0].key
        answer = client.post(f"{served.run}/mistakes/1/{key}/example", data={"make": "example"}, follow_redirects=True)
        assert answer.status_code == 200
        assert "On the way" in answer.text


def test_examples_of_other_classes_are_none_of_mistakes(copied: Path) -> None:
    """A step that turns each image into every other class explains no mistake, whatever the ids of its images are."""
    study = copied / "study.toml"
    assert 'targets = "label"' in study.read_text()
    study.write_text(study.read_text().replace('targets = "label"', 'targets = "others"'))
    with serving([copied]) as served, served.client() as client:
        known = known_to(served)
        assert len(known.every) == len(truth(copied))
        assert all(each.example is None for each in known.every)
        assert "For none of them has a sympathetic example" in client.get(f"{served.run}/mistakes").text


def test_a_classifier_without_mistakes_has_none_shown(copied: Path) -> None:
    place = copied.parents[1] / "images.npz"
    data = np.load(place)
    x = torch.from_numpy((data["x"] * 255).round() / 255).float()[:, None]
    np.savez(place, x=data["x"], y=load_classifier(str(copied.parents[1] / "classifier")).predict(x).numpy())
    with serving([copied]) as served, served.client() as client:
        page = client.get(f"{served.run}/mistakes").text
        assert f"gets no image wrong, of the {IMAGES} of" in page
        assert keys_on(page) == []


@pytest.fixture
def two_classifiers(copied: Path) -> Path:
    """A run with a second classifier, which names its classes otherwise."""
    folder = copied.parents[1]
    network = build_network("plain-cnn", seed=1, image_shape=SHAPE, num_classes=3, width=4)
    save_classifier(
        folder / "another",
        architecture="plain-cnn",
        sizes={"width": 4},
        state=network.state_dict(),
        class_names=("red", "green", "blue"),
        image_shape=SHAPE,
    )
    data = np.load(folder / "images.npz")
    np.savez(folder / "colours.npz", x=data["x"][:60], y=data["y"][:60])
    record = json.loads((copied / "steps" / "01-sympathetic-examples" / "step.json").read_text())
    others = {"classifier": str(folder / "another"), "images": str(folder / "colours.npz"), "title": "Colours"}
    (copied / "steps" / "03-colours").mkdir()
    (copied / "steps" / "03-colours" / "step.json").write_text(json.dumps(record | others | {"status": "failed"}))
    return copied


def test_with_the_step_all_of_the_page_changes(two_classifiers: Path, enter: "Callable[[Served], Tab]") -> None:
    with serving([two_classifiers]) as served:
        tab = enter(served)
        tab.goto(f"{served.run}/mistakes")
        steps = tab.get_by_role("navigation", name="Steps")
        tab.locator("#known", has_text=f"of the {IMAGES} of").wait_for()
        steps.get_by_role("link", name="Colours").click()
        tab.locator("#known", has_text="classifier another gets wrong, of the 60 of").wait_for()
        assert steps.locator("[aria-current=true]").all_inner_texts() == ["Colours (no examples)"]
        assert tab.locator("[name=true] option").all_inner_texts() == ["any", "red", "green", "blue"]
        # What is wished for then is wished for of that step.
        tab.locator("[name=order]").select_option("confidence")
        tab.wait_for_url("**order=confidence**")
        assert "step=3" in tab.url
        assert all("/mistakes/3/" in link for link in tab.locator("#grid a").evaluate_all("a => a.map((x) => x.href)"))
        check(tab, "mistakes-steps")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the second hundred images be classified only when it is opened, as a large network would take its time."""
    opened = threading.Event()

    def at_the_gate(x: torch.Tensor) -> torch.Tensor:
        if x is not first.setdefault("batch", x):
            opened.wait(60)
        return eight_bit(x)

    first: dict[str, torch.Tensor] = {}
    monkeypatch.setattr("failscape.web.judged.batch_size", lambda images: 100)
    monkeypatch.setattr("failscape.web.judged.eight_bit", at_the_gate)
    monkeypatch.setattr("failscape.web.pages.mistakes._PATIENCE", 0.5)
    yield opened
    opened.set()


def test_what_is_known_is_shown_while_the_rest_is_found(
    copied: Path, gate: threading.Event, enter: "Callable[[Served], Tab]"
) -> None:
    with serving([copied]) as served:
        tab = enter(served)
        tab.goto(f"{served.run}/mistakes")
        known = tab.locator("#known")
        known.get_by_text("100 so far").wait_for()
        assert "not yet every mistake" in known.inner_text()
        assert tab.locator("text=no example yet").count() > 0
        gate.set()
        tab.get_by_role("link", name="Show all of them").click()
        tab.get_by_text(f"1 to 120 of {len(truth(copied))} mistakes.").wait_for()
        check(tab, "mistakes-many")
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.get_by_role("link", name="next").click()
        tab.get_by_text("page 2 of 3").wait_for()
        # One that has no example gets one, by the keyboard.
        tab.locator(".grid a", has_text="no example yet").first.focus()
        tab.keyboard.press("Enter")
        look = tab.get_by_role("button", name="Look for the smallest change")
        look.wait_for()
        check(tab, "mistake-alone")
        look.press("Enter")
        tab.wait_for_selector("#way[data-shown='1']")
        assert "made here" in tab.inner_text(".verdict")


class TestWhatIsKept:
    def ask(self, run: Path) -> dict[str, tuple[int, int]]:
        content = read_run(run)
        data, labelled = step_data(content, content.steps[0])
        assert data is not None
        assert labelled
        judgements = Judgements(Networks(allow_code=False))
        found = judgements.of(run, data, patience=60.0)
        judgements.close()
        assert found.ended
        assert not found.problem
        assert found.classified == IMAGES
        assert found.images is not None
        return {key_of(found.images.ids[each.row]): (each.y, each.predicted) for each in found.mistakes}

    def test_is_the_same_when_asked_again(self, copied: Path) -> None:
        first = self.ask(copied)
        (file,) = (copied / FOLDER).iterdir()
        written = file.stat().st_mtime_ns
        assert self.ask(copied) == first == {key: (y, said) for key, (y, said, _) in truth(copied).items()}
        assert file.stat().st_mtime_ns == written

    def test_is_not_believed_of_other_images(self, copied: Path) -> None:
        first = self.ask(copied)
        place = copied.parents[1] / "images.npz"
        data = np.load(place)
        np.savez(place, x=1 - data["x"], y=data["y"])
        second = self.ask(copied)
        assert second == {key: (y, said) for key, (y, said, _) in truth(copied).items()}
        assert second != first

    def test_is_found_anew_where_it_is_broken(self, copied: Path) -> None:
        first = self.ask(copied)
        (file,) = (copied / FOLDER).iterdir()
        file.write_bytes(file.read_bytes()[:-100])
        assert self.ask(copied) == first

    def test_is_found_anew_where_nothing_can_be_written(self, copied: Path) -> None:
        (copied / FOLDER).write_text("in the way of the folder")
        assert self.ask(copied) == self.ask(copied)
        assert (copied / FOLDER).is_file()


def test_pages_of_a_list() -> None:
    items = list(range(7))
    assert [list(cut(items, page, 3).items) for page in (1, 2, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert (cut(items, 3, 3).first, cut(items, 3, 3).last, cut(items, 3, 3).pages) == (7, 7, 3)
    assert cut(items, 99, 3).page == 3
    empty = cut([], 1, 3)
    assert (empty.pages, empty.first, empty.last, empty.count) == (1, 0, 0, 0)
