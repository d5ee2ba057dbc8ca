"""Loads whose scopes are read by Dask workers: real processes, killed, stopped and cut off for real."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_world import SCOPES, answer_slowly, answers, license_calls, meanwhile, processes, wait_until
from support import Inventory, Model, day

from cockpit_source.errors import CockpitError, ConfigurationError
from cockpit_source.fanout import cluster as cluster_module
from cockpit_source.fanout import reader
from cockpit_source.fanout.cluster import DaskFanOut, connect, describe_open_network
from cockpit_source.fanout.opening import fan_out_by_dask
from cockpit_source.load import LoadProgress
from cockpit_source.load_result import LoadResult
from cockpit_source.sandbox import CSP_CLIENT, Sandbox
from cockpit_source.sandbox_command import write_project
from cockpit_source.stopping import StopRequest

SHARD = 50


@pytest.fixture(scope="module")
def local() -> Iterator[DaskFanOut]:
    """Two worker processes for all tests; those that are killed come back."""
    with connect("local") as fan_out:
        yield fan_out


@pytest.fixture
def answering(inventory: Inventory) -> Inventory:
    return answer_slowly(inventory)


def _worker_pids(fan_out: DaskFanOut) -> list[int]:
    wait_until(lambda: len(fan_out._client.nthreads()) == 2, "two workers")
    return list(fan_out._client.run(os.getpid).values())


def _check(inventory: Inventory, result: LoadResult, *, is_inbox_empty: bool = True) -> None:
    """Whole tables against the model, and every scope read."""
    model = Model(inventory.tenant_key)
    model.run(result.run_id, day(0), answers())
    model.check(inventory)
    assert (result.status, result.exit_code, result.good) == ("complete", 0, len(SCOPES))
    (run,) = inventory.rows("runs", per_run=True)
    assert (run["run_id"], run["scopes_ok"] + run["scopes_empty"]) == (result.run_id, len(SCOPES))
    assert not is_inbox_empty or not list(inventory.database.parent.glob("work/cockpit_inbox/*/*"))


def test_tables_are_those_of_a_load_without_dask(local: DaskFanOut, answering: Inventory, tmp_path: Path) -> None:
    """And `runs` counts the calls that the workers made."""
    result = answering.load(SCOPES, day(0), fan_out=local)
    _check(answering, result)
    assert result.requests == license_calls(answering.sandbox) == len(SCOPES)
    plain = Inventory(answering.sandbox, tmp_path / "plain" / "plain.duckdb")
    plain.database.parent.mkdir()
    plain.load(SCOPES, day(0))
    for table in ("licenses", "license_history", "scopes"):
        assert answering.rows(table) == plain.rows(table)


def test_worker_killed_costs_at_most_its_shard(local: DaskFanOut, answering: Inventory, sandbox: Sandbox) -> None:
    victim = _worker_pids(local)[0]

    def kill() -> None:
        wait_until(lambda: license_calls(sandbox) > 120, "the middle of the run")
        os.kill(victim, signal.SIGKILL)

    with meanwhile(kill):
        result = answering.load(SCOPES, day(0), fan_out=local)
    _check(answering, result)
    assert 0 <= license_calls(sandbox) - len(SCOPES) <= SHARD


def test_shard_of_a_silent_worker_is_read_by_another_and_counts_once(
    local: DaskFanOut, answering: Inventory, sandbox: Sandbox
) -> None:
    """The stopped worker goes on later and ends its shard too."""
    victim = _worker_pids(local)[1]

    def stop() -> None:
        wait_until(lambda: license_calls(sandbox) > 120, "the middle of the run")
        os.kill(victim, signal.SIGSTOP)
        try:
            wait_until(lambda: license_calls(sandbox) >= len(SCOPES), "the other worker read its shard")
        finally:
            os.kill(victim, signal.SIGCONT)

    with meanwhile(stop):
        result = answering.load(SCOPES, day(0), fan_out=local, settings={"shard_timeout_seconds": 1})
    # what the late worker leaves is removed by the next run
    _check(answering, result, is_inbox_empty=False)


def test_shard_that_never_returns_ends_as_skipped(
    local: DaskFanOut, answering: Inventory, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last attempt; the others are read, and nothing of the skipped ones moves."""
    monkeypatch.setattr(reader, "_MAX_ATTEMPTS", 1)
    victim = _worker_pids(local)[0]

    def stop() -> None:
        wait_until(lambda: license_calls(sandbox) > 120, "the middle of the run")
        os.kill(victim, signal.SIGSTOP)

    try:
        with meanwhile(stop):
            result = answering.load(SCOPES, day(0), fan_out=local, settings={"shard_timeout_seconds": 1})
    finally:
        os.kill(victim, signal.SIGCONT)
    assert (result.status, result.exit_code) == ("partial", 3)
    assert 1 <= result.outcomes["skipped"] <= SHARD
    skipped = {row["customer_id"] for row in answering.rows("scope_runs") if row["outcome"] == "skipped"}
    model = Model(answering.tenant_key)
    model.run(result.run_id, day(0), {s: a if s[0] not in skipped else ("skipped", []) for s, a in answers().items()})
    model.check(answering)


