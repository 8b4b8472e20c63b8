import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from failscape.data.parquet import read_parquet
from failscape.errors import DataError, ImageError, LabelError

Digits = NDArray[np.uint8]
Encode = Callable[..., bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toy.parquet"


@pytest.fixture
def encoded(digits: Digits, encode: Encode) -> list[bytes]:
    return [encode(image) for image in digits]


def write(path: Path, images: Any, labels: Any, *, metadata: Any = None, rows: int = 5) -> None:
    table = pa.table({"image": images, "label": labels})
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path, row_group_size=rows)


@pytest.mark.parametrize("struct", [False, True])
def test_round_trip(path: Path, digits: Digits, labels: NDArray[np.int64], encoded: list[bytes], struct: bool) -> None:
    write(path, [{"bytes": b, "path": None} for b in encoded] if struct else encoded, labels)
    images = read_parquet(path)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert np.array_equal((images.read(order)[:, 0] * 255).round().numpy(), digits[order.numpy()])
    assert images.y.tolist() == labels.tolist()
    assert images.class_names == ("0", "1", "2")
    assert images.ids[3] == "toy-00003"


def test_names_from_hugging_face(path: Path, labels: NDArray[np.int64], encoded: list[bytes]) -> None:
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog", "eel", "fox"]},
    }
    write(path, encoded, labels, metadata={"info": {"features": features}})
    assert read_parquet(path).class_names == ("cat", "dog", "eel", "fox")


@pytest.mark.parametrize("metadata", [[], {"info": {"features": {"label": {"dtype": "int64"}}}}, {"info": None}])
def test_other_metadata(path: Path, labels: NDArray[np.int64], encoded: list[bytes], metadata: Any) -> None:
    write(path, encoded, labels, metadata=metadata)
    assert read_parquet(path).class_names == ("0", "1", "2")


@pytest.mark.parametrize("dictionary", [False, True])
def test_string_labels(path: Path, encoded: list[bytes], dictionary: bool) -> None:
    strings = pa.array(["eel", "cat", "dog"] * 4)
    write(path, encoded, strings.dictionary_encode() if dictionary else strings)
    images = read_parquet(path)
    assert images.class_names == ("cat", "dog", "eel")
    assert images.y.tolist() == [2, 0, 1] * 4


def test_one_row_group_is_held_at_a_time(path: Path, encode: Encode) -> None:
    rng = np.random.default_rng(0)
    large = [encode(rng.integers(0, 256, (256, 256), dtype=np.uint8)) for _ in range(40)]
    write(path, large, np.arange(40) % 2, rows=2)
    before = pa.total_allocated_bytes()
    images = read_parquet(path)
    for batch in images.batches(4):
        assert batch.x.shape == (4, 1, 256, 256)
        # A group is a twentieth of the file; Arrow's own threads read ahead and free late.
        assert pa.total_allocated_bytes() - before < sum(map(len, large)) / 4


def test_damage_is_found_only_where_it_is_read(path: Path, labels: NDArray[np.int64], encoded: list[bytes]) -> None:
    encoded[7] = encoded[7][:40]
    write(path, encoded, labels)
    images = read_parquet(path)
    assert len(images.read(torch.tensor([6, 8]))) == 2
    with pytest.raises(ImageError, match=r"toy\.parquet row 7.*corrupt or truncated"):
        images.x  # noqa: B018


def test_another_size_and_asked_for_shape(
    path: Path, labels: NDArray[np.int64], encoded: list[bytes], encode: Encode
) -> None:
    encoded[4] = encode(np.zeros((9, 9), np.uint8))
    write(path, encoded, labels)
    with pytest.raises(ImageError, match=r"row 0 is 5 x 6 and toy\.parquet row 4 is 9 x 9"):
        read_parquet(path).x  # noqa: B018
    assert read_parquet(path, image_shape=(1, 7, 7)).x.shape == (12, 1, 7, 7)


def test_truncated_or_no_parquet(path: Path, labels: NDArray[np.int64], encoded: list[bytes]) -> None:
    write(path, encoded, labels)
    content = path.read_bytes()
    for broken in (content[:-20], content[: len(content) // 2], b"PAR1", b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="intact Parquet"):
            read_parquet(path)


def test_missing_columns(path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "label": [0]}), path)
    with pytest.raises(DataError, match=r"column named image, img, x or picture .*a, label"):
        read_parquet(path)
    pq.write_table(pa.table({"image": [b""], "b": [0]}), path)
    with pytest.raises(DataError, match=r"column named label.*image, b"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        ([], pa.array([], pa.int64()), DataError, "no rows"),
        ([b"x"], [None], LabelError, "1 are missing"),
        ([b"x"], [0.5], LabelError, "integers or strings"),
        ([None], [0], ImageError, "but got NoneType"),
        ([{"bytes": None, "path": "a.png"}], [0], ImageError, "not only their paths"),
        ([[1, 2, 3]], [0], ImageError, "but got list"),
        ([b"x"], [0], ImageError, "row 0, but got: no PNG"),
    ],
)
def test_bad_rows(path: Path, images: Any, labels: Any, error: type[DataError], message: str) -> None:
    write(path, images, labels)
    with pytest.raises(error, match=message):
        read_parquet(path)


def test_label_out_of_range(path: Path, encoded: list[bytes]) -> None:
    write(path, encoded, [0, 1, -1] * 4)
    with pytest.raises(LabelError, match="got -1 for image toy-00002 and 3 more"):
        read_parquet(path)


def test_string_that_is_no_published_name(path: Path, encoded: list[bytes]) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    write(path, encoded, ["cat", "dog", "eel"] * 4, metadata={"info": {"features": features}})
    with pytest.raises(LabelError, match=r"among cat, dog in toy.parquet:label, but got 'eel'"):
        read_parquet(path)
