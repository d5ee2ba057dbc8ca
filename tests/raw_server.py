"""A server that says anything, for what no sandbox would answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class RawServer:
    """What a server on loopback was sent, one entry per connection."""

    url: str
    received: list[bytes] = field(default_factory=list)


@contextmanager
def raw_server(*pieces: bytes, pause_seconds: float = 0.0) -> Iterator[RawServer]:
    """A server that answers every connection with `pieces`, a pause before each but the first, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        closing = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        server.received.append(_read_request(connection))
                        for number, piece in enumerate(pieces):
                            if number and closing.wait(pause_seconds):
                                break
                            connection.sendall(piece)
                        connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            closing.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(timeout=5)


def head(*headers: str, status: str = "200 OK") -> bytes:
    """The lines of an answer before its body."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (received := connection.recv(65_536)):
        request += received
    return request
