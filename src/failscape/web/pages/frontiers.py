"""Frontiers: ask for a distribution over the classes, and get images of which the classifier says just that."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from failscape.web.asking import askable, asked_of
from failscape.web.site import Page, TheRun, TheSite
from failscape.web.targets import draw_target, no_frontiers

router = APIRouter()

_MOST = 32


class TargetAsked(BaseModel):
    """A target, asked of the networks of a step."""

    model_config = ConfigDict(extra="forbid")

    networks: int
    shares: Annotated[list[Annotated[float, Field(ge=0, le=1e6)]], Field(max_length=5000)]
    count: Annotated[int, Field(ge=1, le=_MOST)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    tolerance: Annotated[float, Field(ge=0.001, le=0.5)]


@router.get("/frontiers")
def frontiers(site: TheSite, run: TheRun) -> HTMLResponse:
    """Show the form, and which networks cannot be asked."""
    found, others = askable(run.read(), site.networks, no_frontiers)
    task = {
        "address": f"/runs/{run.id}/frontiers/draw",
        "networks": {each.number: {"classes": each.classifier.class_names} for each in found},
    }
    return site.render("frontiers.html", PAGE, run, found=found, others=others, task=task, most=_MOST)


@router.post("/frontiers/draw")
def draw(site: TheSite, run: TheRun, asked: TargetAsked) -> dict[str, Any]:
    """Search for images of a target."""
    networks = asked_of(run.read(), site.networks, asked.networks)
    if len(asked.shares) != networks.classifier.num_classes or sum(share > 0 for share in asked.shares) < 2:
        raise HTTPException(
            422,
            f"Expected a share for each of {networks.classifier.num_classes} classes, at least two of them above 0, "
            f"but got {sum(share > 0 for share in asked.shares)}. Give two classes a share.",
        )
    return draw_target(networks, shares=asked.shares, count=asked.count, seed=asked.seed, tolerance=asked.tolerance)


PAGE = Page(name="frontiers", title="Frontiers", router=router)
