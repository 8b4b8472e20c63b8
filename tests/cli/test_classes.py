from pathlib import Path

import pytest

from failscape.cli import main
from failscape.explain import CentroidPathResult, ClassConvergenceResult, FrontierResult, load_result
from failscape.study import StudyConfig

_MODELS = ("--classifier", "embedded:mnist-clean", "--generator", "embedded:mnist-vae-2d")


def test_a_path_is_gone_between_the_pairs_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["path", "embedded:mnist-test", *_MODELS, "--pair", "4:9", "--pair", "3:8", "--limit", "300"]
    assert main([*command, "--samples", "1", "--way", "both", "--out", str(tmp_path)]) == 0
    report = Path(capsys.readouterr().out.strip())
    result = load_result(report.parent / "steps" / "01-centroid-path")
    assert isinstance(result, CentroidPathResult)
    # Between the centroids, and from an image of either class to the centroid of the other.
    ends = {*zip(result.first.tolist(), result.second.tolist(), strict=True)}
    assert ends == {(4, 9), (9, 4), (3, 8), (8, 3)}
    assert result.great_circle.tolist().count(True) == 6
    assert len(result.ids) == 12


@pytest.mark.parametrize("pair", ["4", "4:", "4:9:7"])
def test_what_is_no_pair_is_refused(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["path", "embedded:mnist-test", *_MODELS, "--pair", pair]) == 2
    assert f"FROM:TO, such as 4:9, but got {pair!r}" in capsys.readouterr().err


def test_a_class_is_converged_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["converge", "embedded:mnist-test", *_MODELS, "--class", "4", "--class", "7", "--limit", "200"]
    assert main([*command, "--samples", "5", "--oracle", "embedded:mnist-oracle-clean", "--out", str(tmp_path)]) == 0
    report = Path(capsys.readouterr().out.strip())
    result = load_result(report.parent / "steps" / "01-class-convergence")
    assert isinstance(result, ClassConvergenceResult)
    assert result.chosen.tolist() == [4, 7]
    assert result.summary["search_rate"] == 1
    assert "a second classifier" in report.read_text()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("converge", ["--class", "four"]),
        ("frontier", ["--target", "3,four"]),
        ("path", ["--pair", "3:four"]),
        ("uncertain", ["--class", "four"]),
    ],
)
def test_a_class_that_is_none_is_one_line_and_leaves_no_run(
    command: str, named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ("--classifier", "embedded:mnist-corrupted", "--generator", "embedded:mnist-stylegan2")
    out = tmp_path / "runs"
    assert main([command, "embedded:mnist-test", *models, *named, "--limit", "50", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "four" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_frontier_is_drawn_at_each_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["frontier", "embedded:mnist-test", *_MODELS, "--target", "3,8", "--target", "4=0.7,9=0.3"]
    few = ["--per-target", "2", "--samples", "500", "--limit", "50", "--opinions", "0"]
    assert main([*command, *few, "--out", str(tmp_path)]) == 0
    report = Path(capsys.readouterr().out.strip())
    (step,) = StudyConfig.from_toml(report.parent / "study.toml").steps
    assert step.settings["opinions"] == 0
    result = load_result(report.parent / "steps" / "01-frontier")
    assert isinstance(result, FrontierResult)
    assert result.target_names == ("3 | 8", "4=0.7,9=0.3")
    assert result.samples == 500
    assert result.success.any()
    assert 'href="#' in report.read_text()
