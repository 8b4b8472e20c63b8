from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from failscape.data import load_images
from failscape.data.cartoon_set import read_cartoon_set
from failscape.errors import DataError, ImageError, LabelError, SpecError

Encode = Callable[..., bytes]


@pytest.fixture
def cartoons(tmp_path: Path, encode: Encode) -> Path:
    """Six cartoons of 12 x 12 pixels with transparency, three in each of two folders, as the larger set has them."""
    folder = tmp_path / "cartoonset100k"
    for i in range(6):
        file = folder / str(i % 2) / f"cs{i}00.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(np.full((12, 12, 4), (40 * i, 0, 0, 255), np.uint8)))
        file.with_suffix(".csv").write_text(f'"face_shape", 4, 7\n"hair_color", {i}, 10\n"glasses",{i % 3},12\n')
    return folder


def test_images_and_the_variants_of_an_attribute(cartoons: Path) -> None:
    images = load_images(f"cartoonset:{cartoons}#hair_color")
    assert images.class_names == tuple("0123456789")
    assert images.ids == ("0/cs000.png", "0/cs200.png", "0/cs400.png", "1/cs100.png", "1/cs300.png", "1/cs500.png")
    assert images.y.tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal((images.x[:, 0, 5, 5] * 255).round().long(), 40 * images.y)
    assert images.name == "cartoonset100k-hair_color"
    glasses = load_images(f"cartoonset:{cartoons}#glasses", image_shape=(3, 8, 8))
    assert (glasses.num_classes, glasses.x.shape) == (12, (6, 3, 8, 8))


def test_images_are_decoded_only_when_they_are_read(cartoons: Path) -> None:
    (cartoons / "1" / "cs500.png").write_bytes(b"broken")
    images = load_images(f"cartoonset:{cartoons}#hair_color")
    assert images.read(torch.arange(5)).shape == (5, 3, 12, 12)
    with pytest.raises(ImageError, match=r"cs500\.png"):
        images.read(torch.tensor([5]))


def test_unknown_attribute_or_none(cartoons: Path) -> None:
    for ending, got in (("#hair_colour", "'hair_colour'"), ("#", "''"), ("", "''")):
        with pytest.raises(SpecError, match=rf"\(face_shape, hair_color, glasses\), but got {got}"):
            load_images(f"cartoonset:{cartoons}{ending}")
    with pytest.raises(SpecError, match=r"Expected cartoonset:FOLDER#ATTRIBUTE.* no folder .*nowhere"):
        load_images(f"cartoonset:{cartoons}/nowhere#hair_color")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'"face_shape", 4, 7\n"hair_color", 10, 10\n', r"line 2 is 'hair_color, 10, 10'"),
        (b'"hair_color", -1, 10\n', "line 1 is"),
        (b'"hair_color", 3\n', "line 1 is 'hair_color, 3'"),
        (b'"hair_color", three, 10\n', "line 1 is"),
        (b'"hair_color", 3, 10\n"hair_color", 4, 10\n', "line 2 is"),
        (b'"hair_color", 3, 11\n', "same number of variants .* got 10, 11"),
        (b"\xff\xfe", "Expected a CSV file"),
        (b'"hair_color", 3, 10\n' + b"\n" * 70_000, "larger than 64 KiB"),
        (b"", "it is empty"),
    ],
)
def test_broken_csv(content: bytes, message: str, cartoons: Path) -> None:
    (cartoons / "1" / "cs300.csv").write_bytes(content)
    with pytest.raises(LabelError, match=message):
        read_cartoon_set(cartoons, "hair_color")


def test_missing_files(cartoons: Path, tmp_path: Path) -> None:
    (cartoons / "1" / "cs300.csv").unlink()
    with pytest.raises(DataError, match=r"attributes of cs300\.png in .*cs300\.csv, but got: No such file"):
        read_cartoon_set(cartoons, "hair_color")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"got no such image. Give the folder that cartoonset10k\.tgz"):
        read_cartoon_set(tmp_path / "empty", "hair_color")
