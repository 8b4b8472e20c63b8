"""Compare: two or more classifiers on the same images, side by side, and where they differ."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from failscape.web.comparing import MOST_CLASSIFIERS, compare, image_choices, named_classifiers, short_names
from failscape.web.site import Page, Site, TheRun, TheSite

router = APIRouter()

_MOST_IMAGES = 2000
_SHOWN = 60


class CompareAsked(BaseModel):
    """Which classifiers, by their place in the list, on which images."""

    model_config = ConfigDict(extra="forbid")

    classifiers: Annotated[list[int], Field(min_length=2, max_length=MOST_CLASSIFIERS)]
    images: Annotated[str, Field(max_length=40)]
    count: Annotated[int, Field(ge=1, le=_MOST_IMAGES)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    differing: bool


@router.get("/compare")
def comparison(site: TheSite, run: TheRun) -> HTMLResponse:
    """Show the form."""
    specs = _specs(site)
    task = {"address": f"/runs/{run.id}/compare/verdicts"}
    return site.render(
        "compare.html",
        PAGE,
        run,
        classifiers=short_names(specs),
        images=image_choices(run.read()),
        task=task,
        most=_MOST_IMAGES,
    )


@router.post("/compare/verdicts")
def verdicts(site: TheSite, run: TheRun, asked: CompareAsked) -> dict[str, Any]:
    """Ask the classifiers, and say where they differ."""
    specs = _specs(site)
    choice = next((each for each in image_choices(run.read()) if each.key == asked.images), None)
    places = list(dict.fromkeys(asked.classifiers))
    if choice is None or len(places) < 2 or not all(0 <= place < len(specs) for place in places):
        raise HTTPException(404, "Expected two classifiers and images of this run, but got others. Choose them again.")
    chosen = [specs[place] for place in places]
    return compare(
        choice,
        chosen,
        site.networks,
        count=asked.count,
        seed=asked.seed,
        differing=asked.differing,
        most=_SHOWN,
    )


def _specs(site: Site) -> list[str]:
    return named_classifiers(run.read() for run in site.runs.values())


PAGE = Page(name="compare", title="Compare", router=router)
