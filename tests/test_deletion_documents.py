"""The pages about deletions say what the code says, and their snippets work on a ledger of a real run."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from document_support import without_what_changes
from ledger_support import LedgerFixture

import cockpit_source.deletions
from cockpit_source.deletions import settings
from cockpit_source.deletions.ledger_record import KINDS
from cockpit_source.deletions.ledger_tables import LEDGER_TABLES
from cockpit_source.deletions.selection import named_queries
from cockpit_source.sandbox import CSP_CLIENT, Sandbox

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import update_readme
from update_readme import DELETIONS_PAGE, OFFBOARDED, README, Trial

PACKAGE = Path(cockpit_source.deletions.__file__).parent
AUDIT_PAGE = ROOT / "docs" / "deletions-audit.md"
PAGE, AUDIT = DELETIONS_PAGE.read_text(encoding="utf-8"), AUDIT_PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def carried_out() -> Iterator[tuple[Trial, str]]:
    """The run of the README, its project still there."""
    with update_readme.start_trial() as trial:
        yield trial, update_readme.carry_out_deletions(trial)


@pytest.fixture
def ledger_file(carried_out: tuple[Trial, str]) -> Path:
    (path,) = carried_out[0].project.glob("cockpit_deletions_*.jsonl")
    return path


@pytest.fixture
def ledger(carried_out: tuple[Trial, str]) -> Iterator[duckdb.DuckDBPyConnection]:
    database = carried_out[0].project / "license_inventory.deletions.duckdb"
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def test_run_of_the_readme_is_what_the_commands_print(carried_out: tuple[Trial, str]) -> None:
    block = update_readme.read_block("deletions", README.read_text(encoding="utf-8"))
    assert without_what_changes(block) == without_what_changes(carried_out[1])


def test_run_by_hand_is_what_a_person_at_a_terminal_sees() -> None:
    block = update_readme.read_block("deletions-by-hand", PAGE)
    assert without_what_changes(block) == without_what_changes(update_readme.run_deletions_by_hand())


def test_settings_of_the_page_are_those_of_the_code() -> None:
    assert update_readme.read_block("deletion-settings", PAGE) == update_readme.render_settings(settings.KEYS)


def test_every_refusal_is_documented_and_the_other_way_round() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Every refusal")[1], re.MULTILINE)
    assert sorted(documented) == sorted(set(documented))
    # of the whole package, and those of a ledger that cannot be used
    assert set(documented) == {code for path in PACKAGE.glob("*.py") for code in _find_codes(path)} | {
        "ledger_unavailable",
        "ledger_differs",
    }


def test_named_queries_states_and_kinds_are_documented() -> None:
    for name in named_queries():
        assert f"| `{name}` |" in PAGE
    states = re.findall(r'^    "(\w+)",$', (PACKAGE / "history.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(states) == 9
    for state in states:
        assert f"| `{state}` |" in PAGE
    assert re.findall(r"^\| `(\w+)` \|", AUDIT, re.MULTILINE)[: len(KINDS)] != []
    for kind in KINDS:
        assert f"| `{kind}` |" in AUDIT


def test_every_module_is_in_the_order_of_reading() -> None:
    order = AUDIT.split("## Reading the code")[1].split("## What holds it")[0]
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", order, re.MULTILINE))))


def test_files_and_commands_that_hold_it_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make (\w+)`", PAGE + AUDIT)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for file in set(re.findall(r"`(tests/\w+\.\w+)`", PAGE + AUDIT)):
        assert (ROOT / file).is_file(), file


def test_every_command_of_the_pages_exists() -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "cockpit_source.cli", "deletions", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for command in set(re.findall(r"`cockpit deletions (\w+)", PAGE + AUDIT)):
        assert re.search(rf"^\W*{command}\b", listing, re.MULTILINE), command


def test_sql_of_the_auditor_answers_who_deleted_what(ledger: duckdb.DuckDBPyConnection) -> None:
    planned, sent, evidence, proofs = (
        _rows(ledger, statement) for statement in ledger.extract_statements(_sql("audit.sql"))
    )
    assert [(row["item"], row["action"], row["customer_id"], row["last_word"]) for row in planned] == [
        (1, "remove_reseller_relationship", OFFBOARDED, "verified"),
        (2, "delete_customer", OFFBOARDED, "verified"),
    ]
    assert {(row["reason"], row["approved_by"], row["query_name"]) for row in planned} == {
        ("contract ended, ticket 4711", update_readme.APPROVED_BY, "offboard.sql")
    }
    assert [(row["method"], row["result"], row["http_status"]) for row in sent] == [("DELETE", "accepted", 202)] * 2
    assert sent[1]["path"] == f"/v1/Customers/{OFFBOARDED}"
    assert len({row["correlation_id"] for row in sent}) == 2
    assert [json.loads(row["evidence"])["live"]["exists"] for row in evidence] == [True, True]
    assert [json.loads(row["proof"])["kind"] for row in proofs] == ["audit_log", "not_found"]


def test_hashes_can_be_recomputed_from_the_file_alone(
    ledger: duckdb.DuckDBPyConnection, ledger_file: Path, tmp_path: Path
) -> None:
    script, copy = tmp_path / "check_hashes.py", tmp_path / "copy.jsonl"
    script.write_text(update_readme.read_code("check_hashes.py", AUDIT_PAGE), encoding="utf-8")
    text = ledger_file.read_text(encoding="utf-8")

    def check(changed: str) -> subprocess.CompletedProcess[str]:
        copy.write_text(changed, encoding="utf-8")
        return subprocess.run([sys.executable, str(script), str(copy)], capture_output=True, text=True)

    (last,) = ledger.execute("SELECT max_by(record_hash, seq) FROM cockpit_deletions.deletion_events").fetchall()
    assert check(text).stdout == f"9 records, the last has the hash {last[0]}\n"
    lines = text.splitlines(keepends=True)
    assert "record 2" in check(text.replace(update_readme.APPROVED_BY, "somebody else, change 4712")).stderr
    assert "record 3" in check("".join(lines[:2] + lines[3:])).stderr
    assert "record 4" in check("".join([*lines[:3], lines[4], lines[3], *lines[5:]])).stderr


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_sql_of_the_auditor_works_on_both_warehouses(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """On PostgreSQL with the replacements that the page names; a changed plan shows there."""
    stores = LedgerFixture(kind, tmp_path, request.getfixturevalue("postgres_url") if kind == "postgres" else None)
    stores.write_story()
    audit, hashes = _sql("audit.sql"), _sql("plan_hash.sql")
    if kind == "postgres":
        audit = re.sub(r"body ->> '\$\.(\w+)'", r"body::json ->> '\1'", audit)
        hashes = re.sub(r"sha256\(\"?(\w+)\"?\)", r"""encode(sha256(convert_to("\1", 'UTF8')), 'hex')""", hashes)
    for statement in audit.split(";\n")[:4]:
        assert _select(stores, statement)
    assert [row[2:] for row in _select(stores, hashes)] == [(True, True)]
    stores.run("UPDATE cockpit_deletions.deletion_plans SET plan = replace(plan, 'Contoso', 'Fabrikam')")
    assert [row[2:] for row in _select(stores, hashes)] == [(False, True)]


def test_columns_of_the_ledger_are_in_the_page_of_tables() -> None:
    page = update_readme.TABLES_PAGE.read_text(encoding="utf-8")
    for table in LEDGER_TABLES.values():
        section = page.split(f"## cockpit_deletions.{table.name}\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [column.name for column in table.columns]


def test_script_plans_applies_and_verifies(sandbox: Sandbox, tmp_path: Path) -> None:
    """`pipelines/deletions.py` in a project folder, with settings from the environment."""
    sandbox.offboard(OFFBOARDED)
    (tmp_path / "protected.txt").touch()
    (tmp_path / "offboard.sql").write_text(update_readme.read_code("offboard.sql", DELETIONS_PAGE), encoding="utf-8")
    load = {
        "tenant": sandbox.tenant.domain,
        "base_url": sandbox.base_url,
        "token_url": sandbox.token_url,
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "discover": "true",
    }
    deletions = {
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "protected_file": "protected.txt",
        "seconds_between_calls": "0",
    }
    environment = (
        os.environ
        | {f"SOURCES__COCKPIT__{name.upper()}": value for name, value in load.items()}
        | {f"SOURCES__COCKPIT__DELETIONS__{name.upper()}": value for name, value in deletions.items()}
    )

    def run(script: str, *arguments: str, enabled: str = "true") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "pipelines" / script), *arguments]
        variables = environment | {"SOURCES__COCKPIT__DELETIONS__ENABLED": enabled}
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

    assert run("license_inventory.py").returncode == 3
    off = run("deletions.py", "plan", "offboard.sql", enabled="false")
    assert (off.returncode, off.stdout, "switched off" in off.stderr) == (4, "", True)
    assert run("deletions.py", "destroy").returncode == 2
    planned = run("deletions.py", "plan", "offboard.sql")
    assert planned.returncode == 0, planned.stderr
    plan_id, plan_hash = re.findall(r"^(?:plan|hash) (\S+)$", planned.stdout, re.MULTILINE)
    wrong = run("deletions.py", "apply", plan_id, plan_hash[:8], "change 4711")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (4, False)
    applied = run("deletions.py", "apply", plan_id, plan_hash, "change 4711")
    assert (applied.returncode, applied.stdout) == (0, "item 1 verified\nitem 2 verified\n"), applied.stderr
    settled = run("deletions.py", "verify", enabled="false")
    assert (settled.returncode, settled.stdout) == (0, ""), settled.stderr
    deleted = [request["path"] for request in sandbox.log.since(0)[0] if request["method"] == "DELETE"]
    assert (len(deleted), deleted[1]) == (2, f"/v1/Customers/{OFFBOARDED}")


def _find_codes(path: Path) -> Iterator[str]:
    """The codes with which a module refuses or stops."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            is_refusal = node.func.id in {"Refusal", "DeletionRefused", "_Stop", "_refused"}
            first = node.args[0] if is_refusal and node.args else None
        else:
            # (code, text), in candidate_rows
            is_pair = isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple)
            first = node.value.elts[0] if is_pair else None
        if isinstance(first, ast.Constant):
            yield first.value


def _sql(name: str) -> str:
    return update_readme.read_code(name, AUDIT_PAGE)


def _rows(connection: duckdb.DuckDBPyConnection, statement: Any) -> list[dict[str, Any]]:
    result = connection.execute(statement)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _select(stores: LedgerFixture, statement: str) -> list[tuple[Any, ...]]:
    if stores.kind == "duckdb":
        with duckdb.connect(str(stores.database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(statement).fetchall()
    connection = psycopg2.connect(stores.url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    finally:
        connection.close()
