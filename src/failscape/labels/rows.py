"""Rows of the database as records, and what is read at more than one place."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from torch import Tensor

from failscape.errors import NotInStore
from failscape.labels.database import events, images, labellers, projects
from failscape.labels.records import Event, LabelImage, Project, Queue


def find_project(connection: sa.Connection, project_id: str, *, lock: bool = False) -> Project:
    """Return a project; `lock` keeps other locking transactions waiting.

    Raises:
        NotInStore: if there is none.
    """
    query = sa.select(projects).where(projects.c.id == project_id)
    # Labels refer to the row and may go on meanwhile. On SQLite writers wait for each other anyway.
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    if row is None:
        raise NotInStore(f"Expected a labelling project, but there is none called {project_id[:64]!r}.")
    count = sa.select(sa.func.count()).select_from(images).where(images.c.project_id == project_id)
    return Project(
        id=row.id,
        name=row.name,
        class_names=tuple(row.class_names),
        classifier=row.classifier,
        labellers_per_image=row.labellers_per_image,
        queue=row.queue,
        images=connection.scalar(count) or 0,
        created=_datetime(row.created_ms),
    )


def select_events() -> sa.Select[Any]:
    """Return the query of all events with the names of their labellers."""
    return sa.select(events, labellers.c.name.label("labeller")).join(labellers)


def find_event(connection: sa.Connection, event_id: int, *, repeated: bool = False) -> Event:
    """Return an event that is there."""
    return event_record(connection.execute(select_events().where(events.c.id == event_id)).one(), repeated=repeated)


def image_record(row: Any, *, queue: Queue | None = None) -> LabelImage:
    """Return a row of `images` as a record; `queue` says in which order it is asked."""
    return LabelImage(
        id=row.id,
        name=row.name,
        origin=row.origin,
        source=row.source,
        probs=_unpacked(row.probs),
        oracle_probs=None if row.oracle_probs is None else _unpacked(row.oracle_probs),
        priority=row.priority,
        queue=queue,
    )


def event_record(row: Any, *, repeated: bool = False) -> Event:
    """Return a row of `select_events` as a record."""
    return Event(
        id=row.id,
        client_id=row.client_id,
        image_id=row.image_id,
        labeller=row.labeller,
        label=row.label,
        undoes=row.undoes,
        time=_datetime(row.at_ms),
        seconds=row.seconds,
        queue=row.queue,
        repeated=repeated,
    )


def no_image(image_id: str) -> NotInStore:
    """Return the error for an image that is not there."""
    return NotInStore(f"Expected the id of an image, but there is none called {image_id[:64]!r}.")


def packed(probs: Tensor) -> bytes:
    """Return probabilities as little-endian float32."""
    return probs.numpy().astype("<f4").tobytes()


def _unpacked(content: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(content, "<f4").tolist())


def _datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
