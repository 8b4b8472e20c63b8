"""The application: every page behind the guard, files from memory, errors in words."""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from failscape.errors import FailscapeError, LabelConflict, LabelStoreUnavailable, NotInStore
from failscape.report.page import diverging_stops
from failscape.web.access import Access
from failscape.web.guard import Guard
from failscape.web.site import Site, TheSite

_log = logging.getLogger(__name__)
_TYPES = {".css": "text/css", ".js": "text/javascript", ".txt": "text/plain"}


def create_app(site: Site, access: Access) -> Guard:
    """Return the application that serves a site to whom `access` lets in."""

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        yield
        site.close()

    # No generated documentation: it would load scripts from elsewhere.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=closing)
    app.state.site = site
    app.add_exception_handler(FailscapeError, _failed)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    static = _static_files()

    @app.get("/enter")
    def enter(request: Request, token: str = "") -> Response:
        session = access.exchange(token)
        if session is None:
            raise HTTPException(
                401, "Expected a link that was not used before. Open the one that `failscape serve` printed last."
            )
        response = RedirectResponse("/", status_code=303)
        secure = access.is_encrypted(request.headers.get("host", ""))
        response.set_cookie(access.cookie, session, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/")
    def first(site: TheSite) -> Response:
        return RedirectResponse(f"/runs/{next(iter(site.runs))}/overview", status_code=303)

    @app.get("/static/{name}")
    def static_file(name: str, request: Request) -> Response:
        file = static.get(name)
        if file is None:
            raise HTTPException(404, "Expected a file of the pages, but there is none of that name.")
        headers = {"ETag": file.tag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.kind, headers=headers)

    for page in site.pages:
        app.include_router(page.router, prefix="/runs/{run_id}")
    # Around everything, so that even an answer that failed bears its headers.
    return Guard(app, access)


@final
@dataclass(frozen=True)
class _File:
    content: bytes
    kind: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def _static_files() -> dict[str, _File]:
    """Return what pages load, by name: no name is ever looked up on the disk."""
    found = {}
    for folder in (files("failscape.report") / "templates", files("failscape.web") / "static"):
        for file in folder.iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if suffix in _TYPES:
                found[file.name] = _File(file.read_bytes(), _TYPES[suffix])
    stops = f":root {{ --diverging: linear-gradient(to right, {diverging_stops()}); }}\n"
    return found | {"diverging.css": _File(stops.encode(), "text/css")}


def _failed(request: Request, error: Exception) -> Response:
    """Say what went wrong: what was asked for does not exist, contradicts what is there, or cannot be done."""
    if isinstance(error, LabelStoreUnavailable):
        # Where the database lies concerns who runs the server, not who labels.
        _log.warning("%s", error)
        return _in_words(request, 503, "The database of the labels does not answer just now. What it has, it keeps.")
    status = 404 if isinstance(error, NotInStore) else 409 if isinstance(error, LabelConflict) else 422
    return _in_words(request, status, str(error))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _in_words(request, error.status_code, str(error.detail))


def _invalid(request: Request, error: Exception) -> Response:
    """Say what is wrong with a request, without what came: it may be anything."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return _in_words(request, 422, f"Expected another value of {place}: {first['msg']}.")


def _in_words(request: Request, status: int, message: str) -> Response:
    if request.headers.get("hx-request") == "true":
        return HTMLResponse(f'<p class="problem" role="alert">{escape(message)}</p>', status)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"error": message}, status)
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<link rel=stylesheet href=/static/report.css><title>failscape</title>"
        f"<main><h1>This did not work</h1><p>{escape(message)}</p><p><a href=/>Back to the overview</a></p></main>",
        status,
    )
