"""Reads from the destination, and its errors in our words. Nothing here writes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from dlt.common.destination.exceptions import DestinationException, DestinationUndefinedEntity
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.pipeline.exceptions import PipelineStepFailed
from sqlglot import exp

from cockpit_source.errors import ConfigurationError, WarehouseBusy, WarehouseError, WarehouseRefused
from cockpit_source.redaction import redact
from cockpit_source.scope_list import HELD_SCHEMA, PRIOR_SCHEMA
from cockpit_source.shards import Shard, overlap

_CHUNK_ROWS = 10_000
# what libpq says when the server ends or restarts
_LOST_CONNECTION = re.compile(
    r"terminating connection|server closed the connection|connection already closed|connection to server|"
    r"could not connect|Connection refused|SSL connection has been closed|cursor already closed",
    re.IGNORECASE,
)
_LOCK_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class _Patience:
    """How long each opening waits for another process that has the DuckDB file open."""

    seconds: float
    note: Callable[[str], None]
    stopped: Callable[[], bool]

    def wait(self, give_up_at: float, error: WarehouseError, *, first: bool) -> bool:
        """Whether to try again, after a moment."""
        if not isinstance(error, WarehouseBusy) or self.stopped() or time.monotonic() >= give_up_at:
            return False
        if first:
            self.note(f"{str(error).split(' DuckDB allows')[0]} Waiting up to {self.seconds:g} s until it is closed.")
        time.sleep(min(_POLL_SECONDS, max(0.0, give_up_at - time.monotonic())))
        return True


_patience: ContextVar[_Patience | None] = ContextVar("patience", default=None)


_DUCKDB_HINT = " (--database, or destination.duckdb.credentials)"
# the tables that every load writes first and last
_ROLE_THAT_ONLY_READS = """SELECT DISTINCT current_user::text AS role FROM pg_tables
WHERE schemaname = %s AND tablename IN ('_dlt_version', 'runs')
    AND NOT has_table_privilege(format('%%I.%%I', schemaname, tablename), 'INSERT')"""


@contextmanager
def waiting_for_readers(
    seconds: float, note: Callable[[str], None], stopped: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """In this thread, each opening waits up to `seconds` while another process has the DuckDB file open.

    `note` is told once for each; `stopped` ends the waiting.
    """
    token = _patience.set(_Patience(seconds, note, stopped))
    try:
        yield
    finally:
        _patience.reset(token)


class DatasetClient:
    """An open connection to the dataset, for the SQL of this package."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query whose result is small; times are UTC.

        A table is written as `{name}`, a value as `%s`.

        Raises:
            DestinationUndefinedEntity: a table or column is not there.
        """
        tables = _iter_tables(self._client, self._qualify(sql), *values)
        return [_in_utc(row) for table in tables for row in table.to_pylist()]

    def execute(self, sql: str, *values: Any) -> None:
        """Run a statement that answers nothing; tables and values as in `rows`."""
        self._client.execute_sql(self._qualify(sql), *values)

    @contextmanager
    def transaction(self, *, keep: bool) -> Iterator[None]:
        """What is executed inside is done together, or not at all: after an error, or unless `keep`."""
        with suppress(_UndoTransaction), self._client.begin_transaction():
            yield
            if not keep:
                raise _UndoTransaction

    def has_table(self, name: str) -> bool:
        """Whether the table is there."""
        try:
            self.rows(f"SELECT 1 AS one FROM {{{name}}} WHERE 1 = 0")
        except DestinationUndefinedEntity:
            return False
        return True

    def _qualify(self, sql: str) -> str:
        return sql.format_map(_QualifiedNames(self._client))


class _UndoTransaction(Exception):
    """Makes dlt roll a transaction back."""


class _QualifiedNames(dict[str, str]):
    """Table names as the destination wants them, by their plain name."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    def __missing__(self, name: str) -> str:
        return str(self._client.make_qualified_table_name(name))


