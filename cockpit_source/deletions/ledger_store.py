"""The ledger in the warehouse. Statements here create tables, add rows and read them; none changes or removes any."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb

from cockpit_source import postgres
from cockpit_source.deletions.ledger_file import sync_folder
from cockpit_source.deletions.ledger_place import LedgerPlace
from cockpit_source.deletions.ledger_rows import Row, Rows
from cockpit_source.deletions.ledger_tables import (
    DELETION_EVENTS,
    DELETION_PLANS,
    LEDGER_DATASET,
    LEDGER_TABLES,
    LedgerTable,
)
from cockpit_source.errors import LedgerUnavailable
from cockpit_source.lock import busy
from cockpit_source.redaction import redact
from cockpit_source.tables import COUNT, TEXT, TIME, Column

ANOTHER_IS_RUNNING = "Another deletions command (plan, apply, verify or mend) is running"

_SQL_TYPES = {COUNT: "BIGINT", TEXT: "TEXT", TIME: "TIMESTAMPTZ"}
_LOCK_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# held by the session that writes; advisory locks are of one database, as the schema is
_LOCK_KEY = int.from_bytes(b"deletion", "big", signed=True)


class StoreInUse(LedgerUnavailable):
    """Another process has the DuckDB file open. `holder` names it."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class LedgerStore(ABC):
    """The tables, through one connection that stays open."""

    _placeholder: str

    def __init__(self, location: str) -> None:
        self._location = location

    def read(self) -> tuple[bool, dict[str, list[Row]]]:
        """Whether any of the tables is there, and all rows of each; the first column is the number of the record.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        with self._explained("read"), self._transaction():
            there = self._find_tables()
            rows = {name: self._read_table(table) for name, table in LEDGER_TABLES.items() if name in there}
        return bool(rows), {name: [] for name in LEDGER_TABLES} | rows

    def insert(self, rows: Rows, last_seq: int) -> None:
        """Add rows to what `read` found, all of them or none; tables that are not there are created.

        `last_seq` is the number of the last record that the tables hold, 0 for none.

        Raises:
            LedgerUnavailable: that did not work, or something else has written meanwhile.
        """
        with self._explained("written"), self._transaction():
            there = self._find_tables()
            if missing := [table for name, table in LEDGER_TABLES.items() if name not in there]:
                self._create(missing)
            found = self._find_last()
            if found != last_seq:
                raise OSError(f"its last record is {found} where it should be {last_seq}: something else wrote to it")
            for name, some in rows.items():
                self._insert(LEDGER_TABLES[name], some)

    @abstractmethod
    def close(self) -> None:
        """End the connection."""

    @abstractmethod
    def _fetch(self, sql: str, values: Sequence[Any] = ()) -> list[Row]: ...

    @abstractmethod
    def _run(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement once for each row of values."""

    @abstractmethod
    def _transaction(self) -> Any: ...

    @abstractmethod
    def _find_tables(self) -> set[str]: ...

    @abstractmethod
    def _explained(self, what: str) -> Any: ...

    def _qualify(self, name: str) -> str:
        return f"{self._schema}.{name}"

    @property
    def _schema(self) -> str:
        return LEDGER_DATASET

    def _read_column(self, column: Column) -> str:
        return column.name

    def _read_table(self, table: LedgerTable) -> list[Row]:
        columns = ", ".join(self._read_column(column) for column in table.columns)
        times = [index for index, column in enumerate(table.columns) if column.type == TIME]
        return [_with_times(row, times) for row in self._fetch(f"SELECT {columns} FROM {self._qualify(table.name)}")]

    def _find_last(self) -> int:
        plans, events = self._qualify(DELETION_PLANS.name), self._qualify(DELETION_EVENTS.name)
        [(last,)] = self._fetch(
            f"SELECT greatest((SELECT coalesce(max(seq), 0) FROM {plans}), "
            f"(SELECT coalesce(max(seq), 0) FROM {events}))"
        )
        return int(last)

    def _insert(self, table: LedgerTable, rows: Sequence[Row]) -> None:
        if rows:
            columns = ", ".join(column.name for column in table.columns)
            places = ", ".join([self._placeholder] * len(table.columns))
            self._run(f"INSERT INTO {self._qualify(table.name)} ({columns}) VALUES ({places})", rows)

    def _create(self, tables: Sequence[LedgerTable]) -> None:
        self._run(f"CREATE SCHEMA IF NOT EXISTS {self._schema}", [()])
        for table in tables:
            self._run(define_table(table, self._qualify(table.name)), [()])


