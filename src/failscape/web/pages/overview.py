"""Overview: what was explained, with what, and what was found, each finding a link to its step."""

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from failscape.report.first_page import FindingView, choose_findings, view_findings
from failscape.report.page import run_facts, run_title
from failscape.report.run import Run
from failscape.web.site import Page, TheRun, TheSite

router = APIRouter()


@router.get("/overview")
def overview(site: TheSite, run: TheRun) -> HTMLResponse:
    """Show the first page of a run."""
    content = run.read()
    return site.render(
        "overview.html",
        PAGE,
        run,
        title=run_title(content),
        facts=run_facts(content),
        findings=choose_findings(_findings(content)),
        steps=content.steps,
    )


@router.get("/steps/{number}")
def step(site: TheSite, run: TheRun, number: int) -> HTMLResponse:
    """Show all that a step found, as the report does."""
    view = run.view(number)
    if view is None:
        raise HTTPException(404, f"Expected a step of this run, but there is no step {number}.")
    return site.render("one_step.html", PAGE, run, step=view, number=number, steps=run.read().steps)


def _findings(content: Run) -> list[list[FindingView]]:
    """Return the findings of each step; `step` of a finding is the step's number."""
    found = []
    for number, each in enumerate(content.steps, start=1):
        try:
            findings = [] if each.result is None else each.result.findings
            found.append(view_findings(findings, str(number), each.title))
        except Exception:  # noqa: BLE001 - the page of the step says what is wrong with it
            found.append([])
    return found


PAGE = Page(name="overview", title="Overview", router=router)
