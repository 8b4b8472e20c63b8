"""The page: a run folder as one HTML file that asks nothing of the network."""

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from failscape.explain import Result
from failscape.figures import Figure, Gallery, PictureMatrix, Plot, diverging
from failscape.figures.files import drawing_bytes
from failscape.report.drawings import data_uri
from failscape.report.first_page import FindingView, choose_findings, view_findings
from failscape.report.gallery import CaseView, GalleryView, view_gallery
from failscape.report.matrix import MatrixView, view_matrix
from failscape.report.run import Run, Step, read_run
from failscape.report.templating import template_environment
from failscape.report.wording import Glossary, Row, Term, interval, measured, number, readable, summary_rows
from failscape.storage import write_bytes

_MOST_ROWS = 500
_MOST_SUMMARIES = 6
# Above this an SVG with many pictures or points weighs more than its PNG and opens more slowly.
_LARGEST_SVG = 250_000
# Pixels of a PNG, 6¼ inches: shrunk to a narrow screen, the text in a wider plot could not be read.
_WIDE_PLOT = 900


@final
@dataclass(frozen=True, kw_only=True)
class FigureView:
    """A figure: a plot has a picture, a gallery its cases, a matrix its cells, and one that failed a problem.

    A plot that is `wide` is scrolled on a narrow screen.
    """

    id: str
    title: str
    caption: str
    kind: str
    uri: str = ""
    wide: bool = False
    gallery: GalleryView | None = None
    matrix: MatrixView | None = None
    problem: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class StepView:
    """A step laid out for the page.

    Attributes:
        problem: why there is no result, as a sentence, or nothing.
        missing: why the first page says nothing of this step, if it should.
    """

    id: str
    title: str
    problem: str
    missing: str
    findings: list[FindingView]
    facts: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    rows: list[Row]
    glossary: Glossary
    figures: list[FigureView]
    columns: list[Term]
    table: list[list[str]]
    table_left_out: int

    @property
    def leading(self) -> list[Row]:
        """What to tell first: the numbers with an interval, which the step set out to measure, up to three."""
        measured = [row for row in self.rows if row.interval]
        return measured[:3] if len(measured) > 1 else [*measured, *(row for row in self.rows if not row.interval)][:2]


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    The page is one file without any request to the outside. The same run folder gives the same bytes. A
    summary value is shown in percent when its definition begins with "share", "rate", "fraction",
    "proportion" or "accuracy".

    Args:
        run: a run folder.

    Raises:
        StorageError: if there is no such folder, or it cannot be written.
    """
    content = read_run(run)
    steps = [view_step(step, f"s{i}") for i, step in enumerate(content.steps, start=1)]
    findings = choose_findings([step.findings for step in steps])
    # Where findings lead, they are followed by what is missing.
    told = [step for step in steps if not findings or not step.problem]
    page = (
        template_environment("failscape.report")
        .get_template("report.html")
        .render(
            run=content,
            title=run_title(content),
            compared=bool(_compared(content)),
            facts=run_facts(content),
            findings=findings,
            summaries=told[:_MOST_SUMMARIES],
            more=len(told[_MOST_SUMMARIES:]),
            exemplar=_exemplar(steps),
            steps=steps,
            claims=[_view_claim(claim) for claim in content.claims],
            figures=[_view_saved(figure, content.folder, f"r{i}") for i, figure in enumerate(content.figures, start=1)],
            command=_command(content),
            environment=[(readable(key), number(value)) for key, value in content.environment.items()],
            diverging_stops=diverging_stops(),
        )
    )
    target = run / "report.html"
    write_bytes(target, page.encode())
    return target


def view_step(step: Step, prefix: str) -> StepView:
    """Lay out a step; `prefix` begins every identifier on the page that belongs to it."""
    facts = [
        (readable(key), number(step.record[key]))
        for key in ("method", "images", "classifier", "compared_with", "oracle", "generator")
        if step.record.get(key)
    ]
    settings = step.record.get("settings")
    view: dict[str, Any] = {
        "id": prefix,
        "title": step.title,
        "problem": step.problem,
        "missing": step.problem,
        "findings": [],
        "facts": facts,
        "settings": [(readable(k), number(v)) for k, v in settings.items()] if isinstance(settings, dict) else [],
        "rows": [],
        "glossary": Glossary(f"{prefix}-d", {}),
        "figures": [],
        "columns": [],
        "table": [],
        "table_left_out": 0,
    }
    if step.result is None:
        return StepView(**view)
    try:
        summary, table = step.result.summary, step.result.table
        glossary = Glossary(f"{prefix}-d", _defined(step.result.definitions, [*summary, *table.column_names]))
        rows, cells = summary_rows(summary, glossary), _cells(table)
        figures = [
            _view_figure(figure, step.folder, f"{prefix}-f{i}") for i, figure in enumerate(step.result.figures, start=1)
        ]
    except Exception as error:  # noqa: BLE001 - one broken result must not cost the reader all the others
        problem = f"This step could not be read: {type(error).__name__}: {error}"
        return StepView(**view | {"problem": problem, "missing": problem})
    findings, missing = _view_findings(step.result, prefix, step.title)
    return StepView(
        **view
        | {
            "missing": missing,
            "findings": findings,
            "rows": rows,
            "glossary": glossary,
            "figures": figures,
            "columns": [glossary.term(name) for name in table.column_names],
            "table": cells,
            "table_left_out": len(table) - len(cells),
        }
    )


def _view_findings(result: Result, prefix: str, title: str) -> tuple[list[FindingView], str]:
    """Return the findings of a step, or why there are none that can be shown."""
    try:
        return view_findings(result.findings, prefix, title), ""
    except Exception as error:  # noqa: BLE001 - the details of the step can be read all the same
        return [], f"Its findings could not be shown: {type(error).__name__}: {error}"


def _defined(definitions: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the definitions in the order of what they define, saying so where one is missing."""
    missing = "The method gives no definition of this."
    return {name: definitions.get(name, missing) for name in measured(names, definitions)}


