"""The command line as its user sees it: what it prints where, its exit codes, and that a failure costs nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import INSTANCE, Model, ScopeIds, day, every_table, new_id, read_rows, sku
from typer.testing import CliRunner

from cockpit_source.cli import app, main
from cockpit_source.load import LoadProgress
from cockpit_source.load_result import LoadResult, UnreadScope
from cockpit_source.progress import ProgressDisplay
from cockpit_source.report import print_result
from cockpit_source.run_record import RunRecord
from cockpit_source.sandbox import CSP_CLIENT, FAULT_KINDS, TOKEN_SCOPE, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.sandbox_command import write_project
from cockpit_source.settings import build_settings

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
HEADER = "customer_id,provider_instance_id,reseller_id\n"
LINES = "".join(f"{customer},{instance},\n" for customer, instance, _ in (A, B))
FIRST_ROWS = {A: [sku("e3", 25, 22), sku("e5", 5, 5)], B: [sku("e3", 7, 1)]}
LATER_ROWS = {A: [sku("e3", 30, 22)], B: [sku("e3", 7, 1), sku("p1", 2, 2)]}
COMMANDS = (
    *(
        "check",
        "scopes",
        "load",
        "status",
        "marts",
        "report",
        "export",
        "prune",
        "maintain",
        "move",
        "dashboard",
        "sandbox",
        "demo",
    ),
)
WRONG_SECRET = "hunter-two"


@dataclass
class Ran:
    """What a command came to."""

    exit_code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        for text in (self.out, self.err):
            assert "Traceback" not in text, text
            assert CSP_CLIENT.secret not in text
            assert WRONG_SECRET not in text

    @property
    def error(self) -> str:
        """The one message of a command that was refused; nothing on stdout."""
        assert self.out == ""
        assert [line for line in self.err.splitlines() if line.startswith("Error")] == self.err.splitlines()[:1]
        return self.err.removeprefix("Error: ")


Command = Callable[..., Ran]


@pytest.fixture
def cockpit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["cockpit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, without_progress(captured.err))

    return run


def run_process(*arguments: object, **environment: str) -> Ran:
    """Runs a command in a process of its own."""
    command = [sys.executable, "-m", "cockpit_source.cli", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)
    return Ran(ended.returncode, ended.stdout, without_progress(ended.stderr))


def without_progress(err: str) -> str:
    """stderr without the line every few seconds, which a busy machine prints even in a short load."""
    progress = re.compile(r"\d+ of \d+ scopes, |preparing\n")
    return "".join(line for line in err.splitlines(keepends=True) if not progress.match(line))


@pytest.fixture(scope="module")
def api() -> Iterator[Sandbox]:
    """One sandbox for all tests here."""
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def project(tmp_path: Path, api: Sandbox) -> Path:
    """A project of two scopes, complete but for its database."""
    api.clear()
    api.clear_requests()
    answer(api, FIRST_ROWS)
    folder = tmp_path / "project"
    (folder / ".dlt").mkdir(parents=True)
    (folder / "scopes.csv").write_text(HEADER + LINES)
    configure(folder, api)
    return folder


def configure(folder: Path, api: Sandbox, added: str = "", **others: str) -> None:
    values = {
        "tenant": api.tenant.domain,
        "base_url": api.base_url,
        "token_url": api.token_url,
        "token_scope": TOKEN_SCOPE,
        "client_id": CSP_CLIENT.id,
        "scopes_file": "scopes.csv",
    } | others
    lines = "".join(f'{name} = "{value}"\n' for name, value in values.items())
    (folder / ".dlt" / "config.toml").write_text(
        f"[sources.cockpit]\nmax_attempts = 1\ntimeout_seconds = 5\nmax_concurrency = 4\n{lines}{added}"
        '[destination.duckdb]\ncredentials = "w.duckdb"\n'
    )
    (folder / ".dlt" / "secrets.toml").write_text(f'[sources.cockpit]\nclient_secret = "{CSP_CLIENT.secret}"\n')


def answer(api: Sandbox, rows: dict[ScopeIds, list[dict[str, Any]]]) -> None:
    for scope, skus in rows.items():
        api.answer(scope[0], json.dumps(skus).encode())


@pytest.fixture(scope="module")
def loaded_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a loaded database keeps it for the others."""
    return tmp_path_factory.mktemp("loaded") / "w.duckdb"


