import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from failscape import __version__, load_classifier, load_generator
from failscape.errors import CheckpointError, ConfigError, DataError, GeneratorError, LabelError, SpecError
from failscape.training import ClassifierSettings, GANSettings, VAESettings, read_settings, resume_run, start_run


def provenance_of(folder: Path) -> dict[str, Any]:
    (description,) = [*folder.glob("classifier.json"), *folder.glob("generator.json")]
    provenance: dict[str, Any] = json.loads(description.read_text())["provenance"]
    return provenance


def test_a_classifier_is_trained_saved_and_says_where_it_comes_from(
    classifier_settings: ClassifierSettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "half": True}
    settings = classifier_settings.model_copy(update=changes)

    folder = start_run(settings, tmp_path / "out")

    assert folder == tmp_path / "out" / "00001-classifier"
    assert load_classifier(folder).image_shape == (1, 8, 8)
    provenance = provenance_of(folder)
    assert ClassifierSettings.parse(provenance["settings"]) == settings
    assert provenance["failscape"] == __version__
    assert provenance["command"]
    last = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][-1]
    assert provenance["reached"]["accuracy"] == last["accuracy"]


def test_a_vae_learns_from_images_of_one_class(vae_settings: VAESettings, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=np.random.default_rng(0).random((40, 8, 8), dtype=np.float32), y=np.zeros(40, dtype=int))

    folder = start_run(vae_settings.model_copy(update={"data": str(path)}), tmp_path / "out")

    assert load_generator(folder).image_shape == (1, 8, 8)


def test_a_classifier_does_not(classifier_settings: ClassifierSettings, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=np.zeros((40, 8, 8), dtype=np.float32), y=np.zeros(40, dtype=int))

    with pytest.raises(LabelError):
        start_run(classifier_settings.model_copy(update={"data": str(path)}), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_finished_run_resumes_to_the_same_files(
    vae_settings: VAESettings, stripes_file: Path, tmp_path: Path
) -> None:
    settings = vae_settings.model_copy(update={"data": str(stripes_file)})
    folder = start_run(settings, tmp_path / "out")
    (folder / "generator.safetensors").rename(tmp_path / "first.safetensors")

    assert resume_run(folder) == folder

    assert (folder / "generator.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
    assert read_settings(folder / "train.toml") == settings


def test_a_gan_is_trained_saved_and_shows_samples(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    oracle = shutil.copytree(gan_settings.classifier, tmp_path / "oracle")
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "oracle": str(oracle)}
    settings = gan_settings.model_copy(update=changes)

    folder = start_run(settings, tmp_path / "out")

    generator = load_generator(folder)
    assert generator.image_shape == (1, 8, 8)
    assert generator.condition_space is not None
    assert generator.condition_space.num_classes == 2
    assert {"frechet", "floor", "recall", "spearman", "oracle_spearman"} <= provenance_of(folder)["reached"].keys()
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["000000096.png", "000000192.png"]


@pytest.mark.parametrize("classifier", [True, False])
def test_a_checkpoint_of_another_resolution_is_refused(
    classifier: bool, gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file)} | ({} if classifier else {"classifier": "none"})
    folder = start_run(gan_settings.model_copy(update=changes), tmp_path / "out")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with np.load(stripes_file) as arrays:
        x, y = arrays["x"], arrays["y"]
    np.savez(stripes_file, x=x.repeat(2, axis=2).repeat(2, axis=3), y=y)

    with pytest.raises(CheckpointError, match=r"shape \(1, 8, 8\).*stripes are now \(1, 16, 16\)\. Restore the images"):
        resume_run(folder)

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_begins_with_another_run_and_goes_on_without_it(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    settings = gan_settings.model_copy(update={"data": str(stripes_file), "augment": "none"})
    first = start_run(settings, tmp_path / "out")
    # One step at a rate of almost nothing leaves what it began with.
    changes = {"start": str(first), "learning_rate": 1e-12, "images": 16, "encoder_from": 1.0}

    second = start_run(settings.model_copy(update=changes), tmp_path / "out")

    theirs, ours = (load_generator(run).state_dict() for run in (first, second))
    for name, tensor in theirs.items():
        if name != "mean_w":
            torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-4)
    origin = provenance_of(first)
    assert "start" not in origin
    assert provenance_of(second)["start"] == origin
    third = start_run(settings.model_copy(update=changes | {"start": str(second)}), tmp_path / "out")
    assert provenance_of(third)["start"] == provenance_of(second)
    shutil.rmtree(first)
    assert resume_run(second) == second
    assert provenance_of(second)["start"] == origin


def test_of_a_run_that_was_cut_off_the_provenance_says_how_far_it_came(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"data": str(stripes_file), "augment": "none", "images": 32, "checkpoint_every": 16}
    first = start_run(gan_settings.model_copy(update=changes), tmp_path / "out")
    for left in (*first.glob("generator.*"), *first.glob("checkpoints/000000000032.*")):
        left.unlink()

    second = start_run(gan_settings.model_copy(update=changes | {"start": str(first)}), tmp_path / "out")

    begun = provenance_of(second)["start"]
    assert begun["reached"]["images"] == 16
    assert 0 < begun["reached"]["seconds"] < 60
    assert GANSettings.parse(begun["settings"]) == read_settings(first / "train.toml")


def test_one_that_was_cut_off_before_its_first_checkpoint_begins_with_the_other_run_again(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    settings = gan_settings.model_copy(update={"data": str(stripes_file), "augment": "none", "images": 32})
    first = start_run(settings, tmp_path / "out")
    second = start_run(settings.model_copy(update={"start": str(first)}), tmp_path / "out")
    whole = (second / "generator.safetensors").read_bytes()
    shutil.rmtree(second / "checkpoints")

    resume_run(second)

    assert (second / "generator.safetensors").read_bytes() == whole


def test_a_run_to_begin_with_that_is_none_leaves_no_run_behind(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    settings = gan_settings.model_copy(update={"data": str(stripes_file), "start": str(tmp_path / "nothing")})

    with pytest.raises(CheckpointError, match="there is none"):
        start_run(settings, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_gan_that_cannot_draw_the_images_leaves_no_run_behind(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    settings = gan_settings.model_copy(update={"data": str(stripes_file), "channels": (8, 8, 8, 8, 8)})

    with pytest.raises(GeneratorError, match="8 × 8"):
        start_run(settings, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_too_few_images_to_evaluate_on_leave_no_run_behind(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    with np.load(stripes_file) as arrays:
        np.savez(tmp_path / "few.npz", x=arrays["x"][:3], y=arrays["y"][:3])
    changes = {"data": str(stripes_file), "validation": str(tmp_path / "few.npz")}

    with pytest.raises(DataError, match="at least 4 validation images to compare generated ones with, but got 3"):
        start_run(gan_settings.model_copy(update=changes), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_wrong_spec_leaves_no_run_behind(vae_settings: VAESettings, tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        start_run(vae_settings.model_copy(update={"data": "nothing"}), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_validation_of_another_kind_leaves_no_run_behind(
    vae_settings: VAESettings, stripes_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wide.npz"
    np.savez(path, x=np.zeros((4, 8, 9), dtype=np.float32), y=np.arange(4) % 2)
    settings = vae_settings.model_copy(update={"data": str(stripes_file), "validation": str(path)})

    with pytest.raises(DataError, match=r"\(1, 8, 9\)"):
        start_run(settings, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.toml"):
        resume_run(tmp_path)
