"""Dagster on the sandbox: its runs end in the tables of `cockpit load`, and what goes wrong shows as it should.

The runs are real, in this process. Of the daemon only what it asks is asked: the schedule, the automation conditions,
and the sensor; `tests/prove_dagster.py` runs the daemon itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster_world import ROOT, SEEDS, World, load_definitions, read_tables, write_project
from support import day

from cockpit_source.sandbox import CSP_CLIENT, SandboxTenant, running_sandbox


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as stack:
        apis = {
            name: stack.enter_context(running_sandbox(SandboxTenant(seed, customers=12)))
            for name, seed in SEEDS.items()
        }
        folder = tmp_path / "project"
        write_project(folder, apis)
        for name, value in {"PROJECT": str(folder), "RETRIES": "1", "RETRY_SECONDS": "0"}.items():
            monkeypatch.setenv(f"COCKPIT_{name}", value)
        instance = stack.enter_context(dg.DagsterInstance.ephemeral())
        yield World(folder, apis, load_definitions(), instance)


def test_run_of_all_partitions_ends_in_the_tables_of_cockpit_load(world: World) -> None:
    """What the schedule asks for, then what the automation conditions ask for, against the command line."""
    definitions = world.definitions
    evaluated = dg.evaluate_automation_conditions(definitions.defs, world.instance)
    context = dg.build_schedule_context(
        world.instance, datetime(2026, 1, 1, 5, 40, tzinfo=UTC), repository_def=definitions.defs.get_repository_def()
    )
    requests = definitions.every_morning.evaluate_tick(context).run_requests
    assert [(request.partition_key, request.run_key) for request in requests] == [
        (name, f"2026-01-01 {name}") for name in SEEDS
    ]
    for number in (0, 1):
        for name, api in world.apis.items():
            api.day = number
            assert world.load(name, number).success
    loaded = read_tables(world.database)
    evaluated = dg.evaluate_automation_conditions(definitions.defs, world.instance, cursor=evaluated.cursor)
    assert evaluated.get_num_requested(dg.AssetKey("marts")) == 1
    assert evaluated.get_num_requested(dg.AssetKey("licence_tables")) == 0
    requested = {check.name for check in definitions.checks_of_tenants.check_keys}
    assert requested == {"coverage", "staleness", "unusual_drops"}
    answers = world.run("answers")
    assert answers.success
    assert (world.folder / "report.html").stat().st_size > 10_000

    other = world.folder / "other.duckdb"
    for number in (0, 1):
        for api in world.apis.values():
            api.day = number
        command = [sys.executable, "-m", "cockpit_source.cli", "load", "--project", str(world.folder)]
        command += ["--database", str(other), "--as-of", day(number).strftime("%Y-%m-%dT%H:%M:%S")]
        subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    expected = read_tables(other)
    assert set(loaded) == set(expected)
    assert len(loaded["licenses"]) > 100
    assert len(loaded["license_history"]) > len(loaded["licenses"])
    for name in loaded:
        assert loaded[name] == expected[name], name


def messages(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run says of its steps."""
    failed = [event for event in result.all_events if event.is_step_failure]
    return "\n".join(event.step_failure_data.user_failure_data.description or "" for event in failed)


def test_scopes_that_failed_are_tried_again_alone_and_refused_ones_are_not(world: World) -> None:
    """The flaky customer fails the first run; three others may not be read at all."""
    write_project(world.folder, world.apis, max_attempts=1)
    world.definitions = load_definitions()
    result = world.load("north", 0)
    assert result.success
    runs = world.rows(
        "SELECT run_id, scopes_total, scopes_ok, scopes_failed, scopes_forbidden FROM cockpit.runs ORDER BY run_id"
    )
    assert [row[1:] for row in runs] == [(11, 7, 1, 3), (4, 1, 0, 3)]
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["runs"].value == " ".join(row[0] for row in runs)
    assert [metadata[name].value for name in ("scopes_ok", "scopes_forbidden", "throttled")] == [1, 3, 0]
    assert metadata["requests"].value > 0
    assert world.checks()["coverage"][2].startswith("north: 8 of 11 listed scopes were read last; south: 0 of 0")


