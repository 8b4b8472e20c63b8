import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from failscape.storage import latest_run_folder, read_tensors
from failscape.training import (
    ClassifierSettings,
    GANSettings,
    IntroVAESettings,
    PolishSettings,
    TrainingSettings,
    VAEGANSettings,
    VAESettings,
    start_run,
)

SCRIPT = Path(__file__).with_name("killing.py")
VARYING = {"seconds", "images_per_second"}


def kill(settings: TrainingSettings, folder: Path, stride: int) -> list[tuple[int, int]]:
    (folder / "settings.toml").write_text(settings.to_toml())
    done = subprocess.run(
        [sys.executable, SCRIPT, folder / "settings.toml", folder / "out", str(stride)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(reached, saved) for reached, saved in json.loads(done.stdout)]


def records(run: Path) -> list[dict[str, Any]]:
    """What the log says of the training, without what the clock and the kills make of it."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in VARYING}
        for line in lines
        if line["event"] not in ("start", "resume")
    ]


def check_all_alike(out: Path, last_checkpoint: str, export: str) -> None:
    """Compare every killed run under `out` with the reference, bit by bit and record by record."""
    runs = {folder.name: latest_run_folder(folder) for folder in out.iterdir()}
    reference = runs.pop("reference")
    assert reference is not None
    expected = [read_tensors(reference / name) for name in (last_checkpoint, export)]
    assert any("optimizers" in key for key in expected[0])
    assert any("averaged" in key for key in expected[0])
    for name, run in runs.items():
        assert run is not None, name
        for file, tensors in zip((last_checkpoint, export), expected, strict=True):
            got = read_tensors(run / file)
            assert got.keys() == tensors.keys(), name
            assert all(torch.equal(got[key], tensors[key]) for key in tensors), name
        assert records(run) == records(reference), name


def check_losses(kills: list[tuple[int, int]], interval: int) -> None:
    assert all(0 <= reached - saved <= interval for reached, saved in kills)


# The exhaustive run takes a minute on a busy machine.
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_instant_changes_no_bit(
    stride: int, vae_settings: VAESettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "images": 96, "checkpoint_every": 32}
    settings = vae_settings.model_copy(update=changes)

    kills = kill(settings, tmp_path, stride)

    assert len(kills) > 50 / stride
    assert {saved for _, saved in kills} == {0, 32, 64, 96}
    check_losses(kills, interval=32)
    check_all_alike(tmp_path / "out", "checkpoints/000000000096.safetensors", "generator.safetensors")


def test_kills_at_random_moments_change_no_bit(
    classifier_settings: ClassifierSettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "checkpoint_every": 64}
    settings = classifier_settings.model_copy(update=changes)

    kills = kill(settings, tmp_path, 0)

    assert len(kills) > 0
    check_losses(kills, interval=64)
    check_all_alike(tmp_path / "out", "checkpoints/000000000960.safetensors", "classifier.safetensors")


# Each training takes a second, or several on a busy machine.
@pytest.mark.parametrize("stride", [22, pytest.param(3, marks=pytest.mark.slow)])
def test_a_kill_changes_no_bit_of_an_adversarial_game(
    stride: int, gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "perceive": True}
    settings = gan_settings.model_copy(update=changes)

    kills = kill(settings, tmp_path, stride)

    # Killed before the encoder's phase and within it.
    assert {saved for _, saved in kills} == {0, 64, 128, 192}
    check_losses(kills, interval=64)
    check_all_alike(tmp_path / "out", "checkpoints/000000000192.safetensors", "generator.safetensors")
    state = read_tensors(tmp_path / "out" / "reference" / "00001-gan" / "checkpoints" / "000000000192.safetensors")
    assert any("optimizers/encoder" in key for key in state)
    grids = {path.name: path.read_bytes() for path in tmp_path.rglob("reference/*/samples/*.png")}
    assert grids.keys() == {"000000096.png", "000000192.png"}
    for path in tmp_path.rglob("*/samples/*.png"):
        assert path.read_bytes() == grids[path.name]


def test_a_kill_changes_no_bit_of_a_polishing(gan_settings: GANSettings, stripes_file: Path, tmp_path: Path) -> None:
    data = {"data": str(stripes_file), "validation": str(stripes_file)}
    start = start_run(gan_settings.model_copy(update=data | {"images": 32}), tmp_path / "start")
    every = {"checkpoint_every": 32, "log_every": 16, "evaluate_every": 96}
    settings = PolishSettings.parse(
        data
        | every
        | {"start": str(start), "classifier": gan_settings.classifier, "images": 96, "batch": 16, "warmup": 32}
    )

    kills = kill(settings, tmp_path, 11)

    # Within the encoder's phase, too.
    assert {saved for _, saved in kills} >= {32, 64}
    check_losses(kills, interval=32)
    check_all_alike(tmp_path / "out", "checkpoints/000000000096.safetensors", "generator.safetensors")


# Of the two, the first has more to keep.
@pytest.mark.parametrize("kind", [VAEGANSettings, pytest.param(IntroVAESettings, marks=pytest.mark.slow)])
def test_a_kill_changes_no_bit_of_a_convolutional_autoencoder(
    kind: type[VAEGANSettings] | type[IntroVAESettings], stripes_file: Path, tmp_path: Path
) -> None:
    small = {"images": 96, "batch": 16, "checkpoint_every": 32, "log_every": 16, "channels": (8, 8), "latent_dim": 4}
    # Checkpoints fall between two penalties, so that a resumed training must know when the next is due.
    penalties = {"penalty_every": 3} if kind is VAEGANSettings else {}
    settings = kind.parse({"data": str(stripes_file), "validation": str(stripes_file)} | small | penalties)

    kills = kill(settings, tmp_path, 22)

    assert {saved for _, saved in kills} >= {32, 64}
    check_losses(kills, interval=32)
    check_all_alike(tmp_path / "out", "checkpoints/000000000096.safetensors", "generator.safetensors")
