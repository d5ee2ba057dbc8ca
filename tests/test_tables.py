"""What is promised of tables and of the package's public door, held against the code."""

from __future__ import annotations

import pytest
from support import INSTANCE, Inventory, day, new_id, sku

import cockpit_source
from cockpit_source.tables import LOAD_ID, TABLES


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_table_in_the_warehouse_has_the_columns_of_its_record(inventory: Inventory, table) -> None:
    inventory.answer(new_id(1), [sku("e3")])
    inventory.load([(new_id(1), INSTANCE, None)], day(0))
    stored = inventory.query(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        f"WHERE table_schema = 'cockpit' AND table_name = '{table.name}'"
    )
    types = {
        "string": "VARCHAR",
        "int64": "BIGINT",
        "bool": "BOOLEAN",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
    }
    expected = {
        (column.name, types[str(column.type)], "YES" if column.nullable else "NO")
        for column in (*table.columns, *table.versioned_columns)
    }
    assert set(stored) == expected


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_record_of_a_table_is_complete(table) -> None:
    names = [column.name for column in (*table.columns, *table.versioned_columns)]
    assert len(names) == len(set(names))
    assert {"tenant", LOAD_ID, *table.key} <= set(names)
    assert all(column.description and column.description[0] != " " for column in table.columns)


def test_public_names_are_sorted_and_exist() -> None:
    assert cockpit_source.__all__ == sorted(cockpit_source.__all__)
    assert all(getattr(cockpit_source, name) is not None for name in cockpit_source.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cockpit_source.no_such_name