@pytest.fixture
def loaded(project: Path, api: Sandbox, cockpit: Command, loaded_database: Path) -> Path:
    """The project with `FIRST_ROWS` loaded on day 0, and the API at `LATER_ROWS` since."""
    if not loaded_database.exists():
        assert load(cockpit, project, 0).exit_code == 0
        shutil.copy(project / "w.duckdb", loaded_database)
    shutil.copy(loaded_database, project / "w.duckdb")
    answer(api, LATER_ROWS)
    return project


def load(cockpit: Command, project: Path, on_day: int, *arguments: object) -> Ran:
    moment = day(on_day).strftime("%Y-%m-%dT%H:%M:%S")
    return cockpit("load", "--project", project, "--as-of", moment, *arguments)


@contextmanager
def nothing_lost(cockpit: Command, project: Path, api: Sandbox) -> Iterator[None]:
    """The tables are as before after what happens inside, and after a good load exactly as the API answers."""
    database = project / "w.duckdb"
    before = every_table(database)
    yield
    assert every_table(database) == before
    configure(project, api)
    (project / "scopes.csv").write_text(HEADER + LINES)
    api.clear()
    answer(api, LATER_ROWS)
    good = load(cockpit, project, 3)
    assert (good.exit_code, good.err) == (0, "")
    # by their days: ids of runs that began in the same second sort in any order
    runs = {row["started_at"]: row["run_id"] for row in read_rows(database, "runs", per_run=True)}
    model = Model(api.tenant.domain)
    model.run(runs[day(0)], day(0), {scope: ("ok", rows) for scope, rows in FIRST_ROWS.items()})
    model.run(runs[day(3)], day(3), {scope: ("ok", rows) for scope, rows in LATER_ROWS.items()})
    model.check(database)


