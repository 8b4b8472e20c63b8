import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import failscape
from failscape.cli import main
from failscape.training import AnySettings, ClassifierSettings, GANSettings, PolishSettings, VAESettings

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

TINY_GAN = [*TINY, "--channels", "4", "--channels", "4", "--latent-dim", "2", "--style-dim", "4"]

# Asks the brightest of three pixels.
FACTORY = """
import failscape

def make():
    return failscape.Classifier(
        lambda x: 20 * x[:, 0, 0, :3], class_names=["ant", "bee", "cat"], image_shape=(1, 8, 8)
    )
"""


def run_of(capsys: pytest.CaptureFixture[str]) -> Path:
    return Path(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    "settings", [ClassifierSettings(), GANSettings(), PolishSettings(), VAESettings()], ids=lambda each: each.kind
)
def test_every_setting_is_a_flag_with_help(settings: AnySettings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", settings.kind, "--help"]) == 0
    printed = capsys.readouterr().out
    for name, field in type(settings).model_fields.items():
        assert re.search(rf"--{name.replace('_', '-')}\b", printed), name
        assert field.description or name == "kind", name


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "gan", "--help"], ["train", "gan", "--dry-run"]]
)
def test_as_a_module_it_answers_without_torch(arguments: list[str]) -> None:
    code = (
        "import runpy, sys; from contextlib import suppress; sys.argv[0] = 'failscape'\n"
        "with suppress(SystemExit): runpy.run_module('failscape', run_name='__main__')\n"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'matplotlib', 'pyarrow')))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_dry_run_prints_the_settings_and_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "classifier", "--dry-run", "--learning-rate", "0.5", "--augment"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert ClassifierSettings.parse(printed) == ClassifierSettings(learning_rate=0.5, augment=True)
    for channels in (["--channels", "8", "--channels", "4"], ["--channels", "8", "4"]):
        assert main(["train", "gan", "--dry-run", *channels, "--bf16=false", "--r2", "0.5"]) == 0
        printed = tomllib.loads(capsys.readouterr().out)
        assert GANSettings.parse(printed) == GANSettings(channels=(8, 4), bf16=False, r2=0.5)
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


def test_a_trained_gan_can_be_loaded_and_gone_on_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "gan", *TINY_GAN, "--classifier", "none", "--name", "mine"]) == 0
    run = run_of(capsys)
    assert run == Path("runs/00001-mine")
    generator = failscape.load_generator(run)
    assert (generator.family, generator.image_shape) == ("stylegan2", (1, 8, 8))
    assert [path.name for path in (run / "samples").iterdir()] == ["000000024.png"]
    before = (run / "generator.safetensors").read_bytes()

    assert main(["train", "gan", "--resume", str(run)]) == 0

    assert run_of(capsys) == run
    assert (run / "generator.safetensors").read_bytes() == before
    for arguments, words in (
        (["gan", "--resume", str(run), "--loss", "relativistic"], "loss = logistic"),
        (["vae", "--resume", str(run)], "train gan"),
    ):
        assert main(["train", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_what_a_gan_cannot_be_trained_with_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--classifier", "classifier"], "Expected images of every class"),
        (["--classifier", "none", "--batch", "13"], "a batch, 13, but got 12"),
        (["--classifier", "none", "--channels", "4", "--channels", "4", "--channels", "4"], "8 × 8"),
        (["--classifier", "none", "--device", "cuda:7"], "CUDA device"),
        (["--classifier", "nowhere"], "nowhere"),
        (["--warmup", "5"], "`warmup`"),
    ):
        base = [each for each in TINY_GAN if "--batch" not in arguments or each not in ("--batch", "6")]
        base = [each for each in base if "--warmup" not in arguments or each not in ("--warmup", "0")]
        assert main(["train", "gan", *base, *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert words in captured.err
    assert not Path("runs").exists()


def test_code_of_a_classifier_is_run_by_leave_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("factory.py").write_text(FACTORY)
    command = ["train", "gan", *TINY_GAN, "--classifier", "python:factory.py:make"]

    assert main(command) == 2
    assert "--allow-code" in capsys.readouterr().err
    assert main([*command, "--allow-code"]) == 0
    run = run_of(capsys)
    assert main(["train", "gan", "--resume", str(run)]) == 2
    assert "--allow-code" in capsys.readouterr().err
    assert main(["train", "gan", "--resume", str(run), "--allow-code"]) == 0

    space = failscape.load_generator(run).condition_space
    assert space is not None
    assert space.num_classes == 3
    settings = json.loads((run / "generator.json").read_text())["provenance"]["settings"]
    assert settings["classifier"] == "python:factory.py:make"


def test_of_several_processes_the_first_alone_says_where_the_run_is(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "gan", *TINY_GAN, "--classifier", "none"]) == 0
    assert capsys.readouterr().out == ""
    assert Path("runs/00001-gan/generator.json").exists()
