"""Many tenants in one installation: each exact whatever becomes of the others, and no secret used for another."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dlt.common.runtime.run_context import switch_context
from support import INSTANCE, Inventory, day, read_rows
from tenants_world import FAILING, NAMES, A, B, Models, Tenants, client, running_tenants, secrets_in

from cockpit_source import join_exit_codes, load_tenants
from cockpit_source.cli import main
from cockpit_source.configuration import open_project
from cockpit_source.errors import ConfigurationError
from cockpit_source.pipeline import create_pipeline, work_folder
from cockpit_source.publish import read_copy_path
from cockpit_source.recovery import RunOpener
from cockpit_source.runner_lock import one_runner

Command = Callable[..., "Ran"]


@dataclass
class Ran:
    """What a command came to; no secret of any tenant is in what it printed."""

    exit_code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        assert secrets_in(self.out + self.err) == []

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cockpit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, project: Path) -> Command:
    """Runs a command on the project, in this process."""

    def run(*arguments: object) -> Ran:
        command = ["cockpit", *map(str, arguments), "--project", str(project)]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def servers() -> Iterator[Tenants]:
    with running_tenants() as tenants:
        yield tenants


@pytest.fixture
def tenants(servers: Tenants) -> Tenants:
    """Three tenants with the answers of day 0; what a test sets there is gone after it."""
    servers.reset()
    return servers


@pytest.fixture
def project(tenants: Tenants, tmp_path: Path) -> Path:
    return tenants.write(tmp_path / "project")


@pytest.fixture(scope="module")
def loaded_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a loaded database keeps it for the others."""
    return tmp_path_factory.mktemp("loaded") / "w.duckdb"


@pytest.fixture
def loaded(project: Path, tenants: Tenants, cockpit: Command, loaded_database: Path) -> Models:
    """Day 0 of all tenants is loaded; the APIs answer as on day 1."""
    database = project / "w.duckdb"
    if not loaded_database.exists():
        assert cockpit("load", *on(0)).exit_code == 0
        shutil.copy(database, loaded_database)
    shutil.copy(loaded_database, database)
    models = Models(database)
    models.load(0, *NAMES)
    tenants.answer(1)
    return models


def on(number: int) -> tuple[str, str]:
    return "--as-of", day(number).strftime("%Y-%m-%dT%H:%M:%S")


def test_all_tenants_are_loaded_and_reported(
    loaded: Models, cockpit: Command, tenants: Tenants, project: Path, tmp_path: Path
) -> None:
    loaded.check()
    for api in tenants.apis.values():
        api.clear_requests()
    ran = cockpit("load", *on(1))
    assert ran.exit_code == 0
    loaded.load(1, *NAMES)
    loaded.check()
    # the copy of the whole dataset, once
    assert read_rows(read_copy_path(project / "w.duckdb"), "licenses") == read_rows(project / "w.duckdb", "licenses")
    headings = [line for line in ran.out.splitlines() if line.startswith("tenant ") and "status" not in line]
    assert headings == [f"tenant {name} ({name}.example)" for name in NAMES]
    total = [line.split() for line in ran.out.splitlines()[-4:]]
    assert [(line[0], line[-1]) for line in total] == [*((name, "0") for name in NAMES), ("total", "0")]
    assert total[-1][1:8] == ["3", "of", "3", "loaded", "6", "6", "8"]
    # every API saw its own credentials only, and no secret was kept anywhere
    for name in NAMES:
        api = tenants.apis[name]
        assert {request.client_id for request in api.requests} == {client(name).id}
    for file in (file for file in tmp_path.rglob("*") if file.is_file() and file.name != "secrets.toml"):
        assert b"hush-hush" not in file.read_bytes(), file


def test_picked_tenants_only(loaded: Models, cockpit: Command) -> None:
    ran = cockpit("load", "--json", *on(1), "--tenant", "west", "--tenant", "north", "--tenant", "west")
    assert [(one["name"], one["tenant"], one["status"], one["error"]) for one in ran.data] == [
        ("west", "west.example", "complete", None),
        ("north", "north.example", "complete", None),
    ]
    assert [one["result"]["license_rows"] for one in ran.data] == [3, 3]
    loaded.load(1, "west", "north")
    loaded.check()
    folders = {work_folder(create_pipeline(f"{name}.example", database=loaded.database)) for name in NAMES}
    assert len(folders) == 3


