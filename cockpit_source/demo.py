"""`cockpit demo`: several days of a simulated tenant, loaded for real, and what the tables then tell."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
from rich.console import Console
from rich.markup import escape

from cockpit_source.configuration import resolve_settings
from cockpit_source.errors import ConfigurationError
from cockpit_source.html_report.command import write_report
from cockpit_source.load import LoadProgress, run_load
from cockpit_source.load_result import LoadResult
from cockpit_source.marts.refresh import refresh_marts
from cockpit_source.pipeline import create_pipeline
from cockpit_source.progress import ProgressDisplay
from cockpit_source.publish import read_copy_path
from cockpit_source.report import create_console, create_table, tell_apart
from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, EventKind, Sandbox, running_sandbox
from cockpit_source.sandbox.products import load_products
from cockpit_source.sandbox_command import DEFAULT_PORT, write_project
from cockpit_source.settings import MartSettings

DATABASE_NAME = "cockpit_demo.duckdb"
PRICES_NAME = "prices.csv"
REPORT_NAME = "report.html"

# of the customers with these events all calls fail on a day; what is read on the next day heals the first
BAD_DAYS = {2: EventKind.OVER_ASSIGNED, 4: EventKind.SKU_ADDED}

_MARKER = ".cockpit-demo"
# free and viral products come with 10,000 seats and more, which nobody bought
_BOUGHT = "total_licenses < 10000"

_CHANGES = f"""
WITH opened AS (SELECT * FROM cockpit.license_history WHERE valid_from = $moment),
     closed AS (SELECT * FROM cockpit.license_history WHERE valid_to = $moment),
     pairs AS (
         SELECT opened.scope_key AS new_key, closed.scope_key AS old_key
         FROM opened FULL JOIN closed USING (scope_key, sku_id, occurrence)
         WHERE coalesce(opened.{_BOUGHT}, true) AND coalesce(closed.{_BOUGHT}, true)
     )
SELECT count(*) FILTER (old_key IS NULL), count(*) FILTER (new_key IS NULL),
       count(*) FILTER (new_key IS NOT NULL AND old_key IS NOT NULL),
       (SELECT coalesce(sum(CASE WHEN snapshot_date = $day THEN total_seats ELSE -total_seats END), 0)::BIGINT
        FROM cockpit.fct_daily_totals WHERE NOT is_free AND snapshot_date IN ($day, $day - 1))
FROM pairs
"""

_UNASSIGNED = f"""
SELECT customer_id, sum(total_licenses)::BIGINT AS seats, sum(consumed_licenses)::BIGINT AS assigned,
       sum(greatest(available_licenses, 0))::BIGINT AS unassigned
FROM cockpit.licenses
WHERE scope_key IN (SELECT scope_key FROM cockpit.scopes WHERE delisted_at IS NULL) AND {_BOUGHT}
GROUP BY customer_id ORDER BY unassigned DESC, customer_id LIMIT 5
"""

_UNREAD = """
SELECT s.customer_id, s.outcome, s.http_status, s.error_description,
       CASE count(*) WHEN 1 THEN '' ELSE strftime(min(r.started_at), '%d %b - ') END
           || strftime(max(r.started_at), '%d %b') AS days,
       max(t.last_outcome) AS last_outcome
FROM cockpit.scope_runs s JOIN cockpit.runs r USING (run_id) JOIN cockpit.scopes t USING (scope_key)
WHERE s.outcome NOT IN ('ok', 'empty')
GROUP BY ALL ORDER BY s.outcome, s.customer_id
"""


def run_demo(folder: Path, days: int) -> int:
    """Load `days` simulated days into `folder` and print what changed; the exit code.

    Starts over in a folder of an earlier demo. Raises ConfigurationError for a folder that holds anything else.
    """
    console = create_console()
    folder = folder.absolute()
    _prepare(folder)
    # the last day is today, so that queries about the last day find it
    first_day = datetime.now(UTC).replace(microsecond=0) - timedelta(days=days - 1)
    with running_sandbox() as sandbox:
        names = tell_apart({customer.id: customer.company_name for customer in sandbox.tenant.customers})
        console.print(
            f"A simulated tenant of {len(names)} customers is served at {sandbox.base_url}. "
            f"No real data: every figure below comes from this sandbox.\nLoading {days} days:",
            soft_wrap=True,
        )
        pipeline = create_pipeline(
            sandbox.tenant.domain, database=folder / DATABASE_NAME, pipelines_dir=folder / ".work" / "pipelines"
        )
        results = [_load_day(sandbox, pipeline, day, first_day + timedelta(days=day)) for day in range(days)]
        write_project(
            folder,
            sandbox.tenant,
            f"http://127.0.0.1:{DEFAULT_PORT}",
            database=DATABASE_NAME,
            more=(f'price_list = "{PRICES_NAME}"', "refresh_marts = true"),
        )
        _build_marts(folder, pipeline, sandbox.tenant.domain, console)
    database = folder / DATABASE_NAME
    write_report(folder / REPORT_NAME, destination="duckdb", database=database, dataset="cockpit")
    moments = [first_day + timedelta(days=day) for day in range(days)]
    with duckdb.connect(str(database), read_only=True) as connection:
        _print_days(console, connection, moments, results)
        _print_unassigned(console, connection, names)
        _print_unread(console, connection, names)
    _print_next_steps(console, folder, days)
    return 0 if all(result.good for result in results) else 1


def _prepare(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise ConfigurationError(f"{folder} holds files that are not of a demo. Choose another with --folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()


def _load_day(sandbox: Sandbox, pipeline: dlt.Pipeline, day: int, moment: datetime) -> LoadResult:
    sandbox.day = day
    sandbox.clear()
    if day in BAD_DAYS:
        sandbox.faults.for_customer(sandbox.tenant.event(BAD_DAYS[day]).customer_id, "html_503")
    settings = resolve_settings(
        tenant=sandbox.tenant.domain,
        base_url=sandbox.base_url,
        token_url=sandbox.token_url,
        token_scope=TOKEN_SCOPE,
        client_id=CSP_CLIENT.id,
        client_secret=CSP_CLIENT.secret,
        max_attempts=3,
        discover=True,
    )
    progress = LoadProgress()
    with ProgressDisplay(progress, create_console(stderr=True)):
        return run_load(pipeline, settings, as_of=moment, progress=progress)


def _build_marts(folder: Path, pipeline: dlt.Pipeline, tenant_key: str, console: Console) -> None:
    """Create the marts, with a list of invented prices."""
    prices = folder / PRICES_NAME
    _write_prices(prices)
    settings = MartSettings(tenant_key, price_list=str(prices))
    refresh_marts(pipeline, settings, note=lambda text: console.print(text, soft_wrap=True))


def _write_prices(path: Path) -> None:
    """A price of every product that is bought, but for each seventh: a real list has gaps too."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sku_id", "unit_price", "currency", "valid_from"))
        for number, product in enumerate(load_products()):
            if product.is_paid and number % 7 != 6:
                writer.writerow(
                    (product.sku_id, f"{2 + int(product.sku_id[:4], 16) % 5800 / 100:.2f}", "EUR", "2025-01-01")
                )


