"""Parquet files of encoded images and labels, as Hugging Face data sets are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data.checks import default_class_names
from failscape.data.encoded import ImageDecoder
from failscape.data.images import ImageSet
from failscape.errors import DataError, ImageError, LabelError

IMAGE_COLUMNS = ("image", "img", "x", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "y", "target")


def read_parquet(path: Path, *, image_shape: tuple[int, int, int] | None = None) -> ImageSet:
    """Return the set in a Parquet file.

    The images are encoded (PNG, JPEG, WebP) in the first of `IMAGE_COLUMNS`, as bytes or as Hugging Face's
    struct of `bytes` and `path`; the labels are integers or strings in the first of `LABEL_COLUMNS`. Class
    names are Hugging Face's when the schema has them, else the sorted strings, else numbers. One row group of
    encoded images is held at a time, so a file with small row groups takes little memory.

    Args:
        path: the file.
        image_shape: `(C, H, W)` to which all images are converted; by default they must be as the first.

    Raises:
        DataError: if the file is missing, damaged or empty, or lacks the columns.
        LabelError: if labels are missing or of another type.
        ImageError: if the first image is unreadable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        image_column = _column(file.schema_arrow, IMAGE_COLUMNS, path)
        label_column = _column(file.schema_arrow, LABEL_COLUMNS, path)
        labels = file.read(columns=[label_column]).column(label_column)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"Expected an intact Parquet file {path}, but got: {_first_line(error)}. Download or save it again."
        ) from error
    if len(labels) == 0:
        raise DataError(f"Expected images in {path}, but it has no rows. Save it again.")
    y, class_names = _labels(labels, _published_names(file.schema_arrow, label_column), f"{path.name}:{label_column}")
    return ImageSet(_ParquetSource(file, image_column, path, image_shape), y, class_names, name=path.stem)


class _ParquetSource:
    """Reads one row group at a time and decodes the images asked for."""

    def __init__(self, file: Any, column: str, path: Path, image_shape: tuple[int, int, int] | None) -> None:
        self._file = file
        self._column = column
        self._path = path
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._held: tuple[int, Any] = (-1, None)
        first = self._encoded(0)
        self._decoder = ImageDecoder(first, f"{path.name} row 0", image_shape=image_shape)
        self.image_shape = self._decoder.image_shape

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        x = torch.empty(len(indices), *self.image_shape)
        # In the file's order, so that each row group is read once, however the indices are shuffled.
        for position in indices.argsort().tolist():
            row = int(indices[position])
            x[position] = self._decoder.decode(self._encoded(row), f"{self._path.name} row {row}")
        return x

    def _encoded(self, row: int) -> bytes:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._held[0] != group:
            self._held = (-1, None)
            self._held = (group, self._row_group(group))
        value = self._held[1][row - int(self._starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes) or not content:
            raise ImageError(
                f"Expected an encoded image in {self._path.name} row {row}, but got "
                f"{type(content).__name__}. Save the bytes of the images in the file, not only their paths."
            )
        return content

    def _row_group(self, group: int) -> Any:
        import pyarrow as pa

        try:
            return self._file.read_row_group(group, columns=[self._column]).column(self._column)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"Expected an intact Parquet file {self._path}, but row group {group} gave: "
                f"{_first_line(error)}. Download or save it again."
            ) from error


def _column(schema: Any, candidates: tuple[str, ...], path: Path) -> str:
    for name in candidates:
        if name in schema.names:
            return name
    raise DataError(
        f"Expected a column named {', '.join(candidates[:-1])} or {candidates[-1]} in {path}, but got "
        f"{', '.join(schema.names) or 'none'}. Rename the column."
    )


def _published_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """Return the class names in Hugging Face's schema metadata, if they are there."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _labels(column: Any, published: tuple[str, ...] | None, name: str) -> tuple[Tensor, tuple[str, ...]]:
    import pyarrow as pa

    if column.null_count:
        raise LabelError(f"Expected a label in every row of {name}, but {column.null_count} are missing. Fill them in.")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        y = torch.from_numpy(column.to_numpy().astype(np.int64))
        return y, published or default_class_names(y)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        strings = column.to_pylist()
        class_names = published or tuple(sorted(set(strings)))
        numbers = {label: number for number, label in enumerate(class_names)}
        unknown = next((label for label in strings if label not in numbers), None)
        if unknown is not None:
            raise LabelError(f"Expected labels among {', '.join(class_names)} in {name}, but got {unknown!r}.")
        return torch.tensor([numbers[label] for label in strings]), class_names
    raise LabelError(f"Expected integers or strings in {name}, but got {column.type}. Save one class an image.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
