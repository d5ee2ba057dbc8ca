"""What a load promises, on every warehouse that can be had here: DuckDB, PostgreSQL and DuckLake."""

from __future__ import annotations

import pytest
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, new_id, sku

from cockpit_source.sandbox import Sandbox

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
C: ScopeIds = (new_id(3), INSTANCE, new_id(9))

Answers = dict[ScopeIds, tuple[str, list[Row]]]


@pytest.fixture(params=["duckdb", "postgres", "ducklake"])
def warehouse(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path) -> Inventory:
    """An inventory whose tables lie in the warehouse of the parameter."""
    if request.param != "duckdb":
        request.getfixturevalue(f"{request.param}_url")
    return Inventory(sandbox, tmp_path / "inventory.duckdb", destination=request.param)


DAYS: list[Answers] = [
    {A: ("ok", [sku("e3", 25, 22), sku("e5", 5, 5)]), B: ("ok", [sku("e3", 7, 1)]), C: ("ok", [sku("p1", 1, 1)])},
    # unchanged
    {A: ("ok", [sku("e3", 25, 22), sku("e5", 5, 5)]), B: ("ok", [sku("e3", 7, 1)]), C: ("ok", [sku("p1", 1, 1)])},
    # a SKU gone, seats changed, not read
    {A: ("ok", [sku("e3", 25, 22)]), B: ("ok", [sku("e3", 8, 1)]), C: ("failed", [])},
    # emptied, and a SKU in one answer three times
    {A: ("empty", []), B: ("ok", [sku("e3", 5, 1), sku("e3", 3, 1), sku("e3", 3, 1)]), C: ("forbidden", [])},
    # back as it was, and delisted
    {A: ("ok", [sku("e3", 25, 22), sku("e5", 5, 5)]), B: ("deferred", [])},
    # listed again
    {A: ("not_found", []), B: ("ok", [sku("e3", 3, 1), sku("e3", 5, 1)]), C: ("ok", [sku("p1", 1, 1)])},
    {A: ("failed", []), B: ("failed", []), C: ("failed", [])},
    {A: ("empty", []), B: ("empty", []), C: ("empty", [])},
    {A: ("ok", [sku("e5", 5, 5)]), B: ("ok", [sku("e3", 3, 1)]), C: ("ok", [sku("p1", 1, 1)])},
]
STATUSES = {"ok": 200, "empty": 200, "failed": 500, "forbidden": 403, "not_found": 404, "deferred": 429}


def test_whole_tables_after_each_of_many_days_are_those_of_the_model(warehouse: Inventory) -> None:
    model = Model(warehouse.tenant_key)
    for number, answers in enumerate(DAYS):
        for (customer, _, _), (outcome, rows) in answers.items():
            warehouse.answer(customer, rows, STATUSES[outcome])
        result = warehouse.load(answers, day(number))
        model.run(result.run_id, day(number), answers)
        model.check(warehouse)
    assert len(warehouse.rows("runs")) == len(DAYS)
    assert len(warehouse.rows("scope_runs")) == sum(map(len, DAYS))
