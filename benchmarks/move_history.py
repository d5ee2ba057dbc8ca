"""A year of history moved from a DuckDB file to PostgreSQL and to DuckLake: `python benchmarks/move_history.py`.

Generates 5,000 customers with 12 SKUs each and 365 days of history in DuckDB, in the tables that a real load made,
and moves them with `cockpit move` in a process of its own. PostgreSQL runs with its own settings, fsync included; the
lake has its catalogue in it and its files in a folder. Afterwards every table is compared once more, by SQL of its
own: EXCEPT ALL both ways. Seconds are those of the whole command; peak memory is its maximum resident set, without
that of the server.

The floor is one table alone: the server's own COPY of the largest table from a CSV file that was made before, and
DuckDB's COPY of it to one Parquet file. Both check nothing and know no history.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
from generated_history import TENANT, generate_history
from measuring import run_measured

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from postgres_server import PostgresServer, running_postgres

NAME = "license_inventory.duckdb"
LARGEST = "scope_runs"
DATASET = "cockpit"
POSTGRES = "DESTINATION__POSTGRES__CREDENTIALS"
LAKE = "DESTINATION__DUCKLAKE__CREDENTIALS__"


def make_file(folder: Path, customers: int, skus: int, days: int) -> None:
    """The file that is moved, and its largest table as CSV."""
    generated = folder / "generated.duckdb"
    generate_history(generated, customers=customers, skus=skus, days=days)
    _load_once(folder)
    with duckdb.connect(str(folder / NAME)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"ATTACH '{generated}' AS generated (READ_ONLY)")
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'generated' AND schema_name = 'cockpit'"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"DELETE FROM {DATASET}.{table}")
            connection.execute(f"INSERT INTO {DATASET}.{table} BY NAME FROM generated.cockpit.{table}")
        connection.execute(
            f"INSERT INTO {DATASET}._dlt_loads BY NAME "
            f"SELECT * REPLACE ('generated' AS load_id) FROM {DATASET}._dlt_loads LIMIT 1"
        )
    generated.unlink()
    with duckdb.connect(str(folder / NAME), read_only=True) as connection:
        connection.execute(f"COPY {DATASET}.{LARGEST} TO '{folder / 'largest.csv'}' (HEADER false, NULLSTR '\\N')")


def _load_once(folder: Path) -> None:
    """Let a load of a small simulated tenant make the tables, and dlt's own."""
    from cockpit_source.configuration import resolve_settings
    from cockpit_source.load import run_load
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, SandboxTenant, running_sandbox

    with running_sandbox(SandboxTenant(customers=3)) as sandbox:
        settings = resolve_settings(
            tenant=sandbox.tenant.domain,
            tenant_key=TENANT,
            base_url=sandbox.base_url,
            token_url=sandbox.token_url,
            token_scope=TOKEN_SCOPE,
            client_id=CSP_CLIENT.id,
            client_secret=CSP_CLIENT.secret,
            discover=True,
        )
        run_load(create_pipeline(TENANT, database=folder / NAME), settings)


@dataclass(frozen=True, slots=True)
class Warehouse:
    """Where the file goes."""

    title: str
    destination: str
    environment: Mapping[str, str]


@contextmanager
def open_warehouse(destination: str, server: PostgresServer, folder: Path) -> Iterator[Warehouse]:
    """An empty warehouse."""
    with server.fresh_database() as database:
        url = server.url(database)
        if destination == "postgres":
            yield Warehouse("PostgreSQL", destination, {POSTGRES: url})
            return
        files = folder / "lake"
        environment = {
            f"{LAKE}DUCKLAKE_NAME": "lake",
            f"{LAKE}CATALOG": url,
            f"{LAKE}STORAGE__BUCKET_URL": str(files),
        }
        yield Warehouse("DuckLake", destination, environment)


def compare(destination: str, folder: Path) -> tuple[int, int]:
    """The number of tables and of rows that were compared. Exits when one differs."""
    with _attached(destination) as (connection, catalog):
        connection.execute(f"ATTACH '{folder / NAME}' AS file (READ_ONLY)")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
        connection.execute("SET memory_limit = '2GB'")
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'file' AND schema_name = ? "
            # which names the pipeline, and that is another
            "AND table_name <> '_dlt_pipeline_state' ORDER BY 1",
            [DATASET],
        ).fetchall()
        total = 0
        for (table,) in tables:
            columns = [name for name, *_ in connection.execute(f"DESCRIBE file.{DATASET}.{table}").fetchall()]
            listed = ", ".join(columns)
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE there AS SELECT {listed} FROM {catalog}.{DATASET}.{table}"
            )
            here = f"(SELECT {listed} FROM file.{DATASET}.{table})"
            sides = ((here, "temp.there"), ("temp.there", here))
            differing = [
                connection.execute(f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})").fetchall()[0][0]
                for one, other in sides
            ]
            if any(differing):
                raise SystemExit(f"{destination}: {differing} rows of {table} differ")
            total += connection.execute(f"SELECT count(*) FROM {here}").fetchall()[0][0]
        return len(tables), total


