"""A server in front of the sandbox that answers some paths itself and passes everything else on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


class OverridingServer:
    """`answer` says what a path answers from now on; paths match without their query, in any case."""

    def __init__(self, upstream_url: str) -> None:
        self.upstream_url = upstream_url
        self.requests: list[tuple[str, str]] = []
        self._answers: dict[str, tuple[int, bytes, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, body: Any, status: int = 200, content_type: str = "application/json") -> None:
        """`body` is JSON, or bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._answers[path.lower()] = (status, raw, content_type)

    def original(self, path: str, token: str, tenant: str) -> Any:
        """What the sandbox answers."""
        headers = {"Authorization": f"Bearer {token}", "X-Tenant": tenant}
        return requests.get(self.upstream_url + path, headers=headers, timeout=10).json()

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.split("?")[0].lower()
                outer.requests.append((self.command, self.path))
                self._send(*(outer._answers.get(path) or outer._pass_on(self)))

            def _send(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes, str]:
        names = ("Authorization", "X-Tenant", "X-Correlation-Id")
        headers = {name: handler.headers[name] for name in names if handler.headers[name]}
        answer = requests.request(handler.command, self.upstream_url + handler.path, headers=headers, timeout=10)
        return answer.status_code, answer.content, answer.headers.get("Content-Type", "")


@contextmanager
def overriding_server(upstream_url: str) -> Iterator[OverridingServer]:
    """A server on a free loopback port until the context ends."""
    server = OverridingServer(upstream_url)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=5)
