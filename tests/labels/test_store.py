import os
import random
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.labels.conftest import CLASSES, PROGRAMS, Server, make_project, make_task

from failscape.data.encoded import ImageDecoder
from failscape.errors import LabelConflict, LabelStoreError, NotInStore
from failscape.labels import NOT_ANY, Event, LabelImage, LabelStore, NewLabel, Project


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def give(store: LabelStore, project: Project, who: str, image: LabelImage, label: int = 1) -> Event:
    return store.label(project.id, who, NewLabel(image_id=image.id, label=label, client_id=str(uuid.uuid4())))


def answer(store: LabelStore, project: Project, who: str, image: LabelImage, label: int = 1) -> Event:
    """Label an image that was asked, and say in which order."""
    new = NewLabel(image_id=image.id, label=label, client_id=str(uuid.uuid4()), queue=image.queue)
    return store.label(project.id, who, new)


def test_what_was_stored_is_given_back(store: LabelStore) -> None:
    task = replace(make_task(5), sources=("a", "a", "b", "", "b"))
    rng = torch.Generator()
    project = store.create_project("insects", task, classifier="weights/ants", labellers_per_image=2, rng=rng)
    assert project.classifier == "weights/ants"
    assert (project.class_names, project.images, project.labellers_per_image) == (CLASSES, 5, 2)
    assert store.project("insects") == project
    assert store.projects() == (project,)
    images = store.images(project.id)
    assert [image.name for image in images] == list(task.names)
    assert [image.source for image in images] == list(task.sources)
    assert len({image.id for image in images}) == 5
    for row, image in enumerate(images):
        assert store.image(image.id) == image
        assert torch.equal(torch.tensor(image.probs), task.probs[row])
        assert task.oracle_probs is not None
        assert torch.equal(torch.tensor(image.oracle_probs), task.oracle_probs[row])
        assert image.prediction == int(task.probs[row].argmax())
        assert image.confidence == task.probs[row].max()
        png = store.png(image.id)
        assert torch.equal((ImageDecoder(png, "").decode(png, "") * 255).round().to(torch.uint8), task.images[row])


def test_more_images_of_the_same_classes_can_be_added(store: LabelStore) -> None:
    project = make_project(store, 3)
    more = store.add_images(project.id, make_task(2, prefix="new"), rng=torch.Generator())
    assert more.images == 5
    assert [image.name for image in store.images(project.id)][3:] == ["new-00", "new-01"]
    with pytest.raises(LabelConflict, match="'new-00' is in 'insects' already, and 1 more"):
        store.add_images(project.id, make_task(2, prefix="new"), rng=torch.Generator())
    with pytest.raises(LabelConflict, match="images of the project's classes"):
        store.add_images(project.id, make_task(2, prefix="x", classes=("a", "b", "c")), rng=torch.Generator())
    assert store.project(project.id).images == 5


def test_names_of_projects_are_taken_once(store: LabelStore) -> None:
    make_project(store)
    with pytest.raises(LabelConflict, match="there is a project 'insects'"):
        make_project(store)
    assert len(store.projects()) == 1


def test_what_teaches_most_is_asked_first(store: LabelStore) -> None:
    project = make_project(store)
    asked = store.next_images(project.id, "Ada", 12)
    assert [image.priority for image in asked] == sorted((i.priority for i in store.images(project.id)), reverse=True)
    # Where classifier and oracle disagree comes before the rest.
    disagree = [image.prediction != image.oracle_prediction for image in asked]
    assert 0 < sum(disagree) < 12
    assert disagree == sorted(disagree, reverse=True)


def test_the_random_order_is_seeded_and_another_one(store: LabelStore) -> None:
    def order(name: str, seed: int) -> list[str]:
        rng = torch.Generator().manual_seed(seed)
        project = store.create_project(name, make_task(), queue="random", rng=rng)
        return [image.name for image in store.next_images(project.id, "Ada", 12)]

    first, again, other = order("a", 3), order("b", 3), order("c", 4)
    assert first == again
    assert first != other
    project = store.project("a")
    teaching = [image.name for image in store.next_images(project.id, "Bo", 12, queue="teaching")]
    assert teaching == []  # Ada was handed them all
    assert sorted(first) == sorted(make_task().names)