def _view_figure(figure: Figure, step_folder: Path, prefix: str) -> FigureView:
    kind = "gallery" if isinstance(figure, Gallery) else "matrix" if isinstance(figure, PictureMatrix) else "plot"
    head: dict[str, Any] = {"id": prefix, "title": figure.title, "caption": figure.caption, "kind": kind}
    try:
        if isinstance(figure, Gallery):
            return FigureView(**head, gallery=view_gallery(figure, prefix))
        if isinstance(figure, PictureMatrix):
            return FigureView(**head, matrix=view_matrix(figure, prefix))
        if isinstance(figure, Plot):
            return _view_plot(figure, step_folder, head)
    except Exception as error:  # noqa: BLE001 - one broken figure must not cost the reader all the others
        return FigureView(**head, problem=f"This figure could not be drawn: {type(error).__name__}: {error}")
    return FigureView(**head, problem=f"This figure could not be drawn: {type(figure).__name__} is of no known kind.")


def _view_saved(figure: Mapping[str, Any], run: Path, prefix: str) -> FigureView:
    """Return a plot of the run itself, which `figures.json` describes."""
    name, title, caption = (str(figure.get(key, "")) for key in ("name", "title", "caption"))
    head: dict[str, Any] = {"id": prefix, "title": title, "caption": caption, "kind": "plot"}
    saved = run / "figures" / f"{Path(name).name}.png"
    if not saved.is_file():
        return FigureView(**head, problem=f"This figure could not be read: {saved.name} is missing.")
    png = saved.read_bytes()
    return FigureView(**head, uri=data_uri(png), wide=_width(png) > _WIDE_PLOT)


def _view_plot(figure: Plot, step_folder: Path, head: dict[str, Any]) -> FigureView:
    """Return the plot as the step saved it, or drawn now if it did not."""
    saved = {kind: step_folder / "figures" / f"{figure.name}.{kind}" for kind in ("svg", "png")}
    png = saved["png"].read_bytes() if saved["png"].is_file() else drawing_bytes(figure.draw(), "png")
    small = saved["svg"].is_file() and saved["svg"].stat().st_size <= _LARGEST_SVG
    uri = data_uri(saved["svg"].read_bytes(), "svg") if small else data_uri(png)
    return FigureView(**head, uri=uri, wide=_width(png) > _WIDE_PLOT)


