"""Mistakes: which are wanted, in which order, and what lies on the way to their examples."""

import re
from pathlib import Path

import pytest
import torch
from tests.web.conftest import CLASSES, Served

from failscape.classifiers import load_classifier
from failscape.explain import SympatheticResult
from failscape.generators import load_generator
from failscape.report.run import read_run
from failscape.web.mistakes import Mistake, Mistakes, Wanted, key_of, mistake_steps, on_the_way, way_of_search


@pytest.fixture(scope="session")
def result(toy_run: Path) -> SympatheticResult:
    steps = mistake_steps(read_run(toy_run))
    assert list(steps) == [1]
    found = steps[1].result
    assert found is not None
    return found


def known_to(served: Served) -> Mistakes:
    """Return all mistakes of the first step that a server's first run shows."""
    run = next(iter(served.site.runs.values()))
    steps = served.site.mistakes.steps(run)
    known = served.site.mistakes.of(run, next(iter(steps.values())), patience=60.0)
    assert known.whole
    return known


def mistake(
    row: int, true: int, predicted: int, confidence: float, norm: float | None, success: bool | None = True
) -> Mistake:
    return Mistake(
        key=key_of(str(row)),
        row=row,
        id=str(row),
        true=true,
        predicted=predicted,
        confidence=confidence,
        example=None if norm is None else row,
        norm=norm,
        success=success,
    )


MISTAKES = [
    mistake(0, 0, 1, 0.9, 2.0),
    mistake(1, 2, 1, 0.5, 1.0),
    mistake(2, 0, 2, 0.7, 3.0, success=False),
    mistake(3, 0, 1, 0.9, 0.5),
    mistake(4, 1, 0, 0.6, None, success=None),
    mistake(5, 1, 0, 0.8, None, success=None),
]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (Wanted(), [0, 1, 2, 3, 4, 5]),
        (Wanted(falling=True), [5, 4, 3, 2, 1, 0]),
        (Wanted(true=0), [0, 2, 3]),
        (Wanted(true=0, predicted=1), [0, 3]),
        (Wanted(least=70.0, most=89.0), [2, 5]),
        (Wanted(longest=1.0), [1, 3]),
        (Wanted(success="false"), [2]),
        (Wanted(success="untried"), [4, 5]),
        (Wanted(success="true", order="norm"), [3, 1, 0]),
        # Without a change there is no length: last, whichever end is first.
        (Wanted(order="norm"), [3, 1, 0, 2, 4, 5]),
        (Wanted(order="norm", falling=True), [2, 0, 1, 3, 4, 5]),
        (Wanted(order="confidence"), [1, 4, 2, 5, 0, 3]),
        (Wanted(order="confidence", falling=True), [0, 3, 5, 2, 4, 1]),
        (Wanted(order="predicted", true=0), [0, 3, 2]),
        (Wanted(predicted=2), [2]),
        (Wanted(predicted=0, true=2), []),
    ],
)
def test_those_that_are_wanted(wanted: Wanted, rows: list[int]) -> None:
    assert [mistake.row for mistake in wanted.choose(MISTAKES)] == rows


def test_what_is_said_of_each(toy_server: Served, result: SympatheticResult, toy_run: Path) -> None:
    classifier = load_classifier(str(toy_run.parents[1] / "classifier"))
    found = known_to(toy_server).every
    assert found
    for each in found:
        assert each.example is not None
        probs = classifier.probs(result.originals[each.example, None])[0]
        assert each.predicted == int(probs.argmax()) != each.true
        assert each.confidence == pytest.approx(float(probs.max()), abs=2e-2)
        assert each.norm == pytest.approx(float(result.epsilon[each.example].norm()), rel=1e-5)


