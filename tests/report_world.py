"""Inventories for the tests of the report and the export."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from dashboard_world import build_inventory
from support import Inventory

from cockpit_source.marts.refresh import refresh_marts
from cockpit_source.sandbox import running_sandbox

HOSTILE = '<script>alert("1")</script> & <b>Söhne</b>'


def build_priced(database: Path) -> datetime:
    """Five weeks of a simulated tenant, a name that is HTML, and prices in two currencies for half of the SKUs.

    Returns the moment that the marts take as now, so that ages stay as they are.
    """
    build_inventory(database)
    with duckdb.connect(str(database)) as connection:
        found = connection.execute("SELECT DISTINCT sku_id FROM cockpit.licenses ORDER BY sku_id").fetchall()
        connection.execute(
            """
            UPDATE cockpit.customers SET company_name = $name WHERE id = (
                SELECT customer_id FROM cockpit.fct_current_inventory WHERE NOT is_free
                GROUP BY 1 ORDER BY sum(unassigned_seats) DESC LIMIT 1
            )
            """,
            {"name": HOSTILE},
        )
    prices = database.with_name("prices.csv")
    with prices.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sku_id", "unit_price", "currency", "valid_from"))
        writer.writerows(
            (sku_id, f"{10 + place}.50", "EUR" if place % 4 else "USD", "2020-01-01")
            for place, (sku_id,) in enumerate(found)
            if place % 2 == 0
        )
    now = datetime.now(UTC)
    with running_sandbox() as sandbox:
        inventory = Inventory(sandbox, database)
        settings = inventory.resolve([], scopes=None, discover=True, price_list=str(prices), tenant=_tenant(database))
        refresh_marts(inventory.pipeline(), settings, as_of=now, note=print)
    return now


def _tenant(database: Path) -> str:
    with duckdb.connect(str(database), read_only=True) as connection:
        row = connection.execute("SELECT tenant FROM cockpit.runs LIMIT 1").fetchone()
    assert row is not None
    return str(row[0])