@pytest.fixture
def closed_address() -> Iterator[str]:
    """An address of this machine at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_load_prints_the_result_to_stdout_and_nothing_else(project: Path) -> None:
    ran = run_process("load", "--project", project)
    assert (ran.exit_code, ran.err) == (0, "")
    first, *others = ran.out.splitlines()
    assert re.fullmatch(
        r"complete: 2 of 2 scopes read, 3 licence rows, 2 calls, \d+\.\d s \(run \d{8}T\d{6}Z-[0-9a-f]{8}\)", first
    )
    assert [line.split() for line in others] == [
        ["outcome", "scopes"],
        ["ok", "2"],
        ["Tables:", "dataset", "cockpit", "in", f"duckdb:///{project / 'w.duckdb'}"],
    ]


def test_destination_and_dataset_come_from_the_environment(project: Path) -> None:
    ran = run_process("status", "--project", project, COCKPIT_DESTINATION="nosuch")
    assert ran.exit_code == 2
    assert "nosuch" in ran.err
    ran = run_process("status", "--project", project, "--json", COCKPIT_DATASET="other")
    assert (ran.exit_code, json.loads(ran.out)["dataset"]) == (0, "other")


def test_load_as_json_is_complete(project: Path, api: Sandbox, cockpit: Command) -> None:
    api.answer(B[0], b"", status=403)
    ran = load(cockpit, project, 0, "--json")
    result = json.loads(ran.out)
    assert set(result) == {*LoadResult.__dataclass_fields__, "guard", "waiting", "exit_code"}
    assert (result["status"], result["exit_code"], ran.exit_code) == ("partial", 3, 3)
    assert (result["outcomes"], result["license_rows"], result["scopes_total"]) == ({"ok": 1, "forbidden": 1}, 2, 2)
    (unread,) = result["unread_scopes"]
    assert set(unread) == set(UnreadScope.__dataclass_fields__)
    assert (unread["customer_id"], unread["http_status"], unread["outcome"]) == (B[0], 403, "forbidden")
    assert ran.err == ""


def test_some_not_read_names_them_and_why(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    api.answer(B[0], b"", status=403)
    ran = load(cockpit, loaded, 1)
    assert ran.exit_code == 3
    assert "partial: 1 of 2 scopes read, 1 licence rows" in ran.out
    reason, scope = ran.out.splitlines()[4:6]
    assert reason == "forbidden, http_403: these credentials may not read this"
    assert scope == f"  customer {B[0]}, provider instance {INSTANCE}"
    assert "A scope that was not read keeps the rows of its last good read, if it had one." in ran.out
    licences = {(row["customer_id"], row["sku_id"]) for row in read_rows(loaded / "w.duckdb", "licenses")}
    assert licences == {(A[0], "e3"), (B[0], "e3")}


def test_nothing_read_fails_and_costs_nothing(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    with nothing_lost(cockpit, loaded, api):
        for scope in (A, B):
            api.answer(scope[0], b'{"type": "Down", "description": "maintenance"}', status=500)
        ran = load(cockpit, loaded, 1)
        assert ran.exit_code == 1
        assert "failed: 0 of 2 scopes read" in ran.out
        # one reason for both
        assert ran.out.count("failed, Down: maintenance") == 1
        assert ran.out.count("  customer ") == 2


def test_wrong_secret_stops_at_once_and_costs_nothing(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    """The two licence calls are those of the good load afterwards."""
    api.clear_requests()
    with nothing_lost(cockpit, loaded, api):
        ran = run_process("load", "--project", loaded, SOURCES__COCKPIT__CLIENT_SECRET=WRONG_SECRET)
        assert ran.exit_code == 5
        assert "Sign-in was refused (HTTP 401 from" in ran.out
        assert "Invalid client secret provided" in ran.out
        assert "Check client_id and client_secret" in ran.out
        assert "skipped" in ran.out
        assert ran.err == ""
    licence_calls = [request for request in api.requests if "licenses" in request.path]
    assert len(licence_calls) == 2


def test_load_that_cannot_begin_prints_json_too(loaded: Path, tmp_path: Path) -> None:
    (tmp_path / "part.csv").write_text(f"{HEADER}x,y,\n")
    ran = run_process("load", "--project", loaded, "--json", "--scopes-file", tmp_path / "part.csv")
    body = json.loads(ran.out)
    assert (ran.exit_code, body["exit_code"], body["status"], body["run_id"]) == (2, 2, "failed", None)
    assert "has 1 wrong line; nothing was loaded" in body["error"]
    assert body["error"] in ran.err.removeprefix("Error: ")


def test_unreachable_api_names_its_host_and_costs_nothing(
    loaded: Path, api: Sandbox, cockpit: Command, closed_address: str
) -> None:
    with nothing_lost(cockpit, loaded, api):
        configure(loaded, api, base_url=f"http://{closed_address}")
        ran = load(cockpit, loaded, 1)
        assert ran.exit_code == 1
        assert "failed: 0 of 2 scopes read" in ran.out
        assert "connection_error" in ran.out
        assert closed_address.replace(":", "', port=") in ran.out or closed_address in ran.out


def test_unreachable_sign_in_names_its_host_and_costs_nothing(
    loaded: Path, api: Sandbox, cockpit: Command, closed_address: str
) -> None:
    with nothing_lost(cockpit, loaded, api):
        configure(loaded, api, token_url=f"http://{closed_address}/token")
        ran = load(cockpit, loaded, 1)
        assert ran.exit_code == 1
        assert f"Sign-in was not possible: http://{closed_address}/token gave no answer" in ran.out
        assert "Check the network, a proxy, and token_url; then run again." in ran.out


def test_wrong_scope_lines_are_all_named_and_cost_nothing(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    with nothing_lost(cockpit, loaded, api):
        (loaded / "scopes.csv").write_text(f"{HEADER}{LINES}x,y\n\n,{INSTANCE}\n{A[0]},{INSTANCE},nobody\n")
        ran = load(cockpit, loaded, 1)
        assert ran.exit_code == 2
        assert ran.error.splitlines() == [
            f"The scopes file {loaded / 'scopes.csv'} has 3 wrong lines; nothing was loaded:",
            "  - line 4: customer_id is not a UUID",
            "  - line 6: customer_id is missing",
            "  - line 7: reseller_id is not a UUID",
            "Each line needs customer_id and provider_instance_id as UUIDs, and reseller_id as a UUID or left empty.",
        ]
        assert cockpit("scopes", "--project", loaded).error == ran.error


def test_wrong_settings_are_all_named_and_cost_nothing(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    with nothing_lost(cockpit, loaded, api):
        configure(loaded, api, 'max_attemps = 3\nscopes_query = "SELECT 1"\n', tenant="https://x", token_url="login")
        ran = load(cockpit, loaded, 1)
        assert ran.exit_code == 2
        names = re.findall(r"^  - (\w+)", ran.error, re.MULTILINE)
        assert names == ["max_attemps", "tenant", "token_url", "the"]
        assert "`cockpit check` shows which files were read." in ran.error


@pytest.mark.parametrize("command", ["marts", "status", "load", "check"])
def test_folder_without_configuration_leads_to_project(
    command: str, tmp_path: Path, cockpit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = (
        f"There is no configuration file in {tmp_path / '.dlt'}. Where it is elsewhere, name the folder that holds "
        ".dlt: --project DIR."
    )
    monkeypatch.chdir(tmp_path)
    ran = cockpit(command, "--database", "nope.duckdb")
    assert (ran.exit_code, "tenant" in ran.out + ran.err) == (2, True)
    assert (ran.out + ran.err).splitlines()[-1] == hint
    assert list(tmp_path.iterdir()) == []
    # with a configuration that lacks the tenant, the folder is right
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text("[sources.cockpit]\n")
    ran = cockpit(command, "--database", "nope.duckdb")
    assert (ran.exit_code, "--project" in ran.out + ran.err) == (2, False)


@contextmanager
def read_only(file: Path) -> Iterator[None]:
    """The file cannot be written meanwhile, not even by root where this runs as root."""
    if os.geteuid() != 0:
        file.chmod(0o444)
        yield
        file.chmod(0o644)
        return
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", file], capture_output=True).returncode:
        pytest.skip("root can write everywhere, and this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", file], check=True)


def test_read_only_database_is_told_and_costs_nothing(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    with nothing_lost(cockpit, loaded, api):
        with read_only(loaded / "w.duckdb"):
            ran = load(cockpit, loaded, 1)
        assert ran.exit_code == 2
        assert re.search(
            rf"The destination duckdb:///{loaded / 'w.duckdb'} cannot be used: IO Error: Cannot open file "
            r".*: (Operation not permitted|Permission denied)\. Check the path, the credentials and the permissions ",
            ran.error,
        )


def test_file_that_is_no_database_is_told_and_left_as_it_is(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    with nothing_lost(cockpit, loaded, api):
        (loaded / "notes.txt").write_text("these are notes\n" * 1_000)
        ran = load(cockpit, loaded, 1, "--database", loaded / "notes.txt")
        assert ran.exit_code == 2
        assert "exists, but it is not a valid DuckDB database file" in ran.error
        assert "the permissions (--database, or destination.duckdb.credentials), then" in ran.error
        assert (loaded / "notes.txt").read_text() == "these are notes\n" * 1_000


def test_database_in_a_missing_folder_is_told(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    with nothing_lost(cockpit, loaded, api):
        ran = load(cockpit, loaded, 1, "--database", loaded / "missing" / "w.duckdb")
        assert ran.exit_code == 2
        assert "No such file or directory" in ran.error
        assert not (loaded / "missing").exists()
    assert cockpit("load", "--project", loaded, "--database", loaded).exit_code == 2


@pytest.mark.parametrize("writes", [True, False], ids=["writer", "reader"])
def test_database_in_use_names_the_process_and_costs_nothing(
    loaded: Path, api: Sandbox, cockpit: Command, writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__COCKPIT__LOCK_WAIT_SECONDS", "0")
    program = (
        f"import duckdb, sys; held = duckdb.connect({str(loaded / 'w.duckdb')!r}, read_only={not writes}); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with nothing_lost(cockpit, loaded, api):
        holder = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        ran = load(cockpit, loaded, 1)
        holder.communicate()
        assert ran.exit_code == 6
        assert f"is in use by process {holder.pid} (" in ran.error
        assert (
            "close the other program, or let it open the read copy (NAME.read.duckdb) instead, then run" in ran.error
        )


def test_scopes_file_argument_loads_a_part_and_delists_nothing(loaded: Path, api: Sandbox, cockpit: Command) -> None:
    (loaded.parent / "part.csv").write_text(f"{HEADER}{A[0]},{INSTANCE},\n")
    ran = load(cockpit, loaded, 1, "--scopes-file", "part.csv")
    assert ran.exit_code == 0
    assert "complete: 1 of 1 scopes read, 1 licence rows" in ran.out
    assert "no longer listed" not in ran.out
    assert {row["delisted_at"] for row in read_rows(loaded / "w.duckdb", "scopes")} == {None}


def test_scopes_are_printed_as_text_and_as_json(project: Path, cockpit: Command) -> None:
    (project / "scopes.csv").write_text(HEADER + LINES.upper() + LINES + f"{A[0]},{INSTANCE},{new_id(5)}\n")
    text = cockpit("scopes", "--project", project)
    assert (text.exit_code, text.err) == (0, "")
    assert text.out.splitlines() == [
        f"customer {A[0]}, provider instance {INSTANCE}",
        f"customer {B[0]}, provider instance {INSTANCE}",
        f"customer {A[0]}, provider instance {INSTANCE}, reseller {new_id(5)}",
        "3 scopes; 2 duplicate lines merged",
    ]
    as_json = cockpit("scopes", "--project", project, "--json")
    assert [json.loads(line) for line in as_json.out.splitlines()] == [
        {
            "scope_key": f"sandbox.example|{customer}|{instance}|{reseller or '-'}",
            "customer_id": customer,
            "provider_instance_id": instance,
            "reseller_id": reseller,
        }
        for customer, instance, reseller in (A, B, (A[0], INSTANCE, new_id(5)))
    ]


def test_many_scopes_are_cut_off_as_text_and_not_as_json(project: Path, cockpit: Command) -> None:
    (project / "scopes.csv").write_text(HEADER + "".join(f"{new_id(n)},{INSTANCE},\n" for n in range(60)))
    *shown, more, total = cockpit("scopes", "--project", project).out.splitlines()
    assert (len(shown), more, total) == (50, "... and 10 more; --json prints all of them", "60 scopes")
    assert len(cockpit("scopes", "--project", project, "--json").out.splitlines()) == 60


def test_check_ends_with_the_code_of_its_failing_step(project: Path, api: Sandbox, cockpit: Command) -> None:
    good = cockpit("check", "--project", project)
    assert (good.exit_code, good.err) == (0, "")
    assert f"read       {project / '.dlt' / 'config.toml'}" in good.out
    assert "ok         one call: " in good.out
    configure(project, api, client_id="unknown")
    refused = cockpit("check", "--project", project)
    assert refused.exit_code == 5
    assert "failed     sign-in: Sign-in was refused" in refused.out


def test_broken_configuration_file_is_named(project: Path, cockpit: Command) -> None:
    (project / ".dlt" / "secrets.toml").write_text(f"[sources.cockpit]\nclient_secret = {WRONG_SECRET}\n")
    expected = (
        f"The file {project / '.dlt' / 'secrets.toml'} is not valid TOML: Invalid value (at line 2, column 17)."
    )
    for ran in (run_process("load", "--project", project), cockpit("check", "--project", project)):
        assert ran.exit_code == 2
        assert ran.error.startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("load", "--project", "nowhere"), "--project nowhere is not a folder. Give the folder that holds .dlt."),
        (
            ("load", "--destination", "nosuch"),
            "The destination 'nosuch' cannot be used: dlt knows none of this name.",
        ),
        (("load", "--destination", "postgres", "--database", "a"), "--database is the path of a DuckDB file;"),
        (("load", "--dataset", "a b"), "--dataset 'a b' does not fit."),
        (("load", "--scopes-file", "x.txt"), "The scopes file {cwd}/x.txt is of an unknown type."),
        (("load", "--scopes-file", "x.csv"), "The scopes file {cwd}/x.csv does not exist."),
        (("sandbox", "--fault", "throttle"), "--fault throttle is not KIND=RATE with a rate from 0 to 1. Kinds: thr"),
        (("sandbox", "--fault", "throttle=often"), "--fault throttle=often is not KIND=RATE"),
        (("sandbox", "--fault", "slow=0.5"), "--fault: unknown fault 'slow'; valid are throttle, "),
        (("sandbox", "--fault", "throttle=2"), "--fault: the fault rates add up to 2.0; 1 is the most."),
        (("sandbox", "--fault", "throttle=-1"), "--fault: throttle is -1.0; it must be a number, 0 or more."),
        (("sandbox", "--fault", "throttle=nan"), "--fault: throttle is nan; it must be a number, 0 or more."),
    ],
)
def test_wrong_arguments_are_refused_with_one_message(
    project: Path, cockpit: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(project.parent)
    if "nowhere" not in arguments and arguments[0] == "load":
        arguments = (*arguments, "--project", "project")
    ran = cockpit(*arguments)
    assert ran.exit_code == 2
    assert ran.error.startswith(expected.format(cwd=project.parent))
    assert len(ran.error) < 700


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("load", "--nosuch"),
        ("load", "extra"),
        ("load", "--as-of", "yesterday"),
        ("sandbox", "--port", "99999"),
        ("sandbox", "--port", "-1"),
        ("sandbox", "--customers", "0"),
        ("demo", "--days", "0"),
    ],
)
def test_wrong_usage_exits_with_2(cockpit: Command, arguments: tuple[str, ...]) -> None:
    ran = cockpit(*arguments)
    assert (ran.exit_code, ran.out) == (2, "")
    assert "Error" in ran.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_runs(command: str, cockpit: Command) -> None:
    ran = cockpit(command, "--help")
    assert (ran.exit_code, ran.err) == (0, "")
    text = " ".join(ran.out.split())
    example = text.split(f"Example: cockpit {command}")[1]
    options = set(re.findall(r"--[a-z-]+", example))
    assert options <= set(re.findall(r"--[a-z-]+", text.split("Example:")[0]))
    assert CliRunner().invoke(app, [command, "-h"]).exit_code == 0


def test_help_names_every_command_and_exit_code(cockpit: Command) -> None:
    text = cockpit("--help").out
    assert [command for command in COMMANDS if f" {command} " not in text] == []
    assert {command.callback.__name__ for command in app.registered_commands if command.callback} == set(COMMANDS)
    described = " ".join(cockpit("load", "--help").out.split())
    assert "0 all scopes read, 1 none read or an unexpected error, 2 configuration or usage, 3 some not" in described
    assert "5 sign-in refused, 6 the database is in use" in described


def test_unexpected_error_asks_to_be_reported_without_its_secrets(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("client_secret=abcdefghij Bearer abcdefghij someone@example.com")

    monkeypatch.setattr("cockpit_source.pipeline.create_pipeline", break_down)
    monkeypatch.setattr(sys, "argv", ["cockpit", "load", "--project", str(project)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (1, "")
    assert captured.err.startswith("Error: This is a defect of cockpit, not of your set-up. Please report it with")
    assert "RuntimeError: " in captured.err
    assert "abcdefghij" not in captured.err
    assert "someone@" not in captured.err


@contextmanager
def sandbox_process(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`cockpit sandbox` and the lines it prints when it is ready."""
    command = [sys.executable, "-m", "cockpit_source.cli", "sandbox", "--customers", "4", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(1 + ("--project" in arguments))]
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def test_sandbox_serves_a_project_that_loads_and_stops_when_told(tmp_path: Path, cockpit: Command) -> None:
    folder = tmp_path / "sandbox"
    with sandbox_process("--port", 0, "--project", folder, "--day", 3) as (process, (serving, advice)):
        assert re.fullmatch(r"Simulated tenant sandbox\.example, day 3, at http://127\.0\.0\.1:\d+ \(Ctrl.*", serving)
        assert advice == f"Load it from another terminal: cockpit load --project {folder}"
        ran = cockpit("load", "--project", folder, "--json")
        result = json.loads(ran.out)
        assert result["scopes_total"] == len(list(SandboxTenant(customers=4).scopes(3))) > 2
        assert result["outcomes"] == {"ok": 1, "empty": 1, "forbidden": 1}
        taken = serving.split("127.0.0.1:")[1].split()[0]
        refused = cockpit("sandbox", "--port", taken)
        assert refused.exit_code == 2
        assert refused.error == f"Port {taken} cannot be used: Address already in use. Choose another with --port.\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
        assert (out, err) == ("", "")


