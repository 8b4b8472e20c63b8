"""Directions: walk along the style dimensions that cost the classifier most, and keep what one finds."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from failscape.errors import WeightsError
from failscape.figures import png_bytes
from failscape.report.drawings import data_uri
from failscape.web.directions import REACH, StartKind, View, Walk, directions_of, influence_step
from failscape.web.download import download
from failscape.web.kept import Kept, case_set, export, keep, picture, remove
from failscape.web.paging import cut
from failscape.web.pictures import pictures
from failscape.web.runs import OpenRun
from failscape.web.site import Page, Site, TheRun, TheSite

router = APIRouter()

_MOST_MOVES = 50
_KEPT_AT_ONCE = 24

_CaseId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


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
        return site.render(
            "directions.html", PAGE, run, directions=[], class_names=(), task={}, reach=REACH, **_cases(run, 1)
        )
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
        **_cases(run, 1),
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
    before = walk.view(walk.start(place.kind, place.value), {})
    kept, new = keep(view, before, walk, run.folder, start=place.kind, value=place.value, moves=_moves(place))
    return {"id": kept.id, "new": new, "kept": len(case_set(run.read()).kept)}


@router.get("/directions/kept")
def kept_cases(site: TheSite, run: TheRun, page: Annotated[int, Query(ge=1, le=1_000_000)] = 1) -> HTMLResponse:
    """Show what was kept, the latest first."""
    return site.part("kept.html", **_cases(run, page))


@router.delete("/directions/kept/{case_id}")
def remove_case(
    site: TheSite, run: TheRun, case_id: _CaseId, page: Annotated[int, Query(ge=1, le=1_000_000)] = 1
) -> HTMLResponse:
    """Remove one of what was kept, and show what is left."""
    remove(case_id, run.folder)
    return site.part("kept.html", **_cases(run, page))


@router.get("/directions/export/corner-cases")
def export_cases(run: TheRun) -> Response:
    """Give the run's corner cases, those kept and those that its steps found, as a data set for a test bench."""
    return download("corner-cases", lambda folder: export(case_set(run.read()), run.folder, folder))


def _cases(run: OpenRun, page: int) -> dict[str, Any]:
    """Return what the list of corner cases shows."""
    cases = case_set(run.read())
    part = cut(cases.kept[::-1], page, _KEPT_AT_ONCE)
    return {
        "cases": cases,
        "part": part,
        "shown": [(kept, _picture(kept, run)) for kept in part.items],
        "address": f"/runs/{run.id}/directions",
    }


def _picture(kept: Kept, run: OpenRun) -> str:
    """Return the picture of a case as a data URI, empty if its file is broken."""
    try:
        return data_uri(png_bytes(picture(kept, run.folder)))
    except WeightsError:
        return ""


def _moves(place: Place) -> dict[int, float]:
    return {move.direction: move.deviations for move in place.moves}


def _view(site: Site, run: OpenRun, place: Place) -> tuple[Walk, View]:
    found = influence_step(run.read())
    if found is None:
        raise HTTPException(404, "Expected a run that measured the influence of styles, but this one did not.")
    walk = Walk(*found, site.networks)
    return walk, walk.view(walk.start(place.kind, place.value), _moves(place))


PAGE = Page(name="directions", title="Directions", router=router)
