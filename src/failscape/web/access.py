"""Who may use the pages: tokens that open one browser each, and the sessions that they are exchanged for."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import final

# Browsers leave them out of `Host` and `Origin`; proxies do not always.
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@final
class Access:
    """Which names, tokens and sessions a server knows.

    A token is good for one exchange. The session that it is exchanged for lives in a cookie and ends with the server.

    Args:
        origins: what browsers call the server, such as `http://127.0.0.1:8765`; the first one is used in links.
        announce: is told a link with a new token each time one was used, so that another browser can be let in.
    """

    def __init__(self, origins: Sequence[str], *, announce: Callable[[str], None] = lambda link: None) -> None:
        self.origins = tuple(map(_without_default_port, origins))
        self._hosts: set[str] = set()
        self._secure_hosts: set[str] = set()
        for origin in self.origins:
            scheme, _, host = origin.partition("://")
            called = {host} if _port(host) else {host, host + _DEFAULT_PORTS[scheme]}
            self._hosts |= called
            if scheme == "https":
                self._secure_hosts |= called
        self._announce = announce
        # Digests, so that looking one up takes as long for a near miss as for any other.
        self._tokens: set[bytes] = set()
        self._sessions: set[bytes] = set()

    @property
    def cookie(self) -> str:
        """The name of the cookie. Browsers share cookies between the ports of a host, so it bears the port."""
        scheme, _, host = self.origins[0].partition("://")
        return f"failscape-{(_port(host) or _DEFAULT_PORTS[scheme]).removeprefix(':')}"

    def link(self) -> str:
        """Return a link with a new token."""
        token = secrets.token_urlsafe(32)
        self._tokens.add(_digest(token))
        return f"{self.origins[0]}/enter?token={token}"

    def exchange(self, token: str) -> str | None:
        """Take a token and return a session for it; None if it is unknown or was used before."""
        try:
            self._tokens.remove(_digest(token))
        except KeyError:
            return None
        session = secrets.token_urlsafe(32)
        self._sessions.add(_digest(session))
        self._announce(self.link())
        return session

    def knows_session(self, session: str) -> bool:
        """Return whether a session was given out by this server."""
        return _digest(session) in self._sessions

    def knows_host(self, host: str) -> bool:
        """Return whether a `Host` header names this server."""
        return host.lower() in self._hosts

    def knows_origin(self, origin: str) -> bool:
        """Return whether an `Origin` header names this server."""
        return _without_default_port(origin) in self.origins

    def is_encrypted(self, host: str) -> bool:
        """Return whether browsers reach a name over TLS, which a proxy has."""
        return host.lower() in self._secure_hosts


def _without_default_port(origin: str) -> str:
    origin = origin.lower()
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], ""))


def _port(host: str) -> str:
    """Return the port of a host with its colon, "" if it names none."""
    name, colon, port = host.rpartition(":")
    # The colons of an IPv6 address stand in brackets.
    return colon + port if name and not port.endswith("]") else ""


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
