"""NPZ, NumPy's archive of named arrays, read without ever unpickling anything."""

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from failscape.data.arrays import ArraySource, labels_from
from failscape.data.checks import default_class_names
from failscape.data.images import ImageSet
from failscape.data.spool import check_inflated_size, damaged, spool
from failscape.errors import DataError, LabelError

KEY_PAIRS = (
    ("x", "y"),
    ("images", "labels"),
    ("x_test", "y_test"),
    ("test_images", "test_labels"),
    ("x_train", "y_train"),
    ("train_images", "train_labels"),
)
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LOCAL_HEADER = 30


def read_npz(path: Path) -> ImageSet:
    """Return the set in an `.npz` file.

    The keys are the first pair of `KEY_PAIRS` that is there, and optionally `class_names` (strings). Images
    are `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)`, uint8 or floating-point in [0, 1]. An uncompressed
    array (`np.savez`) is memory-mapped where it lies, without a test of its CRC; a compressed one is first
    inflated into a temporary file without a name, which takes disk, not memory.

    Raises:
        DataError: if the file is missing, damaged or encrypted, lacks the keys, or holds pickled objects.
        StorageError: if there is no room to inflate it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(member).stem for member in archive.namelist() if member.endswith(".npy")}
            keys = next((pair for pair in KEY_PAIRS if names.issuperset(pair)), None)
            if keys is None:
                raise DataError(
                    f"Expected the keys {', '.join(' and '.join(pair) for pair in KEY_PAIRS)} in {path}, but "
                    f"got {', '.join(sorted(names)) or 'none'}. Save with np.savez(path, x=images, y=labels)."
                )
            source = ArraySource(_member(archive, path, keys[0]), f"{path.name}:{keys[0]}")
            y = labels_from(_member(archive, path, keys[1]), f"{path.name}:{keys[1]}")
            class_names = _names(_member(archive, path, "class_names"), path) if "class_names" in names else None
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError) as error:
        raise damaged(str(path), error) from error
    if len(source) != len(y):
        raise LabelError(
            f"Expected one label an image in {path}, but got {len(y)} labels for {len(source)} images. Save both anew."
        )
    return ImageSet(source, y, class_names or default_class_names(y), name=path.stem)


def _names(array: NDArray[np.generic], path: Path) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise LabelError(
            f"Expected `class_names` in {path} as a list of strings, but got {array.dtype} of shape {array.shape}."
        )
    return tuple(str(name) for name in array)


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> NDArray[Any]:
    """Memory-map one array of the archive."""
    info = archive.getinfo(f"{key}.npy")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"Expected {path} as np.savez writes it, but {key} is encrypted or compressed otherwise.")
    with archive.open(info) as stream:
        try:
            dtype, shape, order = _npy_header(stream, f"{path.name}:{key}")
        except (ValueError, zlib.error) as error:
            raise damaged(f"{path}:{key}", error) from error
        start, size = stream.tell(), math.prod(shape) * dtype.itemsize
        if start + size != info.file_size:
            raise DataError(
                f"Expected {info.file_size - start} bytes of values in {path}:{key}, but its header says "
                f"{dtype} of shape {shape}: it is damaged. Save it again."
            )
        if size == 0:
            raise DataError(f"Expected at least one value in {path}:{key}, but got shape {shape}. Save some images.")
        if info.compress_type == zipfile.ZIP_STORED:
            offset = _content_offset(path, info) + start
            return np.memmap(path, dtype, "r", offset=offset, shape=shape, order=order)
        check_inflated_size(size, info.compress_size, f"{path}:{key}")
        with spool(stream, size, f"{path}:{key}") as file:
            return np.memmap(file, dtype, "r", shape=shape, order=order)


def _npy_header(stream: Any, name: str) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    version = npy.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"version {version} of the NPY format")
    shape, fortran, dtype = _READERS[version](stream)
    if dtype.hasobject:
        raise DataError(
            f"Expected numbers in {name}, but it holds pickled Python objects, which could run code when "
            "loaded. Save an array of uint8 or float32 instead."
        )
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return dtype, shape, "F" if fortran else "C"


def _content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where a stored member's bytes begin; the local header may be longer than the central one."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER)
        if len(local) < _LOCAL_HEADER:
            raise zipfile.BadZipFile("a local header is cut off")
        name_length, extra_length = struct.unpack("<HH", local[26:30])
    return info.header_offset + _LOCAL_HEADER + int(name_length) + int(extra_length)
