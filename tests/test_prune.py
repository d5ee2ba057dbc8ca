"""`cockpit prune` on a temporary DuckDB: whole tables before and after, against a plain model of what may go."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console
from support import INSTANCE, Inventory, Row, ScopeIds, day, new_id, read_rows, sku

from cockpit_source.errors import CallRecord, WarehouseBusy
from cockpit_source.lock import run_lock
from cockpit_source.outcomes import ScopeResult
from cockpit_source.pipeline import work_folder
from cockpit_source.prune import KeptSpool, PrunedTable, PruneResult, print_pruned, prune
from cockpit_source.scopes import ListedScope, Scope
from cockpit_source.spool import RunInfo, Spool, to_batch
from cockpit_source.status import read_status
from cockpit_source.tables import TABLES

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(1, 5)]
HOURS = (1, 6, 12, 23.99)
DAYS = 4
UNFIT = [sku("e3"), {"skuId": None}]


def prune_at(inventory: Inventory, moment: datetime, keep_days: int, **options: Any) -> PruneResult:
    return prune(inventory.pipeline(), inventory.tenant_key, keep_days=keep_days, now=moment, **options)


def all_tables(inventory: Inventory) -> dict[str, list[Row]]:
    return {name: read_rows(inventory, name, per_run=True) for name in (*TABLES, "_dlt_loads")}


def model_of(tables: dict[str, list[Row]], tenant: str, limit: datetime) -> dict[str, list[Row]]:
    """What is left of the tables, in plain Python."""
    pointed_at = {
        (row[name], row["scope_key"]) for row in tables["scopes"] for name in ("last_run_id", "last_good_run_id")
    }
    committed = {row["load_id"] for row in tables["_dlt_loads"] if row["status"] == 0}
    groups: dict[tuple[str, object], list[Row]] = defaultdict(list)
    for row in tables["scope_runs"]:
        groups[row["scope_key"], row["observed_at"].astimezone(UTC).date()].append(row)
    kept_of_day = []
    for rows in groups.values():
        rows.sort(key=lambda row: (row["observed_at"], row["run_id"]))
        good = [row for row in rows if row["outcome"] in ("ok", "empty") and row["_dlt_load_id"] in committed]
        kept_of_day.append((good or rows)[-1])
    return tables | {
        "scope_runs": [
            row
            for row in tables["scope_runs"]
            if row["tenant"] != tenant
            or row["observed_at"] >= limit
            or row in kept_of_day
            or (row["run_id"], row["scope_key"]) in pointed_at
        ],
        "rejected_rows": [
            row for row in tables["rejected_rows"] if row["tenant"] != tenant or row["observed_at"] >= limit
        ],
    }


@pytest.fixture(scope="module")
def several_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs four days of four runs each keeps their database for the others."""
    return tmp_path_factory.mktemp("days") / "inventory.duckdb"


@pytest.fixture
def loaded(inventory: Inventory, several_days: Path) -> Inventory:
    """Four runs on each of four days with mixed outcomes; the last scope never reads well; another tenant, too."""
    if not several_days.exists():
        _load_days(inventory)
        several_days.write_bytes(inventory.database.read_bytes())
    inventory.database.write_bytes(several_days.read_bytes())
    return inventory


def _load_days(inventory: Inventory) -> None:
    chance = random.Random(7)
    other = Inventory(inventory.sandbox, inventory.database, tenant_key="other")
    for number in range(DAYS):
        for hour in HOURS:
            moment = day(number).replace(hour=0) + timedelta(hours=hour)
            for scope in SCOPES:
                choices: Sequence[tuple[Any, int]] = [([sku("e3")], 200), ([], 200), (None, 403), (UNFIT, 200)]
                body, status = chance.choice(choices[2:] if scope == SCOPES[-1] else choices)
                inventory.answer(scope[0], body, status)
            listed = SCOPES if hour != 12 else SCOPES[1:]
            inventory.load(listed, moment)
            other.load(SCOPES[:2], moment)


@pytest.mark.parametrize("keep_days", [0, 1, 2, 3, 30])
def test_whole_tables_after_a_prune_are_those_of_the_model(loaded: Inventory, keep_days: int) -> None:
    """The limit falls into the middle of a day; a second prune finds nothing."""
    moment = day(DAYS - 1).replace(hour=18)
    before = all_tables(loaded)
    expected = model_of(before, loaded.tenant_key, moment - timedelta(days=keep_days))
    result = prune_at(loaded, moment, keep_days)
    after = all_tables(loaded)
    assert after == expected
    numbers = {
        name: [sum(row["tenant"] == loaded.tenant_key for row in tables[name]) for tables in (before, after)]
        for name in ("scope_runs", "rejected_rows")
    }
    assert result.tables == tuple(PrunedTable(name, *counts) for name, counts in numbers.items())
    assert (result.tables[0].deleted > 0) is (keep_days < 30)
    again = prune_at(loaded, moment, keep_days)
    assert [table.deleted for table in again.tables] == [0, 0]
    assert all_tables(loaded) == expected


