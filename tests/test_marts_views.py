"""Creating the marts: again, over older views, beside views of users, where nothing is, and in the read copy."""

from __future__ import annotations

import re
from pathlib import Path

import dlt
import duckdb
import pytest
from marts_world import Marts, World, at, in_order
from postgres_server import PostgresServer
from support import INSTANCE, Inventory, ScopeIds, day, new_id, sku

from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.marts import MartOptions
from cockpit_source.marts.refresh import refresh_marts
from cockpit_source.marts.views import create_marts, mart_dialect
from cockpit_source.pipeline import create_pipeline
from cockpit_source.publish import read_copy_path
from cockpit_source.sandbox import Sandbox
from cockpit_source.warehouse import Warehouse

A: ScopeIds = ("c1", "p1", None)
REAL: ScopeIds = (new_id(1), INSTANCE, None)


def a_world() -> World:
    world = World()
    world.run(at(1), {A: [sku("e3", 10, 4)]})
    world.run(at(2), {A: [sku("e3", 30, 4)]})
    return world


def all_marts(marts: Marts) -> dict[str, list[object]]:
    return {name: marts.rows(name) for name in marts.names}


def test_created_again_and_again_the_marts_stay_the_same(marts: Marts) -> None:
    first = all_marts(marts.build(a_world(), now=at(2, 12)))
    for _ in range(2):
        assert all_marts(marts.create(at(2, 12))) == first


def execute(marts: Marts, *statements: str) -> None:
    with Warehouse(marts.pipeline).opened(read_only=False) as client:
        assert client is not None
        for statement in statements:
            client.execute(statement)


def test_older_views_with_other_columns_are_replaced(marts: Marts) -> None:
    expected = all_marts(marts.build(a_world(), now=at(2, 12)))
    marts.build(a_world(), now=at(2, 12))
    execute(
        marts,
        *(f"DROP VIEW {{{name}}}" for name in ("attention", "fct_reclaimable_seats", "fct_seat_changes")),
        "CREATE VIEW {fct_reclaimable_seats} AS SELECT tenant AS other, 1 AS tenant FROM {runs}",
        "CREATE VIEW {attention} AS SELECT other FROM {fct_reclaimable_seats}",
    )
    assert all_marts(marts.create(at(2, 12))) == expected


