"""Shards of a list: loaded side by side, ended once, and kept from each other."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from marts_world import Marts, in_order
from postgres_server import PostgresServer
from sharded_days import ShardedDays
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, sku

from cockpit_source.errors import ConfigurationError, EmptyShard, WarehouseBusy
from cockpit_source.fanout.cluster import connect
from cockpit_source.load import LoadProgress, run_load
from cockpit_source.load_result import LoadResult
from cockpit_source.packages import PackageLoader
from cockpit_source.pipeline import create_pipeline
from cockpit_source.reference_data import load_reference_data
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox
from cockpit_source.shards import BUCKETS, Shard, bucket_of, overlap, parse_shard
from cockpit_source.status import read_status

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(60)]
SHARDS = ("1/2", "2/2")


@pytest.mark.parametrize("count", [1, 2, 3, 16, 48, 64])
def test_shards_of_any_number_hold_every_scope_once(count: int) -> None:
    shards = [Shard(index, count) for index in range(1, count + 1)]
    assert sorted(bucket for shard in shards for bucket in shard.buckets) == list(range(BUCKETS))
    for number in range(300):
        (holder,) = [shard for shard in shards if shard.holds(f"t|{number}")]
        assert bucket_of(f"t|{number}") in holder.buckets
        assert parse_shard(str(holder)) == holder


def test_bucket_of_a_scope_never_changes() -> None:
    """Machines with two versions of this package must agree."""
    assert [bucket_of(key) for key in ("", "t|a|b|-", "t|ä|b|c")] == [52, 42, 16]


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1/65", "1-4", "a/b", "1/4/4", "-1/4"])
def test_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Valid: I/N .* such as 3/16; or finish"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1/4", "2/4", False),
        ("1/4", "1/4", True),
        ("1/4", "1/2", True),
        ("1/4", "2/2", False),
        ("1/3", "2/2", True),
        ("1/4", None, True),
        ("finish", "2/4", True),
        (None, None, True),
    ],
)
def test_overlap(one: str | None, other: str | None, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


class Sharded(Inventory):
    """An inventory in PostgreSQL that is loaded in shards, and the model of what it should hold."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        super().__init__(sandbox, folder / "inventory.duckdb", destination="postgres")
        self.model = Model(self.tenant_key)

    def load_shard(self, shard: str, number: float, scopes: list[ScopeIds] = SCOPES, **options: object) -> LoadResult:
        """Load a part of the list; `finish` is an hour after the shards."""
        part = "" if shard == "finish" else shard
        pipeline = create_pipeline(
            self.tenant_key,
            destination="postgres",
            shard=part,
            pipelines_dir=self.database.parent / "work" / "pipelines",
        )
        moment = day(number).replace(hour=day(number).hour + (shard == "finish"))
        return run_load(pipeline, self.resolve(scopes), shard=shard, as_of=moment, **options)  # type: ignore[arg-type]

    def empty(self, scopes: list[ScopeIds]) -> None:
        for customer, _, _ in scopes:
            self.answer(customer, [])


@pytest.fixture
def sharded(sandbox: Sandbox, tmp_path: Path, postgres_url: str) -> Sharded:
    """Sixty scopes with a SKU each, loaded on day 0 in two shards and ended."""
    inventory = Sharded(sandbox, tmp_path)
    for customer, _, _ in SCOPES:
        inventory.answer(customer, [sku("e3")])
    for shard in (*SHARDS, "finish"):
        assert inventory.load_shard(shard, 0).exit_code == 0
    return inventory


def held(inventory: Inventory) -> set[str]:
    return {row["customer_id"] for row in inventory.rows("licenses")}