def test_each_label_says_in_which_order_its_image_was_asked(store: LabelStore) -> None:
    project = make_project(store, labellers=2)
    one, two = store.next_images(project.id, "Ada", 2, tab="one")
    assert (one.queue, two.queue) == ("teaching", "teaching")
    event = answer(store, project, "Ada", one)
    assert event.queue == "teaching"
    # Asked in the other order, what the window was handed has no precedence: the control is random from the start.
    lots = [image.name for image in store.next_images(project.id, "Bo", 12, queue="random") if image.id != one.id]
    asked = store.next_images(project.id, "Ada", 11, queue="random", tab="one")
    assert [image.name for image in asked] == lots
    assert {image.queue for image in asked} == {"random"}
    answer(store, project, "Ada", asked[0])
    # What is taken back is asked next, in the order in which it was asked; the undo itself has none.
    undo = store.undo(project.id, "Ada", event.id, client_id="undo-of-one", tab="one")
    assert undo.queue is None
    first, *rest = store.next_images(project.id, "Ada", 3, queue="random", tab="one")
    assert (first.id, first.queue) == (one.id, "teaching")
    assert {image.queue for image in rest} == {"random"}
    answer(store, project, "Ada", first)
    # Given without having been asked.
    give(store, project, "Ada", rest[1])
    assert [event.queue for event in store.events(project.id)] == ["teaching", "random", None, "teaching", None]
    assert [event.queue for event in store.labels(project.id)] == ["random", "teaching", None]
    assert {image.queue for image in store.images(project.id)} == {None}


@pytest.mark.usefixtures("as_installed")
def test_an_order_that_there_is_not_is_refused(store: LabelStore) -> None:
    project = make_project(store, 1)
    (image,) = store.images(project.id)
    new = NewLabel(image_id=image.id, label=0, client_id="12345678", queue="best")  # type: ignore[arg-type]
    with pytest.raises(LabelStoreError, match="an order of teaching or random, or None, but got 'best'"):
        store.label(project.id, "Ada", new)


def test_asked_again_the_queue_moves_on_by_what_was_labelled(store: LabelStore) -> None:
    project = make_project(store)
    first = store.next_images(project.id, "Ada", 4)
    assert store.next_images(project.id, "Ada", 4) == first
    give(store, project, "Ada", first[0])
    then = store.next_images(project.id, "Ada", 4)
    assert then[:3] == first[1:]
    assert then[3] not in first
    # Another image was answered out of turn.
    give(store, project, "Ada", then[1])
    assert store.next_images(project.id, "Ada", 2) == (then[0], then[2])


def test_an_image_comes_once_and_all_come(store: LabelStore) -> None:
    project = make_project(store, 5)
    seen = []
    while images := store.next_images(project.id, "Ada", 2):
        give(store, project, "Ada", images[0])
        seen.append(images[0].id)
    assert sorted(seen) == sorted(image.id for image in store.images(project.id))


def test_two_labellers_share_the_images(where: Path | str) -> None:
    clock = Clock()
    with LabelStore(where, reserve=60.0, clock=clock) as store:
        project = make_project(store, 6)
        ada = store.next_images(project.id, "Ada", 4)
        bo = store.next_images(project.id, "Bo", 4)
        assert len(bo) == 2
        assert not set(ada) & set(bo)
        clock.now += 59
        assert store.next_images(project.id, "Cy", 4) == ()
        # Ada still works, Bo has left.
        store.next_images(project.id, "Ada", 4)
        clock.now += 2
        assert set(store.next_images(project.id, "Cy", 4)) == set(bo)


def test_each_image_is_asked_of_as_many_as_wanted(store: LabelStore) -> None:
    project = make_project(store, 3, labellers=2)
    for who in ("Ada", "Bo"):
        assert len(store.next_images(project.id, who, 9)) == 3
    assert store.next_images(project.id, "Cy", 9) == ()
    for who in ("Ada", "Bo"):
        for image in store.images(project.id):
            give(store, project, who, image)
    assert store.next_images(project.id, "Ada", 9) == ()
    assert store.next_images(project.id, "Cy", 9) == ()
    assert store.progress(project.id, "Cy").left == 0


def test_two_tabs_of_one_person_get_different_images_while_there_are_enough(store: LabelStore) -> None:
    project = make_project(store, 5)
    first = store.next_images(project.id, "Ada", 3, tab="one")
    second = store.next_images(project.id, "Ada", 5, tab="two")
    # What nobody has comes first, then what the other tab has: its owner may have closed it.
    assert not set(second[:2]) & set(first)
    assert set(second[2:]) == set(first)


