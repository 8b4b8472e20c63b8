"""Several classifiers on the same images: counts that are right, and names that are never markup."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tests.web.conftest import CLASSES, Served, serving
from tests.web.test_pages import check

from failscape.classifiers import load_classifier
from failscape.data import load_images
from failscape.storage import write_json
from failscape.web.comparing import named_classifiers, short_names

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

SPECS = ["embedded:mnist-corrupted", "embedded:mnist-oracle-corrupted", "embedded:mnist-clean"]
IMAGES = "embedded:mnist-test+half-corrupted"
ASKED = {"classifiers": [0, 2], "images": "set-0", "count": 150, "seed": 0, "differing": True}


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two runs of one task, whose steps found nothing: what they name is enough."""
    folder: Path = tmp_path_factory.mktemp("compared")
    first = {"status": "failed", "images": IMAGES, "classifier": SPECS[0], "oracle": SPECS[1]}
    second = {"status": "failed", "images": "3 files", "classifier": SPECS[0], "compared_with": [SPECS[2]]}
    for name, record in (("00001-one", first), ("00002-two", second)):
        write_json(folder / name / "steps" / "01-step" / "step.json", record)
    with serving([folder / "00001-one", folder / "00002-two"]) as served:
        yield served


def test_the_classifiers_of_all_runs_are_offered_once(two_runs: Served) -> None:
    assert named_classifiers(run.read() for run in two_runs.site.runs.values()) == SPECS
    assert short_names(SPECS) == ["mnist-corrupted", "mnist-oracle-corrupted", "mnist-clean"]
    assert short_names(["a/net", "b/net", "c/other"]) == ["a/net", "b/net", "other"]


def test_counts_are_those_of_the_classifiers(two_runs: Served) -> None:
    with two_runs.client() as client:
        answer = client.post(f"{two_runs.run}/compare/verdicts", json=ASKED).json()
    images = load_images(IMAGES)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:150].sort().values
    x, y = images.read(rows), images.y[rows]
    one, other = (load_classifier(SPECS[k]).probs(x).argmax(dim=1) for k in ASKED["classifiers"])
    differing = int((one != other).sum())
    assert differing > 5
    assert answer["differing"] == differing
    assert answer["same"] == [[150, 150 - differing], [150 - differing, 150]]
    assert answer["right"] == [int((one == y).sum()), int((other == y).sum())]
    assert len(answer["images"]) == min(60, differing)
    wrong = {images.ids[row] for row in rows[one != other].tolist()}
    assert {each["id"] for each in answer["images"]} <= wrong
    firsts = [[probs.index(max(probs)) for probs in each["judges"]] for each in answer["images"]]
    assert all(a != b for a, b in firsts)


def test_comparing_in_the_browser(two_runs: Served, enter: "Callable[[Served], Tab]") -> None:
    tab = enter(two_runs)
    tab.goto(f"{two_runs.run}/compare")
    assert tab.locator("input[name=classifier]").count() == 3
    tab.get_by_label("mnist-clean").check()
    tab.locator("input[name=count]").fill("100")
    tab.get_by_role("button", name="Compare").press("Enter")
    tab.get_by_text("They disagree on").wait_for()
    found = tab.locator("#found li").count()
    assert 0 < found <= 60
    assert tab.locator("#counts tbody tr").count() == 3
    check(tab, "compare-found")
    tab.get_by_label("Show only those on which they disagree").uncheck()
    tab.get_by_role("button", name="Compare").click()
    tab.get_by_text("60 are shown").wait_for()
    # One alone is nothing to compare.
    for name in ("mnist-corrupted", "mnist-clean"):
        tab.get_by_label(name, exact=True).uncheck()
    tab.get_by_role("button", name="Compare").click()
    tab.get_by_text("Choose two classifiers or more.").wait_for()


def test_images_of_steps_and_hostile_names(toy_server: Served) -> None:
    with toy_server.client() as client:
        for key in ("draw-1", "step-1"):
            asked = ASKED | {"classifiers": [0, 1], "images": key, "count": 5, "differing": False}
            answer = client.post(f"{toy_server.run}/compare/verdicts", json=asked).json()
            # The toy's oracle is its classifier.
            assert answer["differing"] == 0
            assert answer["right"] is None
            assert tuple(answer["classes"]) == CLASSES


@pytest.mark.parametrize("wish", [{"classifiers": [0, 3]}, {"classifiers": [0, 0]}, {"images": "set-1"}])
def test_what_is_not_there_is_refused(two_runs: Served, wish: dict[str, object]) -> None:
    with two_runs.client() as client:
        assert client.post(f"{two_runs.run}/compare/verdicts", json=ASKED | wish).status_code == 404
