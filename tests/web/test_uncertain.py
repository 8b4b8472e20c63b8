"""Asking for a class and a confidence: what comes is what was asked for, or a refusal in words."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.web.conftest import Served, serving
from tests.web.test_pages import check

from failscape import load_generator
from failscape.storage import write_json

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

SPACE = load_generator("embedded:mnist-stylegan2").condition_space
assert SPACE is not None
LOWEST = SPACE.supported[3][0]
ASKED = {"networks": 1, "label": 3, "score": 0.6, "count": 6, "seed": 0, "search": True}


@pytest.fixture(scope="module")
def asked_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A run whose one step names the embedded digits' networks; that it found nothing does not matter."""
    run: Path = tmp_path_factory.mktemp("asked") / "00001-asked"
    record = {
        "name": "style-influence",
        "status": "failed",
        "images": "embedded:mnist-test+half-corrupted",
        "classifier": "embedded:mnist-corrupted",
        "oracle": "embedded:mnist-oracle-corrupted",
        "generator": "embedded:mnist-stylegan2",
    }
    write_json(run / "steps" / "01-failed" / "step.json", record)
    with serving([run]) as served:
        yield served


def test_the_search_gives_what_was_asked_for(asked_run: Served) -> None:
    with asked_run.client() as client:
        address = f"{asked_run.run}/uncertain/draw"
        answer = client.post(address, json=ASKED).json()
        assert answer["judges"] == ["classifier", "oracle"]
        assert len(answer["images"]) == 6
        confidences = [each["judges"][0][3] for each in answer["images"]]
        assert all(abs(value - 0.6) < 0.03 for value in confidences), confidences
        # The same seed, the same images; another one, others.
        again, other = (client.post(address, json=ASKED | {"seed": seed}).json() for seed in (0, 1))
        assert [each["image"] for each in again["images"]] == [each["image"] for each in answer["images"]]
        assert other["images"][0]["image"] != answer["images"][0]["image"]


@pytest.mark.parametrize(
    ("wish", "status", "said"),
    [
        ({"score": 0.2}, 422, f"Expected a confidence between {LOWEST:.3f} and 1.000 for class '3'"),
        ({"label": 10}, 422, "Expected a class from 0 to 9"),
        ({"networks": 2}, 404, "none of that number"),
        ({"count": 49}, 422, "less than or equal to 48"),
    ],
)
def test_a_refusal_is_in_words(asked_run: Served, wish: dict[str, object], status: int, said: str) -> None:
    with asked_run.client() as client:
        answer = client.post(f"{asked_run.run}/uncertain/draw", json=ASKED | wish)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_asking_in_the_browser(asked_run: Served, enter: "Callable[[Served], Tab]") -> None:
    tab = enter(asked_run)
    tab.goto(f"{asked_run.run}/uncertain")
    tab.locator("select[name=label]").select_option("3")
    assert tab.locator("#range").inner_text() == f"3 is supported from {LOWEST:.3f} to 1.000."
    tab.locator("input[name=count]").fill("4")
    tab.get_by_role("button", name="Draw").press("Enter")
    tab.get_by_text("Asked for 3 at 0.6; the classifier gives it").wait_for()
    assert tab.locator("#found img").count() == 4
    assert tab.locator("#found img").first.get_attribute("alt").startswith("Image 1: classifier: ")
    check(tab, "uncertain-found")


def test_a_run_whose_generators_take_no_class_says_so(toy_server: Served) -> None:
    with toy_server.client() as client:
        assert "can be asked for a class and a confidence" in client.get(f"{toy_server.run}/uncertain").text