def test_sandboxes_are_tenants_of_their_own_by_their_domains(tmp_path: Path, cockpit: Command) -> None:
    """Two in one dataset, where the same name would be the same tenant."""
    for domain in ("north.example", "south.example"):
        folder = tmp_path / domain
        with sandbox_process("--port", 0, "--project", folder, "--domain", domain.upper()) as (_, (serving, _)):
            assert serving.startswith(f"Simulated tenant {domain}, day 0")
            ran = cockpit("load", "--project", folder, "--database", tmp_path / "w.duckdb", "--json")
            assert json.loads(ran.out)["scopes_total"] == len(list(SandboxTenant(customers=4).scopes(0)))
    assert {row["tenant"] for row in read_rows(tmp_path / "w.duckdb", "runs")} == {"north.example", "south.example"}
    refused = cockpit("sandbox", "--port", 0, "--domain", 'x"]')
    assert (refused.exit_code, refused.error) == (
        2,
        '--domain x"] is no domain. Valid: one such as north.example.\n',
    )


def test_sandbox_stops_on_interrupt(tmp_path: Path) -> None:
    with sandbox_process("--port", 0) as (process, _):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_sandbox_project_that_cannot_be_written_is_told(tmp_path: Path, cockpit: Command) -> None:
    (tmp_path / "file").touch()
    ran = cockpit("sandbox", "--port", 0, "--project", tmp_path / "file")
    assert ran.exit_code == 2
    assert ran.error.startswith(f"The project cannot be written: {tmp_path / 'file' / '.dlt'}: Not a directory.")


