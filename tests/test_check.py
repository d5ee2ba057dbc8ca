"""`cockpit check`: every step in turn, and what it says where one fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console
from support import INSTANCE, Inventory, new_id, sku

from cockpit_source.check import run_checks
from cockpit_source.configuration import resolve_settings
from cockpit_source.errors import ConfigurationError

STEPS = ["configuration", "warehouse", "sign-in", "scope list", "one call"]
SCOPE = {"customer_id": new_id(1), "provider_instance_id": INSTANCE}

Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(inventory: Inventory) -> Check:
    """Runs the checks with these settings; the exit code and what was printed below the files."""
    inventory.answer(new_id(1), [sku("e3"), sku("e5")])

    def run(**settings: Any) -> tuple[int, list[str]]:
        text = StringIO()
        given = inventory.connection() | inventory.settings | {"scopes": [SCOPE]} | settings
        code = run_checks(
            lambda: resolve_settings(**given), lambda _: inventory.pipeline(), Console(file=text, width=60)
        )
        lines = text.getvalue().splitlines()
        files = [line for line in lines if line.startswith(("read ", "not there "))]
        assert lines[: len(files)] == files
        assert "Traceback" not in text.getvalue()
        assert inventory.connection()["client_secret"] not in text.getvalue()
        return code, lines[len(files) :]

    return run


def steps(lines: list[str]) -> list[tuple[str, str]]:
    """The verdict on every step that was reached."""
    return [(line.split()[0], line[11:].split(":")[0]) for line in lines if line.startswith(("ok   ", "failed   "))]


def expect_failure(lines: list[str], step: str) -> str:
    """What was said about `step`, which failed after all steps before it went well."""
    position = STEPS.index(step)
    assert steps(lines) == [("ok", name) for name in STEPS[:position]] + [("failed", step)]
    return "\n".join(lines[position:]).removeprefix(f"failed     {step}: ")


def test_all_steps_go_well_and_nothing_is_written(check: Check, inventory: Inventory) -> None:
    code, lines = check()
    assert code == 0
    assert steps(lines) == [("ok", name) for name in STEPS]
    assert lines[:4] == [
        f"ok         configuration: tenant sandbox.example, {inventory.sandbox.base_url}",
        f"ok         warehouse: duckdb:///{inventory.database}",
        "ok         sign-in: token received",
        "ok         scope list: 1 scopes from 1 lines",
    ]
    assert lines[4].startswith(f"ok         one call: customer {new_id(1)}: 2 licence rows in ")
    assert len([request for request in inventory.sandbox.requests if "licenses" in request.path]) == 1
    with duckdb.connect(str(inventory.database)) as connection:
        assert connection.execute("FROM duckdb_tables()").fetchall() == []


def test_files_are_shown_first_with_whether_they_exist(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").touch()
    text = StringIO()

    def refuse() -> Any:
        raise ConfigurationError("no settings")

    code = run_checks(refuse, lambda _: pytest.fail("not reached"), Console(file=text, width=60))
    lines = text.getvalue().splitlines()
    assert code == 2
    assert lines[:2] == [
        f"not there  {tmp_path / '.dlt' / 'secrets.toml'}",
        f"read       {tmp_path / '.dlt' / 'config.toml'}",
    ]
    assert lines[-1] == "failed     configuration: no settings"


def test_wrong_configuration_is_told(check: Check) -> None:
    code, lines = check(tenant="https://[b]wrong[/b]", max_attempts=0)
    assert code == 2
    said = expect_failure(lines, "configuration")
    assert 'tenant is an address, but the bare domain is wanted (got "https://[b]wrong[/b]")' in said
    assert "max_attempts is out of range (got 0)" in said


def test_unusable_warehouse_is_told(check: Check, inventory: Inventory) -> None:
    inventory.database.write_text("notes\n" * 1_000)
    code, lines = check()
    assert code == 2
    said = expect_failure(lines, "warehouse")
    assert said.startswith(f"The destination duckdb:///{inventory.database} cannot be used: IO Error: The file ")
    assert inventory.database.read_text() == "notes\n" * 1_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"scopes": [SCOPE, {"customer_id": "x"}]},
            "The scopes list has 1 wrong line; nothing was loaded:\n  - entry 2",
        ),
        ({"scopes": None, "scopes_file": "missing.csv"}, "The scopes file "),
        ({"scopes": None, "scopes_query": "SELECT * FROM nothing"}, "scopes_query failed: Catalog Error: "),
        ({"scopes": None, "scopes_query": "SELECT 1 AS a WHERE false"}, "The scope list is empty;"),
    ],
)
def test_wrong_scope_list_is_told(check: Check, settings: dict[str, Any], expected: str) -> None:
    code, lines = check(**settings)
    assert code == 2
    assert expect_failure(lines, "scope list").startswith(expected)


def test_refused_sign_in_is_told(check: Check) -> None:
    code, lines = check(client_secret="hunter-two")
    assert code == 5
    said = expect_failure(lines, "sign-in")
    assert said.startswith("Sign-in was refused (HTTP 401 from ")
    assert "hunter" not in said


def test_impossible_sign_in_is_told(check: Check, inventory: Inventory) -> None:
    inventory.sandbox.faults.for_sign_in("html_503")
    code, lines = check()
    assert code == 1
    assert "gave no answer that can be used (HTTP 503)" in expect_failure(lines, "sign-in")


def test_ready_token_is_tried_by_the_call(check: Check) -> None:
    code, lines = check(client_id=None, client_secret=None, access_token="expired")
    assert code == 5
    assert lines[2] == "ok         sign-in: a ready token, not yet tried"
    assert expect_failure(lines, "one call").startswith("The API refused the access token (401)")


@pytest.mark.parametrize(
    ("status", "body", "code", "expected"),
    [
        (403, b"", 3, "HTTP 403, http_403: these credentials may not read this"),
        (404, b"", 3, "HTTP 404, http_404: this does not exist for these credentials"),
        (400, b'{"type": "[b]Bad[/b]", "description": "no"}', 3, "HTTP 400, [b]Bad[/b]: no"),
        (200, json.dumps([{"skuId": None}]).encode(), 3, "1 of 1 rows do not fit; row "),
        (200, b"<html>sign in</html>", 1, "HTTP 200, web_page: the API answered 200 with a web page"),
        (200, b"{}", 1, "HTTP 200, wrong_shape: the answer is an object with no members, not an array"),
        (429, b"", 1, "HTTP 429, http_429: the API asked to slow down"),
        (500, b"", 1, "HTTP 500, http_500: the API could not answer"),
    ],
)
def test_call_that_brings_no_licences_is_told(
    check: Check, inventory: Inventory, status: int, body: bytes, code: int, expected: str
) -> None:
    """3 where only this customer is concerned, 1 where the API as a whole seems to be."""
    inventory.sandbox.answer(new_id(1), body, status=status)
    exit_code, lines = check()
    assert exit_code == code
    assert expect_failure(lines, "one call").startswith(f"customer {new_id(1)}: {expected}")


def test_call_that_breaks_off_is_told(check: Check, inventory: Inventory) -> None:
    inventory.sandbox.faults.for_customer(new_id(1), "reset")
    code, lines = check()
    assert code == 1
    said = expect_failure(lines, "one call")
    assert "connection_error" in said
    assert "Check the network and base_url, and run again." in said


def test_check_with_discovery_lists_but_reads_no_gdap_relationships(check: Check, inventory: Inventory) -> None:
    """They would take a call for every scope."""
    code, lines = check(scopes=None, discover=True, gdap_relationships=True)
    assert code == 0
    assert lines[3].startswith("ok         scope list: Discovered 119 customers in 126 scopes. Left out: 3 deleted")
    asked = [request.path.lower() for request in inventory.sandbox.requests]
    assert not [path for path in asked if "delegated-admin" in path]
    assert asked.count("/v1/customers") == 1