def test_view_of_a_user_on_postgres_is_not_dropped(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    marts = Marts(create_pipeline("t", destination="postgres", pipelines_dir=tmp_path / "pipelines"))
    expected = all_marts(marts.build(a_world(), now=at(2, 12)))
    execute(marts, "CREATE VIEW {mine} AS SELECT customer_id FROM {fct_current_inventory}")
    # while the columns stay the same it is no hindrance
    assert all_marts(marts.create(at(2, 12))) == expected
    execute(
        marts,
        "CREATE VIEW {mine_too} AS SELECT * FROM {mine}",
        "ALTER VIEW {fct_current_inventory} RENAME COLUMN sku_name TO older_name",
    )
    with pytest.raises(WarehouseError) as caught:
        marts.create(at(2, 13))
    message = str(caught.value)
    assert re.search(
        r": cannot drop view (cockpit\.)?fct_current_inventory because other objects depend on it", message
    )
    assert "Nothing was changed. Where a view of your own reads one of them, drop it" in message
    assert "\n" not in message
    assert [row["older_name"] for row in marts.rows("fct_current_inventory")] == ["Product e3"]
    assert marts.rows("mine_too", "customer_id") == ["c1"]
    assert marts.rows("fct_daily_inventory") == expected["fct_daily_inventory"]
    execute(marts, "DROP VIEW {mine} CASCADE")
    assert all_marts(marts.create(at(2, 12))) == expected


def test_nothing_to_build_on_is_told(marts: Marts) -> None:
    with pytest.raises(
        WarehouseError, match=r"^There are no tables yet in dataset cockpit of .*`cockpit load` first"
    ):
        marts.create(at(1))
    assert not (Path.cwd() / "inventory.duckdb").exists()


def test_dataset_of_another_name_has_no_tables(marts: Marts, tmp_path: Path) -> None:
    marts.build(a_world(), now=at(2, 12))
    is_duckdb = marts.pipeline.destination.destination_name == "duckdb"
    other = create_pipeline(
        "t",
        destination="duckdb" if is_duckdb else "postgres",
        database=tmp_path / "inventory.duckdb" if is_duckdb else None,
        dataset="other",
        pipelines_dir=tmp_path / "pipelines",
    )
    with pytest.raises(WarehouseError, match="There are no tables yet in dataset other of"):
        create_marts(other, MartOptions(mart_dialect(other)))


def test_missing_table_is_told_and_nothing_is_changed(marts: Marts) -> None:
    expected = marts.build(a_world(), now=at(2, 12)).rows("fct_daily_inventory")
    execute(marts, "DROP VIEW {checks}")
    # PostgreSQL drops no table that views read, unless it may drop them too
    cascade = "" if marts.pipeline.destination.destination_name == "duckdb" else " CASCADE"
    execute(marts, "DROP TABLE {sku_catalog}" + cascade)
    with pytest.raises(WarehouseError, match=r"sku_catalog.*Nothing was changed\..*where a table lacks"):
        marts.create(at(2, 13))
    assert marts.rows("fct_daily_inventory") == expected
    with pytest.raises(WarehouseError, match="checks"):
        marts.rows("checks")


def test_destination_without_a_dialect_is_refused(tmp_path: Path) -> None:
    pipeline = dlt.pipeline("x", destination="filesystem", pipelines_dir=str(tmp_path / "pipelines"))
    with pytest.raises(
        ConfigurationError, match="marts are written for duckdb, ducklake, postgres, not for filesyst"
    ):
        mart_dialect(pipeline)


def load_and_refresh(inventory: Inventory) -> Marts:
    inventory.answer(REAL[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    inventory.load([REAL], day(0))
    pipeline = inventory.pipeline()
    refresh_marts(pipeline, inventory.resolve([REAL]), as_of=day(0.25), note=print)
    marts = Marts(pipeline)
    marts.names = create_marts(pipeline, MartOptions(mart_dialect(pipeline), as_of=day(0.25))).public
    return marts


def test_ducklake_has_the_marts_too(sandbox: Sandbox, tmp_path: Path, ducklake_url: str) -> None:
    marts = load_and_refresh(Inventory(sandbox, tmp_path / "inventory.duckdb", destination="ducklake"))
    assert marts.rows("fct_current_inventory", "sku_id", "total_seats", "age_hours") == [
        ("e3", 25, 6.0),
        ("e5", 5, 6.0),
    ]
    assert marts.rows("fct_daily_inventory", "sku_id", "total_seats") == [("e3", 25), ("e5", 5)]
    assert {name: bool(rows) for name, rows in all_marts(marts).items()} == {
        name: name not in ("fct_seat_changes", "dim_resellers") for name in marts.names
    }


def test_read_copy_answers_under_any_name(sandbox: Sandbox, tmp_path: Path) -> None:
    inventory = Inventory(sandbox, tmp_path / "inventory.duckdb")
    expected = all_marts(load_and_refresh(inventory))
    copy = tmp_path / "elsewhere" / "renamed.duckdb"
    copy.parent.mkdir()
    copy.write_bytes(read_copy_path(inventory.database).read_bytes())
    for opened, attached in ((str(copy), None), (":memory:", "inv")):
        with duckdb.connect(opened) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if attached:
                connection.execute(f"ATTACH '{copy}' AS {attached} (READ_ONLY)")
            place = f"{attached}.cockpit" if attached else "cockpit"
            for name, rows in expected.items():
                found = connection.execute(f"SELECT * FROM {place}.{name}").to_arrow_table().to_pylist()
                assert in_order(found) == rows, name
            if attached:
                connection.execute(f"USE {attached}")
            for (sql,) in connection.execute("SELECT sql FROM cockpit.metrics").fetchall():
                connection.execute(sql).fetchall()
