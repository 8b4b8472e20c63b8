"""The server: a socket of its own, one process, and links with tokens."""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from failscape.errors import ConfigError, StorageError
from failscape.web.access import Access
from failscape.web.app import create_app
from failscape.web.pages import PAGES
from failscape.web.site import Site

DEFAULT_PORT = 8765
_NAME = re.compile(r"(?:(https?)://)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?", re.IGNORECASE)


def serve(
    runs: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    allow_remote: bool = False,
    names: Sequence[str] = (),
    labels: str | None = None,
    allow_code: bool = False,
    say: Callable[[str], None],
) -> None:
    """Serve runs until the process is interrupted.

    Args:
        runs: run folders.
        host: the address to listen on.
        port: 0 for any that is free.
        allow_remote: let `host` be reached from other machines.
        names: further names that browsers may call this server by, such as `https://NAME`, that of a proxy with TLS.
        labels: the URL of a database of labels; by default each run keeps its own.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
        say: is told each link that lets a browser in.

    Raises:
        ConfigError: if other machines could reach `host` and that was not allowed, or a name is none.
        StorageError: if a run does not exist, or the address cannot be listened on.
        KeyboardInterrupt: when the process was interrupted.
    """
    if not runs:
        raise ConfigError("Expected at least one run folder, but got none. `failscape demo` makes one.")
    if not allow_remote and not _is_loopback(host):
        raise ConfigError(
            f"Expected an address that only this machine reaches, but got --host {host}. Use 127.0.0.1 and an SSH "
            "tunnel, or add --allow-remote to let other machines in over an unencrypted connection."
        )
    site = Site(runs, PAGES, labels=labels, allow_code=allow_code)
    with _listening(host, port) as listener:
        access = Access(known_origins(host, listener.getsockname()[1], names), announce=say)
        config = uvicorn.Config(
            create_app(site, access),
            access_log=False,  # it would hold the tokens
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=3,
            ws="none",
        )
        say(access.link())
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if server.started:
            # It ends only when it is told to. Where the last pages end in the same moment asyncio swallows the signal.
            raise KeyboardInterrupt


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # From here on a browser waits, however long the pages take to start.
            listener.listen()
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"Expected to listen on {host}, port {port}, but got: {reason}. Choose another with --port; 0 takes any "
            "that is free."
        ) from error


def known_origins(host: str, port: int, names: Sequence[str]) -> list[str]:
    """Return what browsers may call this server, the best for a link first."""
    if _is_loopback(host):
        called = [host, "127.0.0.1", "localhost", "::1"]
    else:
        unspecified = host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        name = socket.gethostname()
        called = [*([] if unspecified else [host]), name, *_addresses(name, port), "127.0.0.1", "localhost"]
    own = [f"http://[{each}]:{port}" if ":" in each else f"http://{each}:{port}" for each in called]
    # A name given is what the machine is called from outside, which the machine itself may not know.
    return list(dict.fromkeys([*(_origin(each, port) for each in names), *own]))


def _addresses(name: str, port: int) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    except socket.gaierror:
        # A machine need not be known by its own name.
        return []


def _origin(name: str, port: int) -> str:
    """Return the origin that a name given means: with a scheme it says all, without one this server's port holds."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"Expected a name of this server such as labels.example or https://labels.example, but got {name!r}. Give "
            "the name, and a port if browsers use another, without a path."
        )
    scheme, called, given = found.groups()
    if scheme is None:
        scheme, given = "https" if given == "443" else "http", given or str(port)
    return f"{scheme.lower()}://{called}:{given}" if given else f"{scheme.lower()}://{called}"