def _print_days(
    console: Console,
    connection: duckdb.DuckDBPyConnection,
    moments: Sequence[datetime],
    results: Sequence[LoadResult],
) -> None:
    numbers = ("scopes", "read", "not read", "delisted", "SKUs new", "gone", "changed", "seats")
    table = create_table("day", *numbers, right=numbers)
    for moment, result in zip(moments, results, strict=True):
        new, gone, changed, seats = _one_row(connection, _CHANGES, {"moment": moment, "day": moment.date()})
        table.add_row(
            f"{moment:%d %b}",
            *(str(number) for number in (result.scopes_total, result.good, result.scopes_total - result.good)),
            *(str(number) for number in (result.delisted, new, gone, changed)),
            f"{seats:+,d}",
        )
    console.print(table)
    console.print(
        "(changes against the day before; a delisted scope keeps its rows, but its seats count no more; free "
        "products with 10,000 seats and more are left out)\n",
        soft_wrap=True,
    )


def _print_unassigned(console: Console, connection: duckdb.DuckDBPyConnection, names: dict[str, str]) -> None:
    table = create_table(
        "most unassigned seats", "bought", "assigned", "unassigned", right=("bought", "assigned", "unassigned")
    )
    for customer_id, seats, assigned, unassigned in connection.execute(_UNASSIGNED).fetchall():
        table.add_row(escape(names[customer_id]), f"{seats:,}", f"{assigned:,}", f"{unassigned:,}")
    console.print(table)
    console.print()


def _print_unread(console: Console, connection: duckdb.DuckDBPyConnection, names: dict[str, str]) -> None:
    table = create_table("not read", "outcome", "HTTP", "why", "days", "now")
    for customer_id, outcome, status, why, days, now in connection.execute(_UNREAD).fetchall():
        table.add_row(escape(names[customer_id]), outcome, str(status or "-"), escape(why), days, now)
    console.print(table)
    console.print("(a scope that is not read keeps the rows of its last good read)\n")


def _print_next_steps(console: Console, folder: Path, days: int) -> None:
    program = _program()
    place = os.path.relpath(folder)
    columns = "sku_name, total_licenses, consumed_licenses, valid_from::DATE AS since, valid_to::DATE AS until"
    query = f"SELECT {columns} FROM cockpit.license_history WHERE valid_to IS NOT NULL LIMIT 10"
    python = os.path.relpath(sys.executable) if program != "cockpit" else "python"
    database = os.path.relpath(read_copy_path(folder / DATABASE_NAME))
    console.print(
        f"Database: {place}/{DATABASE_NAME}, dataset cockpit; readers open its copy.\n"
        f"Report: {place}/{REPORT_NAME}, one file for a browser or a mail. Try next:",
        soft_wrap=True,
    )
    for line in (
        f"{python} -c \"import duckdb; duckdb.connect('{database}', read_only=True).sql('{query}').show()\"",
        f"{program} dashboard --project {place}   # look at it in a browser",
        f"{program} sandbox --day {days}   # serve the next day; leave it running",
        f"{program} load --project {place}   # in another terminal: load it",
    ):
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _program() -> str:
    """How the user can call this program again: by its name where that is on the path."""
    called = Path(sys.argv[0])
    found = shutil.which("cockpit")
    if called.name != "cockpit" or (found and Path(found).resolve() == called.resolve()):
        return "cockpit"
    return os.path.relpath(called)


def _one_row(connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(sql, values).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always answers with one row
    return row