def kill_shard(sharded: Sharded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shard 1/2 of day 1 ends when it has read everything and loaded nothing."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PackageLoader, "load_last", die)
        with pytest.raises(KeyboardInterrupt):
            sharded.load_shard("1/2", 1)


def outcomes(inventory: Inventory) -> dict[str, str]:
    return {row["customer_id"]: row["last_outcome"] for row in inventory.rows("scopes", per_run=True)}


@pytest.mark.parametrize("number", [11, 10])
def test_drop_guard_decides_once_over_the_whole_list(sharded: Sharded, number: int) -> None:
    """Eleven of sixty are too many, though no shard has more than ten; ten are not. A shard never decides."""
    emptied = SCOPES[:number]
    sharded.empty(emptied)
    results = [sharded.load_shard(shard, 1) for shard in SHARDS]
    assert sum(result.waiting for result in results) == number
    assert max(result.waiting for result in results) < 10
    assert [(result.exit_code, result.guard_message) for result in results] == [(0, None)] * 2
    assert len(held(sharded)) == 60
    ended = sharded.load_shard("finish", 1)
    # only those that wait are read again, and judged against the list as a whole
    assert (ended.requests, ended.scopes_total) == (number, 60)
    assert ended.drops is not None
    assert (ended.drops.emptied, ended.drops.holding) == (number, 60)
    left_out = {customer for customer, _, _ in emptied}
    if number == 10:
        assert (ended.exit_code, ended.outcomes["empty"]) == (0, 10)
        assert held(sharded) == {customer for customer, _, _ in SCOPES} - left_out
        return
    assert (ended.exit_code, ended.outcomes["quarantined"]) == (4, 11)
    assert len(held(sharded)) == 60
    assert {customer for customer, outcome in outcomes(sharded).items() if outcome == "quarantined"} == left_out
    accepted = sharded.load_shard("finish", 2, accept_drop=11)
    assert (accepted.exit_code, len(held(sharded))) == (0, 49)


def test_only_the_end_takes_scopes_off_the_list(sharded: Sharded) -> None:
    listed = SCOPES[:-1]
    for shard in SHARDS:
        assert sharded.load_shard(shard, 1, listed).delisted == 0
    assert all(row["delisted_at"] is None for row in sharded.rows("scopes"))
    assert sharded.load_shard("finish", 1, listed).delisted == 1
    (gone,) = [row for row in sharded.rows("scopes") if row["delisted_at"] is not None]
    assert gone["customer_id"] == SCOPES[-1][0]


def test_end_reads_what_no_shard_has(sharded: Sharded) -> None:
    """A shard that never came, and scopes that a shard could not read."""
    (mine, others) = ([s for s in SCOPES if Shard(i, 2).holds(sharded.model.scope_key(s))] for i in (1, 2))
    sharded.answer(mine[0][0], {}, status=403)
    sharded.answer(others[0][0], [sku("e5")])
    assert sharded.load_shard("1/2", 1).exit_code == 3
    sharded.answer(mine[0][0], [sku("e5")])
    ended = sharded.load_shard("finish", 1)
    assert (ended.status, ended.requests, ended.good) == ("complete", len(others) + 1, 60)
    (row,) = [row for row in sharded.rows("runs", per_run=True) if row["run_id"] == ended.run_id]
    assert (row["shard"], row["listing_complete"], row["list_begun_at"]) == ("finish", True, day(1))
    assert {r["customer_id"] for r in sharded.rows("licenses") if r["sku_id"] == "e5"} == {mine[0][0], others[0][0]}


def test_spool_of_a_killed_shard_never_overwrites_what_the_end_has_read(
    sharded: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end reads the scopes of the shard anew, and the shard comes back a day later."""

    (mine, _) = ([s for s in SCOPES if Shard(i, 2).holds(sharded.model.scope_key(s))] for i in (1, 2))
    sharded.answer(mine[0][0], [sku("old")])
    kill_shard(sharded, monkeypatch)
    sharded.load_shard("2/2", 1)
    sharded.answer(mine[0][0], [sku("new")])
    assert sharded.load_shard("finish", 1).requests == len(mine)
    progress = LoadProgress()
    result = sharded.load_shard("1/2", 2, progress=progress)
    assert not result.carried_on
    assert any("a later run has loaded newer answers" in note for note in progress.notes)
    assert "old" not in {row["sku_id"] for row in sharded.rows("license_history")}


def test_killed_shard_is_carried_on_beside_another(sharded: Sharded, monkeypatch: pytest.MonkeyPatch) -> None:
    """That another has begun and loaded since does not matter to it."""
    kill_shard(sharded, monkeypatch)
    sharded.load_shard("2/2", 2)
    result = sharded.load_shard("1/2", 1)
    assert (result.carried_on, result.status, result.requests) == (True, "complete", result.scopes_total)


def test_shards_are_read_by_dask_too(sandbox: Sandbox, tmp_path: Path, postgres_url: str) -> None:
    """Whole tables against the model."""
    sharded = Sharded(sandbox, tmp_path)
    rows = {scope: [sku("e3", total=number + 1)] for number, scope in enumerate(SCOPES)}
    for (customer, _, _), answered in rows.items():
        sharded.answer(customer, answered)
    with connect("local") as fan_out:
        for shard in SHARDS:
            result = sharded.load_shard(shard, 0, fan_out=fan_out)
            held_by = parse_shard(shard)
            mine = {s: ("ok", rows[s]) for s in SCOPES if held_by.holds(sharded.model.scope_key(s))}
            assert (result.exit_code, result.requests) == (0, len(mine))
            sharded.model.run(result.run_id, day(0), mine, others=None)
        ended = sharded.load_shard("finish", 0, fan_out=fan_out)
    assert (ended.exit_code, ended.requests, ended.good) == (0, 0, 60)
    sharded.model.run(ended.run_id, day(0).replace(hour=day(0).hour + 1), {}, others=SCOPES)
    sharded.model.check(sharded)


def test_read_of_another_day_does_not_count(sharded: Sharded) -> None:
    """The shards of day 0 say nothing of day 1."""
    ended = sharded.load_shard("finish", 1)
    assert (ended.requests, ended.scopes_total) == (60, 60)
    (row,) = [row for row in sharded.rows("runs", per_run=True) if row["run_id"] == ended.run_id]
    assert row["list_begun_at"] is None


def test_status_tells_shards_as_one_run(sharded: Sharded) -> None:
    def read() -> list[tuple[object, ...]]:
        status = read_status(sharded.pipeline(), sharded.tenant_key, runs=5)
        assert sum(status.outcomes.values()) == status.runs[0].scopes_total
        return [
            (
                r.run_id if r.run_id == "shards" else "",
                r.started_at,
                r.scopes_total,
                r.scopes_read,
                r.requests,
                r.row_change,
            )
            for r in status.runs
        ]

    first = ("", day(0), 60, 60, 60, 60)
    assert read() == [first]
    for customer, _, _ in SCOPES[:7]:
        sharded.answer(customer, [sku("e3"), sku("e5")])
    part = sharded.load_shard("1/2", 1).scopes_total
    new = sum(Shard(1, 2).holds(sharded.model.scope_key(scope)) for scope in SCOPES[:7])
    assert read() == [("shards", day(1), part, part, part, new), first]
    sharded.load_shard("2/2", 1)
    assert read() == [("shards", day(1), 60, 60, 60, 7), first]
    sharded.load_shard("finish", 1)
    assert read() == [("", day(1), 60, 60, 60, 7), first]


def test_repeated_shards_count_once_and_change_no_earlier_line(sharded: Sharded, tmp_path: Path) -> None:
    """Shard 1/2 in the evening, again at midnight, then 2/2 and the end; later a shard that nothing ends."""
    (mine, others) = ([s for s in SCOPES if Shard(i, 2).holds(sharded.model.scope_key(s))] for i in (1, 2))
    first = ("complete", day(0), 0, 60, 60, 60, 60, 60, 600)
    project = tmp_path / "a project"
    project.mkdir()

    def read() -> list[tuple[object, ...]]:
        status = read_status(sharded.pipeline(), sharded.tenant_key, runs=5)
        changes = status.customer_changes
        assert sum(c.row_change for c in changes) == status.runs[0].row_change
        assert sum(c.seat_change for c in changes) == status.runs[0].seat_change
        return [
            (
                r.status,
                r.started_at,
                r.shards_done,
                r.scopes_total,
                r.scopes_read,
                r.license_rows,
                r.requests,
                r.row_change,
                r.seat_change,
            )
            for r in status.runs
        ]

    def told() -> str:
        command = [sys.executable, "-m", "cockpit_source.cli", "status", *options]
        environment = os.environ | {"SOURCES__COCKPIT__TENANT": sharded.tenant_key}
        shown = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, env=environment
        ).stdout
        assert "running" not in shown
        return shown

    options = ["--project", str(project), "--destination", "postgres"]
    part, rest = len(mine), len(others)
    sharded.answer(mine[0][0], [sku("e3"), sku("e5", total=7)])
    sharded.answer(mine[1][0], [])
    sharded.load_shard("1/2", 1.5)
    # the emptied one waits, so it has no good read
    assert read() == [("running", day(1.5), 1, part, part - 1, part, part, 1, 7), first]
    sharded.answer(mine[2][0], [sku("e3", total=4)])
    sharded.load_shard("1/2", 1.75)
    assert read() == [("running", day(1.5), 1, part, part - 1, part, 2 * part, 1, 1), first]
    assert "The first line is that of 1 shard since 2026-01-02 18:00 UTC, each counted once. Once" in told()
    sharded.answer(others[0][0], [sku("e3"), sku("e5", total=20)])
    sharded.load_shard("2/2", 1.875)
    requests = 60 + part
    assert read() == [("running", day(1.5), 2, 60, 59, 61, requests, 2, 21), first]
    text = told()
    assert "not ended" in text
    assert "of 2 shards since" in text
    assert f"run `cockpit load --project '{project}' --destination postgres --shard finish`: no scope" in text
    assert sharded.load_shard("finish", 2).requests == 1
    second = ("complete", day(1.5), 0, 60, 60, 61, requests + 1, 1, 11)
    assert read() == [second, first]
    text = told()
    assert "The first line is" not in text
    assert "not ended" not in text
    check_days(sharded)
    sharded.answer(others[1][0], [])
    sharded.answer(others[2][0], [sku("e3", total=15)])
    sharded.load_shard("2/2", 3)
    assert read() == [("running", day(3), 1, rest, rest - 1, rest, rest, 0, 5), second, first]
    assert sharded.load(SCOPES, day(4)).status == "complete"
    assert read() == [("complete", day(4), 0, 60, 60, 60, 60, -1, -5), second, first]


def check_days(sharded: Sharded) -> None:
    """The list of day 2 was begun at midnight: nothing that counts was read in the evening before."""
    lists = {0: (0, 0), 1: (0, 0), 2: (2, 2), 3: (2, 2)}
    on = [day(number).date() for number in lists]
    expected = [
        {
            "tenant": sharded.tenant_key,
            "compared_on": on[number],
            "days_before": before,
            "snapshot_date": on[number - before],
            "day_end": day(number - before + 0.75),
            "list_begun_on": on[lists[number - before][0]],
            "list_ended_on": on[lists[number - before][1]],
        }
        for number in lists
        for before in (0, 1)
        if before <= number
    ]
    pipeline = sharded.pipeline()
    with one_runner(pipeline) as lock:
        load_reference_data(pipeline, sharded.resolve(SCOPES), lock=lock)
    assert Marts(pipeline).create(day(3)).rows("int_days") == in_order(expected)


def test_runs_that_may_read_one_scope_exclude_each_other(sharded: Sharded) -> None:
    """Also on two machines, which share no folder."""

    def holding(shard: str, machine: str) -> ExitStack:
        stack = ExitStack()
        pipeline = create_pipeline(
            sharded.tenant_key,
            destination="postgres",
            shard=shard,
            pipelines_dir=sharded.database.parent / machine / "p",
        )
        stack.enter_context(one_runner(pipeline, parse_shard(shard) if shard else None))
        return stack

    with holding("1/4", "a"):
        with holding("2/2", "b"), holding("3/8", "c"):
            pass
        for other in ("1/4", "1/2", "1/3", "1/8", ""):
            with pytest.raises(WarehouseBusy, match=r"cockpit load 1/4 .* pid"):
                holding(other, "b")
    with holding("", "a"), pytest.raises(WarehouseBusy):
        holding("2/4", "b")


def test_what_a_shard_cannot_do_is_refused(sharded: Sharded, inventory: Inventory) -> None:
    with pytest.raises(ConfigurationError, match="--accept-drop goes with --shard finish"):
        sharded.load_shard("1/2", 1, accept_drop=5)
    for options in ({"retry_failed": True}, {"full_list": False}):
        with pytest.raises(ConfigurationError, match="part of the full list"):
            sharded.load_shard("1/2", 1, **options)
    with pytest.raises(ConfigurationError, match="created for shard 'none', and the run is for '1/2'"):
        run_load(sharded.pipeline(), sharded.resolve(SCOPES), shard="1/2")
    file = create_pipeline(inventory.tenant_key, database=inventory.database, shard="1/2")
    with pytest.raises(ConfigurationError, match="A DuckDB file has one writer in any case"):
        run_load(file, inventory.resolve(SCOPES), shard="1/2")
    empty = next(s for s in (Shard(1, 2), Shard(2, 2)) if not s.holds(sharded.model.scope_key(SCOPES[0])))
    with pytest.raises(EmptyShard, match="there is nothing to read"):
        sharded.load_shard(str(empty), 1, SCOPES[:1])


@pytest.mark.parametrize("destination", ["postgres", "ducklake"])
def test_short_form_of_the_proof(tmp_path: Path, postgres: PostgresServer, destination: str) -> None:
    """Whole tables after a day of two shards from two processes; `prove_shards.py` has more of each."""
    before = dict(os.environ)
    try:
        with ShardedDays(tmp_path, postgres, destination, scopes=60, shards=2) as days, days.fresh():
            assert days.load(0, processes=2)[1] == 0
            assert days.differences() == {}
    finally:
        os.environ.clear()
        os.environ.update(before)
