"""Serving the app: marimo's web application under uvicorn, quiet, with the guard around it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import marimo
import uvicorn

from cockpit_source.dashboard.guard import Guard

APP_FILE = Path(__file__).parent / "app.py"
# what marimo keeps of a page that was closed without a word
_SESSION_SECONDS = 60


def serve(
    listener: socket.socket,
    *,
    host: str,
    is_loopback: bool,
    token: str,
    on_ready: Callable[[], None],
) -> None:
    """Serve until Ctrl+C or SIGTERM. `on_ready` is called once pages are answered."""
    app = _create_app(token)
    server = _Server(Guard(app, host, is_loopback=is_loopback), _session_managers(app), on_ready)
    with suppress(KeyboardInterrupt):
        server.run([listener])


def _create_app(token: str) -> Any:
    builder = marimo.create_asgi_app(quiet=True, token=token or None, session_ttl=_SESSION_SECONDS)
    return builder.with_app(path="", root=str(APP_FILE)).build()


def _session_managers(app: Any) -> list[Any]:
    """What holds the open pages, each with a thread that would keep the process alive."""
    states: list[Any] = [getattr(getattr(route, "app", None), "state", None) for route in app.routes]
    return [state.session_manager for state in states if hasattr(state, "session_manager")]


class _Server(uvicorn.Server):
    """A uvicorn that says when it is ready, and stops at once, whatever page is still open."""

    def __init__(self, app: Any, session_managers: list[Any], on_ready: Callable[[], None]) -> None:
        self._session_managers = session_managers
        self._on_ready = on_ready
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what is open: a page keeps its connection for as long as it is looked at."""
        self.force_exit = True
        asyncio.get_running_loop().call_later(0.05, self._cut_connections)
        await super().shutdown(sockets)
        for manager in self._session_managers:
            await manager.shutdown()

    def _cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
