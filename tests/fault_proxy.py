"""A proxy that damages a share of the HTTP exchanges between a client and a server on this machine."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

KINDS = (
    "latency",  # the answer is late by `latency_seconds`
    "jitter",  # it is late by up to twice that
    "bandwidth",  # it comes at `bytes_per_second`
    "reset",  # the server has answered, but the connection is reset before a byte of it
    "truncated",  # the connection closes in the middle of the answer
    "trickle",  # a few bytes at a time, so that the answer as a whole never ends in time
    "half_open",  # the request is taken and never answered; the connection stays open
)
# these let the whole answer through
HARMLESS_KINDS = frozenset({"latency", "jitter", "bandwidth"})


class FaultProxy:
    """A proxy on a free loopback port. The n-th call of an address meets the same fault in every run with a seed.

    Every exchange is judged alone, also when several share a connection. `met` counts the faults by kind.
    """

    def __init__(
        self,
        upstream_url: str,
        seed: int = 7,
        *,
        latency_seconds: float = 0.05,
        bytes_per_second: float = 5_000,
        **rates: float,
    ) -> None:
        if unknown := rates.keys() - set(KINDS):
            raise ValueError(f"unknown fault {', '.join(unknown)}; valid are {', '.join(KINDS)}")
        self.seed = seed
        self.rates = rates
        self.latency_seconds = latency_seconds
        self.bytes_per_second = bytes_per_second
        self.exchanges = 0
        self.met: Counter[str] = Counter()
        self.base_url = ""
        self._upstream = urlsplit(upstream_url)
        self._calls: Counter[bytes] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def clear(self) -> None:
        """Let everything through from now on."""
        self.rates = {}

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._take_connection, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _end(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _take_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Exchanges of one client connection, until either side closes it."""
        assert self._upstream.hostname
        up_reader, up_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        try:
            while True:
                request = await _read_message(reader)
                fault, draws = self._next_fault(request.head.split(b"\r\n", 1)[0])
                if fault == "half_open":
                    # ends when the client has given up
                    await reader.read()
                    return
                up_writer.write(request.whole)
                answer = await _read_message(up_reader)
                if not await self._pass_on(answer, writer, fault, draws) or answer.is_last:
                    return
        finally:
            up_writer.close()

    def _next_fault(self, address: bytes) -> tuple[str | None, random.Random]:
        self._calls[address] += 1
        self.exchanges += 1
        draws = random.Random(f"{self.seed} {address!r} {self._calls[address]}")
        fraction = draws.random()
        for kind, rate in self.rates.items():
            fraction -= rate
            if fraction < 0:
                self.met[kind] += 1
                return kind, draws
        return None, draws

    async def _pass_on(
        self, answer: _Message, writer: asyncio.StreamWriter, fault: str | None, draws: random.Random
    ) -> bool:
        """Send the answer as the fault wants it; whether the connection goes on."""
        whole = answer.whole
        match fault:
            case "reset":
                _reset(writer)
                return False
            case "truncated":
                writer.write(whole[: draws.randrange(1, len(whole))])
                await writer.drain()
                return False
            case "trickle":
                await _send_slowly(writer, whole, piece=4, pause=0.2)
            case "bandwidth":
                await _send_slowly(writer, whole, piece=100, pause=100 / self.bytes_per_second)
            case "latency":
                await asyncio.sleep(self.latency_seconds)
            case "jitter":
                await asyncio.sleep(draws.uniform(0, 2 * self.latency_seconds))
        if fault not in ("trickle", "bandwidth"):
            writer.write(whole)
            await writer.drain()
        return True


@contextmanager
def fault_proxy(upstream_url: str, seed: int = 7, **options: float) -> Iterator[FaultProxy]:
    """A proxy that listens until the context ends, in a thread of this process."""
    proxy = FaultProxy(upstream_url, seed, **options)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@dataclass(frozen=True, slots=True)
class _Message:
    """A request or an answer as it came; `is_last` says that the connection ends with it."""

    head: bytes
    body: bytes
    is_last: bool = False

    @property
    def whole(self) -> bytes:
        return self.head + self.body


async def _read_message(reader: asyncio.StreamReader) -> _Message:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    is_answer = first.startswith("HTTP/")
    is_last = headers.get("connection", "").lower() == "close"
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _Message(head, await _read_chunks(reader), is_last)
    if "content-length" in headers:
        return _Message(head, await reader.readexactly(int(headers["content-length"])), is_last)
    if is_answer and first.split()[1] not in ("204", "304"):
        return _Message(head, await reader.read(), is_last=True)
    return _Message(head, b"", is_last)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it is on the wire. The sandbox sends no trailers."""
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        parts += [line, await reader.readexactly(size + 2)]
        if size == 0:
            return b"".join(parts)


async def _send_slowly(writer: asyncio.StreamWriter, data: bytes, *, piece: int, pause: float) -> None:
    for start in range(0, len(data), piece):
        writer.write(data[start : start + piece])
        await writer.drain()
        await asyncio.sleep(pause)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
