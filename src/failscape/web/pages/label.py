"""Label: people say what images show, one image at a time.

This module holds the pages and the making of projects; `labelling` holds what the page's script asks for, `label_files`
what concerns everybody's labels.
"""

from typing import Annotated

import torch
from fastapi import APIRouter, Form, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from failscape.labels import NOT_ANY, NOT_ANY_NAME, Queue
from failscape.web.label_keys import label_keys
from failscape.web.label_sources import MOST_IMAGES, label_sources, make_task
from failscape.web.pages import label_files, labelling
from failscape.web.site import Page, TheRun, TheSite

router = APIRouter()
router.include_router(labelling.router)
router.include_router(label_files.router)


class NewProject(BaseModel):
    """What the form for a new project sends."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(max_length=40)]
    count: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    labellers: Annotated[int, Field(ge=1, le=20)]
    queue: Queue


@router.get("/label")
def projects(site: TheSite, run: TheRun) -> HTMLResponse:
    """Show the projects of a run, and the form for a new one."""
    store = site.label_store(run)
    found = [(project, store.progress(project.id, "")) for project in store.projects()]
    names = {project.name for project, _ in found}
    free = next(name for number in range(1, len(names) + 2) if (name := f"Labels {number}") not in names)
    return site.render(
        "label_projects.html",
        PAGE,
        run,
        projects=found,
        sources=label_sources(run.read()),
        free_name=free,
        most_images=MOST_IMAGES,
    )


@router.post("/label/projects")
def make_project(site: TheSite, run: TheRun, new: Annotated[NewProject, Form()]) -> Response:
    """Make a project of images of the run."""
    source = next((each for each in label_sources(run.read()) if each.key == new.source), None)
    if source is None:
        raise HTTPException(404, "Expected images of this run, but there are none of that name. Choose them again.")
    store = site.label_store(run)
    # Other images in each project, and the same ones whenever it is made again.
    rng = torch.Generator().manual_seed(len(store.projects()))
    task = make_task(source, site.networks, count=new.count, rng=rng)
    classifier = str(source.step.record["classifier"])
    project = store.create_project(
        new.name, task, classifier=classifier, labellers_per_image=new.labellers, queue=new.queue, rng=rng
    )
    return RedirectResponse(f"/runs/{run.id}/label/{project.id}", status_code=303)


@router.get("/label/{project_id}")
def label(site: TheSite, run: TheRun, project_id: str) -> HTMLResponse:
    """Show the page on which one labels."""
    project = site.label_store(run).project(project_id)
    keys = label_keys(project.class_names)
    answers = list(zip(range(len(keys)), project.class_names, keys, strict=True))
    # Where each class is called like its key, the key says it all.
    short = keys == tuple(name.lower() for name in project.class_names)
    task = {
        "address": f"/runs/{run.id}/label/{project.id}",
        "project": project.id,
        "classes": project.class_names,
        "keys": keys,
        "notAny": NOT_ANY,
        "notAnyName": NOT_ANY_NAME,
        "queue": project.queue,
    }
    return site.render(
        "label.html", PAGE, run, project=project, answers=answers, short=short, task=task, not_any=NOT_ANY
    )


PAGE = Page(name="label", title="Label", router=router)
