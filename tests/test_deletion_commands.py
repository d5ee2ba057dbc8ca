"""The commands of the deletions as their user, or a program, sees them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from offboarding_world import Shared, World, error_body, new_world, shared_world
from support import new_id

from cockpit_source.cli import main
from cockpit_source.configuration import open_project
from cockpit_source.deletions.approval import confirmation_words
from cockpit_source.deletions.history import History
from cockpit_source.deletions.records import read_plan
from cockpit_source.deletions.settings import STOP_VARIABLE
from cockpit_source.sandbox import CSP_CLIENT

FAST = "seconds_between_calls = 0\nverify_timeout_seconds = 0\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: Shared, tmp_path: Path) -> World:
    world = new_world(shared, tmp_path)
    with (tmp_path / ".dlt" / "config.toml").open("a") as config:
        config.write(FAST)
    open_project(tmp_path)
    (tmp_path / "left.sql").write_text(world.query(*world.three).text)
    (tmp_path / "none.sql").write_text(world.query().text)
    return world


@dataclass
class Ran:
    """What a command came to."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __post_init__(self) -> None:
        assert "Traceback" not in self.err, self.err


Command = Callable[..., Ran]
Cockpit = Callable[..., Ran]


@pytest.fixture
def cockpit(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cockpit]:
    """Runs a command of the deletions in this process, and looks for secrets in all that it says and stores."""
    said: list[str] = []

    def run(*arguments: object, database: str | None = "inventory.duckdb") -> Ran:
        where = ["--database", database] if database else []
        monkeypatch.setattr(sys, "argv", ["cockpit", "deletions", *map(str, arguments), *where])
        monkeypatch.setattr(sys, "stdin", StringIO())
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        said.extend((captured.out, captured.err))
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield run
    stored = [
        path.read_bytes().decode("utf-8", "replace") for path in world.folder.glob("*deletions*") if path.is_file()
    ]
    for text in (*said, *stored):
        for secret in (CSP_CLIENT.secret, *world.sandbox.tokens._issued):
            assert secret not in text


def run_process(world: World, *arguments: object, stdin: Any = subprocess.DEVNULL, **environment: str) -> Ran:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "cockpit_source.cli", "deletions", *map(str, arguments)]
    ended = subprocess.run(
        [*command, "--database", "inventory.duckdb"],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        cwd=world.folder,
    )
    assert CSP_CLIENT.secret not in ended.stdout + ended.stderr
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def make_plan(cockpit: Cockpit) -> dict[str, Any]:
    ran = cockpit("plan", "--query", "left.sql", "--json")
    assert ran.exit_code == 0, ran.err
    plan: dict[str, Any] = ran.json
    return plan


def approval(plan: dict[str, Any]) -> tuple[str, ...]:
    return (plan["plan_id"], "--hash", plan["plan_hash"], "--approved-by", "The Boss")


