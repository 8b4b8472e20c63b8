"""Who may use the pages: tokens that open one browser each, and the sessions that they are exchanged for."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import final


@final
class Access:
    """Which host names, tokens and sessions a server knows.

    A token is good for one exchange. The session that it is exchanged for lives in a cookie and ends with the server.

    Args:
        hosts: what a request's `Host` header may say, such as `127.0.0.1:8765`; the first one is used in links.
        announce: is told a link with a new token each time one was used, so that another browser can be let in.
    """

    def __init__(self, hosts: Sequence[str], *, announce: Callable[[str], None] = lambda link: None) -> None:
        self.hosts = tuple(host.lower() for host in hosts)
        self._announce = announce
        # Digests, so that looking one up takes as long for a near miss as for any other.
        self._tokens: set[bytes] = set()
        self._sessions: set[bytes] = set()

    @property
    def cookie(self) -> str:
        """The name of the cookie. Browsers share cookies between the ports of a host, so it bears the port."""
        return f"failscape-{self.hosts[0].rpartition(':')[2]}"

    def link(self) -> str:
        """Return a link with a new token."""
        token = secrets.token_urlsafe(32)
        self._tokens.add(_digest(token))
        return f"http://{self.hosts[0]}/enter?token={token}"

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
        """Return whether the server is called so."""
        return host.lower() in self.hosts


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