def test_load_asked_to_stop_loads_what_was_read(local: DaskFanOut, answering: Inventory, sandbox: Sandbox) -> None:
    request = StopRequest()

    def ask() -> None:
        wait_until(lambda: license_calls(sandbox) > 120, "the middle of the run")
        request.ask("SIGTERM asked the load to end")

    with meanwhile(ask):
        result = answering.load(SCOPES, day(0), fan_out=local, stop_request=request)
    assert result.status == "interrupted"
    assert result.good >= 100
    assert result.good + result.outcomes["skipped"] == len(SCOPES)
    read = {row["customer_id"] for row in answering.rows("scope_runs") if row["outcome"] != "skipped"}
    model = Model(answering.tenant_key)
    model.run(result.run_id, day(0), {s: a if s[0] in read else ("skipped", []) for s, a in answers().items()})
    model.check(answering)


def test_refused_credentials_end_the_load(local: DaskFanOut, answering: Inventory) -> None:
    result = answering.load(SCOPES, day(0), fan_out=local, settings={"client_secret": "wrong"})
    assert result.exit_code == 5
    assert "Sign-in was refused" in str(result.sign_in_error)


def test_scheduler_that_dies_is_a_clear_failure_and_the_next_load_carries_on(
    local: DaskFanOut, answering: Inventory, sandbox: Sandbox, tmp_path: Path
) -> None:
    with processes(tmp_path / "dask") as cluster:
        cluster.start_worker()
        cluster.start_worker()
        progress = LoadProgress()

        def kill() -> None:
            wait_until(lambda: progress.record is not None and progress.record.done > 120, "the middle of the run")
            cluster.scheduler.kill()

        with (
            fan_out_by_dask(cluster.address) as fan_out,
            meanwhile(kill),
            pytest.raises(
                CockpitError, match=r"The Dask scheduler at .* was lost: .* run again; the load carries on"
            ),
        ):
            answering.load(SCOPES, day(0), fan_out=fan_out, progress=progress)
    before = license_calls(sandbox)
    result = answering.load(SCOPES, day(0), fan_out=local)
    assert result.carried_on
    _check(answering, result)
    assert license_calls(sandbox) - before < len(SCOPES) - 120


_CHILD = """
import json, sys
from datetime import datetime
from cockpit_source import create_pipeline, resolve_settings, run_load
from cockpit_source.fanout.opening import fan_out_by_dask
order = json.load(sys.stdin)
pipeline = create_pipeline(order["tenant_key"], database=order["database"], pipelines_dir=order["pipelines_dir"])
with fan_out_by_dask(order["address"]) as fan_out:
    run_load(
        pipeline, resolve_settings(**order["settings"]), as_of=datetime.fromisoformat(order["as_of"]), fan_out=fan_out
    )
"""


def test_workers_stop_when_the_load_is_killed_and_the_next_takes_over_what_they_left(
    local: DaskFanOut, answering: Inventory, sandbox: Sandbox, tmp_path: Path
) -> None:
    names = ("customer_id", "provider_instance_id", "reseller_id")
    tables = [dict(zip(names, scope, strict=True)) for scope in SCOPES]
    with processes(tmp_path / "dask") as cluster:
        cluster.start_worker()
        order = {
            "address": cluster.address,
            "tenant_key": answering.tenant_key,
            "database": str(answering.database),
            "pipelines_dir": str(answering.database.parent / "work" / "pipelines"),
            "settings": answering.connection() | answering.settings | {"scopes": tables},
            "as_of": day(0).isoformat(),
        }
        child = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, env=cluster.environment)
        assert child.stdin is not None
        child.stdin.write(json.dumps(order).encode())
        child.stdin.close()
        wait_until(lambda: license_calls(sandbox) > 120, "the middle of the run")
        child.kill()
        child.wait()
        wait_until(lambda: any(tmp_path.glob("work/cockpit_inbox/*/*/*.parquet")), "what the worker had read")
    before = license_calls(sandbox)
    assert before < len(SCOPES)
    result = answering.load(SCOPES, day(0), fan_out=local)
    assert result.carried_on
    _check(answering, result)
    assert license_calls(sandbox) - before <= len(SCOPES) - 100


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("tcp://scheduler.example.com:8786", True),
        ("tcp://[2001:db8::1]:8786", True),
        ("ucx://10.0.0.5:8786", True),
        ("tls://scheduler.example.com:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://[::1]:8786", False),
    ],
)
def test_tokens_in_clear_text_are_told(address: str, is_open: bool) -> None:
    told = describe_open_network(["tcp://127.0.0.1:1", address])
    assert (told is not None) is is_open
    assert told is None or told.startswith(
        f"Access tokens cross the network in clear text: a part of the cluster is at {address}."
    )


