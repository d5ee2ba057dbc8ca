"""Faults carried out: answers that are wrong, incomplete or missing."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from email.utils import formatdate

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cockpit_source.sandbox.answers import html_answer, json_answer, problem
from cockpit_source.sandbox.state import Sandbox

ELSEWHERE_PATH = "/elsewhere"
_HALF_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4096\r\n\r\n"
    b'[{"skuId":"cbdc14ab-d96c-4c30-b9f4-6ada7cdc1d46","name":"Micro'
)


def fault_answer(kind: str, request: Request, sandbox: Sandbox) -> Response:
    """The answer, or the lack of one, by which the client meets this fault."""
    seconds = sandbox.faults.value("retry_after_seconds")
    match kind:
        case "throttle":
            return Response(status_code=429, headers={"Retry-After": f"{seconds:g}"})
        case "throttle_date":
            return Response(status_code=429, headers={"Retry-After": _date_in(seconds)})
        case "throttle_bare":
            return Response(status_code=429)
        case "error_500":
            return problem(request, 500, "The sandbox was told to fail.")
        case "html_503":
            return html_answer("Service Unavailable", 503)
        case "reset":
            return _Reset()
        case "truncated":
            return _Truncated()
        case "hang":
            return _Hang(sandbox.faults.value("hang_seconds"))
        case "wrong_shape":
            return json_answer(sandbox.faults.next_wrong_shape())
        case "sign_in_page":
            return html_answer("Sign in to your account")
        case "redirect":
            return Response(status_code=302, headers={"Location": _other_host(sandbox.base_url)})
        case "expired_token":
            return Response(status_code=401)
        case "forbidden":
            return Response(status_code=403)
        case "oversized":
            chunks = _empty_array(int(sandbox.faults.value("oversized_bytes")))
            return StreamingResponse(chunks, media_type="application/json")
    raise ValueError(f"unknown fault {kind!r}")


class _Reset(Response):
    """Resets the connection (TCP RST) without a byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        _reset_connection(scope)
        await _wait_for_disconnect(receive)


class _Truncated(Response):
    """Closes the connection in the middle of a body whose length was announced."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        scope["state"]["logged"].status = 200
        transport: asyncio.Transport = scope["state"]["transport"]
        transport.write(_HALF_ANSWER)
        transport.close()
        await _wait_for_disconnect(receive)


class _Hang(Response):
    """Says nothing for a time, then resets the connection; ends early when the client goes away."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            await asyncio.wait_for(_wait_for_disconnect(receive), self.seconds)
        except TimeoutError:
            _reset_connection(scope)
            await _wait_for_disconnect(receive)


def _reset_connection(scope: Scope) -> None:
    transport: asyncio.Transport = scope["state"]["transport"]
    handle = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=handle) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _empty_array(padding_bytes: int) -> AsyncIterator[bytes]:
    yield b"["
    for start in range(0, padding_bytes, 65_536):
        yield b" " * min(65_536, padding_bytes - start)
    yield b"]"


def _date_in(seconds: float) -> str:
    """An HTTP date at least so many seconds ahead; it has no fractions, so up to one second is added."""
    return formatdate(int(time.time() + seconds) + 1, usegmt=True)


def _other_host(base_url: str) -> str:
    """The same sandbox under another host name, so that a test can see who follows."""
    port = base_url.rpartition(":")[2]
    name = "127.0.0.1" if "localhost" in base_url else "localhost"
    return f"http://{name}:{port}{ELSEWHERE_PATH}"
