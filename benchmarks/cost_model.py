"""What bounds a day's load, and where the next engine takes over: `python benchmarks/cost_model.py`.

Measures constants on this machine against the sandbox: what a package costs each warehouse, how many calls a second
one reader makes, how large a version and a read are, how the slowest tab of the dashboard grows. Checks what they
predict against a larger load and a larger history that it runs, plays days of 10,000 and 1,000,000 scopes through
with them (`simulated_day.py`), and prints it all. With `--strict` it exits with 1 where a check is off by more than
30 %.

Sandbox and load share the machine, so what one reader reaches is a lower bound. Nobody here knows what the real API
allows: the table tells of several rates.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg2
from marts_scale import measure_marts
from measuring import MEAN_SKUS, sandbox_project
from million_rows import MOVING_SHARE, Warehouse, load, open_warehouse
from simulated_day import bound_of_day, simulate_day

from cockpit_source.packages import PACKAGE_SCOPES
from cockpit_source.pipeline import DEFAULT_DATABASE

ENGINES = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
SMALL, MIDDLE, LARGE = 4_000, 16_000, 40_000
# below 2,500 customers a history is so small that it costs less than the line through larger ones
HISTORIES = (2_500, 5_000, 10_000)
RATES = (10, 100, 1_000)
DAYS = (10_000, 1_000_000)
TOLERANCE = 0.30
# a tab takes less than a second, so it is asked so often
TIMES = 5
# what people wait for a page, and what a load may take of a night
PAGE_SECONDS, NIGHT_HOURS = 5, 6
GROWING = ("license_history", "scope_runs")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The second day's load of a tenant, on which about 1 % of the rows change; `row_bytes` of the growing tables."""

    scopes: int
    calls_per_second: float
    loading_seconds: float
    new_versions: int
    row_bytes: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Engine:
    """What loading costs a warehouse: seconds of a package of 4,000 scopes, and of a run beside its packages."""

    package_seconds: float
    run_seconds: float
    calls_per_second: float
    row_bytes: Mapping[str, float]

    def loading_seconds(self, scopes: int) -> float:
        """After the last answer, where every package has waited for it."""
        return self.run_seconds + self.package_seconds * scopes / PACKAGE_SCOPES


class Checks:
    """Predictions beside what was run."""

    def __init__(self) -> None:
        self.off: list[str] = []

    def print(self, what: str, predicted: float, run: float, unit: str) -> None:
        """One line; remembers what is off by more than the tolerance."""
        error = predicted / run - 1
        print(f"  {what:<52} {predicted:>10,.2f} {run:>10,.2f} {unit:<4} {error:>+7.0%}", flush=True)
        if abs(error) > TOLERANCE:
            self.off.append(what)


def load_days(name: str, scopes: int) -> Loaded:
    """Load two days into an empty warehouse, the packages waiting for the last answer."""
    with (
        sandbox_project(scopes, latency_ms=0, moving_share=MOVING_SHARE) as (project, sandbox),
        open_warehouse(name, project) as warehouse,
    ):
        versions = [0]
        for day in range(2):
            sandbox.set_day(day)
            loaded = load(project, warehouse)
            versions.append(warehouse.count("license_history"))
        measure = _size_in_postgres if name == "postgres" else _size_in_duckdb
        return Loaded(
            scopes=loaded.record["scopes_total"],
            calls_per_second=loaded.record["requests"] / loaded.reading_seconds,
            loading_seconds=loaded.loading_seconds,
            new_versions=versions[-1] - versions[-2],
            row_bytes={table: measure(project, warehouse, table) / warehouse.count(table) for table in GROWING},
        )


def _size_in_postgres(_: Path, warehouse: Warehouse, table: str) -> int:
    """Bytes of a table with its indexes, without the room that merges left free."""
    with closing(psycopg2.connect(warehouse.environment["DESTINATION__POSTGRES__CREDENTIALS"])) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM FULL cockpit.{table}")
            cursor.execute(f"SELECT pg_total_relation_size('cockpit.{table}')")
            return int(cursor.fetchone()[0])


