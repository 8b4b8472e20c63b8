import shutil
from pathlib import Path

import numpy as np
import pytest

from failscape.cli import main
from failscape.explain import LoopResult, RetrainingResult, load_result

_MODELS = ("--data", "images.npz", "--test", "others.npz")


@pytest.fixture
def run(folder: Path) -> Path:
    """A run of the toy study that was never begun, a classifier to label, and other images to test on."""
    shutil.copytree("classifier", "other")
    rng = np.random.default_rng(1)
    np.savez("others.npz", x=rng.random((9, 8, 8), dtype=np.float32), y=np.arange(9) % 3)
    Path("runs/00001-toy").mkdir(parents=True)
    shutil.copy("study.toml", "runs/00001-toy/study.toml")
    return folder


def test_a_retraining_ends_with_its_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--labeller", "other", "--labelled", "6", "--fresh", "6", "--replicates", "2", "--images", "64"]
    assert main(["retrain", "latest", *_MODELS, *told, "--sure", "0", "--share", "0.2"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == Path("runs/00002-retrain/report.html")
    result = load_result(page.parent / "steps" / "01-retraining")
    assert isinstance(result, RetrainingResult)
    assert (result.labeller, result.stand_in, result.labelled, result.replicates) == ("other", True, 6, 2)
    # The labeller is a copy of the classifier, which so cannot be wrong.
    assert "No gain shown" in page.read_text()
    config = (page.parent / "study.toml").read_text()
    assert 'data = "images.npz"' in config
    assert "share = 0.2" in config


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latest", *_MODELS], "failscape serve RUN"),
        (["latest", "--labeller", "other"], "Expected --data"),
        (["nowhere", *_MODELS, "--labeller", "other"], "a run folder"),
        (["latest", *_MODELS, "--labeller", "other", "--judge", "other"], "none may judge its own labels"),
        (["latest", *_MODELS, "--labeller", "other", "--share", "2"], "`share`"),
        (["latest", *_MODELS, "--labeller", "other", "--labelled", "0"], "--labelled"),
    ],
)
def test_what_cannot_be_retrained_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["retrain", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("failscape: error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert not Path("runs/00002-retrain").exists()


def test_a_loop_waits_for_people_and_goes_on_by_its_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--labelled", "4", "--fresh", "3", "--rounds", "1", "--images", "64"]
    assert main(["loop", "latest", *_MODELS, *told]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["fresh: 3 labels are missing", "round-1: 4 labels are missing"]
    assert "failscape loop runs/00002-loop` goes on" in said[2]
    folder = said[3]
    assert folder == "runs/00002-loop"
    for project, count in (("fresh", 3), ("round-1", 4)):
        rows = "".join(f"{project}-{i:05d},{i % 3}\n" for i in range(count))
        Path("labels.csv").write_text(f"name,label\n{rows}")
        assert main(["labels", "import", folder, "labels.csv", "--labeller", "Ada", "--project", project]) == 0
    capsys.readouterr()
    assert main(["loop", folder]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == Path(folder, "report.html")
    assert "Wrong images, round after round" in page.read_text()


def test_a_control_can_be_asked_of_people_and_left_out_for_a_stand_in(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--labelled", "4", "--fresh", "3", "--rounds", "1", "--images", "64"]
    assert main(["loop", "latest", *_MODELS, *told, "--control"]) == 0
    said = capsys.readouterr().out.splitlines()
    expected = ["fresh: 3 labels are missing", "round-1: 4 labels are missing", "control: 4 labels are missing"]
    assert said[:3] == expected
    shutil.rmtree("runs/00002-loop")
    told += ["--labeller", "other", "--sure", "0"]
    for flags, controlled in (([], 4), (["--no-control"], 0)):
        assert main(["loop", "runs/00001-toy", *_MODELS, *told, *flags]) == 0
        page = Path(capsys.readouterr().out.strip())
        result = load_result(page.parent / "steps" / "01-loop")
        assert isinstance(result, LoopResult)
        assert result.controlled == controlled
        # The labeller is a copy of the classifier, which so cannot be wrong.
        assert result.findings[0].sentence.startswith("No gain shown")
