"""IDX, the format of MNIST: a magic number, the sizes, and then nothing but bytes; raw or gzipped."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from failscape.data.arrays import ArraySource, labels_from
from failscape.data.checks import default_class_names
from failscape.data.images import ImageSet
from failscape.data.spool import check_inflated_size, damaged, spool
from failscape.errors import DataError, LabelError
from failscape.storage import digest

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx_pair(
    images: Path,
    labels: Path,
    *,
    name: str,
    class_names: tuple[str, ...] | None = None,
    sums: tuple[str, str] | None = None,
) -> ImageSet:
    """Return the set of an IDX file of images and one of labels.

    Args:
        images: `(N, H, W)` or `(N, C, H, W)` bytes.
        labels: `(N,)` bytes.
        name: of the set.
        class_names: by default "0", "1", … up to the largest label.
        sums: the SHA-256 that both must have when decompressed.

    Raises:
        DataError: if a file is missing, truncated, damaged, not IDX, or has another sum, or the two do not
            match.
    """
    image_sum, label_sum = sums or (None, None)
    y = labels_from(read_idx(labels, sha256=label_sum), labels.name)
    source = ArraySource(read_idx(images, sha256=image_sum), images.name)
    if len(source) != len(y):
        raise LabelError(
            f"Expected one label an image, but got {len(y)} labels in {labels.name} for {len(source)} images "
            f"in {images.name}. Use the two files of one set."
        )
    return ImageSet(source, y, class_names or default_class_names(y), name=name)


def read_idx(path: Path, *, sha256: str | None = None) -> NDArray[np.uint8]:
    """Memory-map an IDX file of unsigned bytes; a gzipped one is first inflated into a temporary file.

    Args:
        path: whether it is gzipped is seen from its content, not from its name.
        sha256: the sum that the decompressed file must have.

    Raises:
        DataError: if the file is missing, truncated, damaged, not IDX, or has another sum.
        StorageError: if there is no room to inflate it.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
        return _read_gzipped(path, sha256) if zipped else _read_raw(path, sha256)
    except OSError as error:
        raise DataError(
            f"Expected a readable IDX file {path}, but got: {error.strerror or error}. Check the path."
        ) from error


def _read_raw(path: Path, sha256: str | None) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        sizes, _ = _header(file.read(20), path)
        size, expected = path.stat().st_size, 4 + 4 * len(sizes) + math.prod(sizes)
        if size != expected:
            raise DataError(
                f"Expected {expected} bytes in {path} for its sizes {sizes}, but got {size}: it is truncated "
                "or damaged. Download or save it again."
            )
        if sha256 is not None:
            _check_sum(digest(path), sha256, path)
        return np.memmap(file, np.uint8, "r", offset=4 + 4 * len(sizes), shape=sizes)


def _read_gzipped(path: Path, sha256: str | None) -> NDArray[np.uint8]:
    with gzip.open(path) as stream:
        try:
            start = stream.read(20)
            sizes, header = _header(start, path)
            check_inflated_size(math.prod(sizes), path.stat().st_size, str(path))
            stream.seek(len(header))
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(str(path), error) from error
        found = hashlib.sha256(header)
        with spool(stream, math.prod(sizes), str(path), found.update) as file:
            if sha256 is not None:
                _check_sum(found.hexdigest(), sha256, path)
            return np.memmap(file, np.uint8, "r", shape=sizes)


def _header(start: bytes, path: Path) -> tuple[tuple[int, ...], bytes]:
    """Return the sizes, and the bytes that hold them, from the first 20 bytes of a file."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != _UNSIGNED_BYTE or start[3] not in (1, 3, 4):
        raise DataError(
            f"Expected an IDX file of unsigned bytes with 1, 3 or 4 axes at {path}, but it starts with "
            f"{start[:4].hex(' ') or 'nothing'}. Give images-idx3-ubyte and labels-idx1-ubyte files."
        )
    end = 4 + 4 * start[3]
    if len(start) < end:
        raise DataError(f"Expected {start[3]} sizes in {path}, but it is truncated. Download or save it again.")
    sizes = struct.unpack(f">{start[3]}I", start[4:end])
    if 0 in sizes:
        raise DataError(f"Expected images or labels in {path}, but its sizes are {sizes}. Save it again.")
    return sizes, start[:end]


def _check_sum(found: str, expected: str, path: Path) -> None:
    if found != expected:
        raise DataError(
            f"Expected SHA-256 {expected} of the decompressed {path}, but got {found}: it is damaged or "
            "another data set. Delete the file and download it again."
        )