class Warehouse:
    """The dataset of a pipeline, for reading."""

    def __init__(self, pipeline: dlt.Pipeline, *, copy: Path | None = None) -> None:
        """`copy` is a copy of the DuckDB file, to be read instead of it."""
        self._pipeline = pipeline
        self._copy = copy

    @property
    def location(self) -> str:
        """The destination as an address without a password."""
        return describe_location(self._pipeline)

    @property
    def dataset(self) -> str:
        """The dataset that holds the tables."""
        return str(self._pipeline.dataset_name)

    @contextmanager
    def opened(self, *, read_only: bool) -> Iterator[DatasetClient | None]:
        """An open connection for several queries; None where there is no DuckDB file, which opening would create.

        `read_only` lets other readers of a DuckDB file be.

        Raises:
            WarehouseError: it cannot be opened, or a query fails; WarehouseBusy when another process holds it.
        """
        if self._is_duckdb and not Path(self._pipeline.sql_client().credentials.database).exists():
            yield None
            return
        try:
            with self._pipeline_client(read_only=read_only) as client:
                yield DatasetClient(client)
        except DestinationUndefinedEntity as error:
            raise WarehouseError(
                f"Dataset {self.dataset} in {self.location} lacks what this version reads: {describe_reason(error)}. "
                "`cockpit load` adds it. Nothing was changed."
            ) from error

    def check(self) -> None:
        """Open the destination once.

        Raises:
            WarehouseError: it cannot be opened, or a role of PostgreSQL may only read it; WarehouseBusy when another
                process holds it.
        """
        with self._pipeline_client() as client:
            opened = DatasetClient(client)
            opened.rows("SELECT 1 AS one")
            is_postgres = self._pipeline.destination.destination_name == "postgres"
            found = opened.rows(_ROLE_THAT_ONLY_READS, self.dataset) if is_postgres else []
        for row in found:
            raise WarehouseError(
                f"The role {row['role']} may not write into dataset {self.dataset} of {self.location}. Give the "
                "credentials of the role that loads. Nothing was changed."
            )

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """DuckDB stays open meanwhile, since it writes a checkpoint whenever its last connection closes.

        Not for longer than a package: what it keeps in memory counts towards its limit.
        """
        with self._pipeline_client() if self._is_duckdb else nullcontext():
            yield

    def prior_scopes(self, tenant_key: str) -> Iterator[pa.Table]:
        """Rows of `scopes` of one tenant, as tables with the columns of `PRIOR_SCHEMA`; none before the first run."""
        yield from self.tenant_rows("scopes", PRIOR_SCHEMA.names, tenant_key)

    def held_licenses(self, tenant_key: str) -> Iterator[pa.Table]:
        """How many rows of `licenses` each scope of one tenant has, as tables of `HELD_SCHEMA`."""
        columns = "scope_key, count(*) AS held_licenses"
        for table in self._select_from("licenses", columns, "tenant = %s GROUP BY scope_key", tenant_key):
            yield table.cast(HELD_SCHEMA)

    def tenant_rows(self, table_name: str, columns: Iterable[str], tenant_key: str) -> Iterator[pa.Table]:
        """`columns` of the rows of one tenant in a table; none before the table exists."""
        yield from self._select_from(table_name, ", ".join(columns), "tenant = %s", tenant_key)

    def latest_validity(self, tenant_key: str, shard: Shard | None = None) -> datetime | None:
        """The latest `valid_from` or `valid_to` of one tenant, or one shard of it, UTC; None without history."""
        columns = "scope_key, max(valid_from) AS latest_from, max(valid_to) AS latest_to"
        tables = self._select_from("license_history", columns, "tenant = %s GROUP BY scope_key", tenant_key)
        moments = [
            pc.max(table[name]).as_py()
            for table in (tables if shard is None else shard.select(tables))
            for name in ("latest_from", "latest_to")
        ]
        return max((moment.astimezone(UTC) for moment in moments if moment is not None), default=None)

    def has_run_since(self, tenant_key: str, run_id: str, started_at: datetime, shard: str | None = None) -> bool:
        """Whether another run of the tenant began after `started_at` that may have read a scope of `shard`."""
        condition = "tenant = %s AND run_id <> %s AND started_at > %s"
        # all columns, since those of an older version lack that of the shard
        tables = self._select_from("runs", "*", condition, tenant_key, run_id, started_at)
        return any(overlap(shard, row.get("shard")) for table in tables for row in table.to_pylist())

    def select(self, sql: str, *values: Any) -> Iterator[pa.Table]:
        """The rows of a query in chunks, written as for `DatasetClient.rows`; none before its tables exist."""
        with self._pipeline_client() as client:
            try:
                yield from _iter_tables(client, sql.format_map(_QualifiedNames(client)), *values)
            except DestinationUndefinedEntity:
                return

    def query_rows(self, sql: str) -> Iterator[Mapping[str, Any]]:
        """The rows of `scopes_query` as dictionaries, column names in lower case.

        Raises:
            ConfigurationError: it is not one SELECT, or the warehouse does not accept it.
        """
        _require_one_select(sql, self._pipeline.destination.capabilities().sqlglot_dialect)
        try:
            for table in self._select(sql):
                names = [name.lower() for name in table.column_names]
                yield from table.rename_columns(names).to_pylist()
        except (WarehouseBusy, ConfigurationError):
            raise
        except (WarehouseError, DestinationUndefinedEntity) as error:
            raise ConfigurationError(
                f"scopes_query failed: {describe_reason(error)}. Correct the SQL; it runs on {self.location}."
            ) from error

    def _select_from(self, table_name: str, columns: str, condition: str, *values: Any) -> Iterator[pa.Table]:
        with self._pipeline_client() as client:
            qualified = client.make_qualified_table_name(table_name)
            try:
                yield from _iter_tables(client, f"SELECT {columns} FROM {qualified} WHERE {condition}", *values)
            except DestinationUndefinedEntity:
                return

    def _select(self, sql: str) -> Iterator[pa.Table]:
        with self._pipeline_client() as client:
            yield from _iter_tables(client, sql)

    @property
    def _is_duckdb(self) -> bool:
        return bool(self._pipeline.destination.destination_name == "duckdb")

    @contextmanager
    def _pipeline_client(self, *, read_only: bool = False) -> Iterator[Any]:
        with ExitStack() as stack:
            sql_client = self._open(stack, read_only=read_only)
            try:
                yield sql_client
            except DestinationUndefinedEntity:
                raise
            except DestinationException as error:
                raise to_warehouse_error(error, self.location) from error

    def _open(self, stack: ExitStack, *, read_only: bool) -> Any:
        """An open client, closed with `stack`; waits for readers where that was asked for."""
        patience = _patience.get()
        give_up_at = time.monotonic() + (patience.seconds if patience else 0.0)
        waited = False
        while True:
            sql_client: Any = self._pipeline.sql_client()
            with ExitStack() as opening:
                if self._is_duckdb:
                    opening.enter_context(_opened_as(sql_client.credentials, self._copy, read_only=read_only))
                try:
                    opening.enter_context(sql_client)
                except Exception as error:
                    # dlt passes on what some drivers raise, such as that of PostgreSQL
                    busy = to_warehouse_error(error, self.location)
                    if patience is None or not patience.wait(give_up_at, busy, first=not waited):
                        raise busy from error
                    waited = True
                    continue
                stack.push(opening.pop_all())
                return sql_client


