"""The two stores of the ledger together, on DuckDB and PostgreSQL: what is written is found in both, whole."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from ledger_support import ACTOR, ODD, LedgerFixture, append_story, at, make_plan, plan_body, stored_rows
from postgres_server import PostgresServer

from cockpit_source.deletions import ledger_store
from cockpit_source.deletions.history import History
from cockpit_source.deletions.ledger import open_ledger
from cockpit_source.deletions.ledger_compare import compare
from cockpit_source.deletions.ledger_file import LedgerFile
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.deletions.ledger_record import StoreContent, make_record
from cockpit_source.deletions.ledger_rows import to_rows
from cockpit_source.deletions.ledger_tables import LEDGER_TABLES
from cockpit_source.errors import ConfigurationError, LedgerUnavailable, WarehouseBusy
from cockpit_source.pipeline import create_pipeline

MORE: dict[str, Any] = {"actor": ACTOR, "plan_id": "plan-1"}


@pytest.fixture(params=["duckdb", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerFixture:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return LedgerFixture(request.param, tmp_path, url)


@pytest.fixture
def on_duckdb(tmp_path: Path) -> LedgerFixture:
    return LedgerFixture("duckdb", tmp_path)


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> LedgerFixture:
    return LedgerFixture("postgres", tmp_path, postgres_url)


def test_records_are_the_same_in_both_stores_and_after_reading(stores: LedgerFixture) -> None:
    """Odd characters, 100 KB of text and microseconds, through several openings."""
    with stores.open() as ledger:
        append_story(ledger, name="Contoso")
        append_story(ledger, "plan-2", ODD)
    with stores.open() as ledger:
        append_story(ledger, "plan-3", "x" * 100_000)
        records = list(ledger.records)
    assert [record.seq for record in records] == list(range(1, 25))
    assert stores.read() == (records, None)
    assert LedgerFile(stores.file).read() == StoreContent(records)
    assert [json.loads(line)["seq"] for line in stores.file.read_bytes().splitlines()] == list(range(1, 25))
    plan = make_plan(name=ODD.replace("\ud800", ""))
    assert History(records).plans["plan-3"].plan_hash == make_plan("plan-3", "x" * 100_000).plan_hash
    assert plan_body(plan)["plan_hash"] == plan.plan_hash
    assert stat.S_IMODE(stores.file.stat().st_mode) == 0o600


def test_auditor_finds_who_what_why_and_result_in_sql(stores: LedgerFixture) -> None:
    stores.write_story()
    rows = stores.run(
        "SELECT p.created_by, p.tenant, p.run_id, i.action, i.customer_name, i.reason, e.kind, e.result, "
        "e.http_status, e.correlation_id FROM cockpit_deletions.deletion_events e "
        "JOIN cockpit_deletions.deletion_plan_items i ON i.plan_id = e.plan_id AND i.item = e.item "
        "JOIN cockpit_deletions.deletion_plans p ON p.plan_id = e.plan_id ORDER BY e.seq"
    )
    of_first = (ACTOR, "csp.example", "run-1", "remove_reseller_relationship", "Contoso", "left Contoso")
    assert rows == [
        (*of_first, "intent", None, None, "c-1"),
        (*of_first, "outcome", "accepted", 202, "c-1"),
        (*of_first, "settled", "verified", None, None),
        (ACTOR, "csp.example", "run-1", "delete_customer", "Contoso", "left", "already_absent", None, None, None),
    ]
    hashed = {
        "duckdb": "sha256(plan)",
        "postgres": "encode(sha256(convert_to(plan, 'UTF8')), 'hex')",
    }[stores.kind]
    plan_hash = make_plan().plan_hash
    assert stores.run(f"SELECT plan_hash, {hashed} FROM cockpit_deletions.deletion_plans") == [(plan_hash, plan_hash)]


def test_tables_have_the_columns_of_their_records(stores: LedgerFixture) -> None:
    stores.write_story()
    found = stores.run(
        "SELECT table_name, column_name, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'cockpit_deletions'"
    )
    assert set(found) == {
        (name, column.name, "YES" if column.nullable else "NO")
        for name, table in LEDGER_TABLES.items()
        for column in table.columns
    }
    assert all(column.description for table in LEDGER_TABLES.values() for column in table.columns)


def test_reading_creates_nothing(stores: LedgerFixture, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*.jsonl*")) | set(tmp_path.rglob("*deletions*"))
    assert stores.read() == ([], None)
    assert set(tmp_path.rglob("*.jsonl*")) | set(tmp_path.rglob("*deletions*")) == before
    assert not stores.has_warehouse()
    with stores.open(read_only=True) as ledger, pytest.raises(LedgerUnavailable, match="opened for reading"):
        ledger.append("stopped", at=at(0), body={}, **MORE)


def test_opening_to_write_creates_no_store_before_the_first_record(stores: LedgerFixture) -> None:
    with stores.open() as ledger:
        assert (ledger.records, ledger.difference) == ([], None)
    assert not stores.has_warehouse()
    assert not stores.file.exists()


def test_statements_only_create_add_and_read() -> None:
    source = Path(ledger_store.__file__).read_text(encoding="utf-8")
    verbs = re.findall(r'"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|TRUNCATE|MERGE|COPY|SET|SHOW)\b', source)
    assert set(verbs) <= {"SELECT", "INSERT", "CREATE", "SET", "SHOW"}
    assert not re.search(r"\b(UPDATE|DELETE FROM|DROP|ALTER|TRUNCATE|MERGE|REPLACE|ON CONFLICT)\b", source)


def test_kill_between_the_two_writes_is_healed_by_the_next_writer(stores: LedgerFixture) -> None:
    """A copy of the file from after an append, over a warehouse from before it."""
    before = stores.write_story()
    ahead = _one_more(stores, before)
    records, difference = stores.read()
    assert records == [*before, ahead]
    assert difference is not None
    assert "the warehouse holds 8 records, the file the same and 1 more; the next plan" in difference
    with stores.open() as ledger:
        assert (ledger.records, ledger.difference) == ([*before, ahead], None)
        ledger.append("stopped", at=at(99), body={}, **MORE)
    assert stores.read()[1] is None


def test_plan_is_completed_with_its_items(stores: LedgerFixture) -> None:
    """The very first record, too."""
    _append_to_file_only(stores, [], "plan", plan_body(make_plan()), plan_id="plan-1")
    with stores.open() as ledger:
        assert (len(ledger.records), ledger.difference) == (1, None)
    assert stores.run("SELECT count(*) FROM cockpit_deletions.deletion_plan_items") == [(2,)]


@pytest.mark.parametrize("torn", [b"{", b'{"seq":9', b"\0" * 40, b"\0\n", "é".encode()[:1], b"\n", b"garbage\n"])
def test_torn_last_line_is_passed_over_and_cut_off_by_a_writer(on_duckdb: LedgerFixture, torn: bytes) -> None:
    records = on_duckdb.write_story()
    whole = on_duckdb.file.read_bytes()
    on_duckdb.file.write_bytes(whole + torn)
    assert on_duckdb.read() == (records, None)
    assert on_duckdb.file.read_bytes() == whole + torn
    with on_duckdb.open() as ledger:
        assert (ledger.records, ledger.difference) == (records, None)
    assert on_duckdb.file.read_bytes() == whole


def test_every_torn_end_of_the_last_record_is_told_from_a_committed_one(on_duckdb: LedgerFixture) -> None:
    """Whatever part of it is left, the warehouse has the record, so the file lacks one and `mend` gives it back."""
    records = on_duckdb.write_story()
    whole = on_duckdb.file.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in (last, last + 1, (last + len(whole)) // 2, len(whole) - 1):
        on_duckdb.file.write_bytes(whole[:end])
        assert on_duckdb.read() == (records, "the file holds 7 records, the warehouse the same and 1 more")
        with on_duckdb.open() as ledger, pytest.raises(LedgerUnavailable, match="run `cockpit deletions mend`"):
            ledger.append("stopped", at=at(9), body={}, **MORE)
        assert on_duckdb.file.read_bytes() == whole[:end]
    with on_duckdb.open() as ledger:
        assert ledger.mend(at=at(9), actor=ACTOR) == 1
    assert on_duckdb.file.read_bytes().startswith(whole)
    assert on_duckdb.read()[1] is None


def _cut_file(stores: LedgerFixture) -> None:
    lines = stores.file.read_bytes().splitlines(keepends=True)
    stores.file.write_bytes(b"".join(lines[:3]))


def _drop(table: str) -> Callable[[LedgerFixture], None]:
    return lambda stores: stores.run(f"DROP TABLE cockpit_deletions.{table}") and None


def _delete_rows(condition: str) -> Callable[[LedgerFixture], None]:
    return lambda stores: stores.run(f"DELETE FROM cockpit_deletions.deletion_events WHERE {condition}") and None


@pytest.mark.parametrize(
    ("damage", "count", "source"),
    [
        pytest.param(lambda stores: stores.file.unlink(), 8, "warehouse", id="file-deleted"),
        pytest.param(_cut_file, 5, "warehouse", id="file-cut"),
        pytest.param(lambda stores: stores.file.write_bytes(b""), 8, "warehouse", id="file-emptied"),
        pytest.param(LedgerFixture.remove_warehouse, 8, "file", id="warehouse-deleted"),
        pytest.param(_drop("deletion_plans"), 1, "file", id="plans-dropped"),
        pytest.param(_drop("deletion_plan_items"), 1, "file", id="items-dropped"),
        pytest.param(_drop("deletion_events"), 7, "file", id="events-dropped"),
        pytest.param(_delete_rows("seq > 5"), 3, "file", id="warehouse-cut"),
        pytest.param(_delete_rows("seq = 4"), 1, "file", id="row-deleted"),
    ],
)
def test_store_that_lost_records_stops_writers_until_it_is_mended(
    stores: LedgerFixture, damage: Callable[[LedgerFixture], None], count: int, source: str
) -> None:
    records = stores.write_story()
    damage(stores)
    assert stores.read()[0] == records
    assert stores.read()[1] is not None
    with stores.open() as ledger:
        with pytest.raises(LedgerUnavailable, match="so nothing is sent: ") as raised:
            ledger.append("stopped", at=at(9), body={}, **MORE)
        assert raised.value.code == "ledger_differs"
        assert str(stores.file) in str(raised.value)
        assert ledger.mend(at=at(9), actor="mender") == count
        assert ledger.mend(at=at(9), actor="mender") == 0
        ledger.append("stopped", at=at(10), body={}, **MORE)
    found, difference = stores.read()
    assert (found[:8], difference) == (records, None)
    assert [(r.kind, r.actor, dict(r.body)) for r in found[8:]] == [
        ("mended", "mender", {"records": count, "from": source}),
        ("stopped", ACTOR, {}),
    ]


def _swap_lines(stores: LedgerFixture) -> None:
    lines = stores.file.read_bytes().splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    stores.file.write_bytes(b"".join(lines))


def _repeat_line(number: int) -> Callable[[LedgerFixture], None]:
    def repeat(stores: LedgerFixture) -> None:
        lines = stores.file.read_bytes().splitlines(keepends=True)
        stores.file.write_bytes(b"".join([*lines[:number], *lines[number - 1 :]]))

    return repeat


def _drop_line(stores: LedgerFixture) -> None:
    lines = stores.file.read_bytes().splitlines(keepends=True)
    stores.file.write_bytes(b"".join(lines[:2] + lines[3:]))


def _rewrite_as_others_do(stores: LedgerFixture) -> None:
    lines = [json.dumps(json.loads(line)) for line in stores.file.read_text(encoding="utf-8").split("\n")[:-1]]
    stores.file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _forge_history(stores: LedgerFixture) -> None:
    """Another ledger, whole in itself."""
    other = LedgerFixture("duckdb", stores.folder / "other")
    other.folder.mkdir()
    with other.open() as ledger:
        append_story(ledger, name="Fabrikam")
    stores.file.write_bytes(other.file.read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_swap_lines, "in line 4, record 4 is missing", id="swapped"),
        pytest.param(_repeat_line(3), "in line 4, record 3 comes again", id="doubled"),
        pytest.param(_repeat_line(8), "in line 9, record 8 comes again", id="last-doubled"),
        pytest.param(_drop_line, "in line 3, record 3 is missing", id="line-gone"),
        pytest.param(
            _rewrite_as_others_do, "line 1 cannot be read: it is not written as records are", id="rewritten"
        ),
        pytest.param(_forge_history, "record 1 is another in the file than in the warehouse", id="forged"),
    ],
)
def test_stores_that_contradict_each_other_are_not_mended(
    stores: LedgerFixture, damage: Callable[[LedgerFixture], None], message: str
) -> None:
    """Until the one that was changed is moved away."""
    records = stores.write_story()
    damage(stores)
    changed = stores.file.read_bytes()
    found, difference = stores.read()
    assert found == records
    assert difference is not None
    assert message in difference
    with stores.open() as ledger:
        for attempt in (
            lambda: ledger.append("stopped", at=at(9), body={}, **MORE),
            lambda: ledger.mend(at=at(9), actor=ACTOR),
        ):
            with pytest.raises(LedgerUnavailable, match="move it away and keep it") as raised:
                attempt()
            assert message in str(raised.value)
    assert stores.file.read_bytes() == changed
    stores.file.rename(stores.file.with_suffix(".kept"))
    with stores.open() as ledger:
        assert ledger.mend(at=at(9), actor=ACTOR) == 8
    assert stores.read()[1] is None


def test_every_changed_byte_of_the_file_is_found(on_duckdb: LedgerFixture, tmp_path: Path) -> None:
    records = on_duckdb.write_story()
    rows = to_rows(records)
    whole = on_duckdb.file.read_bytes()
    changed = tmp_path / "changed.jsonl"
    for index in range(0, len(whole), 7):
        data = bytearray(whole)
        data[index] ^= 1 + index % 127
        changed.write_bytes(data)
        content = LedgerFile(changed).read()
        assert compare(content, StoreContent(records), rows).difference is not None, index


def test_every_changed_value_of_the_tables_is_found(stores: LedgerFixture) -> None:
    """Also in columns that are only there for an auditor's SQL."""
    records = stores.write_story()
    before = stored_rows(stores)
    for name, table in LEDGER_TABLES.items():
        for column in table.columns:
            where = f"cockpit_deletions.{name} SET {column.name} ="
            seq, item = {
                "deletion_plans": (2, ""),
                "deletion_plan_items": (2, " AND item = 2"),
                "deletion_events": (5, ""),
            }[name]
            kind = {"int64": "BIGINT", "string": "VARCHAR"}.get(str(column.type), "TIMESTAMPTZ")
            other = {"BIGINT": "77", "VARCHAR": "'x'"}.get(kind, "TIMESTAMPTZ '2001-01-01 00:00:00+00'")
            condition = f"WHERE seq = {seq}{item}"
            [(kept,)] = stores.run(f"SELECT CAST({column.name} AS VARCHAR) FROM cockpit_deletions.{name} {condition}")
            stores.run(f"UPDATE {where} {other} {condition}")
            found, difference = stores.read()
            assert found == records
            assert difference is not None, (name, column.name)
            if column.name == "seq":
                condition = condition.replace(f"seq = {seq}", "seq = 77")
            if column.name == "item":
                condition = condition.replace("item = 2", "item = 77")
            stores.run(f"UPDATE {where} CAST(? AS {kind}) {condition}", kept)
    assert stored_rows(stores) == before
    assert stores.read() == (records, None)


