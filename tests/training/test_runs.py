import json
from pathlib import Path

import numpy as np
import pytest

from failscape import __version__, load_classifier, load_generator
from failscape.errors import ConfigError, DataError, LabelError, SpecError
from failscape.training import (
    ClassifierSettings,
    VAESettings,
    read_settings,
    resume_run,
    train_classifier,
    train_vae,
)


def test_a_classifier_is_trained_saved_and_says_where_it_comes_from(
    classifier_settings: ClassifierSettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "half": True}
    settings = classifier_settings.model_copy(update=changes)

    folder = train_classifier(settings, tmp_path / "out")

    assert folder == tmp_path / "out" / "00001-classifier"
    assert load_classifier(folder).image_shape == (1, 8, 8)
    provenance = json.loads((folder / "classifier.json").read_text())["provenance"]
    assert ClassifierSettings.parse(provenance["settings"]) == settings
    assert provenance["failscape"] == __version__
    assert provenance["command"]
    last = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][-1]
    assert provenance["reached"]["accuracy"] == last["accuracy"]


def test_a_vae_learns_from_images_of_one_class(vae_settings: VAESettings, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=np.random.default_rng(0).random((40, 8, 8), dtype=np.float32), y=np.zeros(40, dtype=int))

    folder = train_vae(vae_settings.model_copy(update={"data": str(path)}), tmp_path / "out")

    assert load_generator(folder).image_shape == (1, 8, 8)


def test_a_classifier_does_not(classifier_settings: ClassifierSettings, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=np.zeros((40, 8, 8), dtype=np.float32), y=np.zeros(40, dtype=int))

    with pytest.raises(LabelError):
        train_classifier(classifier_settings.model_copy(update={"data": str(path)}), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_finished_run_resumes_to_the_same_files(
    vae_settings: VAESettings, stripes_file: Path, tmp_path: Path
) -> None:
    settings = vae_settings.model_copy(update={"data": str(stripes_file)})
    folder = train_vae(settings, tmp_path / "out")
    (folder / "generator.safetensors").rename(tmp_path / "first.safetensors")

    assert resume_run(folder) == folder

    assert (folder / "generator.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
    assert read_settings(folder / "train.toml") == settings


def test_a_wrong_spec_leaves_no_run_behind(vae_settings: VAESettings, tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        train_vae(vae_settings.model_copy(update={"data": "nothing"}), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_validation_of_another_kind_leaves_no_run_behind(
    vae_settings: VAESettings, stripes_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wide.npz"
    np.savez(path, x=np.zeros((4, 8, 9), dtype=np.float32), y=np.arange(4) % 2)
    settings = vae_settings.model_copy(update={"data": str(stripes_file), "validation": str(path)})

    with pytest.raises(DataError, match=r"\(1, 8, 9\)"):
        train_vae(settings, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.toml"):
        resume_run(tmp_path)
