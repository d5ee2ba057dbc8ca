"""The DuckDB file that is moved: held against loads, checked, and only ever read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlt
import duckdb

from cockpit_source.configuration import project_folder
from cockpit_source.errors import ConfigurationError, WarehouseBusy, WarehouseError
from cockpit_source.lock import file_lock
from cockpit_source.move.sql_text import quote, to_literal
from cockpit_source.publish import read_copy_path
from cockpit_source.source import SOURCE_NAME
from cockpit_source.tables import REFERENCE_TABLES, TABLES
from cockpit_source.warehouse import to_warehouse_error

ALIAS = "source"
STATE_TABLE = "_dlt_pipeline_state"
_VERSION_TABLE = "_dlt_version"
_DLT_TABLES = ("_dlt_loads", _VERSION_TABLE, STATE_TABLE)
_A_LOAD_IS_RUNNING = "A load or prune of the file that is to be moved is running"

_LATEST_SCHEMA = "SELECT schema, engine_version FROM {} WHERE schema_name = ? ORDER BY inserted_at DESC LIMIT 1"
_UNFINISHED_RUNS = """
SELECT r.run_id, r.tenant FROM {runs} r WHERE r.finished_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM {runs} later WHERE later.tenant = r.tenant AND later.started_at > r.started_at)
ORDER BY ALL"""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table to be moved: its columns in the order of the schema, and its rows."""

    name: str
    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class SourceDataset:
    """What the file holds. `tables` are moved, in this order; `left_out` are tables that no load made."""

    schema: dlt.Schema
    tables: tuple[SourceTable, ...]
    left_out: tuple[str, ...]


def require_source(database: Path) -> None:
    """Make sure that `database` is a file that may be moved.

    Raises:
        ConfigurationError: it is not there, or is the copy for readers.
    """
    if not database.is_file():
        in_project = project_folder() / database.name
        instead = "Name the one that `cockpit load` writes with --from."
        if in_project.is_file():
            instead = (
                f"A relative path is one of the current folder; name the one of the project: --from {in_project}."
            )
        raise ConfigurationError(f"There is no DuckDB file {database}. {instead} Nothing was changed.")
    if database.name.endswith(read_copy_path(Path("any.duckdb")).name.removeprefix("any")):
        raise ConfigurationError(
            f"{database} is the copy for readers, which may be older than its database. Name the database itself "
            "with --from. Nothing was changed."
        )


@contextmanager
def held_against_loads(database: Path) -> Iterator[None]:
    """No load or prune of any tenant begins on the file while the context lasts, and none is running.

    Each has a lock file beside the database, which stays when it ends.

    Raises:
        WarehouseBusy: one is running; the message names its process.
        WarehouseError: a lock file cannot be opened.
    """
    with ExitStack() as stack:
        for path in sorted(database.parent.glob(f"{database.name}.*.lock")):
            try:
                stack.enter_context(file_lock(path, _A_LOAD_IS_RUNNING))
            except OSError as error:
                raise WarehouseError(
                    f"The lock file {path} cannot be opened: {error.strerror}. Without it a load could begin during "
                    "the move: run it as the user who loads. Nothing was changed."
                ) from error
        yield


def read_tenants(database: Path, dataset: str) -> list[str]:
    """The tenants of the runs in the file.

    Raises:
        ConfigurationError: it holds no run, or no dataset of a load.
        WarehouseBusy: another process has it open to write.
        WarehouseError: it cannot be opened.
    """
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            rows = connection.execute(f"SELECT DISTINCT tenant FROM {quote(dataset)}.runs ORDER BY 1").fetchall()
    except duckdb.CatalogException:
        rows = []
    except duckdb.Error as error:
        raise _cannot_be_read(database, error) from error
    if not rows:
        raise ConfigurationError(
            f"{database} holds no run of a load in the dataset {dataset!r}. Name file and dataset with --from and "
            "--dataset. Nothing was changed."
        )
    return [tenant for (tenant,) in rows]


def attach(connection: duckdb.DuckDBPyConnection, database: Path) -> None:
    """Attach the file as `source`, for reading.

    Raises:
        WarehouseBusy: another process has it open to write.
        WarehouseError: it cannot be opened.
    """
    try:
        connection.execute(f"ATTACH {to_literal(str(database))} AS {ALIAS} (READ_ONLY)")
    except duckdb.Error as error:
        raise _cannot_be_read(database, error) from error


