from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import failscape
from failscape.classifiers import Classifier
from failscape.generators import VAE, load_generator, save_generator
from failscape.metrics import MEASUREMENTS, Measurement
from failscape.study.config import StepConfig
from failscape.study.fingerprint import classifier_digest, generator_digest, step_fingerprint, step_seed


def linear(seed: int, dtype: torch.dtype = torch.float32, **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(4, 2)
    head.register_buffer("spare", torch.ones((), dtype=dtype))
    return Classifier(nn.Sequential(nn.Flatten(), head), image_shape=(1, 2, 2), **settings)


def test_the_same_classifier_has_the_same_digest() -> None:
    assert classifier_digest(linear(0), "a") == classifier_digest(linear(0), "another path")


@pytest.mark.parametrize(
    "other",
    [linear(1), linear(0, temperature=2.0), linear(0, class_names=("a", "b")), linear(0, torch.bfloat16)],
    ids=["weights", "temperature", "names", "type of a buffer"],
)
def test_another_classifier_has_another(other: Classifier) -> None:
    assert classifier_digest(other, "a") != classifier_digest(linear(0), "a")


def test_the_code_of_a_python_spec_counts(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("x = 1")
    before = classifier_digest(linear(0), f"python:{file}:make")
    file.write_text("x = 2")
    assert classifier_digest(linear(0), f"python:{file}:make") != before


def test_a_generator_survives_saving_with_the_same_digest(tmp_path: Path) -> None:
    vae = VAE(image_shape=(1, 4, 4), latent_dim=2, hidden=(8,))
    save_generator(vae, tmp_path)
    assert generator_digest(load_generator(tmp_path)) == generator_digest(vae)
    other = VAE(image_shape=(1, 4, 4), latent_dim=2, hidden=(8,))
    assert generator_digest(other) != generator_digest(vae)


def test_a_step_is_told_by_its_settings_inputs_and_our_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(settings: dict[str, Any], **inputs: str) -> str:
        return step_fingerprint(StepConfig(method="m", settings=settings), **inputs)

    first = fingerprint({"a": 1, "b": 2}, images="i")
    assert fingerprint({"b": 2, "a": 1}, images="i") == first
    assert fingerprint({"a": 1, "b": 3}, images="i") != first
    assert fingerprint({"a": 1, "b": 2}, images="j") != first
    monkeypatch.setattr(failscape, "__version__", "99")
    assert fingerprint({"a": 1, "b": 2}, images="i") != first


def test_a_step_is_told_by_the_measurements_that_name_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint() -> str:
        return step_fingerprint(StepConfig(method="m"))

    def red(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0].mean(dim=(1, 2))

    def redder(x: torch.Tensor) -> torch.Tensor:
        return 2 * x[:, 0].mean(dim=(1, 2))

    words = {"unit": "", "more": "reddens", "less": "takes red away", "digits": 2, "smallest": 0.02}
    mine = Measurement(name="red", measure=red, **words)
    seen = {fingerprint()}
    for other in (
        mine,
        replace(mine, smallest=0.1),
        replace(mine, tier=0),
        replace(mine, measure=redder),
        # Of what is no function there is no source.
        replace(mine, measure=partial(red)),
    ):
        monkeypatch.setitem(MEASUREMENTS, "red", other)
        assert fingerprint() not in seen
        seen.add(fingerprint())
    monkeypatch.delitem(MEASUREMENTS, "red")
    assert fingerprint() in seen
    assert len(seen) == 6


def test_every_step_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