def test_the_last_label_holds_and_undo_brings_back_the_one_before(store: LabelStore) -> None:
    project = make_project(store, 2)
    image = store.images(project.id)[0]
    first, second = give(store, project, "Ada", image, 0), give(store, project, "Ada", image, NOT_ANY)
    assert store.labels(project.id) == (second,)
    undo = store.undo(project.id, "Ada", second.id, client_id=str(uuid.uuid4()))
    assert (undo.undoes, undo.label, undo.image_id) == (second.id, None, image.id)
    assert store.labels(project.id) == (first,)
    store.undo(project.id, "Ada", first.id, client_id=str(uuid.uuid4()))
    assert store.labels(project.id) == ()
    events = store.events(project.id)
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert [event.label for event in events] == [0, NOT_ANY, None, None]


def test_an_undone_image_comes_next_and_stays_with_its_labeller(store: LabelStore) -> None:
    project = make_project(store, 4)
    first, *others = store.next_images(project.id, "Ada", 4, tab="t")
    event = answer(store, project, "Ada", first)
    store.undo(project.id, "Ada", event.id, client_id=str(uuid.uuid4()), tab="t")
    assert store.next_images(project.id, "Bo", 4) == ()
    assert store.next_images(project.id, "Ada", 4, tab="t") == (first, *others)


def test_undoing_twice_is_one_undo(store: LabelStore) -> None:
    project = make_project(store, 2)
    event = give(store, project, "Ada", store.images(project.id)[0])
    undo = store.undo(project.id, "Ada", event.id, client_id="tab-one-1")
    assert store.undo(project.id, "Ada", event.id, client_id="tab-one-1") == replace(undo, repeated=True)
    assert store.undo(project.id, "Ada", event.id, client_id="tab-two-1") == replace(undo, repeated=True)
    assert len(store.events(project.id)) == 2


def test_nobody_undoes_what_another_did(store: LabelStore) -> None:
    project = make_project(store, 2)
    event = give(store, project, "Ada", store.images(project.id)[0])
    undo = store.undo(project.id, "Ada", event.id, client_id="undo-0001")
    for who, number in (("Bo", event.id), ("Ada", 999), ("Ada", undo.id)):
        with pytest.raises(NotInStore, match=f"event {number} is none"):
            store.undo(project.id, who, number, client_id="undo-0002")


def test_a_label_sent_again_is_one_label(store: LabelStore) -> None:
    project = make_project(store, 2)
    one, two = store.images(project.id)
    label = NewLabel(image_id=one.id, label=2, client_id="the-same-id", seconds=1.5)
    event = store.label(project.id, "Ada", label)
    assert (event.label, event.seconds, event.labeller, event.repeated) == (2, 1.5, "Ada", False)
    assert store.label(project.id, "Ada", label) == replace(event, repeated=True)
    assert store.events(project.id) == (event,)
    for who, other in (("Ada", replace(label, label=0)), ("Ada", replace(label, image_id=two.id)), ("Bo", label)):
        with pytest.raises(LabelConflict, match="'the-same-id' was used for another one"):
            store.label(project.id, who, other)
    assert store.events(project.id) == (event,)


def test_a_label_that_comes_late_does_not_take_the_place_of_a_later_one(where: Path | str) -> None:
    clock = Clock()
    with LabelStore(where, clock=clock) as store:
        project = make_project(store, 2)
        one, two = store.images(project.id)
        now = int(clock.now * 1000)

        def give_at(image: LabelImage, label: int, given_ms: int, who: str = "Ada") -> Event:
            new = NewLabel(image_id=image.id, label=label, client_id=f"{who}-{image.id}-{label}", given_ms=given_ms)
            event = store.label(project.id, who, new)
            assert event.label == label
            return event

        later = give_at(one, 2, now - 1000)
        late = give_at(one, 1, now - 5000)
        assert store.labels(project.id) == (later,)
        # Both are on record, and sending the late one again changes nothing.
        assert [event.undoes for event in store.events(project.id)] == [None, None, late.id]
        assert give_at(one, 1, now - 5000) == replace(late, repeated=True)
        assert len(store.events(project.id)) == 3
        # In order, the next takes the place of the one before, be it of the same moment; clocks ahead count as now.
        for label, given in ((0, now - 1000), (1, now + 9000), (2, now + 8000)):
            event = give_at(two, label, given)
            assert store.history(project.id, "Ada")[0] == event
            assert event.time.timestamp() * 1000 == min(given, now)
        # Others have nothing to do with it.
        assert give_at(one, 0, now - 9000, who="Bo") in store.labels(project.id)


