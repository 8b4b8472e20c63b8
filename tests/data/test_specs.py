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

from failscape.data import ImageSet, corrupt, load_images
from failscape.data.specs import uncorrupted
from failscape.errors import DataError, ImageError, LabelError, SpecError

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


def changed(one: ImageSet, other: ImageSet) -> torch.Tensor:
    return (one.x != other.x).flatten(1).any(dim=1)


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
        assert int(changed(clean, corrupted).sum()) == 6
        assert corrupted.ids == clean.ids
        assert torch.equal(load_images(f"{spec}+half-corrupted").x, corrupted.x)


def test_second_half_blurred_and_noised(npz: Path, class_folder: Path) -> None:
    corrupted = load_images(f"{npz}+half-blurred-and-noised")
    assert changed(load_images(npz), corrupted).tolist() == [False] * 6 + [True] * 6
    with pytest.raises(DataError, match="folder is sorted by class"):
        load_images(f"{class_folder}+half-blurred-and-noised")


def test_one_corruption_on_all_images(npz: Path) -> None:
    clean, corrupted = load_images(npz), load_images(f"{npz}+contrast@2")
    expected = corrupt(clean.x, "contrast", severity=2, rng=torch.Generator())
    assert torch.equal(corrupted.x, (expected * 255).round() / 255)
    assert corrupted.name == "digits+contrast@2"
    assert load_images(f"{npz}+contrast@2", image_shape=(1, 6, 5)).image_shape == (1, 6, 5)


def test_several_draws(npz: Path, class_folder: Path) -> None:
    four = load_images(f"{npz}+half-corrupted*4")
    assert len(four) == len(set(four.ids)) == 48
    assert torch.equal(four.x[:12], load_images(f"{npz}+half-corrupted").x)
    assert load_images(f"{class_folder}+gaussian_noise@1*2").ids[12] == "0/00.png-draw2"


class TestParts:
    def test_a_part_is_those_images(self, npz: Path) -> None:
        whole = load_images(npz)
        for ending, rows in (
            ("[2:5]", slice(2, 5)),
            ("[:5]", slice(5)),
            ("[5:]", slice(5, None)),
            ("[5:999]", slice(5, 999)),
        ):
            part = load_images(f"{npz}{ending}")
            assert torch.equal(part.x, whole.x[rows])
            assert torch.equal(part.y, whole.y[rows])
            assert list(part.ids) == list(whole.ids)[rows]

    def test_a_corruption_is_of_the_part(self, npz: Path) -> None:
        part = load_images(f"{npz}[2:8]+half-corrupted*2")
        assert len(part) == 12
        # The random half is one of the part.
        clean = load_images(f"{npz}[2:8]").x.mul(255).round() / 255
        assert int((part.x[:6] != clean).flatten(1).any(dim=1).sum()) == 3
        assert uncorrupted(f"{npz}[2:8]+half-corrupted*2") == f"{npz}[2:8]"

    @pytest.mark.parametrize("ending", ["[5:5]", "[5:2]", "[999:]"])
    def test_a_part_without_images_is_refused(self, ending: str, npz: Path) -> None:
        with pytest.raises(SpecError, match=r"Expected a part \[FROM:TO\] of the 12 images of .*Count from 0"):
            load_images(f"{npz}{ending}")

    def test_a_path_of_that_name_is_taken_as_it_stands(self, npz: Path) -> None:
        named = npz.rename(npz.with_name("a[2:5]"))
        with pytest.raises(SpecError, match="a file of another kind"):
            load_images(named)

    def test_of_what_is_no_set_the_whole_is_named(self) -> None:
        with pytest.raises(SpecError, match=r"'mnist:trian' is none of these.*Did you mean mnist:train"):
            load_images("mnist:trian[:5]")


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("half-corupted", "Did you mean half-corrupted"),
        ("gaussian_blur@6", "severity from 1 to 5 after gaussian_blur, but got 6"),
        ("half-corrupted*0", "draws from 1 to 100"),
    ],
)
def test_wrong_recipe_of_a_set_that_exists(ending: str, message: str, npz: Path, idx: tuple[Path, Path]) -> None:
    for spec in ("mnist:test", "embedded:mnist-test", npz, f"{idx[0]},{idx[1]}"):
        with pytest.raises(SpecError, match=message):
            load_images(f"{spec}+{ending}")


def test_plus_in_a_path(npz: Path, tmp_path: Path) -> None:
    for name in ("a+b.npz", "mnist+half-corrupted", "c++"):
        (tmp_path / name).mkdir()
        path = npz.replace(tmp_path / name / "d+e.npz")
        assert load_images(path).name == "d+e"
        assert load_images(f"{path}+half-corrupted").name == "d+e+half-corrupted"
        npz = path
    with pytest.raises(SpecError, match=r"Did you mean .*c\+\+/d\+e\.npz\?"):
        load_images(tmp_path / "c++" / "d+f.npz")


def test_what_exists_is_no_recipe(class_folder: Path) -> None:
    named = class_folder.rename(class_folder.with_name("folder+half-corrupted"))
    assert load_images(named).name == "folder+half-corrupted"
    assert load_images(f"{named}+half-corrupted").name == "folder+half-corrupted+half-corrupted"


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
        ("mnsit+gaussian_blur@3", "Did you mean mnist"),
        ("mnsit+gaussian_blur@9", "'mnsit.gaussian_blur@9' is none of these"),
        ("mnist+gaussian_blur@3+contrast@1", "'mnist.gaussian_blur@3' is none of these"),
        ("~no-such-user/images", "is none of these"),
    ],
)
def test_unknown(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"Expected embedded:mnist-test, embedded:mnist-train-10k, mnist, .*{message}"):
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