def test_the_whole_way_for_a_program(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    assert [item["candidate"]["action"] for item in plan["items"]] == [
        "remove_reseller_relationship",
        "remove_reseller_relationship",
        "delete_customer",
    ]
    assert [item["state"] for item in plan["items"]] == ["planned"] * 3
    assert world.sent() == []
    shown = cockpit("show", "--json")
    assert (shown.exit_code, shown.json) == (0, plan)
    assert cockpit("show", plan["plan_id"], "--json").json == plan

    applied = cockpit("apply", *approval(plan), "--json")
    assert applied.exit_code == 0, applied.err
    ids = [request.correlation_id for request in world.requests()]
    assert applied.json == {
        "plan_id": plan["plan_id"],
        "plan_hash": plan["plan_hash"],
        "items": [
            {
                "number": number,
                "key": _key(item["candidate"]),
                "state": "verified",
                "description": applied.json["items"][number - 1]["description"],
                "correlation_ids": [ids[number - 1]],
            }
            for number, item in enumerate(plan["items"], start=1)
        ],
        "stop": None,
    }
    verified = cockpit("verify", "--json")
    assert (verified.exit_code, verified.json) == (0, [])
    assert [item["state"] for item in cockpit("show", "--json").json["items"]] == ["verified"] * 3

    log = cockpit("log", "--json")
    assert log.exit_code == 0
    assert [json.loads(record.to_text()) for record in world.records()] == log.json
    assert [record["kind"] for record in log.json][:3] == ["plan", "apply_started", "intent"]
    assert log.json[1]["body"]["approved_by"] == "The Boss"
    assert cockpit("log", "--json", "--plan", "other").json == []
    again = cockpit("apply", *approval(plan), "--json")
    assert (again.exit_code, again.json["refusal"]["code"]) == (4, "already_applied")
    assert len(world.sent()) == 3


def _key(candidate: dict[str, Any]) -> str:
    return f"{candidate['action']}|{candidate['customer_id']}|{candidate['provider_instance_id'] or '-'}"


def test_the_whole_way_for_a_person(world: World, cockpit: Cockpit) -> None:
    planned = cockpit("plan", "--query", "left.sql")
    assert planned.exit_code == 0, planned.err
    plan_id = world.records()[0].plan_id
    shown = cockpit("show")
    for text in (planned.out, shown.out):
        # the blast radius comes first
        first = text[: text.index("\nitem ")]
        assert "2 customers" in first
        assert "This cannot be undone." in first
        assert world.name(world.a) in text
    assert f"cockpit deletions apply {plan_id}" in planned.out
    assert cockpit("log").exit_code == 0
    assert (
        cockpit("apply", plan_id, "--hash", world.records()[0].body["plan_hash"], "--approved-by", "X").exit_code == 0
    )
    log = cockpit("log")
    for request in world.requests():
        assert str(request.correlation_id) in log.out.replace("\n", "")
    assert "Nothing is open" in cockpit("verify").out


def test_show_of_an_applied_plan_says_what_was_done(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    planned = cockpit("show").out
    assert "will be removed" in planned
    assert "\napplied" not in planned
    world.sandbox.deletion_delay_seconds = 3600
    assert cockpit("apply", *approval(plan)).exit_code == 3
    radius = "2 customers "
    course = History(world.records()).plans[plan["plan_id"]]
    shown = cockpit("show")
    _, first, second, *_ = shown.out.splitlines()
    assert first.startswith(radius)
    assert second == (
        "0 of 2 reseller relationships removed. 0 of 1 customer deleted from the whole tenant and from Partner "
        "Center. The rest: 1 accepted_unverified, 2 planned. This cannot be undone."
    )
    assert f"applied     begun {_second(course.started_at)}, not at its end\n" in shown.out
    assert "item 1 was to remove the relationship" in shown.out
    assert f"\n     accepted_unverified, {_second(course.items[1].changed_at)}: " in shown.out
    world.sandbox.deletion_delay_seconds = 0
    assert cockpit("apply", *approval(plan)).exit_code == 0
    course = History(world.records()).plans[plan["plan_id"]]
    shown = cockpit("show")
    _, first, second, *_ = shown.out.splitlines()
    assert first.startswith(radius)
    done = (
        "2 of 2 reseller relationships removed. 1 of 1 customer deleted from the whole tenant and from Partner "
        "Center. This cannot be undone."
    )
    assert second == done
    assert "will " not in shown.out
    ended = _second(course.items[3].changed_at)
    assert f"applied     begun {_second(course.started_at)}, ended {ended}\n" in shown.out
    assert "item 1 removed the relationship" in shown.out
    assert "item 3 deleted the customer" in shown.out
    assert f"\n     verified, {ended}: " in shown.out
    as_json = cockpit("show", "--json").json
    assert as_json["blast_radius"][1] == done
    states = [(item.state, item.changed_at) for item in course.items.values()]
    assert [(item["state"], datetime.fromisoformat(item["state_at"])) for item in as_json["items"]] == states


def _second(moment: datetime | None) -> str:
    assert moment is not None
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def test_nothing_to_do(world: World, cockpit: Cockpit) -> None:
    ran = cockpit("plan", "--query", "none.sql")
    assert (ran.exit_code, ran.out) == (0, "Nothing to do: the query none.sql selects nothing. No plan was stored.\n")
    ran = cockpit("plan", "--query", "none.sql", "--json")
    assert (ran.exit_code, ran.json) == (0, {"plan_id": None, "plan_hash": None, "items": []})
    assert cockpit("show", "--json").json["refusal"]["code"] == "no_plan"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("DROP TABLE customers", "query_not_select"),
        ("SELECT 1; SELECT 2", "query_not_select"),
        ("SELECT * FROM read_csv('/etc/passwd')", "query_not_allowed"),
        ("SELECT action FROM nowhere", "query_not_allowed"),
        ("SELECT nope AS action, id AS customer_id, 'r' AS reason FROM customers", "query_failed"),
        ("SELECT 1 AS x", "query_columns"),
        ("SELECT 'delete_customer' AS action, NULL AS customer_id, 'r' AS reason", "query_null"),
        ("SELECT 'delete_customer' AS action, 'x' AS customer_id, 'r' AS reason", "query_not_uuid"),
        ("SELECT 'purge' AS action, id AS customer_id, 'r' AS reason FROM customers LIMIT 1", "query_action"),
        ("SELECT 'delete_customer' AS action, '{a}' AS customer_id, 'r' AS reason FROM customers", "query_duplicate"),
        ("SELECT 'delete_customer' AS action, '{unknown}' AS customer_id, 'r' AS reason", "unknown_id"),
    ],
)
def test_a_wrong_query_is_refused(world: World, cockpit: Cockpit, text: str, code: str) -> None:
    (world.folder / "wrong.sql").write_text(text.format(a=world.a, unknown=new_id(1)))
    ran = cockpit("plan", "--query", "wrong.sql", "--json")
    assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, code)
    assert ran.json["refusal"]["text"] in ran.err
    assert (ran.json["plan_id"], ran.json["items"], world.records()) == (None, [], [])
    plain = cockpit("plan", "--query", "wrong.sql")
    assert (plain.exit_code, plain.out) == (4, "")


