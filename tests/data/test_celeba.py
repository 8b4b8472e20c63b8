from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from failscape import load_classifier, load_generator
from failscape.data import load_images
from failscape.errors import ConfigError, DataError, ImageError, LabelError, SpecError
from failscape.training import ClassifierSettings, WGANSettings, read_settings, resume_run, start_run

NAMES = [f"{i:06d}.jpg" for i in range(1, 9)]
SMILING = [1, -1, 1, -1, 1, 1, -1, -1]
PARTS = [0, 0, 0, 0, 1, 1, 2, 2]
ATTRIBUTES = ["5_o_Clock_Shadow", "Smiling", "Young"]


@pytest.fixture
def celeba(tmp_path: Path, encode: Callable[..., bytes]) -> Path:
    """Eight grey photographs of 12 x 10 pixels with three attributes: four to train on, two and two."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        pixels = np.full((12, 10, 3), 30 * i, np.uint8)
        (folder / "img_align_celeba" / name).write_bytes(encode(pixels, "JPEG", quality=100))
    lines = [f"{name}  1 {smiling:2d} -1 \n" for name, smiling in zip(NAMES, SMILING, strict=True)]
    (folder / "list_attr_celeba.txt").write_text(f"8\n{' '.join(ATTRIBUTES)} \n{''.join(lines)}")
    parts = [f"{name} {part}\n" for name, part in zip(NAMES, PARTS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(parts))
    return folder


def test_the_three_parts(celeba: Path) -> None:
    for part, rows in (("train", range(4)), ("validation", range(4, 6)), ("test", range(6, 8))):
        images = load_images(f"celeba:{celeba}#Smiling:{part}", allow_one_class=True)
        assert images.ids == tuple(NAMES[i] for i in rows)
        assert images.y.tolist() == [int(SMILING[i] == 1) for i in rows]
        assert (images.x[:, 0, 5, 5] * 255 - torch.tensor([30.0 * i for i in rows])).abs().max() <= 1
        assert (images.class_names, images.name) == (("not Smiling", "Smiling"), f"celeba-Smiling-{part}")
    assert load_images(f"celeba:{celeba}#Smiling", allow_one_class=True).ids == tuple(NAMES[6:])
    assert load_images(f"celeba:{celeba}#Smiling:train", image_shape=(3, 8, 8)).x.shape == (4, 3, 8, 8)
    assert load_images(f"celeba:{celeba}#Smiling:train+contrast@1").image_shape == (3, 12, 10)


def test_the_folders_of_the_archive(celeba: Path) -> None:
    expected = load_images(f"celeba:{celeba}#Smiling:train").x
    for name, place in (
        ("img_align_celeba", "Img"),
        ("list_attr_celeba.txt", "Anno"),
        ("list_eval_partition.txt", "Eval"),
    ):
        (celeba / place).mkdir()
        (celeba / name).rename(celeba / place / name)
    assert torch.equal(load_images(f"celeba:{celeba}#Smiling:train").x, expected)


def test_unknown_attribute_or_part(celeba: Path) -> None:
    for ending, got in (("#Smling:train", "'Smling'"), ("", "''")):
        with pytest.raises(SpecError, match=rf"\(5_o_Clock_Shadow, Smiling, Young\), but got {got}"):
            load_images(f"celeba:{celeba}{ending}")
    with pytest.raises(SpecError, match=r"\(train, validation, test\) after the attribute, but got 'val'"):
        load_images(f"celeba:{celeba}#Smiling:val")
    with pytest.raises(SpecError, match="Did you mean half-corrupted"):
        load_images(f"celeba:{celeba}#Smiling:train+half-corupted")
    with pytest.raises(SpecError, match=r"no folder .*a\+b"):
        load_images("celeba:a+b#Smiling:train")
    with pytest.raises(LabelError, match="only 'not Young'"):
        load_images(f"celeba:{celeba}#Young:train")


@pytest.mark.parametrize("name", ["img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"])
def test_missing_files(name: str, celeba: Path) -> None:
    (celeba / name).rename(celeba / "away")
    with pytest.raises(DataError, match=rf"Expected {name} in .*celeba or in .*but it is in neither"):
        load_images(f"celeba:{celeba}#Smiling")


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("list_attr_celeba.txt", b"", LabelError, "in the first two lines"),
        ("list_attr_celeba.txt", b"A B C\n000001.jpg 1 1 1\n", LabelError, "in the first two lines"),
        ("list_attr_celeba.txt", b"1\nA Smiling\n000001.jpg 1\n", LabelError, "2 times 1 or -1 in line 3"),
        ("list_attr_celeba.txt", b"1\nA Smiling\n000001.jpg 1 0\n", LabelError, "line 3"),
        ("list_attr_celeba.txt", b"1\nA Smiling\n000001.jpg 1 1\n", LabelError, r"attributes of 000002\.jpg"),
        ("list_attr_celeba.txt", b"\xff\xfe\xff", DataError, "readable text file"),
        ("list_eval_partition.txt", b"000001.jpg 0\n000002.jpg 3\n", LabelError, "0, 1 or 2 in line 2"),
        ("list_eval_partition.txt", b"000001.jpg\n", LabelError, "line 1"),
        ("list_eval_partition.txt", b"000001.jpg 2\n", DataError, "images of the part train .* got none"),
        ("list_eval_partition.txt", b"000009.jpg 0\n", DataError, r"000009\.jpg is not there"),
    ],
)
def test_broken_lists(file: str, content: bytes, error: type[DataError], message: str, celeba: Path) -> None:
    (celeba / file).write_bytes(content)
    with pytest.raises(error, match=message):
        load_images(f"celeba:{celeba}#Smiling:train")


def test_images_are_decoded_only_when_they_are_read(celeba: Path) -> None:
    (celeba / "img_align_celeba" / NAMES[3]).write_bytes(b"broken")
    images = load_images(f"celeba:{celeba}#Smiling:train")
    assert images.read(torch.arange(3)).shape == (3, 3, 12, 10)
    with pytest.raises(ImageError, match=NAMES[3]):
        images.read(torch.tensor([3]))


@pytest.mark.parametrize("network", ["wgan", "classifier"])
def test_networks_are_trained_on_images_brought_to_a_shape(network: str, celeba: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "runs", f"celeba:{celeba}#Smiling:train"
    # Of 4 to train on; two steps.
    # A classifier is evaluated on images of that shape too; of a generator some thousand samples would be drawn for it.
    validation = data if network == "classifier" else "none"
    told: dict[str, Any] = {"data": data, "validation": validation, "images": 8, "batch": 4, "warmup": 0}
    convolutions: dict[str, Any] = {"channels": (4, 4), "latent_dim": 2, "critic_steps": 1, "bf16": False}
    shaped = told | {"image_shape": (3, 32, 32)}
    settings = WGANSettings(**shaped, **convolutions) if network == "wgan" else ClassifierSettings(**shaped, width=4)
    run = start_run(settings, out)
    assert (load_generator if network == "wgan" else load_classifier)(run).image_shape == (3, 32, 32)
    assert read_settings(run / "train.toml") == settings
    # It goes on with images of that shape.
    assert resume_run(run) == run


def test_a_training_on_another_shape_is_refused_by_name(celeba: Path, tmp_path: Path) -> None:
    told = {"data": f"celeba:{celeba}#Smiling:train", "validation": "none", "images": 8, "batch": 4}
    for shape in ((3, 32), (3, 0, 32), (3, 32, 32, 1), "32"):
        with pytest.raises(ConfigError, match="Expected valid training settings, but got image_shape"):
            WGANSettings.parse(told | {"image_shape": shape})
    with pytest.raises(ImageError, match="with C of 1 or 3, but got"):
        start_run(WGANSettings.parse(told | {"image_shape": (2, 32, 32)}), tmp_path / "runs")
    digits = told | {"data": "embedded:mnist-test", "image_shape": (1, 32, 32)}
    with pytest.raises(ImageError, match="Only encoded images are resized"):
        start_run(WGANSettings.parse(digits), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
