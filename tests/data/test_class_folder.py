import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from failscape.data.class_folder import read_class_folder
from failscape.errors import DataError, ImageError

Digits = NDArray[np.uint8]
Encode = Callable[..., bytes]


def test_round_trip_in_sorted_order(class_folder: Path, digits: Digits, labels: NDArray[np.int64]) -> None:
    images = read_class_folder(class_folder)
    order = np.argsort(labels, kind="stable")
    assert images.ids == tuple(f"{labels[i]}/{i:02d}.png" for i in order)
    assert images.y.tolist() == labels[order].tolist()
    assert np.array_equal((images.x[:, 0] * 255).round().numpy(), digits[order])
    assert images.class_names == ("0", "1", "2")
    assert images.name == "folder"


def test_only_the_files_asked_for_are_decoded(class_folder: Path) -> None:
    images = read_class_folder(class_folder)
    good = 5
    for i, name in enumerate(images.ids):
        if i != good:
            (class_folder / name).write_bytes(b"broken")
    assert images.read(torch.tensor([good])).shape == (1, 1, 6, 5)
    with pytest.raises(ImageError, match=r"0/03\.png"):
        images.read(torch.tensor([good, 1]))


def test_what_is_an_image_and_what_a_class(class_folder: Path, digits: Digits, encode: Encode) -> None:
    before = len(read_class_folder(class_folder))
    (class_folder / "notes.txt").write_text("no image")
    (class_folder / "0" / "notes.txt").write_text("no image")
    (class_folder / "0" / "._hidden.png").write_bytes(b"no image")
    (class_folder / ".hidden").mkdir()
    (class_folder / "5 empty").mkdir()
    (class_folder / "1" / "deeper").mkdir()
    (class_folder / "1" / "deeper" / "a.PNG").write_bytes(encode(digits[0]))
    (class_folder / "1" / "b.webp").write_bytes(encode(digits[0], "WEBP", lossless=True))
    images = read_class_folder(class_folder)
    assert images.class_names == ("0", "1", "2", "5 empty")
    assert len(images) == before + 2
    assert {"1/deeper/a.PNG", "1/b.webp"} < set(images.ids)


def test_asked_for_shape(class_folder: Path, encode: Encode) -> None:
    (class_folder / "1" / "large.png").write_bytes(encode(np.zeros((20, 30, 3), np.uint8)))
    with pytest.raises(ImageError, match=r"one size.*00\.png is 5 x 6 and .*large\.png is 30 x 20"):
        read_class_folder(class_folder).x  # noqa: B018
    assert read_class_folder(class_folder, image_shape=(3, 8, 8)).x.shape == (13, 3, 8, 8)


def test_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"but got none. Put each image into"):
        read_class_folder(tmp_path)
    (tmp_path / "class").mkdir()
    with pytest.raises(DataError, match="but got none"):
        read_class_folder(tmp_path)


def test_no_class_folders(tmp_path: Path, digits: Digits, encode: Encode) -> None:
    (tmp_path / "a.png").write_bytes(encode(digits[0]))
    (tmp_path / "b.png").write_bytes(encode(digits[1]))
    with pytest.raises(DataError, match="2 images outside any class folder"):
        read_class_folder(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_class_folder(tmp_path / "none")


def test_names_that_are_no_text_are_spelled_out(tmp_path: Path, digits: Digits, encode: Encode) -> None:
    """An archive packed elsewhere: its bytes are a name to Linux, but cannot be written into a table or a page."""
    for name in (b"caf\xe9", b"cat"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        (folder / os.fsdecode(b"\xff.png")).write_bytes(encode(digits[0]))
    images = read_class_folder(tmp_path)
    assert images.class_names == ("caf\\xe9", "cat")
    assert tuple(images.ids) == ("caf\\xe9/\\xff.png", "cat/\\xff.png")
    assert torch.equal(images.read(torch.tensor([1])), images.read(torch.tensor([0])))
    "".join((*images.ids, *images.class_names)).encode()
