"""A throwaway PostgreSQL for the tests: its own folder, a free port on the loopback interface, gone at the end."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

_DEBIAN_FOLDERS = "/usr/lib/postgresql/*/bin"
_START_SECONDS = 60
_OPTIONS = {"listen_addresses": "127.0.0.1", "max_connections": "40"}
# it holds nothing that must outlive the tests
_HASTY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "shared_buffers": "32MB"}


class PostgresMissing(Exception):
    """There are no binaries of PostgreSQL, or no user that may run them."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server, and how to reach its superuser."""

    port: int
    password: str
    pid: int

    def url(self, database: str = "postgres", *, password: str | None = None) -> str:
        return f"postgresql://postgres:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of a statement run outside a transaction."""
        with closing(psycopg2.connect(self.url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """The name of an empty database that is dropped in the end."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server with an empty cluster, while the context lasts; a durable one has PostgreSQL's own settings.

    Raises:
        PostgresMissing: with what is not there.
    """
    binaries = _find_binaries()
    user = _find_user()
    # not below pytest's own folder, which no other user may enter; and short, since the socket's path has a limit
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        password = secrets.token_hex(12)
        _create_cluster(binaries, folder, password, user)
        port = _free_port()
        process = _start(binaries, folder, port, user, _OPTIONS if durable else _OPTIONS | _HASTY)
        try:
            server = PostgresServer(port, password, process.pid)
            _wait_until_ready(server, process, folder)
            yield server
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_binaries() -> Path:
    """The folder with `initdb` and `postgres`, the newest of Debian's first."""
    candidates = sorted(Path("/").glob(_DEBIAN_FOLDERS[1:]), key=lambda path: _version_of(path.parent), reverse=True)
    if found := shutil.which("initdb"):
        candidates.append(Path(found).resolve().parent)
    for candidate in candidates:
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    raise PostgresMissing(f"PostgreSQL is not installed: no initdb in PATH or {_DEBIAN_FOLDERS}")


def _version_of(folder: Path) -> float:
    return float(folder.name) if folder.name.replace(".", "", 1).isdigit() else 0


def _find_user() -> str | None:
    """Whom to run it as: PostgreSQL refuses root. None stands for the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise PostgresMissing("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _create_cluster(binaries: Path, folder: Path, password: str, user: str | None) -> None:
    (folder / "password").write_text(password)
    command = [
        str(binaries / "initdb"),
        f"--pgdata={folder / 'data'}",
        "--username=postgres",
        f"--pwfile={folder / 'password'}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]
    ended = subprocess.run(command, cwd=folder, user=user, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, f"initdb failed:\n{ended.stdout}{ended.stderr}"


def _start(
    binaries: Path, folder: Path, port: int, user: str | None, options: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    options = {**options, "port": str(port), "unix_socket_directories": str(folder)}
    command = [str(binaries / "postgres"), "-D", str(folder / "data")]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        # its own session, so that a Ctrl+C meant for the tests does not reach it first
        return subprocess.Popen(
            command,
            cwd=folder,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Tests that are killed leave no server behind: the kernel stops it."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)


def _wait_until_ready(server: PostgresServer, process: subprocess.Popen[bytes], folder: Path) -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg2.OperationalError:
            log = (folder / "log").read_text(errors="replace")
            assert process.poll() is None, f"PostgreSQL ended:\n{log}"
            assert time.monotonic() < give_up_at, f"PostgreSQL does not answer:\n{log}"
            time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """At once, open connections or not."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
