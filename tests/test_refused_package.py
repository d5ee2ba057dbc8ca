"""A destination that refuses rows: only the scopes of their batch fail, and nothing of them moves."""

from __future__ import annotations

import duckdb
import pytest
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, new_id, sku

from cockpit_source import packages
from cockpit_source.errors import WarehouseError
from cockpit_source.load import LoadProgress

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(250)]
BAD = SCOPES[120]
TABLES = ("licenses", "license_history")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "SECOND_TRY_AFTER_SECONDS", 0)


def _refuse(inventory: Inventory, *, refuse: bool) -> None:
    """Let the database refuse two rows whose name begins with Bad, or take them again."""
    with duckdb.connect(str(inventory.database)) as connection:
        for table in TABLES:
            if refuse:
                bad = "CASE WHEN sku_name LIKE 'Bad%' THEN 1 END"
                connection.execute(f"CREATE UNIQUE INDEX refuse_{table} ON cockpit.{table} (({bad}))")
            else:
                connection.execute(f"DROP INDEX cockpit.refuse_{table}")


def test_only_the_scopes_of_the_bad_batch_fail(inventory: Inventory, caplog: pytest.LogCaptureFixture) -> None:
    for customer, _, _ in SCOPES:
        inventory.answer(customer, [sku("e3")])
    answers: dict[ScopeIds, tuple[str, list[Row]]] = {scope: ("ok", [sku("e3")]) for scope in SCOPES}
    model = Model(inventory.tenant_key)
    model.run(inventory.load(SCOPES, day(0)).run_id, day(0), answers)

    _refuse(inventory, refuse=True)
    for scope in SCOPES:
        rows = [sku("a", name="Bad 1"), sku("b", name="Bad 2")] if scope == BAD else [sku("e3", 20)]
        inventory.answer(scope[0], rows)
        answers[scope] = ("ok", rows)
    progress = LoadProgress()
    result = inventory.load(SCOPES, day(1), progress=progress)
    outcomes = {
        row["customer_id"]: (row["outcome"], row["error_type"])
        for row in inventory.rows("scope_runs", per_run=True)
        if row["run_id"] == result.run_id
    }
    assert outcomes[BAD[0]] == ("failed", "refused_by_destination")
    failed = [scope for scope in SCOPES if outcomes[scope[0]][0] == "failed"]
    assert (result.exit_code, result.status, result.outcomes["failed"]) == (3, "partial", len(failed))
    assert len(failed) <= 100
    assert result.license_rows == 250 - len(failed)
    assert any("loaded one by one" in note for note in progress.notes)
    assert "Traceback" not in caplog.text
    (run,) = [run for run in inventory.rows("runs", per_run=True) if run["run_id"] == result.run_id]
    assert (run["scopes_failed"], run["scopes_ok"]) == (len(failed), 250 - len(failed))
    day_1 = answers | {scope: ("failed", []) for scope in failed}
    model.run(result.run_id, day(1), day_1)
    model.check(inventory.database)

    _refuse(inventory, refuse=False)
    healed = inventory.load(SCOPES, day(2))
    assert healed.exit_code == 0
    model.run(healed.run_id, day(2), answers)
    model.check(inventory.database)


def test_destination_that_takes_nothing_ends_the_load_and_the_next_carries_on(
    inventory: Inventory,
) -> None:
    for customer, _, _ in SCOPES:
        inventory.answer(customer, [sku("e3")])
    first = inventory.load(SCOPES, day(0))
    with duckdb.connect(str(inventory.database)) as connection:
        connection.execute("ALTER TABLE cockpit.scope_runs RENAME TO elsewhere")
        connection.execute("CREATE VIEW cockpit.scope_runs AS SELECT * FROM cockpit.elsewhere")
    with pytest.raises(WarehouseError, match="cannot be used"):
        inventory.load(SCOPES, day(1))
    with duckdb.connect(str(inventory.database)) as connection:
        connection.execute("DROP VIEW cockpit.scope_runs")
        connection.execute("ALTER TABLE cockpit.elsewhere RENAME TO scope_runs")
    second = inventory.load(SCOPES, day(1))
    assert (second.carried_on, second.exit_code) == (True, 0)
    model = Model(inventory.tenant_key)
    answers: dict[ScopeIds, tuple[str, list[Row]]] = {scope: ("ok", [sku("e3")]) for scope in SCOPES}
    model.run(first.run_id, day(0), answers)
    model.run(second.run_id, day(1), answers)
    model.check(inventory.database)
