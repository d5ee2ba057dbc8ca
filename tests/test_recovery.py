"""Loads that are killed for real, at different points, and what the next load makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, sku

from cockpit_source.errors import CockpitError, ConfigurationError, WarehouseBusy
from cockpit_source.fetch import QUEUED_RESULTS
from cockpit_source.load import LoadProgress
from cockpit_source.sandbox import Sandbox
from cockpit_source.spool import BATCH_SCOPES, Spool, to_batch

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(600)]

# a load in small packages, so that a kill meets one that is fetched while another loads
_CHILD = """
import json, sys
from datetime import datetime
from cockpit_source import create_pipeline, packages, resolve_settings, run_load
packages.PACKAGE_SCOPES = 200
order = json.load(sys.stdin)
pipeline = create_pipeline(
    order["tenant_key"],
    destination=order["destination"],
    database=order["database"],
    pipelines_dir=order["pipelines_dir"],
)
as_of = order["as_of"] and datetime.fromisoformat(order["as_of"])
run_load(pipeline, resolve_settings(**order["settings"]), as_of=as_of)
"""

Trigger = Callable[[Path], bool]


def _spooled(batches: int) -> Trigger:
    return lambda work: len(list(work.glob("cockpit_spool/*/*/batches/*.parquet"))) >= batches


def _exists(pattern: str) -> Trigger:
    return lambda work: any(work.glob(pattern))


TRIGGERS: dict[str, Trigger] = {
    "the scope list is written": _exists("cockpit_spool/*/*/run.json"),
    "two batches are spooled": _spooled(2),
    "the first package is extracted": _exists("pipelines/*/normalize/extracted/*"),
    "the first package is loading": _exists("pipelines/*/load/normalized/*/started_jobs/*"),
    "its history is staged, not merged": _exists("pipelines/*/load/normalized/*/completed_jobs/license_history.*"),
    "the first package is loaded": _exists("cockpit_spool/*/*/batches/*.loaded"),
    "everything is spooled": _spooled(6),
}


@pytest.fixture
def answering(inventory: Inventory) -> Inventory:
    """An inventory of 600 scopes, some of them without licences, read slowly enough to be killed."""
    return _answer_slowly(inventory)


@pytest.fixture(params=["duckdb", "postgres"])
def answering_anywhere(request: pytest.FixtureRequest, inventory: Inventory) -> Inventory:
    """The same in a DuckDB file and in PostgreSQL."""
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    inventory.destination = request.param
    return _answer_slowly(inventory)


def _answer_slowly(inventory: Inventory) -> Inventory:
    for number, (customer, _, _) in enumerate(SCOPES):
        inventory.answer(customer, _rows(number))
    inventory.sandbox.faults.configure(latency_ms=15)
    return inventory


def _rows(number: int) -> list[dict[str, object]]:
    return [sku("e3", number, 0), sku("e5", 1, 1)][: number % 3]


def _answers(scopes: list[ScopeIds]) -> dict[ScopeIds, tuple[str, list[dict[str, object]]]]:
    return {
        scope: ("ok" if _rows(number) else "empty", _rows(number))
        for number, scope in enumerate(SCOPES)
        if scope in scopes
    }


def _start_load(inventory: Inventory, *, as_of: bool = True) -> subprocess.Popen[str]:
    """A load of all scopes in a process of its own."""
    tables = [dict(zip(("customer_id", "provider_instance_id", "reseller_id"), s, strict=True)) for s in SCOPES]
    order = {
        "tenant_key": inventory.tenant_key,
        "destination": inventory.destination,
        "database": str(inventory.database) if inventory.destination == "duckdb" else None,
        "pipelines_dir": str(inventory.database.parent / "work" / "pipelines"),
        "as_of": day(0).isoformat() if as_of else None,
        "settings": inventory.connection() | inventory.settings | {"scopes": tables},
    }
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, text=True, env=dict(os.environ))
    assert child.stdin is not None
    child.stdin.write(json.dumps(order))
    child.stdin.close()
    return child


def _wait_for(trigger: Trigger, inventory: Inventory, child: subprocess.Popen[str]) -> None:
    give_up_at = time.monotonic() + 60
    while not trigger(inventory.database.parent / "work"):
        assert child.poll() is None, "the load ended before the moment came"
        assert time.monotonic() < give_up_at, "the moment never came"
        time.sleep(0.002)


def _kill_load(inventory: Inventory, trigger: Trigger, *, as_of: bool = True) -> None:
    """Start a load and kill it with SIGKILL as soon as `trigger` holds."""
    child = _start_load(inventory, as_of=as_of)
    _wait_for(trigger, inventory, child)
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize("moment", TRIGGERS)
def test_load_killed_is_carried_on_by_the_next(answering_anywhere: Inventory, sandbox: Sandbox, moment: str) -> None:
    """Same run, exact tables, and nothing read again but what was not spooled yet."""
    answering = answering_anywhere
    _kill_load(answering, TRIGGERS[moment])
    calls_before = sum(sandbox.call_counts().values())
    progress = LoadProgress()
    result = answering.load(SCOPES, day(0), progress=progress)
    assert result.carried_on
    assert any("Carrying on run" in note for note in progress.notes)
    model = Model(answering.tenant_key)
    model.run(result.run_id, day(0), _answers(SCOPES))
    model.check(answering)
    (run,) = answering.rows("runs", per_run=True)
    assert (run["status"], run["run_id"]) == ("complete", result.run_id)
    assert (run["scopes_ok"], run["scopes_empty"]) == (400, 200)
    calls = sum(sandbox.call_counts().values())
    assert calls - calls_before <= len(SCOPES)
    # what was in flight, what waited for the reader, and the batch that was not full yet
    assert calls - len(SCOPES) <= answering.settings["max_concurrency"] + QUEUED_RESULTS + BATCH_SCOPES
    assert not [p for p in answering.database.parent.glob("work/cockpit_spool/*/*") if p.is_dir()]


def test_kill_while_dlt_wrote_a_schema_is_no_obstacle(answering: Inventory, sandbox: Sandbox) -> None:
    """dlt takes the half-written file for a schema and stumbles over it when it aborts the package."""
    _kill_load(answering, TRIGGERS["the first package is loading"])
    (folder,) = answering.database.parent.glob("work/pipelines/*")
    (folder / "schemas" / "a1b2c3d4e5f6").write_text('{"version": 2, "ver')
    sandbox.faults.configure(latency_ms=0)
    result = answering.load(SCOPES, day(0))
    assert (result.carried_on, result.exit_code) == (True, 0)
    model = Model(answering.tenant_key)
    model.run(result.run_id, day(0), _answers(SCOPES))
    model.check(answering.database)


def test_load_interrupted_by_hand_is_carried_on_with_all_that_was_left(
    answering: Inventory, sandbox: Sandbox
) -> None:
    """Ctrl+C: what was not read is not skipped, but left for the next load."""
    child = _start_load(answering)
    _wait_for(TRIGGERS["two batches are spooled"], answering, child)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=30) != 0
    sandbox.faults.configure(latency_ms=0)
    result = answering.load(SCOPES, day(0))
    assert (result.carried_on, result.exit_code) == (True, 0)
    model = Model(answering.tenant_key)
    model.run(result.run_id, day(0), _answers(SCOPES))
    model.check(answering.database)


def test_interrupted_run_of_another_list_is_closed(answering: Inventory) -> None:
    """What it had read is loaded under its own run, the rest of it is skipped, and the new run follows."""
    _kill_load(answering, TRIGGERS["two batches are spooled"])
    answering.sandbox.faults.configure(latency_ms=0)
    result = answering.load(SCOPES[:500], day(1))
    assert not result.carried_on
    first, second = sorted(answering.rows("runs", per_run=True), key=lambda run: run["started_at"])
    assert (first["status"], second["status"]) == ("interrupted", "complete")
    assert first["scopes_ok"] + first["scopes_empty"] + first["scopes_skipped"] == 600
    assert first["scopes_ok"] + first["scopes_empty"] >= 200
    read_first = {
        row["customer_id"]
        for row in answering.rows("scope_runs", per_run=True)
        if row["run_id"] == first["run_id"] and row["outcome"] != "skipped"
    }
    outcomes = {
        scope: answer if scope[0] in read_first else ("skipped", []) for scope, answer in _answers(SCOPES).items()
    }
    model = Model(answering.tenant_key)
    model.run(first["run_id"], day(0), outcomes)
    model.run(second["run_id"], day(1), _answers(SCOPES[:500]))
    model.check(answering.database)


def test_fresh_starts_over_and_loses_nothing(answering: Inventory, sandbox: Sandbox) -> None:
    _kill_load(answering, TRIGGERS["two batches are spooled"])
    sandbox.faults.configure(latency_ms=0)
    sandbox.clear_requests()
    result = answering.load(SCOPES, day(1), fresh=True)
    assert not result.carried_on
    assert sum(sandbox.call_counts().values()) == 600
    statuses = [run["status"] for run in answering.rows("runs", per_run=True)]
    assert sorted(statuses) == ["complete", "interrupted"]


def test_interrupted_run_older_than_half_a_day_is_closed(answering: Inventory, sandbox: Sandbox) -> None:
    _kill_load(answering, TRIGGERS["two batches are spooled"], as_of=False)
    (info,) = answering.database.parent.glob("work/cockpit_spool/*/*/run.json")
    record = json.loads(info.read_text())
    record["started_at"] = (day(0) - timedelta(hours=1)).isoformat()
    info.write_text(json.dumps(record))
    sandbox.faults.configure(latency_ms=0)
    assert not answering.load(SCOPES).carried_on
    statuses = [run["status"] for run in answering.rows("runs", per_run=True)]
    assert sorted(statuses) == ["complete", "interrupted"]
    assert len(answering.rows("licenses")) == sum(len(_rows(number)) for number in range(600))


def test_spool_is_dropped_when_a_later_run_has_loaded_newer_answers(answering: Inventory, sandbox: Sandbox) -> None:
    """Another machine has loaded since: the old answers must not come back."""
    _kill_load(answering, TRIGGERS["two batches are spooled"], as_of=False)
    sandbox.faults.configure(latency_ms=0)
    for customer, _, _ in SCOPES:
        answering.answer(customer, [sku("new", 1, 0)])
    other_machine = Inventory(sandbox, answering.database)
    other_machine.pipeline = lambda: _pipeline_elsewhere(answering)  # type: ignore[method-assign]
    assert other_machine.load(SCOPES).exit_code == 0
    for customer, _, _ in SCOPES:
        answering.answer(customer, None, 403)
    progress = LoadProgress()
    answering.load(SCOPES, fresh=True, progress=progress)
    assert any("Dropped the spool" in note for note in progress.notes)
    assert {row["sku_id"] for row in answering.rows("licenses")} == {"new"}


def _pipeline_elsewhere(inventory: Inventory):
    from cockpit_source.pipeline import create_pipeline

    elsewhere = inventory.database.parent / "elsewhere" / "pipelines"
    return create_pipeline(inventory.tenant_key, database=inventory.database, pipelines_dir=elsewhere)


def test_rest_of_a_run_that_never_began_is_removed(inventory: Inventory) -> None:
    inventory.answer(SCOPES[0][0], [sku("e3")])
    inventory.load(SCOPES[:1], day(0))
    (spool,) = inventory.database.parent.glob("work/cockpit_spool/*")
    (spool / "20260101T000000Z-00000000" / "batches").mkdir(parents=True)
    assert inventory.load(SCOPES[:1], day(1)).exit_code == 0
    assert [path.name for path in spool.iterdir()] == ["run.lock"]


def test_as_of_not_later_than_the_history_is_refused(inventory: Inventory) -> None:
    inventory.answer(SCOPES[0][0], [sku("e3")])
    inventory.load(SCOPES[:1], day(1))
    before = inventory.rows("runs", per_run=True)
    with pytest.raises(ConfigurationError, match="not later than"):
        inventory.load(SCOPES[:1], day(1))
    with pytest.raises(ConfigurationError, match="not later than"):
        inventory.load(SCOPES[:1], day(0))
    assert inventory.rows("runs", per_run=True) == before
    inventory.load(SCOPES[:1], day(1) + timedelta(microseconds=1))


def test_second_load_beside_a_running_one_is_refused_and_names_it(answering: Inventory) -> None:
    """The first goes on undisturbed."""
    child = _start_load(answering)
    try:
        _wait_for(TRIGGERS["two batches are spooled"], answering, child)
        with pytest.raises(WarehouseBusy, match=f"process {child.pid}"):
            answering.load(SCOPES, day(0))
        assert child.wait(timeout=60) == 0
    finally:
        child.kill()
    (run,) = answering.rows("runs", per_run=True)
    model = Model(answering.tenant_key)
    model.run(run["run_id"], day(0), _answers(SCOPES))
    model.check(answering.database)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_one_message(inventory: Inventory) -> None:
    spool = Spool.create(inventory.database.parent / "spool")
    (spool.folder / "batches" / "000000.tmp").symlink_to("/dev/full")
    with pytest.raises(CockpitError, match="cannot be written: No space left on device"):
        spool.write_batch(to_batch([]))
