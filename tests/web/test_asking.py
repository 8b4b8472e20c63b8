"""Which networks of a run can be asked on Uncertain and Frontiers, and why others cannot."""

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.web.conftest import CLASSES, SHAPE, Served, save_networks, serving
from tests.web.test_pages import check

from failscape.classifiers import Classifier, load_classifier
from failscape.generators import MLP, Autoencoder, Condition, ConditionSpace, save_generator
from failscape.storage import write_json
from failscape.web.asking import Asked, draw_score, with_confidence

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

MISSING = "<img src=x onerror=alert(3)>"
GENERATORS = ("vae", "of-distributions", "of-confidences", MISSING)


def save_conditional(folder: Path, score: str) -> None:
    """Save a generator with a condition whose images are of all classes, whatever it is asked for."""
    space = ConditionSpace(num_classes=3, score=score, supported=[[0.4, 1.0]] * 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = MLP(image_shape=SHAPE, latent_dim=4, hidden=32, condition=space.config)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter *= 1.5
    save_generator(generator, folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A run whose steps name four generators, of which the last is not there."""
    folder = tmp_path_factory.mktemp("asking")
    save_networks(folder)
    save_conditional(folder / "of-distributions", "vector")
    save_conditional(folder / "of-confidences", "confidence")
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", x=rng.random((60, 8, 8), dtype=np.float32), y=np.arange(60) % 3)
    run = folder / "runs" / "00001-asking"
    for number, generator in enumerate(GENERATORS, start=1):
        record = {
            "name": f"step-{number}",
            "status": "failed",
            "images": str(folder / "images.npz"),
            "classifier": str(folder / "classifier"),
            "oracle": str(folder / "oracle"),
            "generator": str(folder / generator),
        }
        write_json(run / "steps" / f"{number:02d}-step" / "step.json", record)
    with serving([run]) as served:
        yield served


def draw(served: Served, page: str, **wish: Any) -> Any:
    asked = {"networks": 2, "count": 4, "seed": 0} | wish
    with served.client() as client:
        return client.post(f"{served.run}/{page}/draw", json=asked)


def test_networks_that_work_stand_beside_the_reasons_why_others_do_not(served: Served) -> None:
    reasons = {
        "uncertain": {1: "This vae was trained without a condition", 4: "Expected "},
        "frontiers": {3: "takes one class and its confidence from its condition", 4: "Expected "},
    }
    with served.client() as client:
        for page, others in reasons.items():
            text = client.get(f"{served.run}/{page}").raise_for_status().text
            form, _, unasked = text.partition("Cannot be asked here")
            for number, generator in enumerate(GENERATORS, start=1):
                title = escape(f"{generator}, asked about classifier", quote=False)
                assert (f'<option value="{number}">{title}' in form) == (number not in others), (page, number)
                assert (f"<dt>{title}" in unasked) == (number in others), (page, number)
            assert all(words in unasked for words in others.values())
            assert MISSING not in text
    # Asked all the same, they say no in words.
    score = {"label": 0, "score": 0.6, "search": False}
    shares = {"shares": [1, 1, 0], "tolerance": 0.05}
    for page, wish in (("uncertain", score), ("frontiers", shares)):
        for number, words in reasons[page].items():
            answer = draw(served, page, networks=number, **wish)
            assert answer.status_code == 422
            assert words in answer.json()["error"]
        assert draw(served, page, networks=5, **wish).status_code == 404


def test_a_target_is_asked_of_a_generator_of_whole_distributions(served: Served) -> None:
    answer = draw(served, "frontiers", shares=[1, 0, 1], tolerance=0.05).json()
    target = [0.5, 0, 0.5]
    distances = [
        sum(abs(p - t) for p, t in zip(each["judges"][0], target, strict=True)) / 2 for each in answer["images"]
    ]
    assert answer["arrived"] == sum(distance <= 0.05 for distance in distances) == 4


def test_a_confidence_is_asked_of_a_generator_of_whole_distributions(served: Served) -> None:
    real = taken_for(served)
    label = max(set(real), key=real.count)
    wish = {"label": label, "score": 0.6, "search": True}
    answer = draw(served, "uncertain", **wish).json()
    confidences = [each["judges"][0][label] for each in answer["images"]]
    # A generator that was never trained: the search may leave one behind.
    assert sum(abs(value - 0.6) < 0.03 for value in confidences) >= 3, confidences
    again, other = (draw(served, "uncertain", **wish | {"seed": seed}).json() for seed in (0, 1))
    assert [each["image"] for each in again["images"]] == [each["image"] for each in answer["images"]]
    assert other["images"][0]["image"] != answer["images"][0]["image"]
    refused = draw(served, "uncertain", **wish | {"score": 0.2})
    assert refused.status_code == 422
    assert "Expected a confidence between 0.400 and 1.000" in refused.json()["error"]


def test_new_images_are_drawn_by_a_generator_of_whole_distributions(served: Served) -> None:
    """For people to label, and for classifiers to be compared on."""
    with served.client() as client:
        wish = {"classifiers": [0, 1], "images": "draw-2", "count": 9, "seed": 0, "differing": False}
        compared = client.post(f"{served.run}/compare/verdicts", json=wish)
        assert compared.status_code == 200, compared.text
        assert len({each["image"] for each in compared.json()["images"]}) == 9
        form = {"name": "drawn", "source": "draw-2", "count": 9, "labellers": 1, "queue": "random"}
        made = client.post(f"{served.run}/label/projects", data=form)
        assert made.status_code == 303, made.text
        asked = {"labeller": "Ada", "tab": "t", "count": 20, "queue": "random"}
        assert len(client.post(f"{made.headers['location']}/next", json=asked).json()["images"]) == 9


def taken_for(served: Served) -> list[int]:
    folder = next(iter(served.site.runs.values())).folder.parents[1]
    with np.load(folder / "images.npz") as images:
        x = torch.from_numpy(images["x"])[:, None]
    found: list[int] = load_classifier(str(folder / "classifier")).predict(x).tolist()
    return found


def test_the_rest_is_shared_as_the_real_images_share_it() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0]])
    moved = with_confidence(probs, 0, 0.6)
    assert torch.allclose(moved, torch.tensor([[0.6, 0.24, 0.16], [0.6, 0.4, 0.0], [0.6, 0.2, 0.2]]))
    assert torch.allclose(moved.sum(dim=1), torch.ones(3))


class Recorder(Autoencoder):
    """Draws grey, and keeps what it was asked for."""

    family = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.config, self.latent_dim, self.image_shape = {}, 2, SHAPE
        self.condition_space = ConditionSpace(num_classes=3, score="vector")
        self.asked: Condition | None = None

    def forward(self, z: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
        self.asked = condition
        return torch.full((len(z), *SHAPE), 0.5)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 2)


def test_the_distributions_are_those_of_the_real_images_with_the_nearest_confidences(tmp_path: Path) -> None:
    """By hand: the classifier's logits are three pixels, and the real images say them."""
    logits = torch.tensor([[0.2, 0.9, 0.1], [0.1, 0.5, 0.4], [0.9, 0.2, 0.3], [0.3, 0.6, 0.0], [0.0, 0.1, 0.8]])
    x = torch.zeros(5, 8, 8)
    x[:, 0, :3] = logits
    np.savez(tmp_path / "images.npz", x=x.numpy(), y=np.arange(5) % 3)

    def pixels(x: torch.Tensor) -> torch.Tensor:
        return 3 * x[:, 0, 0, :3]

    classifier = Classifier(pixels, image_shape=SHAPE, class_names=("a", "b", "c"))
    generator = Recorder()
    images = str(tmp_path / "images.npz")
    asked = Asked(number=1, title="", classifier=classifier, generator=generator, oracle=None, images=images)
    draw_score(asked, label=1, score=0.6, count=4, seed=0, search=False)
    assert generator.asked is not None
    assert generator.asked.probs is not None
    assert torch.allclose(generator.asked.score, torch.full((4,), 0.6))
    probs = (3 * (logits * 255).round() / 255).softmax(dim=1)
    of_class = [row for row in range(5) if int(probs[row].argmax()) == 1]
    nearest = sorted(of_class, key=lambda row: abs(float(probs[row, 1]) - 0.6))
    assert torch.allclose(generator.asked.probs, with_confidence(probs[[*nearest, nearest[0]]], 1, 0.6), atol=5e-3), (
        "the nearest first, and again from the first when they are used up"
    )


def test_in_the_browser(served: Served, enter: "Callable[[Served], Tab]") -> None:
    tab = enter(served)
    label = max(set(taken_for(served)), key=taken_for(served).count)
    tab.goto(f"{served.run}/uncertain")
    assert tab.locator("select[name=networks] option").count() == 2
    tab.locator("select[name=label]").select_option(str(label))
    assert tab.locator("#score-name").inner_text() == "Confidence"
    assert tab.locator("#range").inner_text() == f"{CLASSES[label]} is supported from 0.400 to 1.000."
    tab.locator("input[name=count]").fill("3")
    tab.get_by_role("button", name="Draw").press("Enter")
    tab.get_by_text(f"Asked for {CLASSES[label]} at 0.6; the classifier gives it").wait_for()
    check(tab, "uncertain-distributions")
    tab.goto(f"{served.run}/frontiers")
    tab.locator("select[name=networks]").select_option("2")
    tab.locator("input[name=count]").fill("3")
    tab.get_by_role("button", name="Search").press("Enter")
    tab.get_by_text("of 3 images are within 0.05 of the target").wait_for()
    check(tab, "frontiers-distributions")
