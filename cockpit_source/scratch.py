"""A scratch DuckDB for merging, joining and sorting: bounded memory, and the rest spills to a folder."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

_MEMORY_LIMIT = "256MB"


def connect_scratch(folder: Path) -> duckdb.DuckDBPyConnection:
    """An empty database in memory that spills into `folder`."""
    return duckdb.connect(
        config={
            "memory_limit": _MEMORY_LIMIT,
            "threads": 1,
            "temp_directory": str(folder / "sort"),
        }
    )


def quote_path(path: Path) -> str:
    """A path as SQL text."""
    return "'" + str(path).replace("'", "''") + "'"


def create_table(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    """An empty table with the columns of `schema`, in place of one of that name."""
    connection.register("empty", schema.empty_table())
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM empty")
    connection.unregister("empty")


def insert_rows(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Append `rows`, columns matched by name."""
    connection.register("chunk", rows)
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM chunk")
    connection.unregister("chunk")