class DuckDBStore(LedgerStore):
    """A DuckDB file, which is created with the first rows."""

    _placeholder = "?"

    def __init__(self, place: LedgerPlace, database: Path, *, read_only: bool) -> None:
        super().__init__(place.location)
        self._database = database
        self._read_only = read_only
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._name = ""

    def read(self) -> tuple[bool, dict[str, list[Row]]]:
        if self._connection is None and not self._exists():
            return False, {name: [] for name in LEDGER_TABLES}
        return super().read()

    def insert(self, rows: Rows, last_seq: int) -> None:
        is_new = self._connection is None
        super().insert(rows, last_seq)
        if is_new:
            with self._explained("written"):
                sync_folder(self._database.parent)

    def close(self) -> None:
        if self._connection is not None:
            with self._explained("closed"):
                self._connection.close()

    @property
    def _schema(self) -> str:
        # with the database, since a file may be named like the schema
        name = self._name.replace('"', '""')
        return f'"{name}".{LEDGER_DATASET}'

    def _exists(self) -> bool:
        with self._explained("read"):
            # an error, where the folder may not be looked at
            try:
                self._database.stat()
            except FileNotFoundError:
                return False
        return True

    def _fetch(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connect().execute(sql, list(values)).fetchall()

    def _run(self, sql: str, rows: Sequence[Row]) -> None:
        for row in rows:
            self._connect().execute(sql, list(row))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connect()
        connection.begin()
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        connection.commit()

    def _find_tables(self) -> set[str]:
        found = self._fetch(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ?",
            (LEDGER_DATASET,),
        )
        return {name for (name,) in found}

    def _read_column(self, column: Column) -> str:
        # the driver would need a package for times with a zone
        return f"epoch_us({column.name})" if column.type == TIME else column.name

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = duckdb.connect(str(self._database), self._read_only, {"threads": 1})
            [(self._name,)] = self._fetch("SELECT current_database()")
        return self._connection

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, duckdb.Error, RuntimeError) as error:
            raise _unavailable(self._location, what, error) from error


class PostgresStore(LedgerStore):
    """A schema of PostgreSQL. The session that writes holds an advisory lock for as long as it lives.

    Its transactions are serializable, so that two sessions cannot both add the record after the same one, even
    through a pool of connections, which has no use for the lock.
    """

    _placeholder = "%s"

    def __init__(self, place: LedgerPlace, *, read_only: bool) -> None:
        super().__init__(place.location)
        self._error: type[Exception] = import_module("psycopg2").Error
        with self._explained("opened"):
            self._connection: Any = postgres.connect(place.credentials, "deletions")
        try:
            with self._explained("opened"):
                self._prepare(read_only)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _prepare(self, read_only: bool) -> None:
        self._connection.set_session(isolation_level="SERIALIZABLE", readonly=read_only, autocommit=True)
        self._connection.set_client_encoding("UTF8")
        [(encoding,)] = self._fetch("SHOW server_encoding")
        if encoding != "UTF8":
            raise OSError(f"its encoding is {encoding}, which cannot hold every name; UTF8 can")
        if read_only:
            return
        # a commit is on the disk when it returns, and none is waited for without end
        self._run("SET synchronous_commit = on", [()])
        self._run("SET statement_timeout = '60s'", [()])
        if holder := postgres.take_lock(self._connection, _LOCK_KEY):
            raise busy(holder, ANOTHER_IS_RUNNING)

    def _fetch(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            rows: list[Row] = cursor.fetchall()
        return rows

    def _run(self, sql: str, rows: Sequence[Row]) -> None:
        with self._connection.cursor() as cursor:
            for row in rows:
                cursor.execute(sql, row)

    def _transaction(self) -> Any:
        return self._connection

    def _find_tables(self) -> set[str]:
        found = self._fetch("SELECT tablename FROM pg_tables WHERE schemaname = %s", (LEDGER_DATASET,))
        return {name for (name,) in found}

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, self._error) as error:
            raise _unavailable(self._location, what, error) from error


def open_store(place: LedgerPlace, *, read_only: bool) -> LedgerStore:
    """The store of that place. Reading creates nothing; writing creates it with the first rows.

    Raises:
        WarehouseBusy: another session of PostgreSQL writes to it.
        LedgerUnavailable: there is no way to it.
    """
    if place.database is not None:
        return DuckDBStore(place, place.database, read_only=read_only)
    return PostgresStore(place, read_only=read_only)


def define_table(table: LedgerTable, qualified_name: str) -> str:
    """The statement that creates a table of the ledger, on DuckDB and PostgreSQL alike."""
    columns = [
        f"{column.name} {_SQL_TYPES[column.type]}{'' if column.nullable else ' NOT NULL'}" for column in table.columns
    ]
    key = f"PRIMARY KEY ({', '.join(table.key)})"
    return f"CREATE TABLE {qualified_name} ({', '.join([*columns, key])})"


def _with_times(row: Row, indexes: Sequence[int]) -> Row:
    values = list(row)
    for index in indexes:
        values[index] = _to_utc(values[index])
    return tuple(values)


def _to_utc(value: datetime | int | None) -> datetime | None:
    if isinstance(value, int):
        return _EPOCH + timedelta(microseconds=value)
    return value.astimezone(UTC) if value is not None else None


def _unavailable(location: str, what: str, error: BaseException) -> LedgerUnavailable:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = redact(lines[0] if lines else type(error).__name__).rstrip(".!")
    if found := _LOCK_HOLDER.search(reason):
        holder = f"process {found['pid']} ({found['program']})"
        return StoreInUse(
            f"The ledger in the warehouse, {location}, is in use by {holder}. DuckDB allows one writer or many "
            "readers, and nothing is sent without the ledger: close the other program, then run again.",
            holder,
        )
    return LedgerUnavailable(
        f"The ledger in the warehouse, {location}, cannot be {what}: {reason}. Nothing is sent without it. Check "
        "that it is there, that no other program has it open, the permissions and the space, then run again."
    )