def _width(png: bytes) -> int:
    """Return the width in pixels that a PNG states in its header."""
    return int.from_bytes(png[16:20])


def _cells(table: pa.Table) -> list[list[str]]:
    columns = [column.to_pylist() for column in table.slice(0, _MOST_ROWS).columns]
    return [[number(value) for value in row] for row in zip(*columns, strict=True)]


def run_title(run: Run) -> str:
    """Say in a heading what was explained."""
    classifier = _classifier(run)
    if others := _compared(run):
        names = [classifier, *others]
        return f"{', '.join(names[:-1])} and {names[-1]}, compared"
    selected, only = run.selection.get("selected"), run.selection.get("only")
    if isinstance(selected, int) and only == "mistakes":
        return f"{number(selected)} mistake{'s' * (selected != 1)} of {classifier}, explained"
    return f"{classifier}, explained"


def _classifier(run: Run) -> str:
    spec = next((step.record["classifier"] for step in run.steps if step.record.get("classifier")), "the classifier")
    return str(spec).removeprefix("embedded:")


def _compared(run: Run) -> list[str]:
    """Return the classifiers that every step compares the first with; none if steps differ in that."""
    compared = [step.record.get("compared_with") for step in run.steps]
    if not compared or not isinstance(compared[0], list) or any(others != compared[0] for others in compared):
        return []
    return [str(spec).removeprefix("embedded:") for spec in compared[0]]


def run_facts(run: Run) -> list[tuple[str, str]]:
    """Return what was explained, with what, on which images."""
    records = [step.record for step in run.steps]
    facts = []
    for key, label in (
        ("classifier", "Classifier"),
        ("compared_with", "Compared with"),
        ("generator", "Generator"),
        ("oracle", "Oracle"),
        ("images", "Images"),
    ):
        named = dict.fromkeys(number(record[key]) for record in records if record.get(key))
        if named:
            facts.append((label, ", ".join(named)))
    # What was selected is told of the first step alone.
    classified, mistakes = run.selection.get("classified"), run.selection.get("mistakes")
    if isinstance(classified, int) and isinstance(mistakes, int) and classified:
        right = number(1 - mistakes / classified, share=True)
        several = len({record.get("classifier") for record in records}) > 1
        whose = f", by {_classifier(run)}" if several else ""
        facts.append(("Mistakes", f"{number(mistakes)} of {number(classified)} images ({right} right{whose})"))
    selected = run.selection.get("selected")
    if isinstance(selected, int):
        facts.append(("Looked at", f"{number(selected)} images ({run.selection.get('only', 'all')})"))
    return facts


def _exemplar(steps: Sequence[StepView]) -> CaseView | None:
    """Return a case that shows what it is all about: a success whose change is neither faint nor extreme."""
    galleries = [figure.gallery for step in steps for figure in step.figures if figure.gallery]
    cases = [case for gallery in galleries for case in gallery.cases if case.good and len(case.panels) > 1]
    by_change = sorted(cases, key=lambda case: case.change)
    return by_change[len(cases) * 3 // 4] if cases else None


def _view_claim(claim: Mapping[str, Any]) -> dict[str, str]:
    reached = {True: "yes", False: "no"}.get(claim.get("reached"), "not judged")  # type: ignore[arg-type]
    return {
        "what": str(claim.get("what") or claim.get("key") or ""),
        "key": str(claim.get("key") or ""),
        "paper": number(claim.get("paper")),
        "target": number(claim.get("target")),
        "value": number(claim.get("value")),
        "interval": interval(claim.get("low"), claim.get("high")),
        "count": number(claim["n"]) if claim.get("n") is not None else "",
        "reached": reached,
        "note": str(claim.get("note") or ""),
    }


def _command(run: Run) -> str:
    """Return the command that makes this run again: the one recorded, or that of its study."""
    if isinstance(recorded := run.environment.get("command"), str):
        return recorded
    try:
        name = tomllib.loads(run.study).get("name", "study")
    except tomllib.TOMLDecodeError:
        name = "study"
    return f"failscape study {shlex.quote(f'{run.name}/study.toml')}  # {name}"


def diverging_stops() -> str:
    """Return the stops of a CSS gradient in the very colours of the signed pictures."""
    colours = diverging(np.linspace(-1, 1, 17))
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist())
