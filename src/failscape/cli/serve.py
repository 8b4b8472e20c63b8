"""The command that opens runs in the browser."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from failscape.cli.terminal import progress, run_folder


def serve(
    runs: list[str],
    /,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8765,
    allow_remote: bool = False,
    names: Annotated[tuple[str, ...], Parameter(name="--name")] = (),
    labels: str | None = None,
    allow_code: bool = False,
    out: Path = Path("runs"),
) -> int:
    """Open runs in the browser: explore what was found, label images. Ctrl-C ends it.

    Args:
        runs: run folders, or "latest"; the first is opened first.
        host: the address to listen on.
        port: the port to listen on; 0 takes any that is free.
        allow_remote: let other machines reach an address that is not this machine's own.
        names: a name that browsers may call this server by, with its port if that is another, or https://NAME where a
            proxy with TLS stands before it; more by giving it again.
        labels: the URL of a database of labels, such as postgresql://HOST/NAME; by default each run keeps its own.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
        out: where "latest" is looked for.
    """
    folders = [run_folder(run, out) for run in runs]
    with progress() as show:
        show("importing")
        from failscape.web import serve as serve_runs

    def say(link: str) -> None:
        sys.stdout.write(f"{link}\n")
        sys.stdout.flush()

    sys.stderr.write("Each link opens one browser; when it was used, another is printed. Ctrl-C ends the server.\n")
    serve_runs(
        folders,
        host=host,
        port=port,
        allow_remote=allow_remote,
        names=names,
        labels=labels,
        allow_code=allow_code,
        say=say,
    )
    return 0
