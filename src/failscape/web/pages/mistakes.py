"""Mistakes: every misclassified image of a run, and for each the way along the change that puts it right."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import torch
from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from failscape.errors import FailscapeError
from failscape.explain import SympatheticResult
from failscape.figures import Gallery, png_bytes
from failscape.figures.files import symmetrical_scale
from failscape.report.drawings import data_uri
from failscape.report.gallery import view_gallery
from failscape.web.comparing import short_names
from failscape.web.examples import recipe_for
from failscape.web.mistakes import (
    Mistake,
    Mistakes,
    MistakeStep,
    Order,
    Success,
    Wanted,
    mistake_steps,
    on_the_way,
    place_of,
    way_of_search,
)
from failscape.web.paging import cut
from failscape.web.pictures import eight_bit
from failscape.web.runs import OpenRun
from failscape.web.site import Page, Site, TheRun, TheSite

router = APIRouter()

_AT_ONCE = 120
# Seconds that the page waits until all images are classified, before it is shown with what is known by then.
_PATIENCE = 3.0
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
    success: Annotated[Success | None, _Blank] = None
    order: Order = "given"
    falling: bool = False
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


@dataclass(frozen=True, kw_only=True)
class _Example:
    """A row of a result, and the spec of the generator that drew it."""

    result: SympatheticResult
    row: int
    drawn_with: str


@router.get("/mistakes")
def mistakes(site: TheSite, run: TheRun, request: Request, asked: Annotated[Asked, Query()]) -> HTMLResponse:
    """Show the mistakes that are wanted; where htmx asks, the grid alone."""
    steps = site.mistakes.steps(run)
    number = next(iter(steps), None) if asked.step is None else asked.step
    if number not in steps:
        raise HTTPException(404, "Expected a step whose classifier makes mistakes on known images, but this is none.")
    step = steps[number]
    part_alone = request.headers.get("hx-request") == "true"
    known = site.mistakes.of(run, step, patience=_PATIENCE, again=not part_alone)
    found = Wanted(**asked.model_dump(exclude={"step", "page"})).choose(known.every)
    part = cut(found, asked.page, _AT_ONCE)
    wishes = asked.model_dump(exclude={"step", "page"}, exclude_defaults=True, exclude_none=True)
    query = urlencode({"step": number} | {key: str(value).lower() for key, value in wishes.items()})
    grid: dict[str, Any] = {
        "run": run,
        "number": number,
        "names": known.class_names,
        "part": part,
        "address": f"/runs/{run.id}/mistakes?{query}",
        "version": _version(step, known),
    }
    if part_alone:
        return site.part("mistakes_grid.html", **grid)
    del grid["run"]
    titles = {each.number: _title(each) for each in steps.values()}
    return site.render("mistakes.html", PAGE, run, asked=asked, titles=titles, **_state(site, run, step, known), **grid)


@router.get("/mistakes/{number}/progress")
def progress(site: TheSite, run: TheRun, number: int) -> HTMLResponse:
    """Say how many of a step's images have been classified."""
    step = _step(site, run, number)
    state = _state(site, run, step, site.mistakes.of(run, step), later=True)
    return site.part("mistakes_known.html", run=run, number=number, **state)


@router.get("/mistakes/{number}/{key}")
def mistake(site: TheSite, run: TheRun, number: int, key: str) -> HTMLResponse:
    """Show one mistake: with its example, or with what can be done to get one."""
    step, known, found = _find(site, run, number, key)
    place = next(i for i, each in enumerate(known.every) if each.key == key)
    shared: dict[str, Any] = {
        "number": number,
        "title": step.step.title,
        "mistake": found,
        "names": known.class_names,
        "previous": known.every[place - 1].key if place else None,
        "following": known.every[place + 1].key if place + 1 < len(known.every) else None,
        "place": place + 1,
        "count": len(known.every),
        "version": _version(step, known),
    }
    example = _example(site, run, step, found)
    if example is None:
        return _render_alone(site, run, step, known, found, shared)
    result, row = example.result, example.row
    gallery = next(figure for figure in result.figures if isinstance(figure, Gallery))
    view = view_gallery(replace(gallery, cases=[result.case(row)]), "m")
    way = way_of_search(result, row)
    return site.render(
        "mistake.html",
        PAGE,
        run,
        made=found.example is None,
        case=view.cases[0],
        gallery=view,
        shown=_shown_classes(result.line[row].amax(dim=0), int(result.target[row])),
        before=result.probs_before[row].tolist(),
        way=_way_points(way.tolist()),
        way_size=(_WAY_WIDTH, _WAY_HEIGHT),
        farthest=float(way[:, 1].max()),
        pixelated=max(result.originals.shape[-2:]) < 128,
        **shared,
    )


@router.post("/mistakes/{number}/{key}/example")
def make(
    site: TheSite, run: TheRun, number: int, key: str, make: Annotated[Literal["example"], Form()]
) -> RedirectResponse:
    """Search for the example of a mistake that has none, and show it."""
    step, known, found = _find(site, run, number, key)
    if _example(site, run, step, found) is None:
        recipe = recipe_for(run.read(), number, site.networks)
        site.mistakes.examples.make(
            recipe, _pixels(known, found), found.true, found.id, place=place_of(run, step), key=key
        )
    return RedirectResponse(f"/runs/{run.id}/mistakes/{number}/{key}", status_code=303)


