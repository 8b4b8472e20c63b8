"""Packages to compare with, installed outside the environment, so that they change nothing in it."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir


def make_importable(name: str, *requirements: str) -> None:
    """Install packages without what they depend on into a folder of their own, unless they are there; import from it.

    Args:
        name: of the folder, under that for temporary files.
        requirements: as pip takes them.

    Raises:
        CalledProcessError: if pip fails; the next run tries again.
    """
    folder = Path(gettempdir()) / f"failscape-{name}"
    if not folder.exists():
        # Renamed once complete: half a folder is not taken for the whole.
        with TemporaryDirectory(dir=gettempdir()) as fresh:
            target = Path(fresh) / name
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
            subprocess.run([*command, *requirements], check=True)  # noqa: S603
            target.rename(folder)
    sys.path.append(str(folder))
