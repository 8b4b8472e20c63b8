"""What a person touches: pages on runs, served to the browsers that are let in.

A page is added by three files and one line: a module in `pages/` with a router and a `PAGE` (`site.Page`), its
template in `templates/`, which extends `base.html`, its script in `static/` if it needs one, and an entry in
`pages.PAGES`, which makes it part of the navigation. `pages/overview.py` is the shortest example.

- A route takes `site: TheSite` and `run: TheRun` and answers with `site.render(template, PAGE, run, …)`, or JSON for a
  script. It is a plain function, which FastAPI runs in a thread, and lets errors of failscape rise: `app` words them.
- `run.read()` gives the run and its results, `site.networks` the networks that its steps name.
- Nothing needs to be done for safety, and nothing can be undone: `guard` stands before all routes. There is no inline
  script or style, not even a style attribute; scripts talk to the server with `ask` of `static/server.js`.
- Addresses bear identifiers and numbers, never names or paths.
- tests/web tries every route without a session, with a foreign host and across sites, and every page of `PAGES` in a
  browser, with axe and a screenshot at two widths: a new page is tried without a new line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from failscape.errors import MissingExtra

if TYPE_CHECKING:
    from failscape.web.server import serve as serve

_HOMES = {"serve": "failscape.web.server"}
_EXTRA = ("fastapi", "multipart", "python_multipart", "sqlalchemy", "starlette", "uvicorn")

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if error.name not in _EXTRA:
                raise
            raise MissingExtra(
                f"Expected {error.name} for the pages in the browser, but it is not installed. Run: pip install "
                "'failscape[web]'"
            ) from error
    raise AttributeError(f"module 'failscape.web' has no attribute {name!r}")
