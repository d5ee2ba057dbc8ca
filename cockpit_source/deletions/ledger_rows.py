"""Records as rows of the tables, and back. Pure: nothing here reads or writes.

Columns beside those that make up a record are derived from it, for an auditor's SQL. A row that differs from what its
record gives, in whichever column, is found when the tables are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cockpit_source.deletions.ledger_record import (
    LedgerRecord,
    StoreContent,
    clean,
    find_break,
    read_json,
    to_text,
)
from cockpit_source.deletions.ledger_tables import (
    DELETION_EVENTS,
    DELETION_PLAN_ITEMS,
    DELETION_PLANS,
    LEDGER_TABLES,
    LedgerTable,
)

Row = tuple[Any, ...]
# by table
Rows = Mapping[str, Sequence[Row]]

_LARGEST_COUNT = 2**31 - 1


def to_rows(records: Iterable[LedgerRecord]) -> dict[str, list[Row]]:
    """The rows of all tables that these records give."""
    rows: dict[str, list[Row]] = {name: [] for name in LEDGER_TABLES}
    for record in records:
        if record.kind == "plan":
            rows[DELETION_PLANS.name].append(_plan_row(record))
            rows[DELETION_PLAN_ITEMS.name] += [
                _item_row(record, item) for item in record.body["plan"].get("items", [])
            ]
        else:
            rows[DELETION_EVENTS.name].append(_event_row(record))
    return rows


def read_rows(rows: Rows) -> StoreContent:
    """The records that the rows of the tables are of."""
    stored = {name: set(rows.get(name, ())) for name in LEDGER_TABLES}
    records: list[LedgerRecord] = []
    for name, found in stored.items():
        if len(found) < len(rows.get(name, ())):
            return StoreContent(records, f"rows of {name} are doubled")
    left = {name: len(found) for name, found in stored.items()}
    for table, row in sorted(_iter_record_rows(stored), key=lambda pair: pair[1][0]):
        try:
            record = _read_row(table, row)
        except (TypeError, ValueError) as error:
            return StoreContent(records, f"record {row[0]} cannot be read: {error}")
        own = to_rows([record])
        problem = find_break(record, records[-1] if records else None) or _find_other(own, stored)
        if problem:
            return StoreContent(records, problem)
        records.append(record)
        for name, some in own.items():
            left[name] -= len(some)
    if extra := [name for name, count in left.items() if count]:
        return StoreContent(records, f"{', '.join(extra)} holds rows of no record")
    return StoreContent(records)


def _iter_record_rows(stored: Mapping[str, set[Row]]) -> Iterable[tuple[LedgerTable, Row]]:
    for table in (DELETION_PLANS, DELETION_EVENTS):
        for row in stored[table.name]:
            yield table, row


def _read_row(table: LedgerTable, row: Row) -> LedgerRecord:
    values = _named(table, row)
    if table is DELETION_PLANS:
        body = {"plan": read_json(values["plan"]), "plan_hash": values["plan_hash"]}
        values |= {"kind": "plan", "item": None, "correlation_id": None}
    else:
        body = read_json(values["body"])
    return LedgerRecord(
        seq=values["seq"],
        kind=values["kind"],
        at=values["recorded_at"],
        plan_id=values["plan_id"],
        item=values["item"],
        actor=values["actor"],
        correlation_id=values["correlation_id"],
        body=body,
        previous_hash=values["previous_hash"],
        record_hash=values["record_hash"],
    )


def _find_other(own: Rows, stored: Mapping[str, set[Row]]) -> str | None:
    """Which of the rows of one record is stored otherwise."""
    for name, some in own.items():
        for row in some:
            if row not in stored[name]:
                return f"a row of {name} that belongs to record {row[0]} is missing or was changed"
    return None


def _plan_row(record: LedgerRecord) -> Row:
    plan = record.body["plan"]
    return _in_order(
        DELETION_PLANS,
        {
            "seq": record.seq,
            "recorded_at": record.at,
            "plan_id": record.plan_id,
            "plan_hash": record.body["plan_hash"],
            "actor": record.actor,
            "created_at": _time(plan.get("created_at")),
            "expires_at": _time(plan.get("expires_at")),
            "run_id": _text(_find(plan, "run", "run_id")),
            "plan": to_text(plan),
            "previous_hash": record.previous_hash,
            "record_hash": record.record_hash,
        }
        | {
            name: _text(plan.get(name))
            for name in ("tenant", "base_url", "created_by", "query_name", "query_text", "query_hash")
        },
    )


def _item_row(record: LedgerRecord, item: Mapping[str, Any]) -> Row:
    name = _find(item, "inventory", "company_name") or _find(item, "live", "company_name")
    return _in_order(
        DELETION_PLAN_ITEMS,
        {
            "seq": record.seq,
            "plan_id": record.plan_id,
            "item": item["number"],
            "customer_name": _text(name),
            "evidence": to_text({"inventory": item.get("inventory"), "live": item.get("live")}),
        }
        | {
            name: _text(_find(item, "candidate", name))
            for name in ("action", "customer_id", "provider_instance_id", "reason")
        },
    )


def _event_row(record: LedgerRecord) -> Row:
    body = record.body
    return _in_order(
        DELETION_EVENTS,
        {
            "seq": record.seq,
            "recorded_at": record.at,
            "kind": record.kind,
            "plan_id": record.plan_id,
            "item": record.item,
            "actor": record.actor,
            "correlation_id": record.correlation_id,
            "result": _text(body.get("result")),
            "http_status": _count(body.get("http_status")),
            "description": _text(body.get("description")),
            "body": to_text(body),
            "previous_hash": record.previous_hash,
            "record_hash": record.record_hash,
        },
    )


def _in_order(table: LedgerTable, values: Mapping[str, Any]) -> Row:
    return tuple(values[column.name] for column in table.columns)


def _named(table: LedgerTable, row: Row) -> dict[str, Any]:
    return dict(zip((column.name for column in table.columns), row, strict=True))


def _find(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else None


def _time(value: Any) -> datetime | None:
    """The time that the text of a plan gives, None where it is none."""
    try:
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC) if time.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None