def test_no_scheduler_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(ConfigurationError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9: "),
        fan_out_by_dask("tcp://127.0.0.1:9"),
    ):
        pass


def test_workers_that_do_not_fit_are_one_message(answering: Inventory, tmp_path: Path) -> None:
    """One that has another version of the package, one that sees another folder, and one that cannot write."""
    other = tmp_path / "other"
    shutil.copytree(
        Path(reader.__file__).parents[1], other / "cockpit_source", ignore=shutil.ignore_patterns("*.pyc")
    )
    version = other / "cockpit_source" / "version.py"
    version.write_text(version.read_text() + '\n__version__ = "9.9"\n')
    with processes(tmp_path / "dask") as cluster:
        mismatched = cluster.start_worker(PYTHONPATH=str(other))
        with (
            pytest.raises(ConfigurationError, match=r"worker tcp\S+ has cockpit-source 9\.9, format \d+, and this"),
            fan_out_by_dask(cluster.address),
        ):
            pass
        mismatched.kill()
        mismatched.wait()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        seeing_another = cluster.start_worker(cwd=elsewhere)
        with (
            fan_out_by_dask(cluster.address) as fan_out,
            pytest.raises(ConfigurationError, match=r"does not see what this process writes there\. Set spool_url"),
        ):
            answering.load(SCOPES, day(0), fan_out=fan_out, settings={"spool_url": "/proc/self/cwd/spool"})
        seeing_another.kill()
        seeing_another.wait()
        cluster.start_worker(prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
        with (
            fan_out_by_dask(cluster.address) as fan_out,
            pytest.raises(ConfigurationError, match=r"cannot leave what they read .* written: File too large"),
        ):
            answering.load(SCOPES, day(0), fan_out=fan_out)
    assert license_calls(answering.sandbox) == 0


def test_secrets_are_in_no_log_key_event_or_file(answering: Inventory, tmp_path: Path) -> None:
    """Of scheduler and workers that log everything; the dump is Dask's own of all that the cluster knows."""
    token = _sign_in(answering)
    folder = tmp_path / "dask"
    with processes(folder, DASK_LOGGING__DISTRIBUTED="debug") as cluster:
        cluster.start_worker()
        with fan_out_by_dask(cluster.address) as fan_out:
            assert fan_out is not None
            settings = {"client_id": None, "client_secret": None, "access_token": token}
            with meanwhile(lambda: _dump(fan_out, answering.sandbox, folder)):
                result = answering.load(SCOPES, day(0), fan_out=fan_out, settings=settings)
            _check(answering, result)
        said = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"cockpit_exchange" in said
    assert b"cockpit-2" in said
    for secret in (token, CSP_CLIENT.secret):
        assert secret.encode() not in said


def _dump(fan_out: DaskFanOut, sandbox: Sandbox, folder: Path) -> None:
    wait_until(lambda: license_calls(sandbox) > 100, "the middle of the run")
    fan_out._client.dump_cluster_state(str(folder / "dump"), format="yaml")


def _sign_in(inventory: Inventory) -> str:
    from cockpit_source.client import CockpitClient

    with CockpitClient(inventory.resolve(SCOPES)) as client:
        return client.sign_in().value


def test_interrupt_of_the_command_reaches_the_load_and_not_its_workers(sandbox: Sandbox, tmp_path: Path) -> None:
    """Ctrl+C on a terminal is sent to the whole group of processes."""
    write_project(tmp_path, sandbox.tenant, sandbox.base_url, list_day=0)
    command = [sys.executable, "-m", "cockpit_source.cli", "load", "--dask", "local", "--json"]
    environment = os.environ | {"SOURCES__COCKPIT__MAX_REQUESTS_PER_SECOND": "25"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path, start_new_session=True
    ) as child:
        wait_until(lambda: license_calls(sandbox) > 40, "the middle of the run")
        os.killpg(child.pid, signal.SIGINT)
        output, _ = child.communicate(timeout=60)
    said = json.loads(output)
    assert (child.returncode, said["status"], said["stop_reason"]) == (
        3,
        "interrupted",
        "SIGINT asked the load to end",
    )
    assert said["outcomes"]["ok"] > 20
    assert said["outcomes"]["skipped"] > 20


def test_load_without_dask_does_not_import_it() -> None:
    code = "import sys, cockpit_source.load, cockpit_source.tenant_commands, cockpit_source.fanout.opening; "
    code += "print([name for name in sys.modules if name.split('.')[0] in ('dask', 'distributed')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"
