import inspect
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from failscape.cli import main
from failscape.data import load_images
from failscape.explain import CornerCases
from failscape.study import read_steps
from failscape.study.config import StudyConfig

_MODELS = ("--classifier", "embedded:mnist-corrupted", "--generator", "embedded:mnist-stylegan2")


def test_corner_cases_are_found_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No flag says how many samples the effects are measured on; fewer than by default take a tenth of the time.
    monkeypatch.setitem(inspect.unwrap(CornerCases.__init__).__kwdefaults__, "samples", 1000)
    target = tmp_path / "cases"
    command = ["corner-cases", "embedded:mnist-test", *_MODELS, "--per-class", "0", "--joint", "1"]
    assert main([*command, "--export", str(target), "--out", str(tmp_path / "runs")]) == 0
    report, exported = capsys.readouterr().out.split()
    assert Path(report).name == "report.html"
    assert exported == str(target)
    rows = pq.read_table(target / "corner-cases.parquet").num_rows
    assert rows >= 8
    assert len(load_images(str(target / "images"), image_shape=(1, 28, 28))) == rows


def test_a_folder_that_holds_something_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    command = ["corner-cases", "embedded:mnist-test", *_MODELS, "--export", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path / "runs")]) == 2
    assert "a new or empty folder" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_failures_goes_on_where_a_generator_has_no_styles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = "embedded:mnist-test"
    models = ("--classifier", "embedded:mnist-clean", "--generator", "embedded:mnist-vae-2d")
    assert main(["failures", images, *models, "--limit", "50", "--out", str(tmp_path)]) == 2
    assert "6 failed (style-influence, " in capsys.readouterr().err
    statuses = {step["name"]: step["status"] for step in read_steps(next(tmp_path.iterdir()))}
    assert statuses["style-influence"] == "failed"
    assert statuses["corruption-table"] == "done"


@pytest.mark.parametrize(
    ("images", "tabulated"),
    [
        ("embedded:mnist-test+half-corrupted", {"spec": "embedded:mnist-test", "only": "all", "limit": 50}),
        ("embedded:mnist-test", None),
    ],
)
def test_no_image_is_corrupted_twice(
    images: str, tabulated: dict[str, object] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StudyConfig] = []

    def run(config: StudyConfig, **rest: object) -> int:
        asked.append(config)
        return 0

    monkeypatch.setattr("failscape.cli.failures.run", run)
    assert main(["failures", images, *_MODELS, "--limit", "50", "--out", str(tmp_path)]) == 0
    (table,) = (step for step in asked[0].steps if step.method == "corruption-table")
    assert (table.images and table.images.model_dump(exclude_unset=True)) == tabulated
