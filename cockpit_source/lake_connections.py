"""DuckDB connections to a DuckLake that are used again.

For every job of a load dlt 1.31 opens a DuckDB of its own, and each of those verifies the signatures of the
extensions that it loads, 78 MB of them: half of the processor time of a small load. Here a connection that dlt
returns, with the lake detached, is kept for whoever wants the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import dlt
import duckdb
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from dlt.destinations.impl.ducklake import configuration as ducklake_configuration

# what dlt calls its pool where it makes the credentials of a lake
_POOL = "DuckDbConnectionPool"


class _ReusingPool(DuckDbConnectionPool):
    """A pool of dlt that opens a connection only where none is idle."""

    idle: ClassVar[list[duckdb.DuckDBPyConnection]]
    guard = threading.Lock()

    def borrow_conn(
        self,
        global_config: dict[str, Any] | None = None,
        local_config: dict[str, Any] | None = None,
        pragmas: list[str] | None = None,
    ) -> duckdb.DuckDBPyConnection:
        with self.guard:
            connection = self.idle.pop() if self.idle else None
        if connection is None:
            return super().borrow_conn(global_config or {}, local_config or {}, pragmas or [])
        self._apply_local_config(connection, local_config or {}, pragmas or [])
        with self._conn_lock:
            self._conn_borrows += 1
        return connection

    def return_conn(self, borrowed_conn: duckdb.DuckDBPyConnection) -> int:
        if not _is_clean(borrowed_conn):
            return super().return_conn(borrowed_conn)
        with self._conn_lock:
            self._conn_borrows -= 1
        with self.guard:
            self.idle.append(borrowed_conn)
        return self._conn_borrows


@contextmanager
def reusing_connections(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Meanwhile, connections to the lake of `pipeline` are used again; for other destinations nothing changes."""
    if pipeline.destination.destination_name != "ducklake":
        yield
        return
    usual = getattr(ducklake_configuration, _POOL)

    # of this context only, since others may load another lake with other settings
    class Pool(_ReusingPool):
        idle: ClassVar[list[duckdb.DuckDBPyConnection]] = []

    setattr(ducklake_configuration, _POOL, Pool)
    try:
        yield
    finally:
        setattr(ducklake_configuration, _POOL, usual)
        for connection in Pool.idle:
            connection.close()


def _is_clean(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether nothing is attached to it any more; false also for one that broke."""
    try:
        rows = connection.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal").fetchall()
    except duckdb.Error:
        return False
    return rows == [("memory",)]
