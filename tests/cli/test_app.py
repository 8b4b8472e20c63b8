import os
import subprocess
import sys
import time

import pytest

import failscape
from failscape.cli import main
from failscape.errors import DataError


def fresh(*code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code], capture_output=True, text=True, env=os.environ | environment, timeout=60
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["explain", "--help"],
        ["study", "nowhere.toml"],
        ["train", "vae", "--dry-run"],
    ],
)
def test_what_needs_no_network_does_not_wait_for_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from failscape.cli import main; main(sys.argv[1:]); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'matplotlib', 'pyarrow')))"
    )
    assert fresh("-c", code, *arguments).returncode == 0


def test_help_answers_at_once() -> None:
    # The quickest of a few, because other work may share the machine.
    times = []
    for _ in range(4):
        start = time.perf_counter()
        done = fresh("-c", "import failscape.cli, sys; sys.exit(failscape.cli.main(['--help']))")
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert min(times) < 1
    for command in ("demo", "study", "explain", "reproduce", "train", "calibrate", "retrain", "report"):
        assert command in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == failscape.__version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dem"], "dem"),
        (["explain"], "IMAGES"),
        (["explain", "a", "--classifier", "c"], "--generator"),
        (["explain", "a", "--classifier", "c", "--generator", "g", "--limit", "-1"], "--limit"),
        (["explain", "a", "--classifier", "c", "--generator", "g", "--limit", "many"], "many"),
        (["explain", "a", "--classifier", "c", "--generator", "g", "--mode", "x"], "boundary"),
        (["explain", "a", "--classifier", "c", "--generator", "g", "--image-shape", "1", "0", "8"], "0"),
        (["study"], "CONFIG"),
        (["study", "a", "--bogus"], "--bogus"),
        (["train", "vae", "--batch", "0"], "`batch`"),
        (["train", "vae", "--hidden", "0"], "`hidden[0]`"),
        (["train", "classifier", "--architecture", "x"], "plain-cnn"),
        (
            ["train", "classifier", "--architecture", "residual-cnn", "--width", "12"],
            "Expected `width` to be a multiple of 8 for this architecture, but got 12. Choose 16.",
        ),
        (["reproduce", "latent-sympathetic-examples"], "--out"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("failscape: error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err


def interrupt(*arguments: object, **settings: object) -> None:
    raise KeyboardInterrupt


def test_an_interruption_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("failscape.cli.studies.run", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_the_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise DataError("Expected x,\nbut got y.")

    monkeypatch.setattr("failscape.cli.studies.run", refuse)
    assert main(["demo"]) == 2
    monkeypatch.setenv("FAILSCAPE_TRACEBACK", "1")
    with pytest.raises(DataError):
        main(["demo"])
