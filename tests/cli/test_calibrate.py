from pathlib import Path

import pytest

import failscape
from failscape.cli import main


def test_a_calibrated_classifier_can_be_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "classifier", "--images", "images.npz", "--out", "calibrated"]) == 0
    said, out = capsys.readouterr().out.splitlines()
    calibrated = failscape.load_classifier(out)
    assert said.startswith(f"temperature {calibrated.temperature:.4g}, fitted on 6 images; calibration error 0.")
    assert said.endswith(" after, on 6 others")
    assert Path(out, "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert Path(out, "reliability.svg").exists()

    assert main(["calibrate", "classifier", "--images", "images.npz", "--out", "calibrated"]) == 2
    assert "holds no classifier" in capsys.readouterr().err


def test_the_temperature_of_own_code_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("code.py").write_text("import failscape\ndef load():\n    return failscape.load_classifier('classifier')\n")
    arguments = ["calibrate", "python:code.py:load", "--images", "images.npz", "--out", "calibrated"]
    assert main(arguments) == 2
    assert "--allow-code" in capsys.readouterr().err
    assert main([*arguments, "--allow-code"]) == 0
    _, advice, out = capsys.readouterr().out.splitlines()
    assert "return failscape.Classifier(..., temperature=" in advice
    assert not Path(out, "classifier.json").exists()
