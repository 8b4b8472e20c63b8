"""What is written into a folder, given as one file."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.background import BackgroundTask


def download(name: str, write: Callable[[Path], object]) -> FileResponse:
    """Give what is written as a file to keep: the one file that there is, or a zip of all.

    Args:
        name: of the zip.
        write: is given a folder that does not exist yet.

    Raises:
        FailscapeError: what `write` raises; nothing is left behind then.
    """
    folder = Path(tempfile.mkdtemp(prefix="failscape-"))
    try:
        write(folder / "content")
        written = list((folder / "content").iterdir())
        one = written[0] if len(written) == 1 and written[0].is_file() else None
        file = one or Path(shutil.make_archive(str(folder / name), "zip", folder / "content"))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    clear = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(file, filename=f"failscape-{file.name}", background=clear)