def _result(**values: Any) -> LoadResult:
    fields: dict[str, Any] = {
        "run_id": "r1",
        "status": "partial",
        "scopes_total": 60,
        "scopes_listed": 61,
        "outcomes": {"ok": 30, "failed": 29, "forbidden": 1},
        "license_rows": 5,
        "delisted": 2,
        "requests": 60,
        "throttled": 0,
        "packages": 1,
        "seconds": 1.0,
        "carried_on": True,
        "location": "duckdb:////srv/[red]licences.duckdb",
        "dataset": "cockpit",
    }
    return LoadResult(**(fields | values))


def _unread(number: int, outcome: str, description: str) -> UnreadScope:
    return UnreadScope(new_id(number), INSTANCE, new_id(9), outcome, None, "a_type", description, None)


def test_result_on_a_narrow_terminal_breaks_no_id_and_repeats_no_reason() -> None:
    unread = [_unread(0, "forbidden", "[bold]no[/bold]")]
    unread += [_unread(n, "failed", f"no answer from /v1/Customers/{new_id(n)}/licenses") for n in range(1, 30)]
    text = StringIO()
    print_result(_result(unread_scopes=tuple(unread), stop_reason="[x] " * 40), Console(file=text, width=60))
    lines = text.getvalue().splitlines()
    assert lines[0] == "partial: 30 of 60 scopes read, 5 licence rows, 60 calls, 1.0 s (run r1, carried on)"
    assert lines[1:4] == [
        "1 duplicate lines of the scope list were merged.",
        "2 scopes are no longer listed; their rows stay, see ",
        "scopes.delisted_at.",
    ]
    assert lines[4] == "The run ended early: " + "[x] " * 40
    assert "forbidden, a_type: [bold]no[/bold]" in lines
    assert [line for line in lines if line.startswith("failed, ")] == [
        f"failed, a_type: no answer from /v1/Customers/{new_id(1)}/licenses"
    ]
    shown = [line for line in lines if line.startswith("  customer ")]
    assert shown == [f"  customer {new_id(n)}, provider instance {INSTANCE}, reseller {new_id(9)}" for n in range(20)]
    assert "... and 10 more: SELECT * FROM cockpit.scope_runs WHERE run_id = 'r1'" in lines
    assert lines[-1] == "Tables: dataset cockpit in duckdb:////srv/[red]licences.duckdb"


