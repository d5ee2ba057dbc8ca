"""What a scheduler runs: every exit code of real loads through the wrapper, and the files that are there to copy.

No systemd, cron or GitHub runs here: their files are parsed, checked by systemd-analyze where there is one, and what
they start is run as they say.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import psutil
import pytest
import yaml
from croniter import croniter
from support import INSTANCE, Model, ScopeIds, day, new_id, read_rows, sku

from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, Sandbox, running_sandbox

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import update_readme

SCHEDULES = ROOT / "pipelines" / "schedules"
WRAPPER = SCHEDULES / "cockpit_load.sh"
COCKPIT = Path(sys.executable).with_name("cockpit")
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]

A, B = (new_id(1), INSTANCE, None), (new_id(2), INSTANCE, None)
ROWS: dict[ScopeIds, list[dict[str, Any]]] = {A: [sku("e3", 25, 22)], B: [sku("e5", 5, 5)]}


@pytest.fixture(scope="module")
def api() -> Iterator[Sandbox]:
    """One sandbox for all tests here."""
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def project(tmp_path: Path, api: Sandbox) -> Path:
    """A project of two scopes that read well."""
    api.clear()
    api.faults.clear()
    for (customer, _, _), rows in ROWS.items():
        api.answer(customer, json.dumps(rows).encode())
    folder = tmp_path / "project"
    (folder / ".dlt").mkdir(parents=True)
    configure(folder, api)
    return folder


def configure(folder: Path, api: Sandbox, scopes: Mapping[ScopeIds, Any] = ROWS, **others: Any) -> None:
    lines = "".join(f"{customer},{instance},\n" for customer, instance, _ in scopes)
    (folder / "scopes.csv").write_text(f"customer_id,provider_instance_id,reseller_id\n{lines}")
    values = {
        "tenant": api.tenant.domain,
        "base_url": api.base_url,
        "token_url": api.token_url,
        "token_scope": TOKEN_SCOPE,
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "scopes_file": "scopes.csv",
        "max_attempts": 1,
        "lock_wait_seconds": 0,
        "max_drop_scopes": 0,
        "max_drop_percent": 0,
    } | others
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    database = '[destination.duckdb]\ncredentials = "w.duckdb"\n'
    (folder / ".dlt" / "secrets.toml").write_text(f"[sources.cockpit]\n{text}{database}")


@dataclass
class Told:
    """What a person was told, and how the wrapper ended."""

    exit_code: int
    warned: str
    called: str
    out: str
    err: str
    log: str


def environment(folder: Path, **others: str) -> dict[str, str]:
    """The wrapper's, with commands that write what they are told into files."""
    note = 'echo "$COCKPIT_SUBJECT ($COCKPIT_EXIT_CODE)" >> {0}; cat >> {0}'
    ours = {
        "COCKPIT": str(COCKPIT),
        "COCKPIT_WARN": note.format(shlex.quote(str(folder / "warned"))),
        "COCKPIT_CALL": note.format(shlex.quote(str(folder / "called"))),
        "COCKPIT_LOG": str(folder / "load.log"),
        "COCKPIT_BUSY_SECONDS": "0",
        "COCKPIT_BUSY_TRIES": "2",
    }
    return os.environ | ours | others


def run(project: Path, *arguments: object, shell: str = "sh", **others: str) -> Told:
    command = [shell, str(WRAPPER), "--project", str(project), *map(str, arguments)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment(project, **others), check=False
    )
    return told(project, ended.returncode, ended.stdout, ended.stderr)


def told(project: Path, exit_code: int, out: str, err: str) -> Told:
    """Reads, and clears, what was written."""
    texts = []
    for name in ("warned", "called", "load.log"):
        path = project / name
        texts.append(path.read_text(encoding="utf-8") if path.exists() else "")
        path.unlink(missing_ok=True)
    ended = Told(exit_code, *texts[:2], out, err, texts[2])
    assert CSP_CLIENT.secret not in repr(ended)
    return ended


