"""Every page in a real browser: no error, nothing asked of elsewhere, nothing that axe finds serious, screenshots."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.web.conftest import SCREENSHOTS, Served, Watched

from failscape.web.pages import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
# Further places of pages; each is opened by what it takes to get there from the page's own address.
MORE = ("steps/1",)


def check(tab: "Tab", name: str) -> None:
    """Look at what a tab shows: at both widths for whoever opens the screenshots, and by axe, light and dark."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900 if width > 500 else 844})
        tab.screenshot(path=SCREENSHOTS / f"{name}-{width}.png", full_page=True)
        # What is wider than the window would have to be scrolled sideways.
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide at {width}"
    for scheme in SCHEMES:
        tab.emulate_media(color_scheme=scheme)
        assert serious(tab) == [], f"{name}, {scheme}"
    tab.screenshot(path=SCREENSHOTS / f"{name}-dark-{WIDTHS[-1]}.png", full_page=True)
    tab.emulate_media(color_scheme=SCHEMES[0])


def serious(tab: "Tab") -> list[str]:
    if not tab.evaluate("Boolean(window.axe)"):
        tab.evaluate(AXE)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found: list[dict[str, Any]] = tab.evaluate(
        f"axe.run({{runOnly: {json.dumps(tags)}, resultTypes: ['violations']}}).then((result) => result.violations)"
    )
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("place", [*(page.name for page in PAGES), *MORE])
def test_a_page(place: str, toy_server: Served, enter: Callable[[Served], "Tab"]) -> None:
    tab = enter(toy_server)
    answer = tab.goto(f"{toy_server.run}/{place}")
    assert answer is not None
    assert answer.status == 200
    tab.wait_for_load_state("networkidle")
    if place in [page.name for page in PAGES]:
        assert tab.locator("nav [aria-current=page]").count() == 1
    check(tab, place.replace("/", "-"))


def test_axe_would_find_something_serious(toy_server: Served, enter: Callable[[Served], "Tab"]) -> None:
    tab = enter(toy_server)
    tab.evaluate("document.querySelector('main').append(new Image())")
    assert any(problem.startswith("image-alt") for problem in serious(tab))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_would_find_what_has_too_little_contrast(
    scheme: Literal["light", "dark"], toy_server: Served, enter: Callable[[Served], "Tab"]
) -> None:
    tab = enter(toy_server)
    tab.emulate_media(color_scheme=scheme)
    # In either scheme the ink of the other one.
    ink = {"light": "#ececea", "dark": "#1c1d1f"}[scheme]
    tab.evaluate("(ink) => document.querySelector('h1').style.setProperty('color', ink)", ink)
    assert any(problem.startswith("color-contrast") for problem in serious(tab))


def test_no_script_runs_that_is_not_a_file_of_the_server(
    toy_server: Served, enter: Callable[[Served], "Tab"], watched: Watched
) -> None:
    tab = enter(toy_server)
    tab.evaluate(
        """() => {
          window.ran = [];
          const script = document.createElement("script");
          script.textContent = "window.ran.push('inline')";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<p id=styled style='color: rgb(1, 2, 3)'>x</p>");
        }"""
    )
    assert tab.evaluate("window.ran") == []
    assert tab.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(1, 2, 3)"
    assert len(watched.errors) == 2
    assert all("Content Security Policy" in error for error in watched.errors)
    watched.errors.clear()
