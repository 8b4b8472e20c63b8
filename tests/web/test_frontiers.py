"""Asking for a target distribution: what arrives has it, whatever the classes are called."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.web.conftest import Served, save_networks
from tests.web.test_pages import check

from failscape.classifiers import Classifier, load_classifier
from failscape.generators import load_generator
from failscape.web.asking import Asked
from failscape.web.targets import draw_target

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

ASKED = {"networks": 1, "shares": [2, 0, 2], "count": 4, "seed": 0, "tolerance": 0.05}


def test_what_arrives_has_the_target(toy_server: Served) -> None:
    with toy_server.client() as client:
        answer = client.post(f"{toy_server.run}/frontiers/draw", json=ASKED).json()
    assert answer["target"] == [0.5, 0, 0.5]
    distances = [
        sum(abs(p - t) for p, t in zip(each["judges"][0], answer["target"], strict=True)) / 2
        for each in answer["images"]
    ]
    assert distances == pytest.approx([each["distance"] for each in answer["images"]], abs=2e-4)
    assert distances == sorted(distances)
    assert answer["arrived"] == sum(distance <= 0.05 for distance in distances) > 0


def test_classes_may_be_called_anything(tmp_path: Path) -> None:
    """As those of ImageNet are: "great white shark, white shark"."""
    save_networks(tmp_path)
    classifier = load_classifier(str(tmp_path / "classifier"))
    names = ("tench, Tinca tinca", "pairs", " a=0.5,b ")
    classifier = Classifier(classifier.network, image_shape=classifier.image_shape, class_names=names)
    generator = load_generator(str(tmp_path / "vae"))
    asked = Asked(number=1, title="", classifier=classifier, generator=generator, oracle=None)
    for shares in ([1.0, 0.0, 1.0], [1.0, 2.0, 0.0]):
        answer = draw_target(asked, shares=shares, count=2, seed=0, tolerance=0.05)
        assert answer["target"] == pytest.approx([share / sum(shares) for share in shares], abs=1e-4)
        assert answer["arrived"] == 2


@pytest.mark.parametrize(
    ("wish", "status", "said"),
    [
        ({"shares": [1, 0, 0]}, 422, "at least two of them above 0"),
        ({"shares": [1, 1]}, 422, "Expected a share for each of 3 classes"),
        ({"networks": 9}, 404, "none of that number"),
    ],
)
def test_a_refusal_is_in_words(toy_server: Served, wish: dict[str, object], status: int, said: str) -> None:
    with toy_server.client() as client:
        answer = client.post(f"{toy_server.run}/frontiers/draw", json=ASKED | wish)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_asking_in_the_browser(toy_server: Served, enter: "Callable[[Served], Tab]") -> None:
    tab = enter(toy_server)
    tab.goto(f"{toy_server.run}/frontiers")
    tab.locator("input[name=count]").fill("3")
    tab.get_by_role("button", name="Search").press("Enter")
    tab.get_by_text("of 3 images are within 0.05 of the target").wait_for()
    assert tab.locator("#found img").count() == 3
    check(tab, "frontiers-found")