def test_load_that_reads_everything_is_silent(project: Path, api: Sandbox) -> None:
    ended = run(project, "--as-of", day(0).strftime("%Y-%m-%dT%H:%M:%S"))
    assert (ended.exit_code, ended.warned, ended.called, ended.out, ended.err) == (0, "", "", "", "")
    assert re.match(r"begun \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\ncomplete: 2 of 2 scopes read", ended.log)
    assert re.search(r"\nended \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(exit code 0\)\n$", ended.log)
    (loaded,) = read_rows(project / "w.duckdb", "runs", per_run=True)
    model = Model(api.tenant.domain)
    model.run(loaded["run_id"], day(0), {scope: ("ok", rows) for scope, rows in ROWS.items()})
    model.check(project / "w.duckdb")


def test_some_not_read_warns_and_says_which(project: Path, api: Sandbox) -> None:
    api.answer(B[0], b"", status=403)
    ended = run(project)
    assert (ended.exit_code, ended.called, ended.err) == (3, "", "")
    assert ended.warned.startswith("cockpit load warns: some scopes were not read (exit code 3) (3)\n")
    assert f"customer {B[0]}" in ended.warned


def test_drop_guard_calls_and_its_message_leads_to_a_good_load(project: Path, api: Sandbox) -> None:
    """As under systemd: the service that failed calls, and the command of the message is run word for word."""
    message_file = project / "last_message"
    under_systemd = {"COCKPIT_CALL": "", "COCKPIT_MESSAGE_FILE": str(message_file)}
    assert run(project).exit_code == 0
    before = read_rows(project / "w.duckdb", "licenses")
    api.answer(B[0], b"[]")
    ended = run(project, **under_systemd)
    assert (ended.exit_code, ended.warned, ended.called) == (4, "", "")
    assert ended.err == message_file.read_text()
    assert read_rows(project / "w.duckdb", "licenses") == before
    failed = run_failed(project, COCKPIT_MESSAGE_FILE=str(message_file), MONITOR_EXIT_STATUS="4")
    assert failed.exit_code == 0
    assert failed.called.startswith("cockpit load needs you: the drop guard held something back (exit code 4) (4)\n")
    (command,) = set(re.findall(r"`cockpit load (--accept-drop \d+)`", failed.called))
    accepted = run(project, *command.split(), **under_systemd)
    assert (accepted.exit_code, accepted.called, accepted.warned, accepted.err) == (0, "", "", "")
    assert [row["sku_id"] for row in read_rows(project / "w.duckdb", "licenses")] == ["e3"]
    # so that no later call tells an old story
    assert not message_file.exists()


CALLS = {
    "sign-in": ({"client_secret": "wrong"}, 5, "the sign-in was refused", "Sign-in was refused (HTTP 401"),
    "setting": ({"max_attempts": 99}, 2, "configuration or destination is wrong", "max_attempts"),
    "nobody answers": ({"base_url": "http://127.0.0.1:9"}, 1, "nothing could be read", "connection_error"),
}


@pytest.mark.parametrize(("settings", "code", "subject", "reason"), CALLS.values(), ids=CALLS.keys())
def test_what_no_next_load_can_mend_calls(
    project: Path, api: Sandbox, settings: dict[str, Any], code: int, subject: str, reason: str
) -> None:
    configure(project, api, **settings)
    ended = run(project)
    assert (ended.exit_code, ended.warned, ended.err) == (code, "", "")
    assert ended.called.startswith(f"cockpit load needs you: {subject} (exit code {code}) ({code})\n")
    assert reason in ended.called


def test_database_in_use_is_tried_again_and_is_no_alarm(project: Path) -> None:
    with duckdb.connect(str(project / "w.duckdb")):
        ended = run(project)
    assert (ended.exit_code, ended.called, ended.err) == (6, "", "")
    assert ended.warned.startswith("cockpit load warns: the database stayed in use (exit code 6) (6)\n")
    assert f"is in use by process {os.getpid()}" in ended.warned
    assert ended.log.count("Tried again in 0 s, for the last time.") == 1
    assert ended.log.count("(exit code 6)") == 1


