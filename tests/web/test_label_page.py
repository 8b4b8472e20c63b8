"""Labelling in a real browser: by keys, through undo, reload and a server that is killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.web.conftest import CLASSES, Served, Watched, cores_shared, make_project, report_times, serving
from tests.web.test_pages import check

from failscape.labels import NOT_ANY, Event, LabelStore, NewLabel, Project, database

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab
    from playwright.sync_api import Route

Enter = Callable[[Served], "Tab"]


def held(run: Path, project: Project, labeller: str = "Ada") -> list[Event]:
    with LabelStore(run) as store:
        return [event for event in store.labels(project.id) if event.labeller == labeller]


def open_project(tab: "Tab", address: str, labeller: str = "Ada") -> None:
    tab.goto(address)
    tab.get_by_label("Your name").fill(labeller)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#picture img")


def shown(tab: "Tab") -> str:
    image: str = tab.eval_on_selector("#picture", "(picture) => picture.dataset.image")
    return image


def key_of(label: int) -> str:
    return " " if label == NOT_ANY else str(label + 1)


def wait_saved(tab: "Tab", count: int) -> None:
    """Wait, for long if the disk stalls: how quick it is, is measured where it matters."""
    from playwright.sync_api import TimeoutError as TooLate

    try:
        tab.wait_for_function(
            "(count) => document.getElementById('label').dataset.waiting === '0' &&"
            " document.getElementById('progress').textContent.startsWith(`${count} labelled`)",
            arg=count,
            timeout=30_000,
        )
    except TooLate as error:
        stands = [tab.locator(f"#{part}").inner_text() for part in ("progress", "saved", "refused", "picture")]
        raise AssertionError(f"expected {count} labels, but the page says {stands}") from error


@pytest.fixture
def project(fresh_run: Path) -> Project:
    return make_project(fresh_run, 80)


@pytest.fixture
def served(fresh_run: Path, project: Project) -> Iterator[Served]:
    with serving([fresh_run]) as served:
        yield served


def test_fifty_images_by_keys(fresh_run: Path, project: Project, served: Served, enter: Enter) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    # From the moment of a key press, as the browser notes it: until the next image stands there, its pixels ready, and
    # until the frame with it is drawn.
    tab.evaluate(
        """() => {
          window.answered = [];
          window.changed = [];
          window.drawn = [];
          const picture = document.getElementById("picture");
          addEventListener("keydown", () => window.answered.push(picture.dataset.image), { capture: true });
          addEventListener("keydown", (event) => {
            const image = picture.querySelector("img");
            const ready = image?.complete && image.naturalWidth > 0 && picture.dataset.image !== window.answered.at(-1);
            window.changed.push(ready ? performance.now() - event.timeStamp : Infinity);
          });
          // The browser's own measure, from the key to the next frame; what is quicker than 16 ms it leaves out.
          const note = (entry) => entry.name === "keydown" && window.drawn.push(entry.duration);
          const watch = new PerformanceObserver((list) => list.getEntries().forEach(note));
          watch.observe({ type: "event", durationThreshold: 16 });
        }"""
    )
    labels = [(0, 1, 2, NOT_ANY)[number % 4] for number in range(50)]
    # As fast as a person: how soon is the next image there?
    for label in labels[:20]:
        tab.keyboard.press(key_of(label))
        tab.wait_for_timeout(150)
    changed, drawn = (tab.evaluate(f"window.{name}") for name in ("changed", "drawn"))
    assert len(changed) == 20
    drawn += [16.0] * (20 - len(drawn))
    shared = cores_shared(lambda: sum(range(500_000)))
    assert report_times("key to next image", changed, shared) < 50 * shared, (shared, changed)
    assert report_times("key to frame", drawn, shared) < 50 * shared, (shared, drawn)
    # As fast as keys can be pressed: how many labels are kept in a second?
    paces = []
    for start in range(20, 50, 10):
        started = time.perf_counter()
        for label in labels[start : start + 10]:
            # Those ahead run out where the server is slow to name more; a key without an image is no answer.
            tab.wait_for_selector("#picture img", timeout=30_000)
            tab.keyboard.press(key_of(label))
        wait_saved(tab, start + 10)
        paces.append(10 / (time.perf_counter() - started))
    assert max(paces) > 5, paces
    given = list(zip(tab.evaluate("window.answered"), labels, strict=True))
    assert len(dict(given)) == 50
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given
    assert tab.locator("#progress").inner_text().startswith("50 labelled by you, 30 left · ")
    check(tab, "labelling")

    # Undo takes back the last one, and shows its image again.
    tab.keyboard.press("u")
    assert shown(tab) == given[-1][0]
    tab.keyboard.press("U")
    wait_saved(tab, 48)
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given[:48]

    # Reload: what was labelled is there to be looked back at, and the same image is asked.
    asked = shown(tab)
    tab.reload()
    tab.wait_for_selector("#picture img")
    tab.wait_for_function("(asked) => document.getElementById('picture').dataset.image === asked", arg=asked)
    tab.keyboard.press("ArrowLeft")
    assert shown(tab) == given[47][0]
    pressed = tab.locator("#classes [aria-pressed=true]")
    assert pressed.get_attribute("data-label") == str(given[47][1])
    # Another key changes the label that one looks at, and one goes on to the image that is asked.
    other = (given[47][1] + 2) % 3
    tab.keyboard.press(str(other + 1))
    assert shown(tab) == asked
    wait_saved(tab, 48)
    assert held(fresh_run, project)[-1].label == other
    # Undone, the earlier label holds again.
    tab.keyboard.press("u")
    wait_saved(tab, 48)
    assert {(event.image_id, event.label) for event in held(fresh_run, project)} == set(given[:48])
    with LabelStore(fresh_run) as store:
        assert len(store.events(project.id)) == 50 + 2 + 1 + 1


def test_each_label_says_in_which_order_its_image_was_asked(
    fresh_run: Path, project: Project, served: Served, enter: Enter
) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")  # the project's order is the random one
    with LabelStore(fresh_run) as store:
        most = max(store.images(project.id), key=lambda image: image.priority).id
    tab.keyboard.press("1")
    tab.get_by_text("Settings").click()
    tab.locator("#queue").select_option("teaching")
    # At once, though the window has other images ahead.
    tab.wait_for_function("(most) => document.getElementById('picture').dataset.image === most", arg=most)
    tab.locator("#picture").focus()
    tab.keyboard.press("2")
    # Another answer to the first image, which was asked at random.
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("3")
    wait_saved(tab, 2)
    # After a reload the page goes on in the project's order, and remembers how the earlier ones were asked.
    tab.reload()
    tab.wait_for_selector("#picture img")
    tab.keyboard.press("1")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("1")
    wait_saved(tab, 3)
    with LabelStore(fresh_run) as store:
        events = store.events(project.id)
    assert [event.queue for event in events][:4] == ["random", "teaching", "random", "random"]
    assert events[1].image_id == most
    assert events[4].queue == next(event.queue for event in events if event.image_id == events[4].image_id)


def test_the_guess_is_hidden_until_answered_unless_one_wants_it(
    fresh_run: Path, project: Project, served: Served, enter: Enter
) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    note = tab.locator("#above")
    assert note.inner_text() == ""
    tab.keyboard.press("1")
    wait_saved(tab, 1)
    with LabelStore(fresh_run) as store:
        (event,) = held(fresh_run, project)
        image = store.image(event.image_id)
    said = f"you said {CLASSES[0]}, the classifier {CLASSES[image.prediction]} ("
    assert said in note.inner_text()
    tab.get_by_text("Settings").click()
    tab.get_by_label("guess before I answer").check()
    assert note.inner_text().startswith("The classifier says ")
    assert "pixelated" in (tab.locator("#picture").get_attribute("class") or "")
    tab.get_by_label("Smooth the image").check()
    assert "pixelated" not in (tab.locator("#picture").get_attribute("class") or "")
    check(tab, "label-settings")
    # Settings are remembered.
    tab.reload()
    tab.wait_for_selector("#picture img")
    assert note.inner_text().startswith("The classifier says ")


def test_keys_can_be_switched_off(fresh_run: Path, project: Project, served: Served, enter: Enter) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    setting = tab.get_by_label("Answer and move by keys")
    # Reached and switched by keys that every page has.
    tab.locator("#settings summary").focus()
    tab.keyboard.press("Enter")
    for _ in range(2):
        tab.keyboard.press("Tab")
    assert setting.evaluate("(setting) => setting === document.activeElement")
    tab.keyboard.press(" ")
    assert not setting.is_checked()
    check(tab, "label-keyless")
    for reloaded in (False, True):
        if reloaded:
            tab.reload()
            tab.wait_for_selector("#picture img")
        asked = shown(tab)
        tab.locator("#picture").focus()
        for key in ("1", "2", " ", "u", "ArrowLeft", "?"):
            tab.keyboard.press(key)
        assert shown(tab) == asked
        assert not tab.locator("#help").is_visible()
        assert tab.locator("[aria-keyshortcuts]").count() == 0
    assert held(fresh_run, project) == []
    # Buttons work as before, and the keys do once they are on again.
    tab.get_by_role("button", name="cat").press("Enter")
    wait_saved(tab, 1)
    tab.get_by_text("Settings").click()
    setting.check()
    tab.locator("#picture").focus()
    tab.keyboard.press("1")
    wait_saved(tab, 2)
    assert [event.label for event in held(fresh_run, project)] == [2, 0]


def test_help_and_mouse(fresh_run: Path, project: Project, served: Served, enter: Enter) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    tab.keyboard.press("?")
    assert tab.locator("#help").is_visible()
    assert tab.locator("#help dd").first.inner_text() == CLASSES[0]
    check(tab, "label-help")
    tab.keyboard.press("1")
    tab.keyboard.press("Escape")
    assert not tab.locator("#help").is_visible()
    assert held(fresh_run, project) == []
    tab.get_by_role("button", name="../../x").click()
    # Space does what it says, and not again what was clicked.
    tab.keyboard.press(" ")
    wait_saved(tab, 2)
    assert [event.label for event in held(fresh_run, project)] == [1, NOT_ANY]
    # A button reached by Tab is pressed by Space, as everywhere.
    tab.get_by_role("button", name="cat").focus()
    tab.keyboard.press(" ")
    wait_saved(tab, 3)
    assert held(fresh_run, project)[-1].label == 2


def test_two_people_and_two_windows_lose_nothing_of_each_other(
    fresh_run: Path, served: Served, enter: Enter, watched: Watched
) -> None:
    # Enough images that two windows have none in common.
    project = make_project(fresh_run, 90, labellers=2, name="shared")
    tabs = [enter(served), watched.tab(), watched.tab()]
    for tab, labeller in zip(tabs, ["Ada", "Ada", "Bo"], strict=True):
        open_project(tab, f"{served.run}/label/{project.id}", labeller)
    for number in range(5):
        for tab in tabs:
            tab.keyboard.press("123"[number % 3])
    for tab in tabs:
        tab.wait_for_selector("#label[data-waiting='0']")
    tabs[1].reload()
    tabs[1].wait_for_selector("#picture img")
    wait_saved(tabs[1], 10)
    assert len({event.image_id for event in held(fresh_run, project, "Ada")}) == 10
    assert len({event.image_id for event in held(fresh_run, project, "Bo")}) == 5


def test_images_are_kept_for_who_has_the_page_open_and_let_go_of_when_others_were_quicker(
    fresh_run: Path, served: Served, enter: Enter
) -> None:
    project = make_project(fresh_run, 30, name="slow")
    tab = enter(served)
    tab.clock.install()
    with tab.expect_response("**/next") as answer:
        open_project(tab, f"{served.run}/label/{project.id}")
    mine = [image["id"] for image in answer.value.json()["images"]]
    assert len(mine) == 20
    assert shown(tab) == mine[0]

    def label_by(labeller: str, image: str) -> None:
        with LabelStore(fresh_run) as store:
            store.label(project.id, labeller, NewLabel(image_id=image, label=0, client_id=f"label-of-{image}"))

    label_by("Bo", mine[1])
    with tab.expect_response("**/next") as answer:
        tab.clock.fast_forward(45_000)
    assert [image["id"] for image in answer.value.json()["images"][:19]] == [mine[0], *mine[2:]]
    # What is on the screen stays there; the next one is one that is still to be asked.
    assert shown(tab) == mine[0]
    tab.keyboard.press("1")
    assert shown(tab) == mine[2]
    wait_saved(tab, 1)
    # After a sleep in which it was not kept, the one on the screen may be somebody else's.
    label_by("Bo", mine[2])
    with tab.expect_response("**/next"):
        tab.clock.fast_forward(300_000)
    tab.wait_for_function("(next) => picture.dataset.image === next", arg=mine[3])


def test_an_end_of_the_images_is_an_end(fresh_run: Path, served: Served, enter: Enter) -> None:
    project = make_project(fresh_run, 2, name="short")
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    for _ in range(4):
        tab.keyboard.press("1")
    wait_saved(tab, 2)
    tab.get_by_text("Nothing is left for you to label here").wait_for()
    check(tab, "label-done")
    tab.keyboard.press("u")
    wait_saved(tab, 1)
    assert tab.locator("#picture img").count() == 1


@contextmanager
def process(run: Path, port: int) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """Start the command, and yield it with the link that it prints."""
    command = [sys.executable, "-m", "failscape", "serve", str(run), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            link = server.stdout.readline().strip()
            assert link.startswith("http://127.0.0.1:"), server.communicate()[1]
            yield server, link
        finally:
            server.kill()
            server.communicate()


def test_a_killed_server_loses_nothing(fresh_run: Path, watched: Watched) -> None:
    project = make_project(fresh_run, 60)
    tab = watched.tab()
    with process(fresh_run, 0) as (server, link):
        tab.goto(link)
        port = int(link.partition("/enter")[0].rpartition(":")[2])
        open_project(tab, f"{tab.url.removesuffix('overview')}label/{project.id}")
        given = []
        for number in range(20):
            given.append((shown(tab), number % 3))
            tab.keyboard.press("123"[number % 3])
            if number == 9:
                # In the midst of labelling, whatever is under way.
                os.kill(server.pid, signal.SIGKILL)
                kept = [(event.image_id, event.label) for event in held(fresh_run, project)]
        assert kept == given[: len(kept)]
        tab.get_by_text("The server does not answer.").wait_for()
        assert int(tab.get_attribute("#label", "data-waiting") or 0) >= 10
        tab.locator("#saved.waiting").wait_for()
        check(tab, "label-unsaved")
    # The browser reports each request that found no server, or lost it under way, by codes that depend on how much of
    # the answer had come; nothing else may be wrong.
    other = [error for error in watched.errors if not error.startswith("Failed to load resource: net::ERR_")]
    assert not other, "\n".join(other)
    watched.errors.clear()

    with process(fresh_run, port) as (server, link):
        # The page is still open: once the browser is let in again, what it kept is sent.
        let_in = watched.tab()
        let_in.goto(link)
        wait_saved(tab, 20)
        assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given
        with LabelStore(fresh_run) as store:
            assert len(store.events(project.id)) == 20
        # Nothing may be left to ask the server once it has stopped: the browser would report it after the last look.
        tab.close()
        let_in.close()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 130
    # Before it was let in again it was told that it was not.
    assert all("401" in error or "ERR_" in error for error in watched.errors), watched.errors
    watched.errors.clear()


def test_an_answer_that_is_cut_short_is_none(
    fresh_run: Path, project: Project, served: Served, enter: Enter, watched: Watched
) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    cut = iter([True, True])

    def answer(route: Any) -> None:
        # As of a server that is killed while it answers; what it had heard it may have kept.
        if next(cut, False):
            route.fulfill(status=200, content_type="application/json", body='{"kept": [{"client')
        else:
            route.continue_()

    tab.route("**/labels", answer)
    given = []
    for number in range(3):
        given.append((shown(tab), number))
        tab.keyboard.press("123"[number])
    wait_saved(tab, 3)
    assert next(cut, None) is None
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given


def test_what_a_closed_window_had_not_sent_the_next_one_sends(
    fresh_run: Path, project: Project, served: Served, enter: Enter, watched: Watched
) -> None:
    tab = enter(served)
    address = f"{served.run}/label/{project.id}"
    open_project(tab, address)
    tab.route("**/labels", lambda route: route.abort())
    given = [shown(tab)]
    tab.keyboard.press("1")
    tab.wait_for_selector("#saved.waiting")
    assert held(fresh_run, project) == []
    tab.close(run_before_unload=False)
    watched.errors.clear()
    again = watched.tab()
    open_project(again, address)
    wait_saved(again, 1)
    assert [event.image_id for event in held(fresh_run, project)] == given


def test_what_comes_late_does_not_undo_what_was_said_since(
    fresh_run: Path, project: Project, served: Served, enter: Enter
) -> None:
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    image = shown(tab)
    tab.keyboard.press("2")
    wait_saved(tab, 1)
    # What another window of a minute ago left behind, in the order in which it was not given.
    tab.evaluate(
        """([project, image]) => {
          const item = { kind: "label", labeller: "Ada", tab: "old", image_id: image, seconds: 1 };
          const items = [[0, 50000], [2, 60000]].map(([label, ago]) => ({
            ...item, label, client_id: `left-behind-${label}`, given_ms: Date.now() - ago,
          }));
          localStorage.setItem(`failscape:outbox:${project}:old`, JSON.stringify(items));
        }""",
        [project.id, image],
    )
    tab.reload()
    wait_saved(tab, 1)
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == [(image, 1)]
    with LabelStore(fresh_run) as store:
        assert [event.label for event in store.events(project.id)] == [1, 2, None, 0, None]
    tab.wait_for_selector("#picture img")
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#classes [aria-pressed=true]").get_attribute("data-label") == "1"


def test_a_page_that_does_not_get_its_labels_says_so_and_asks_again(
    project: Project, served: Served, enter: Enter, watched: Watched
) -> None:
    tab = enter(served)
    tab.route("**/history*", lambda route: route.abort())
    tab.goto(f"{served.run}/label/{project.id}")
    tab.get_by_label("Your name").fill("Ada")
    tab.keyboard.press("Enter")
    tab.locator("#picture").get_by_text("The server does not answer. Trying again").wait_for()
    tab.unroute("**/history*")
    tab.wait_for_selector("#picture img")
    tab.locator("#saved", has_text="Everything is saved.").wait_for()
    assert all("ERR_FAILED" in error for error in watched.errors), watched.errors
    watched.errors.clear()


def test_a_database_that_is_busy_costs_no_label(
    fresh_run: Path, project: Project, served: Served, enter: Enter, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 50)
    tab = enter(served)
    open_project(tab, f"{served.run}/label/{project.id}")
    given = []
    with closing(sqlite3.connect(fresh_run / database.FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(10):
            given.append((shown(tab), number % 3))
            tab.keyboard.press("123"[number % 3])
        tab.get_by_text("does not answer just now").wait_for()
        assert tab.locator("#saved.waiting").is_visible()
        assert not tab.locator("#refused").is_visible()
        assert held(fresh_run, project) == []
        other.execute("ROLLBACK")
    wait_saved(tab, 10)
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given
    assert all("503" in error for error in watched.errors), watched.errors
    watched.errors.clear()


def test_a_label_that_is_refused_stays_until_it_is_sent_again_or_discarded(
    fresh_run: Path, project: Project, served: Served, enter: Enter, watched: Watched
) -> None:
    tab = enter(served)
    address = f"{served.run}/label/{project.id}"
    open_project(tab, address)

    def refuse(route: "Route") -> None:
        route.fulfill(status=422, json={"error": "Expected something else."})

    tab.route("**/labels", refuse)
    given = [(shown(tab), 1)]
    tab.keyboard.press("2")
    refused = tab.locator("#refused")
    refused.get_by_text("One answer was not taken, and is kept in this browser. Expected something else.").wait_for()
    check(tab, "label-refused")
    # Labelling goes on, and what was refused stays through a reload.
    given.append((shown(tab), 0))
    tab.keyboard.press("1")
    refused.get_by_text("2 answers were not taken").wait_for()
    tab.reload()
    refused.get_by_text("2 answers were not taken").wait_for()
    assert held(fresh_run, project) == []
    tab.unroute("**/labels")
    tab.get_by_role("button", name="Send again").click()
    wait_saved(tab, 2)
    assert not refused.is_visible()
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given
    tab.wait_for_function("(seen) => !seen.includes(picture.dataset.image)", arg=[image for image, _ in given])

    # What is taken back before it was refused is settled.
    on_the_way: list[Route] = []
    tab.route("**/labels", lambda route: on_the_way.append(route))
    with tab.expect_request("**/labels"):
        tab.keyboard.press("3")
    tab.keyboard.press("u")
    refuse(on_the_way[0])
    tab.wait_for_selector("#label[data-waiting='0']")
    assert not refused.is_visible()
    tab.unroute("**/labels")
    tab.route("**/labels", refuse)
    tab.keyboard.press("3")
    refused.wait_for()
    tab.get_by_role("button", name="Discard").click()
    assert not refused.is_visible()
    assert tab.evaluate("Object.keys(localStorage).filter((key) => key.includes('outbox')).length") == 0
    tab.unroute("**/labels")
    tab.reload()
    tab.wait_for_selector("#picture img")
    assert not refused.is_visible()
    assert [(event.image_id, event.label) for event in held(fresh_run, project)] == given
    assert all("422" in error for error in watched.errors), watched.errors
    watched.errors.clear()
