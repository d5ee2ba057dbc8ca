"""A small inventory for the tests of the dashboard: five weeks of a simulated tenant, prices, marts, a read copy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from support import Inventory

from cockpit_source.load import run_load
from cockpit_source.marts import MartOptions
from cockpit_source.marts.views import create_marts
from cockpit_source.publish import publish_read_copy
from cockpit_source.sandbox import EventKind, SandboxTenant, running_sandbox
from cockpit_source.tables import REFERENCE_TABLES

CUSTOMERS = 60
# days before now, and the simulated day that was loaded then
LOADS = ((35, 0), (20, 1), (8, 2), (3, 3), (0, 4))


def build_inventory(database: Path) -> None:
    """Load, price, build and publish; in the last load one customer cannot be read, so its scopes are stale."""
    now = datetime.now(UTC)
    with running_sandbox(SandboxTenant(customers=CUSTOMERS)) as sandbox:
        inventory = Inventory(sandbox, database)
        for days_ago, day in LOADS:
            sandbox.day = day
            sandbox.clear()
            if days_ago == 0:
                failing = sandbox.tenant.event(EventKind.OVER_ASSIGNED)
                sandbox.faults.for_customer(failing.customer_id, "html_503")
            moment = now - timedelta(days=days_ago, seconds=1)
            run_load(inventory.pipeline(), inventory.resolve([], scopes=None, discover=True), as_of=moment)
        _create_reference_tables(database)
        create_marts(inventory.pipeline(), MartOptions())
    publish(database)


def _create_reference_tables(database: Path) -> None:
    with duckdb.connect(str(database)) as connection:
        for table in REFERENCE_TABLES.values():
            empty = table.arrow_schema.empty_table()  # noqa: F841 - DuckDB finds it by its name
            connection.execute(f"CREATE TABLE IF NOT EXISTS cockpit.{table.name} AS SELECT * FROM empty")


def publish(database: Path) -> None:
    """Replace the read copy, as a load does."""
    assert publish_read_copy(database, "test", wait_seconds=5, note=print)


def set_prices(database: Path) -> None:
    """A price for about half of the SKUs, in two currencies."""
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            """
            INSERT INTO cockpit.sku_prices (tenant, sku_id, unit_price, currency, valid_from, _dlt_load_id)
            SELECT tenant, sku_id, 10 + place, CASE WHEN place % 4 = 0 THEN 'EUR' ELSE 'USD' END,
                   DATE '2020-01-01', '1'
            FROM (SELECT tenant, sku_id, row_number() OVER (ORDER BY sku_id) AS place FROM cockpit.dim_skus)
            WHERE place % 2 = 0
            """
        )
    publish(database)
