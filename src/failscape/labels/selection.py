"""Which labels hold, and which image is asked next, as queries."""

from typing import Any

import sqlalchemy as sa

from failscape.labels.database import events, images, reservations
from failscape.labels.records import Project, Queue


def held_labels(project_id: str) -> sa.Subquery:
    """Return `event_id`, `image_id`, `labeller_id` of the labels that hold.

    Of each labeller and image that is the last label that was not undone.
    """
    undo = events.alias("undo")
    undone = sa.exists().where(undo.c.undoes == events.c.id)
    return (
        sa.select(sa.func.max(events.c.id).label("event_id"), events.c.image_id, events.c.labeller_id)
        .where(events.c.project_id == project_id, events.c.label.is_not(None), ~undone)
        .group_by(events.c.image_id, events.c.labeller_id)
        .subquery("held")
    )


def open_images(project: Project, labeller_id: int | None, *, taken: sa.Subquery | None = None) -> sa.Select[Any]:
    """Return the images that a labeller can be asked: not answered by them, and in need of more labels.

    Args:
        project: the project.
        labeller_id: None for one who has never labelled.
        taken: `image_id` and `n` of images that `n` others were handed lately.
    """
    held = held_labels(project.id)
    mine = sa.select(held.c.image_id).where(held.c.labeller_id == labeller_id)
    counts = sa.select(held.c.image_id, sa.func.count().label("n")).group_by(held.c.image_id).subquery("counts")
    given: sa.ColumnElement[int] = sa.func.coalesce(counts.c.n, 0)
    source = images.outerjoin(counts, counts.c.image_id == images.c.id)
    if taken is not None:
        source = source.outerjoin(taken, taken.c.image_id == images.c.id)
        given = given + sa.func.coalesce(taken.c.n, 0)
    return (
        sa.select(images)
        .select_from(source)
        .where(images.c.project_id == project.id, given < project.labellers_per_image, images.c.id.not_in(mine))
    )


def next_in_queue(project: Project, labeller_id: int, tab: str, queue: Queue) -> sa.Select[Any]:
    """Return the images to hand to a labeller, the next one first, with `granted_ms` where they hold it already.

    First what this tab was handed before, then what nobody has, then what another tab of the same labeller was handed.
    """
    others = (
        sa.select(reservations.c.image_id, sa.func.count().label("n"))
        .where(reservations.c.project_id == project.id, reservations.c.labeller_id != labeller_id)
        .group_by(reservations.c.image_id)
        .subquery("others")
    )
    own = reservations.alias("own")
    here, elsewhere = own.c.tab == tab, own.c.tab != tab
    granted = sa.case((here, own.c.granted_ms)).label("granted_ms")
    rank = images.c.priority.desc() if queue == "teaching" else images.c.lot
    query = open_images(project, labeller_id, taken=others)
    held_by_me = (own.c.image_id == images.c.id) & (own.c.labeller_id == labeller_id)
    return (
        query.join_from(images, own, held_by_me, isouter=True)
        .add_columns(granted)
        .order_by(sa.case((here, 0), (elsewhere, 2), else_=1), granted, rank, images.c.position)
    )
