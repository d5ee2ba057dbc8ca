"""`cockpit dashboard`: what it shows, where it listens, and who may look."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import webbrowser
from pathlib import Path
from urllib.parse import quote

from cockpit_source.dashboard.database import locate_shown, show
from cockpit_source.dashboard.problems import find_problem
from cockpit_source.errors import ConfigurationError
from cockpit_source.report import create_console
from cockpit_source.values import is_loopback_host

DEFAULT_PORT = 2718
TOKEN_VARIABLE = "COCKPIT_DASHBOARD_TOKEN"  # noqa: S105 - its name, not a token

_SHORTEST_TOKEN = 12


def run_dashboard(
    *,
    destination: str,
    database: Path | None,
    dataset: str,
    host: str,
    port: int,
    token: str | None,
    open_browser: bool,
) -> None:
    """Serve the dashboard of the published read copy until Ctrl+C or SIGTERM.

    Raises:
        ConfigurationError: the destination is not DuckDB, the token is too short, or the address cannot be used.
    """
    shown = locate_shown(destination, database, dataset, what="The dashboard")
    show(shown)
    is_loopback = is_loopback_host(host)
    token = _choose_token(token, is_loopback=is_loopback)
    listener = _listen(host, port)
    address = _compose_address(host, listener.getsockname()[1], token)
    console = create_console()

    def announce() -> None:
        console.print(f"Dashboard of {shown.path} at {address} (Ctrl+C stops it)", markup=False, soft_wrap=True)
        if not is_loopback:
            console.print(
                f"It listens on {host}: whoever has this address with its token can read the inventory, and the "
                "connection is not encrypted. Keep it inside a network that you trust.",
                soft_wrap=True,
            )
        sys.stdout.flush()
        if problem := find_problem(shown, "the dashboard"):
            told = f"{problem.message} The dashboard follows without a restart."
            create_console(stderr=True).print(told, markup=False, soft_wrap=True)
        if open_browser:
            webbrowser.open(address)

    # the import takes a second, and needs the extra
    from cockpit_source.dashboard.server import serve

    try:
        serve(listener, host=host, is_loopback=is_loopback, token=token, on_ready=announce)
    finally:
        shown.close()


def _choose_token(token: str | None, *, is_loopback: bool) -> str:
    token = (token or "").strip()
    if token and len(token) < _SHORTEST_TOKEN:
        raise ConfigurationError(
            f"The token is shorter than {_SHORTEST_TOKEN} characters, so it could be guessed. Set {TOKEN_VARIABLE} "
            "to a longer one, or leave it out: one is made and printed."
        )
    return token or ("" if is_loopback else secrets.token_urlsafe(24))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise ConfigurationError(
            f"{host} port {port} cannot be used: {reason}. Choose another with --host and --port (0: a free one)."
        ) from None


def _compose_address(host: str, port: int, token: str) -> str:
    shown_host = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - the user asked for it
        shown_host = socket.gethostname()
    query = f"/?access_token={quote(token)}" if token else "/"
    return f"http://{shown_host}:{port}{query}"
