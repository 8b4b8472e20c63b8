import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from failscape.cli import main
from failscape.cli.app import app
from failscape.explain import SympatheticExamples
from failscape.study import StudyConfig, read_steps

MODELS = ["--classifier", "classifier", "--generator", "generator"]


def page(capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the path that the last line of output names, checked to be a report."""
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path.name == "report.html"
    assert path.read_text().startswith("<!")
    return path


def save(x: object, y: object) -> None:
    np.savez("images.npz", x=np.asarray(x), y=np.asarray(y))


def test_a_study_ends_with_the_path_of_its_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "study.toml"]) == 0
    assert page(capsys) == Path("runs/00001-toy/report.html")
    assert main(["study", "study.toml"]) == 0
    assert page(capsys) == Path("runs/00001-toy/report.html")
    assert main(["study", "study.toml", "--out", "elsewhere"]) == 0
    assert page(capsys) == Path("elsewhere/00001-toy/report.html")


def test_the_demo_ends_with_the_command_that_opens_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small study in place of the demo's, which takes minutes.
    monkeypatch.setattr("failscape.cli.studies.demo_study", lambda: StudyConfig.from_toml(Path("study.toml")))
    assert main(["demo", "--out", "some runs"]) == 0
    *_, report, command = capsys.readouterr().out.splitlines()
    assert Path(report) == Path("some runs/00001-toy/report.html")
    words = shlex.split(command.partition(": ")[2])
    assert words == ["failscape", "serve", "some runs/00001-toy"]
    app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_explaining_a_labelled_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "explain",
        "images.npz",
        *MODELS,
        "--oracle",
        "classifier",
        "--limit",
        "2",
        "--mode",
        "confident",
    ]
    assert main(arguments) == 0
    run = page(capsys).parent
    assert run == Path("runs/00001-explain")
    config = StudyConfig.from_toml(run / "study.toml")
    assert config.images.limit == 2
    assert config.steps[0].settings == {"mode": "confident"}
    assert config.oracle is not None
    assert len(SympatheticExamples.result_type.load(run / "steps" / "01-sympathetic-examples").images) == 2


def test_explaining_image_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("a.png", 8), ("b.JPG", 8), ("large.png", 16)):
        levels = np.random.default_rng(size).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(levels).save(name, "PNG")
    # The toy classifier says the same of all, so at least two of the three targets are mistakes.
    for target in ("ant", "bee", "cat"):
        assert main(["explain", "a.png", "b.JPG", *MODELS, "--target", target]) == 0
        config = StudyConfig.from_toml(page(capsys).parent / "study.toml")
        assert (config.images.files, config.images.target) == (("a.png", "b.JPG"), target)
    arguments = ["explain", "large.png", *MODELS, "--target", "ant"]
    assert main(arguments) == 2
    assert "(1, 16, 16)" in capsys.readouterr().err
    assert main([*arguments, "--image-shape", "1", "8", "8"]) == 0


@pytest.mark.parametrize(
    ("images", "words"), [(["a.png"], "--target"), (["a.png", "set"], "'set'"), (["set", "set2"], "'set'")]
)
def test_images_that_do_not_go_together_are_refused(
    capsys: pytest.CaptureFixture[str], images: list[str], words: str
) -> None:
    assert main(["explain", *images, *MODELS]) == 2
    assert words in capsys.readouterr().err


def test_the_latest_report_is_found_by_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("00009-toy", "00010-toy", "100000-toy"):
        Path("runs", name).mkdir(parents=True)
    assert main(["report", "latest"]) == 0
    assert page(capsys) == Path("runs/100000-toy/report.html")
    assert main(["report", "runs/00009-toy"]) == 0
    assert page(capsys) == Path("runs/00009-toy/report.html")
    assert main(["report", "latest", "--out", "nothing-here"]) == 2
    assert main(["report", "nothing-here"]) == 2


def test_a_failed_step_is_exit_code_2_after_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("code.py").write_text(
        "import failscape\n"
        "def blind():\n"
        "    make = lambda x: x.detach().flatten(1)[:, :3]\n"
        "    return failscape.Classifier(make, image_shape=(1, 8, 8), class_names=('ant', 'bee', 'cat'))\n"
    )
    arguments = ["explain", "images.npz", "--classifier", "python:code.py:blind", "--generator", "generator"]
    assert main(arguments) == 2
    assert "--allow-code" in capsys.readouterr().err
    assert main([*arguments, "--allow-code"]) == 2
    captured = capsys.readouterr()
    report = Path(captured.out.splitlines()[-1])
    error = read_steps(report.parent)[0]["error"]
    assert "gradients" in error
    assert "gradients" in report.read_text()
    assert captured.err.count("\n") == 1
    assert "1 failed (sympathetic-examples)" in captured.err


def spoil(what: str) -> list[str]:
    """Spoil one of the inputs in the current folder and return the arguments of a command that meets it."""
    x, y = np.zeros((4, 8, 8), np.float32), [0, 1, 2, 0]
    study = Path("study.toml").read_text()
    nan = x.copy()
    nan[2, 3, 3] = np.nan
    weights = Path("classifier/classifier.safetensors")
    match what:
        case "image size":
            save(np.zeros((4, 9, 9), np.uint8), y)
        case "channels":
            save(np.zeros((4, 8, 8, 3), np.uint8), y)
        case "values outside":
            save(x + 2, y)
        case "NaN":
            save(nan, y)
        case "labels out of range":
            save(x, [0, 1, -2, 0])
        case "one class only":
            save(x, [1, 1, 1, 1])
        case "other number of classes":
            save(x, [0, 1, 2, 3])
        case "pickle in the images":
            np.savez("images.npz", x=np.array([{}, {}], dtype=object), y=np.array([0, 1]))
        case "truncated images":
            Path("images.npz").write_bytes(Path("images.npz").read_bytes()[:-100])
        case "empty folder":
            Path("images").mkdir()
            Path("study.toml").write_text(study.replace("images.npz", "images"))
        case "corrupt image":
            for name in ("ant", "bee", "cat"):
                Path("images", name).mkdir(parents=True)
                Path("images", name, "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
            Path("study.toml").write_text(study.replace("images.npz", "images"))
        case "truncated weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "hostile weights":
            weights.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
        case "pickle for weights":
            weights.write_bytes(b"\x80\x04N.")
        case "pickle by name":
            Path("model.pt").write_bytes(b"\x80\x04N.")
            Path("study.toml").write_text(study.replace('"classifier"', '"model.pt"'))
        case "network returns NaN":
            Path("code.py").write_text(
                "import failscape\n"
                "def nan():\n"
                "    make = lambda x: x.flatten(1)[:, :3] * float('nan')\n"
                "    return failscape.Classifier(make, image_shape=(1, 8, 8))\n"
            )
            Path("study.toml").write_text(study.replace('"classifier"', '"python:code.py:nan"'))
        case "unknown key":
            Path("study.toml").write_text("sede = 3\n" + study)
        case "unknown setting":
            Path("study.toml").write_text(study.replace("rounds", "ronds"))
        case "file in place of the output":
            Path("taken").write_text("mine")
            return ["study", "study.toml", "--out", "taken"]
    return ["study", "study.toml", "--allow-code"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("image size", "(1, 9, 9)"),
        ("channels", "(3, 8, 8)"),
        ("values outside", "[0, 1]"),
        ("NaN", "NaN"),
        ("labels out of range", "-2"),
        ("one class only", "2 classes"),
        ("other number of classes", "classes"),
        ("pickle in the images", "images.npz"),
        ("truncated images", "images.npz"),
        ("empty folder", "images"),
        ("corrupt image", "a.png"),
        ("truncated weights", "safetensors"),
        ("hostile weights", "safetensors"),
        ("pickle for weights", "pickle"),
        ("pickle by name", "pickle"),
        ("network returns NaN", "NaN"),
        ("unknown key", "'seed'"),
        ("unknown setting", "'rounds'"),
        ("file in place of the output", "taken"),
    ],
)
def test_bad_input_is_one_line_and_leaves_earlier_results_untouched(
    folder: Path, capsys: pytest.CaptureFixture[str], what: str, words: str
) -> None:
    earlier = Path("runs/00001-toy/steps/01-sympathetic-examples/step.json")
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    assert main(spoil(what)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("failscape: error: Expected ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert earlier.read_text() == "{}"


def test_the_installed_command_says_it_in_one_line(folder: Path) -> None:
    command = Path(sys.executable).with_name("failscape")
    arguments = [command, "explain", "nowhere", *MODELS]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("failscape: error: Expected ")
    assert done.stderr.count("\n") == 1


def test_an_unknown_reproduction_names_the_known_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "nothing", "--out", "results"]) == 2
    assert "latent-sympathetic-examples" in capsys.readouterr().err
    assert not Path("results").exists()
