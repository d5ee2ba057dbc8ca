"""The tables of an inventory without a load, for queries: in a DuckDB file, or in a database of PostgreSQL."""

from __future__ import annotations

import hashlib
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2

from cockpit_source.pipeline import create_pipeline
from cockpit_source.tables import COUNT, FLAG, TABLES, TEXT, TIME, Column

TENANT = "tenant.example"
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)

_TYPES = {TEXT: "VARCHAR", COUNT: "BIGINT", FLAG: "BOOLEAN", TIME: "TIMESTAMP WITH TIME ZONE"}
_FILLERS: dict[Any, Any] = {TEXT: "x", COUNT: 0, FLAG: False, TIME: LONG_AGO}


class BareInventory:
    """Tables of dataset `cockpit`; `url` is that of a database of PostgreSQL, None for a DuckDB file in `folder`."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.url = url
        statements = ["CREATE SCHEMA cockpit"]
        for table in TABLES.values():
            columns = [*table.columns, *table.versioned_columns]
            written = ", ".join(f'"{column.name}" {_TYPES[column.type]}' for column in columns)
            statements.append(f"CREATE TABLE cockpit.{table.name} ({written})")
        self.execute("; ".join(statements))

    @property
    def database(self) -> Path:
        return self.folder / "inventory.duckdb"

    @property
    def content_hash(self) -> str:
        """Of the DuckDB file, byte by byte."""
        return hashlib.sha256(self.database.read_bytes()).hexdigest()

    def pipeline(self, **options: Any) -> dlt.Pipeline:
        destination = {"destination": "postgres"} if self.url else {"database": self.database}
        return create_pipeline(TENANT, pipelines_dir=self.folder / "pipelines", **(destination | options))

    @cached_property
    def cached_pipeline(self) -> dlt.Pipeline:
        """The same pipeline at every use."""
        return self.pipeline()

    def insert(self, table: str, **values: Any) -> None:
        """A row; required columns that are not given get a value without meaning."""
        columns: list[Column] = [*TABLES[table].columns, *TABLES[table].versioned_columns]
        required = {column.name: _FILLERS[column.type] for column in columns if not column.nullable}
        row = required | {"tenant": TENANT} | values
        unknown = set(row) - {column.name for column in columns}
        assert not unknown, unknown
        mark = "%s" if self.url else "?"
        marks = ", ".join([mark] * len(row))
        self.execute(f"INSERT INTO cockpit.{table} ({', '.join(row)}) VALUES ({marks})", *row.values())

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        if self.url is None:
            with duckdb.connect(str(self.database)) as connection:
                return connection.execute(sql, values or None).fetchall()
        with closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def every_row(self) -> list[tuple[Any, ...]]:
        """All rows of all tables as text."""
        tables = (f"SELECT '{name}' AS name, CAST(t AS VARCHAR) AS row_text FROM cockpit.{name} t" for name in TABLES)
        return self.execute(" UNION ALL ".join(tables) + " ORDER BY 1, 2")
