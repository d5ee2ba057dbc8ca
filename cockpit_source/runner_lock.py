"""One run at a time per destination, dataset, tenant and scope: on this machine, and where it can be, on all of them.

Three locks, each released when its process dies: a file in the spool; for a database that is a file, a file beside
it, which two data folders of dlt on one database have in common; in PostgreSQL an advisory lock of a session of its
own, which every machine meets. A shard shares that one with other shards, so that no run over the whole list is
beside it, and has one more for each of its buckets, so that no two layouts of shards read a scope at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import dlt

from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.lake import postgres_catalog
from cockpit_source.lock import busy, file_lock, run_lock
from cockpit_source.pipeline import ordinary_name, work_folder
from cockpit_source.postgres import connect, holds_lock, take_lock, to_key
from cockpit_source.redaction import redact
from cockpit_source.shards import Shard
from cockpit_source.warehouse import database_file, describe_location, to_warehouse_error


class RunnerLock:
    """The lock of a run that has begun."""

    def verify(self) -> None:
        """Make sure that no other run can have begun meanwhile.

        Raises:
            WarehouseError: the lock was lost with its connection.
        """


class _PostgresLock(RunnerLock):
    """Advisory locks, held by a session of their own: that of the tenant, and those of the buckets of a shard."""

    def __init__(self, connection: Any, name: str, shard: Shard | None, location: str) -> None:
        self._connection = connection
        self._key = to_key(f"runner|{name}")
        self._buckets = [to_key(f"runner|{name}|{bucket}") for bucket in (shard.buckets if shard else ())]
        self._location = location

    def acquire(self) -> None:
        """Take the locks or say who holds one."""
        holder = take_lock(self._connection, self._key, shared=bool(self._buckets))
        for key in self._buckets:
            holder = holder or take_lock(self._connection, key)
        if holder:
            raise busy(holder)

    def verify(self) -> None:
        try:
            if all(holds_lock(self._connection, key) for key in (self._key, *self._buckets)):
                return
            reason = "the session does not hold it any more"
        except Exception as error:  # noqa: BLE001 - whatever it is, the lock is not known to be held
            reason = redact(str(error).strip().split("\n")[0])
        raise WarehouseError(
            f"The lock of this run in {self._location} was lost: {reason}. Another load may have begun, so this one "
            "stops. What was read is in the spool; run again, and the next load carries on."
        )


@contextmanager
def one_runner(pipeline: dlt.Pipeline, shard: Shard | None = None) -> Iterator[RunnerLock]:
    """Be the only run of `pipeline`, or of its scopes in `shard`, while the context lasts.

    Raises:
        ConfigurationError: there is a shard, and the destination has no place for its locks.
        WarehouseBusy: another run is under way; the message names it.
        WarehouseError: the lock cannot be taken.
    """
    credentials = _postgres_credentials(pipeline)
    if shard is not None and credentials is None:
        raise ConfigurationError(
            f"Shards cannot load side by side into {describe_location(pipeline)}: that takes locks which every "
            "process meets. Valid destinations: postgres, and ducklake with its catalogue in PostgreSQL. A DuckDB "
            "file has one writer in any case: load it without --shard."
        )
    within = nullcontext(RunnerLock()) if credentials is None else _hold_in_postgres(pipeline, credentials, shard)
    with run_lock(work_folder(pipeline)), _lock_beside(pipeline), within as lock:
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


def _postgres_credentials(pipeline: dlt.Pipeline) -> Any:
    """Of the PostgreSQL that is the destination, or that has the catalogue of the lake; None for others."""
    if pipeline.destination.destination_name == "postgres":
        return pipeline.destination_client().config.credentials
    return postgres_catalog(pipeline)


@contextmanager
def _hold_in_postgres(pipeline: dlt.Pipeline, credentials: Any, shard: Shard | None) -> Iterator[RunnerLock]:
    psycopg2: Any = import_module("psycopg2")
    location = describe_location(pipeline)
    try:
        connection = connect(credentials, f"load {shard}" if shard else "load")
    except psycopg2.Error as error:
        raise to_warehouse_error(error, location) from error
    try:
        # a session that is idle in a transaction would hold vacuum back
        connection.autocommit = True
        lock = _PostgresLock(connection, ordinary_name(pipeline), shard, location)
        try:
            lock.acquire()
        except psycopg2.Error as error:
            raise to_warehouse_error(error, location) from error
        yield lock
    finally:
        connection.close()
