"""What the script of the label page asks for: images, labels kept and taken back, how far it is."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from failscape.labels import Event as LabelEvent
from failscape.labels import LabelImage, LabelStore, NewLabel, Queue
from failscape.web.site import TheRun, TheSite

router = APIRouter()

_MOST_AHEAD = 50
_MOST_LABELS = 200
_MOST_HISTORY = 500
# What a database takes for the number of an event, and dates hold as milliseconds: until the year 9999.
_LARGEST_NUMBER = 2**63 - 1
_LATEST_MS = 253_402_300_799_999

_Labeller = Annotated[str, Field(min_length=1, max_length=100)]
_Opaque = Annotated[str, Field(min_length=1, max_length=100)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    labeller: _Labeller
    tab: Annotated[str, Field(max_length=100)]


class NextAsked(_Asked):
    """Who wants how many images."""

    count: Annotated[int, Field(ge=1, le=_MOST_AHEAD)]
    queue: Queue


class SentLabel(BaseModel):
    """A label as the script sends it."""

    model_config = ConfigDict(extra="forbid")

    image_id: _Opaque
    label: int
    client_id: _Opaque
    seconds: Annotated[float | None, Field(ge=0, le=86_400)] = None
    given_ms: Annotated[int | None, Field(ge=0, le=_LATEST_MS)] = None
    queue: Queue | None = None


class LabelsSent(_Asked):
    """Labels of one labeller."""

    labels: Annotated[list[SentLabel], Field(min_length=1, max_length=_MOST_LABELS)]


class UndoSent(_Asked):
    """A label to be taken back."""

    event_id: Annotated[int, Field(ge=1, le=_LARGEST_NUMBER)]
    client_id: _Opaque


@router.get("/label/images/{image_id}")
def picture(site: TheSite, run: TheRun, image_id: str) -> Response:
    """Give the pixels of an image. They never change."""
    png = site.label_store(run).png(image_id)
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"})


@router.post("/label/{project_id}/next")
def next_images(site: TheSite, run: TheRun, project_id: str, asked: NextAsked) -> dict[str, Any]:
    """Hand out the next images."""
    store = site.label_store(run)
    images = store.next_images(project_id, asked.labeller, asked.count, queue=asked.queue, tab=asked.tab)
    return {"images": [_image(image) for image in images], "progress": _progress(store, project_id, asked.labeller)}


@router.post("/label/{project_id}/labels")
def keep(site: TheSite, run: TheRun, project_id: str, sent: LabelsSent) -> dict[str, Any]:
    """Keep labels; what this answers is on the disk."""
    store = site.label_store(run)
    new = [NewLabel(**each.model_dump()) for each in sent.labels]
    events = store.label_all(project_id, sent.labeller, new)
    return {"events": [_event(event) for event in events], "progress": _progress(store, project_id, sent.labeller)}


@router.post("/label/{project_id}/undo")
def undo(site: TheSite, run: TheRun, project_id: str, sent: UndoSent) -> dict[str, Any]:
    """Take a label back."""
    store = site.label_store(run)
    event = store.undo(project_id, sent.labeller, sent.event_id, client_id=sent.client_id, tab=sent.tab)
    return {"events": [_event(event)], "progress": _progress(store, project_id, sent.labeller)}


@router.get("/label/{project_id}/history")
def history(
    site: TheSite, run: TheRun, project_id: str, labeller: Annotated[str, Query(min_length=1, max_length=100)]
) -> dict[str, Any]:
    """Give the labels of a labeller that hold, the latest last, with their images."""
    store = site.label_store(run)
    events = store.history(project_id, labeller, _MOST_HISTORY)[::-1]
    images = {image.id: image for image in store.images(project_id)}
    labels = [_event(event) | {"image": _image(images[event.image_id]) | {"queue": event.queue}} for event in events]
    return {"labels": labels, "progress": _progress(store, project_id, labeller)}


def _image(image: LabelImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "prediction": image.prediction,
        "confidence": round(image.confidence, 4),
        "oracle": image.oracle_prediction,
        "queue": image.queue,
    }


def _event(event: LabelEvent) -> dict[str, Any]:
    return {"id": event.id, "client_id": event.client_id, "image_id": event.image_id, "label": event.label}


def _progress(store: LabelStore, project_id: str, labeller: str) -> dict[str, Any]:
    return asdict(store.progress(project_id, labeller))