def test_result_says_that_calls_were_throttled_and_groups_what_was_held_back() -> None:
    held = [_unread(n, "quarantined", f"the answer was empty, and the scope held {n} licence rows") for n in range(5)]
    text = StringIO()
    print_result(_result(unread_scopes=tuple(held), throttled=7), Console(file=text, width=160))
    lines = text.getvalue().splitlines()
    assert "7 calls were throttled (429) and made again; the load kept to the pace allowed." in lines
    assert len([line for line in lines if line.startswith("quarantined, ")]) == 1


def test_retry_of_refused_customers_alone_does_not_doubt_the_tenant() -> None:
    for is_full_list in (True, False):
        text = StringIO()
        unread = (_unread(0, "forbidden", "no"),)
        refused = _result(outcomes={"forbidden": 60}, is_full_list=is_full_list, unread_scopes=unread)
        print_result(refused, Console(file=text, width=160))
        assert ("Every scope was refused" in text.getvalue()) is is_full_list


def test_sandbox_keeps_what_was_added_to_its_project(tmp_path: Path) -> None:
    tenant = SandboxTenant(customers=2)
    write_project(tmp_path, tenant, "http://127.0.0.1:1")
    config, secrets = tmp_path / ".dlt" / "config.toml", tmp_path / ".dlt" / "secrets.toml"
    for file in (config, secrets):
        file.write_text(file.read_text() + '\n[destination.postgres.credentials]\nhost = "db.example"\n')
    before = config.read_text(), secrets.read_text()
    write_project(tmp_path, tenant, "http://127.0.0.1:2")
    assert (config.read_text(), secrets.read_text()) == (before[0].replace("127.0.0.1:1", "127.0.0.1:2"), before[1])


