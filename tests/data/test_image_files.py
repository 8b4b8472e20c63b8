from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from failscape.data import read_image_files
from failscape.errors import DataError, ImageError


def test_round_trip(class_folder: Path, digits: NDArray[np.uint8]) -> None:
    paths = [class_folder / "1" / "01.png", str(class_folder / "0" / "00.png")]
    x, ids = read_image_files(paths)
    assert torch.equal(x[:, 0], torch.from_numpy(digits[[1, 0]]).float() / 255)
    assert ids == tuple(map(str, paths))


def test_shapes(class_folder: Path, encode: Callable[..., bytes]) -> None:
    other = class_folder / "other.png"
    other.write_bytes(encode(np.zeros((9, 9, 3), np.uint8)))
    paths = [class_folder / "1" / "01.png", other]
    with pytest.raises(ImageError, match=r"01\.png is 5 x 6 and .*other\.png is 9 x 9"):
        read_image_files(paths)
    assert read_image_files(paths, image_shape=(3, 4, 4))[0].shape == (2, 3, 4, 4)


def test_none_and_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one image file"):
        read_image_files([])
    with pytest.raises(ImageError, match=r"none\.png, but got: No such file.*Check the path"):
        read_image_files([tmp_path / "none.png"])
    with pytest.raises(ImageError, match="Is a directory"):
        read_image_files([tmp_path])
