"""What is promised of tables and of the package's public door, held against the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import INSTANCE, Inventory, day, new_id, sku

import cockpit_source
from cockpit_source.tables import LOAD_ID, TABLES

README = Path(__file__).parent.parent / "README.md"


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


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_readme_states_grain_key_and_write_disposition_of_the_table(table) -> None:
    line = next(
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{table.name}`")
    )
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    strategy = {
        "merge": "merge",
        "scope delete-insert": "merge, delete-insert by scope",
        "scope scd2": "merge, scd2 by scope",
    }
    assert cells == [f"`{table.name}`", table.grain, ", ".join(table.key), strategy[table.sync]]


def test_public_names_are_sorted_and_exist() -> None:
    assert cockpit_source.__all__ == sorted(cockpit_source.__all__)
    assert all(getattr(cockpit_source, name) is not None for name in cockpit_source.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cockpit_source.no_such_name
