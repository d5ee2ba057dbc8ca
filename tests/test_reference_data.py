"""The reference tables on every warehouse that can be had here: whole tables, other tenants, and loads beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from raw_server import head, raw_server
from support import INSTANCE, Inventory, Model, day, new_id, sku
from test_sku_catalog_file import NAMES_FILE, NOTES, PLANS, PRODUCTS

from cockpit_source.configuration import open_project, resolve_mart_settings
from cockpit_source.errors import ConfigurationError, ListUnavailable, WarehouseBusy
from cockpit_source.reference_data import ReferenceResult, load_reference_data
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox
from cockpit_source.settings import MartSettings
from cockpit_source.tables import LOAD_ID, REFERENCE_TABLES, TABLES

E3 = "05e9a617-0261-4cee-bb44-138d3ef5d965"
E5 = "06ebc4ee-1bb5-47dd-8120-11324bc54e06"
HEADER = "sku_id,unit_price,currency,valid_from\n"
PRICES = (
    HEADER + f"{E3.upper()},36,eur,2026-01-01\n{E3},38.5,EUR,2026-07-01\nCFQ7TTC0LF8R:0001,0.0001,USD,2025-01-01\n"
)
E3_PRICES = [(E3, Decimal(36), "EUR", date(2026, 1, 1)), (E3, Decimal("38.5"), "EUR", date(2026, 7, 1))]
ALL_PRICES = [*E3_PRICES, ("CFQ7TTC0LF8R:0001", Decimal("0.0001"), "USD", date(2025, 1, 1))]

_PRICE_COLUMNS = ("sku_id", "unit_price", "currency", "valid_from")


# DuckLake takes seconds for every package
EVERYWHERE = pytest.mark.parametrize("warehouse", ["duckdb", "postgres", "ducklake"], indirect=True)


@pytest.fixture(params=["duckdb", "postgres"])
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


@EVERYWHERE
def test_without_lists_the_tables_are_there_and_empty(warehouse: Inventory) -> None:
    first, second = supply(warehouse), supply(warehouse)
    assert states(first) == dict.fromkeys(REFERENCE_TABLES, (0, "created"))
    assert states(second) == dict.fromkeys(REFERENCE_TABLES, (0, "kept"))
    assert [warehouse.rows(name) for name in REFERENCE_TABLES] == [[], [], []]
    assert len(warehouse.rows("_dlt_loads")) == 1


@EVERYWHERE
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


def catalog_of(inventory: Inventory) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of both tables without tenant and load id, in the order of their columns."""
    tables = []
    for name in ("sku_catalog", "sku_service_plans"):
        rows = inventory.rows(name)
        assert {row["tenant"] for row in rows} <= {inventory.tenant_key}
        names = [column.name for column in REFERENCE_TABLES[name].columns if column.name not in ("tenant", LOAD_ID)]
        tables.append(sorted((tuple(row[name] for name in names) for row in rows), key=lambda row: row[:2]))
    return tables[0], tables[1]


def test_catalogue_is_replaced_as_a_whole(warehouse: Inventory) -> None:
    content = NAMES_FILE.read_bytes()
    result = supply(warehouse, catalog=content)
    assert states(result) == {
        "sku_prices": (0, "created"),
        "sku_catalog": (len(PRODUCTS), "loaded"),
        "sku_service_plans": (len(PLANS), "loaded"),
    }
    assert list(result.notes) == NOTES
    assert catalog_of(warehouse) == (sorted(PRODUCTS, key=lambda row: row[0]), PLANS)
    again = supply(warehouse, catalog=content)
    assert (again.changed, again.notes) == (False, ())
    only_e3 = b"".join(
        line for line in content.splitlines(keepends=True) if b"E5" not in line and b"VISIO" not in line
    )
    assert supply(warehouse, PRICES, only_e3).changed
    kept = {E3, *(row[0] for row in PRODUCTS)} - {E5, "c5928f49-12ba-48f7-ada3-0d743a3601d5"}
    products, plans = catalog_of(warehouse)
    assert products == sorted((row for row in PRODUCTS if row[0] in kept), key=lambda row: row[0])
    assert plans == [row for row in PLANS if row[0] in kept]
    assert prices_of(warehouse) == sorted(ALL_PRICES)


def test_load_ids_are_those_of_loads_that_ended(warehouse: Inventory) -> None:
    supply(warehouse, PRICES, NAMES_FILE.read_bytes())
    loads = {row["load_id"] for row in warehouse.rows("_dlt_loads") if row["status"] == 0}
    for name in REFERENCE_TABLES:
        assert {row[LOAD_ID] for row in warehouse.rows(name, per_run=True)} == loads


def test_one_wrong_list_changes_nothing(inventory: Inventory) -> None:
    supply(inventory, PRICES, NAMES_FILE.read_bytes())
    before = {name: inventory.rows(name, per_run=True) for name in REFERENCE_TABLES}
    with pytest.raises(ConfigurationError, match="1 problem; nothing was changed"):
        supply(inventory, PRICES + f"{E5},,EUR,2026-01-01\n", HEADER)
    with pytest.raises(ConfigurationError, match="is not Microsoft's table of product names"):
        supply(inventory, HEADER, HEADER)
    assert {name: inventory.rows(name, per_run=True) for name in REFERENCE_TABLES} == before


