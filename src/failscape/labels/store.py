"""The label store: projects of images, and what people said of them, event after event."""

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar, final

import sqlalchemy as sa
import torch

from failscape.errors import LabelConflict, LabelStoreError, NotInStore
from failscape.labels.database import Database, events, images, labellers, pixels, projects, reservations
from failscape.labels.records import QUEUES, Event, LabelImage, NewLabel, Progress, Project, Queue
from failscape.labels.rows import event_record, find_event, find_project, image_record, no_image, select_events
from failscape.labels.selection import TAKEN_BACK, held_at, held_events, images_left, next_in_queue, pace, totals
from failscape.labels.task import LabelTask
from failscape.labels.writing import (
    append_event,
    check_client_id,
    check_label,
    checked_name,
    insert_images,
    known_event,
    labeller_id_of,
)

# The window of the pace.
_PACE_MS = 5 * 60_000
_Written = TypeVar("_Written")


@final
class LabelStore:
    """Labels of people, in SQLite beside a run or in any database for a team.

    What a call has returned is on the disk. Labels and undos are appended; which labels hold is read off the events.
    Threads and processes may share a store, each process with an object of its own.

    Args:
        where: a run folder (a `Path`), which keeps `labels.sqlite`, or the URL of a database (a string).
        create: make the store if there is none.
        reserve: seconds for which an image handed to one labeller is kept from others.
        clock: seconds since 1970.

    Raises:
        LabelStoreUnavailable: if there is no store, or the database cannot be reached, read or written; any call may
            raise it later.
        MissingExtra: if the driver of the database is not installed.

    Example:
        >>> with LabelStore(Path("runs/00001-demo")) as store:
        ...     project = store.create_project("digits", task, rng=torch.Generator().manual_seed(0))
        ...     (image,) = store.next_images(project.id, "Ada", 1)
        ...     store.label(project.id, "Ada", NewLabel(image_id=image.id, label=3, client_id=str(uuid.uuid4())))
    """

    def __init__(
        self,
        where: Path | str,
        *,
        create: bool = True,
        reserve: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not (math.isfinite(reserve) and reserve > 0):
            raise ValueError(f"Expected `reserve` to be a positive number of seconds, but got {reserve}.")
        self._reserve_ms = math.ceil(reserve * 1000)
        self._clock = clock
        self._database = Database(where, create=create)

    @property
    def name(self) -> str:
        """Where the store lies, without a password."""
        return self._database.name

    def __enter__(self) -> "LabelStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def create_project(
        self,
        name: str,
        task: LabelTask,
        *,
        classifier: str = "",
        labellers_per_image: int = 1,
        queue: Queue = "teaching",
        rng: torch.Generator,
    ) -> Project:
        """Store images to be labelled, all of them or none.

        Args:
            name: how people call the project.
            task: the images, and what is known of them.
            classifier: spec of the one whose mistakes are looked for, so that no other is retrained on the labels.
            labellers_per_image: how many people each image is asked of.
            queue: what is asked first: "teaching", what teaches most, or "random", the control.
            rng: draws the random order.

        Raises:
            LabelConflict: if there is a project of that name.
            LabelStoreError: if a setting is out of range.
        """
        if labellers_per_image < 1 or queue not in QUEUES:
            raise LabelStoreError(
                f"Expected at least 1 labeller an image and a queue of {' or '.join(QUEUES)}, but got "
                f"{labellers_per_image} and {queue!r}."
            )
        name = checked_name(name, "project", 200)
        project_id = uuid.uuid4().hex
        row = {
            "id": project_id,
            "name": name,
            "class_names": list(task.class_names),
            "classifier": classifier,
            "labellers_per_image": labellers_per_image,
            "queue": queue,
            "created_ms": self._now(),
        }
        taken = LabelConflict(f"Expected a new name for the project, but there is a project {name!r}. Choose another.")
        try:
            with self._database.writing() as connection:
                if connection.scalar(sa.select(projects.c.id).where(projects.c.name == name)) is not None:
                    raise taken
                connection.execute(projects.insert().values(row))
                insert_images(connection, project_id, 0, task, rng)
        except LabelStoreError as error:
            if isinstance(error.__cause__, sa.exc.IntegrityError):
                raise taken from error
            raise
        return self.project(project_id)

    def add_images(self, project_id: str, task: LabelTask, *, rng: torch.Generator) -> Project:
        """Store more images in a project, all of them or none.

        Raises:
            LabelConflict: if the classes differ from the project's, or an image has the name of one that is there.
            NotInStore: if there is no such project.
        """
        with self._database.writing() as connection:
            project = find_project(connection, project_id, lock=True)
            if task.class_names != project.class_names:
                raise LabelConflict(
                    f"Expected images of the project's classes ({', '.join(project.class_names)}), but got "
                    f"{', '.join(task.class_names)}. Make a project of their own for them."
                )
            there = connection.scalars(sa.select(images.c.name).where(images.c.project_id == project_id))
            repeated = set(task.names) & set(there)
            if repeated:
                raise LabelConflict(
                    f"Expected images with new names, but {min(repeated)!r} is in {project.name!r} already"
                    f"{f', and {len(repeated) - 1} more' if len(repeated) > 1 else ''}."
                )
            insert_images(connection, project_id, project.images, task, rng)
        return self.project(project_id)

    def projects(self) -> tuple[Project, ...]:
        """Return all projects, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.scalars(sa.select(projects.c.id).order_by(projects.c.created_ms, projects.c.id)).all()
            return tuple(find_project(connection, project_id) for project_id in rows)

    def project(self, key: str) -> Project:
        """Return the project with an id or a name.

        Raises:
            NotInStore: if there is none.
        """
        with self._database.reading() as connection:
            found = connection.scalar(sa.select(projects.c.id).where((projects.c.id == key) | (projects.c.name == key)))
            return find_project(connection, key if found is None else found)

    def image(self, image_id: str) -> LabelImage:
        """Return an image without its pixels.

        Raises:
            NotInStore: if there is none.
        """
        with self._database.reading() as connection:
            row = connection.execute(sa.select(images).where(images.c.id == image_id)).one_or_none()
        if row is None:
            raise no_image(image_id)
        return image_record(row)

    def png(self, image_id: str) -> bytes:
        """Return an image's pixels as PNG.

        Raises:
            NotInStore: if there is none.
        """
        with self._database.reading() as connection:
            png = connection.scalar(sa.select(pixels.c.png).where(pixels.c.image_id == image_id))
        if png is None:
            raise no_image(image_id)
        return bytes(png)

    def images(self, project_id: str) -> tuple[LabelImage, ...]:
        """Return the images of a project in the order in which they were stored.

        Raises:
            NotInStore: if there is no such project.
        """
        with self._database.reading() as connection:
            find_project(connection, project_id)
            query = sa.select(images).where(images.c.project_id == project_id).order_by(images.c.position)
            return tuple(image_record(row) for row in connection.execute(query))

    def next_images(
        self, project_id: str, labeller: str, count: int = 8, *, queue: Queue | None = None, tab: str = ""
    ) -> tuple[LabelImage, ...]:
        """Hand out the next images to a labeller, and keep them from others for a while.

        Never an image on which a label of this labeller holds, nor one that has, or is about to get, as many labels
        as were asked for. Asked again before anything was labelled, it gives the same images; asked after one was, the
        same without that one and a new one at the end: that is how a page fetches ahead. Each says in which order it is
        asked, for the label to say so too.

        Args:
            project_id: the project.
            labeller: by name; a new name is a new labeller.
            count: at most so many.
            queue: in which order; by default the project's.
            tab: tells several windows of one labeller apart, so that they get different images as long as there are
                enough.

        Raises:
            NotInStore: if there is no such project.
            LabelStoreError: if a name or number is out of range.
        """
        if not 1 <= count <= 1000 or (queue is not None and queue not in QUEUES):
            raise LabelStoreError(
                f"Expected 1 to 1000 images and a queue of {' or '.join(QUEUES)}, but got {count} and {queue!r}."
            )
        now = self._now()
        with self._database.writing() as connection:
            # One at a time, so that no image goes to one labeller too many.
            project = find_project(connection, project_id, lock=True)
            queue = queue or project.queue
            labeller_id = labeller_id_of(connection, labeller)
            connection.execute(
                reservations.delete().where(reservations.c.project_id == project_id, reservations.c.expires_ms <= now)
            )
            asked = {
                "project_id": project_id,
                "labeller_id": labeller_id,
                "wanted": project.labellers_per_image,
                "tab": tab,
                "count": count,
            }
            found = connection.execute(next_in_queue(queue), asked).all()
            handed = {
                row.id: _Handed(now, queue) if row.granted_ms is None else _Handed(row.granted_ms, row.granted_queue)
                for row in found
            }
            self._reserve(connection, project_id, labeller_id, tab, handed)
            return tuple(image_record(row, queue=handed[row.id].queue) for row in found)

    def label(self, project_id: str, labeller: str, new: NewLabel) -> Event:
        """Keep a label. When this returns, it is on the disk.

        A label of an image that the labeller has labelled already takes the earlier one's place; both stay on record.
        One that comes late, after a label that was given after it, is undone at once, on record too.

        Raises:
            NotInStore: if there is no such project, or no such image in it.
            LabelConflict: if the client's identifier was used for something else.
            LabelStoreError: if the label is no class, or a name is out of range.
        """
        return self.label_all(project_id, labeller, [new])[0]

    def label_all(self, project_id: str, labeller: str, new: Sequence[NewLabel]) -> tuple[Event, ...]:
        """Keep several labels of one labeller, all of them or none; see `label`."""
        return self.label_by_each(project_id, {labeller: new})

    def label_by_each(self, project_id: str, new: Mapping[str, Sequence[NewLabel]]) -> tuple[Event, ...]:
        """Keep labels of several labellers, by their names, all of them or none; see `label`."""

        def insert(connection: sa.Connection) -> tuple[Event, ...]:
            project = find_project(connection, project_id)
            ids = {labeller: labeller_id_of(connection, labeller) for labeller in new}
            return tuple(
                self._insert_label(connection, project, ids[labeller], labeller.strip(), one)
                for labeller, labels in new.items()
                for one in labels
            )

        return self._written(insert)

    def undo(self, project_id: str, labeller: str, event_id: int, *, client_id: str, tab: str = "") -> Event:
        """Take back a label of one's own; it stays on record, and an earlier label of the image holds again.

        The image is kept for the labeller, and is the next one that `tab` is handed. Undoing what is undone already
        changes nothing.

        Raises:
            NotInStore: if the project has no such label of this labeller.
            LabelConflict: if the client's identifier was used for something else.
        """
        check_client_id(client_id)

        def insert(connection: sa.Connection) -> Event:
            find_project(connection, project_id)
            labeller_id = labeller_id_of(connection, labeller)
            wanted = sa.select(events.c.image_id, events.c.queue).where(
                events.c.id == event_id,
                events.c.project_id == project_id,
                events.c.labeller_id == labeller_id,
                events.c.label.is_not(None),
            )
            label = connection.execute(wanted).one_or_none()
            if label is None:
                raise NotInStore(f"Expected a label of {labeller!r} to undo, but event {event_id} is none.")
            row = {
                "client_id": client_id,
                "project_id": project_id,
                "image_id": label.image_id,
                "labeller_id": labeller_id,
                "label": None,
                "undoes": event_id,
                "at_ms": self._now(),
                "seconds": None,
                "queue": None,
            }
            known = known_event(connection, row)
            if known is None:
                undone = connection.scalar(sa.select(events.c.id).where(events.c.undoes == event_id))
                known = None if undone is None else find_event(connection, undone, repeated=True)
            if known is None:
                back = {label.image_id: _Handed(TAKEN_BACK, label.queue)}
                self._reserve(connection, project_id, labeller_id, tab, back)
                known = append_event(connection, row)
            return known

        return self._written(insert)

    def history(self, project_id: str, labeller: str, count: int = 50) -> tuple[Event, ...]:
        """Return the labels of a labeller that hold, the latest first: to look back, and to know what to undo.

        Raises:
            NotInStore: if there is no such project.
        """
        with self._database.reading() as connection:
            find_project(connection, project_id)
            mine = (
                held_events()
                .where(labellers.c.name == labeller.strip())
                .order_by(None)
                .order_by(events.c.id.desc())
                .limit(count)
            )
            return tuple(event_record(row) for row in connection.execute(mine, {"project_id": project_id}))

    def labels(self, project_id: str) -> tuple[Event, ...]:
        """Return the labels that hold, of everybody, in the order in which they came.

        Raises:
            NotInStore: if there is no such project.
        """
        with self._database.reading() as connection:
            find_project(connection, project_id)
            return tuple(event_record(row) for row in connection.execute(held_events(), {"project_id": project_id}))

    def events(self, project_id: str) -> tuple[Event, ...]:
        """Return everything that was done in a project, in order.

        Raises:
            NotInStore: if there is no such project.
        """
        with self._database.reading() as connection:
            find_project(connection, project_id)
            query = select_events().where(events.c.project_id == project_id).order_by(events.c.id)
            return tuple(event_record(row) for row in connection.execute(query))

    def progress(self, project_id: str, labeller: str) -> Progress:
        """Return how far the project is, and this labeller in it.

        Raises:
            NotInStore: if there is no such project.
        """
        with self._database.reading() as connection:
            project = find_project(connection, project_id)
            name = labeller.strip()
            labeller_id = connection.scalar(sa.select(labellers.c.id).where(labellers.c.name == name))
            asked = {"project_id": project_id, "labeller_id": labeller_id, "wanted": project.labellers_per_image}
            done = connection.execute(totals(), asked).one()
            return Progress(
                images=project.images,
                finished=done.finished,
                labels=done.labels,
                missing=project.labellers_per_image * project.images - int(done.counted),
                mine=done.mine,
                left=connection.scalar(images_left(), asked) or 0,
                per_minute=pace(connection, project_id, labeller_id, self._now() - _PACE_MS),
            )

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _reserve(
        self, connection: sa.Connection, project_id: str, labeller_id: int, tab: str, handed: dict[str, "_Handed"]
    ) -> None:
        """Keep images for a tab from now on."""
        if len(tab) > 100:
            raise LabelStoreError(f"Expected a tab of at most 100 characters, but got {len(tab)}.")
        if not handed:
            return
        before = reservations.c.labeller_id == labeller_id, reservations.c.image_id.in_(handed)
        connection.execute(reservations.delete().where(*before))
        common = {
            "project_id": project_id,
            "labeller_id": labeller_id,
            "tab": tab,
            "expires_ms": self._now() + self._reserve_ms,
        }
        rows = [
            {"image_id": image_id, "granted_ms": one.since_ms, "queue": one.queue} | common
            for image_id, one in handed.items()
        ]
        connection.execute(reservations.insert(), rows)

    def _written(self, insert: Callable[[sa.Connection], _Written]) -> _Written:
        """Write, and once more if another process wrote the same identifier or name at the same moment."""
        try:
            with self._database.writing() as connection:
                return insert(connection)
        except LabelStoreError as error:
            if not isinstance(error.__cause__, sa.exc.IntegrityError):
                raise
            with self._database.writing() as connection:
                return insert(connection)

    def _insert_label(
        self, connection: sa.Connection, project: Project, labeller_id: int, labeller: str, new: NewLabel
    ) -> Event:
        check_label(new, project)
        inside = sa.select(images.c.id).where(images.c.id == new.image_id, images.c.project_id == project.id)
        if connection.scalar(inside) is None:
            raise no_image(new.image_id)
        row = {
            "client_id": new.client_id,
            "project_id": project.id,
            "image_id": new.image_id,
            "labeller_id": labeller_id,
            "label": new.label,
            "undoes": None,
            "at_ms": self._now() if new.given_ms is None else min(new.given_ms, self._now()),
            "seconds": new.seconds,
            "queue": new.queue,
        }
        known = known_event(connection, row)
        if known is not None:
            return known
        connection.execute(
            reservations.delete().where(
                reservations.c.image_id == new.image_id, reservations.c.labeller_id == labeller_id
            )
        )
        holds = connection.scalar(held_at(), row)
        event = append_event(connection, row)
        if holds is not None and holds > row["at_ms"]:
            undo = {"client_id": f"late-{uuid.uuid4()}", "label": None, "undoes": event.id}
            append_event(connection, row | undo | {"seconds": None, "queue": None})
        return event


@dataclass(frozen=True)
class _Handed:
    """An image that a tab has: since when, which is its order among them, and asked in which order."""

    since_ms: int
    queue: Queue | None