def test_rows_at_the_limit_stay(inventory: Inventory) -> None:
    """Just under, at and just over."""
    inventory.answer(SCOPES[0][0], UNFIT)
    limit = day(0) + timedelta(hours=2)
    for microseconds in (-1, 0, 1, 3_600_000_000):
        inventory.load(SCOPES[:1], limit + timedelta(microseconds=microseconds))
    prune_at(inventory, limit + timedelta(days=3), 3)
    for table in ("scope_runs", "rejected_rows"):
        moments = sorted(row["observed_at"] - limit for row in inventory.rows(table, per_run=True))
        assert moments == [timedelta(microseconds=number) for number in (0, 1, 3_600_000_000)]


def test_dry_run_tells_the_same_and_changes_nothing(loaded: Inventory) -> None:
    moment = day(DAYS)
    before = all_tables(loaded)
    (_folder_of(loaded) / "20260101T000000Z-never" / "batches").mkdir(parents=True)
    told = prune_at(loaded, moment, 1, dry_run=True)
    assert all_tables(loaded) == before
    assert (_folder_of(loaded) / "20260101T000000Z-never").exists()
    done = prune_at(loaded, moment, 1)
    assert (told.tables, told.spools_removed) == (done.tables, done.spools_removed)
    assert told.tables[0].deleted > 0


def test_row_that_is_not_committed_is_kept_only_where_no_good_one_is(loaded: Inventory) -> None:
    with duckdb.connect(str(loaded.database)) as connection:
        connection.execute("UPDATE cockpit._dlt_loads SET status = 1 WHERE hash(load_id) % 2 = 0")
    expected = model_of(all_tables(loaded), loaded.tenant_key, day(DAYS))
    prune_at(loaded, day(DAYS), 0)
    assert all_tables(loaded) == expected


def test_stale_scopes_and_the_next_load_are_as_before(loaded: Inventory) -> None:
    """Only what the runs before the limit emptied cannot be told any more."""

    def status() -> Any:
        return read_status(loaded.pipeline(), loaded.tenant_key, runs=3, max_age_hours=5, now=day(DAYS), limit=1_000)

    before = status()
    assert before.stale > 0
    assert before.outcomes == {"empty": 1, "forbidden": 1, "failed": 2}
    prune_at(loaded, day(DAYS), 0)
    after = status()
    assert replace(after, runs=(), emptied=()) == replace(before, runs=(), emptied=())
    assert [replace(run, emptied=0) for run in after.runs] == [replace(run, emptied=0) for run in before.runs]
    for scope in SCOPES:
        loaded.answer(scope[0], [sku("e3", 9, 9)])
    assert loaded.load(SCOPES, day(DAYS) + timedelta(hours=1)).outcomes == {"ok": 4}
    assert status().stale == 0
    assert [row["failing_runs"] for row in loaded.rows("scopes") if row["tenant"] != "other"] == [0] * 4


