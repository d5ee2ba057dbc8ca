"""Where the dataset goes: PostgreSQL or DuckLake, each as a catalogue of one DuckDB connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import dlt
import duckdb

from cockpit_source.ducklake import install_postgres_extension
from cockpit_source.errors import ConfigurationError
from cockpit_source.move.sql_text import quote, to_literal

DESTINATIONS = ("postgres", "ducklake")
_ALIAS = "target"


@dataclass(frozen=True, slots=True)
class Target:
    """An open connection in which the destination is the catalogue `catalog`.

    `define` runs a statement that creates something, in the dialect of the destination, in the transaction of the
    connection. `secret` may not be shown.
    """

    connection: duckdb.DuckDBPyConnection
    catalog: str
    dataset: str
    define: Callable[[str], Any]
    secret: str | None = None

    def table(self, name: str) -> str:
        """The qualified name of a table."""
        return ".".join(map(quote, (self.catalog, self.dataset, name)))

    def find_objects(self) -> list[str] | None:
        """Tables and views of the dataset; None where the dataset does not exist."""
        schemas = self.connection.execute(
            "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name = ?", [self.catalog, self.dataset]
        ).fetchall()
        if not schemas:
            return None
        rows = self.connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_catalog = ? AND table_schema = ? "
            "ORDER BY 1",
            [self.catalog, self.dataset],
        ).fetchall()
        return [name for (name,) in rows]


def require_destination(destination: str) -> None:
    """Raises ConfigurationError unless a dataset can be moved to a destination of this name."""
    if destination not in DESTINATIONS:
        raise ConfigurationError(
            f"A dataset cannot be moved to {destination!r}. Valid: --destination {' or '.join(DESTINATIONS)}. "
            "Another DuckDB file needs no move: copy the file."
        )


@contextmanager
def open_target(pipeline: dlt.Pipeline) -> Iterator[Target]:
    """The destination of `pipeline`; nothing is changed in it before the transaction that the caller begins.

    Raises:
        ConfigurationError: an extension of DuckDB is missing.
        DestinationException, duckdb.Error: the destination cannot be opened.
    """
    opened = _open_postgres if pipeline.destination.destination_name == "postgres" else _open_ducklake
    with opened(pipeline) as target:
        target.connection.execute("SET TimeZone = 'UTC'")
        # rows are written as they come, or DuckDB keeps hundreds of MiB to put Parquet files into order
        target.connection.execute("SET preserve_insertion_order = false")
        yield target


@contextmanager
def _open_postgres(pipeline: dlt.Pipeline) -> Iterator[Target]:
    credentials: Any = pipeline.destination_client().config.credentials
    extensions: Any = import_module("psycopg2.extensions")
    address = extensions.make_dsn(
        credentials.to_native_representation(),
        # given apart, since the address has their blanks as "+", which libpq does not read
        options=credentials.get_query().get("options") or "",
        application_name="cockpit move",
    )
    with closing(duckdb.connect(":memory:")) as connection:
        install_postgres_extension(connection)
        connection.execute("LOAD postgres_scanner")
        connection.execute(f"ATTACH {to_literal(address)} AS {_ALIAS} (TYPE postgres)")

        def define(sql: str) -> None:
            connection.execute(f"CALL postgres_execute('{_ALIAS}', ?)", [sql])
            # what was created is looked up anew
            connection.execute("CALL pg_clear_cache()")

        yield Target(connection, _ALIAS, str(pipeline.dataset_name), define, str(credentials.password or "") or None)


@contextmanager
def _open_ducklake(pipeline: dlt.Pipeline) -> Iterator[Target]:
    with pipeline.sql_client() as client:
        connection: duckdb.DuckDBPyConnection = client.native_connection
        (catalog,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        password = getattr(client.credentials.catalog, "password", None)
        yield Target(connection, catalog, str(pipeline.dataset_name), connection.execute, password)


def table_definitions(pipeline: dlt.Pipeline, schema: dlt.Schema, names: list[str]) -> list[str]:
    """The statements with which dlt itself would create tables of `schema` in the destination."""
    opened: Any = pipeline.destination_client()
    client: Any = pipeline.destination.client_class(schema, opened.config, opened.capabilities)
    statements, _ = client._build_schema_update_sql([(name, {}) for name in names])
    return list(statements)