def test_several_labels_are_kept_all_or_none(store: LabelStore) -> None:
    project = make_project(store, 3)
    new = [NewLabel(image_id=i.id, label=1, client_id=str(uuid.uuid4())) for i in store.images(project.id)]
    with pytest.raises(LabelStoreError, match="a label from 0 to 2, or -1"):
        store.label_all(project.id, "Ada", [*new[:2], replace(new[2], label=3)])
    assert store.events(project.id) == ()
    assert len(store.label_all(project.id, "Ada", new)) == 3


def test_looking_back(store: LabelStore) -> None:
    project = make_project(store, 4)
    images = store.images(project.id)
    events = [give(store, project, "Ada", image) for image in images[:3]]
    give(store, project, "Bo", images[3])
    store.undo(project.id, "Ada", events[1].id, client_id="undo-0001")
    assert store.history(project.id, "Ada") == (events[2], events[0])
    assert store.history(project.id, "Ada", 1) == (events[2],)
    assert store.history(project.id, "nobody") == ()


def test_progress(where: Path | str) -> None:
    clock = Clock()
    with LabelStore(where, clock=clock) as store:
        project = make_project(store, 5, labellers=2)
        images = store.images(project.id)
        assert store.progress(project.id, "Ada").per_minute is None
        for image in images[:3]:
            give(store, project, "Ada", image)
            clock.now += 2
        give(store, project, "Bo", images[0])
        give(store, project, "Bo", images[1])
        give(store, project, "Cy", images[0])
        ada = store.progress(project.id, "Ada")
        assert (ada.images, ada.finished, ada.labels, ada.mine) == (5, 2, 6, 3)
        # The third label of an image makes up for none of another.
        assert ada.missing == 5 * 2 - (2 + 2 + 1)
        assert ada.left == 2
        assert ada.per_minute == pytest.approx(30)
        assert store.progress(project.id, "new").left == 3
        clock.now += 600
        assert store.progress(project.id, "Ada").per_minute is None


def test_what_is_not_there_is_said(store: LabelStore) -> None:
    project = make_project(store, 2)
    other = make_project(store, 2, name="other")
    foreign = store.images(other.id)[0]
    with pytest.raises(NotInStore, match=r"none called '\.\./\.\./etc/passwd'"):
        store.png("../../etc/passwd")
    with pytest.raises(NotInStore, match="id of an image"):
        store.image("nothing")
    with pytest.raises(NotInStore, match="labelling project"):
        store.project("nothing")
    with pytest.raises(NotInStore, match="id of an image"):
        give(store, project, "Ada", foreign)
    for call in (store.images, store.labels, store.events):
        with pytest.raises(NotInStore):
            call("nothing")
    assert store.events(project.id) == store.events(other.id) == ()


def test_what_is_out_of_range_is_refused(local: LabelStore, tmp_path: Path) -> None:
    project = make_project(local, 2)
    image = local.images(project.id)[0]
    good = NewLabel(image_id=image.id, label=0, client_id="12345678")
    for bad in (replace(good, label=-2), replace(good, seconds=float("nan")), replace(good, seconds=-1.0)):
        with pytest.raises(LabelStoreError, match=r"Expected (a label|seconds)"):
            local.label(project.id, "Ada", bad)
    for client_id in ("short", "x" * 101, "with space", "<script>"):
        with pytest.raises(LabelStoreError, match="identifier of 8 to 100"):
            local.label(project.id, "Ada", replace(good, client_id=client_id))
    for name in ("", "  ", "x" * 101, "a\nb"):
        with pytest.raises(LabelStoreError, match="name of a labeller"):
            local.next_images(project.id, name)
    with pytest.raises(LabelStoreError, match="1 to 1000 images"):
        local.next_images(project.id, "Ada", 0)
    with pytest.raises(LabelStoreError, match="tab of at most 100"):
        local.next_images(project.id, "Ada", tab="x" * 101)
    with pytest.raises(LabelStoreError, match="at least 1 labeller"):
        make_project(local, labellers=0, name="none")
    with pytest.raises(ValueError, match="`reserve`"):
        LabelStore(tmp_path, reserve=0.0)


def test_a_name_is_text_whatever_it_holds(store: LabelStore) -> None:
    name = "<img onerror=alert(1)> ../../x '; DROP TABLE events; --"
    project = store.create_project(name, make_task(2, prefix="../../x"), rng=torch.Generator())
    assert store.project(name).name == name
    give(store, project, name, store.images(project.id)[0])
    assert [label.labeller for label in store.labels(project.id)] == [name]


