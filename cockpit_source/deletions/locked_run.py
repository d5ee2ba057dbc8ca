"""Runs the SQL of a deletion query where it can change nothing and reach nothing but the inventory.

This is the second lock, behind the allow-list: on DuckDB a read-only connection of its own, without access to files
or the network, whose settings are then locked; on PostgreSQL a cursor in a read-only transaction, which the server
opens for a SELECT only, of a role that may read only where the configured one is a superuser. Both end after
`MAX_SECONDS`, and give at most `MAX_ROWS` rows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import dlt
import duckdb

from cockpit_source.errors import ConfigurationError, DeletionRefused, WarehouseBusy
from cockpit_source.redaction import redact
from cockpit_source.warehouse import database_file, describe_location, to_warehouse_error

MAX_ROWS = 100_000
MAX_SECONDS = 300
_CONNECT_SECONDS = 10

# from before the file is opened; what does not fit into memory fails, instead of being written beside the database
_DUCKDB_CONFIG: dict[str, Any] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "memory_limit": "1GB",
}
# a role that every PostgreSQL from 14 on has
_READ_ALL = "pg_read_all_data"
_POSTGRES_CANCELLED = "57014"


@dataclass(frozen=True, slots=True)
class Selected:
    """What a query gave: names of columns, and all rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class LockedConnection(Protocol):
    """An open connection that can only read the dataset."""

    def select(self, sql: str) -> Selected:
        """All rows of a SELECT; raises whatever the database does."""
        ...


def dialect_of(pipeline: dlt.Pipeline) -> str:
    """The name of the destination's SQL for sqlglot.

    Raises:
        ConfigurationError: deletions do not work with this destination.
    """
    kind = pipeline.destination.destination_name
    if kind not in _OPENERS:
        raise ConfigurationError(
            f"Deletions do not work with the destination {kind!r}: they were proved on duckdb and postgres only."
        )
    return str(kind)


def run_locked(sql: str, pipeline: dlt.Pipeline) -> Selected:
    """The rows of `sql`, which the allow-list has passed.

    Raises:
        ConfigurationError: deletions do not work with this destination.
        WarehouseBusy: another process has the DuckDB file open, such as a load.
        DeletionRefused: `inventory_unreadable`, `query_failed`.
    """
    with open_locked(pipeline) as connection:
        try:
            selected = connection.select(sql)
        except Exception as error:
            # whatever it is, the query gave nothing that can be used
            raise _failed(_describe(error)) from error
    if len(selected.rows) > MAX_ROWS:
        raise _failed(f"it selects more than {MAX_ROWS} rows")
    return selected


def open_locked(pipeline: dlt.Pipeline) -> AbstractContextManager[LockedConnection]:
    """A connection to the dataset of `pipeline` that is locked; raises as `run_locked` does."""
    return _OPENERS[dialect_of(pipeline)](pipeline)


class _LockedDuckDB:
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def select(self, sql: str) -> Selected:
        statements = self._connection.extract_statements(sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise duckdb.InvalidInputException("DuckDB does not take it for one SELECT")
        timer = threading.Timer(MAX_SECONDS, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            result = self._connection.execute(statements[0])
            columns = tuple(str(column[0]) for column in result.description or ())
            return Selected(columns, result.fetchmany(MAX_ROWS + 1))
        finally:
            timer.cancel()


@contextmanager
def _open_duckdb(pipeline: dlt.Pipeline) -> Iterator[LockedConnection]:
    database = database_file(pipeline)
    if database is None or not database.is_file():
        raise _unreadable(f"there is no file {database}")
    try:
        connection = duckdb.connect(str(database), read_only=True, config=_DUCKDB_CONFIG)
    except (duckdb.Error, OSError) as error:
        raise _to_error(error, pipeline) from error
    with connection:
        try:
            dataset = _quoted(str(pipeline.dataset_name))
            connection.execute(f"USE {dataset}")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")
        except duckdb.Error as error:
            raise _to_error(error, pipeline) from error
        yield _LockedDuckDB(connection)


class _LockedPostgres:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def select(self, sql: str) -> Selected:
        # a cursor of the server: it is declared for a SELECT, and for nothing else
        with self._connection.cursor(name="candidates") as cursor:
            cursor.execute(sql)
            rows = cursor.fetchmany(MAX_ROWS + 1)
            return Selected(tuple(column.name for column in cursor.description or ()), rows)


@contextmanager
def _open_postgres(pipeline: dlt.Pipeline) -> Iterator[LockedConnection]:
    psycopg2: Any = import_module("psycopg2")
    credentials: Any = pipeline.destination_client().config.credentials
    try:
        connection = psycopg2.connect(
            credentials.to_native_representation(),
            # given apart, since the address has their blanks as "+", which libpq does not read
            options=credentials.get_query().get("options") or "",
            application_name="cockpit deletions, query",
            connect_timeout=_CONNECT_SECONDS,
        )
    except psycopg2.Error as error:
        raise _to_error(error, pipeline) from error
    try:
        try:
            _lock_postgres(connection, str(pipeline.dataset_name))
        except psycopg2.Error as error:
            raise _to_error(error, pipeline) from error
        yield _LockedPostgres(connection)
    finally:
        with suppress(psycopg2.Error):
            connection.rollback()
        connection.close()


def _lock_postgres(connection: Any, dataset: str) -> None:
    """Begin the transaction. Once it has read something, the server does not let it become writable any more."""
    connection.set_client_encoding("UTF8")
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        cursor.execute(f"SET LOCAL search_path TO {_quoted(dataset)}")
        cursor.execute(f"SET LOCAL statement_timeout = {MAX_SECONDS * 1000}")
        # what the SQL is written for
        cursor.execute("SET LOCAL standard_conforming_strings = on")
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute("SET LOCAL DateStyle = 'ISO'")
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (dataset,))
        if cursor.fetchone() is None:
            raise _unreadable(f"there is no schema {dataset}")
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        is_superuser = cursor.fetchone() == (True,)
        if is_superuser:
            # a superuser reads and writes files of the server whatever the transaction is
            cursor.execute(f"SET LOCAL ROLE {_READ_ALL}")


_OPENERS = {"duckdb": _open_duckdb, "postgres": _open_postgres}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _describe(error: BaseException) -> str:
    if isinstance(error, duckdb.InterruptException) or getattr(error, "pgcode", None) == _POSTGRES_CANCELLED:
        return f"it took longer than {MAX_SECONDS} seconds"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__).rstrip(".!")


def _to_error(error: BaseException, pipeline: dlt.Pipeline) -> Exception:
    busy = to_warehouse_error(error, describe_location(pipeline))
    return busy if isinstance(busy, WarehouseBusy) else _unreadable(_describe(error))


def _unreadable(reason: str) -> DeletionRefused:
    return DeletionRefused(
        "inventory_unreadable",
        f"Refused, nothing was sent: the inventory cannot be read: {reason}. That says nothing about what is to be "
        "deleted. Check the destination, run `cockpit load`, then plan again.",
    )


def _failed(reason: str) -> DeletionRefused:
    return DeletionRefused(
        "query_failed",
        f"Refused, nothing was sent: the query failed: {reason}. That says nothing about what is to be deleted. "
        "Correct the SQL, then plan again.",
    )