def test_lists_of_the_configuration_start_at_the_project_folder(inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        '[sources.cockpit]\ntenant = "T.example.com"\n'
        'price_list = "lists/prices.csv"\nsku_catalog = "lists/names.csv"\n'
    )
    open_project(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "prices.csv").write_text(PRICES)
    (tmp_path / "lists" / "names.csv").write_bytes(NAMES_FILE.read_bytes())
    settings = resolve_mart_settings()
    assert settings.reseller_scopes == "same"
    result = load_reference_data(inventory.pipeline(), settings)
    assert states(result) == {
        "sku_prices": (3, "loaded"),
        "sku_catalog": (len(PRODUCTS), "loaded"),
        "sku_service_plans": (len(PLANS), "loaded"),
    }
    assert prices_of(inventory, "t.example.com") == sorted(ALL_PRICES)
    with pytest.raises(ConfigurationError, match="reseller_scopes is not known"):
        resolve_mart_settings(reseller_scopes="sum")


def test_options_of_the_command_start_at_the_current_folder(inventory: Inventory, tmp_path: Path) -> None:
    inventory.answer(new_id(1), [sku(E3)])
    inventory.load([(new_id(1), INSTANCE, None)], day(0))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "prices.csv").write_text(PRICES)
    (tmp_path / "elsewhere" / "names.csv").write_bytes(NAMES_FILE.read_bytes())
    command = [sys.executable, "-m", "cockpit_source.cli", "marts", "--json", "--project", str(tmp_path)]
    command += ["--database", str(inventory.database), "--price-list", "prices.csv", "--sku-catalog", "names.csv"]
    environment = os.environ | {"SOURCES__COCKPIT__TENANT": inventory.tenant_key}
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [table["rows"] for table in json.loads(done.stdout)["reference"]["tables"]] == [
        3,
        len(PRODUCTS),
        len(PLANS),
    ]
    assert prices_of(inventory) == sorted(ALL_PRICES)


def test_catalogue_from_an_address_stays_while_nobody_answers(inventory: Inventory) -> None:
    content = NAMES_FILE.read_bytes()
    with raw_server(head(f"Content-Length: {len(content)}", "Connection: close") + content) as server:
        settings = MartSettings(inventory.tenant_key, sku_catalog=f"{server.url}/names.csv")
        assert states(load_reference_data(inventory.pipeline(), settings))["sku_catalog"] == (len(PRODUCTS), "loaded")
    result = load_reference_data(inventory.pipeline(), settings)
    assert states(result)["sku_service_plans"] == (len(PLANS), "kept")
    (note,) = result.notes
    assert f"at {server.url}/names.csv cannot be fetched" in note
    assert note.endswith("The catalogue that was loaded earlier stays.")
    elsewhere = Inventory(inventory.sandbox, inventory.database.with_name("elsewhere.duckdb"))
    with pytest.raises(ListUnavailable):
        load_reference_data(elsewhere.pipeline(), settings)
    assert not elsewhere.database.exists()


def test_beside_another_run_it_refuses_or_shares_its_lock(inventory: Inventory) -> None:
    with one_runner(inventory.pipeline()) as lock:
        with pytest.raises(WarehouseBusy):
            supply(inventory, PRICES)
        assert supply(inventory, PRICES, lock=lock).changed
    assert prices_of(inventory) == sorted(ALL_PRICES)


def test_loads_and_lists_leave_each_other_alone(warehouse: Inventory) -> None:
    """Before the first load, between two, and with a working folder that was lost in between."""
    scope, model = (new_id(1), INSTANCE, None), Model(warehouse.tenant_key)
    supply(warehouse, PRICES, NAMES_FILE.read_bytes())
    for number, rows in enumerate([[sku(E3)], [sku(E3, 12), sku(E5)], [sku(E5)]]):
        if number == 2:
            warehouse.database.parent.joinpath("work").rename(warehouse.database.parent / "lost")
        warehouse.answer(scope[0], rows)
        result = warehouse.load([scope], day(number))
        model.run(result.run_id, day(number), {scope: ("ok", rows)})
        model.check(warehouse)
        before = {name: warehouse.rows(name, per_run=True) for name in TABLES}
        assert supply(warehouse, HEADER + f"{E3},{number},EUR,2026-01-01\n").changed
        assert {name: warehouse.rows(name, per_run=True) for name in TABLES} == before
        assert prices_of(warehouse) == [(E3, Decimal(number), "EUR", date(2026, 1, 1))]
        assert catalog_of(warehouse) == (sorted(PRODUCTS, key=lambda row: row[0]), PLANS)


@pytest.mark.parametrize("table", REFERENCE_TABLES.values(), ids=REFERENCE_TABLES)
def test_table_in_the_warehouse_has_the_columns_of_its_record(inventory: Inventory, table: Any) -> None:
    supply(inventory)
    stored = inventory.query(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        f"WHERE table_schema = 'cockpit' AND table_name = '{table.name}'"
    )
    types = {"string": "VARCHAR", "int64": "BIGINT", "date32[day]": "DATE", "decimal128(18, 4)": "DECIMAL(18,4)"}
    assert set(stored) == {
        (column.name, types[str(column.type)], "YES" if column.nullable else "NO") for column in table.columns
    }