def test_changed_byte_of_the_database_changes_no_record_unnoticed(on_duckdb: LedgerFixture) -> None:
    """DuckDB refuses a block whose checksum fails; a byte that nothing uses changes nothing."""
    records = on_duckdb.write_story()
    whole = on_duckdb.database.read_bytes()
    ends = []
    for index in range(9, len(whole), len(whole) // 40):
        data = bytearray(whole)
        data[index] ^= 1 + index % 127
        on_duckdb.database.write_bytes(data)
        try:
            found, difference = on_duckdb.read()
        except LedgerUnavailable:
            ends.append("refused")
            continue
        assert found == records
        ends.append("same" if difference is None else "different")
    assert "refused" in ends
    on_duckdb.database.write_bytes(whole)
    assert on_duckdb.read() == (records, None)


def test_row_of_no_record_is_found(stores: LedgerFixture) -> None:
    records = stores.write_story()
    stores.run(
        "INSERT INTO cockpit_deletions.deletion_plan_items (seq, plan_id, item, evidence) "
        "VALUES (2, 'plan-1', 3, '{}')"
    )
    assert stores.read() == (records, "in the warehouse, deletion_plan_items holds rows of no record")


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("nonsense", {}),
        ("stopped", {"body": {"number": float("nan")}}),
        ("stopped", {"body": {"value": object()}}),
        ("stopped", {"at": at(0).replace(tzinfo=None)}),
        ("stopped", {"item": 0}),
        ("stopped", {"item": True}),
        ("stopped", {"actor": None}),
        ("plan", {}),
        ("plan", {"plan_id": "plan-1", "body": plan_body(make_plan())}),
        (
            "plan",
            {"plan_id": "plan-9", "body": {"plan": {"items": [{"number": 1}, {"number": 1}]}, "plan_hash": "a"}},
        ),
        ("plan", {"plan_id": "plan-9", "body": {"plan": {"items": [{}]}, "plan_hash": "a"}}),
    ],
)
def test_record_that_could_not_be_stored_is_refused_before_anything_is_written(
    on_duckdb: LedgerFixture, kind: str, members: dict[str, Any]
) -> None:
    on_duckdb.write_story()
    written = on_duckdb.file.read_bytes()
    with on_duckdb.open() as ledger:
        with pytest.raises((ValueError, TypeError)):
            ledger.append(kind, **{"at": at(0), "actor": ACTOR, "body": {}} | members)
        assert on_duckdb.file.read_bytes() == written
        ledger.append("stopped", at=at(0), body={}, **MORE)
    assert on_duckdb.read()[1] is None


