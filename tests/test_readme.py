"""The README and the documentation: what they show runs, and what they state is so."""

import inspect
import json
import re
import shlex
from importlib.resources import files
from pathlib import Path

import pytest

import failscape
from failscape.cli.app import app
from failscape.explain import METHODS
from failscape.study import StudyConfig
from failscape.study.methods import prepare_method

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
ASSETS = Path(str(files("failscape"))) / "assets"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in that language, without those that include another file."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if "--8<--" not in block]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[str]:
    """Return every command of failscape in the shell blocks of a page, and with arguments in its running text."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    quoted = re.findall(r"`(failscape [a-z]+ [^`]+)`", page.read_text())
    return [line for line in [*lines, *quoted] if line.startswith("failscape ")]


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table below a heading."""
    text = page.read_text().partition(f"\n## {heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert rows is not None, f"no table below {heading}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].splitlines()[2:]]


@pytest.mark.usefixtures("taught_briefly")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_the_python_of_a_page_runs_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, named(page), "exec"), namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    for command in commands(page):
        words = [word for word in shlex.split(command)[1:] if word not in ("NAME", "FOLDER")]
        if words == ["train", "vae", "--help"]:
            continue
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_every_study_in_the_documentation_can_be_begun(tmp_path: Path) -> None:
    studies = [block for page in PAGES for block in blocks(page, "toml")]
    studies += [example.read_text() for example in EXAMPLES]
    assert len(studies) >= 5
    for study in studies:
        path = tmp_path / "study.toml"
        path.write_text(study)
        for step in StudyConfig.from_toml(path).steps:
            prepare_method(step)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=named)
def test_what_a_page_or_an_example_names_as_embedded_is_embedded(page: Path) -> None:
    there = {path.stem for path in ASSETS.glob("*s/*.json")} | {path.name for path in ASSETS.glob("mnist-*")}
    specs = set(re.findall(r"embedded:([a-z0-9][a-z0-9_-]*)", page.read_text()))
    assert specs <= there, sorted(specs - there)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_has_a_page_with_its_settings_and_their_defaults(name: str) -> None:
    page = ROOT / "docs" / "methods" / f"{name}.md"
    declared = inspect.signature(METHODS[name]).parameters
    written = {setting.strip("`"): default.strip("`") for setting, default, _ in table(page, "Settings")}
    assert list(written) == list(declared)
    assert {key: eval(default) for key, default in written.items()} == {
        key: parameter.default for key, parameter in declared.items()
    }


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "training.md"], ids=named)
def test_the_stated_numbers_of_the_embedded_weights_are_those_recorded_with_them(page: Path) -> None:
    rows = {cells[0].strip("`").removeprefix("embedded:"): cells for cells in table(page, "Embedded weights")}
    descriptions = {path.stem: json.loads(path.read_text()) for path in ASSETS.glob("[cg]*s/*.json")}
    # The small classifiers of faces would fill the README; the other page lists them.
    listed = {
        name
        for name, each in descriptions.items()
        if page.name != "README.md" or each["kind"] == "generator" or not name.startswith("avatars-")
    }
    assert rows.keys() == listed
    for name, cells in rows.items():
        provenance = descriptions[name]["provenance"]
        reached = provenance["reached"]
        if "accuracy" in reached:
            assert f"accuracy {100 * reached['accuracy']:.2f} %" in cells[2]
        elif "frechet" in reached:
            assert f"Fréchet distance {reached['frechet']:.3f}, floor {reached['floor']:.3f}" in cells[2]
        elif "elbo" in reached:
            assert f"ELBO −{-reached['elbo']:.2f} nats" in cells[2]
        else:
            assert f"reconstruction error {reached['reconstruction']:.3f}" in cells[2]
        assert ("corrupted" in cells[2]) == ("corrupted" in provenance["settings"]["validation"])
        if page.name == "README.md":
            assert cells[3] == f"`failscape train embedded {name}`"
        else:
            parts = [provenance]
            while "start" in parts[-1]:
                parts.append(parts[-1]["start"])
            assert cells[1] == " after ".join(f"{part['settings']['images']:,}" for part in parts)


def test_the_readme_states_how_many_mistakes_there_are() -> None:
    images = failscape.load_images("embedded:mnist-test")
    classifier = failscape.load_classifier("embedded:mnist-clean")
    mistakes = int((classifier.predict(images.x) != images.y).sum())
    assert f"the {mistakes} test digits" in (ROOT / "README.md").read_text()


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())]
    assert len(links) > 20
    assert [(named(page), link) for page, link in links if not (page.parent / link).is_file()] == []
