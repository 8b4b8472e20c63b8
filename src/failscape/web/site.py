"""What all pages share: the runs, their labels and networks, and how a page is put together."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse

from failscape.labels import LabelStore
from failscape.report.templating import template_environment
from failscape.web.mistakes import MistakeBook
from failscape.web.networks import Networks
from failscape.web.runs import OpenRun

if TYPE_CHECKING:
    from collections.abc import Callable


def _always(run: OpenRun) -> bool:
    return True


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of a run, as the navigation knows it.

    Attributes:
        name: what its address ends in: `/runs/RUN/NAME`.
        title: in the navigation.
        router: answers below `/runs/RUN`; it has at least `/NAME`.
        offered: whether a run has something for it.
    """

    name: str
    title: str
    router: APIRouter
    offered: "Callable[[OpenRun], bool]" = field(default=_always)


@final
class Site:
    """The runs that are served, and what they share.

    Args:
        runs: run folders; the first is opened first.
        pages: in the order of the navigation.
        labels: the URL of a database of labels; by default each run keeps its own.
        allow_code: let python:FILE.py:FUNCTION specs run their file.

    Raises:
        StorageError: if a run folder does not exist.
    """

    def __init__(
        self, runs: Sequence[Path], pages: Sequence[Page], *, labels: str | None = None, allow_code: bool = False
    ) -> None:
        opened = (OpenRun(folder) for folder in runs)
        self.runs = {run.id: run for run in opened}
        self.pages = tuple(pages)
        self.networks = Networks(allow_code=allow_code)
        self.mistakes = MistakeBook(self.networks)
        self._labels = labels
        self._lock = threading.Lock()
        self._stores: dict[str, LabelStore] = {}
        self._templates = template_environment("failscape.web", "failscape.report")

    def label_store(self, run: OpenRun) -> LabelStore:
        """Return where the labels of a run are kept.

        Raises:
            FailscapeError: if it cannot be opened.
        """
        with self._lock:
            key = run.id if self._labels is None else ""
            if key not in self._stores:
                self._stores[key] = LabelStore(run.folder if self._labels is None else self._labels)
            return self._stores[key]

    def close(self) -> None:
        """Close all connections to databases, and end what goes on in the background."""
        self.mistakes.close()
        for store in self._stores.values():
            store.close()

    def render(self, template: str, page: Page, run: OpenRun, **context: Any) -> HTMLResponse:
        """Return a whole page: its template extends `base.html`."""
        pages = [each for each in self.pages if each.offered(run)]
        shared = {"site": self, "pages": pages, "page": page, "run": run}
        return HTMLResponse(self._templates.get_template(template).render(**shared, **context))

    def part(self, template: str, **context: Any) -> HTMLResponse:
        """Return a part of a page, which htmx or a script puts in its place."""
        return HTMLResponse(self._templates.get_template(template).render(**context))


def site_of(request: Request) -> Site:
    """Return the site that a request is to."""
    site: Site = request.app.state.site
    return site


def run_of(run_id: str, site: Annotated[Site, Depends(site_of)]) -> OpenRun:
    """Return the run that an address names.

    Raises:
        HTTPException: if there is none.
    """
    run = site.runs.get(run_id)
    if run is None:
        raise HTTPException(404, "Expected a run of this server, but there is none at this address.")
    return run


TheSite = Annotated[Site, Depends(site_of)]
TheRun = Annotated[OpenRun, Depends(run_of)]