def test_a_customer_is_refused_once_for_all_of_its_deletions(world: World, cockpit: Cockpit) -> None:
    world.protected_file.write_text(world.a)
    ran = cockpit("plan", "--query", "left.sql", "--json")
    (line,) = [line for line in ran.err.splitlines() if "protected:" in line]
    instance = world.instance(world.a)
    assert f"(for 2 deletions of this customer: its relationship in {instance}; the customer)" in line
    assert [refusal["code"] for refusal in ran.json["refusal"]["all"]] == ["protected"] * 2


def test_a_named_query(cockpit: Cockpit) -> None:
    ran = cockpit("plan", "--named", "customers_without_seats_90_days", "--json")
    # the inventory is of today, so nothing has been without seats for 90 days
    assert (ran.exit_code, ran.json["plan_id"]) == (0, None)
    ran = cockpit("plan", "--named", "everything")
    assert ran.exit_code == 2
    assert "customers_without_seats_90_days" in ran.err


def test_usage(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    for arguments in (
        ("plan",),
        ("plan", "--query", "left.sql", "--named", "x"),
        ("plan", "--query", "missing.sql"),
        ("apply", plan["plan_id"], "--hash", plan["plan_hash"]),
        ("apply", plan["plan_id"], "--approved-by", "X"),
        ("apply", plan["plan_id"], "--yes"),
        ("apply",),
    ):
        ran = cockpit(*arguments)
        assert (ran.exit_code, ran.out) == (2, ""), ran
    assert world.sent() == []


def test_not_approved(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    plan_id, plan_hash = plan["plan_id"], plan["plan_hash"]
    for arguments, code in (
        ((plan_id, "--hash", plan_hash[:8], "--approved-by", "X"), "hash_differs"),
        ((plan_id, "--hash", "0" * 64, "--approved-by", "X"), "hash_differs"),
        ((plan_id, "--hash", "", "--approved-by", "X"), "hash_differs"),
        ((plan_id, "--hash", plan_hash, "--approved-by", "  "), "not_approved"),
        ((plan_id,), "not_approved"),
        (("20000101T000000Z-00000000", "--hash", plan_hash, "--approved-by", "X"), "no_plan"),
    ):
        ran = cockpit("apply", *arguments, "--json")
        assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, code), ran
    assert world.sent() == []
    assert world.story() == ["plan"]


@pytest.mark.parametrize("kind", ["right", "wrong words", "wrong hash", "short hash", "nothing"])
def test_a_person_at_a_terminal(world: World, cockpit: Cockpit, kind: str) -> None:
    plan = make_plan(cockpit)
    words = confirmation_words(read_plan({name: value for name, value in plan.items() if name != "blast_radius"}))
    assert words == "delete 1 customer and remove 2 relationships from sandbox.example"
    typed = {
        "right": (words, plan["plan_hash"][:8]),
        "wrong words": (words.replace("1", "2"), plan["plan_hash"][:8]),
        "wrong hash": (words, "zzzzzzzz"),
        "short hash": (words, plan["plan_hash"][:4]),
        "nothing": ("\x04",),
    }[kind]
    terminal, inner = pty.openpty()
    os.write(terminal, "".join(f"{line}\n" for line in typed).encode())
    ran = run_process(world, "apply", plan["plan_id"], "--json", stdin=inner)
    os.close(inner)
    os.close(terminal)
    if kind == "right":
        assert ran.exit_code == 0, ran.err
        assert [item["state"] for item in ran.json["items"]] == ["verified"] * 3
        assert world.records()[1].body["mode"] == "interactive"
        assert f'Type "{words}"' in ran.err
        assert len(world.sent()) == 3
    else:
        assert ran.exit_code == (4 if kind != "nothing" else ran.exit_code)
        assert ran.exit_code != 0
        assert (world.sent(), world.story()) == ([], ["plan"])


@pytest.mark.parametrize("prompt", ["the words", "the hash"])
def test_ctrl_c_at_the_approval_sends_and_records_nothing(world: World, cockpit: Cockpit, prompt: str) -> None:
    plan = make_plan(cockpit)
    terminal, inner = pty.openpty()
    if prompt == "the hash":
        words = confirmation_words(read_plan({name: value for name, value in plan.items() if name != "blast_radius"}))
        os.write(terminal, f"{words}\n".encode())
    command = [sys.executable, "-m", "cockpit_source.cli", "deletions", "apply", plan["plan_id"]]
    with subprocess.Popen(
        [*command, "--database", "inventory.duckdb"],
        stdin=inner,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=world.folder,
    ) as applying:
        assert applying.stderr is not None
        asked, begun = b"", {"the words": b'Type "', "the hash": b"Type the first"}[prompt]
        while begun not in asked and (more := os.read(applying.stderr.fileno(), 4096)):
            asked += more
        assert begun in asked, asked
        applying.send_signal(signal.SIGINT)
        try:
            out, err = applying.communicate(timeout=60)
        finally:
            # it waits for a word that never comes
            applying.kill()
    os.close(inner)
    os.close(terminal)
    assert (applying.returncode, out.strip()) == (4, b"")
    assert b"The plan was not approved, so nothing was sent." in err
    assert b"Traceback" not in asked + err
    assert (world.sent(), world.story()) == ([], ["plan"])


def test_ctrl_c_says_how_to_go_on(world: World, cockpit: Cockpit) -> None:
    """While the first deletion is read until it shows: it is not sent again, and the others are not sent."""
    plan = make_plan(cockpit)
    world.sandbox.configure(deletion_delay_seconds=3600)
    command = [sys.executable, "-m", "cockpit_source.cli", "deletions", "apply", *approval(plan)]
    with subprocess.Popen(
        [*command, "--database", "inventory.duckdb"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SOURCES__COCKPIT__DELETIONS__VERIFY_TIMEOUT_SECONDS": "600"},
        cwd=world.folder,
    ) as applying:
        assert applying.stderr is not None
        assert any("does not show yet" in line for line in applying.stderr)
        applying.send_signal(signal.SIGINT)
        _, err = applying.communicate(timeout=60)
    assert applying.returncode == 130
    assert "Traceback" not in err
    assert f"`cockpit deletions show {plan['plan_id']}` tells what was sent" in err
    assert [item["state"] for item in cockpit("show", "--json").json["items"]] == ["accepted", "planned", "planned"]
    world.sandbox.deletions.undo()
    assert cockpit("verify").exit_code == 3
    assert len(world.sent()) == 1


def test_some_failed(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    world.gate.on_delete = lambda *_: (409, error_body(409))
    ran = cockpit("apply", *approval(plan), "--json")
    assert (ran.exit_code, ran.json["stop"]["code"]) == (3, "first_not_verified")
    assert [item["state"] for item in ran.json["items"]] == ["failed", "planned", "planned"]


def test_open_ones_are_verified_later(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    world.sandbox.deletion_delay_seconds = 3600
    ran = cockpit("apply", *approval(plan))
    assert ran.exit_code == 3
    assert "The run ended early" in ran.out
    open_ = cockpit("verify", "--json")
    assert (open_.exit_code, [item["state"] for item in open_.json[0]["items"]]) == (
        3,
        ["accepted_unverified", "planned", "planned"],
    )
    refused = cockpit("plan", "--query", "left.sql", "--json")
    assert (refused.exit_code, refused.json["refusal"]["code"]) == (4, "unsettled")
    elsewhere = run_process(world, "verify", SOURCES__COCKPIT__TENANT="other.example")
    assert (elsewhere.exit_code, elsewhere.out) == (3, "")
    assert "another tenant or API" in elsewhere.err
    world.sandbox.deletion_delay_seconds = 0
    assert cockpit("verify").exit_code == 0
    assert cockpit("apply", *approval(plan)).exit_code == 0
    assert len(world.sent()) == 3


def test_verify_needs_no_protected_list(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    world.sandbox.deletion_delay_seconds = 3600
    assert cockpit("apply", *approval(plan)).exit_code == 3
    world.sandbox.deletion_delay_seconds = 0
    world.protected_file.unlink()
    config = world.folder / ".dlt" / "config.toml"
    config.write_text(config.read_text().replace('protected_file = "protected.txt"\n', ""))
    open_project(world.folder)
    for arguments in (("plan", "--query", "left.sql"), ("apply", *approval(plan))):
        ran = cockpit(*arguments)
        assert ran.exit_code == 2
        assert "protected_file is missing" in ran.err
    ran = cockpit("verify", "--json")
    assert (ran.exit_code, ran.json[0]["items"][0]["state"]) == (0, "verified"), ran.err


def test_switched_off(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    config = world.folder / ".dlt" / "config.toml"
    config.write_text(config.read_text().replace("enabled = true", "enabled = false"))
    (world.folder / ".dlt" / "secrets.toml").unlink()
    open_project(world.folder)
    for arguments in (("plan", "--query", "left.sql"), ("apply", *approval(plan))):
        ran = cockpit(*arguments, "--json")
        assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, "not_enabled")
    assert cockpit("log", "--json").json[0]["kind"] == "plan"
    assert cockpit("log").exit_code == 0
    assert cockpit("show", "--json").json == plan
    assert world.sent() == []


def test_stopped_by_the_environment(world: World, cockpit: Cockpit, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(cockpit)
    monkeypatch.setenv(STOP_VARIABLE, "yes")
    ran = cockpit("apply", *approval(plan), "--json")
    assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, "stopped")
    assert cockpit("log").exit_code == cockpit("show").exit_code == 0


def test_another_database_is_another_ledger(world: World, cockpit: Cockpit) -> None:
    make_plan(cockpit)
    assert cockpit("show", "--json", database="other.duckdb").json["refusal"]["code"] == "no_plan"
    assert cockpit("log", "--json", database="other.duckdb").json == []
    ran = cockpit("plan", "--query", "left.sql", "--json", database="other.duckdb")
    assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, "no_inventory")


def test_an_inventory_that_is_no_database_is_not_nothing_to_do(world: World, cockpit: Cockpit) -> None:
    world.inventory.database.write_bytes(b"not a database" * 1000)
    ran = cockpit("plan", "--query", "none.sql")
    assert ran.exit_code in (2, 4)
    assert ran.out == ""


def test_a_refused_sign_in(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    world.sandbox.tokens.revoke_all()
    (world.folder / ".dlt" / "secrets.toml").write_text(
        f'[sources.cockpit.deletions]\nclient_id = "{CSP_CLIENT.id}"\nclient_secret = "wrong-one"\n'
    )
    open_project(world.folder)
    for arguments in (("plan", "--query", "left.sql"), ("apply", *approval(plan))):
        ran = cockpit(*arguments)
        assert (ran.exit_code, ran.out) == (5, "")
        assert "wrong-one" not in ran.err
    assert world.sent() == []


def test_a_second_process_finds_it_in_use(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    with world.session():
        for arguments in (("plan", "--query", "left.sql"), ("apply", *approval(plan)), ("verify",)):
            assert run_process(world, *arguments).exit_code == 6
        # reading goes on, from the file at least
        log = run_process(world, "log", "--json")
        assert (log.exit_code, len(log.json)) == (0, 1)
    assert world.sent() == []


def test_lost_stores_are_mended(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    (file,) = world.folder.glob("cockpit_deletions_*.jsonl")
    file.unlink()
    for arguments in (("plan", "--query", "left.sql"), ("apply", *approval(plan)), ("verify",)):
        ran = cockpit(*arguments, "--json")
        assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, "ledger_differs")
    shown = cockpit("show", "--json")
    assert (shown.exit_code, shown.json) == (0, plan)
    assert "Warning" in shown.err
    assert cockpit("mend").exit_code == 0
    assert world.story() == ["plan", "mended"]
    assert cockpit("apply", *approval(plan)).exit_code == 0


def test_a_changed_ledger_stops_everything(world: World, cockpit: Cockpit) -> None:
    plan = make_plan(cockpit)
    (file,) = world.folder.glob("cockpit_deletions_*.jsonl")
    file.write_text(file.read_text().replace(world.a, world.other))
    ran = cockpit("apply", *approval(plan), "--json")
    assert (ran.exit_code, ran.json["refusal"]["code"]) == (4, "ledger_differs")
    assert cockpit("mend").exit_code == 4
    assert cockpit("log").exit_code == 0
    assert world.sent() == []
