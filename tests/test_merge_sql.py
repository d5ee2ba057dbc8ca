"""The SQL that dlt would send to databases on which no load was run: it says what it must, and can be parsed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from generate_merge_sql import CREDENTIALS
from sqlglot import exp

from cockpit_source.tables import REFERENCE_TABLES, TABLES

ALL_TABLES = {**TABLES, **REFERENCE_TABLES}
MARKED_TENANT = "tenant IN (SELECT m.tenant FROM {staging} m WHERE m.sku_id = '')"
MARKED = "scope_key IN (SELECT m.scope_key FROM {staging} m WHERE m.sku_id = '')"


@pytest.fixture(scope="module")
def generated() -> dict[str, Any]:
    """Of each destination: its dialect, and the statements by table."""
    script = Path(__file__).with_name("generate_merge_sql.py")
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


@pytest.fixture(params=CREDENTIALS)
def sql(request: pytest.FixtureRequest, generated: dict[str, Any]) -> dict[str, Any]:
    return dict(generated[request.param])


def _flat(statements: list[str]) -> list[str]:
    return [" ".join(statement.split()) for statement in statements]


def _staging(statement: str) -> str:
    """The staging table that a statement reads."""
    found = re.search(r"FROM (\S*staging\S*)", statement, re.IGNORECASE)
    assert found, statement
    return found[1]


def test_only_marked_scopes_lose_their_licences(sql: dict[str, Any]) -> None:
    delete, insert = _flat(sql["merges"]["licenses"])
    assert delete.startswith("DELETE FROM ")
    assert delete.endswith(f"WHERE {MARKED.format(staging=_staging(delete))};")
    assert insert.startswith("INSERT INTO ")
    assert "sku_id <> ''" in insert


@pytest.mark.parametrize("name", REFERENCE_TABLES)
def test_only_marked_tenants_lose_their_lists(sql: dict[str, Any], name: str) -> None:
    delete, insert = _flat(sql["merges"][name])
    assert delete.startswith("DELETE FROM ")
    assert delete.endswith(f"WHERE {MARKED_TENANT.format(staging=_staging(delete))};")
    assert insert.startswith("INSERT INTO ")
    assert "sku_id <> ''" in insert


def test_only_marked_scopes_have_versions_retired(sql: dict[str, Any]) -> None:
    retire, insert = _flat(sql["merges"]["license_history"])
    assert MARKED.format(staging=_staging(retire)) in retire
    assert "2026-01-01 06:00:00" in retire
    assert "2026-01-01 06:00:00" in insert
    assert retire.startswith(("UPDATE ", "ALTER TABLE "))
    for statement in (retire, insert):
        assert "sku_id <> ''" in statement


def test_every_statement_can_be_parsed(sql: dict[str, Any]) -> None:
    """Those of the plain merges, with their temporary tables, too."""
    assert set(sql["merges"]) == set(ALL_TABLES)
    for statements in sql["merges"].values():
        for statement in statements:
            parsed = sqlglot.parse_one(statement, dialect=sql["dialect"])
            if not statement.strip().startswith("ALTER TABLE"):
                assert not isinstance(parsed, exp.Command), statement


def test_every_column_has_a_type(sql: dict[str, Any]) -> None:
    for name, table in ALL_TABLES.items():
        text = "\n".join(sql["creates"][name])
        for column in (*table.columns, *table.versioned_columns):
            assert re.search(rf"[\"`\[]?{column.name}[\"`\]]? [\"\w]+", text, re.IGNORECASE), (name, column.name)
