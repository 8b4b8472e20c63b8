"""Directions: walk along the style dimensions that cost the classifier most, and keep what one finds."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from failscape.web.directions import REACH, StartKind, View, Walk, count_kept, directions_of, influence_step, keep
from failscape.web.pictures import pictures
from failscape.web.runs import OpenRun
from failscape.web.site import Page, Site, TheRun, TheSite

router = APIRouter()

_MOST_MOVES = 50


class Move(BaseModel):
    """How far along which direction, in deviations."""

    model_config = ConfigDict(extra="forbid")

    direction: Annotated[int, Field(ge=0)]
    deviations: Annotated[float, Field(ge=-REACH, le=REACH)]


class Place(BaseModel):
    """Where one is: the start, and the moves from there."""

    model_config = ConfigDict(extra="forbid")

    kind: StartKind
    value: Annotated[str, Field(min_length=1, max_length=300)]
    moves: Annotated[list[Move], Field(max_length=_MOST_MOVES)]


@router.get("/directions")
def directions(site: TheSite, run: TheRun) -> HTMLResponse:
    """Show the sliders; the script asks for the first picture."""
    found = influence_step(run.read())
    if found is None:
        return site.render("directions.html", PAGE, run, directions=[], class_names=(), task={}, reach=REACH, kept=0)
    step, result = found
    judges = ["the classifier", *(["the oracle"] if step.record.get("oracle") else [])]
    task = {"address": f"/runs/{run.id}/directions", "classes": result.class_names, "judges": judges}
    return site.render(
        "directions.html",
        PAGE,
        run,
        directions=directions_of(result),
        class_names=result.class_names,
        task=task,
        reach=REACH,
        kept=count_kept(run.folder),
    )


@router.post("/directions/draw")
def draw(site: TheSite, run: TheRun, place: Place) -> dict[str, Any]:
    """Draw the picture of a place, and say what the classifier and the oracle see."""
    _, view = _view(site, run, place)
    return pictures(view.x, view.probs)[0] | {"label": view.y}


@router.post("/directions/keep")
def keep_place(site: TheSite, run: TheRun, place: Place) -> dict[str, Any]:
    """Keep the picture of a place as a corner case; what this answers is on the disk."""
    walk, view = _view(site, run, place)
    moved = {
        walk.directions[move.direction].id: {
            "deviations": move.deviations,
            "description": walk.directions[move.direction].description,
        }
        for move in place.moves
        if move.deviations
    }
    case = keep(view, walk, run.folder, {"start": {"kind": place.kind, "value": place.value}, "moved": moved})
    return {"id": case, "kept": count_kept(run.folder)}


def _view(site: Site, run: OpenRun, place: Place) -> tuple[Walk, View]:
    found = influence_step(run.read())
    if found is None:
        raise HTTPException(404, "Expected a run that measured the influence of styles, but this one did not.")
    walk = Walk(*found, site.networks)
    moves = {move.direction: move.deviations for move in place.moves}
    return walk, walk.view(walk.start(place.kind, place.value), moves)


PAGE = Page(name="directions", title="Directions", router=router)