def test_the_way_begins_at_the_image_and_ends_at_its_example(result: SympatheticResult, toy_run: Path) -> None:
    classifier = load_classifier(str(toy_run.parents[1] / "classifier"))
    generator = load_generator(str(toy_run.parents[1] / "vae"))
    for row in range(3):
        first, probs = on_the_way(result, row, 0.0, classifier, generator)
        assert torch.equal(first, result.originals[row])
        assert torch.allclose(probs, classifier.probs(first[None])[0])
        last, _ = on_the_way(result, row, 1.0, classifier, generator)
        # The images explained were rounded to 8 bits when they were kept.
        assert (last - result.images[row]).abs().max() <= 1.5 / 255
        middle, _ = on_the_way(result, row, 0.5, classifier, generator)
        assert torch.equal((middle * 255).round() / 255, middle)
        assert not torch.equal(middle, first)


def test_the_way_of_a_search_in_two_numbers(result: SympatheticResult) -> None:
    way = way_of_search(result, 0)
    assert way.shape == (result.path.shape[1], 2)
    # Both numbers together give the distance from the start.
    distance = result.path[0].norm(dim=1) / result.epsilon[0].norm()
    assert torch.allclose(way.norm(dim=1), distance, atol=1e-4)
    assert (way[:, 1] >= 0).all()


def test_a_page_of_those_that_are_wanted(toy_server: Served) -> None:
    found = known_to(toy_server).every
    wanted = [each for each in found if each.predicted == found[0].predicted]
    assert 0 < len(wanted) < len(found)
    with toy_server.client() as client:
        every = client.get(f"{toy_server.run}/mistakes").text
        assert every.count('class="pixelated"') == len(found)
        query = {"predicted": str(found[0].predicted), "true": "", "least": "", "success": "", "order": "norm"}
        page = client.get(f"{toy_server.run}/mistakes", params=query).text
        assert page.count('class="pixelated"') == len(wanted)
        assert "<html" in page
        part = client.get(f"{toy_server.run}/mistakes", params=query, headers={"HX-Request": "true"}).text
        assert "<html" not in part
        assert part.strip() in page


def test_pictures_are_asked_for_again_when_the_step_was_run_again(toy_server: Served, toy_run: Path) -> None:
    version = read_run(toy_run).steps[0].record["fingerprint"][:12]
    assert version
    key = known_to(toy_server).every[0].key
    with toy_server.client() as client:
        for page in ("mistakes", f"mistakes/1/{key}"):
            found = re.findall(r'src="([^"]*/picture/[^"]*)"', client.get(f"{toy_server.run}/{page}").text)
            assert found
            assert all(f"?v={version}" in address for address in found), found
        answer = client.get(f"{toy_server.run}/mistakes/1/{key}/picture/example?v={version}")
        assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"step": "2"}, 404),
        ({"step": "99"}, 404),
        ({"order": "id"}, 422),
        ({"least": "101"}, 422),
        ({"least": "nan"}, 422),
        ({"page": "0"}, 422),
        ({"success": "perhaps"}, 422),
        ({"path": "/etc/passwd"}, 422),
    ],
)
def test_a_wrong_wish_is_refused_in_words(toy_server: Served, query: dict[str, str], status: int) -> None:
    with toy_server.client() as client:
        answer = client.get(f"{toy_server.run}/mistakes", params=query)
    assert answer.status_code == status
    assert answer.json()["error"].startswith("Expected ")


def test_a_place_on_the_way(toy_server: Served, result: SympatheticResult) -> None:
    first = known_to(toy_server).every[0]
    assert first.example is not None
    key, row = first.key, first.example
    with toy_server.client() as client:
        there = client.get(f"{toy_server.run}/mistakes/1/{key}/at", params={"part": 1}).json()
        assert there["image"].startswith("data:image/png;base64,")
        assert sum(there["probs"]) == pytest.approx(1, abs=1e-3)
        assert there["right"] == bool(result.success[row])
        assert there["says"].rpartition(" (")[0] in CLASSES
        for part in ("-0.1", "1.6", "nan", "inf", ""):
            assert client.get(f"{toy_server.run}/mistakes/1/{key}/at", params={"part": part}).status_code == 422
        for place in (f"2/{key}", "1/0000000000000000", "1/-1", f"1/{'x' * 3000}", "1/..%2f.."):
            assert client.get(f"{toy_server.run}/mistakes/{place}").status_code == 404