def test_odd_values_are_stored(stores: LedgerFixture) -> None:
    """Whatever can be given must not make a record that the file takes and the warehouse never will."""
    odd = {
        "result": ["list"],
        "http_status": 2**70,
        "description": {"\ud83d": ODD},
        "deep": [[[1e-300, -0.0, 2**70]]],
    }
    with stores.open() as ledger:
        ledger.append("outcome", at=at(0), actor=ODD, plan_id=ODD, item=2**31 - 1, correlation_id=ODD, body=odd)
        ledger.append("plan", at=at(1), actor="", plan_id="p", body={"plan": {"created_at": "x"}, "plan_hash": ""})
        records = list(ledger.records)
    assert stores.read() == (records, None)


def test_failed_append_ends_all_appending_until_the_next_opening(on_duckdb: LedgerFixture) -> None:
    """The disk takes only a part of a line; what it took is cut off by the next opening."""
    records = on_duckdb.write_story()
    size = on_duckdb.file.stat().st_size
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with on_duckdb.open() as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, unlimited[1]))
        try:
            with pytest.raises(LedgerUnavailable, match=r"\.jsonl cannot be written: only 20 of \d+ bytes"):
                ledger.append("stopped", at=at(9), body={}, **MORE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        with pytest.raises(LedgerUnavailable, match="could not be written before"):
            ledger.append("stopped", at=at(9), body={}, **MORE)
        with pytest.raises(LedgerUnavailable, match="could not be written before"):
            ledger.mend(at=at(9), actor=ACTOR)
    assert on_duckdb.file.stat().st_size == size + 20
    with on_duckdb.open() as ledger:
        assert (ledger.records, ledger.difference) == (records, None)
        ledger.append("stopped", at=at(9), body={}, **MORE)
    assert on_duckdb.read()[1] is None


def test_full_disk(on_duckdb: LedgerFixture) -> None:
    with on_duckdb.open() as ledger:
        on_duckdb.file.symlink_to("/dev/full")
        with pytest.raises(LedgerUnavailable, match=r"No space left on device. Nothing is sent without it"):
            ledger.append("stopped", at=at(9), body={}, **MORE)
    assert not on_duckdb.has_warehouse()
    with pytest.raises(LedgerUnavailable, match="cannot be read: it is no regular file"):
        on_duckdb.open().__enter__()


@pytest.mark.parametrize("where", ["file", "database", "lock"])
def test_folder_in_the_place_of_a_file(on_duckdb: LedgerFixture, where: str) -> None:
    paths = {
        "file": on_duckdb.file,
        "database": on_duckdb.database,
        "lock": on_duckdb.file.with_name(f"{on_duckdb.file.name}.lock"),
    }
    paths[where].mkdir()
    with pytest.raises(LedgerUnavailable, match=re.escape(str(paths[where]))):
        on_duckdb.open().__enter__()


def test_missing_project_folder(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"cannot be locked: .*No such file or directory"):
        LedgerFixture("duckdb", tmp_path / "nowhere").open().__enter__()


def test_file_that_something_else_changes_is_not_added_to(stores: LedgerFixture) -> None:
    stores.write_story()
    with stores.open() as ledger:
        lines = stores.file.read_bytes()
        stores.file.write_bytes(lines + lines[-20:])
        with pytest.raises(LedgerUnavailable, match="something else changed it"):
            ledger.append("stopped", at=at(9), body={}, **MORE)
    with stores.open() as ledger:
        stores.file.unlink()
        with pytest.raises(LedgerUnavailable, match="No such file"):
            ledger.append("stopped", at=at(9), body={}, **MORE)


def test_file_that_cannot_be_created_leaves_no_warehouse(stores: LedgerFixture) -> None:
    with stores.open() as ledger:
        stores.file.symlink_to(stores.folder / "nowhere" / "file")
        with pytest.raises(LedgerUnavailable, match="No such file"):
            ledger.append("stopped", at=at(9), body={}, **MORE)
    assert not stores.has_warehouse()


def test_database_that_another_program_has_open(on_duckdb: LedgerFixture) -> None:
    records = on_duckdb.write_story()
    code = f"import duckdb; c = duckdb.connect({str(on_duckdb.database)!r}); print('open', flush=True); input()"
    with _running(code) as process:
        with pytest.raises(
            LedgerUnavailable, match=rf"is in use by process {process.pid} .* close the other program"
        ):
            on_duckdb.open().__enter__()
        found, difference = on_duckdb.read()
    assert found == records
    assert re.match(
        rf"the warehouse is in use by process {process.pid} \(.+\), so only the file was read", difference
    )
    assert on_duckdb.read() == (records, None)


def test_database_taken_by_another_program_before_the_first_record(on_duckdb: LedgerFixture) -> None:
    """The record is in the file then, and the next opening completes it."""
    code = f"import duckdb; c = duckdb.connect({str(on_duckdb.database)!r}); print('open', flush=True); input()"
    with on_duckdb.open() as ledger, _running(code), pytest.raises(LedgerUnavailable, match="in use by process"):
        ledger.append("stopped", at=at(0), body={}, **MORE)
    with on_duckdb.open() as ledger:
        assert (len(ledger.records), ledger.difference) == (1, None)


def test_one_process_writes_at_a_time(stores: LedgerFixture) -> None:
    with stores.open() as ledger:
        append_story(ledger)
        with pytest.raises(WarehouseBusy, match=rf"verify or mend\) is running \(process {os.getpid()}\)"):
            stores.open().__enter__()
    with stores.open():
        pass


def test_log_can_be_read_on_postgres_while_another_writes(on_postgres: LedgerFixture) -> None:
    with on_postgres.open() as ledger:
        append_story(ledger)
        assert on_postgres.read() == (ledger.records, None)


def test_machines_that_share_no_file_meet_in_postgres(on_postgres: LedgerFixture, tmp_path: Path) -> None:
    records = on_postgres.write_story()
    other = LedgerFixture("postgres", tmp_path / "other", on_postgres.url)
    other.folder.mkdir()
    with on_postgres.open(), pytest.raises(WarehouseBusy, match=r"cockpit deletions \S+ pid \d+, session \d+"):
        other.open().__enter__()
    with other.open() as ledger:
        assert ledger.difference == "the file does not exist, and the warehouse holds 8 records"
        assert ledger.mend(at=at(9), actor=ACTOR) == 8
    assert other.read()[1] is None
    assert on_postgres.read()[1] == "the file holds 8 records, the warehouse the same and 1 more"
    assert on_postgres.read()[0][:8] == records


def test_ended_session_of_postgres(on_postgres: LedgerFixture, postgres: PostgresServer) -> None:
    """The lock goes with the session, and so does the way to write."""
    with on_postgres.open() as ledger:
        append_story(ledger)
        on_postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cockpit deletions %'"
        )
        with pytest.raises(LedgerUnavailable, match="cannot be written: ") as raised:
            ledger.append("stopped", at=at(9), body={}, **MORE)
        assert postgres.password not in str(raised.value)
        with pytest.raises(LedgerUnavailable, match="could not be written before"):
            ledger.append("stopped", at=at(9), body={}, **MORE)
    with on_postgres.open() as ledger:
        assert ([record.kind for record in ledger.records[8:]], ledger.difference) == (["stopped"], None)


