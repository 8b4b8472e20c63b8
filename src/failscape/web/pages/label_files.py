"""Everybody's labels of a project: how far people are and agree, exports, imports."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import UploadFile

from failscape.labels import Queue, compare_orders, export_labels, import_labels, measure_agreement
from failscape.labels.exports import ExportFormat
from failscape.web.download import download
from failscape.web.site import TheRun, TheSite

router = APIRouter()

_SUFFIXES = (".csv", ".json")
_ORDERS: dict[Queue, str] = {"teaching": "what teaches most first", "random": "random, the control"}
_EXPORTS: dict[ExportFormat, str] = {
    "zip": "Images on which people and the classifier differ, and their new labels (two zip files)",
    "folders": "A folder for each class",
    "csv": "Every label of everybody (CSV)",
    "parquet": "Parquet, as Hugging Face publishes images",
    "label-studio": "Label Studio",
    "fiftyone": "FiftyOne",
}


@dataclass(frozen=True)
class Upload:
    """A file of labels. Of the name that came with it only the kind is kept."""

    content: bytes
    suffix: str
    labeller: str


async def _upload(request: Request) -> Upload:
    async with request.form(max_files=1, max_fields=1) as form:
        file, labeller = form.get("file"), form.get("labeller", "")
        suffix = Path((file.filename or "") if isinstance(file, UploadFile) else "").suffix.lower()
        if not isinstance(file, UploadFile) or not isinstance(labeller, str) or suffix not in _SUFFIXES:
            raise HTTPException(422, "Expected a .csv file, or a .json file of Label Studio. Choose another.")
        return Upload(await file.read(), suffix, labeller)


@router.get("/label/{project_id}/everybody")
def everybody(site: TheSite, run: TheRun, project_id: str) -> HTMLResponse:
    """Show who has labelled how much, how far they agree, and what each order of asking brings."""
    store = site.label_store(run)
    project = store.project(project_id)
    held = store.labels(project.id)
    names = dict.fromkeys(label.labeller for label in held)
    return site.part(
        "label_everybody.html",
        project=project,
        progress=store.progress(project.id, ""),
        people=[(name, store.progress(project.id, name)) for name in names],
        agreement=measure_agreement(held),
        orders=compare_orders(held, store.images(project.id)),
        order_names=_ORDERS,
        exports=_EXPORTS,
        address=f"/runs/{run.id}/label/{project.id}",
    )


@router.get("/label/{project_id}/export/{kind}")
def export(site: TheSite, run: TheRun, project_id: str, kind: ExportFormat) -> Response:
    """Give the labels as a file for other programs; several files come as a zip of them."""
    store = site.label_store(run)
    return download(kind, lambda folder: export_labels(store, project_id, folder, kind=kind))


@router.post("/label/{project_id}/import")
def import_(site: TheSite, run: TheRun, project_id: str, sent: Annotated[Upload, Depends(_upload)]) -> HTMLResponse:
    """Take over labels from a file, all of them or none."""
    with tempfile.TemporaryDirectory(prefix="failscape-") as folder:
        copy = Path(folder) / f"upload{sent.suffix}"
        copy.write_bytes(sent.content)
        report = import_labels(site.label_store(run), project_id, copy, labeller=sent.labeller or None)
    return site.part("label_imported.html", report=report)
