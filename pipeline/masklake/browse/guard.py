"""Who may ask: those who know the token, by a name of this very machine. And what every answer forbids the browser."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HERE = ("127.0.0.1", "localhost", "::1")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Lets a request through whose path begins with the token, without it.

    A page elsewhere could make its own name mean this machine (DNS rebinding): a request by such a name is refused whatever it knows. Ports
    are not looked at, since a tunnel changes them.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, _protected(send))
            return
        rest = scope["path"].lstrip("/").partition("/")[2]
        await self._app({**scope, "path": f"/{rest}", "raw_path": None, "root_path": ""}, receive, _protected(send))

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        host = urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
        if host not in _HERE:
            return PlainTextResponse("This page answers to names of its own machine alone.", 403)
        first, slash, _ = scope["path"].lstrip("/").partition("/")
        if not hmac.compare_digest(first.encode(), self._token) or not slash:
            return PlainTextResponse("The address lacks its token: use the one that the command printed.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Nothing can be changed here.", 405)
        return None


def _protected(send: Send) -> Send:
    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return protected
