"""What a load promises, on every warehouse that can be had here: DuckDB, PostgreSQL and DuckLake."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from postgres_server import PostgresServer
from rich.console import Console
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, new_id, sku
from test_discovery import load as load_discovered
from test_prune import all_tables, model_of, prune_at

from cockpit_source.check import run_checks
from cockpit_source.configuration import resolve_settings
from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.sandbox import Sandbox
from cockpit_source.status import read_status
from cockpit_source.tables import LISTED_TABLES, TABLES
from cockpit_source.warehouse import Warehouse

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
C: ScopeIds = (new_id(3), INSTANCE, new_id(9))

ODD_NAMES = ["Офис — 企業版 🚀 مكتب", "nul\x00 and \ud800 alone", "quote ' \" \\ \\N ; -- \n\r\t %s {x} $1", None]
UNFIT = [sku("e3"), {"skuId": None, "name": "nul\x00 and \ud800"}]

# seats: numbers, none, and as large as 64 bits allow
_ODD = [
    sku("e3", 5, 1, name=ODD_NAMES[0]),
    sku("e4", 2**63 - 1, -(2**63), name=ODD_NAMES[1], availableLicenses=None),
    sku("e5", None, None, name=ODD_NAMES[2], availableLicenses=None, suspendedLicenses=None),
    sku("e6", 2**40, 0, name=ODD_NAMES[3]),
]
_A = [sku("e3", 25, 22), sku("e5", 5, 5)]

Answers = dict[ScopeIds, tuple[str, list[Any]]]

DAYS: list[Answers] = [
    {A: ("ok", _A), B: ("ok", [sku("e3", 7, 1)]), C: ("ok", _ODD)},
    # a SKU gone, seats changed, the odd ones unchanged
    {A: ("ok", _A[:1]), B: ("ok", [sku("e3", 8, 1)]), C: ("ok", _ODD)},
    # emptied, a SKU three times in one answer, and one that does not fit
    {A: ("empty", []), B: ("ok", [sku("e3", 5, 1), sku("e3", 3, 1), sku("e3", 3, 1)]), C: ("failed", UNFIT)},
    # back as it was, not read, and delisted
    {A: ("ok", _A), B: ("deferred", [])},
    # listed again, with some of its SKUs
    {A: ("not_found", []), B: ("ok", [sku("e3", 3, 1), sku("e3", 5, 1)]), C: ("ok", _ODD[2:])},
    {A: ("empty", []), B: ("empty", []), C: ("forbidden", [])},
]
STATUSES = {"ok": 200, "empty": 200, "failed": 200, "forbidden": 403, "not_found": 404, "deferred": 429}

# what two loads of the same answers do not share
_PER_LOAD = {"correlation_id", "server_correlation_id", "duration_ms"}


@pytest.fixture(params=["duckdb", "postgres", "ducklake"])
def warehouse(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Inventory:
    """An inventory whose tables lie in the warehouse of the parameter."""
    if request.param != "duckdb":
        request.getfixturevalue(f"{request.param}_url")
    return Inventory(sandbox, tmp_path / "inventory.duckdb", destination=request.param)


@pytest.fixture
def on_postgres(sandbox: Sandbox, tmp_path: Path, postgres_url: str) -> Inventory:
    """An inventory in PostgreSQL, with scope A."""
    inventory = Inventory(sandbox, tmp_path / "inventory.duckdb", destination="postgres")
    inventory.answer(A[0], _A)
    return inventory


def test_many_days(warehouse: Inventory, inventory: Inventory) -> None:
    """Whole tables after each day, then what status, a scope query and prune make of them."""
    model = Model(warehouse.tenant_key)
    expected = _load_days(warehouse, model)
    _check_rejected(warehouse)
    _check_status(warehouse, expected)
    _check_scopes_query(warehouse)
    with pytest.raises(ConfigurationError, match="not later than"):
        warehouse.load(DAYS[-1], day(len(DAYS) - 1))
    if warehouse.destination != "duckdb":
        inventory.database = inventory.database.with_name("same.duckdb")
        _load_days(inventory, Model(inventory.tenant_key))
        for table in TABLES:
            assert _comparable(warehouse, table) == _comparable(inventory, table)
    _check_prune(warehouse)


def _load_days(inventory: Inventory, model: Model) -> list[Row]:
    """Load every day, hold whole tables against the model, and tell what status should say of the runs."""
    expected: list[Row] = []
    before, last_counts = (0, 0), dict.fromkeys((A, B, C), 0)
    for number, answers in enumerate(DAYS):
        for (customer, _, _), (outcome, rows) in answers.items():
            inventory.answer(customer, rows, STATUSES[outcome])
        result = inventory.load(answers, day(number))
        stored = {scope: (outcome, [_cleaned(row) for row in rows]) for scope, (outcome, rows) in answers.items()}
        model.run(result.run_id, day(number), stored)
        model.check(inventory)
        good = {scope: len(rows) for scope, (outcome, rows) in answers.items() if outcome in ("ok", "empty")}
        totals = _totals(model)
        expected.append(
            {
                "run_id": result.run_id,
                "scopes_read": len(good),
                "license_rows": sum(good.values()),
                "emptied": sum(last_counts[scope] > 0 == count for scope, count in good.items()),
                # a scope that came back counts as listed throughout
                "delisted": 0,
                "row_change": totals[0] - before[0],
                "seat_change": totals[1] - before[1],
            }
        )
        before = totals
        last_counts |= good
        assert result.delisted == int(number == 3)
    assert [run["emptied"] for run in expected] == [0, 0, 1, 0, 0, 2]
    return expected


def _cleaned(row: Row) -> Row:
    """A row as it is kept: what no database takes is replaced."""
    name = row["name"]
    return row if name is None else row | {"name": name.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")}


def _totals(model: Model) -> tuple[int, int]:
    rows = [row for rows in model.licenses.values() for row in rows]
    seats = [row["total_licenses"] or 0 for row in rows]
    return len(rows), sum(count for count in seats if count < 10_000)


def _check_rejected(inventory: Inventory) -> None:
    (rejected,) = inventory.rows("rejected_rows")
    assert (rejected["customer_id"], rejected["position"]) == (C[0], 1)
    assert json.loads(rejected["raw"])["name"] in (UNFIT[1]["name"], "nul\ufffd and \ufffd")


def _check_status(inventory: Inventory, expected: list[Row]) -> None:
    status = read_status(inventory.pipeline(), inventory.tenant_key, runs=10, max_age_hours=5, now=day(len(DAYS)))
    told = [{name: value for name, value in asdict(run).items() if name in expected[0]} for run in status.runs]
    assert told == expected[::-1]
    assert status.outcomes == {"empty": 2, "forbidden": 1}
    assert (status.listed, status.stale, status.too_old) == (3, 3, 3)
    emptied = {(scope.customer_id, scope.rows_before) for scope in status.emptied}
    assert emptied == {(A[0], 2), (B[0], 2)}
    (refused,) = [scope for scope in status.stale_scopes if scope.outcome == "forbidden"]
    assert (refused.customer_id, refused.reseller_id, refused.failing_runs) == (C[0], C[2], 1)
    assert refused.last_good_at == day(4)


def _check_scopes_query(inventory: Inventory) -> None:
    columns = "customer_id, provider_instance_id, reseller_id"
    rows = Warehouse(inventory.pipeline()).query_rows(f"SELECT {columns} FROM cockpit.scopes WHERE failing_runs > 0")
    assert [tuple(row.values()) for row in rows] == [C]
    with pytest.raises(ConfigurationError, match=r"scopes_query failed: .*nothing"):
        list(Warehouse(inventory.pipeline()).query_rows("SELECT customer_id FROM cockpit.nothing"))


def _comparable(inventory: Inventory, table: str) -> list[Row]:
    rows = [{n: v for n, v in row.items() if n not in _PER_LOAD} for row in inventory.rows(table)]
    return sorted(rows, key=lambda row: json.dumps(row, default=str, sort_keys=True))


def _check_prune(inventory: Inventory) -> None:
    before = all_tables(inventory)
    assert prune_at(inventory, day(len(DAYS)), 3, dry_run=True).tables[1].deleted == 1
    assert all_tables(inventory) == before
    prune_at(inventory, day(len(DAYS)), 3)
    after = all_tables(inventory)
    assert after == model_of(before, inventory.tenant_key, day(len(DAYS) - 3))
    assert len(after["rejected_rows"]) == len(before["rejected_rows"]) - 1


@pytest.mark.parametrize("warehouse", ["postgres", "ducklake"], indirect=True)
def test_discovered_tables_are_those_of_duckdb(warehouse: Inventory, tmp_path: Path) -> None:
    """Contacts, relationships, and what vanishes from the listing."""
    by_file = Inventory(warehouse.sandbox, tmp_path / "by_file.duckdb")
    for inventory in (warehouse, by_file):
        inventory.settings |= {"discover": True, "contact_data": True, "gdap_relationships": True, "max_attempts": 3}
        for number in (0, 3):
            assert load_discovered(inventory, number)[0].listing_problem is None
    for table in (table.name for table in LISTED_TABLES):
        assert warehouse.rows(table) == by_file.rows(table)
    removed = [row["removed_at"] for row in warehouse.rows("customers")]
    assert {None, day(3)} <= set(removed)
    assert any(row["email"] for row in warehouse.rows("customers"))


@pytest.mark.parametrize("warehouse", ["duckdb", "postgres"], indirect=True)
def test_empty_name_is_kept_except_on_postgres(warehouse: Inventory) -> None:
    """There dlt copies CSV, in which it takes an empty optional text for a missing one. It makes no version."""
    warehouse.answer(A[0], [sku("e3", name="")])
    for number in (0, 1):
        warehouse.load([A], day(number))
    stored = None if warehouse.destination == "postgres" else ""
    assert [row["sku_name"] for row in warehouse.rows("licenses")] == [stored]
    assert [row["sku_name"] for row in warehouse.rows("license_history")] == [stored]


def test_merges_on_postgres_have_working_memory(on_postgres: Inventory) -> None:
    assert _show(on_postgres, "work_mem") == "256MB"


@pytest.mark.parametrize(
    ("options", "work_mem", "jit"),
    [
        ("-c work_mem=1GB", "1GB", "on"),
        ("-c jit=off", "256MB", "off"),
        ("-cwork_mem=64MB -c jit=off", "64MB", "off"),
    ],
)
def test_options_of_the_user_win(
    on_postgres: Inventory, monkeypatch: pytest.MonkeyPatch, options: str, work_mem: str, jit: str
) -> None:
    name = on_postgres.pipeline().pipeline_name
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"]
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", f"{url}?options={options.replace(' ', '%20')}")
    assert (_show(on_postgres, "work_mem"), _show(on_postgres, "jit")) == (work_mem, jit)
    assert on_postgres.pipeline().pipeline_name == name


def _show(inventory: Inventory, setting: str) -> str:
    with inventory.pipeline().sql_client() as client:
        ((value,),) = client.execute_sql(f"SHOW {setting}")
    return str(value)


Change = Callable[[str, PostgresServer], str]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda url, server: url.replace(f":{server.port}/", ":1/"), "Connection refused"),
        (lambda url, server: url.replace(server.password, "hunter-two"), "password authentication failed"),
        (lambda url, _: url.rsplit("/", 1)[0] + "/nothing", 'database "nothing" does not exist'),
        (lambda url, _: url.replace("127.0.0.1", "warehouse.invalid"), "could not translate host name"),
    ],
    ids=["server down", "wrong password", "no such database", "no such host"],
)
def test_check_says_why_postgres_cannot_be_used(
    on_postgres: Inventory, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, change: Change, expected: str
) -> None:
    """One message, without a password."""
    url = change(os.environ["DESTINATION__POSTGRES__CREDENTIALS"], postgres)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
    text = StringIO()
    settings = on_postgres.connection() | {"scopes": [{"customer_id": A[0], "provider_instance_id": A[1]}]}
    code = run_checks(
        lambda: resolve_settings(**settings), lambda _: on_postgres.pipeline(), Console(file=text, width=60)
    )
    assert code == 2
    (said,) = [line for line in text.getvalue().splitlines() if line.startswith("failed")]
    assert text.getvalue().endswith(f"{said}\n")
    assert expected in said
    assert "hunter" not in said
    assert postgres.password not in said


def test_connection_lost_in_the_middle_of_a_load_costs_nothing(
    on_postgres: Inventory, postgres: PostgresServer
) -> None:
    """The server ends every connection, as in a restart, while the history is merged; the next load is exact."""
    on_postgres.load([A], day(0))
    on_postgres.answer(A[0], _A[:1])
    database = os.environ["DESTINATION__POSTGRES__CREDENTIALS"].rsplit("/", 1)[1]
    # the merge waits for this lock, and so can be met
    tried = threading.Event()
    with closing(psycopg2.connect(postgres.url(database))) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE cockpit.license_history IN SHARE MODE")
        ender = threading.Thread(target=_end_waiting_connections, args=(postgres, database, tried))
        ender.start()
        try:
            with pytest.raises(WarehouseError, match="Nothing was lost"):
                on_postgres.load([A], day(1))
        finally:
            tried.set()
            ender.join()
    result = on_postgres.load([A], day(1))
    assert result.carried_on
    model = Model(on_postgres.tenant_key)
    model.run(on_postgres.rows("runs", per_run=True)[0]["run_id"], day(0), {A: ("ok", _A)})
    model.run(result.run_id, day(1), {A: ("ok", _A[:1])})
    model.check(on_postgres)


def _end_waiting_connections(postgres: PostgresServer, database: str, tried: threading.Event) -> None:
    """End those that wait for a lock until the load has given up, however long dlt pauses between its tries."""
    waiting = f"datname = '{database}' AND wait_event_type = 'Lock'"
    while not tried.wait(0.05):
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waiting}")