def test_many_threads_lose_nothing_and_double_nothing(store: LabelStore) -> None:
    project = make_project(store, 12, labellers=2)

    def work(name: str) -> list[int]:
        done = []
        while images := store.next_images(project.id, name, 2):
            client_id = str(uuid.uuid4())
            label = NewLabel(image_id=images[0].id, label=1, client_id=client_id)
            done += [store.label(project.id, name, label).id, store.label(project.id, name, label).id]
        return done

    names = ["Ada", "Bo", "Cy"]
    with ThreadPoolExecutor(3) as pool:
        acknowledged = list(pool.map(work, names))
    events = store.events(project.id)
    assert Counter(number for done in acknowledged for number in done) == {event.id: 2 for event in events}
    assert len(events) == 24
    assert set(Counter(event.image_id for event in events).values()) == {2}
    assert len({(event.image_id, event.labeller) for event in events}) == 24


def test_the_same_label_sent_at_once_from_many_threads_is_one(store: LabelStore) -> None:
    project = make_project(store, 2)
    image = store.images(project.id)[0]
    label = NewLabel(image_id=image.id, label=1, client_id="sent-by-all")
    with ThreadPoolExecutor(6) as pool:
        # The labeller is new too, so both are written at the same moment.
        events = list(pool.map(lambda _: store.label(project.id, "Ada", label), range(6)))
    assert len({event.id for event in events}) == 1
    assert sum(not event.repeated for event in events) == 1
    assert len(store.events(project.id)) == 1


def test_a_store_opened_by_many_at_once_is_made_once(where: Path | str) -> None:
    def open_and_list(_: int) -> int:
        with LabelStore(where) as store:
            return len(store.projects())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(open_and_list, range(6))) == [0] * 6


def test_what_was_acknowledged_survives_kill_9_of_processes_that_label_at_once(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    places: list[Path | str] = [tmp_path]
    if PROGRAMS is not None:
        places.append(request.getfixturevalue("server").new_schema())
    projects = []
    for where in places:
        with LabelStore(where) as store:
            projects.append(make_project(store, 250).id)
    arguments = [str(value) for pair in zip(places, projects, strict=True) for value in pair]
    labelling = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("labelling.py")), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert labelling.stdout is not None
    # Until all of them are at work, and then for a while that nobody knows beforehand.
    lines: list[bytes] = []
    while len({(line.split()[0], line.split()[-1]) for line in lines}) < 3 * len(places):
        lines.append(labelling.stdout.readline())
        assert lines[-1], "they ended before all of them had labelled"
    lines += [labelling.stdout.readline() for _ in range(random.randint(1, 100))]
    os.killpg(labelling.pid, signal.SIGKILL)
    rest, complaints = labelling.communicate(timeout=30)
    assert complaints == b""
    told = [line.decode().split() for line in lines + rest.splitlines()]
    for where, project_id in zip(places, projects, strict=True):
        acknowledged = [words[1:] for words in told if words[0] == project_id]
        check_nothing_is_lost_or_doubled(where, project_id, acknowledged)


def check_nothing_is_lost_or_doubled(where: Path | str, project_id: str, acknowledged: list[list[str]]) -> None:
    with LabelStore(where) as store:
        events = {event.id: event for event in store.events(project_id)}
        for number, client_id, image_id, name in acknowledged:
            event = events[int(number)]
            assert (event.client_id, event.image_id, event.labeller) == (client_id, image_id, name)
        # Kept, but the answer did not reach them: at most one each.
        assert len(acknowledged) <= len(events) <= len(acknowledged) + 3
        # Three people, one label an image: nobody did another's work.
        assert set(Counter(event.image_id for event in events.values()).values()) == {1}
        assert store.progress(project_id, "Ada").left == 250 - len(events)
    if isinstance(where, Path):
        with closing(sqlite3.connect(where / "labels.sqlite")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_labels_survive_a_crash_of_the_server(server: Server) -> None:
    with LabelStore(server.new_schema()) as store:
        project = make_project(store, 20)
        events = tuple(give(store, project, "Ada", image) for image in store.images(project.id))
        server.stop()
        with pytest.raises(LabelStoreError, match="labels acknowledged are kept"):
            store.labels(project.id)
        server.start()
        # The same object goes on: the pool notices that its connections are gone.
        assert store.labels(project.id) == events
