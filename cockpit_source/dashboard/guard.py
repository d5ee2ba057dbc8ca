"""What the web server lets in and out: only pages of this machine, and no page that asks anything of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# marimo's page has scripts inside, and its charts compile their expressions
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'none'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
# marimo would let pages of any origin read the answers
_DROPPED = (b"access-control-",)
_OURS = frozenset(name for name, _ in _HEADERS)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Around the app: refuses what another site makes a browser ask, and adds the headers that keep pages at home.

    On loopback only loopback names are answered, so that no foreign name that resolves to this machine gets in.
    """

    def __init__(self, app: Application, host: str, *, is_loopback: bool) -> None:
        self._app = app
        self._names = {*_LOOPBACK, host.lower()} if is_loopback else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if not self._is_from_here(dict(scope["headers"])):
            await _refuse(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, value)
                    for name, value in message.get("headers", ())
                    if not name.lower().startswith(_DROPPED) and name.lower() not in _OURS
                ] + list(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _is_from_here(self, headers: dict[bytes, bytes]) -> bool:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._names is not None and _host_name(f"//{host}") not in self._names:
            return False
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        return not origin or urlsplit(origin).netloc == host


def _host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


async def _refuse(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "another site asked"})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    text = b"Refused: this page is served under its own address only, not to other sites.\n"
    await send({"type": "http.response.body", "body": text})
