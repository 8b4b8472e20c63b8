"""Rows on their way into the database: checked, and written."""

import math
import re
import uuid
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch

from failscape.errors import LabelConflict, LabelStoreError
from failscape.figures import png_bytes
from failscape.labels.database import events, images, labellers, pixels
from failscape.labels.records import NOT_ANY, QUEUES, Event, NewLabel, Project
from failscape.labels.rows import find_event, packed
from failscape.labels.task import LabelTask

_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{8,100}")
_ROWS_AT_ONCE = 500
LONGEST_LABELLER = 100


def insert_images(
    connection: sa.Connection, project_id: str, first: int, task: LabelTask, rng: torch.Generator
) -> None:
    """Store images behind the `first` ones; `rng` draws their random order."""
    lots = torch.rand(len(task), generator=rng, dtype=torch.float64).tolist()
    for rows in np.array_split(np.arange(len(task)), math.ceil(len(task) / _ROWS_AT_ONCE)):
        new = [
            {
                "id": uuid.uuid4().hex,
                "project_id": project_id,
                "position": first + row,
                "name": task.names[row],
                "origin": task.origins[row],
                "source": task.sources[row],
                "probs": packed(task.probs[row]),
                "oracle_probs": None if task.oracle_probs is None else packed(task.oracle_probs[row]),
                "priority": task.priority[row].item(),
                "lot": lots[row],
            }
            for row in rows.tolist()
        ]
        connection.execute(images.insert(), new)
        pngs = [png_bytes(task.images[row] / 255) for row in rows.tolist()]
        connection.execute(
            pixels.insert(), [{"image_id": one["id"], "png": png} for one, png in zip(new, pngs, strict=True)]
        )


def labeller_id_of(connection: sa.Connection, name: str) -> int:
    """Return the number of a labeller, who is new if the name is.

    Raises:
        LabelStoreError: if the name is too long or empty.
    """
    name = checked_name(name, "labeller", LONGEST_LABELLER)
    found = connection.scalar(sa.select(labellers.c.id).where(labellers.c.name == name))
    return _inserted(connection, labellers.insert().values(name=name)) if found is None else found


def append_event(connection: sa.Connection, row: dict[str, Any]) -> Event:
    """Write an event and return it."""
    return find_event(connection, _inserted(connection, events.insert().values(row)))


def known_event(connection: sa.Connection, row: dict[str, Any]) -> Event | None:
    """Return the event that the client sent before under the same identifier.

    Raises:
        LabelConflict: if that says something else.
    """
    found = connection.execute(sa.select(events).where(events.c.client_id == row["client_id"])).one_or_none()
    if found is None:
        return None
    same = ("project_id", "image_id", "labeller_id", "label", "undoes")
    if any(getattr(found, key) != row[key] for key in same):
        raise LabelConflict(
            f"Expected a new identifier for a new event, but {row['client_id']!r} was used for another one. Draw "
            "a UUID for each."
        )
    return find_event(connection, found.id, repeated=True)


def check_label(new: NewLabel, project: Project) -> None:
    """Refuse a label that cannot be one.

    Raises:
        LabelStoreError: if it is no class, or its identifier, order or seconds are out of range.
    """
    check_client_id(new.client_id)
    if new.label != NOT_ANY and not 0 <= new.label < len(project.class_names):
        raise LabelStoreError(
            f"Expected a label from 0 to {len(project.class_names) - 1}, or {NOT_ANY} for none of them, but got "
            f"{new.label}."
        )
    if new.seconds is not None and not (math.isfinite(new.seconds) and new.seconds >= 0):
        raise LabelStoreError(f"Expected seconds of at least 0, but got {new.seconds}.")
    if new.queue is not None and new.queue not in QUEUES:
        raise LabelStoreError(f"Expected an order of {' or '.join(QUEUES)}, or None, but got {new.queue!r}.")
    if new.given_ms is not None and new.given_ms < 0:
        raise LabelStoreError(f"Expected a time since 1970, but got {new.given_ms} ms.")


def check_client_id(client_id: str) -> None:
    """Refuse an identifier that is too short to be unique or too long to be kept.

    Raises:
        LabelStoreError: saying which are taken.
    """
    if not _CLIENT_ID.fullmatch(client_id):
        raise LabelStoreError(
            f"Expected an identifier of 8 to 100 letters, digits and '_.:-', but got {client_id[:100]!r}. Use a UUID."
        )


def checked_name(name: str, whose: str, longest: int) -> str:
    """Return a name without blanks around it.

    Raises:
        LabelStoreError: if it is empty, too long, or holds what cannot be shown.
    """
    name = name.strip()
    if not 1 <= len(name) <= longest or not name.isprintable():
        raise LabelStoreError(
            f"Expected the name of a {whose} of 1 to {longest} printable characters, but got {name[:longest]!r}."
        )
    return name


def _inserted(connection: sa.Connection, insert: sa.Insert) -> int:
    key = connection.execute(insert).inserted_primary_key
    assert key is not None, "one row was inserted"
    return int(key[0])
