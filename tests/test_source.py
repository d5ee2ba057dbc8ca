"""The bare dlt source in a plain dlt script, without `run_load`."""

from __future__ import annotations

from pathlib import Path

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from support import INSTANCE, Inventory, Model, ScopeIds, day, every_table, new_id, read_rows, sku

from cockpit_source.errors import CockpitError, SignInRefused
from cockpit_source.source import cockpit_source
from cockpit_source.tables import LISTED_TABLES, TABLES

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)


@pytest.fixture
def script(inventory: Inventory, tmp_path: Path) -> Inventory:
    """Scopes A and B with licences, and a pipeline as any dlt user would make it."""
    inventory.answer(A[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    inventory.answer(B[0], [sku("e3", 7, 1)])
    return inventory


def run(inventory: Inventory, listed: list[ScopeIds], number: int, *, allow_drops: bool = False, **settings: object):
    tables = [dict(zip(("customer_id", "provider_instance_id", "reseller_id"), s, strict=True)) for s in listed]
    pipeline = dlt.pipeline(
        "any_script",
        destination=dlt.destinations.duckdb(str(inventory.database)),
        dataset_name="cockpit",
        pipelines_dir=str(inventory.database.parent / "pipelines"),
    )
    options = inventory.connection() | inventory.settings | {"scopes": tables} | settings
    return pipeline.run(cockpit_source(allow_drops=allow_drops, as_of=day(number), **options))


def test_source_run_twice_equals_the_model(script: Inventory) -> None:
    model = Model(script.tenant_key)
    answers = {A: ("ok", [sku("e3", 25, 22), sku("e5", 5, 5)]), B: ("ok", [sku("e3", 7, 1)])}
    for number in (0, 1):
        run(script, [A, B], number)
        run_id = script.rows("runs", per_run=True)[-1]["run_id"]
        model.run(run_id, day(number), answers)
        model.check(script.database)
    assert [row["status"] for row in script.rows("runs")] == ["complete", "complete"]


def test_source_makes_every_table_and_fetches_each_scope_once(script: Inventory) -> None:
    run(script, [A, B], 0)
    without_rows = {"rejected_rows", *(table.name for table in LISTED_TABLES)}
    assert {table for table in TABLES if not script.rows(table)} == without_rows
    assert set(script.sandbox.call_counts().values()) == {1}


def test_source_keeps_what_failed_and_what_empties_unless_drops_are_allowed(script: Inventory) -> None:
    run(script, [A, B], 0)
    before = every_table(script.database)
    script.answer(A[0], [])
    script.answer(B[0], None, 403)
    run(script, [A, B], 1)
    assert every_table(script.database) == before
    run(script, [A, B], 2, allow_drops=True)
    assert {row["customer_id"] for row in script.rows("licenses")} == {B[0]}
    assert {row["customer_id"]: row["last_outcome"] for row in script.rows("scopes")} == {
        A[0]: "empty",
        B[0]: "forbidden",
    }


def test_source_with_refused_sign_in_loads_nothing(script: Inventory) -> None:
    run(script, [A, B], 0)
    before = {table: read_rows(script.database, table, per_run=True) for table in TABLES}
    with pytest.raises(PipelineStepFailed) as failure:
        run(script, [A, B], 1, client_secret="wrong")
    assert any(isinstance(error, SignInRefused) for error in _causes(failure.value))
    assert {table: read_rows(script.database, table, per_run=True) for table in TABLES} == before


def test_source_without_any_answer_loads_nothing(script: Inventory) -> None:
    for scope in (A, B):
        script.answer(scope[0], None, 403)
    with pytest.raises(PipelineStepFailed, match="No scope could be read") as failure:
        run(script, [A, B], 0)
    assert any(isinstance(error, CockpitError) for error in _causes(failure.value))


def test_source_selects_single_tables(script: Inventory) -> None:
    """Usable as any dlt source: resources carry the names of the tables."""
    source = cockpit_source(**script.connection(), customers=[A[0]], provider_instances=[A[1]])
    assert set(source.selected_resources) == set(TABLES)
    rows = list(source.with_resources("licenses", "package_parts").resources)
    assert "licenses" in rows


def _causes(error: BaseException | None) -> list[BaseException]:
    causes = []
    while error is not None:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def test_source_discovers_its_scopes(script: Inventory) -> None:
    tenant = script.sandbox.tenant
    run(script, [], 0, scopes=None, discover=True, max_attempts=3)
    assert {(r["customer_id"], r["provider_instance_id"], r["reseller_id"]) for r in script.rows("scopes")} == set(
        tenant.scopes(0)
    )
    assert {row["id"] for row in script.rows("customers")} >= {scope[0] for scope in tenant.scopes(0)}
    assert len(script.rows("provider_instances")) == 3