def test_failure_half_way_deletes_nothing(loaded: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_tables(loaded)
    monkeypatch.setattr(
        "cockpit_source.prune._DELETE_REJECTED_ROWS",
        "DELETE FROM {rejected_rows} WHERE tenant = %s AND nonsense < %s",
    )
    with pytest.raises(Exception, match="nonsense"):
        prune_at(loaded, day(DAYS), 0)
    monkeypatch.undo()
    assert all_tables(loaded) == before


def test_prune_beside_a_load_is_refused(loaded: Inventory) -> None:
    before = all_tables(loaded)
    with run_lock(_folder_of(loaded)), pytest.raises(WarehouseBusy, match=f"running .process {os.getpid()}"):
        prune_at(loaded, day(DAYS), 0)
    assert all_tables(loaded) == before


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_loaded_yet_is_told(inventory: Inventory, exists: bool) -> None:
    if exists:
        duckdb.connect(str(inventory.database)).close()
    result = prune_at(inventory, day(0), 0)
    assert (result.tables, result.spools_removed, result.spools_kept) == ((), (), ())
    assert inventory.database.exists() is exists
    assert _text_of(result).startswith("No tables yet: nothing was ever loaded.\n")


def _folder_of(inventory: Inventory) -> Path:
    folder = work_folder(inventory.pipeline())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _text_of(result: PruneResult) -> str:
    text = StringIO()
    print_pruned(result, Console(file=text, width=120))
    return text.getvalue()


def _spool_run(inventory: Inventory, run_id: str, started_at: datetime, *, loaded: bool = False) -> Spool:
    """The spool of a run of one scope that was read."""
    spool = Spool.create(_folder_of(inventory) / run_id)
    spool.write_info(RunInfo(run_id, inventory.tenant_key, started_at, True, None, 1, 1, "hash"))
    listed = ListedScope("key", Scope(*SCOPES[0]))
    path = spool.write_batch(to_batch([ScopeResult(listed, "empty", started_at, CallRecord(200))]))
    if loaded:
        spool.mark_loaded([path])
    return spool


def test_spool_keeps_what_may_still_be_loaded(inventory: Inventory) -> None:
    """Of runs that are old or young, overtaken or not, loaded or not, never begun; only what is safe goes."""
    inventory.answer(SCOPES[0][0], [sku("e3")])
    finished = inventory.load(SCOPES[:1], day(1)).run_id
    inventory.load(SCOPES[:1], day(5))
    inventory.answer(SCOPES[0][0], None, 500)
    inventory.load(SCOPES[:1], day(8))
    folder = _folder_of(inventory)
    (folder / "1-never-began" / "batches").mkdir(parents=True)
    (folder / "2-unreadable").mkdir()
    (folder / "2-unreadable" / "run.json").write_text("{")
    _spool_run(inventory, "3-old-and-overtaken", day(2))
    _spool_run(inventory, "4-old-and-only-a-failed-run-since", day(6))
    _spool_run(inventory, "5-young-and-overtaken", day(4))
    _spool_run(inventory, finished, day(1), loaded=True)
    # dated by its start alone: 3 is older than the limit, 4 and 5 are not
    size = sum(path.stat().st_size for name in _going(finished) for path in (folder / name).rglob("*.*"))
    result = prune_at(inventory, day(7), 4)
    assert list(result.spools_removed) == sorted(_going(finished))
    assert result.spool_bytes_freed == size > 0
    assert result.spools_kept == (
        KeptSpool("4-old-and-only-a-failed-run-since", day(6)),
        KeptSpool("5-young-and-overtaken", day(4)),
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "4-old-and-only-a-failed-run-since",
        "5-young-and-overtaken",
        "run.lock",
    ]
    assert (
        "Kept in the spool: run 5-young-and-overtaken, begun 2026-01-05 06:00 UTC, is not loaded yet; `cockpit load` "
        in _text_of(result)
    )
    assert [kept.run_id for kept in prune_at(inventory, day(12), 1).spools_kept] == [
        "4-old-and-only-a-failed-run-since"
    ]


def _going(finished: str) -> list[str]:
    return ["1-never-began", "2-unreadable", "3-old-and-overtaken", finished]


def test_spool_without_its_database_stays(inventory: Inventory) -> None:
    _spool_run(inventory, "r1", day(0))
    result = prune_at(inventory, day(100), 0)
    assert (result.spools_removed, result.spools_kept) == ((), (KeptSpool("r1", day(0)),))


def cockpit(inventory: Inventory, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "DLT_DATA_DIR": str(inventory.database.parent / "work"),
        "SOURCES__COCKPIT__TENANT": inventory.tenant_key,
    }
    command = [
        sys.executable,
        "-m",
        "cockpit_source.cli",
        *map(str, arguments),
        "--database",
        str(inventory.database),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended


def test_command_prints_what_it_deleted(loaded: Inventory) -> None:
    before = all_tables(loaded)
    expected = model_of(before, loaded.tenant_key, datetime.now(UTC) - timedelta(days=3))
    (rows, rejected) = (
        [sum(row["tenant"] == loaded.tenant_key for row in tables[name]) for tables in (before, expected)]
        for name in ("scope_runs", "rejected_rows")
    )
    dry = cockpit(loaded, "prune", "--keep-days", 3, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout.endswith("--dry-run: nothing was changed; this is what would be.\n")
    assert all_tables(loaded) == before
    done = cockpit(loaded, "prune", "--keep-days", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()[1:3]] == [
        ["scope_runs", str(rows[0]), str(rows[0] - rows[1]), str(rows[1])],
        ["rejected_rows", str(rejected[0]), str(rejected[0] - rejected[1]), str(rejected[1])],
    ]
    assert "Spool: 0 folders removed, 0.0 MiB freed.\n" in done.stdout
    assert all_tables(loaded) == expected
    record = json.loads(cockpit(loaded, "prune", "--keep-days", 3, "--json").stdout)
    assert set(record) == set(PruneResult.__dataclass_fields__)
    assert record["tables"][0] == {"name": "scope_runs", "before": rows[1], "after": rows[1], "deleted": 0}
    assert (record["keep_days"], record["dry_run"], record["spools_kept"]) == (3, False, [])


@pytest.mark.parametrize("arguments", [(), ("--keep-days", "-1"), ("--keep-days", "1.5")])
def test_command_refuses_wrong_usage(inventory: Inventory, arguments: tuple[str, ...]) -> None:
    refused = cockpit(inventory, "prune", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Error" in refused.stderr
