import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Digits = NDArray[np.uint8]


@pytest.fixture
def digits() -> Digits:
    """Twelve 8-bit images of 6 x 5 pixels."""
    return np.random.default_rng(0).integers(0, 256, (12, 6, 5), dtype=np.uint8)


@pytest.fixture
def labels() -> NDArray[np.int64]:
    return np.arange(12) % 3


@pytest.fixture
def encode() -> Callable[..., bytes]:
    def encode(values: NDArray[np.uint8] | NDArray[np.uint16], format: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def class_folder(tmp_path: Path, digits: Digits, labels: NDArray[np.int64], encode: Callable[..., bytes]) -> Path:
    """The twelve digits as PNG in the folders `0`, `1` and `2`."""
    folder = tmp_path / "folder"
    for i, (image, label) in enumerate(zip(digits, labels, strict=True)):
        file = folder / str(label) / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    return folder
