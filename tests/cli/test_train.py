import tomllib
from pathlib import Path

import pytest

import failscape
from failscape.cli import main
from failscape.training import ClassifierSettings

TINY = [
    "--images",
    "24",
    "--batch",
    "6",
    "--warmup",
    "0",
    "--data",
    "images.npz",
    "--validation",
    "images.npz",
]


def test_a_dry_run_prints_the_settings_and_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "classifier", "--dry-run", "--learning-rate", "0.5", "--augment"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert ClassifierSettings.parse(printed) == ClassifierSettings(learning_rate=0.5, augment=True)
    assert not Path("runs").exists()


def test_a_trained_classifier_can_be_loaded_and_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "classifier", *TINY, "--width", "4", "--name", "mine"]) == 0
    run = Path(capsys.readouterr().out.splitlines()[-1])
    assert run == Path("runs/00001-mine")
    assert failscape.load_classifier(run).num_classes == 3


def test_a_trained_vae_can_be_loaded_and_gone_on_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "vae", *TINY, "--hidden", "8", "--hidden", "4", "--latent-dim", "2"]) == 0
    run = capsys.readouterr().out.splitlines()[-1]
    before = Path(run, "generator.safetensors").read_bytes()
    assert failscape.load_generator(run).latent_dim == 2
    assert main(["train", "vae", "--resume", run, "--latent-dim", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == run
    assert Path(run, "generator.safetensors").read_bytes() == before

    for arguments, words in (
        (["vae", "--resume", run, "--batch", "7"], "batch = 6"),
        (["classifier", "--resume", run], "train vae"),
        (["vae", "--resume", "nowhere"], "nowhere"),
        (["vae", "--data", "nowhere"], "nowhere"),
    ):
        assert main(["train", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert words in captured.err
    assert Path(run, "generator.safetensors").read_bytes() == before