def test_drop_guard_fails_the_run_until_a_person_accepts(world: World) -> None:
    assert world.load("north", 0).success
    (emptied,) = world.rows("SELECT min(customer_id) FROM cockpit.licenses")
    world.apis["north"].answer(emptied[0], b"[]")
    held = world.rows("SELECT count(*) FROM cockpit.licenses")
    guarded = world.load("north", 1)
    assert not guarded.success
    assert "The drop guard held back" in messages(guarded)
    assert "launch this partition again with accept_drop in its config" in messages(guarded)
    # the rest is loaded, so what follows from it is anew
    assert len(guarded.get_asset_materialization_events()) == 1
    assert world.rows("SELECT count(*) FROM cockpit.licenses") == held
    passed, severity, description = world.checks()["unusual_drops"]
    assert (passed, severity) == (False, "ERROR")
    assert description is not None
    assert "and the drop guard held scopes back" in description
    assert world.load("north", 2, accept_drop=10).success
    assert world.rows("SELECT count(*) FROM cockpit.licenses WHERE tenant = 'north.example'") < held
    _, severity, _ = world.checks()["unusual_drops"]
    assert severity == "WARN"


def test_refused_sign_in_fails_its_tenant_alone_and_calls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = world.folder / ".dlt" / "secrets.toml"
    before, separator, after = secrets.read_text().rpartition(f'client_secret = "{CSP_CLIENT.secret}"')
    secrets.write_text(before + separator.replace(CSP_CLIENT.secret, "wrong") + after)
    definitions = load_definitions()
    world.definitions = definitions
    refused = world.load("south", 0)
    assert not refused.success
    assert messages(refused).startswith("Sign-in was refused (HTTP 401")
    assert not any(event.event_type_value == "STEP_UP_FOR_RETRY" for event in refused.all_events)
    assert world.load("north", 0).success
    assert world.rows("SELECT DISTINCT tenant FROM cockpit.licenses") == [("north.example",)]
    coverage = world.checks()["coverage"]
    assert coverage[0] is False
    told = world.folder / "told"
    monkeypatch.setenv("COCKPIT_CALL", f'{{ echo "$COCKPIT_SUBJECT"; cat; }} > {told}')
    run = world.instance.get_run_by_id(refused.run_id)
    context = dg.build_run_status_sensor_context(
        "call_a_person", refused.get_run_failure_event(), world.instance, run
    ).for_run_failure()
    definitions.call_a_person(context)
    text = told.read_text()
    assert text.startswith("cockpit load needs you: load failed, partition south\n")
    assert "Sign-in was refused (HTTP 401" in text
    assert "Traceback" not in text


def test_database_in_use_is_tried_again_and_then_fails(world: World) -> None:
    hold = f"import duckdb; c = duckdb.connect({str(world.database)!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        busy = world.load("north", 0)
        holder.communicate("let go\n")
    assert not busy.success
    assert [event.event_type_value for event in busy.all_events].count("STEP_UP_FOR_RETRY") == 1
    assert f"is in use by process {holder.pid}" in messages(busy)


def test_checks_say_what_was_never_loaded_or_long_ago(world: World) -> None:
    """The simulated days are long past, so that no good read is young enough."""
    never = world.checks()
    assert {name: found[:2] for name, found in never.items()}["staleness"] == (False, "ERROR")
    assert world.load("north", 0).success
    found = world.checks()
    assert found["unusual_drops"][0] is True
    assert found["staleness"][:2] == (False, "ERROR")
    assert found["staleness"][2].startswith("north: ")


def test_instance_of_the_example_has_one_writer(world: World, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "pipelines" / "schedules" / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    definitions = world.definitions
    for asset in (definitions.licence_tables, definitions.marts, definitions.checks_of_tenants):
        assert asset.op.pool == "cockpit_database"


def test_project_of_one_tenant_is_one_partition(world: World) -> None:
    secrets = world.folder / ".dlt" / "secrets.toml"
    common, _, north = secrets.read_text().partition("[sources.cockpit.tenants.north]\n")
    north, _, _ = north.partition("[sources.cockpit.tenants.south]\n")
    secrets.write_text(f'{common}{north}[destination.duckdb]\ncredentials = "w.duckdb"\n')
    world.definitions = load_definitions()
    assert world.definitions.tenants.get_partition_keys() == ["default"]
    assert world.load("default", 0).success
    assert world.rows("SELECT tenant, scopes_ok FROM cockpit.runs") == [("north.example", 8)]
