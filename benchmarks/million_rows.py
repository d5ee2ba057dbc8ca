"""What 1,000,000 licence rows take beside HTTP, on DuckDB and PostgreSQL: `python benchmarks/million_rows.py`.

Loads a simulated tenant of about 80,000 scopes, then the next day of it, on which about 1 % of the rows have changed,
each by `cockpit load` in a process of its own. Its packages wait until the last scope was read (`gated_load.py`), so
that what comes after it is normalising, loading and closing alone, of packages of the usual size. Peak memory is the
maximum resident set of the load, its reading included, without that of the PostgreSQL server, which runs with its own
settings, fsync included.

Beside it stands DuckDB's `COPY` of the same rows of `licenses` from a Parquet file into an empty table of a new file.
The load does more: it merges, and it writes `license_history`, `scopes` and `scope_runs` too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
from measuring import load_command, run_measured, sandbox_project

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from postgres_server import running_postgres

from cockpit_source.pipeline import DEFAULT_DATABASE
from cockpit_source.sandbox import SpawnedSandbox

# about one row in six of those customers changes from day to day
MOVING_SHARE = 0.06
COUNT = "SELECT count(*) FROM cockpit."
# in processes of their own: the peak of a child is never less than that of the process that starts it
EXPORT = """
import sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    connection.execute(f"COPY cockpit.licenses TO '{sys.argv[2]}'")
"""
COPY = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[2])
connection.execute(f"CREATE TABLE licenses AS FROM read_parquet('{sys.argv[1]}') LIMIT 0")
started = time.monotonic()
connection.execute(f"COPY licenses FROM '{sys.argv[1]}'")
connection.execute("CHECKPOINT")
print(time.monotonic() - started)
"""

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Warehouse:
    """Where a load goes, and how its tables are counted."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    count: Count


@contextmanager
def open_warehouse(name: str, project: Path) -> Iterator[Warehouse]:
    """An empty warehouse of this name."""
    if name == "duckdb":
        yield Warehouse("DuckDB", (), {}, lambda table: _count_in_duckdb(project / DEFAULT_DATABASE, table))
        return
    with running_postgres(durable=True) as server, server.fresh_database() as database:
        dsn = server.url(database)
        yield Warehouse(
            "PostgreSQL",
            ("--destination", "postgres"),
            {"DESTINATION__POSTGRES__CREDENTIALS": dsn},
            lambda table: _count_in_postgres(dsn, table),
        )


def _count_in_duckdb(database: Path, table: str) -> int:
    with duckdb.connect(str(database), read_only=True) as connection:
        row = connection.execute(COUNT + table).fetchone()
    assert row is not None
    return int(row[0])


def _count_in_postgres(dsn: str, table: str) -> int:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(COUNT + table)
        return int(cursor.fetchone()[0])


@dataclass(frozen=True, slots=True)
class GatedLoad:
    """A load: its own record, seconds up to the last answer and after it, and the peak of its memory."""

    record: Mapping[str, Any]
    reading_seconds: float
    loading_seconds: float
    peak_mib: float


def load(project: Path, warehouse: Warehouse) -> GatedLoad:
    """One load whose packages wait for the last answer."""
    _, *arguments = load_command(project, "--json", *warehouse.arguments)
    command = [sys.executable, str(Path(__file__).with_name("gated_load.py")), *arguments]
    measured = run_measured(command, {"DLT_DATA_DIR": str(project / "dlt")} | dict(warehouse.environment))
    moment, record = measured.output.split("\n", maxsplit=1)
    reading_seconds = float(moment) - measured.started_at
    return GatedLoad(
        json.loads(record), reading_seconds, measured.seconds - reading_seconds, round(measured.peak_mib)
    )


def copy(project: Path) -> tuple[float, float]:
    """Seconds and peak MiB of DuckDB's own COPY of `licenses`."""
    parquet = project / "licenses.parquet"
    run_measured([sys.executable, "-c", EXPORT, str(project / DEFAULT_DATABASE), str(parquet)], {})
    measured = run_measured([sys.executable, "-c", COPY, str(parquet), str(project / "copy.duckdb")], {})
    return float(measured.output), measured.peak_mib


def measure(name: str, project: Path, sandbox: SpawnedSandbox, copy_seconds: float | None) -> float:
    """Load twice into one warehouse and print a line of each; gives the seconds of COPY, measured when not given."""
    with open_warehouse(name, project) as warehouse:
        versions = 0
        for day, title in enumerate(("first", "second")):
            sandbox.set_day(day)
            loaded = load(project, warehouse)
            rows = warehouse.count("licenses")
            if rows != loaded.record["license_rows"]:
                raise SystemExit(f"{rows:,} rows in the table, {loaded.record['license_rows']:,} were read")
            if copy_seconds is None:
                copy_seconds, copy_mib = copy(project)
                print(f"DuckDB's COPY of {rows:,} rows from Parquet: {copy_seconds:.2f} s, peak {copy_mib:.0f} MiB")
                print(
                    f"{'':<10} {'load':>6} {'scopes':>7} {'rows':>10} {'new versions':>12} {'reading':>8} "
                    f"{'after it':>9} {'x COPY':>7} {'peak MiB':>9}"
                )
            held, versions = versions, warehouse.count("license_history")
            after = loaded.loading_seconds
            print(
                f"{warehouse.name:<10} {title:>6} {loaded.record['scopes_total']:>7,} {rows:>10,} "
                f"{(versions - held) / rows:>10.1%}   {loaded.reading_seconds:>6.1f} s {after:>7.1f} s "
                f"{after / copy_seconds:>7.1f} {loaded.peak_mib:>9,.0f}",
                flush=True,
            )
    assert copy_seconds is not None
    return copy_seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scopes", type=int, default=80_000)
    arguments = parser.parse_args()
    print("simulated tenant (sandbox), all processes on this machine", flush=True)
    copy_seconds = None
    for name in ("duckdb", "postgres"):
        with sandbox_project(arguments.scopes, latency_ms=0, moving_share=MOVING_SHARE) as (project, sandbox):
            copy_seconds = measure(name, project, sandbox, copy_seconds)


if __name__ == "__main__":
    main()
