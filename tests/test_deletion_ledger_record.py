"""Records, their text and rows, and the rules by which two stores are held against each other: for any records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_support import append_story, at, make_plan, plan_body

from cockpit_source.deletions.ledger import open_ledger_at
from cockpit_source.deletions.ledger_compare import compare
from cockpit_source.deletions.ledger_file import LedgerFile
from cockpit_source.deletions.ledger_place import place_beside
from cockpit_source.deletions.ledger_record import (
    FIRST_HASH,
    LedgerRecord,
    StoreContent,
    find_break,
    make_record,
    read_record,
)
from cockpit_source.deletions.ledger_rows import Row, read_rows, to_rows
from cockpit_source.deletions.records import hash_text

# lone surrogates and U+0000 too
TEXTS = st.text(st.characters(), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(["result", "http_status", "description"]) | TEXTS, VALUES, max_size=4)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=ZONES)
_STEPS = st.lists(st.tuples(st.booleans(), TIMES, TEXTS, BODIES), max_size=6)

_REUSED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@st.composite
def chains(draw: Any) -> list[LedgerRecord]:
    """Records in a chain, some of them plans with items."""
    records: list[LedgerRecord] = []
    for number, (is_plan, moment, text, body) in enumerate(draw(_STEPS)):
        members: dict[str, Any] = {"plan_id": f"{number} {text}", "body": body, "item": None}
        if is_plan:
            items = [{"number": item, "candidate": body, "inventory": {"company_name": text}} for item in (2, 1)]
            members["body"] = {"plan": body | {"items": items}, "plan_hash": "a"}
        kind = "plan" if is_plan else "outcome"
        records.append(make_record(records[-1] if records else None, kind, at=moment, actor=text, **members))
    return records


@given(chains())
@settings(deadline=None)
def test_text_and_rows_give_the_same_records_back(records: list[LedgerRecord]) -> None:
    texts = [record.to_text() for record in records]
    assert [read_record(text.encode().decode()) for text in texts] == records
    assert all("\n" not in text for text in texts)
    rows = to_rows(records)
    assert read_rows({name: list(reversed(some)) for name, some in rows.items()}) == StoreContent(records)
    previous = [None, *records]
    assert [find_break(record, previous[index]) for index, record in enumerate(records)] == [None] * len(records)


@given(chains(), st.data())
@_REUSED_FOLDER
def test_prefixes_are_completed_and_become_equal(tmp_path: Path, records: list[LedgerRecord], data: Any) -> None:
    """The file holds the first `held`, perhaps with a torn line; the warehouse the first `stored`."""
    held = data.draw(st.integers(0, len(records)))
    stored = data.draw(st.integers(0, len(records)))
    file = _written(tmp_path, records[:held])
    if held < len(records):
        line = records[held].to_text().encode()
        file.path.write_bytes(file.path.read_bytes() + line[: data.draw(st.integers(0, len(line)))])
    content = file.read()
    assert content.records == records[:held]
    rows = to_rows(records[:stored])
    comparison = compare(content, read_rows(rows), rows)
    expected = (
        "none"
        if held == stored
        else "complete"
        if held == stored + 1
        else "from_file"
        if held > stored
        else "from_warehouse"
    )
    assert comparison.remedy == expected
    assert comparison.missing == records[min(held, stored) : max(held, stored)]
    assert comparison.records == records[: max(held, stored)]
    assert (comparison.difference is None) == (held == stored)
    if comparison.remedy == "from_warehouse":
        file.append(comparison.missing)
    both = file.read() if comparison.remedy == "from_warehouse" else content
    rows = to_rows(comparison.records)
    assert compare(both, read_rows(rows), rows).remedy == "none"


@given(chains(), st.data())
@settings(deadline=None)
def test_whatever_rows_are_lost_come_back_from_the_file(records: list[LedgerRecord], data: Any) -> None:
    pairs = _pairs(to_rows(records))
    kept = data.draw(st.lists(st.sampled_from(pairs), unique_by=str) if pairs else st.just([]))
    rows = _by_table(kept)
    comparison = compare(StoreContent(records), read_rows(rows), rows)
    assert (comparison.remedy == "none") == (len(kept) == len(pairs))
    assert comparison.remedy in ("none", "complete", "from_file")
    lost = [pair for pair in _pairs(to_rows(comparison.missing)) if pair not in kept]
    assert read_rows(_by_table([*kept, *lost])) == StoreContent(records)


@given(chains().filter(len), st.data())
@_REUSED_FOLDER
def test_changed_orders_and_repetitions_of_lines_are_found(
    tmp_path: Path, records: list[LedgerRecord], data: Any
) -> None:
    lines = data.draw(st.lists(st.sampled_from(records), max_size=len(records) + 2))
    content = _written(tmp_path, lines).read()
    if lines == records[: len(lines)]:
        assert content == StoreContent(lines)
        return
    assert content.problem is not None
    rows = to_rows(records)
    comparison = compare(content, read_rows(rows), rows)
    assert (comparison.remedy, comparison.records) == ("by_hand", records)


def test_hash_is_that_of_the_text_without_it() -> None:
    """As an auditor would compute it with other tools."""
    first = make_record(None, "stopped", at=at(0), actor="a", body={"ü": 1})
    text = (
        '{"actor":"a","at":"2026-03-01T10:00:00.123457+00:00","body":{"ü":1},"correlation_id":null,"item":null,'
        f'"kind":"stopped","plan_id":null,"previous_hash":"{FIRST_HASH}","seq":1}}'
    )
    assert first.record_hash == hash_text(text)
    assert json.loads(first.to_text()) == json.loads(text) | {"record_hash": first.record_hash}
    assert make_record(first, "stopped", at=at(1), actor="a", body={}).previous_hash == first.record_hash


def test_stored_plan_is_the_text_that_was_hashed() -> None:
    plan = make_plan(name="Ünï & Söhne")
    record = make_record(None, "plan", at=at(0), actor="a", plan_id=plan.plan_id, body=plan_body(plan))
    [row] = to_rows([record])["deletion_plans"]
    assert plan.canonical() in row
    assert plan.plan_hash == hash_text(plan.canonical())


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"seq":1}', "[" * 100_000])
def test_text_that_is_no_record(text: str) -> None:
    with pytest.raises(ValueError):
        read_record(text)


def test_append_takes_a_place_of_any_kind(tmp_path: Path) -> None:
    with open_ledger_at(place_beside(tmp_path / "a.duckdb"), tmp_path) as ledger:
        append_story(ledger)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".duckdb", ".jsonl", ".lock"]


def _written(folder: Path, records: Sequence[LedgerRecord]) -> LedgerFile:
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(record.to_text().encode() + b"\n" for record in records))
    return LedgerFile(path)


def _pairs(rows: dict[str, list[Row]]) -> list[tuple[str, Row]]:
    return [(name, row) for name, some in rows.items() for row in some]


def _by_table(pairs: Sequence[tuple[str, Row]]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {name: [] for name in to_rows([])}
    for name, row in pairs:
        rows[name].append(row)
    return rows
