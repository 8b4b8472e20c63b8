"""What a command says besides its result: what it is doing, on a terminal only, and what went wrong."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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


def fail(message: str) -> int:
    """Say in one line what went wrong, and return the exit code for it."""
    sys.stderr.write(f"failscape: error: {' '.join(message.split())}\n")
    return 2