# what every failing tenant comes to: exit code, words of the reason, and the outcome of its scopes where it had a run
FAILURES: dict[str, tuple[int, str, str | None]] = {
    "refused": (5, "Sign-in was refused", "skipped"),
    "stolen": (5, "Sign-in was refused", "skipped"),
    "secretless": (2, "client_secret is missing: the two go together", None),
    "misset": (2, "max_attempts is out of range", None),
    "down": (1, "Connection refused", "failed"),
    "guarded": (4, "The drop guard held back", "quarantined"),
    "forbidden": (1, "these credentials may not read this", "forbidden"),
    "crashing": (1, "This is a defect of cockpit", None),
}


def break_tenants(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenant of `FAILING` fails as its name says."""
    tenants.secrets["refused"]["client_secret"] = "refused-hush-hush-old"
    tenants.secrets["stolen"]["client_secret"] = client("north").secret
    del tenants.secrets["secretless"]
    tenants.own["misset"] |= {"max_attempts": 99, "flavour": "x"}
    tenants.own["down"]["base_url"] = "http://127.0.0.1:9"
    tenants.own["guarded"] |= {"max_drop_scopes": 1, "max_drop_percent": 1}
    for customer in (A[0], B[0]):
        tenants.apis["guarded"].answer(customer, b"[]")
        tenants.apis["forbidden"].answer(customer, b"", status=403)
    real = RunOpener.open

    def crashing(self: RunOpener, **options: Any) -> Any:
        if self._settings.tenant_key == "crashing.example":
            raise ZeroDivisionError("client_secret=crashing-hush-hush")
        return real(self, **options)

    # the one failure that cannot be had by asking for it
    monkeypatch.setattr(RunOpener, "open", crashing)


@pytest.mark.parametrize("at_once", [(), ("--dask", "local")], ids=["one after another", "at once on Dask"])
def test_tenants_that_fail_in_every_way_cost_no_other(
    tenants: Tenants, project: Path, cockpit: Command, monkeypatch: pytest.MonkeyPatch, at_once: tuple[str, ...]
) -> None:
    assert set(FAILURES) == set(FAILING)
    # good ones first, in between and last
    names = ("north", *FAILING[:4], "south", *FAILING[4:], "west")
    tenants.reset(*names)
    tenants.write(project)
    # those of the others that have rows to lose
    before = ("north", "refused", "guarded", "forbidden")
    assert cockpit("load", *on(0), *chain.from_iterable(("--tenant", name) for name in before)).exit_code == 0
    models = Models(project / "w.duckdb")
    models.load(0, *before)
    models.check()

    tenants.answer(1)
    break_tenants(tenants, monkeypatch)
    tenants.write(project)
    ran = cockpit("load", *on(1), *at_once)
    # in the order in which they end
    parts = re.split(r"^tenant (?!.*status)(\S+).*$", ran.out, flags=re.MULTILINE)[1:]
    reports = dict(zip(parts[::2], parts[1::2], strict=True))
    assert sorted(reports) == sorted(names)
    assert [name for name, (_, says, _) in FAILURES.items() if says not in reports[name]] == []
    ends = {line.split()[0]: int(line.split()[-1]) for line in ran.out.splitlines()[-len(names) - 1 :]}
    assert ends == {name: FAILURES.get(name, (0,))[0] for name in names} | {"total": 2}
    assert ran.exit_code == 2
    outcomes = {name: outcome for name, (_, _, outcome) in FAILURES.items() if outcome is not None}
    models.load(1, *NAMES, *outcomes, outcomes=outcomes)
    models.check()


def test_worst_code_of_all_tenants_counts() -> None:
    codes = {(): 0, (0, 3): 3, (3, 4): 4, (4, 1, 3): 1, (1, 5): 5, (6, 5): 6, (0, 6, 2): 2}
    assert {several: join_exit_codes(several) for several in codes} == codes


def test_wrong_settings_of_all_stop_before_the_first(loaded: Models, cockpit: Command, project: Path) -> None:
    config = project / ".dlt" / "config.toml"
    right = config.read_text()
    for wrong, says in (
        ("max_attemps = 3", "max_attemps is not a key of this source; did you mean max_attempts?"),
        ('client_secret = "all-hush-hush"', "client_secret stands in config.toml"),
        ("[sources.cockpit.tenants]\npage_size = 3", "page_size stands in [sources.cockpit.tenants] itself."),
    ):
        config.write_text(right.replace("[sources.cockpit]\n", f"[sources.cockpit]\n{wrong}\n"))
        ran = cockpit("load", *on(1))
        assert (ran.exit_code, ran.out) == (2, "")
        assert says in ran.err
    loaded.check()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("load", "--tenant", "east"), 'There is no tenant "east". Configured are north, south and west'),
        (("status", "--tenant", "east"), 'There is no tenant "east"'),
        (("load", "--accept-drop", "3"), "--accept-drop is for one tenant. Name it: --tenant NAME."),
        (("load", "--scopes-file", "part.csv"), "--scopes-file is the list of one tenant"),
        (("check", "--scopes-file", "part.csv"), "--scopes-file is the list of one tenant"),
        (("check", "--probe"), "--probe is about one tenant"),
        (("marts", "--price-list", "prices.csv"), "--price-list holds the prices of one tenant"),
        *(
            (("deletions", *command), "Use a project folder of one tenant for them")
            for command in (("plan", "--named", "x"), ("show",), ("apply", "1"), ("verify",), ("log",), ("mend",))
        ),
    ],
)
def test_what_is_for_one_tenant_is_refused_for_several(
    cockpit: Command, tenants: Tenants, project: Path, arguments: tuple[str, ...], says: str
) -> None:
    ran = cockpit(*arguments)
    assert ran.exit_code == 2
    assert says in " ".join(ran.err.split())
    assert not (project / "w.duckdb").exists()
    assert all(api.requests == [] for api in tenants.apis.values())


def test_list_and_drop_of_one_tenant(loaded: Models, cockpit: Command, project: Path) -> None:
    (project / "part.csv").write_text(f"customer_id,provider_instance_id\n{A[0]},{INSTANCE}\n")
    part = cockpit("load", "--tenant", "north", "--scopes-file", project / "part.csv", "--json", *on(1))
    assert (part.exit_code, part.data[0]["result"]["scopes_total"]) == (0, 1)
    whole = cockpit("load", "--tenant", "north", "--accept-drop", "3", "--json", *on(2))
    assert (whole.exit_code, whole.data[0]["result"]["scopes_total"]) == (0, 2)


def test_retrying_what_is_read_is_no_failure(loaded: Models, cockpit: Command, tenants: Tenants) -> None:
    tenants.apis["west"].answer(A[0], b"", status=500)
    assert cockpit("load", "--tenant", "west", *on(1)).exit_code == 3
    tenants.answer(1)
    ran = cockpit("load", "--retry-failed", "--json", *on(2))
    assert [(one["name"], one["status"], one["exit_code"]) for one in ran.data] == [
        ("north", "nothing to retry", 0),
        ("south", "nothing to retry", 0),
        ("west", "complete", 0),
    ]
    assert ran.exit_code == 0


def test_a_locked_file_counts_for_all_and_is_waited_for_once(loaded: Models, cockpit: Command, project: Path) -> None:
    hold = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(project / "w.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        ran = cockpit("load", *on(1), "--busy-tries", 2, "--busy-seconds", 0)
        holder.communicate()
    assert ran.exit_code == 6
    # in each of the two tries
    assert ran.out.count(f"is in use by process {holder.pid}") == 2
    assert ran.out.count("failed: for the same reason as north.") == 4
    assert ran.err.count("Waiting") <= 2
    lines = [line.split() for line in cockpit("status").out.splitlines()[-3:]]
    assert [(line[0], line[-4:]) for line in lines] == [(name, ["failed", "(exit", "code", "6)"]) for name in NAMES]
    loaded.check()


def test_another_load_of_one_tenant_costs_only_that(loaded: Models, cockpit: Command, project: Path) -> None:
    open_project(project)
    with one_runner(create_pipeline("north.example", database=project / "w.duckdb")):
        ran = cockpit("load", "--json", *on(1), "--tenant", "north", "--tenant", "south")
    assert [one["exit_code"] for one in ran.data] == [6, 0]
    assert "Another load or prune of the same tenant and database is running" in ran.data[0]["error"]
    loaded.load(1, "south")
    loaded.check()


def test_only_the_tenant_that_was_held_is_tried_again(
    loaded: Models, cockpit: Command, project: Path, tenants: Tenants
) -> None:
    open_project(project)
    south = tenants.apis["south"]
    south.clear_requests()
    begun = threading.Event()

    def hold_until_south_is_read() -> None:
        with one_runner(create_pipeline("north.example", database=project / "w.duckdb")):
            begun.set()
            give_up_at = time.monotonic() + 60
            while not south.requests and time.monotonic() < give_up_at:
                time.sleep(0.02)

    holder = threading.Thread(target=hold_until_south_is_read)
    holder.start()
    assert begun.wait(60)
    two = ("--tenant", "north", "--tenant", "south")
    ran = cockpit("load", *on(1), *two, "--busy-tries", 3, "--busy-seconds", 1)
    holder.join()
    assert ran.exit_code == 0
    assert "Held by others: north. Tried again in 1 s, up to 2 times.\n" in ran.err
    paths = [request.path for request in south.requests]
    assert len(paths) == len(set(paths)) > 0
    assert ran.out.count("Another load or prune of the same tenant") == 1
    assert [line.split()[:2] for line in ran.out.splitlines()[-3:-1]] == [
        ["north", "complete"],
        ["south", "complete"],
    ]
    loaded.load(1, "north", "south")
    loaded.check()


def test_a_tenant_that_stays_held_is_told_in_full_each_time(loaded: Models, cockpit: Command, project: Path) -> None:
    open_project(project)
    with one_runner(create_pipeline("north.example", database=project / "w.duckdb")):
        ran = cockpit("load", *on(1), "--tenant", "north", "--busy-tries", 2, "--busy-seconds", 0)
    assert ran.exit_code == 6
    assert ran.out.count("Another load or prune of the same tenant") == 2
    assert "for the same reason" not in ran.out
    shown = cockpit("status", "--tenant", "north").out
    assert re.search(r"^last load +failed just now \(exit code 6\): Another load or prune", shown, re.MULTILINE)
    assert ran.err.count("for the last time") == 1
    loaded.check()


def test_a_load_that_is_asked_to_end_begins_no_further_tenant(
    loaded: Models, tenants: Tenants, project: Path
) -> None:
    # the second scope waits for the first
    tenants.own["north"]["max_concurrency"] = 1
    tenants.write(project)
    tenants.apis["north"].faults.configure(latency_ms=2_000)
    command = [sys.executable, "-m", "cockpit_source.cli", "load", "--json", "--project", str(project), *on(1)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            give_up_at = time.monotonic() + 60
            while not any("license" in request.path.lower() for request in tenants.apis["north"].requests):
                assert time.monotonic() < give_up_at
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
    finally:
        tenants.apis["north"].faults.configure(latency_ms=0)
    north, south, west = json.loads(out)
    assert north["result"]["stop_reason"] == "SIGTERM asked the load to end"
    for one in (south, west):
        assert one["error"] == (
            "Not begun: SIGTERM asked the load to end. Nothing was changed; the next load begins anew."
        )
        assert one["exit_code"] == 1
    assert tenants.apis["south"].requests == []


def test_status_shows_every_tenant_of_the_dataset(
    loaded: Models, cockpit: Command, tenants: Tenants, project: Path
) -> None:
    del tenants.own["west"], tenants.secrets["west"]
    tenants.own["south"]["max_attempts"] = 99
    tenants.own["east"] = {"flavour": "no portal"}
    tenants.write(project)
    ran = cockpit("status", "--json", "--max-age-hours", "1")
    found = [(one["name"], one["tenant"], one["exit_code"], len(one.get("runs", ()))) for one in ran.data]
    assert found == [
        ("north", "north.example", 3, 1),
        # what only a load needs does not matter
        ("south", "south.example", 3, 1),
        ("east", None, 2, 0),
        (None, "west.example", 3, 1),
    ]
    assert ran.exit_code == 2
    # nobody waits for what is not configured any more
    del tenants.own["east"]
    tenants.write(project)
    assert cockpit("status").exit_code == 0
    text = cockpit("status", "--tenant", "south").out
    assert ("south.example" in text, "west.example" in text) == (True, False)


def test_prune_scopes_and_check_go_through_all(
    loaded: Models, cockpit: Command, tenants: Tenants, project: Path
) -> None:
    tenants.own["south"]["max_attempts"] = 99
    tenants.write(project)
    pruned = cockpit("prune", "--keep-days", "0", "--json")
    assert [(one["name"], one["tenant"], one["tables"][0]["after"]) for one in pruned.data] == [
        (name, f"{name}.example", 2) for name in NAMES
    ]
    scopes = cockpit("scopes", "--json")
    assert (scopes.exit_code, scopes.err.count("max_attempts is out of range")) == (2, 1)
    assert [json.loads(line)["scope_key"] for line in scopes.out.splitlines()] == [
        f"{name}.example|{customer}|{INSTANCE}|-" for name in ("north", "west") for customer in sorted((A[0], B[0]))
    ]
    check = cockpit("check")
    assert check.exit_code == 2
    assert check.out.count("one call: customer") == 2
    assert check.out.count("max_attempts is out of range") == 1


def test_marts_take_the_lists_of_each_tenant(
    loaded: Models, cockpit: Command, tenants: Tenants, project: Path
) -> None:
    head = "sku_id,unit_price,currency,valid_from\n"
    (project / "all.csv").write_text(f"{head}e3,2.50,EUR,2020-01-01\n")
    (project / "south.csv").write_text(f"{head}e3,7.00,USD,2020-01-01\np1,1.00,USD,2020-01-01\n")
    (project / "west.csv").write_text(f"{head}e3,seven,USD,2020-01-01\n")
    tenants.common["price_list"] = "all.csv"
    tenants.own["south"]["price_list"] = "south.csv"
    tenants.own["west"]["price_list"] = "west.csv"
    tenants.write(project)
    ran = cockpit("marts", "--json")
    lists = ran.data["tenants"]
    assert [(one["name"], one["exit_code"]) for one in lists] == [("north", 0), ("south", 0), ("west", 2)]
    assert [one["prices"] and one["prices"]["listed_skus_held"] for one in lists] == [1, 2, None]
    assert ran.exit_code == 2
    assert "west.csv" in lists[2]["error"]
    with duckdb.connect(str(read_copy_path(project / "w.duckdb")), read_only=True) as reader:
        prices = reader.sql("SELECT tenant, sku_id, unit_price::DOUBLE, currency FROM cockpit.sku_prices").fetchall()
        seats = reader.sql("SELECT tenant, sum(total_seats) FROM cockpit.fct_current_inventory GROUP BY 1").fetchall()
    assert sorted(prices) == [
        ("north.example", "e3", 2.5, "EUR"),
        ("south.example", "e3", 7.0, "USD"),
        ("south.example", "p1", 1.0, "USD"),
    ]
    assert sorted(seats) == [("north.example", 37), ("south.example", 10), ("west.example", 6)]
    text = cockpit("marts", "--tenant", "north").out
    assert "Prices: 1 of 1 SKU on the list is held" in text
    # for once from the command line, which the configuration takes back
    one = cockpit("marts", "--tenant", "north", "--price-list", project / "south.csv")
    assert one.exit_code == 0
    assert "north: The configuration names another list than --price-list" in one.err


def test_marts_copy_and_hooks_come_after_the_last_tenant(cockpit: Command, tenants: Tenants, project: Path) -> None:
    teller = (
        "import duckdb, json, os, sys\n"
        "with duckdb.connect('w.read.duckdb', read_only=True) as reader:\n"
        "    (rows,) = reader.sql('SELECT count(*) FROM cockpit.fct_current_inventory').fetchone()\n"
        "told = json.load(sys.stdin)\n"
        "with open('told.jsonl', 'a') as file:\n"
        "    print(json.dumps([told['tenant'], told['exit_code'], os.environ['COCKPIT_STATUS'], rows]), file=file)\n"
    )
    (project / "tell.py").write_text(teller)
    tenants.common |= {"refresh_marts": True, "after_run_command": f"{sys.executable} tell.py"}
    tenants.secrets["south"]["client_secret"] = "south-hush-hush-old"
    tenants.write(project)
    assert cockpit("load", "--tenant", "south", "--tenant", "north").exit_code == 5
    assert [json.loads(line) for line in (project / "told.jsonl").read_text().splitlines()] == [
        ["south.example", 5, "failed", 3],
        ["north.example", 0, "complete", 3],
    ]


def test_python_refuses_what_the_command_refuses(project: Path, tmp_path: Path) -> None:
    open_project(project)
    with pytest.raises(ConfigurationError, match="accept_drop is for one tenant"):
        load_tenants(accept_drop=1)
    with pytest.raises(ConfigurationError, match="A list of scopes is that of one tenant"):
        load_tenants(discover=True)
    with pytest.raises(ConfigurationError, match=r'There is no tenant "east"'):
        load_tenants(["east"])
    switch_context(str(tmp_path))
    with pytest.raises(ConfigurationError, match="No tenants are configured"):
        load_tenants()


def test_on_postgres_too(postgres_url: str, project: Path, tenants: Tenants, tmp_path: Path) -> None:
    open_project(project)
    tables = Inventory(tenants.apis["north"], tmp_path / "unused.duckdb", destination="postgres", tenant_key="x")
    models = Models(tables)
    for number in (0, 1):
        tenants.answer(number)
        loads = load_tenants(["west", "north"], destination="postgres", as_of=day(number))
        assert [(one.name, one.tenant_key, one.exit_code) for one in loads] == [
            ("west", "west.example", 0),
            ("north", "north.example", 0),
        ]
        models.load(number, "west", "north")
        models.check()
