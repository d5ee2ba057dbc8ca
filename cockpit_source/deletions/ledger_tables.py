"""The tables of the ledger in the warehouse: grain, key and columns. Every time is UTC; rows are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cockpit_source.deletions.ledger_record import KINDS
from cockpit_source.tables import COUNT, TEXT, TIME, Column

LEDGER_DATASET = "cockpit_deletions"


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """One table: its grain, its key, and columns in their order."""

    name: str
    grain: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]


def _column(name: str, kind: Any, description: str) -> Column:
    return Column(name, kind, description)


def _required(name: str, kind: Any, description: str) -> Column:
    return Column(name, kind, description, nullable=False)


_SEQ = _required("seq", COUNT, "number of the record in the ledger, from 1; plans and events share one count")
_RECORDED_AT = _required("recorded_at", TIME, "when the record was made")
_ACTOR = _required("actor", TEXT, "who ran the command: user and machine, as the operating system names them")
_HASHES = (
    _required("previous_hash", TEXT, "record_hash of the record before; zeros for the first"),
    _required("record_hash", TEXT, "SHA-256 over the canonical JSON of the record without this hash, in hex"),
)

DELETION_PLANS = LedgerTable(
    "deletion_plans",
    "a plan",
    "Every plan of deletions that was made, as it was hashed, and on which query and inventory it rests.",
    ("seq",),
    (
        _SEQ,
        _RECORDED_AT,
        _required("plan_id", TEXT, "id of the plan"),
        _required("plan_hash", TEXT, "SHA-256 over the column plan, in hex; what an approver confirms"),
        _ACTOR,
        _column("tenant", TEXT, "tenant of the CSP"),
        _column("base_url", TEXT, "address of the API"),
        _column("created_at", TIME, "when the plan was made"),
        _column("expires_at", TIME, "until when it may be started"),
        _column("created_by", TEXT, "who made it"),
        _column("query_name", TEXT, "name or file of the query"),
        _column("query_text", TEXT, "the query itself"),
        _column("query_hash", TEXT, "SHA-256 over the query, in hex"),
        _column("run_id", TEXT, "run of the load whose inventory it rests on"),
        _required("plan", TEXT, "the whole plan with its evidence and limits, as canonical JSON"),
        *_HASHES,
    ),
)
DELETION_PLAN_ITEMS = LedgerTable(
    "deletion_plan_items",
    "a deletion of a plan",
    "Each deletion that a plan holds, why, and what the warehouse and the API said of it.",
    ("plan_id", "item"),
    (
        _required("seq", COUNT, "number of the plan's record in the ledger"),
        _required("plan_id", TEXT, "id of the plan"),
        _required("item", COUNT, "number of the deletion in the plan, from 1, in the order of sending"),
        _column("action", TEXT, "delete_customer or remove_reseller_relationship"),
        _column("customer_id", TEXT, "id of the customer"),
        _column("provider_instance_id", TEXT, "id of the provider instance; null when the customer is deleted"),
        _column("customer_name", TEXT, "name of the customer in the inventory"),
        _column("reason", TEXT, "the reason that the query gives"),
        _required("evidence", TEXT, "JSON object: what the inventory and the API said of the customer"),
    ),
)
DELETION_EVENTS = LedgerTable(
    "deletion_events",
    "a record of the ledger that is not a plan",
    "Everything that was done and found: each request before it was sent, what came of it, and what proves it.",
    ("seq",),
    (
        _SEQ,
        _RECORDED_AT,
        _required("kind", TEXT, "one of " + ", ".join(kind for kind in KINDS if kind != "plan")),
        _column("plan_id", TEXT, "id of the plan; null where it concerns none"),
        _column("item", COUNT, "number of the deletion in the plan; null where it concerns all of it"),
        _ACTOR,
        _column("correlation_id", TEXT, "X-Correlation-Id of the DELETE request; null where none was sent"),
        _column("result", TEXT, "what came of a request (outcome) or was proved (settled)"),
        _column("http_status", COUNT, "status of the answer; null where none arrived"),
        _column("description", TEXT, "what happened, in words"),
        _required("body", TEXT, "all that is known, as canonical JSON"),
        *_HASHES,
    ),
)
LEDGER_TABLES: Mapping[str, LedgerTable] = {
    table.name: table for table in (DELETION_PLANS, DELETION_PLAN_ITEMS, DELETION_EVENTS)
}