@router.get("/mistakes/{number}/{key}/at")
def at(
    site: TheSite, run: TheRun, number: int, key: str, part: Annotated[float, Query(ge=0, le=1.5)]
) -> dict[str, Any]:
    """Give the image at a part of the way, its change, and its probabilities."""
    step, _, found = _find(site, run, number, key)
    example = _require_example(site, run, step, found)
    result, row = example.result, example.row
    classifier = site.networks.classifier(str(step.step.record["classifier"]))
    generator = site.networks.generator(example.drawn_with)
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


@router.get("/mistakes/{number}/{key}/picture/{which}")
def picture(site: TheSite, run: TheRun, number: int, key: str, which: Literal["original", "example"]) -> Response:
    """Give the pixels of a mistake, or of its example."""
    step, known, found = _find(site, run, number, key)
    if which == "original" and found.example is None:
        pixels = _pixels(known, found)[0]
    else:
        example = _require_example(site, run, step, found)
        pixels = (example.result.originals if which == "original" else example.result.images)[example.row]
    return Response(
        png_bytes(pixels), media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"}
    )


def _render_alone(
    site: Site, run: OpenRun, step: MistakeStep, known: Mistakes, found: Mistake, shared: dict[str, Any]
) -> HTMLResponse:
    """Show a mistake without an example."""
    x = _pixels(known, found)
    probs = site.networks.classifier(str(step.step.record["classifier"])).probs(x)[0]
    recipe, hindrance = None, ""
    try:
        recipe = recipe_for(run.read(), step.number, site.networks)
    except FailscapeError as error:
        hindrance = str(error)
    return site.render(
        "mistake_alone.html",
        PAGE,
        run,
        drawn_with="" if recipe is None else short_names([recipe.drawn_with])[0],
        hindrance=hindrance,
        explained=step.result is not None,
        shown=_shown_classes(probs, found.true),
        before=probs.tolist(),
        pixelated=max(x.shape[-2:]) < 128,
        **shared,
    )


def _state(site: Site, run: OpenRun, step: MistakeStep, known: Mistakes, *, later: bool = False) -> dict[str, Any]:
    """Return what a page says of the whole, or says later on: how much is known, and how many have an example."""
    judged = known.judged
    hindrance = ""
    if any(each.success is None for each in known.every):
        try:
            recipe_for(run.read(), step.number, site.networks)
        except FailscapeError as error:
            hindrance = str(error)
    images = None if judged is None else judged.images
    return {
        "known": known,
        "later": later,
        "count": len(known.every),
        "searched": sum(each.success is not None for each in known.every),
        "found": sum(each.success is True for each in known.every),
        "total": None if images is None else len(images),
        "images_name": short_names([str(step.step.record["images"])])[0],
        "classifier_name": short_names([str(step.step.record["classifier"])])[0],
        "problem": "The run does not say which images they were." if judged is None else judged.problem,
        "pending": judged is not None and not judged.ended,
        "hindrance": hindrance,
    }


def _step(site: Site, run: OpenRun, number: int) -> MistakeStep:
    step = site.mistakes.steps(run).get(number)
    if step is None:
        raise HTTPException(404, "Expected a mistake of this run, but there is none at this address.")
    return step


def _find(site: Site, run: OpenRun, number: int, key: str) -> tuple[MistakeStep, Mistakes, Mistake]:
    step = _step(site, run, number)
    known = site.mistakes.of(run, step)
    if key not in known.by_key:
        # An address that was kept is opened before all images have been classified.
        known = site.mistakes.of(run, step, patience=_PATIENCE)
    found = known.by_key.get(key)
    if found is None:
        raise HTTPException(404, "Expected a mistake of this run, but there is none at this address.")
    return step, known, found


def _example(site: Site, run: OpenRun, step: MistakeStep, found: Mistake) -> _Example | None:
    """Return the example of a mistake, of the step or made since; None if it has none."""
    if found.example is not None:
        assert step.result is not None
        return _Example(result=step.result, row=found.example, drawn_with=str(step.step.record["generator"]))
    made = site.mistakes.examples.made(place_of(run, step)).get(found.key)
    return None if made is None else _Example(result=made.result, row=0, drawn_with=made.drawn_with)


def _require_example(site: Site, run: OpenRun, step: MistakeStep, found: Mistake) -> _Example:
    example = _example(site, run, step, found)
    if example is None:
        raise HTTPException(404, "Expected a mistake with an example, but this one has none. Load its page again.")
    return example


def _pixels(known: Mistakes, found: Mistake) -> torch.Tensor:
    assert known.judged is not None
    assert known.judged.images is not None
    assert found.row is not None, "what has no row has an example"
    return eight_bit(known.judged.images.read(torch.tensor([found.row])))


def _title(step: MistakeStep) -> str:
    return step.step.title if step.result is not None else f"{step.step.title} (no examples)"


def _version(step: MistakeStep, known: Mistakes) -> str:
    """Return what changes when step or images are read again, so that browsers ask for the pictures again."""
    loaded = "" if known.judged is None else known.judged.version
    return f"{str(step.step.record.get('fingerprint', ''))[:12]}{loaded}"


def _shown_classes(largest: torch.Tensor, wanted: int) -> list[int]:
    """Return the classes that matter by their largest probabilities, the most probable first, always that wanted."""
    order = [k for k in largest.argsort(descending=True).tolist() if largest[k] >= _LEAST_BAR][:_MOST_BARS]
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
    return bool(mistake_steps(run.read()))


PAGE = Page(name="mistakes", title="Mistakes", router=router, offered=_has_mistakes)