def test_writers_that_both_slipped_past_the_lock_cannot_both_append(
    on_postgres: LedgerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through a pool of connections, where a lock of a session says nothing."""
    on_postgres.write_story()
    monkeypatch.setattr("cockpit_source.postgres.take_lock", lambda *_: None)
    other = LedgerFixture("postgres", tmp_path / "other", on_postgres.url)
    other.folder.mkdir()
    (other.folder / on_postgres.file.name).write_bytes(on_postgres.file.read_bytes())
    with on_postgres.open() as one, other.open() as two:
        one.append("stopped", at=at(9), body={}, **MORE)
        with pytest.raises(LedgerUnavailable, match="its last record is 9 where it should be 8"):
            two.append("plan", at=at(9), actor=ACTOR, plan_id="plan-2", body=plan_body(make_plan("plan-2")))
    assert on_postgres.read()[1] is None
    assert "record 9 is another in the file than in the warehouse" in str(other.read()[1])


def test_warehouse_that_takes_no_rows(on_postgres: LedgerFixture, postgres: PostgresServer) -> None:
    on_postgres.write_story()
    on_postgres.run("ALTER TABLE cockpit_deletions.deletion_events ADD CONSTRAINT no CHECK (seq < 9)")
    with on_postgres.open() as ledger, pytest.raises(LedgerUnavailable, match="violates check constraint"):
        ledger.append("stopped", at=at(9), body={}, **MORE)
    with pytest.raises(LedgerUnavailable, match="violates check constraint"):
        on_postgres.open().__enter__()
    on_postgres.run("ALTER TABLE cockpit_deletions.deletion_events DROP CONSTRAINT no")
    with on_postgres.open() as ledger:
        assert (len(ledger.records), ledger.difference) == (9, None)


def test_mending_that_failed_halfway_is_done_again(on_postgres: LedgerFixture) -> None:
    """Its record is in the file by then, and is one of those that the warehouse lacks."""
    records = on_postgres.write_story()
    on_postgres.run("DELETE FROM cockpit_deletions.deletion_events WHERE seq > 5")
    on_postgres.run("ALTER TABLE cockpit_deletions.deletion_events ADD CONSTRAINT no CHECK (seq < 9)")
    with on_postgres.open() as ledger, pytest.raises(LedgerUnavailable, match="violates check constraint"):
        ledger.mend(at=at(9), actor=ACTOR)
    assert on_postgres.run("SELECT count(*) FROM cockpit_deletions.deletion_events WHERE seq > 5") == [(0,)]
    on_postgres.run("ALTER TABLE cockpit_deletions.deletion_events DROP CONSTRAINT no")
    with on_postgres.open() as ledger:
        assert ledger.mend(at=at(9), actor=ACTOR) == 4
    found, difference = on_postgres.read()
    assert (found[:8], difference) == (records, None)
    assert [(r.kind, r.body["records"]) for r in found[8:]] == [("mended", 3), ("mended", 4)]


def test_database_that_cannot_hold_every_name(postgres: PostgresServer, tmp_path: Path, monkeypatch: Any) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.url("latin"))
        with pytest.raises(LedgerUnavailable, match="its encoding is LATIN1"):
            LedgerFixture("postgres", tmp_path).open().__enter__()
    finally:
        postgres.execute("DROP DATABASE latin WITH (FORCE)")


def test_unreachable_postgres_names_no_password(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "wrong-password"
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.url(password=wrong))
    with pytest.raises(LedgerUnavailable, match="cannot be opened") as raised:
        LedgerFixture("postgres", tmp_path).open().__enter__()
    assert wrong not in str(raised.value)
    assert wrong not in repr(ledger_place(LedgerFixture("postgres", tmp_path).pipeline))


def test_database_named_like_the_schema(tmp_path: Path) -> None:
    pipeline = create_pipeline("csp.example", database=tmp_path / "cockpit_deletions.duckdb")
    assert ledger_place(pipeline).location == str(tmp_path / "cockpit_deletions.deletions.duckdb")
    for _ in range(2):
        with open_ledger(pipeline, tmp_path) as ledger:
            ledger.append("stopped", at=at(9), body={}, **MORE)


def test_ledger_moves_with_its_project(tmp_path: Path) -> None:
    old, new = LedgerFixture("duckdb", tmp_path / "old"), LedgerFixture("duckdb", tmp_path / "new")
    old.folder.mkdir()
    records = old.write_story()
    old.folder.rename(new.folder)
    assert new.read() == (records, None)


def test_other_destination_is_refused(ducklake_url: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"do not work with the destination 'ducklake': .* duckdb and postgres"
    ):
        ledger_place(create_pipeline("csp.example", destination="ducklake"))


def test_inventory_stays_open_to_readers(on_duckdb: LedgerFixture, tmp_path: Path) -> None:
    """The ledger is a file of its own."""
    with duckdb.connect(str(tmp_path / "inventory.duckdb")) as connection, on_duckdb.open() as ledger:
        append_story(ledger)
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def _append_to_file_only(stores: LedgerFixture, before: list[Any], kind: str, body: Any, **members: Any) -> Any:
    file = LedgerFile(stores.file)
    file.read()
    record = make_record(before[-1] if before else None, kind, at=at(50), actor=ACTOR, body=body, **members)
    file.append([record])
    return record


def _one_more(stores: LedgerFixture, before: list[Any]) -> Any:
    return _append_to_file_only(stores, before, "stopped", {"code": "x"}, plan_id="plan-1")


@contextmanager
def _running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that says one line when it is ready, and ends with its input."""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.communicate(b"\n", timeout=30)
