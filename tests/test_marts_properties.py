"""The marts as properties: days seen later, days of the sandbox loaded for real, and seat changes that sum."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from marts_world import Marts, World, at, in_order, on
from support import Inventory, Row, ScopeIds, day, sku

from cockpit_source.marts import MartOptions, seat_changes_sql
from cockpit_source.marts.views import mart_dialect
from cockpit_source.pipeline import create_pipeline
from cockpit_source.reference_data import load_reference_data
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox, SandboxTenant, running_sandbox

SEATS = ("total_seats", "assigned_seats", "unassigned_seats", "suspended_seats")
KEY = ("customer_id", "provider_instance_id", "sku_id")
SHARED = ("tenant", *KEY, "sku_name", *SEATS, "is_free", "observed_at")

SCOPES: list[ScopeIds] = [("c1", "p1", None), ("c1", "p1", "r1"), ("c1", "p1", "r2"), ("c2", "p1", None)]

licences = st.lists(
    st.builds(sku, st.sampled_from(["e3", "e5"]), st.sampled_from([None, 1, 5, 9_999, 10_000]), st.integers(0, 2)),
    max_size=3,
)
answers = st.one_of(st.none(), licences, licences, st.sampled_from(["failed", "forbidden", "quarantined"]))
# a day: without a run (None), or whether its list is full, and what each scope tells (None: it is not listed)
days = st.one_of(
    st.none(),
    st.tuples(st.booleans(), st.lists(answers, min_size=4, max_size=4)).filter(lambda told: told[1] != [None] * 4),
)


@pytest.mark.parametrize("reseller_scopes", ["same", "parts"])
@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(sequence=st.lists(days, min_size=3, max_size=5).filter(lambda told: told[0] is not None))
def test_every_day_seen_later_is_as_it_was_seen_then(reseller_scopes: str, sequence: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marts = Marts(create_pipeline("t", database=folder / "inventory.duckdb", pipelines_dir=folder / "pipelines"))
        world = World()
        seen: dict[date, list[Any]] = {}
        for number, told in enumerate(sequence, 1):
            if told is not None:
                full_list, read = told
                listed = {ids: answer for ids, answer in zip(SCOPES, read, strict=True) if answer is not None}
                world.run(at(number), listed, full_list=full_list)
            marts.build(copy.deepcopy(world), now=at(number, 23.5), reseller_scopes=reseller_scopes)
            seen[on(number)] = marts.rows("fct_current_inventory", *SHARED)
        for when, rows in seen.items():
            assert marts.rows("fct_daily_inventory", *SHARED, where=f"snapshot_date = '{when}'") == rows
        check_changes(marts, list(seen))


def check_changes(marts: Marts, when: list[date], **options: Any) -> None:
    """The seat changes between any two days sum to the change of the totals, of free SKUs and of the others."""
    totals: Counter[tuple[date, bool]] = Counter()
    for moment, is_free, seats in marts.rows("fct_daily_totals", "snapshot_date", "is_free", "total_seats"):
        totals[moment, is_free] += seats or 0
    between = {}
    for first, last in [(a, b) for a in when for b in when if a < b]:
        rows = changes_between(marts, first, last, **options)
        between[first, last] = sum_by(rows, "customer_id", "provider_instance_id", "sku_id", "is_free")
        by_kind = sum_by(rows, "is_free")
        for is_free in (False, True):
            assert by_kind[is_free,] == totals[last, is_free] - totals[first, is_free]
        if (last - first).days in (1, 7, 30):
            condition = f"to_date = '{last}' AND span_days = {(last - first).days}"
            assert marts.rows("fct_seat_changes", where=condition) == rows
        check_kinds(rows)
    for first, middle, last in zip(when, when[1:], when[2:], strict=False):
        both = between[first, middle].copy()
        both.update(between[middle, last])
        assert without_zeros(both) == without_zeros(between[first, last])


def changes_between(marts: Marts, first: date, last: date, **options: Any) -> list[Row]:
    dialect = mart_dialect(marts.pipeline)
    sql = seat_changes_sql(first, last, MartOptions(dialect, **options), naming=lambda name: f"{{{name}}}")
    return in_order(marts.query(sql))


def check_kinds(rows: Iterable[Row]) -> None:
    for row in rows:
        change = row["seats_after"] - row["seats_before"]
        assert row["seat_change"] == change
        if row["kind"] in ("new_sku", "new_customer"):
            assert row["seats_before"] == 0
        elif row["kind"] in ("lost_sku", "lost_customer"):
            assert row["seats_after"] == 0
        else:
            assert row["kind"] == ("expansion" if change > 0 else "contraction")
            assert change != 0


def sum_by(rows: Iterable[Row], *columns: str) -> Counter[tuple[Any, ...]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        sums[tuple(row[column] for column in columns)] += row["seat_change"]
    return sums


def without_zeros(sums: Counter[tuple[Any, ...]]) -> dict[tuple[Any, ...], int]:
    return {key: value for key, value in sums.items() if value}


@pytest.fixture(params=["duckdb", "postgres"])
def simulated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterable[Inventory]:
    """An inventory of a tenant with incidents, in the warehouse of the parameter."""
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    with running_sandbox(SandboxTenant(customers=40)) as sandbox:
        yield Inventory(sandbox, tmp_path / "inventory.duckdb", destination=request.param)


def marts_of(inventory: Inventory, number: int) -> Marts:
    """The marts at noon of a simulated day."""
    pipeline = inventory.pipeline()
    with one_runner(pipeline) as lock:
        load_reference_data(pipeline, inventory.resolve([SCOPES[0]]), lock=lock)
    return Marts(pipeline).create(day(number + 0.25))


def seats_of(sandbox: Sandbox, ids: ScopeIds, number: int) -> dict[tuple[Any, ...], list[int]]:
    """What the customer holds in the provider instance on a day, of each SKU once."""
    held: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in sandbox.tenant.licenses(ids[0], ids[1], number):
        for place, name in enumerate(("total", "consumed", "available", "suspended")):
            held[ids[0], ids[1], row["skuId"].lower()][place] += row[f"{name}Licenses"]
    return held


def test_each_day_is_the_world_of_the_sandbox_on_that_day(simulated: Inventory) -> None:
    sandbox = simulated.sandbox
    last_good: dict[ScopeIds, int] = {}
    expected: list[tuple[Any, ...]] = []
    failed = 0
    numbers = [0, 1, 2, 3, 5]
    for number in range(6):
        listed = list(sandbox.tenant.scopes(min(number, 3) if number == 4 else number))
        if number in numbers:
            sandbox.day = number
            run_id = simulated.load(listed, day(number)).run_id
            for row in simulated.rows("scope_runs", per_run=True):
                if row["run_id"] == run_id and row["outcome"] in ("ok", "empty"):
                    last_good[row["customer_id"], row["provider_instance_id"], row["reseller_id"]] = number
        for ids in listed:
            failed += last_good.get(ids) != number
            if ids in last_good:
                seats = seats_of(sandbox, ids, last_good[ids])
                expected += [(day(number).date(), *key, *counts) for key, counts in seats.items()]
        marts = marts_of(simulated, number)
        shared = (*SHARED, "age_hours")
        today = f"snapshot_date = '{day(number).date()}'"
        assert marts.rows("fct_current_inventory", *shared) == marts.rows("fct_daily_inventory", *shared, where=today)
    assert failed > 20
    assert marts.rows("fct_daily_inventory", "snapshot_date", *KEY, *SEATS) == in_order(expected)
    check_changes(marts, [day(number).date() for number in range(6)])


def test_scopes_with_and_without_reseller_count_each_sku_once(simulated: Inventory) -> None:
    sandbox = simulated.sandbox
    pairs = [ids for ids in sandbox.tenant.scopes(0) if ids[2] is not None]
    twice = [scope for ids in pairs for scope in (ids, (*ids[:2], None))]
    simulated.load(twice, day(0))
    outcomes = {
        (row["customer_id"], row["provider_instance_id"], row["reseller_id"]): row["outcome"] in ("ok", "empty")
        for row in simulated.rows("scope_runs")
    }
    expected = [
        (*key, *counts)
        for ids in pairs
        if outcomes[ids] or outcomes[(*ids[:2], None)]
        for key, counts in seats_of(sandbox, ids, 0).items()
    ]
    marts = marts_of(simulated, 0)
    assert len(expected) > 50
    assert marts.rows("fct_current_inventory", *KEY, *SEATS) == in_order(expected)
    assert marts.rows("fct_daily_inventory", *KEY, *SEATS) == in_order(expected)
