"""Sessions of PostgreSQL with the credentials of a pipeline, and the advisory locks that they hold."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from importlib import import_module
from typing import Any

_CONNECT_SECONDS = 10
_POLL_SECONDS = 0.05
# halves of a key as pg_locks shows them
_HALF = 0xFFFFFFFF

_HOLDER = """
SELECT a.pid, a.application_name, host(a.client_addr), a.backend_start
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = %s AND l.objid::bigint = %s AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def connect(credentials: Any, purpose: str) -> Any:
    """A session named after its purpose, machine and process.

    Raises:
        psycopg2.Error: there is none to be had.
    """
    psycopg2: Any = import_module("psycopg2")
    return psycopg2.connect(
        credentials.to_native_representation(),
        # given apart, since the address has their blanks as "+", which libpq does not read
        options=credentials.get_query().get("options") or "",
        application_name=f"cockpit {purpose} {socket.gethostname()} pid {os.getpid()}",
        connect_timeout=_CONNECT_SECONDS,
        keepalives_idle=30,
    )


def to_key(name: str) -> int:
    """The key of the advisory lock of this name: a signed 64-bit number."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def take_lock(connection: Any, key: int, *, shared: bool = False) -> str | None:
    """Take the advisory lock `key` for the session, or tell who holds it. Several may hold it `shared`."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_try_advisory_lock{'_shared' if shared else ''}(%s)", (key,))
        if cursor.fetchone() == (True,):
            return None
        cursor.execute(_HOLDER, _to_halves(key))
        return _describe_session(cursor.fetchone())


def wait_for_lock(connection: Any, key: int) -> None:
    """Take the advisory lock `key` for the session, once nobody else holds it."""
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (key,))
            if cursor.fetchone() == (True,):
                return
            # not in the server: a process that waits there cannot be stopped
            time.sleep(_POLL_SECONDS)


def holds_lock(connection: Any, key: int) -> bool:
    """Whether the session still holds the advisory lock `key`."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM ({_HOLDER}) h WHERE h.pid = pg_backend_pid()", _to_halves(key))
        return cursor.fetchone() is not None


def _to_halves(key: int) -> tuple[int, int]:
    return (key >> 32) & _HALF, key & _HALF


def _describe_session(row: tuple[Any, ...] | None) -> str:
    if row is None:
        return "its session has just ended"
    pid, application, address, since = row
    return (
        f"{application or 'a session without a name'}, session {pid} of the database, "
        f"from {address or 'its machine'}, since {since:%Y-%m-%d %H:%M:%S %Z}"
    )