@contextmanager
def _attached(destination: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    if destination == "postgres":
        with closing(duckdb.connect(":memory:")) as connection:
            connection.execute(f"ATTACH '{os.environ[POSTGRES]}' AS moved (TYPE postgres)")
            yield connection, "moved"
        return
    from cockpit_source.pipeline import create_pipeline

    with create_pipeline(TENANT, destination=destination).sql_client() as client:
        yield client.native_connection, "lake"


def time_floor(destination: str, server: PostgresServer, folder: Path) -> float:
    """Seconds that the largest table alone takes."""
    with duckdb.connect(str(folder / NAME), read_only=True) as connection:
        if destination == "ducklake":
            began = time.monotonic()
            connection.execute(f"COPY {DATASET}.{LARGEST} TO '{folder / 'largest.parquet'}'")
            return time.monotonic() - began
        described = connection.execute(f"DESCRIBE {DATASET}.{LARGEST}").fetchall()
    columns = ", ".join(f"{name} {'text' if kind == 'VARCHAR' else kind}" for name, kind, *_ in described)
    with server.fresh_database() as database, closing(psycopg2.connect(server.url(database))) as session:
        with session.cursor() as cursor, (folder / "largest.csv").open("rb") as file:
            cursor.execute(f"CREATE TABLE largest ({columns})")
            session.commit()
            began = time.monotonic()
            cursor.copy_expert(r"COPY largest FROM STDIN (FORMAT csv, NULL '\N')", file, 1 << 20)
            session.commit()
        return time.monotonic() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--customers", type=int, default=5000)
    parser.add_argument("--skus", type=int, default=12)
    parser.add_argument("--days", type=int, default=365)
    # in processes of their own: the peak of a child is never less than that of the process that starts it
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compare", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    world = {name: getattr(arguments, name) for name in ("customers", "skus", "days")}
    if arguments.make:
        make_file(arguments.make, **world)
        return
    if arguments.compare:
        destination, folder_name = arguments.compare
        print(json.dumps(compare(destination, Path(folder_name))))
        return
    with tempfile.TemporaryDirectory() as name, running_postgres(durable=True) as server:
        folder = Path(name)
        os.environ.update({"DLT_DATA_DIR": f"{folder}/dlt", "HOME": str(folder)})
        options = [part for key, value in world.items() for part in (f"--{key}", str(value))]
        run_measured([sys.executable, __file__, "--make", str(folder), *options], {})
        _describe(world, folder / NAME)
        print(
            f"{'':<11} {'rows':>10} {'copying':>9} {'comparing':>10} {'command':>9} {'floor':>8} {'x floor':>8} "
            f"{'peak MiB':>9}   tables"
        )
        for destination in ("postgres", "ducklake"):
            with open_warehouse(destination, server, folder) as warehouse:
                _measure(warehouse, server, folder)


def _measure(warehouse: Warehouse, server: PostgresServer, folder: Path) -> None:
    """Move, compare, and print a line."""
    floor = time_floor(warehouse.destination, server, folder)
    cockpit = str(Path(sys.executable).with_name("cockpit"))
    command = [cockpit, "move", "--from", str(folder / NAME), "--destination", warehouse.destination, "--json"]
    moved = run_measured([*command, "--project", str(folder)], warehouse.environment)
    result: dict[str, Any] = json.loads(moved.output)
    compared = [sys.executable, __file__, "--compare", warehouse.destination, str(folder)]
    tables, rows = json.loads(run_measured(compared, warehouse.environment).output)
    print(
        f"{warehouse.title:<11} {rows:>10,} {result['copy_seconds']:>7.1f} s {result['compare_seconds']:>8.1f} s "
        f"{moved.seconds:>7.1f} s {floor:>6.1f} s {moved.seconds / floor:>8.1f} {moved.peak_mib:>9,.0f}   "
        f"{tables} equal tables",
        flush=True,
    )


def _describe(world: Mapping[str, int], database: Path) -> None:
    with duckdb.connect(str(database), read_only=True) as connection:
        counts = connection.execute(
            f"SELECT (SELECT count(*) FROM {DATASET}.license_history), (SELECT count(*) FROM {DATASET}.{LARGEST})"
        ).fetchall()
    ((versions, reads),) = counts
    print(
        f"generated: {world['customers']:,} customers x {world['skus']} SKUs x {world['days']} days, "
        f"{versions:,} versions, {reads:,} reads, {database.stat().st_size / 2**20:,.0f} MiB; {os.cpu_count()} cores"
    )
    print(
        f"floor: {reads:,} rows of {LARGEST} alone, by COPY, nothing compared",
        flush=True,
    )


if __name__ == "__main__":
    main()
