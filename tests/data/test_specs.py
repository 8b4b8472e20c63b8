import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from failscape.data import load_images
from failscape.errors import ImageError, LabelError, SpecError

Digits = NDArray[np.uint8]


@pytest.fixture
def npz(tmp_path: Path, digits: Digits, labels: NDArray[np.int64]) -> Path:
    path = tmp_path / "digits.npz"
    np.savez(path, x=digits, y=labels)
    return path


@pytest.fixture
def parquet(tmp_path: Path, digits: Digits, labels: NDArray[np.int64], encode: Callable[..., bytes]) -> Path:
    path = tmp_path / "digits.parquet"
    pq.write_table(pa.table({"image": [encode(image) for image in digits], "label": labels}), path)
    return path


@pytest.fixture
def idx(tmp_path: Path, digits: Digits, labels: NDArray[np.int64]) -> tuple[Path, Path]:
    paths = (tmp_path / "toy-images-idx3-ubyte", tmp_path / "toy-labels-idx1-ubyte")
    for path, array in zip(paths, (digits, labels.astype(np.uint8)), strict=True):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return paths


def test_every_kind_gives_the_same_images(
    class_folder: Path, npz: Path, parquet: Path, idx: tuple[Path, Path], digits: Digits
) -> None:
    specs = [npz, str(npz), parquet, f"{idx[0]},{idx[1]}", f"{idx[0]}, {idx[1]}", idx[0]]
    expected = torch.from_numpy(digits[:, None]).float() / 255
    for spec in specs:
        images = load_images(spec)
        assert torch.equal(images.x, expected)
        assert images.y.tolist() == [0, 1, 2] * 4
    folder = load_images(class_folder)
    assert torch.equal(folder.x[folder.ids.index("2/05.png")], expected[5])


def test_digits_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAILSCAPE_DATA", raising=False)
    monkeypatch.setenv("FAILSCAPE_CACHE", str(tmp_path))
    sets = [load_images(spec) for spec in ("embedded:mnist-test", "mnist", "mnist:test")]
    assert {(len(images), images.name, images.ids[-1]) for images in sets} == {
        (10_000, "mnist-test", "mnist-test-09999")
    }


def test_labels_beside_the_images(idx: tuple[Path, Path], tmp_path: Path) -> None:
    idx[1].with_name(f"{idx[1].name}.gz").write_bytes(gzip.compress(idx[1].read_bytes()))
    idx[1].unlink()
    assert len(load_images(idx[0])) == 12
    assert load_images(idx[0]).name == "toy"
    dotted = tmp_path / "t10k-images.idx3-ubyte"
    dotted.write_bytes(idx[0].read_bytes())
    with pytest.raises(SpecError, match=r"neither t10k-labels\.idx1-ubyte nor"):
        load_images(dotted)


def test_half_corrupted_on_any_of_them(npz: Path, class_folder: Path) -> None:
    for spec in (npz, class_folder):
        clean, corrupted = load_images(spec), load_images(f"{spec}+half-corrupted")
        changed = (clean.x != corrupted.x).flatten(1).any(dim=1)
        assert int(changed.sum()) == 6
        assert corrupted.ids == clean.ids
        assert torch.equal(load_images(f"{spec}+half-corrupted").x, corrupted.x)


def test_asked_for_shape(npz: Path, parquet: Path, class_folder: Path) -> None:
    for spec in (parquet, class_folder):
        assert load_images(spec, image_shape=(3, 8, 8)).x.shape == (12, 3, 8, 8)
    assert load_images(npz, image_shape=(1, 6, 5)).image_shape == (1, 6, 5)
    with pytest.raises(ImageError, match=r"shape \(3, 8, 8\) in .* got \(1, 6, 5\)"):
        load_images(npz, image_shape=(3, 8, 8))


def test_one_class_only(tmp_path: Path, digits: Digits) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=digits, y=np.full(12, 3), class_names=[f"class {k}" for k in range(10)])
    with pytest.raises(LabelError, match="at least 2 classes in one, but got only 'class 3'"):
        load_images(path)
    assert load_images(path, allow_one_class=True).num_classes == 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mnsit:train", "Did you mean mnist:train"),
        ("embedded:mnist", "Did you mean embedded:mnist-test"),
        ("mnist:validation", "is none of these"),
        ("", "Check the spelling"),
        ("+half-corrupted", "Check the spelling"),
        ("a,b", "IMAGES,LABELS"),
        ("python:file.py:function", "is none of these"),
    ],
)
def test_unknown(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"Expected embedded:mnist-test, mnist, .*{message}"):
        load_images(spec)


def test_close_path_and_files_of_another_kind(npz: Path, class_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"Did you mean .*digits\.npz\?"):
        load_images(tmp_path / "digit.npz")
    with pytest.raises(SpecError, match=r"is a single image. Put it into a class folder"):
        load_images(class_folder / "0" / "00.png")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(SpecError, match="file of another kind"):
        load_images(tmp_path / "notes.txt")


def test_loading_digits_imports_neither_pyarrow_nor_pillow() -> None:
    code = (
        "import sys, failscape; failscape.load_images('embedded:mnist-test');"
        "sys.exit(bool({'pyarrow', 'PIL', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
