"""The command line load under SIGINT and SIGTERM: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import INSTANCE, Inventory, ScopeIds, new_id, read_rows, sku

from cockpit_source.sandbox import Sandbox

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(400)]


@pytest.fixture
def project(inventory: Inventory, sandbox: Sandbox, tmp_path: Path) -> Path:
    """A project over 400 scopes with a licence each, answered slowly."""
    for customer, _, _ in SCOPES:
        inventory.answer(customer, [sku("e3")])
    folder = tmp_path / "project"
    (folder / ".dlt").mkdir(parents=True)
    settings = inventory.connection() | {"max_concurrency": 4, "scopes_file": str(folder / "scopes.csv")}
    lines = "\n".join(f"{name} = {_to_toml(value)}" for name, value in settings.items())
    (folder / ".dlt" / "secrets.toml").write_text(f"[sources.cockpit]\n{lines}\n")
    rows = "\n".join(f"{customer},{instance}," for customer, instance, _ in SCOPES)
    (folder / "scopes.csv").write_text(f"customer_id,provider_instance_id,reseller_id\n{rows}\n")
    sandbox.faults.configure(latency_ms=40)
    return folder


def _to_toml(value: object) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


def _start(project: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cockpit_source.cli", "load", "--project", str(project)]
    return subprocess.Popen(
        [*command, "--database", str(project / "stopped.duckdb")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def _wait_for_calls(sandbox: Sandbox, child: subprocess.Popen[str], calls: int) -> None:
    give_up_at = time.monotonic() + 60
    while sum(sandbox.call_counts().values()) < calls:
        assert child.poll() is None, "the load ended before"
        assert time.monotonic() < give_up_at, "the calls never came"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_loads_what_is_read_and_skips_the_rest(
    project: Path, sandbox: Sandbox, inventory: Inventory, number: signal.Signals
) -> None:
    child = _start(project)
    _wait_for_calls(sandbox, child, 50)
    # a call that would take longer than the load may still run
    sandbox.faults.for_customer(SCOPES[-1][0], "hang")
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 3, err
    assert f"{number.name} asked the load to end" in out
    assert "the rest is skipped" in err
    database = project / "stopped.duckdb"
    (run,) = read_rows(database, "runs", per_run=True)
    assert run["status"] == "interrupted"
    assert run["scopes_ok"] + run["scopes_skipped"] == 400
    assert 50 <= run["scopes_ok"] < 400
    outcomes = {row["customer_id"]: row["outcome"] for row in read_rows(database, "scope_runs")}
    assert len(outcomes) == 400
    held = {row["customer_id"] for row in read_rows(database, "licenses")}
    assert held == {customer for customer, outcome in outcomes.items() if outcome == "ok"}


def test_calls_that_hang_do_not_hold_the_end_up(project: Path, sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=0, hang=1.0, hang_seconds=60)
    child = _start(project)
    _wait_for_calls(sandbox, child, 4)
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    # no scope was read
    assert child.returncode == 1
    # far below the 60 s of a call; the bound that users are told is 10 s
    assert time.monotonic() - began < 30
    (run,) = read_rows(project / "stopped.duckdb", "runs")
    assert (run["status"], run["scopes_skipped"]) == ("interrupted", 400)


def test_second_signal_ends_at_once_and_the_next_load_carries_on(
    project: Path, sandbox: Sandbox, inventory: Inventory
) -> None:
    child = _start(project)
    _wait_for_calls(sandbox, child, 250)
    sandbox.faults.configure(latency_ms=0, hang=1.0, hang_seconds=60)
    child.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=10)
    assert child.returncode == 1
    assert "ended at once" in err
    sandbox.faults.clear()
    again = _start(project)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "Carrying on run" in err
    database = project / "stopped.duckdb"
    held = {row["customer_id"] for row in read_rows(database, "licenses")}
    assert held == {customer for customer, _, _ in SCOPES}
    assert len(read_rows(database, "license_history")) == 400


def test_load_killed_while_a_signal_skips_the_rest_reads_the_rest_later(
    project: Path, sandbox: Sandbox, inventory: Inventory
) -> None:
    """`docker stop` and others send SIGKILL soon after SIGTERM."""
    child = _start(project)
    _wait_for_calls(sandbox, child, 150)
    child.send_signal(signal.SIGTERM)
    give_up_at = time.monotonic() + 30
    spool = Path(os.environ["DLT_DATA_DIR"]) / "cockpit_spool"
    while not list(spool.glob("*/*/batches/*.skipped.parquet")):
        assert child.poll() is None, "the load ended before"
        assert time.monotonic() < give_up_at, "nothing was skipped"
        time.sleep(0.001)
    child.kill()
    child.communicate()
    again = _start(project)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "Carrying on run" in err
    database = project / "stopped.duckdb"
    (run,) = read_rows(database, "runs")
    assert (run["status"], run["scopes_ok"], run["scopes_skipped"]) == ("complete", 400, 0)
    assert {row["outcome"] for row in read_rows(database, "scope_runs")} == {"ok"}
    assert {row["customer_id"] for row in read_rows(database, "licenses")} == {customer for customer, _, _ in SCOPES}


def test_signal_before_the_first_scope_ends_with_one_message(project: Path, sandbox: Sandbox) -> None:
    sandbox.faults.for_sign_in("hang")
    (project / "stopped.duckdb").unlink(missing_ok=True)
    text = (project / ".dlt" / "secrets.toml").read_text()
    discovering = text.replace(f'scopes_file = "{project / "scopes.csv"}"', "discover = true")
    (project / ".dlt" / "secrets.toml").write_text(discovering)
    child = _start(project)
    give_up_at = time.monotonic() + 30
    while not sandbox.requests and time.monotonic() < give_up_at:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 1
    assert "Interrupted before the first scope was read. Nothing was changed" in err
    assert "Traceback" not in err
