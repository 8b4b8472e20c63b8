import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from failscape.data.idx import read_idx, read_idx_pair
from failscape.errors import DataError, LabelError

Digits = NDArray[np.uint8]


def idx(array: Digits) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def pair(tmp_path: Path, digits: Digits, labels: NDArray[np.int64]) -> tuple[Path, Path]:
    paths = (tmp_path / "images", tmp_path / "labels")
    paths[0].write_bytes(idx(digits))
    paths[1].write_bytes(idx(labels.astype(np.uint8)))
    return paths


@pytest.mark.parametrize("zipped", [False, True])
def test_round_trip(pair: tuple[Path, Path], digits: Digits, zipped: bool) -> None:
    if zipped:
        for path in pair:
            path.write_bytes(gzip.compress(path.read_bytes()))
    images = read_idx_pair(*pair, name="toy")
    assert images.x.shape == (12, 1, 6, 5)
    assert np.array_equal((images.x[:, 0] * 255).round().numpy(), digits)
    assert images.y.tolist() == [0, 1, 2] * 4
    assert images.class_names == ("0", "1", "2")
    assert images.ids[11] == "toy-00011"


def test_four_axes(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
    pair[0].write_bytes(idx(colour))
    assert torch.equal(read_idx_pair(*pair, name="toy").x, torch.from_numpy(colour).float() / 255)


def test_a_raw_file_is_mapped_not_read(pair: tuple[Path, Path]) -> None:
    array = read_idx(pair[0])
    assert isinstance(array, np.memmap)
    assert array.filename == pair[0].resolve() or Path(str(array.filename)) == pair[0]


@pytest.mark.parametrize("zipped", [False, True])
def test_sum_of_what_is_decompressed(pair: tuple[Path, Path], zipped: bool) -> None:
    raw = pair[0].read_bytes()
    if zipped:
        pair[0].write_bytes(gzip.compress(raw, compresslevel=1))
    assert len(read_idx(pair[0], sha256=hashlib.sha256(raw).hexdigest())) == 12
    with pytest.raises(DataError, match=r"Expected SHA-256 0000.* but got .*Delete the file"):
        read_idx(pair[0], sha256="0" * 64)


def cut(content: bytes) -> bytes:
    return content[:-7]


def longer(content: bytes) -> bytes:
    return content + b"\0"


@pytest.mark.parametrize("change", [cut, longer])
def test_truncated_or_longer(pair: tuple[Path, Path], change: object) -> None:
    assert callable(change)
    raw = pair[0].read_bytes()
    for content in (change(raw), gzip.compress(change(raw)), cut(gzip.compress(raw))):
        pair[0].write_bytes(content)
        with pytest.raises(DataError, match=r"truncated or damaged|intact"):
            read_idx(pair[0])


def test_gzip_cut_off_in_its_header(pair: tuple[Path, Path]) -> None:
    pair[0].write_bytes(gzip.compress(pair[0].read_bytes())[:12])
    with pytest.raises(DataError, match="intact"):
        read_idx(pair[0])


def test_damaged_gzip(pair: tuple[Path, Path]) -> None:
    content = bytearray(gzip.compress(pair[0].read_bytes()))
    content[40:60] = bytes(20)
    pair[0].write_bytes(content)
    with pytest.raises(DataError, match="intact"):
        read_idx(pair[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "starts with 89 50 4e 47"),
        (struct.pack(">HBB3I", 0, 0x0D, 3, 1, 1, 1) + bytes(4), "starts with 00 00 0d 03"),
        (struct.pack(">HBBI", 0, 8, 3, 1), "truncated"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 28, 28), r"sizes are \(0, 28, 28\)"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3) + bytes(9), "truncated or damaged"),
    ],
)
def test_bad_header(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_gzip_that_claims_more_than_it_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3) + bytes(100)))
    with pytest.raises(DataError, match="truncated or forged"):
        read_idx(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "none")


def test_counts_that_differ(pair: tuple[Path, Path]) -> None:
    pair[1].write_bytes(idx(np.zeros(11, np.uint8)))
    with pytest.raises(LabelError, match="11 labels in labels for 12 images in images"):
        read_idx_pair(*pair, name="toy")


def test_label_out_of_range(pair: tuple[Path, Path]) -> None:
    with pytest.raises(LabelError, match="from 0 to 1, but got 2 for image toy-00002 and 3 more"):
        read_idx_pair(*pair, name="toy", class_names=("a", "b"))


def test_images_and_labels_swapped(pair: tuple[Path, Path]) -> None:
    with pytest.raises(LabelError, match=r"shape \(N,\) in images"):
        read_idx_pair(pair[1], pair[0], name="toy")
