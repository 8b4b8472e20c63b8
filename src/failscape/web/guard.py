"""What stands before every page: foreign hosts, other sites, strangers and huge bodies are refused.

Every answer, a refusal too, bears the headers that keep a page from running or loading anything but what the server
itself has.
"""

from collections.abc import MutableMapping
from typing import Any, final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failscape.web.access import Access

# Bytes of a request's body: a page sends labels and settings; only an import of labels is larger.
BODY_LIMIT = 64 * 2**10
UPLOAD_LIMIT = 32 * 2**20

# The one path without a session, since that is where one is got.
ENTRANCE = "/enter"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # With none at all, forms would not state their origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@final
class Guard:
    """ASGI middleware that lets through what comes from a page of this server in a browser that was let in.

    Attributes:
        app: what is behind.

    Args:
        app: what is behind.
        access: known hosts and sessions.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        body: bytes | None = None
        if refusal is None:
            limit = UPLOAD_LIMIT if scope["path"].endswith("/import") else BODY_LIMIT
            body = await _read(receive, limit, Headers(scope=scope).get("content-length", ""))
            if body is None:
                refusal = PlainTextResponse(
                    f"Expected a request of at most {limit:,} bytes, but it is larger. Send it in parts.", 413
                )
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        assert body is not None
        await self.app(scope, _Replayed(body, receive), send_guarded)

    def _refusal(self, scope: MutableMapping[str, Any]) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._access.knows_host(host):
            return PlainTextResponse(
                "Expected a host name of this server. Open the link that `failscape serve` printed as it is, or give "
                "the name with --name.",
                400,
            )
        if not self._is_own_site(scope["method"], headers):
            return PlainTextResponse(
                "Expected a request of this server's own pages, but another site asked. Paste the link into the "
                "address bar; behind a proxy with TLS, start the server with --name https://NAME.",
                403,
            )
        if scope["path"] == ENTRANCE:
            return None
        if not self._access.knows_session(Request(scope).cookies.get(self._access.cookie, "")):
            return PlainTextResponse(
                "Expected a browser that was let in. Open the link that `failscape serve` printed last; each link "
                "opens one browser, and a server that was started again prints new ones.",
                401,
            )
        return None

    def _is_own_site(self, method: str, headers: Headers) -> bool:
        """Return whether a request comes from a page of this server, or from the address bar.

        Pages of other ports of the same host count as "same-site" for cookies, but not here. Browsers state the origin
        of whatever changes something; what does not is refused.
        """
        fetch_site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if fetch_site not in (None, "same-origin", "none"):
            return False
        if origin is None:
            return method in _SAFE_METHODS
        return self._access.knows_origin(origin)


async def _read(receive: Receive, limit: int, announced: str) -> bytes | None:
    """Return the body of a request; None if it is longer than the limit."""
    if announced.isdecimal() and int(announced) > limit:
        return None
    parts = []
    left = limit
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        part = message.get("body", b"")
        left -= len(part)
        if left < 0:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


class _Replayed:
    """Gives a body that was read already, and then whatever comes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
