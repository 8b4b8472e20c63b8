import shutil
from pathlib import Path

import pytest

from failscape.cli import main
from failscape.explain import CorruptionTableResult, load_result
from failscape.study import StudyConfig, read_steps


def test_what_can_be_compared_is_and_what_is_missing_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("classifier", "other")
    models = ["classifier", "other", "--images", "images.npz", "--generator", "generator"]
    assert main(["compare", *models, "--oracle", "other", "--limit", "6"]) == 2
    captured = capsys.readouterr()
    report = Path(captured.out.splitlines()[-1])
    run = report.parent
    assert run == Path("runs/00001-compare")
    # A VAE has no styles, so that only the corruptions can be compared.
    assert [step["status"] for step in read_steps(run)] == ["failed", "done", "failed"]
    assert captured.err.count("\n") == 1
    assert "2 failed (latent-accuracy, style-difference)" in captured.err
    config = StudyConfig.from_toml(run / "study.toml")
    assert (config.images.only, config.images.limit) == ("all", 6)
    table = load_result(run / "steps" / "02-corruption-table")
    assert isinstance(table, CorruptionTableResult)
    assert table.classifiers == ("classifier", "other")
    assert table.right.shape == (2, 36, 6)
    assert bool((table.right[0] == table.right[1]).all())
    page = report.read_text()
    assert page.count("a generator with styles") >= 2
    assert "Nothing is said here of" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["classifier"], "at least two different classifiers"),
        (["classifier", "classifier"], "at least two different classifiers"),
        (["classifier", "nowhere"], "'nowhere'"),
        (["classifier", "python:code.py:make"], "--allow-code"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["compare", *arguments, "--images", "images.npz", "--generator", "generator"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("failscape: error: Expected ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert not Path("runs").exists()
