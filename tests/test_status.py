"""`cockpit status`: what it tells of loads into a temporary DuckDB, and that it changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, new_id, read_rows, sku

from cockpit_source.configuration import resolve_tenant_key
from cockpit_source.errors import CallRecord, ConfigurationError, SignInError, WarehouseError
from cockpit_source.load import run_load
from cockpit_source.lock import run_lock
from cockpit_source.outcomes import ScopeResult
from cockpit_source.pipeline import work_folder
from cockpit_source.publish import read_copy_path
from cockpit_source.scopes import ListedScope, Scope
from cockpit_source.spool import RunInfo, Spool, to_batch
from cockpit_source.status import RunLine, SpooledRun, Status, read_status
from cockpit_source.status_report import describe_age, describe_duration, print_status, to_json

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
C: ScopeIds = (new_id(3), INSTANCE, new_id(9))
HOUR = timedelta(hours=1)


def status_of(inventory: Inventory, **options: Any) -> Status:
    return read_status(inventory.pipeline(), inventory.tenant_key, **({"runs": 10} | options))


def text_of(status: Status) -> str:
    text = StringIO()
    print_status(status, Console(file=text, width=60))
    return text.getvalue()


def write(inventory: Inventory, *statements: str) -> None:
    with duckdb.connect(str(inventory.database)) as connection:
        for statement in statements:
            connection.execute(statement)


def key_of(inventory: Inventory, scope: ScopeIds) -> str:
    return "|".join((inventory.tenant_key, scope[0], scope[1], scope[2] or "-"))


@pytest.fixture
def two_scopes(inventory: Inventory) -> Inventory:
    """Scopes A and B with two and one SKUs, loaded on day 0."""
    inventory.answer(A[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    inventory.answer(B[0], [sku("e3", 7, 1)])
    inventory.load([A, B], day(0))
    return inventory


def _totals(model: Model) -> tuple[int, int]:
    """Licence rows and seats of the listed scopes; free products have no seats."""
    rows = [row for key, rows in model.licenses.items() for row in rows if model.scopes[key]["delisted_at"] is None]
    return len(rows), sum(row["total_licenses"] for row in rows if row["total_licenses"] < 10_000)


def test_each_run_shows_what_it_changed(inventory: Inventory) -> None:
    """Seats, rows, emptied and delisted scopes of each of several runs, against a plain model of the tables."""
    days: Sequence[Mapping[ScopeIds, tuple[str, list[Row]]]] = [
        {A: ("ok", [sku("e3", 25, 22), sku("e5", 5, 5)]), B: ("ok", [sku("e3", 7, 1), sku("free", 12_000, 3)])},
        {A: ("ok", [sku("e3", 30, 22)]), B: ("ok", [sku("e3", 7, 1), sku("free", 15_000, 3)])},
        {A: ("empty", []), B: ("failed", [])},
        {A: ("empty", []), C: ("ok", [sku("e3", 3, 3)])},
        {A: ("ok", [sku("e3", 1, 0)]), C: ("ok", [sku("e3", 3, 3)])},
        {A: ("failed", []), C: ("empty", [])},
    ]
    model = Model(inventory.tenant_key)
    before = (0, 0)
    expected: list[Row] = []
    for number, answers in enumerate(days):
        for scope, (outcome, rows) in answers.items():
            inventory.answer(scope[0], rows, 500 if outcome == "failed" else 200)
        result = inventory.load(answers, day(number))
        model.run(result.run_id, day(number), answers)
        totals = _totals(model)
        expected.append(
            {
                "run_id": result.run_id,
                "started_at": day(number),
                "finished_at": day(number),
                "status": "complete" if result.good == len(answers) else "partial",
                "scopes_total": len(answers),
                "scopes_read": result.good,
                "license_rows": sum(len(rows) for _, rows in answers.values()),
                "requests": result.requests,
                "throttled": 0,
                "emptied": {2: 1, 5: 1}.get(number, 0),
                "delisted": int(number == 3),
                "row_change": totals[0] - before[0],
                "seat_change": totals[1] - before[1],
                "shards_done": 0,
            }
        )
        before = totals
        last_status = status_of(inventory)
        assert [asdict(line) for line in last_status.runs] == expected[::-1]
    assert [asdict(line) for line in status_of(inventory, runs=2).runs] == expected[:-3:-1]
    assert last_status.outcomes == {"empty": 1, "failed": 1}
    assert [(scope.scope_key, scope.rows_before) for scope in last_status.emptied] == [(key_of(inventory, C), 1)]
    assert last_status.delisted == ()


def test_changes_of_a_run_that_was_not_dated_count_for_it(inventory: Inventory) -> None:
    """Its versions are dated after its `finished_at`, and those of the next run after the start of that."""
    inventory.answer(A[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    inventory.answer(B[0], [sku("e3", 7, 1)])
    inventory.load([A, B])
    inventory.answer(A[0], [sku("e3", 20, 20)])
    inventory.load([A])
    dated_after_end = inventory.query(
        "SELECT count(*) FROM cockpit.license_history h JOIN cockpit.runs r USING (_dlt_load_id) "
        "WHERE h.valid_from > r.finished_at"
    )
    assert dated_after_end == [(4,)]
    second, first = status_of(inventory).runs
    assert (first.row_change, first.seat_change, first.delisted) == (3, 37, 0)
    assert (second.row_change, second.seat_change, second.delisted) == (-2, -17, 1)


def test_product_that_becomes_free_changes_rows_only(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], [sku("e3", 25, 22), sku("e5", 10_000, 5), sku("e9", 9_999, 0)])
    two_scopes.load([A, B], day(1))
    last, *_ = status_of(two_scopes).runs
    assert (last.row_change, last.seat_change) == (1, 9_999)


def test_counts_of_the_largest_kind_do_not_overflow(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], [sku(f"e{number}", -(2**63), 0, availableLicenses=0) for number in range(3)])
    two_scopes.load([A, B], day(1))
    last, *_ = status_of(two_scopes).runs
    assert (last.row_change, last.seat_change) == (1, -3 * 2**63)


def test_customers_that_changed_most_come_first(inventory: Inventory) -> None:
    for customer in range(20, 32):
        inventory.answer(new_id(customer), [sku("e3", 100, 1)])
    scopes = [(new_id(customer), INSTANCE, None) for customer in range(20, 32)]
    inventory.load(scopes, day(0))
    for customer in range(20, 32):
        seats = 100 + (customer - 20) * (-1) ** customer
        inventory.answer(new_id(customer), [sku("e3", seats, 1), *[sku("e5", 0, 0)][: customer == 20]])
    inventory.load(scopes, day(1))
    write(inventory, f"INSERT INTO cockpit.customers BY NAME {_customer(inventory, new_id(31), 'Nüsse & Söhne')}")
    # not shown, and of the same name
    write(inventory, f"INSERT INTO cockpit.customers BY NAME {_customer(inventory, new_id(99), 'Nüsse & Söhne ')}")
    expected = [
        (new_id(customer), None, None, 0, (customer - 20) * (-1) ** customer) for customer in range(31, 21, -1)
    ]
    label = f"Nüsse & Söhne ({new_id(31)[:8]})"
    expected[0] = (new_id(31), "Nüsse & Söhne", label, 0, -11)
    status = status_of(inventory)
    assert [tuple(asdict(change).values()) for change in status.customer_changes] == expected
    assert f"  {label:36}  {'-11':>9}  {'+0':>8}\n" in text_of(status)


def _customer(inventory: Inventory, customer_id: str, name: str) -> str:
    return (
        f"SELECT '{inventory.tenant_key}' AS tenant, '{customer_id}' AS id, '{name}' AS company_name, now() AS "
        "first_seen_at, 'r' AS run_id, 'l' AS _dlt_load_id"
    )


def test_stale_scope_tells_who_why_and_since_when(two_scopes: Inventory) -> None:
    """Names where discovery told them, and what is known of GDAP."""
    refusal = {"type": "Forbidden", "description": "no", "correlationId": "server-1"}
    for scope in (A, B, C):
        two_scopes.answer(scope[0], refusal, 403)
    two_scopes.load([A, B, C], day(1))
    tenant = two_scopes.tenant_key
    relationship = "'2020-01-01'::TIMESTAMPTZ AS first_seen_at, 'r' AS run_id, 'l' AS _dlt_load_id"
    write(
        two_scopes,
        f"INSERT INTO cockpit.customers BY NAME {_customer(two_scopes, A[0], 'Contoso AG')}",
        f"INSERT INTO cockpit.provider_instances BY NAME SELECT '{tenant}' AS tenant, '{INSTANCE}' AS id, "
        f"'West' AS alias, {relationship}",
        f"INSERT INTO cockpit.resellers BY NAME SELECT '{tenant}' AS tenant, '{new_id(9)}' AS id, "
        f"'Reseller [red]1[/red]' AS company_name, {relationship}",
        f"UPDATE cockpit.scopes SET has_active_gdap = (customer_id = '{C[0]}') WHERE customer_id <> '{A[0]}'",
        *(
            f"INSERT INTO cockpit.gdap_relationships BY NAME SELECT '{tenant}' AS tenant, "
            f"'{scope[0]}' AS customer_id, '{INSTANCE}' AS provider_instance_id, 'g{number}' AS relationship_id, "
            f"'{state}' AS status, {removed} AS removed_at, {relationship}"
            for number, (scope, state, removed) in enumerate(
                [
                    (B, "terminated", "NULL"),
                    (B, "expired", "NULL"),
                    (B, "expired", "NULL"),
                    (B, "active", "now()"),
                    (C, "active", "NULL"),
                ]
            )
        ),
    )
    status = status_of(two_scopes, now=day(1) + 3 * HOUR)
    ids = {row["customer_id"]: row for row in two_scopes.rows("scope_runs", per_run=True) if row["outcome"] != "ok"}

    def expected(scope: ScopeIds, reason: str, last_good_at: datetime | None, **names: str) -> Row:
        return {
            "scope_key": key_of(two_scopes, scope),
            "customer_id": scope[0],
            "customer_name": None,
            "customer_label": None,
            "provider_instance_id": INSTANCE,
            "provider_instance_alias": "West",
            "reseller_id": scope[2],
            "reseller_name": None,
            "outcome": "forbidden",
            "reason": reason,
            "correlation_id": ids[scope[0]]["correlation_id"],
            "server_correlation_id": "server-1",
            "last_good_at": last_good_at,
            "failing_runs": 1,
            **names,
        }

    no_gdap = "; the customer has no active GDAP relationship (those it has: expired, terminated)"
    wanted = [
        expected(A, "Forbidden: no", day(0), customer_name="Contoso AG", customer_label="Contoso AG"),
        expected(B, "Forbidden: no" + no_gdap, day(0)),
        expected(C, "Forbidden: no", None, reseller_name="Reseller [red]1[/red]"),
    ]
    assert [asdict(scope) for scope in status.stale_scopes] == sorted(wanted, key=lambda row: row["scope_key"])
    assert (status.listed, status.stale, status.too_old, status.exit_code) == (3, 3, 0, 0)
    text = text_of(status)
    assert "3 of 3 listed scopes were not read last\n" in text
    (first,) = [line for line in text.splitlines() if line.startswith("  Contoso AG")]
    assert first.split("  ")[-2:] == [ids[A[0]]["correlation_id"], "server-1"]
    assert "27 h ago" in first
    (third,) = [line for line in text.splitlines() if "Reseller [red]1[/red]" in line]
    assert "never" in third
    assert text.count("Forbidden: no\n") == 1


def test_no_relationship_at_all_names_no_status(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], None, 403)
    two_scopes.answer(B[0], None, 500)
    two_scopes.load([A, B], day(1))
    write(two_scopes, "UPDATE cockpit.scopes SET has_active_gdap = false")
    reasons = {scope.customer_id: scope.reason for scope in status_of(two_scopes).stale_scopes}
    assert reasons[A[0]].endswith("may not read this; the customer has no active GDAP relationship")
    assert "GDAP" not in reasons[B[0]]


def test_many_stale_scopes_are_cut_off_and_the_sql_shows_all(inventory: Inventory) -> None:
    """Every reason is among those shown."""
    scopes: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(100, 130)]
    for number, scope in enumerate(scopes):
        inventory.answer(scope[0], None, 404 if number == 17 else 403)
    inventory.load(scopes, day(0))
    status = status_of(inventory, max_age_hours=1, now=day(1))
    assert (status.stale, status.too_old, len(status.stale_scopes)) == (30, 30, 20)
    assert {scope.outcome for scope in status.stale_scopes} == {"forbidden", "not_found"}
    assert f"... and 10 more: {status.stale_sql}\n" in text_of(status)
    shown = inventory.query(status.stale_sql)
    assert {row[0] for row in shown} == {scope[0] for scope in scopes}
    assert len(status_of(inventory, limit=1_000).stale_scopes) == 30


@pytest.mark.parametrize(("hours", "late"), [(23.9, 1), (24, 0), (24.1, 0)])
def test_scope_older_than_the_limit_exits_with_3(two_scopes: Inventory, hours: float, late: int) -> None:
    """Just over, at and under the limit; whatever the last outcome was, and delisted scopes do not count."""
    two_scopes.load([A], day(1))
    two_scopes.answer(A[0], None, 500)
    two_scopes.load([A], day(1) + HOUR)
    status = status_of(two_scopes, max_age_hours=hours, now=day(2))
    assert (status.listed, status.stale, status.too_old) == (1, 1, late)
    assert status.exit_code == 3 * late
    assert status_of(two_scopes, now=day(2)).exit_code == 0


def test_scope_that_reads_well_but_not_lately_is_stale(two_scopes: Inventory) -> None:
    two_scopes.load([A], day(2), full_list=False)
    status = status_of(two_scopes, max_age_hours=36, now=day(2) + HOUR)
    (scope,) = status.stale_scopes
    assert (scope.customer_id, scope.outcome, scope.reason) == (B[0], "ok", "read well, but too long ago")
    assert (status.too_old, status.exit_code) == (1, 3)
    assert [row[0] for row in two_scopes.query(status.stale_sql)] == [B[0]]
    assert status_of(two_scopes, now=day(2) + HOUR).stale == 0


def test_scope_never_read_exits_with_3(inventory: Inventory) -> None:
    inventory.answer(A[0], None, 403)
    inventory.load([A], day(0))
    assert status_of(inventory, max_age_hours=1_000, now=day(0)).exit_code == 3


def test_what_is_not_committed_does_not_count(two_scopes: Inventory) -> None:
    """A kill between the tables and the end of the package: the last good read is the one before."""
    two_scopes.load([A, B], day(1))
    write(two_scopes, "DELETE FROM cockpit._dlt_loads WHERE load_id = (SELECT max(load_id) FROM cockpit._dlt_loads)")
    status = status_of(two_scopes, max_age_hours=1, now=day(1))
    assert [line.status for line in status.runs] == ["running", "complete"]
    assert status.outcomes == {}
    assert [(scope.outcome, scope.last_good_at) for scope in status.stale_scopes] == [("uncommitted", day(0))] * 2
    assert (status.too_old, status.exit_code) == (2, 3)
    assert "what was read last is not committed" in text_of(status)
    assert len(two_scopes.query(status.stale_sql)) == 2


def test_delisted_scopes_are_named(two_scopes: Inventory) -> None:
    two_scopes.load([A], day(1))
    write(two_scopes, f"INSERT INTO cockpit.customers BY NAME {_customer(two_scopes, B[0], 'Gone AG')}")
    status = status_of(two_scopes)
    assert [(scope.customer_name, scope.rows_before) for scope in status.delisted] == [("Gone AG", None)]
    text = text_of(status)
    assert "In the last run 1 scope left the list; the rows stay:\n  Gone AG  " in text
    two_scopes.load([A], day(2))
    assert status_of(two_scopes).delisted == ()


def test_delistings_are_those_of_the_run_also_where_runs_have_the_same_date(two_scopes: Inventory) -> None:
    two_scopes.load([A], day(1))
    assert [line.delisted for line in status_of(two_scopes).runs] == [1, 0]
    two_scopes.load([A], day(1))
    status = status_of(two_scopes)
    assert [line.delisted for line in status.runs] == [0, 1, 0]
    assert status.delisted == ()
    assert "left the list" not in text_of(status)


@pytest.mark.parametrize("loaded", [False, True])
def test_nothing_loaded_is_told_and_no_file_made(inventory: Inventory, loaded: bool) -> None:
    """Also where the database holds another tenant only."""
    if loaded:
        inventory.answer(A[0], [])
        Inventory(inventory.sandbox, inventory.database, tenant_key="other").load([A], day(0))
    status = status_of(inventory)
    assert (status.runs, status.exit_code) == ((), 0)
    assert status_of(inventory, max_age_hours=1).exit_code == 3
    assert inventory.database.exists() is loaded
    assert text_of(status).endswith(
        f"\nNothing was ever loaded for tenant {inventory.tenant_key}. Try `cockpit check`, then load.\n"
    )


def test_other_tenant_of_the_dataset_does_not_show(two_scopes: Inventory) -> None:
    before = status_of(two_scopes, now=day(5), max_age_hours=200)
    two_scopes.answer(A[0], None, 403)
    Inventory(two_scopes.sandbox, two_scopes.database, tenant_key="other").load([A], day(2))
    assert status_of(two_scopes, now=day(5), max_age_hours=200) == before


def spool_run(inventory: Inventory, run_id: str, started_at: datetime) -> Spool:
    """The spool of a run of five scopes, three of them read."""
    spool = Spool.create(work_folder(inventory.pipeline()) / run_id)
    spool.write_info(RunInfo(run_id, inventory.tenant_key, started_at, True, None, 5, 5, "hash"))
    for customers in ((10, 11), (12,)):
        listed = [ListedScope(f"k{number}", Scope(new_id(number), INSTANCE, None)) for number in customers]
        results = [ScopeResult(entry, "empty", started_at, CallRecord(200)) for entry in listed]
        spool.write_batch(to_batch(results))
    return spool


def test_interrupted_run_in_the_spool_is_shown(two_scopes: Inventory) -> None:
    folder = work_folder(two_scopes.pipeline())
    (folder / "20260101T000000Z-never").mkdir()
    assert status_of(two_scopes).spooled_run is None
    spool_run(two_scopes, "20260102T060000Z-1", day(1))
    status = status_of(two_scopes, now=day(1) + 3 * HOUR)
    assert status.spooled_run == SpooledRun("20260102T060000Z-1", day(1), 3, 5, None)
    assert (
        "interrupted    run 20260102T060000Z-1, begun 3 h ago: 3 of 5 scopes are done; the next load carries it on"
        in text_of(status)
    )
    with run_lock(folder):
        status = status_of(two_scopes)
    assert status.spooled_run is not None
    assert status.spooled_run.process == str(os.getpid())
    assert "loading now    run 2026" in text_of(status)


def test_status_changes_nothing_on_disk(two_scopes: Inventory) -> None:
    before = two_scopes.database.read_bytes()
    text_of(status_of(two_scopes))
    assert two_scopes.database.read_bytes() == before
    assert two_scopes.load([A, B], day(1)).exit_code == 0


def test_dataset_of_an_older_version_is_told(two_scopes: Inventory) -> None:
    write(two_scopes, "DROP TABLE cockpit.gdap_relationships")
    with pytest.raises(WarehouseError, match=r"lacks what this version reads: .*gdap_relationships.*cockpit load"):
        status_of(two_scopes)


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), 1e9])
def test_max_age_that_makes_no_sense_is_refused(inventory: Inventory, hours: float) -> None:
    with pytest.raises(ConfigurationError, match=r"--max-age-hours .* does not fit. Valid: hours above 0"):
        status_of(inventory, max_age_hours=hours)


def test_json_has_everything_as_plain_values(two_scopes: Inventory) -> None:
    two_scopes.answer(B[0], None, 403)
    two_scopes.load([A, B], day(1))
    status = status_of(two_scopes, max_age_hours=1, now=day(1))
    record = json.loads(json.dumps(to_json(status)))
    assert set(record) == {*Status.__dataclass_fields__, "exit_code"}
    assert set(record["runs"][0]) == set(RunLine.__dataclass_fields__)
    assert (record["exit_code"], record["listed"], record["stale"]) == (3, 2, 1)
    assert record["read_at"] == day(1).isoformat()
    assert record["stale_scopes"][0]["last_good_at"] == day(0).isoformat()


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (None, "never"),
        (timedelta(seconds=-100), "in the future"),
        (timedelta(seconds=59), "just now"),
        (timedelta(seconds=60), "1 min ago"),
        (timedelta(minutes=59, seconds=59), "59 min ago"),
        (timedelta(hours=3, minutes=59), "3 h ago"),
        (timedelta(hours=47), "47 h ago"),
        (timedelta(days=2), "2 days ago"),
    ],
)
def test_age_is_in_words(ago: timedelta | None, words: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert describe_age(None if ago is None else now - ago, now) == words


def test_duration_is_in_words() -> None:
    assert [describe_duration(timedelta(seconds=seconds)) for seconds in (0, 59, 61, 7_300)] == [
        "0 s",
        "59 s",
        "1 min",
        "2 h",
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('tenant = "Portal.Example"\nclient_id = 3\nunknown = 1\n', "portal.example"),
        ('tenant = "https://x"\ntenant_key = "Mine"\n', "mine"),
    ],
)
def test_tenant_key_needs_nothing_else(own_folder: Path, lines: str, expected: str) -> None:
    (own_folder / ".dlt").mkdir()
    (own_folder / ".dlt" / "config.toml").write_text(f"[sources.cockpit]\n{lines}")
    _reread(own_folder)
    assert resolve_tenant_key() == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "tenant is missing. Valid: the domain of your CloudCockpit portal"),
        ('tenant = "https://x"\n', "tenant is an address, but the bare domain is wanted"),
        ('tenant = "x.example"\ntenant_key = "a|b"\n', "tenant_key holds a blank or '|'"),
    ],
)
def test_tenant_key_that_cannot_be_told_is_refused(own_folder: Path, lines: str, message: str) -> None:
    (own_folder / ".dlt").mkdir()
    (own_folder / ".dlt" / "config.toml").write_text(f"[sources.cockpit]\n{lines}")
    _reread(own_folder)
    with pytest.raises(ConfigurationError) as refused:
        resolve_tenant_key()
    assert message in str(refused.value)
    assert str(refused.value).count("\n  - ") == 1


def _reread(folder: Path) -> None:
    from cockpit_source.configuration import open_project

    open_project(folder)


def cockpit(inventory: Inventory, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, in a project without credentials or scopes that work."""
    folder = inventory.database.parent / "project"
    (folder / ".dlt").mkdir(parents=True, exist_ok=True)
    (folder / ".dlt" / "config.toml").write_text(
        f'[sources.cockpit]\ntenant = "{inventory.tenant_key}"\nscopes_file = "missing.csv"\ndiscover = "perhaps"\n'
        f'[destination.duckdb]\ncredentials = "{inventory.database}"\n'
    )
    environment = os.environ | {"DLT_DATA_DIR": str(inventory.database.parent / "work")}
    command = [sys.executable, "-m", "cockpit_source.cli", *map(str, arguments), "--project", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended


@contextmanager
def database_open(inventory: Inventory, *, read_only: bool) -> Iterator[None]:
    """Another process holds the database while the context lasts."""
    code = (
        f"import duckdb, sys; c = duckdb.connect({str(inventory.database)!r}, read_only={read_only}); "
        "print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        yield
    finally:
        holder.communicate("")


def test_command_needs_neither_credentials_nor_scopes_and_calls_no_api(two_scopes: Inventory) -> None:
    two_scopes.sandbox.clear_requests()
    shown = cockpit(two_scopes, "status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "0 of 2 listed scopes were not read last\n" in shown.stdout
    assert f"spool          {work_folder(two_scopes.pipeline())}\n" in shown.stdout
    as_json = cockpit(two_scopes, "status", "--json", "--max-age-hours", "1", "--runs", "1")
    record = json.loads(as_json.stdout)
    assert (as_json.returncode, record["exit_code"], record["too_old"], len(record["runs"])) == (3, 3, 2, 1)
    assert two_scopes.sandbox.requests == []


def test_commands_named_have_the_options_that_were_given(
    two_scopes: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, other = two_scopes.database.parent / "project", two_scopes.database.with_name("none.duckdb")
    shown = cockpit(two_scopes, "status", "--database", other, "--dataset", "other").stdout
    assert f"Try `cockpit check --project {project} --database {other} --dataset other`, then load." in shown
    # what the environment says counts for the next command too, unless it has the option
    monkeypatch.setenv("COCKPIT_DESTINATION", "postgres")
    shown = cockpit(two_scopes, "status", "--database", other, "--destination", "duckdb").stdout
    assert f"Try `cockpit check --project {project} --destination duckdb --database {other}`, then load." in shown


def test_command_reads_beside_a_reader_and_not_beside_a_writer(two_scopes: Inventory) -> None:
    with database_open(two_scopes, read_only=True):
        assert cockpit(two_scopes, "status").returncode == 0
    copy = read_copy_path(two_scopes.database)
    with database_open(two_scopes, read_only=False):
        beside = cockpit(two_scopes, "status")
        copy.unlink()
        busy = cockpit(two_scopes, "status")
    assert beside.returncode == 0
    assert "read copy      the database is in use; what follows is its copy, published " in beside.stdout
    assert "0 of 2 listed scopes were not read last\n" in beside.stdout
    assert (busy.returncode, busy.stdout) == (6, "")
    assert "is in use by process" in busy.stderr


@pytest.mark.parametrize("arguments", [("--runs", "0"), ("--max-age-hours", "soon"), ("--max-age-hours", "0")])
def test_command_refuses_wrong_usage(two_scopes: Inventory, arguments: tuple[str, ...]) -> None:
    refused = cockpit(two_scopes, "status", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Error" in refused.stderr


def test_load_that_had_no_run_is_told_until_the_next_that_has_one(two_scopes: Inventory) -> None:
    """As a sign-in that is refused during discovery: no row of `runs` tells of it."""
    assert status_of(two_scopes).failed_attempt is None
    before = two_scopes.rows("runs", per_run=True)
    broken = two_scopes.resolve([], discover=True, scopes=None, client_secret="no secret any more")
    with pytest.raises(SignInError) as refused:
        run_load(two_scopes.pipeline(), broken)
    assert two_scopes.rows("runs", per_run=True) == before
    status = status_of(two_scopes)
    assert status.failed_attempt is not None
    assert (status.failed_attempt.exit_code, status.failed_attempt.message) == (5, str(refused.value))
    assert re.search(
        r"^last load +failed just now \(exit code 5\): Sign-in was refused", text_of(status), re.MULTILINE
    )
    assert "no secret any more" not in text_of(status)
    assert to_json(status)["failed_attempt"]["exit_code"] == 5
    # a run that ended later, such as one on another machine
    write(two_scopes, "UPDATE cockpit.runs SET finished_at = '2100-01-01'")
    assert status_of(two_scopes).failed_attempt is None
    write(two_scopes, "UPDATE cockpit.runs SET finished_at = started_at")
    assert status_of(two_scopes).failed_attempt is not None
    two_scopes.load([A, B], day(1))
    assert status_of(two_scopes).failed_attempt is None


def test_name_with_a_line_break_stays_in_its_line(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], None, 403)
    two_scopes.load([A, B], day(1))
    name = "Two\nlines"
    write(two_scopes, f"INSERT INTO cockpit.customers BY NAME {_customer(two_scopes, A[0], name)}")
    assert "  Two lines  " in text_of(status_of(two_scopes))
    assert read_rows(two_scopes.database, "customers")[0]["company_name"] == name