def describe_location(pipeline: dlt.Pipeline) -> str:
    """The destination of `pipeline` as an address without a password."""
    return str(pipeline.destination_client().config)


def database_file(pipeline: dlt.Pipeline) -> Path | None:
    """The file that is the database, or the catalogue of a DuckLake; None where it is not a file."""
    credentials: Any = pipeline.destination_client().config.credentials
    kind = pipeline.destination.destination_name
    if kind == "duckdb":
        return Path(credentials.database)
    if kind == "ducklake" and credentials.catalog.drivername in ("sqlite", "duckdb"):
        return Path(credentials.catalog.database)
    return None


def to_warehouse_error(error: BaseException, location: str) -> WarehouseError:
    """Our error for what dlt or the database raised."""
    reason = describe_reason(error)
    if holder := _LOCK_HOLDER.search(reason):
        return WarehouseBusy(
            f"The database {location} is in use by process {holder['pid']} ({holder['program']}). "
            "DuckDB allows one writer or many readers: close the other program, or let it open the read copy "
            "(NAME.read.duckdb) instead, then run again. Nothing was lost."
        )
    return WarehouseRefused(
        f"The destination {location} cannot be used: {reason}. Check the path, the credentials and the permissions"
        f"{_DUCKDB_HINT if location.startswith('duckdb') else ''}, then run again. Nothing was lost.",
        reason,
    )


def tells_lost_connection(reason: str) -> bool:
    """Whether a reason is about the connection to a server, and so about no row."""
    return _LOST_CONNECTION.search(reason) is not None


def describe_reason(error: BaseException) -> str:
    """The first line of the root cause, redacted."""
    while isinstance(error, PipelineStepFailed) and error.exception is not None:
        error = error.exception
    root = error.inner_exc if isinstance(error, DestinationConnectionError) else error
    while root.__cause__ is not None and isinstance(root, DestinationException | WarehouseError):
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(root).__name__).rstrip(".!")


@contextmanager
def _opened_as(credentials: Any, copy: Path | None, *, read_only: bool) -> Iterator[None]:
    """Open a DuckDB file read only, or its copy; dlt may keep `credentials` for later loads."""
    usual = credentials.read_only, credentials.database
    if read_only or copy:
        credentials.read_only = True
    if copy:
        credentials.database = str(copy)
    try:
        yield
    finally:
        credentials.read_only, credentials.database = usual


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()}


def _iter_tables(client: Any, sql: str, *values: Any) -> Iterator[pa.Table]:
    with client.execute_query(sql, *values) as cursor:
        for chunk in cursor.iter_arrow(_CHUNK_ROWS):
            yield chunk if isinstance(chunk, pa.Table) else pa.Table.from_batches([chunk])


def _describe_sql_error(error: sqlglot.errors.SqlglotError) -> str:
    if not isinstance(error, sqlglot.errors.ParseError) or not error.errors:
        return redact(str(error).splitlines()[0]).rstrip(".")
    first = error.errors[0]
    return f"{str(first['description']).rstrip('.')} at line {first['line']}, column {first['col']}"


def _require_one_select(sql: str, dialect: str | None) -> None:
    try:
        # what follows the last semicolon, such as a comment, is no statement
        parsed = sqlglot.parse(sql, dialect=dialect)
        statements = [statement for statement in parsed if not isinstance(statement, exp.Semicolon | None)]
    except sqlglot.errors.SqlglotError as error:
        reason = _describe_sql_error(error)
        raise ConfigurationError(f"scopes_query is not valid SQL: {reason}. Correct the SQL.") from None
    is_select = len(statements) == 1 and isinstance(statements[0], exp.Query)
    # a Postgres SELECT can hide a DELETE in its WITH
    if not is_select or statements[0].find(exp.DML, exp.DDL, exp.Into):
        raise ConfigurationError(
            "scopes_query is not one SELECT. Make it one, with the columns customer_id, provider_instance_id and, if "
            "wanted, reseller_id."
        )
