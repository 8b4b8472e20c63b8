"""Mistakes: every misclassified image of a step, and for each the way along the change that puts it right."""

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from failscape.explain import SympatheticResult
from failscape.figures import Gallery, png_bytes
from failscape.figures.files import symmetrical_scale
from failscape.report.drawings import data_uri
from failscape.report.gallery import view_gallery
from failscape.web.mistakes import Mistake, Order, Wanted, find_mistakes, on_the_way, sympathetic_steps, way_of_search
from failscape.web.runs import OpenRun
from failscape.web.site import Page, TheRun, TheSite

router = APIRouter()

_AT_ONCE = 120
_MOST_BARS = 8
_LEAST_BAR = 0.01
_WAY_WIDTH, _WAY_HEIGHT = 360, 150


def _blank_is_none(value: object) -> object:
    """Take an empty field of a form for no wish."""
    return None if value == "" else value


_Blank = BeforeValidator(_blank_is_none)
_Class = Annotated[Annotated[int, Field(ge=0)] | None, _Blank]
_Percent = Annotated[Annotated[float, Field(ge=0, le=100)] | None, _Blank]
_Length = Annotated[Annotated[float, Field(ge=0)] | None, _Blank]


class Asked(BaseModel):
    """What the form above the grid sends."""

    model_config = ConfigDict(extra="forbid")

    step: Annotated[int | None, _Blank] = None
    true: _Class = None
    predicted: _Class = None
    least: _Percent = None
    most: _Percent = None
    longest: _Length = None
    success: Annotated[bool | None, _Blank] = None
    order: Order = "given"
    falling: bool = False
    shown: Annotated[int, Field(ge=1, le=100_000)] = _AT_ONCE


@router.get("/mistakes")
def mistakes(site: TheSite, run: TheRun, request: Request, asked: Annotated[Asked, Query()]) -> HTMLResponse:
    """Show the mistakes that are wanted; where htmx asks, the grid alone."""
    steps = sympathetic_steps(run.read())
    number = next(iter(steps), None) if asked.step is None else asked.step
    if number not in steps:
        raise HTTPException(404, "Expected a step with sympathetic examples of mistakes, but this is none.")
    result = steps[number]
    every = find_mistakes(result)
    found = Wanted(**asked.model_dump(exclude={"step", "shown"})).choose(every)
    grid: dict[str, Any] = {
        "run": run,
        "number": number,
        "names": result.class_names,
        "found": found[: asked.shown],
        "count": len(found),
        "more": min(len(found), asked.shown + _AT_ONCE),
        "version": _version(run, number),
    }
    if request.headers.get("hx-request") == "true":
        return site.part("mistakes_grid.html", **grid)
    del grid["run"]
    titles = {each: run.read().steps[each - 1].title for each in steps}
    return site.render("mistakes.html", PAGE, run, asked=asked, titles=titles, every=every, **grid)


@router.get("/mistakes/{number}/{row}")
def mistake(site: TheSite, run: TheRun, number: int, row: int) -> HTMLResponse:
    """Show one mistake with its example."""
    result, found = _find(run, number, row)
    gallery = next(figure for figure in result.figures if isinstance(figure, Gallery))
    view = view_gallery(replace(gallery, cases=[result.case(row)]), "m")
    rows = [each.row for each in find_mistakes(result)]
    place = rows.index(row)
    shown = _shown_classes(result, row)
    way = way_of_search(result, row)
    return site.render(
        "mistake.html",
        PAGE,
        run,
        number=number,
        title=run.read().steps[number - 1].title,
        mistake=found,
        names=result.class_names,
        case=view.cases[0],
        gallery=view,
        shown=shown,
        before=result.probs_before[row].tolist(),
        way=_way_points(way.tolist()),
        way_size=(_WAY_WIDTH, _WAY_HEIGHT),
        farthest=float(way[:, 1].max()),
        pixelated=max(result.originals.shape[-2:]) < 128,
        previous=rows[place - 1] if place else None,
        following=rows[place + 1] if place + 1 < len(rows) else None,
        place=place + 1,
        count=len(rows),
        version=_version(run, number),
    )


@router.get("/mistakes/{number}/{row}/at")
def at(
    site: TheSite, run: TheRun, number: int, row: int, part: Annotated[float, Query(ge=0, le=1.5)]
) -> dict[str, Any]:
    """Give the image at a part of the way, its change, and its probabilities."""
    result, _ = _find(run, number, row)
    record = run.read().steps[number - 1].record
    classifier = site.networks.classifier(str(record["classifier"]))
    generator = site.networks.generator(str(record["generator"]))
    image, probs = on_the_way(result, row, part, classifier, generator)
    scale = symmetrical_scale(result.images[row] - result.originals[row])
    change = png_bytes(image - result.originals[row], signed=True, scale=scale)
    top = int(probs.argmax())
    return {
        "image": data_uri(png_bytes(image)),
        "change": data_uri(change),
        "probs": [round(float(p), 4) for p in probs],
        "says": f"{result.class_names[top]} ({100 * float(probs[top]):.1f} %)",
        "right": top == int(result.target[row]),
    }


@router.get("/mistakes/{number}/{row}/picture/{which}")
def picture(run: TheRun, number: int, row: int, which: Literal["original", "example"]) -> Response:
    """Give the pixels of a mistake, or of its example."""
    result, _ = _find(run, number, row)
    pixels = result.originals[row] if which == "original" else result.images[row]
    return Response(
        png_bytes(pixels), media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"}
    )


def _find(run: OpenRun, number: int, row: int) -> tuple[SympatheticResult, Mistake]:
    result = sympathetic_steps(run.read()).get(number)
    found = [] if result is None else [each for each in find_mistakes(result) if each.row == row]
    if result is None or not found:
        raise HTTPException(404, "Expected a mistake of this run, but there is none at this address.")
    return result, found[0]


def _version(run: OpenRun, number: int) -> str:
    """Return what changes when the step is run again, so that browsers ask for its pictures again."""
    return str(run.read().steps[number - 1].record.get("fingerprint", ""))[:12]


def _shown_classes(result: SympatheticResult, row: int) -> list[int]:
    """Return the classes that matter anywhere on the way, the most probable first, always that wanted."""
    largest = result.line[row].amax(dim=0)
    order = [k for k in largest.argsort(descending=True).tolist() if largest[k] >= _LEAST_BAR][:_MOST_BARS]
    wanted = int(result.target[row])
    return order if wanted in order else [*order, wanted]


def _way_points(way: list[list[float]]) -> list[tuple[float, float]]:
    """Lay the way of a search out in its drawing, one scale for both axes: start and end on the lower edge."""
    left = min(0.0, *(along for along, _ in way))
    right = max(1.0, *(along for along, _ in way))
    high = max(1e-9, *(off for _, off in way))
    scale = min(_WAY_WIDTH / (right - left), _WAY_HEIGHT / high)
    points = [((along - left) * scale, _WAY_HEIGHT - off * scale) for along, off in way]
    return [(round(x, 1), round(y, 1)) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _has_mistakes(run: OpenRun) -> bool:
    return bool(sympathetic_steps(run.read()))


PAGE = Page(name="mistakes", title="Mistakes", router=router, offered=_has_mistakes)
