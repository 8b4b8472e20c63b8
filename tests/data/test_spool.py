import io
import resource
import tempfile
import zlib
from pathlib import Path

import pytest

from failscape.data.spool import check_inflated_size, spool
from failscape.errors import DataError, StorageError


def test_bytes_arrive_and_no_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = bytearray()
    with spool(io.BytesIO(b"abc" * 10**6), 3 * 10**6, "file", seen.extend) as file:
        assert list(tmp_path.iterdir()) == []
        file.seek(0)
        assert file.read() == bytes(seen) == b"abc" * 10**6


@pytest.mark.parametrize("content", [b"ab", b"abcd"])
def test_shorter_or_longer(content: bytes) -> None:
    with pytest.raises(DataError, match="Expected 3 bytes of values in file"):
        spool(io.BytesIO(content), 3, "file")


def test_no_room() -> None:
    with pytest.raises(StorageError, match=r"MiB free\. Set TMPDIR"):
        spool(io.BytesIO(), 2**60, "file")


def test_disk_that_fills_up() -> None:
    """The system refuses every write behind the first MiB, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(StorageError, match=r"File too large\. Set TMPDIR"):
            spool(io.BytesIO(bytes(3 * 2**20 + 5)), 3 * 2**20 + 5, "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="Set TMPDIR"):
        spool(io.BytesIO(b"abc"), 3, "file")


def test_no_real_compression_is_refused() -> None:
    packed = len(zlib.compress(bytes(10**7), 9))
    check_inflated_size(10**7, packed, "file")
    with pytest.raises(DataError, match="forged"):
        check_inflated_size(2 * 10**7, packed, "file")
