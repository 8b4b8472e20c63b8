"""Which labels hold, and which image is asked next, as queries.

They are built once; what changes from call to call is a parameter: `project_id`, `labeller_id`, `wanted` (labels an
image), `tab`, `count`.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa

from failscape.labels.database import events, images, reservations
from failscape.labels.records import Queue
from failscape.labels.rows import select_events

TAKEN_BACK = 0
"""When an image was handed out that its labeller has taken back: before all others."""

_PROJECT = sa.bindparam("project_id", type_=sa.String)
_LABELLER = sa.bindparam("labeller_id", type_=sa.Integer)
_WANTED = sa.bindparam("wanted", type_=sa.Integer)
_TAB = sa.bindparam("tab", type_=sa.String)


@cache
def held_labels() -> sa.Subquery:
    """Return `event_id`, `image_id`, `labeller_id` of the labels that hold.

    Of each labeller and image that is the last label that was not undone.
    """
    undo = events.alias("undo")
    undone = sa.exists().where(undo.c.undoes == events.c.id)
    return (
        sa.select(sa.func.max(events.c.id).label("event_id"), events.c.image_id, events.c.labeller_id)
        .where(events.c.project_id == _PROJECT, events.c.label.is_not(None), ~undone)
        .group_by(events.c.image_id, events.c.labeller_id)
        .subquery("held")
    )


@cache
def totals() -> sa.Select[Any]:
    """Return how many images are `finished`, how many `labels` hold, and how many of them are `counted` and `mine`.

    Those of an image count up to the number that was asked for.
    """
    held = held_labels()
    by_image = sa.select(sa.func.count().label("n")).select_from(held).group_by(held.c.image_id).subquery()
    count = sa.select(sa.func.count())
    counted = sa.case((by_image.c.n < _WANTED, by_image.c.n), else_=_WANTED)
    return sa.select(
        count.select_from(by_image).where(by_image.c.n >= _WANTED).scalar_subquery().label("finished"),
        count.select_from(held).scalar_subquery().label("labels"),
        sa.select(sa.func.coalesce(sa.func.sum(counted), 0)).scalar_subquery().label("counted"),
        count.select_from(held).where(held.c.labeller_id == _LABELLER).scalar_subquery().label("mine"),
    )


@cache
def images_left() -> sa.Select[Any]:
    """Return how many images a labeller can still be asked, those that are with others just now among them."""
    return _open_images(sa.func.count(), source=images, taken=sa.literal(0))


@cache
def next_in_queue(queue: Queue) -> sa.Select[Any]:
    """Return the images to hand to a labeller, the next one first.

    First what this tab was handed before in this order or has taken back, with `granted_ms` and `granted_queue`; then
    what nobody has, or this tab in the other order; then what another tab of the same labeller was handed.
    """
    others = (
        sa.select(reservations.c.image_id, sa.func.count().label("n"))
        .where(reservations.c.project_id == _PROJECT, reservations.c.labeller_id != _LABELLER)
        .group_by(reservations.c.image_id)
        .subquery("others")
    )
    own = reservations.alias("own")
    source = images.outerjoin(others, others.c.image_id == images.c.id).outerjoin(
        own, (own.c.image_id == images.c.id) & (own.c.labeller_id == _LABELLER)
    )
    here = (own.c.tab == _TAB) & ((own.c.queue == queue) | (own.c.granted_ms == TAKEN_BACK))
    granted = sa.case((here, own.c.granted_ms)).label("granted_ms")
    granted_queue = sa.case((here, own.c.queue)).label("granted_queue")
    rank = images.c.priority.desc() if queue == "teaching" else images.c.lot
    return (
        _open_images(images, granted, granted_queue, source=source, taken=sa.func.coalesce(others.c.n, 0))
        .order_by(sa.case((here, 0), (own.c.tab != _TAB, 2), else_=1), granted, rank, images.c.position)
        .limit(sa.bindparam("count", type_=sa.Integer))
    )


def _open_images(*columns: Any, source: sa.FromClause, taken: sa.ColumnElement[int]) -> sa.Select[Any]:
    """Return the images without an answer of the labeller that need more labels than they have and as are `taken`."""
    held = held_labels()
    mine = sa.select(held.c.image_id).where(held.c.labeller_id == _LABELLER)
    counts = sa.select(held.c.image_id, sa.func.count().label("n")).group_by(held.c.image_id).subquery("counts")
    return (
        sa.select(*columns)
        .select_from(source.outerjoin(counts, counts.c.image_id == images.c.id))
        .where(
            images.c.project_id == _PROJECT,
            sa.func.coalesce(counts.c.n, 0) + taken < _WANTED,
            images.c.id.not_in(mine),
        )
    )


def held_at() -> sa.Select[Any]:
    """Return when the label that a labeller has given an image, and that holds, was given."""
    held = held_labels()
    return (
        sa.select(events.c.at_ms)
        .join(held, held.c.event_id == events.c.id)
        .where(events.c.image_id == sa.bindparam("image_id"), events.c.labeller_id == sa.bindparam("labeller_id"))
    )


def held_events() -> sa.Select[Any]:
    """Return the query of the labels that hold, with the names of their labellers, in the order in which they came."""
    return select_events().where(events.c.id.in_(sa.select(held_labels().c.event_id))).order_by(events.c.id)


def pace(connection: sa.Connection, project_id: str, labeller_id: int | None, since_ms: int) -> float | None:
    """Return a labeller's labels a minute since a moment, from the first to the last; None for fewer than two."""
    recent = sa.select(sa.func.count(), sa.func.min(events.c.at_ms), sa.func.max(events.c.at_ms)).where(
        events.c.project_id == project_id,
        events.c.labeller_id == labeller_id,
        events.c.label.is_not(None),
        events.c.at_ms > since_ms,
    )
    count, first, last = connection.execute(recent).one()
    return None if count < 2 or first == last else (count - 1) * 60_000 / (last - first)