def test_database_that_is_free_at_the_second_try_is_loaded_in_silence(project: Path) -> None:
    with duckdb.connect(str(project / "w.duckdb")):
        told_file = project / "told"
        wrapper = start(project, COCKPIT_BUSY_SECONDS="1", COCKPIT=tee(project, told_file))
        wait_until(lambda: told_file.exists() and "Tried again in 1 s" in told_file.read_text())
    out, err = wrapper.communicate(timeout=120)
    ended = told(project, wrapper.returncode, out, err)
    assert (ended.exit_code, ended.called, ended.warned, ended.out, ended.err) == (0, "", "", "", "")
    assert [int(code) for code in re.findall(r"exit code (\d)", ended.log)] == [0]


def tee(project: Path, copy: Path) -> str:
    """The path of a `cockpit` whose output can be read in `copy` while it runs."""
    command = project / "cockpit"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(str(COCKPIT))} "$@" 2>{shlex.quote(str(copy))}\n')
    command.chmod(0o755)
    return str(command)


def test_stopped_while_it_waits_for_another_it_warns_at_once(project: Path) -> None:
    told_file = project / "told"
    with duckdb.connect(str(project / "w.duckdb")):
        wrapper = start(project, COCKPIT_BUSY_SECONDS="600", COCKPIT=tee(project, told_file))
        wait_until(lambda: told_file.exists() and "Tried again in 600 s" in told_file.read_text())
        wrapper.send_signal(signal.SIGTERM)
        out, err = wrapper.communicate(timeout=60)
    ended = told(project, wrapper.returncode, out, err)
    assert (ended.exit_code, ended.called, ended.err) == (6, "", "")
    assert ended.warned.startswith("cockpit load warns: the database stayed in use (exit code 6) (6)\n")


