"""Running the sandbox: in a thread of this process, or until stopped. Only on loopback addresses."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Unpack

import uvicorn

from cockpit_source.sandbox.app import create_app
from cockpit_source.sandbox.faults import Faults
from cockpit_source.sandbox.settings import SettingValues
from cockpit_source.sandbox.state import Sandbox
from cockpit_source.sandbox.tenant import SandboxTenant

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
except ImportError:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol  # type: ignore[assignment]


@contextmanager
def running_sandbox(
    tenant: SandboxTenant | None = None,
    *,
    day: int = 0,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: Faults | None = None,
    token_lifetime_seconds: float = 3599,
    **settings: Unpack[SettingValues],
) -> Iterator[Sandbox]:
    """A sandbox that listens until the context ends, in a thread of this process. Port 0 takes a free one."""
    sandbox = Sandbox(tenant, day=day, faults=faults, token_lifetime_seconds=token_lifetime_seconds, **settings)
    server = _Server(sandbox, host, port)
    thread = threading.Thread(target=server.run, name="cockpit-sandbox", daemon=True)
    thread.start()
    try:
        while not server.ready.wait(timeout=0.1):
            if not thread.is_alive():
                raise RuntimeError("the sandbox ended before it was ready; the log of uvicorn says why")
        yield sandbox
    finally:
        server.should_exit = True
        thread.join(timeout=5)


def serve(
    sandbox: Sandbox,
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    on_ready: Callable[[str], object] | None = None,
    stop_after: Callable[[], object] | None = None,
) -> None:
    """Serve until interrupted (Ctrl+C, SIGTERM) or, if `stop_after` is given, until it has returned.

    `on_ready` gets the base URL once the sandbox listens. `stop_after` runs in a thread of its own.
    Raises OSError when the port is taken and ValueError for a host that is not a loopback one.
    """
    server = _Server(sandbox, host, port, on_ready)
    if stop_after is not None:
        threading.Thread(target=server.stop_after, args=(stop_after,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.run()


class _Connection(HttpProtocol):
    """Hands the transport to the application, so that it can break the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is ready and stops at once, whatever is still open."""

    def __init__(
        self, sandbox: Sandbox, host: str, port: int, on_ready: Callable[[str], object] | None = None
    ) -> None:
        self.socket = _listen(host, port)
        self.ready = threading.Event()
        self._on_ready = on_ready
        self._sandbox = sandbox
        shown_host = f"[{host}]" if ":" in host else host
        sandbox.base_url = f"http://{shown_host}:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            create_app(sandbox),
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        super().run(sockets or [self.socket])

    def stop_after(self, wait: Callable[[], object]) -> None:
        """Stop when `wait` has returned."""
        wait()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen and say so."""
        await super().startup(sockets)
        self.ready.set()
        if self._on_ready is not None:
            self._on_ready(self._sandbox.base_url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections, then cut those that still wait for an answer."""
        self.force_exit = True
        asyncio.get_running_loop().call_later(0.05, self._cut_connections)
        await super().shutdown(sockets)

    def _cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    if host != "localhost":
        with suppress(ValueError):
            if ipaddress.ip_address(host).is_loopback:
                return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        raise ValueError(f"the sandbox does not listen on {host!r}; use localhost, 127.0.0.1 or ::1")
    return socket.create_server((host, port))
