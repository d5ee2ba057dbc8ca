"""The marts and every tab of the dashboard on a year of history: `python benchmarks/marts_scale.py`.

Generates 5,000 customers with 12 SKUs each and 365 days of history in DuckDB, creates the marts with `cockpit marts`,
and asks what each tab of the dashboard asks, in a process of its own, each once and nothing kept from before.
Seconds of a tab are those of its queries, without what marimo does with their answers. Peak memory is the maximum
resident set. No load and no API: the rows are invented, as `generated_history.py` says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
from generated_history import TENANT
from measuring import Measured, run_measured

from cockpit_source.publish import read_copy_path

HERE = str(Path(__file__).parent)
GENERATE = """
import json, pathlib, sys, generated_history
generated_history.generate_history(pathlib.Path(sys.argv[1]), **json.loads(sys.argv[2]))
"""
MARTS_BOUND = 10
TAB_BOUND = 1


def ask_tabs(database: Path, times: int) -> None:
    """Print the seconds of each tab's queries as JSON, the median of so many times."""
    from cockpit_source.dashboard.database import ShownDatabase
    from cockpit_source.dashboard.filters import Filters
    from cockpit_source.dashboard.pages import TABS, Pages
    from cockpit_source.dashboard.queries import days

    class TimedDatabase(ShownDatabase):
        """Adds up how long queries take."""

        seconds = 0.0

        def query(self, sql: str, values: Mapping[str, Any] | None = None, *, lasting: bool = False) -> Any:
            began = time.monotonic()
            try:
                return super().query(sql, values, lasting=lasting)
            finally:
                self.seconds += time.monotonic() - began

    last_day = ShownDatabase(database, "cockpit").query(days().sql).to_pylist()[0]["last_day"]
    views = {
        "Overview": lambda pages: (pages.overview(), pages.overview_charts()),
        "Customers": lambda pages: pages.customers(),
        "SKUs": lambda pages: pages.skus(),
        "Resellers": lambda pages: pages.resellers(),
        "Changes": lambda pages: pages.changes(last_day - timedelta(days=7), last_day),
        "Changes of any two days": lambda pages: pages.changes(last_day - timedelta(days=100), last_day),
        "Attention": lambda pages: pages.attention(None),
        "Scope health": lambda pages: pages.scope_health(only_bad=False),
        "Deletions": lambda pages: pages.deletions(),
    }
    missing = set(TABS) - set(views)
    if missing:
        raise SystemExit(f"tabs that are not measured: {sorted(missing)}")
    chosen = {"": Filters(), ", 100 days ago": Filters(day=last_day - timedelta(days=100))}
    seconds = {}
    for what, filters in chosen.items():
        for tab, show in views.items():
            taken = []
            for _ in range(times):
                shown = TimedDatabase(database, "cockpit")
                show(Pages(shown, filters))
                taken.append(shown.seconds)
            if not what or tab in ("Overview", "Customers", "SKUs", "Resellers"):
                seconds[tab + what] = median(taken)
    json.dump(seconds, sys.stdout)


@dataclass(frozen=True, slots=True)
class MeasuredMarts:
    """A generated history, `cockpit marts` on it, and the queries of the tabs by name; `size` in bytes."""

    versions: int
    reads: int
    size: int
    marts: Measured
    tabs: Measured
    seconds: Mapping[str, float]


def measure_marts(customers: int, skus: int, days: int, *, times: int = 1) -> MeasuredMarts:
    """Generate a history in a folder of its own, create the marts and ask what the tabs ask, `times` over.

    The seconds of a tab are then the median.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "generated.duckdb"
        # in a process of its own: the peak of a child is never less than that of the process that starts it
        world = {"customers": customers, "skus": skus, "days": days}
        run_measured([sys.executable, "-c", GENERATE, str(database), json.dumps(world)], {"PYTHONPATH": HERE})
        environment = {"SOURCES__COCKPIT__TENANT": TENANT, "DLT_DATA_DIR": folder, "HOME": folder}
        cockpit = str(Path(sys.executable).with_name("cockpit"))
        options = ("--project", folder, "--database", str(database))
        marts = run_measured([cockpit, "marts", *options, "--json"], environment)
        copy = read_copy_path(database)
        with duckdb.connect(str(copy), read_only=True) as connection:
            (versions,) = connection.execute("SELECT count(*) FROM cockpit.license_history").fetchone() or (0,)
            (reads,) = connection.execute("SELECT count(*) FROM cockpit.scope_runs").fetchone() or (0,)
        script = str(Path(__file__).resolve())
        tabs = run_measured([sys.executable, script, "--tabs-of", str(database), "--times", str(times)], environment)
        seconds = json.loads(tabs.output.strip().splitlines()[-1])
        return MeasuredMarts(versions, reads, copy.stat().st_size, marts, tabs, seconds)


def main() -> None:
    """Print the table; with `--strict`, exit with 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--customers", type=int, default=5000)
    parser.add_argument("--skus", type=int, default=12)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--tabs-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tabs_of:
        ask_tabs(arguments.tabs_of, arguments.times)
        return
    found = measure_marts(arguments.customers, arguments.skus, arguments.days)
    print(
        f"generated: {arguments.customers:,} customers x {arguments.skus} SKUs x {arguments.days} days, "
        f"{found.versions:,} versions, {found.reads:,} reads, {found.size / 2**20:,.0f} MiB; {os.cpu_count()} cores"
    )
    marts, tabs, seconds = found.marts, found.tabs, found.seconds
    print(f"{'':<36} {'seconds':>8} {'bound':>6}")
    print(f"{'cockpit marts':<36} {marts.seconds:>8.1f} {MARTS_BOUND:>6}   peak {marts.peak_mib:,.0f} MiB")
    for tab, taken in seconds.items():
        print(f"{tab:<36} {taken:>8.2f} {TAB_BOUND:>6}")
    print(f"peak memory of all tabs, one after another, with the dashboard's modules: {tabs.peak_mib:,.0f} MiB")
    exceeded = [tab for tab, taken in seconds.items() if taken > TAB_BOUND]
    exceeded += ["cockpit marts"] if marts.seconds > MARTS_BOUND else []
    print(f"bounds that do not hold: {', '.join(exceeded) or 'none'}")
    if exceeded and arguments.strict:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
