"""The reference tables on every warehouse that can be had here: whole tables, other tenants, kills, and loads beside."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import INSTANCE, Inventory, Model, Row, day, new_id, sku

from cockpit_source.errors import ConfigurationError, WarehouseBusy
from cockpit_source.reference_data import ReferenceResult, load_reference_data
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox
from cockpit_source.settings import MartSettings
from cockpit_source.tables import LOAD_ID, REFERENCE_TABLES
from cockpit_source.warehouse import Warehouse

E3 = "05e9a617-0261-4cee-bb44-138d3ef5d965"
E5 = "06ebc4ee-1bb5-47dd-8120-11324bc54e06"
HEADER = "sku_id,unit_price,currency,valid_from\n"
PRICES = (
    HEADER + f"{E3.upper()},36,eur,2026-01-01\n{E3},38.5,EUR,2026-07-01\nCFQ7TTC0LF8R:0001,0.0001,USD,2025-01-01\n"
)
E3_PRICES = [(E3, Decimal(36), "EUR", date(2026, 1, 1)), (E3, Decimal("38.5"), "EUR", date(2026, 7, 1))]
ALL_PRICES = [*E3_PRICES, ("CFQ7TTC0LF8R:0001", Decimal("0.0001"), "USD", date(2025, 1, 1))]

_PRICE_COLUMNS = ("sku_id", "unit_price", "currency", "valid_from")


@pytest.fixture(params=["duckdb", "postgres", "ducklake"])
def warehouse(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Inventory:
    """An inventory in the warehouse of the parameter."""
    if request.param != "duckdb":
        request.getfixturevalue(f"{request.param}_url")
    return Inventory(sandbox, tmp_path / "inventory.duckdb", destination=request.param)


def supply(
    inventory: Inventory, prices: str | None = None, catalog: str | bytes | None = None, **options: Any
) -> ReferenceResult:
    """Load the lists of these contents."""
    places: dict[str, str] = {}
    for name, content in (("price_list", prices), ("sku_catalog", catalog)):
        if content is not None:
            path = inventory.database.with_name(f"{name}.csv")
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            places[name] = str(path)
    return load_reference_data(inventory.pipeline(), MartSettings(inventory.tenant_key, **places), **options)


def states(result: ReferenceResult) -> dict[str, tuple[int, str]]:
    return {table.name: (table.rows, table.state) for table in result.tables}


def prices_of(inventory: Inventory, tenant: str | None = None) -> list[tuple[Any, ...]]:
    rows = [row for row in inventory.rows("sku_prices") if row["tenant"] == (tenant or inventory.tenant_key)]
    return sorted(tuple(row[name] for name in _PRICE_COLUMNS) for row in rows)


def test_without_lists_the_tables_are_there_and_empty(warehouse: Inventory) -> None:
    first, second = supply(warehouse), supply(warehouse)
    assert states(first) == dict.fromkeys(REFERENCE_TABLES, (0, "created"))
    assert states(second) == dict.fromkeys(REFERENCE_TABLES, (0, "kept"))
    assert [warehouse.rows(name) for name in REFERENCE_TABLES] == [[], [], []]
    assert len(warehouse.rows("_dlt_loads")) == 1


def test_price_list_is_replaced_as_a_whole(warehouse: Inventory) -> None:
    other = Inventory(warehouse.sandbox, warehouse.database, destination=warehouse.destination, tenant_key="other")
    assert states(supply(other, PRICES))["sku_prices"] == (3, "loaded")
    assert states(supply(warehouse, PRICES))["sku_prices"] == (3, "loaded")
    assert prices_of(warehouse) == sorted(ALL_PRICES)
    assert states(supply(warehouse, PRICES))["sku_prices"] == (3, "unchanged")
    assert states(supply(warehouse))["sku_prices"] == (3, "kept")
    dearer = HEADER + f"{E3},37,EUR,2026-01-01\n{E5},60,EUR,2026-01-01\n"
    assert states(supply(warehouse, dearer))["sku_prices"] == (2, "loaded")
    assert prices_of(warehouse) == [
        (E3, Decimal(37), "EUR", date(2026, 1, 1)),
        (E5, Decimal(60), "EUR", date(2026, 1, 1)),
    ]
    assert states(supply(warehouse, HEADER))["sku_prices"] == (0, "loaded")
    assert prices_of(warehouse) == []
    assert prices_of(other, "other") == sorted(ALL_PRICES)
