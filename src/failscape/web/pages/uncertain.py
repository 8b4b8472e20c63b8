"""Uncertain: ask for a class and a confidence, and see what the classifier and the oracle make of the images."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from failscape.web.asking import askable, asked_of, draw_score, no_scores, score_name, score_space
from failscape.web.site import Page, TheRun, TheSite

router = APIRouter()

_MOST = 48


class ScoreAsked(BaseModel):
    """A class and a score, asked of the networks of a step."""

    model_config = ConfigDict(extra="forbid")

    networks: int
    label: Annotated[int, Field(ge=0)]
    score: Annotated[float, Field(ge=0, le=1)]
    count: Annotated[int, Field(ge=1, le=_MOST)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    search: bool


@router.get("/uncertain")
def uncertain(site: TheSite, run: TheRun) -> HTMLResponse:
    """Show the form, the range that each class supports, and which networks cannot be asked."""
    found, others = askable(run.read(), site.networks, no_scores)
    spaces = [score_space(each) for each in found]
    task = {
        "address": f"/runs/{run.id}/uncertain/draw",
        "networks": {
            each.number: {
                "score": score_name(space),
                "classes": each.classifier.class_names,
                "supported": space.supported,
                "search": each.classifier.differentiable,
            }
            for each, space in zip(found, spaces, strict=True)
        },
    }
    return site.render("uncertain.html", PAGE, run, found=found, others=others, task=task, most=_MOST)


@router.post("/uncertain/draw")
def draw(site: TheSite, run: TheRun, asked: ScoreAsked) -> dict[str, Any]:
    """Draw images of a class and a score."""
    networks = asked_of(run.read(), site.networks, asked.networks)
    x = draw_score(
        networks, label=asked.label, score=asked.score, count=asked.count, seed=asked.seed, search=asked.search
    )
    return networks.told(x) | {"label": asked.label}


PAGE = Page(name="uncertain", title="Uncertain", router=router)
