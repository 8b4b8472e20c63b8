"""The first page: what the steps found, in a few sentences with the pictures that show it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import final

from failscape.figures import Finding
from failscape.report.gallery import PanelView, side_by_side, signed_scale, view_panel
from failscape.report.wording import Glossary

# What a person reads on one page, and remembers.
MOST_FINDINGS = 5

# The space after a sentence, but not within such a name as "St. Bernard".
_END = re.compile(r"(?<!\b(?:Dr|Mr|Ms|Mt|St)\.)(?<=\.) ")
_MOST_IN_A_ROW = 4
_MOST_ON_A_PHONE = 3


@final
@dataclass(frozen=True, kw_only=True)
class FindingView:
    """A sentence with its pictures.

    Attributes:
        step: identifier of the step's section.
        title: that of the step.
        sentence: the first of what the `Finding` says.
        detail: the others, "" if there are none.
        panels: pictures from left to right.
        across: how many stand side by side on a wide screen, and how many on a narrow one.
        scale: the value that gets the full colour in signed pictures, as text, "" if there is none.
    """

    step: str
    title: str
    sentence: str
    detail: str
    panels: list[PanelView]
    across: tuple[int, int]
    scale: str


def view_findings(findings: Sequence[Finding], step: str, title: str) -> list[FindingView]:
    """Lay out the findings of one step, as many as could ever be shown."""
    return [_view_finding(finding, step, title) for finding in findings[:MOST_FINDINGS]]


def choose_findings(by_step: Sequence[Sequence[FindingView]]) -> list[FindingView]:
    """Return what to lead with: the first finding of each step, then the second ones, and so on."""
    rounds = zip_longest(*by_step)
    return [finding for each in rounds for finding in each if finding is not None][:MOST_FINDINGS]


def _view_finding(finding: Finding, step: str, title: str) -> FindingView:
    count, scale = len(finding.panels), signed_scale(finding.panels)
    sentence, *rest = _END.split(finding.sentence, maxsplit=1)
    no_terms = Glossary("", {})
    return FindingView(
        step=step,
        title=title,
        sentence=sentence,
        detail=rest[0] if rest else "",
        panels=[
            view_panel(panel, f"Picture {i} of {count}, {panel.label}", scale, no_terms)
            for i, panel in enumerate(finding.panels, start=1)
        ],
        across=(side_by_side(count, _MOST_IN_A_ROW), side_by_side(count, _MOST_ON_A_PHONE)),
        scale=f"{scale:.2g}" if scale else "",
    )
