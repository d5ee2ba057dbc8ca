"""Records for tests of the deletions' ledger, and its two stores seen from outside."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
from support import INSTANCE, new_id

from cockpit_source.deletions.ledger import Ledger, LedgerRecord, open_ledger
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.deletions.ledger_tables import LEDGER_TABLES
from cockpit_source.deletions.records import (
    DELETE_CUSTOMER,
    REMOVE_RELATIONSHIP,
    Candidate,
    InventoryEvidence,
    InventoryRun,
    Limits,
    LiveEvidence,
    LiveScope,
    Plan,
    PlanItem,
    ScopeEvidence,
    Sku,
    Subscription,
    hash_text,
)
from cockpit_source.pipeline import create_pipeline

START = datetime(2026, 3, 1, 10, 0, 0, 123457, tzinfo=UTC)
ODD = "Офис — 企業版 🚀 مكتب ' \" \\ \\N ; -- \n\r\t\u2028 %s {x} $1 nul\x00 and \ud800 alone"
ACTOR = "operator@machine"


def at(number: int) -> datetime:
    """Times that differ by microseconds, seconds and minutes."""
    return START + timedelta(seconds=61 * number, microseconds=number)


def make_plan(plan_id: str = "plan-1", name: str = "Contoso") -> Plan:
    """A plan of a relationship and its customer, with every kind of evidence."""
    run = InventoryRun("run-1", at(-60), None, "complete", "https://api.example", 900, 0, (890, 901))
    inventory = InventoryEvidence(
        name,
        None,
        None,
        True,
        at(-9000),
        (ScopeEvidence("c|i", INSTANCE, None, "ok", (Sku("e3", "Office 365 E3", 25, None),)),),
    )
    live = LiveEvidence(
        True,
        name,
        None,
        (INSTANCE,),
        (LiveScope(INSTANCE, None, 25, 0),),
        (Subscription("s-1", None, name, "suspended"),),
    )
    items = (
        PlanItem(1, Candidate(REMOVE_RELATIONSHIP, new_id(1), INSTANCE, f"left {name}"), inventory, live),
        PlanItem(2, Candidate(DELETE_CUSTOMER, new_id(1), None, "left"), inventory, live),
    )
    query = f"SELECT 'delete_customer' AS action -- {name}"
    limits = Limits(5, 1.0, 20, 24.0, 0.5, "a" * 64)
    return Plan(
        plan_id,
        "csp.example",
        "csp.example",
        "https://api.example",
        "left.sql",
        query,
        hash_text(query),
        run,
        899,
        limits,
        ACTOR,
        at(0),
        at(60),
        "0.1.0",
        items,
    )


def plan_body(plan: Plan) -> dict[str, Any]:
    return {"plan": asdict(plan), "plan_hash": plan.plan_hash}


def append_story(ledger: Ledger, plan_id: str = "plan-1", name: str = "Contoso") -> None:
    """Eight records: a plan and what became of it, of nearly all kinds."""

    def add(kind: str, body: Mapping[str, Any], **members: Any) -> None:
        ledger.append(kind, at=at(len(ledger.records)), actor=ACTOR, body=body, **members)

    add("selection", {"query_hash": "q", "run_id": "run-1", "run_started_at": at(-60), "keys": (name, "b")})
    add("plan", plan_body(make_plan(plan_id, name)), plan_id=plan_id)
    add(
        "apply_started", {"approved_by": name, "mode": "interactive", "limits": {"max_percent": 0.1}}, plan_id=plan_id
    )
    add("intent", {"method": "DELETE", "path": "/x", "attempt": 1}, plan_id=plan_id, item=1, correlation_id="c-1")
    outcome = {"result": "accepted", "http_status": 202, "description": name, "duration_ms": 12}
    add("outcome", outcome, plan_id=plan_id, item=1, correlation_id="c-1")
    add("settled", {"result": "verified", "proof": {"status": 404}, "description": ""}, plan_id=plan_id, item=1)
    add("already_absent", {"proof": {"text": name * 3}}, plan_id=plan_id, item=2)
    add("finished", {"results": {"verified": 1, "already_absent": 1}}, plan_id=plan_id)


@dataclass(frozen=True)
class LedgerFixture:
    """A ledger in a folder, its warehouse being DuckDB or PostgreSQL."""

    kind: str
    folder: Path
    url: str | None = None

    @cached_property
    def pipeline(self) -> Any:
        database = self.folder / "inventory.duckdb" if self.kind == "duckdb" else None
        return create_pipeline("csp.example", destination=self.kind, database=database)

    @property
    def file(self) -> Path:
        return ledger_place(self.pipeline).file_in(self.folder)

    @property
    def database(self) -> Path:
        return self.folder / "inventory.deletions.duckdb"

    def open(self, *, read_only: bool = False) -> Any:
        return open_ledger(self.pipeline, self.folder, read_only=read_only)

    def write_story(self) -> list[LedgerRecord]:
        with self.open() as ledger:
            append_story(ledger)
            return list(ledger.records)

    def read(self) -> tuple[list[LedgerRecord], str | None]:
        with self.open(read_only=True) as ledger:
            return ledger.records, ledger.difference

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement as anybody with access to the database could; `?` stands for a value."""
        if self.kind == "duckdb":
            with duckdb.connect(str(self.database)) as connection:
                found = connection.execute(sql, list(values))
                return found.fetchall() if sql.startswith("SELECT") else []
        with closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description else []

    def remove_warehouse(self) -> None:
        if self.kind == "duckdb":
            self.database.unlink()
        else:
            self.run("DROP SCHEMA cockpit_deletions CASCADE")

    def has_warehouse(self) -> bool:
        if self.kind == "duckdb":
            return self.database.exists()
        return bool(self.run("SELECT 1 FROM pg_namespace WHERE nspname = 'cockpit_deletions'"))


def stored_rows(fixture: LedgerFixture) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables as text."""
    rows = {}
    for name, table in LEDGER_TABLES.items():
        columns = ", ".join(f"CAST({column.name} AS VARCHAR)" for column in table.columns)
        rows[name] = sorted(fixture.run(f"SELECT {columns} FROM cockpit_deletions.{name}"), key=str)
    return rows
