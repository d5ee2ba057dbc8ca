"""A small inventory for the tests of the dashboard: five weeks of a simulated tenant, prices, marts, a read copy."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from support import Inventory

from cockpit_source.load import run_load
from cockpit_source.marts.refresh import refresh_marts
from cockpit_source.publish import publish_read_copy
from cockpit_source.sandbox import EventKind, SandboxTenant, running_sandbox

CUSTOMERS = 60
# days before now, and the simulated day that was loaded then
LOADS = ((35, 0), (20, 1), (8, 2), (3, 3), (0, 4))


def build_inventory(database: Path) -> None:
    """Load, price, build and publish. In the last load one customer cannot be read, so its scopes are stale."""
    load_days(database, LOADS)
    build_marts(database)


def load_days(database: Path, loads: tuple[tuple[int, int], ...]) -> None:
    """Load simulated days, each at its moment."""
    now = datetime.now(UTC)
    with running_sandbox(SandboxTenant(customers=CUSTOMERS)) as sandbox:
        inventory = Inventory(sandbox, database)
        for days_ago, day in loads:
            sandbox.day = day
            sandbox.clear()
            if days_ago == 0:
                failing = sandbox.tenant.event(EventKind.OVER_ASSIGNED)
                sandbox.faults.for_customer(failing.customer_id, "html_503")
            settings = inventory.resolve([], scopes=None, discover=True)
            run_load(inventory.pipeline(), settings, as_of=now - timedelta(days=days_ago, seconds=1))


def build_marts(database: Path) -> None:
    """The marts of an inventory, with a price for about half of its SKUs, in two currencies."""
    with running_sandbox(SandboxTenant(customers=CUSTOMERS)) as sandbox:
        inventory = Inventory(sandbox, database)
        prices = _write_prices(database)
        settings = inventory.resolve([], scopes=None, discover=True, price_list=str(prices))
        refresh_marts(inventory.pipeline(), settings, note=print)


def publish(database: Path) -> None:
    """Replace the read copy, as a load does."""
    assert publish_read_copy(database, "test", wait_seconds=5, note=print)


def _write_prices(database: Path) -> Path:
    with duckdb.connect(str(database)) as connection:
        found = connection.execute("SELECT DISTINCT sku_id FROM cockpit.licenses ORDER BY sku_id").fetchall()
    path = database.with_name("prices.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sku_id", "unit_price", "currency", "valid_from"))
        for place, (sku_id,) in enumerate(found):
            if place % 2 == 0:
                writer.writerow((sku_id, f"{10 + place}.50", "EUR" if place % 4 == 0 else "USD", "2020-01-01"))
    return path