def _size_in_duckdb(project: Path, _: Warehouse, table: str) -> int:
    """Bytes of a table as a new DuckDB file holds it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.duckdb")
        with duckdb.connect(str(copy)) as connection:
            # two threads would each leave blocks half full, now more and now less
            connection.execute("SET threads = 1")
            connection.execute(f"ATTACH '{project / DEFAULT_DATABASE}' AS loaded (READ_ONLY)")
            connection.execute(f"CREATE TABLE copied AS FROM loaded.cockpit.{table}")
        return copy.stat().st_size


def measure_engine(name: str, checks: Checks) -> Engine:
    """Constants from two loads, checked against a third."""
    small, middle, large = (load_days(name, scopes) for scopes in (SMALL, MIDDLE, LARGE))
    per_scope = (middle.loading_seconds - small.loading_seconds) / (middle.scopes - small.scopes)
    engine = Engine(
        package_seconds=per_scope * PACKAGE_SCOPES,
        run_seconds=small.loading_seconds - per_scope * small.scopes,
        calls_per_second=large.calls_per_second,
        row_bytes=middle.row_bytes,
    )
    title = ENGINES[name]
    checks.print(
        f"{title}: loading {large.scopes:,} scopes, {large.new_versions:,} versions",
        engine.loading_seconds(large.scopes),
        large.loading_seconds,
        "s",
    )
    for table in GROWING:
        checks.print(
            f"{title}: a row of {table}, {large.scopes:,} scopes",
            middle.row_bytes[table],
            large.row_bytes[table],
            "B",
        )
    return engine


@dataclass(frozen=True, slots=True)
class Tabs:
    """Seconds of the slowest tab of the dashboard: of itself, and of a million versions in the history."""

    own_seconds: float
    million_seconds: float

    def seconds(self, versions: float) -> float:
        """With so many versions."""
        return self.own_seconds + self.million_seconds * versions / 1e6


def measure_tabs(checks: Checks) -> Tabs:
    """From two histories of a year, checked against a third."""
    found = [measure_marts(customers, 12, 365, times=TIMES) for customers in HISTORIES]
    (v0, s0), (v1, s1), (v2, s2) = [(marts.versions, max(marts.seconds.values())) for marts in found]
    slope = (s1 - s0) / (v1 - v0)
    tabs = Tabs(s0 - slope * v0, slope * 1e6)
    checks.print(f"slowest tab of the dashboard, {v2:,} versions", tabs.seconds(v2), s2, "s")
    return tabs


def print_days(engines: Mapping[str, Engine], tabs: Tabs, changed: float, checks: Checks) -> None:
    """A line for each number of scopes, rate and warehouse, the simulated day beside the formula."""
    print(f"\n  {'scopes':>9} {'API':>7}  {'warehouse':<10} {'minutes':>8}  bounded by")
    disagree = 0.0
    for scopes in DAYS:
        for rate in RATES:
            for name, engine in engines.items():
                speed = min(rate, engine.calls_per_second)
                costs = {"package_seconds": engine.package_seconds, "run_seconds": engine.run_seconds}
                day = simulate_day(scopes, calls_per_second=speed, **costs)
                seconds, by_warehouse = bound_of_day(scopes, calls_per_second=speed, **costs)
                disagree = max(disagree, abs(seconds / day.seconds - 1))
                by = "loading" if by_warehouse else "the API" if speed == rate else "one reader"
                by += ": longer than a day" if day.seconds > 86_400 else ""
                print(f"  {scopes:>9,} {rate:>5,}/s  {ENGINES[name]:<10} {day.seconds / 60:>8,.1f}  {by}")
    print(f"  simulated day against the formula: at most {disagree:.0%} apart")
    if disagree > TOLERANCE:
        checks.off.append("the simulated day")
    print(
        f"\n  after a year       {'versions':>12}"
        + "".join(f" {title + ' GiB':>15}" for title in ENGINES.values())
        + "  slowest tab"
    )
    for scopes in DAYS:
        reads, rows = scopes * 365, scopes * MEAN_SKUS
        versions = rows + rows * changed * 364
        sizes = "".join(
            f" {(versions * e.row_bytes['license_history'] + reads * e.row_bytes['scope_runs']) / 2**30:>15,.1f}"
            for e in engines.values()
        )
        print(f"  {scopes:>9,} scopes   {versions:>12,.0f}{sizes} {tabs.seconds(versions):>10,.1f} s")


def print_limits(engines: Mapping[str, Engine], tabs: Tabs, changed: float) -> None:
    """Where the next engine takes over."""
    print()
    for name, engine in engines.items():
        night = (NIGHT_HOURS * 3600 - engine.run_seconds) / engine.package_seconds * PACKAGE_SCOPES
        print(
            f"  {ENGINES[name]}: one reader makes {engine.calls_per_second:,.0f} calls/s here; one loader takes in "
            f"{PACKAGE_SCOPES / engine.package_seconds:,.0f} scopes/s, {night:,.0f} in {NIGHT_HOURS} h"
        )
    versions = (PAGE_SECONDS - tabs.own_seconds) / tabs.million_seconds * 1e6
    scopes = versions / (MEAN_SKUS * (1 + changed * 364))
    print(
        f"  the slowest tab takes {PAGE_SECONDS} s from {versions / 1e6:,.1f} million versions on: a year of "
        f"{scopes:,.0f} scopes"
    )


def main() -> None:
    """Print constants, checks, days and limits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strict", action="store_true")
    arguments = parser.parse_args()
    print("simulated tenant (sandbox) and generated history, all processes on this machine")
    print(f"  {'checked against a run':<52} {'predicted':>10} {'run':>10}")
    checks = Checks()
    engines = {name: measure_engine(name, checks) for name in ENGINES}
    tabs = measure_tabs(checks)
    print(f"\n  {'constants':<20} {'package of 4,000':>17} {'run':>8} {'version':>9} {'read of a scope':>16}")
    for name, engine in engines.items():
        print(
            f"  {ENGINES[name]:<20} {engine.package_seconds:>15.2f} s {engine.run_seconds:>6.2f} s "
            f"{engine.row_bytes['license_history']:>7,.0f} B {engine.row_bytes['scope_runs']:>14,.0f} B"
        )
    print(f"  {'slowest tab':<20} {tabs.own_seconds:.2f} s, and {tabs.million_seconds:.2f} s per million versions")
    changed = 0.01
    print_days(engines, tabs, changed, checks)
    print_limits(engines, tabs, changed)
    print(f"  off by more than {TOLERANCE:.0%}: {', '.join(checks.off) or 'none'}")
    if checks.off and arguments.strict:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
