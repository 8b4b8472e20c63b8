import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from failscape.data import ImageSet
from failscape.data.npz import KEY_PAIRS, read_npz
from failscape.errors import DataError, ImageError, LabelError

Digits = NDArray[np.uint8]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toy.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keys", KEY_PAIRS)
def test_round_trip(path: Path, digits: Digits, labels: NDArray[np.int64], save: Any, keys: tuple[str, str]) -> None:
    save(path, **{keys[0]: digits, keys[1]: labels})
    images = read_npz(path)
    assert np.array_equal((images.x[:, 0] * 255).round().numpy(), digits)
    assert images.y.tolist() == labels.tolist()
    assert images.name == "toy"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_axes_types_and_fortran_order(path: Path, save: Any, dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (7, 3, 6, 5)) / 256
    y = np.arange(7, dtype=np.uint8)[:, None] % 2
    for stored in (x, x.transpose(0, 2, 3, 1), np.asfortranarray(x)):
        save(path, x=stored.astype(dtype), y=y)
        assert torch.equal(read_npz(path).x, torch.from_numpy(x).float())


def test_first_pair_of_keys_and_class_names(path: Path, digits: Digits, labels: NDArray[np.int64]) -> None:
    np.savez(
        path,
        x_train=digits,
        y_train=labels,
        x_test=digits[:5],
        y_test=labels[:5],
        class_names=["ä", "b", "c", "d"],
    )
    images = read_npz(path)
    assert len(images) == 5
    assert images.class_names == ("ä", "b", "c", "d")


def read_all(images: ImageSet) -> None:
    for batch in images.batches(8):
        assert batch.x.max() == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_is_gone_through_without_being_held(path: Path, save: Any) -> None:
    x = np.zeros((320, 256, 256), np.uint8)
    x[:, 3, 3] = 255
    save(path, x=x, y=np.arange(320) % 2)
    total = x.nbytes
    del x
    tracemalloc.start()
    read_all(read_npz(path))
    # NumPy's copies are traced, mapped pages are not: they are the system's to drop.
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 20 * 2**20
    assert peak < 5 * 2**20


def test_no_images_are_refused(path: Path, digits: Digits, labels: NDArray[np.int64]) -> None:
    np.savez(path, x=digits[:0], y=labels[:0])
    with pytest.raises(DataError, match=r"at least one value in .*:x, but got shape \(0, "):
        read_npz(path)


def test_pickled_objects_are_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(path, x=np.array([Hostile(), None]), y=np.array([0, 1]))
    with pytest.raises(DataError, match="pickled Python objects"):
        read_npz(path)
    assert not (tmp_path / "ran").exists()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Hostile()))
        archive.writestr("y.npy", pickle.dumps(Hostile()))
    with pytest.raises(DataError, match="intact"):
        read_npz(path)
    assert not (tmp_path / "ran").exists()


def test_truncated_or_no_zip(path: Path, digits: Digits, labels: NDArray[np.int64]) -> None:
    np.savez(path, x=digits, y=labels)
    content = path.read_bytes()
    for broken in (content[:-30], content[: len(content) // 2], b"hello", b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="intact"):
            read_npz(path)


def test_damaged_compression(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8), y=np.arange(9))
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match="intact"):
        read_npz(path)


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**9, 10**6, 10**6), (0, 28, 28), (3, 28, -28), (-3, -28, 28), (3, 28, 27)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_header_that_does_not_fit_the_bytes(path: Path, shape: tuple[int, ...], method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", npy_header(shape) + bytes(3 * 28 * 28))
        archive.writestr("y.npy", npy_header((3,)) + bytes(3))
    with pytest.raises(DataError, match=r"damaged|intact"):
        read_npz(path)


def test_zip_that_claims_more_than_it_can_hold(path: Path) -> None:
    header = npy_header((2**29, 2, 2))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header + bytes(100))
        archive.writestr("y.npy", npy_header((3,)) + bytes(3))
        size = archive.getinfo("x.npy").file_size
    forged = (len(header) + 2**31).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), forged))
    with pytest.raises(DataError, match="forged"):
        read_npz(path)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"a": np.zeros(3)}, DataError, "but got a. Save with np.savez"),
        ({"x": np.zeros((2, 4, 4), np.int64), "y": np.arange(2)}, ImageError, "but got int64"),
        ({"x": np.zeros((2, 5, 4, 4)), "y": np.arange(2)}, ImageError, r"1 or 3 channels.*\(2, 5, 4, 4\)"),
        ({"x": np.zeros((2, 4)), "y": np.arange(2)}, ImageError, r"got \(2, 4\)"),
        ({"x": np.zeros((2, 4, 4)), "y": np.arange(3)}, LabelError, "3 labels for 2 images"),
        ({"x": np.zeros((2, 4, 4)), "y": np.eye(2)}, LabelError, "integer labels"),
        ({"x": np.zeros((2, 4, 4)), "y": np.array([0.0, 1.0])}, LabelError, "integer labels"),
        ({"x": np.zeros((2, 4, 4)), "y": np.array([0, -1])}, LabelError, "got -1 for image toy-00001"),
        ({"x": np.zeros((2, 4, 4)), "y": np.arange(2), "class_names": ["a"]}, LabelError, "from 0 to 0"),
        ({"x": np.zeros((2, 4, 4)), "y": np.arange(2), "class_names": [1, 2]}, LabelError, "list of strings"),
    ],
)
def test_bad_content(path: Path, arrays: dict[str, Any], error: type[DataError], message: str) -> None:
    np.savez(path, **arrays)
    with pytest.raises(error, match=message):
        read_npz(path)


@pytest.mark.parametrize(("value", "message"), [(255.0, "Divide 8-bit"), (np.nan, "got NaN"), (-0.5, "Undo")])
def test_values_are_checked_when_they_are_read(path: Path, value: float, message: str) -> None:
    x = np.zeros((4, 4, 4))
    x[2, 1, 1] = value
    np.savez(path, x=x, y=np.arange(4) % 2)
    images = read_npz(path)
    assert images.read(torch.tensor([0, 1, 3])).max() == 0
    with pytest.raises(ImageError, match=f"image toy-00002.*{message}"):
        images.x  # noqa: B018
