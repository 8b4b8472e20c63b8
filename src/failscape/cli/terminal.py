"""What commands share: which run is meant, and what they say besides their result."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from failscape.errors import StorageError


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what is being done, on standard error; silent where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status("starting") as status:

        def show(message: str) -> None:
            console.print(escape(message), style="dim", highlight=False)
            status.update(escape(message))

        yield show


def run_folder(run: str, out: Path) -> Path:
    """Return the run folder that is meant.

    Args:
        run: its path, or "latest".
        out: where "latest" is looked for; the highest number is the latest.

    Raises:
        StorageError: if there is none.
    """
    from failscape.storage import latest_run_folder

    folder = latest_run_folder(out) if run == "latest" else Path(run)
    if folder is None:
        raise StorageError(f"Expected a run in {out}, but there is none. Run `failscape demo` to make one.")
    return folder


def fail(message: str) -> int:
    """Say in one line what went wrong, and return the exit code for it."""
    sys.stderr.write(f"failscape: error: {' '.join(message.split())}\n")
    return 2