@pytest.mark.parametrize("width", [60, 160])
def test_progress_on_a_terminal_keeps_the_counts_whatever_its_width(
    project: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cockpit_source.progress._POLL_SECONDS", 0.01)
    text = StringIO()
    progress = LoadProgress()
    progress.record = _record(done=741, total=1_333)
    progress.notes.append("a note")
    console = Console(file=text, width=width, force_terminal=True, legacy_windows=False)
    with ProgressDisplay(progress, console) as display:
        for _ in range(200):
            if "741/1333" in text.getvalue():
                break
            display._ended.wait(0.02)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert " 741/1333 " in shown
    assert "a note\n" in shown
    assert ("packages loaded" in shown) is (width == 160)


def test_progress_elsewhere_is_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cockpit_source.progress._PLAIN_LINE_SECONDS", 0.01)
    text = StringIO()
    progress = LoadProgress()
    progress.record = _record(done=1_333, total=1_333)
    with ProgressDisplay(progress, Console(file=text, width=160)) as display:
        for _ in range(200):
            if text.getvalue():
                break
            display._ended.wait(0.02)
    assert text.getvalue().splitlines()[0] == (
        "1333 of 1333 scopes, loading the tables, 0 not read, 0 in flight, 0 rows, 0 packages loaded"
    )


def _record(done: int, total: int) -> RunRecord:
    record = RunRecord("r1", build_settings({"tenant": "t", "access_token": "x", "scopes_file": "x"}), day(0))
    record.total = total
    record.outcomes["ok"] = done
    return record


def test_help_of_the_sandbox_lists_every_fault() -> None:
    from cockpit_source.cli import _FAULT_KINDS

    assert tuple(_FAULT_KINDS.split(", ")) == FAULT_KINDS


def test_sandbox_leaves_the_project_of_somebody_else_alone(cockpit: Command, project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert (
        "is not of a sandbox and would be overwritten" in cockpit("sandbox", "--port", 0, "--project", project).error
    )
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_load_that_is_refused_everywhere_asks_for_the_tenant(cockpit: Command, project: Path, api: Sandbox) -> None:
    """Also where more scopes were refused than are shown."""
    many = "".join(f"{new_id(number)},{new_id(0)},\n" for number in range(60))
    (project / "scopes.csv").write_text(HEADER + many)
    configure(project, api, tenant="portal.wrong.example")
    ran = cockpit("load", "--project", project)
    assert ran.exit_code == 1
    assert "... and 40 more" in ran.out
    assert "Every scope was refused: check that tenant is the domain of your portal" in ran.out
