"""Putting a compressed stream where it can be memory-mapped: a temporary file that has no name."""

import shutil
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Protocol, runtime_checkable

from failscape.errors import DataError, StorageError

# Deflate cannot compress better than 1032 : 1, so a file that claims more is broken or hostile.
_MAX_DEFLATE_RATIO = 1040
_CHUNK = 2**20


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


def check_inflated_size(inflated: int, compressed: int, name: str) -> None:
    """Refuse a compressed file whose header claims more than it can hold, before anything is made for it.

    Raises:
        DataError: if `inflated` bytes cannot come from `compressed` bytes of deflate.
    """
    if inflated > _MAX_DEFLATE_RATIO * compressed:
        raise DataError(
            f"Expected {name} to hold what its header says, but {inflated} bytes cannot come from "
            f"{compressed} compressed ones: it is truncated or forged. Download or save it again."
        )


def spool(stream: Readable, size: int, name: str, on_chunk: Callable[[bytes], object] = lambda chunk: None) -> BinaryIO:
    """Inflate exactly `size` bytes into a temporary file that vanishes when it is closed and unmapped.

    Args:
        stream: what is left to read; must end after `size` bytes.
        size: in bytes.
        name: of the file that is inflated, for messages.
        on_chunk: called on each piece, for instance to hash it.

    Raises:
        DataError: if the stream is broken, shorter or longer.
        StorageError: if the temporary folder is full or cannot be written.
    """
    try:
        file = _temporary_file(size)
    except OSError as error:
        raise StorageError(
            f"Expected room for {size / 2**20:.0f} MiB in {tempfile.gettempdir()} to inflate {name}, but "
            f"got: {error.strerror or error}. Set TMPDIR to a folder with room, or save the data "
            "uncompressed."
        ) from error
    written = 0
    try:
        while chunk := _read(stream, min(_CHUNK, size - written + 1), name):
            written += len(chunk)
            if written > size:
                break
            on_chunk(chunk)
            file.write(chunk)
        if written != size:
            more = "more" if written > size else f"{written}"
            raise DataError(
                f"Expected {size} bytes of values in {name}, but got {more}: it is truncated or damaged. "
                "Download or save it again."
            )
        file.flush()
    except OSError as error:
        # Closing tries once more to write what a full disk refused.
        with suppress(OSError):
            file.close()
        raise StorageError(
            f"Expected to inflate {name} into {tempfile.gettempdir()}, but got: {error.strerror or error}. "
            "Set TMPDIR to a folder with room, or save the data uncompressed."
        ) from error
    except BaseException:
        file.close()
        raise
    return file


def _temporary_file(size: int) -> BinaryIO:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise OSError(f"{free / 2**20:.0f} MiB free")
    return tempfile.TemporaryFile()


def _read(stream: Readable, size: int, name: str) -> bytes:
    try:
        return stream.read(size)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged(name, error) from error


def damaged(name: str, error: Exception) -> DataError:
    """Make the error for a file whose compression is broken."""
    return DataError(f"Expected an intact {name}, but got: {error}. Download or save it again.")