def start(project: Path, shell: str = "sh", **others: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [shell, str(WRAPPER), "--project", str(project)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(project, **others),
    )


def wait_until(holds: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_at, "it did not happen within a minute"
        time.sleep(0.02)


@pytest.fixture
def slow(project: Path, api: Sandbox) -> Path:
    """The project with so many scopes that a signal meets the load in the middle."""
    scopes: dict[ScopeIds, Any] = {(new_id(10 + n), INSTANCE, None): [] for n in range(200)}
    for n, (customer, _, _) in enumerate(scopes):
        api.answer(customer, json.dumps([sku("e3", n + 1, 0)]).encode())
    api.faults.configure(latency_ms=50)
    api.clear_requests()
    configure(project, api, scopes, max_concurrency=2)
    return project


@pytest.mark.parametrize("shell", SHELLS)
def test_signal_is_passed_on_and_the_load_keeps_what_it_read(slow: Path, api: Sandbox, shell: str) -> None:
    wrapper = start(slow, shell)
    wait_until(lambda: len(api.requests) > 10)
    wrapper.send_signal(signal.SIGTERM)
    out, err = wrapper.communicate(timeout=120)
    ended = told(slow, wrapper.returncode, out, err)
    assert (ended.exit_code, ended.called, ended.err) == (3, "", "")
    assert "The run ended early" in ended.warned
    (row,) = read_rows(slow / "w.duckdb", "runs")
    assert row["status"] == "interrupted"
    assert 0 < len(read_rows(slow / "w.duckdb", "licenses")) == row["scopes_ok"] < 200


def test_load_that_is_told_to_stop_before_it_begins_calls_nobody(project: Path, api: Sandbox) -> None:
    api.faults.for_sign_in("hang")
    api.clear_requests()
    wrapper = start(project)
    wait_until(lambda: api.requests)
    wrapper.send_signal(signal.SIGTERM)
    out, err = wrapper.communicate(timeout=120)
    ended = told(project, wrapper.returncode, out, err)
    assert (ended.exit_code, ended.called, ended.err) == (1, "", "")
    assert ended.warned.startswith("cockpit load warns: it was told to stop before it had read anything")


def test_killed_load_calls_and_the_next_carries_on(slow: Path, api: Sandbox) -> None:
    wrapper = start(slow)
    wait_until(lambda: len(api.requests) > 40)
    (load,) = psutil.Process(wrapper.pid).children()
    load.kill()
    out, err = wrapper.communicate(timeout=120)
    ended = told(slow, wrapper.returncode, out, err)
    assert (ended.exit_code, ended.warned) == (137, "")
    assert ended.called.startswith("cockpit load needs you: it ended in the middle (exit code 137) (137)\n")
    api.faults.clear()
    assert run(slow).exit_code == 0
    assert len(read_rows(slow / "w.duckdb", "licenses")) == 200


def test_without_commands_to_tell_with_stderr_has_it(project: Path, tmp_path: Path) -> None:
    """Which cron mails; so also where the command fails, or `cockpit` is not there."""
    missing = str(tmp_path / "no" / "cockpit")
    ended = run(project, COCKPIT=missing, COCKPIT_CALL="")
    assert (ended.exit_code, ended.called) == (127, "")
    assert ended.err.startswith(f"cockpit load needs you: {missing} cannot be run (exit code 127)\nSet COCKPIT to")
    failing = run(project, COCKPIT=missing, COCKPIT_CALL="exit 7")
    assert failing.exit_code == 127
    assert "The command that should have told this ended with exit code 7: exit 7\n" in failing.err
    assert failing.err.endswith(ended.err)


def test_number_that_is_none_is_refused(project: Path) -> None:
    ended = run(project, COCKPIT_BUSY_TRIES="often")
    assert (ended.exit_code, ended.err) == (2, "")
    assert "'--busy-tries'" in ended.called
    assert "integer" in ended.called


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("script", sorted(SCHEDULES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_plain_sh(script: Path, shell: str) -> None:
    assert subprocess.run([shell, "-n", str(script)], capture_output=True, check=False).stderr == b""
    assert os.access(script, os.X_OK)


def read_cron() -> tuple[dict[str, str], list[list[str]]]:
    """Settings and jobs of a file for /etc/cron.d, as cron reads it."""
    settings, jobs = {}, []
    for line in (SCHEDULES / "cockpit.cron").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if found := re.match(r"(\w+)=(.*)", line):
            settings[found[1]] = found[2]
        else:
            jobs.append(line.split(None, 6))
    return settings, jobs


def test_cron_file_is_one_and_its_jobs_are_what_they_say() -> None:
    text = (SCHEDULES / "cockpit.cron").read_text(encoding="utf-8")
    assert text.endswith("\n"), "cron leaves out a last line without an end"
    settings, jobs = read_cron()
    assert len(jobs) == 2
    for *fields, user, command in jobs:
        assert croniter.is_valid(" ".join(fields)), fields
        assert user == "cockpit"
        # cron ends a command at it
        assert "%" not in command
    assert jobs[0][-1].split()[0] == "/opt/cockpit/bin/cockpit_load.sh"
    known = set(re.findall(r"^#   (COCKPIT\w*)", WRAPPER.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for name in settings if name.startswith("COCKPIT")} <= known


def test_jobs_of_the_cron_file_run_as_they_stand(project: Path, tmp_path: Path, api: Sandbox) -> None:
    """By SHELL -c, with its settings, and the reader's paths in the place of the example's."""
    settings, jobs = read_cron()
    places = {
        "/opt/cockpit/bin/cockpit_load.sh": str(WRAPPER),
        "/opt/cockpit/bin/cockpit ": f"{COCKPIT} ",
        "/etc/cockpit": str(project),
    }
    api.answer(B[0], b"", status=403)
    ours = environment(project)
    codes, errors = [], []
    for *_, command in jobs:
        for written, meant in places.items():
            command = command.replace(written, meant)
        job = subprocess.run(
            [settings["SHELL"], "-c", command],
            env=settings | {n: v for n, v in ours.items() if n.startswith(("COCKPIT", "DLT_", "HOME", "PYTHON"))},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        codes.append(job.returncode)
        errors.append(job.stdout + job.stderr)
    assert codes == [3, 0]
    assert errors[0] == ""
    # what cron mails
    assert "1 of them have no good read in the last 26 h" in errors[1]


UNITS = sorted([*SCHEDULES.glob("*.service"), *SCHEDULES.glob("*.timer")])


def read_unit(name: str) -> list[tuple[str, str]]:
    lines = (SCHEDULES / name).read_text(encoding="utf-8").splitlines()
    return [(key, value) for key, _, value in (line.partition("=") for line in lines if line[:1].isalpha()) if value]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze on this machine")
def test_units_are_what_systemd_understands(tmp_path: Path) -> None:
    """Only the paths of the programs are other ones: systemd-analyze wants them to be there."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/cockpit/bin/", f"{SCHEDULES}/")
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in UNITS]
    checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    ((_, calendar),) = [pair for pair in read_unit("cockpit-load.timer") if pair[0] == "OnCalendar"]
    assert subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, check=False).returncode == 0


def test_units_fit_each_other_and_the_exit_codes() -> None:
    service, failed = dict(read_unit("cockpit-load.service")), dict(read_unit("cockpit-load-failed.service"))
    assert (SCHEDULES / service["OnFailure"]).exists()
    assert service["SuccessExitStatus"] == "3 6"
    # called once: by the service that failed
    assert service["UnsetEnvironment"] == "COCKPIT_CALL"
    message_file = "COCKPIT_MESSAGE_FILE=/var/lib/cockpit/last_message"
    assert ("Environment", message_file) in read_unit("cockpit-load.service")
    assert failed["Environment"] == message_file
    assert service["EnvironmentFile"].removeprefix("-") == failed["EnvironmentFile"] == "/etc/cockpit/schedule.env"
    lines = (SCHEDULES / "schedule.env").read_text(encoding="utf-8").splitlines()
    names = [line.partition("=")[0] for line in lines if not line.startswith("#")]
    assert names == ["COCKPIT_WARN", "COCKPIT_CALL"]
    programs = [Path(unit["ExecStart"].split()[0]).name for unit in (service, failed)]
    assert programs == ["cockpit_load.sh", "cockpit_failed.sh"]


def test_failed_service_without_a_message_says_what_it_knows(project: Path) -> None:
    killed = run_failed(project, COCKPIT_MESSAGE_FILE=str(project / "none"), MONITOR_SERVICE_RESULT="oom-kill")
    assert killed.exit_code == 0
    assert killed.called.startswith("cockpit load needs you: the service failed on ")
    assert "It ended before it could say why (oom-kill)" in killed.called


def test_failed_service_without_anything_to_call_with_fails_itself(project: Path) -> None:
    ended = run_failed(project, COCKPIT_CALL="")
    assert (ended.exit_code, ended.called) == (1, "")
    assert ended.err.startswith("COCKPIT_CALL is not set, so nobody was called: ")


def run_failed(project: Path, **others: str) -> Told:
    command = ["sh", str(SCHEDULES / "cockpit_failed.sh")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(project, **others), check=False)
    return told(project, ended.returncode, ended.stdout, ended.stderr)


WORKFLOW = SCHEDULES / "github-actions.yml"


def test_workflow_is_one() -> None:
    """What GitHub would refuse, and what would be unsafe there."""
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    # YAML 1.1 takes the key `on` for true
    triggers = workflow.pop(True)
    assert set(workflow) == {"name", "permissions", "concurrency", "jobs"}
    assert set(triggers) == {"schedule", "workflow_dispatch"}
    assert all(croniter.is_valid(entry["cron"]) for entry in triggers["schedule"])
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"] == {"group": "licences", "cancel-in-progress": False}
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    assert 0 < job["timeout-minutes"] < 360
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step), step
        assert set(step) <= {"uses", "with", "name", "env", "run"}
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0"))
        # what comes from outside gets into a shell by its environment alone
        assert "${{" not in step.get("run", "")
        assert subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, check=False).returncode == 0
        for expression in re.findall(r"\$\{\{(.*?)\}\}", json.dumps(step)):
            names = re.findall(r"\b(secrets\.[A-Z_]+|inputs\.[a-z_]+)", expression)
            assert names, expression
            used = {name.removeprefix("inputs.") for name in names if name.startswith("inputs.")}
            assert used <= set(triggers["workflow_dispatch"]["inputs"])


@pytest.mark.parametrize(("status", "ends_with", "tells"), [(403, 0, "::warning"), (401, 5, "::error")])
def test_load_step_of_the_workflow_runs_as_it_stands(
    project: Path, api: Sandbox, postgres_url: str, status: int, ends_with: int, tells: str
) -> None:
    """By GitHub's bash -e, with its environment, into a real PostgreSQL."""
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    (step,) = [step for step in job["steps"] if step.get("name") == "Load"]
    values = {
        "${{ secrets.COCKPIT_CLIENT_ID }}": CSP_CLIENT.id,
        "${{ secrets.COCKPIT_CLIENT_SECRET }}": "wrong" if status == 401 else CSP_CLIENT.secret,
        "${{ secrets.WAREHOUSE_URL }}": postgres_url,
        "${{ inputs.accept_drop || '0' }}": "0",
        "${{ inputs.retry_failed && '--retry-failed' || '' }}": "",
    }
    if status == 403:
        api.answer(B[0], b"", status=403)
    summary = project / "summary.md"
    # the folder of the clone is that of the project there
    script = project / "pipelines" / "schedules" / WRAPPER.name
    script.parent.mkdir(parents=True)
    shutil.copy(WRAPPER, script)
    ours = {name: values.get(value, value) for name, value in step["env"].items()}
    ours |= {"GITHUB_STEP_SUMMARY": str(summary), "PATH": f"{COCKPIT.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=project,
        env=os.environ | ours,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (ends_with, "")
    assert re.findall(r"^::\w+", done.stdout, re.MULTILINE) == [tells]
    assert ("Sign-in was refused" if status == 401 else f"customer {B[0]}") in summary.read_text(encoding="utf-8")


class AirflowFailException(Exception):
    """Stands in for that of Airflow."""


def test_task_for_airflow_loads_and_fails_as_it_says(
    project: Path, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow is not there: its decorators are replaced by ones that leave the function as it is."""
    called = []
    sdk, exceptions = ModuleType("airflow.sdk"), ModuleType("airflow.exceptions")
    sdk.__dict__.update(task=lambda **_: lambda function: function, dag=lambda **_: called.append)
    exceptions.__dict__["AirflowFailException"] = AirflowFailException
    for name, module in {
        "airflow": ModuleType("airflow"),
        "airflow.sdk": sdk,
        "airflow.exceptions": exceptions,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    code = update_readme.read_code("airflow", ROOT / "docs" / "schedules.md")
    names: dict[str, Any] = {}
    exec(code.replace("\n\nlicences()\n", "\n"), names)
    assert [function.__name__ for function in called] == ["licences"]
    api.answer(B[0], b"", status=403)
    returned = names["load_licences"](str(project))
    assert (returned["read"], returned["of"], returned["exit_code"]) == (1, 2, 3)
    assert len(read_rows(project / "w.duckdb", "licenses")) == 1
    configure(project, api, client_secret="wrong")
    with pytest.raises(AirflowFailException, match="Sign-in was refused"):
        names["load_licences"](str(project))