def read_dataset(connection: duckdb.DuckDBPyConnection, dataset: str) -> SourceDataset:
    """What the attached file holds in `dataset`.

    Raises:
        ConfigurationError: an older or newer version of this package wrote it, or its last run has not ended.
    """
    held = _read_columns(connection, dataset)
    schema = _read_schema(connection, dataset, held)
    _require_current(held)
    _require_ended(connection, dataset)
    names = [name for name in (*TABLES, *REFERENCE_TABLES, *_DLT_TABLES) if name in held and name in schema.tables]
    tables = []
    for name in names:
        columns = tuple(schema.get_table_columns(name))
        if set(columns) != held[name]:
            raise _other_version(f"its table {name} has other columns than its own schema")
        rows = _fetch_number(connection, f"SELECT count(*) FROM {ALIAS}.{quote(dataset)}.{quote(name)}")
        tables.append(SourceTable(name, columns, rows))
    return SourceDataset(schema, tuple(tables), tuple(sorted(set(held) - set(names))))


def _read_columns(connection: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, set[str]]:
    """The columns of each table, views left out."""
    rows = connection.execute(
        "SELECT c.table_name, c.column_name FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_oid, "
        "database_oid) WHERE c.database_name = ? AND c.schema_name = ?",
        [ALIAS, dataset],
    ).fetchall()
    held: dict[str, set[str]] = {}
    for table, column in rows:
        held.setdefault(table, set()).add(column)
    return held


def _read_schema(connection: duckdb.DuckDBPyConnection, dataset: str, held: dict[str, set[str]]) -> dlt.Schema:
    """The latest schema that dlt stored; its version hash is what the next load compares."""
    if not set(_DLT_TABLES) <= set(held):
        raise _other_version(f"it lacks {', '.join(sorted(set(_DLT_TABLES) - set(held)))}")
    stored = connection.execute(
        _LATEST_SCHEMA.format(f"{ALIAS}.{quote(dataset)}.{_VERSION_TABLE}"), [SOURCE_NAME]
    ).fetchone()
    if stored is None:
        raise _other_version(f"dlt stored no schema {SOURCE_NAME!r} in it")
    text, engine_version = stored
    if engine_version > dlt.Schema.ENGINE_VERSION:
        raise _other_version("a newer dlt wrote it")
    document: Any = json.loads(text)
    return dlt.Schema.from_stored_schema(document)


def _require_current(held: dict[str, set[str]]) -> None:
    """Raises ConfigurationError unless every table has exactly the columns that this version loads."""
    for table in (*TABLES.values(), *REFERENCE_TABLES.values()):
        if table.name not in held:
            if table.name in TABLES:
                raise _other_version(f"it lacks the table {table.name}")
            continue
        columns = {column.name for column in (*table.columns, *table.versioned_columns)}
        if missing := sorted(columns - held[table.name]):
            raise _other_version(f"its table {table.name} lacks {', '.join(missing)}")
        if unknown := sorted(held[table.name] - columns):
            raise _other_version(f"its table {table.name} has {', '.join(unknown)}, which this version does not know")


def _require_ended(connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
    runs = connection.execute(_UNFINISHED_RUNS.format(runs=f"{ALIAS}.{quote(dataset)}.runs")).fetchall()
    if runs:
        named = ", ".join(f"{run_id} of {tenant}" for run_id, tenant in runs)
        raise ConfigurationError(
            f"The last run has not ended: {named}. It was interrupted, and what it had read would not be moved. Run "
            "`cockpit load` on the file once, which carries it on or closes it, then move. Nothing was changed."
        )


def _fetch_number(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    (number,) = connection.execute(sql).fetchone() or (0,)
    return int(number)


def _other_version(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The file was not written by this version of cockpit: {what}. Of an older one, run `cockpit load` on it "
        "once with this version, which brings it up to date; of a newer one, update cockpit. Then move. Nothing was "
        "changed."
    )


def _cannot_be_read(database: Path, error: duckdb.Error) -> WarehouseError:
    explained = to_warehouse_error(error, str(database))
    if isinstance(explained, WarehouseBusy):
        return explained
    return WarehouseError(
        f"{database} cannot be read: {str(error).splitlines()[0].rstrip('.!')}. Name the DuckDB file that "
        "`cockpit load` writes with --from. Nothing was changed."
    )
