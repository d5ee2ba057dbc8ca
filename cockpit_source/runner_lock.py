"""One run at a time per destination, dataset, tenant and shard: on this machine, and where it can be, on all of them.

Three locks, each released when its process dies: a file in the spool; for a database that is a file, a file beside
it, which two data folders of dlt on one database have in common; in PostgreSQL an advisory lock of a session of its
own, which every machine meets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import dlt

from cockpit_source.errors import WarehouseError
from cockpit_source.lock import busy, file_lock, run_lock
from cockpit_source.pipeline import work_folder
from cockpit_source.postgres import connect, holds_lock, take_lock
from cockpit_source.redaction import redact
from cockpit_source.warehouse import database_file, describe_location, to_warehouse_error


class RunnerLock:
    """The lock of a run that has begun."""

    def verify(self) -> None:
        """Make sure that no other run can have begun meanwhile.

        Raises:
            WarehouseError: the lock was lost with its connection.
        """


class _PostgresLock(RunnerLock):
    """An advisory lock, held by a session of its own."""

    def __init__(self, connection: Any, key: int, location: str) -> None:
        self._connection = connection
        self._key = key
        self._location = location

    def acquire(self) -> None:
        """Take the lock or say who holds it."""
        if holder := take_lock(self._connection, self._key):
            raise busy(holder)

    def verify(self) -> None:
        try:
            if holds_lock(self._connection, self._key):
                return
            reason = "the session does not hold it any more"
        except Exception as error:  # noqa: BLE001 - whatever it is, the lock is not known to be held
            reason = redact(str(error).strip().split("\n")[0])
        raise WarehouseError(
            f"The lock of this run in {self._location} was lost: {reason}. Another load may have begun, so this one "
            "stops. What was read is in the spool; run again, and the next load carries on."
        )


@contextmanager
def one_runner(pipeline: dlt.Pipeline) -> Iterator[RunnerLock]:
    """Be the only run of `pipeline` while the context lasts.

    Raises:
        WarehouseBusy: another run is under way; the message names it.
        WarehouseError: the lock cannot be taken.
    """
    with run_lock(work_folder(pipeline)), _lock_beside(pipeline), _lock_within(pipeline) as lock:
        yield lock


@contextmanager
def _lock_beside(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Hold the lock file beside a database that is a file; without its folder there is no database either."""
    database = database_file(pipeline)
    if database is None or not database.parent.is_dir():
        yield
        return
    suffix = pipeline.pipeline_name.rpartition("_")[2]
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(database.with_name(f"{database.name}.{suffix}.lock")))
        except OSError as error:
            raise to_warehouse_error(error, describe_location(pipeline)) from error
        yield


def _lock_within(pipeline: dlt.Pipeline) -> AbstractContextManager[RunnerLock]:
    credentials: Any = pipeline.destination_client().config.credentials
    kind = pipeline.destination.destination_name
    if kind == "postgres":
        return _hold_in_postgres(pipeline, credentials)
    if kind == "ducklake" and credentials.catalog.drivername.startswith("postgres"):
        return _hold_in_postgres(pipeline, credentials.catalog)
    return nullcontext(RunnerLock())


@contextmanager
def _hold_in_postgres(pipeline: dlt.Pipeline, credentials: Any) -> Iterator[RunnerLock]:
    psycopg2: Any = import_module("psycopg2")
    location = describe_location(pipeline)
    try:
        connection = connect(credentials, "load")
    except psycopg2.Error as error:
        raise to_warehouse_error(error, location) from error
    try:
        # a session that is idle in a transaction would hold vacuum back
        connection.autocommit = True
        lock = _PostgresLock(connection, _to_key(pipeline.pipeline_name), location)
        try:
            lock.acquire()
        except psycopg2.Error as error:
            raise to_warehouse_error(error, location) from error
        yield lock
    finally:
        connection.close()


def _to_key(name: str) -> int:
    """A signed 64-bit number; the name is made of destination, dataset, tenant and shard."""
    return int.from_bytes(hashlib.sha256(f"runner|{name}".encode()).digest()[:8], "big", signed=True)
