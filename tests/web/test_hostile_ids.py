"""Ids of images that look like markup, scripts or paths: shown as they are, and never more than that."""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
import torch
from tests.web.conftest import SHAPE, Served, Watched, save_networks, serving
from tests.web.test_pages import check

from failscape.classifiers import load_classifier
from failscape.explain import SympatheticResult, load_result
from failscape.figures import png_bytes
from failscape.labels import LabelStore, NewLabel, label_task
from failscape.study import StudyConfig, run_study
from failscape.study.run_folder import write_result

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

# What a file may be called, and what an id may be all the same.
FILES = (
    "<img src=x onerror=window.hurt=1>",
    '" onmouseover="window.hurt=2',
    "<script>window.hurt=3<|script>",
    "%2e%2e%2fx",
)
PATHS = ("../../x", "/etc/passwd", "</code><svg onload=window.hurt=4>")
PROJECT = "</title><img src=x onerror=window.hurt=5>"
LABELLER = "<b onclick=window.hurt=6>../../x</b>"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images whose files bear hostile names, and a project of such."""
    folder = tmp_path_factory.mktemp("hostile")
    save_networks(folder)
    rng = torch.Generator().manual_seed(0)
    for k, name in enumerate(("a", "b", "c")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(4):
            file = folder / "images" / name / f"{FILES[(k + number) % len(FILES)]}{number}.png"
            file.write_bytes(png_bytes(torch.rand(SHAPE, generator=rng)))
    quick = {"steps": 20, "rounds": 1, "candidates": 2, "bank": 64, "plane": 16}
    study = {
        "name": "hostile",
        "images": {"spec": str(folder / "images")},
        "classifier": {"spec": str(folder / "classifier")},
        "oracle": {"spec": str(folder / "oracle")},
        "generator": {"spec": str(folder / "vae")},
        "steps": [{"method": "sympathetic-examples", "settings": quick}],
    }
    run = run_study(StudyConfig.from_mapping(study), out=folder / "runs")
    classifier = load_classifier(str(folder / "classifier"))
    names = [*PATHS, *FILES]
    task = label_task(torch.rand(len(names), *SHAPE, generator=rng), classifier, names=names)
    with LabelStore(run) as store:
        project = store.create_project(PROJECT, task, queue="random", rng=rng)
        for image in store.images(project.id)[:2]:
            store.label(project.id, LABELLER, NewLabel(image_id=image.id, label=0, client_id=str(uuid.uuid4())))
    return run


@pytest.fixture(scope="module")
def foreign_run(hostile_run: Path) -> Path:
    """The same of a table that somebody else made: ids that no file can have, and images that are not there."""
    run = hostile_run.parent / "00002-foreign"
    shutil.copytree(hostile_run, run)
    (step,) = (run / "steps").iterdir()
    result = load_result(step)
    assert isinstance(result, SympatheticResult)
    ids = tuple(PATHS[row] if row < len(PATHS) else one for row, one in enumerate(result.ids))
    write_result(replace(result, ids=ids), step)
    images = str(hostile_run.parents[1] / "images")
    for file in (run / "study.toml", step / "step.json"):
        file.write_text(file.read_text().replace(images, f"{images}-gone"))
    return run


@pytest.fixture(scope="module")
def served(hostile_run: Path, foreign_run: Path) -> Iterator[Served]:
    with serving([hostile_run, foreign_run]) as served:
        yield served


def addresses(served: Served) -> list[str]:
    """Return where both runs are."""
    return [f"{served.base}/runs/{run}" for run in served.site.runs]


@pytest.fixture
def tab(served: Served, watched: Watched, enter: "Callable[[Served], Tab]") -> Iterator["Tab"]:
    """A tab that is harmed by nothing: an image that an id had brought would be asked for, and missed."""
    tab = enter(served)
    yield tab
    assert tab.evaluate("window.hurt") is None
    assert tab.locator("img[src='x'], svg[onload], [onclick], [onmouseover]").count() == 0


def project_of(run: Path) -> str:
    with LabelStore(run) as store:
        return store.project(PROJECT).id


def unharmed(text: str) -> None:
    """Refuse a page in which any of the names is more than text."""
    for name in (*FILES, *PATHS, PROJECT, LABELLER):
        if "<" in name or '"' in name:
            assert name not in text, name


def test_pages_hold_the_ids_as_text(served: Served, hostile_run: Path) -> None:
    with served.client() as client:
        seen = ""
        for run in addresses(served):
            first = client.get(f"{run}/mistakes").raise_for_status().text
            unharmed(first)
            links = re.findall(r'<a href="(/runs/[^"]*/mistakes/[^"]*)"', first)
            assert len(links) > len(PATHS)
            for link in links:
                page = client.get(link).raise_for_status().text
                unharmed(page)
                seen += page
        for name in (*FILES, *PATHS):
            assert escape(name, quote=False) in seen.replace("&#34;", '"'), name
        project = project_of(hostile_run)
        for place in ("compare", "label", f"label/{project}", f"label/{project}/everybody", "steps/1", "overview"):
            unharmed(client.get(f"{served.run}/{place}").raise_for_status().text)
        listed = client.get(f"{served.run}/label").text
        assert escape(PROJECT) in listed
        assert escape(LABELLER) in client.get(f"{served.run}/label/{project}/everybody").text


def test_no_id_is_an_address(served: Served, hostile_run: Path) -> None:
    """Images are addressed by what the server drew or counts; an id in an address leads nowhere."""
    project = project_of(hostile_run)
    tries = [*PATHS, *FILES, *(name.replace("/", "%2f") for name in PATHS)]
    with served.client() as client:
        for name in tries:
            for place in (
                f"mistakes/1/{name}",
                f"mistakes/1/0/picture/{name}",
                f"label/images/{name}",
                f"label/{name}",
            ):
                answer = client.get(urljoin(f"{served.run}/", place), headers={"Accept": "text/html"})
                assert answer.headers["content-type"].startswith("text/html")
                assert answer.status_code in (404, 422), (place, answer.status_code)
                assert "root:" not in answer.text
                unharmed(answer.text)
        asked = {"labeller": LABELLER, "tab": "t", "count": 10, "queue": "random"}
        images = client.post(f"{served.run}/label/{project}/next", json=asked).raise_for_status()
        # What the label page knows of an image does not tell its name, so that no name sways an answer.
        assert images.json()["images"]
        for name in (*PATHS, *FILES):
            assert name not in images.text
        wish = {"classifiers": [0, 1], "images": "set-0", "count": 12, "seed": 0, "differing": False}
        compared = client.post(f"{served.run}/compare/verdicts", json=wish).raise_for_status()
        assert compared.headers["content-type"] == "application/json"
        assert any(FILES[0] in each["id"] for each in compared.json()["images"])


def test_mistakes_in_the_browser(served: Served, tab: "Tab") -> None:
    seen = ""
    for run in addresses(served):
        tab.goto(f"{run}/mistakes")
        for address in tab.locator("#grid a").evaluate_all("(links) => links.map((link) => link.href)"):
            tab.goto(address)
            seen += tab.locator("main").inner_text()
            assert tab.evaluate("window.hurt") is None
    for name in (*PATHS, *FILES):
        assert name in seen, name
    check(tab, "hostile-mistake")


def test_label_in_the_browser(served: Served, hostile_run: Path, tab: "Tab") -> None:
    tab.goto(f"{served.run}/label")
    tab.get_by_role("link", name=PROJECT).click()
    assert tab.title().startswith(PROJECT)
    tab.get_by_label("Your name").fill(LABELLER)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#picture img")
    tab.keyboard.press("1")
    tab.wait_for_function("() => document.getElementById('label').dataset.waiting === '0'")
    tab.get_by_text("Everybody’s labels").click()
    tab.locator("#everybody").get_by_role("rowheader", name=LABELLER).wait_for()
    check(tab, "hostile-label")


def test_compare_in_the_browser(served: Served, tab: "Tab") -> None:
    tab.goto(f"{served.run}/compare")
    for box in tab.locator("input[name=classifier]").all():
        box.check()
    tab.get_by_label("Show only those on which they disagree").uncheck()
    for choice in tab.locator("select[name=images] option").evaluate_all("all => all.map((one) => one.value)"):
        tab.locator("select[name=images]").select_option(choice)
        tab.locator("input[name=count]").fill("12")
        tab.get_by_role("button", name="Compare").click()
        tab.get_by_text("They disagree on").wait_for()
        tab.wait_for_function("() => document.querySelectorAll('#found img').length > 0")
    check(tab, "hostile-compare")
