"""A gallery laid out for the page: cases with encoded pictures, probability bars and drawings."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from failscape.figures import Case, Gallery, Panel, png_bytes
from failscape.figures.files import symmetrical_scale
from failscape.report.drawings import LineDrawing, PlaneDrawing, data_uri, draw_line, draw_plane
from failscape.report.wording import MINUS, Glossary, Term

# A page with more cases than this is slow to open on a phone; the rest is in the step's table.
MAX_CASES = 240

# With more pictures than this in a row a case is laid out over more of the page, or over several rows.
_MOST_IN_A_CARD = 6
_MOST_IN_A_ROW = 12

_MOST_BARS = 5
_SMALLEST_BAR = 0.01


@final
@dataclass(frozen=True)
class PanelView:
    """A picture with its label, and the signed picture that stands under it, if any."""

    term: Term
    uri: str
    alt: str
    pixelated: bool
    below: "PanelView | None" = None


@final
@dataclass(frozen=True)
class CaseView:
    """One case.

    Attributes:
        id, heading, verdict, good: as in `Case`.
        panels: pictures.
        wide: whether there are too many of them for an ordinary card.
        across: how many stand side by side on a wide screen, and how many on a narrow one.
        change: the largest absolute value of the signed pictures, 0 if there is none.
        scale: that as text, "" if there is none; it gets the full colour.
        columns: names of the columns of probabilities.
        bars: class name, and the probability in each column, as a number and as text.
        numbers: name and text of each quantity.
        sort: value of each of the gallery's quantities.
        line, plane: drawings.
    """

    id: str
    heading: str
    verdict: str
    good: bool
    panels: list[PanelView]
    wide: bool
    across: tuple[int, int]
    change: float
    scale: str
    columns: list[str]
    bars: list[tuple[str, list[tuple[float, str]]]]
    numbers: list[tuple[Term, str]]
    sort: list[float | None]
    line: LineDrawing | None
    plane: PlaneDrawing | None


@final
@dataclass(frozen=True)
class GalleryView:
    """A gallery with what its filters offer.

    Attributes:
        cases: those shown.
        left_out: how many are not shown.
        good: how many of all cases succeeded; `bad` did not.
        order: labels of the pictures from left to right, if all cases have the same.
        signed: whether there are signed pictures.
        wide: whether a case has too many pictures for an ordinary card.
        kinds: headings that occur more than once, most frequent first, with their count.
        quantities: names of the numbers that one can sort by.
        glossary: definitions of panels and numbers.
    """

    cases: list[CaseView]
    left_out: int
    good: int
    bad: int
    order: list[str]
    signed: bool
    wide: bool
    kinds: list[tuple[str, int]]
    quantities: list[str]
    glossary: Glossary


def view_gallery(gallery: Gallery, prefix: str) -> GalleryView:
    """Lay out a gallery; of too many cases every failure is kept that half the room allows."""
    glossary = Glossary(f"{prefix}-d", gallery.definitions)
    shown = _most_telling(gallery.cases)
    quantities = list(dict.fromkeys(name for case in shown for name in case.numbers))
    kinds = Counter(case.heading for case in shown).most_common()
    good = sum(case.good for case in gallery.cases)
    cases = [_view_case(case, gallery.class_names, quantities, glossary) for case in shown]
    orders = {tuple(panel.term.text for panel in case.panels) for case in cases}
    return GalleryView(
        cases=cases,
        left_out=len(gallery.cases) - len(shown),
        good=good,
        bad=len(gallery.cases) - good,
        order=list(orders.pop()) if len(orders) == 1 else [],
        signed=any(panel.signed for case in shown for panel in case.panels),
        wide=any(case.wide for case in cases),
        kinds=kinds if 1 < len(kinds) < len(shown) else [],
        quantities=quantities,
        glossary=glossary,
    )


def _most_telling(cases: Sequence[Case]) -> list[Case]:
    if len(cases) <= MAX_CASES:
        return list(cases)
    bad = [i for i, case in enumerate(cases) if not case.good][: MAX_CASES // 2]
    good = [i for i, case in enumerate(cases) if case.good][: MAX_CASES - len(bad)]
    return [cases[i] for i in sorted(bad + good)]


def _view_case(case: Case, class_names: Sequence[str], quantities: Sequence[str], glossary: Glossary) -> CaseView:
    scale = signed_scale(case.panels)
    columns, bars = _bars(case, class_names)
    panels = _view_panels(case, scale, glossary)
    return CaseView(
        id=case.id,
        heading=case.heading,
        verdict=case.verdict,
        good=case.good,
        panels=panels,
        wide=len(panels) > _MOST_IN_A_CARD,
        across=(side_by_side(len(panels), _MOST_IN_A_ROW), side_by_side(len(panels), _MOST_IN_A_CARD)),
        change=scale,
        scale=f"{scale:.2g}" if scale else "",
        columns=columns,
        bars=bars,
        numbers=[(glossary.term(name), text) for name, text in case.numbers.items()],
        sort=[_leading_number(case.numbers.get(name, "")) for name in quantities],
        line=None if case.line is None else draw_line(case.line),
        plane=None if case.plane is None else draw_plane(case.plane, class_names),
    )


def view_panel(panel: Panel, alt: str, scale: float, glossary: Glossary) -> PanelView:
    """Encode a picture; `alt` is its text, to which a signed one adds how much was removed and added."""
    if panel.signed:
        low, high = float(panel.pixels.min()), float(panel.pixels.max())
        alt += f": at most {max(0.0, -low):.2f} removed and {max(0.0, high):.2f} added"
    return PanelView(
        term=glossary.term(panel.label),
        uri=data_uri(png_bytes(panel.pixels, signed=panel.signed, scale=scale if panel.signed else None)),
        alt=alt,
        pixelated=max(panel.pixels.shape[-2:]) < 128,
    )


def signed_scale(panels: Sequence[Panel]) -> float:
    """Return the value that gets the full colour in all signed pictures, 0 if there is none."""
    signed = [panel.pixels for panel in panels if panel.signed]
    return symmetrical_scale(*signed) if signed else 0.0


def side_by_side(count: int, most: int) -> int:
    """Return how many of `count` pictures to set in a row, at most so many, that all rows are about as long."""
    rows = max(1, math.ceil(count / most))
    return math.ceil(count / rows)


def _view_panels(case: Case, scale: float, glossary: Glossary) -> list[PanelView]:
    """Return the pictures from left to right, those that stand under another as part of that one."""
    views: list[PanelView] = []
    before: Panel | None = None
    for panel in case.panels:
        view = view_panel(panel, f"{panel.label} of image {case.id}", scale, glossary)
        if before is not None and panel.signed and not before.signed and panel.label == before.label:
            views[-1] = replace(views[-1], below=view)
        else:
            views.append(view)
        before = panel
    return views


def _bars(case: Case, class_names: Sequence[str]) -> tuple[list[str], list[tuple[str, list[tuple[float, str]]]]]:
    """Return the columns and the classes that matter in any of them, largest first, the rest added up."""
    if not case.probabilities:
        return [], []
    table = {name: [float(p) for p in probs] for name, probs in case.probabilities.items()}
    largest = {k: max(probs[k] for probs in table.values()) for k in range(len(class_names))}
    order = sorted(largest, key=lambda k: -largest[k])
    kept = [k for k in order[:_MOST_BARS] if largest[k] >= _SMALLEST_BAR]
    bars = [(class_names[k], [_bar(probs[k]) for probs in table.values()]) for k in kept]
    if len(kept) < len(class_names):
        rest = [max(0.0, 1 - sum(probs[k] for k in kept)) for probs in table.values()]
        bars.append(("all others", [_bar(p) for p in rest]))
    return list(table), bars


def _bar(p: float) -> tuple[float, str]:
    return round(p, 4), f"{100 * p:.1f} %"


def _leading_number(text: str) -> float | None:
    found = re.search(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text.replace(MINUS, "-").replace(",", ""))
    return float(found[0]) if found else None
