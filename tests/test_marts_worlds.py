"""The marts on hand-made worlds, with the exact rows they have to show; on DuckDB and PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from marts_world import Marts, World, at, in_order, on
from support import ScopeIds, sku

A: ScopeIds = ("c1", "p1", None)
A_BY_R1: ScopeIds = ("c1", "p1", "r1")
A_BY_R2: ScopeIds = ("c1", "p1", "r2")
B: ScopeIds = ("c2", "p1", None)

SEATS = ("customer_id", "sku_id", "total_seats", "assigned_seats")
DAILY = ("snapshot_date", *SEATS)


def test_customer_with_and_without_reseller_is_counted_once(marts: Marts) -> None:
    world = World()
    # the scope without reseller counts, though the others were read later and tell more
    world.run(at(1, 5), {A: [sku("e3", 10, 4)]})
    world.run(at(1, 6), {A: "failed", A_BY_R1: [sku("e3", 7, 3), sku("e5", 2, 2)], A_BY_R2: [sku("e3", 3, 1)]})
    marts.build(world, now=at(1, 12))
    counted = [("c1", "e3", 10, 4)]
    assert marts.rows("fct_current_inventory", *SEATS) == counted
    assert marts.rows("fct_daily_inventory", *SEATS) == counted
    assert marts.rows("fct_current_inventory", "scope_key", "scopes_counted", "observed_at", "is_stale") == [
        ("t|c1|p1|-", 1, at(1, 5), True)
    ]
    marts.create(at(1, 12), reseller_scopes="parts")
    parts = [("c1", "e3", 20, 8), ("c1", "e5", 2, 2)]
    assert marts.rows("fct_current_inventory", *SEATS) == parts
    assert marts.rows("fct_daily_inventory", *SEATS) == parts
    assert marts.rows(
        "fct_current_inventory", "sku_id", "scope_key", "scopes_counted", "observed_at", "is_stale"
    ) == [
        ("e3", "t|c1|p1|-", 3, at(1, 5), True),
        ("e5", "t|c1|p1|r1", 1, at(1, 6), False),
    ]


def test_of_reseller_scopes_the_freshest_good_read_is_counted(marts: Marts) -> None:
    world = World()
    world.run(at(1), {A_BY_R1: [sku("e3", 10)], A_BY_R2: [sku("e3", 8)]})
    world.run(at(2), {A_BY_R1: "forbidden", A_BY_R2: [sku("e3", 9)]})
    world.run(at(3), {A_BY_R1: [sku("e3", 11)], A_BY_R2: "failed", A: "not_found"})
    marts.build(world, now=at(3, 12))
    # on day 1 both are as fresh: the least scope_key; a scope that was never read does not count
    assert marts.rows("fct_daily_inventory", "snapshot_date", "reseller_id", "total_seats") == [
        (on(1), "r1", 10),
        (on(2), "r2", 9),
        (on(3), "r1", 11),
    ]
    assert marts.rows("fct_current_inventory", "reseller_id", "total_seats") == [("r1", 11)]


def test_sku_listed_twice_sums_and_unknown_counts_stay_unknown(marts: Marts) -> None:
    unknown = sku("e7", None, None, availableLicenses=None, suspendedLicenses=None)
    world = World()
    world.run(at(1), {A: [sku("e3", 5, 1), sku("e3", 3, 1), unknown, sku("e9", 0, 0)]})
    marts.build(world, now=at(1, 12))
    columns = ("sku_id", "total_seats", "assigned_seats", "unassigned_seats", "suspended_seats")
    expected = [("e3", 8, 2, 6, 0), ("e7", None, None, None, None), ("e9", 0, 0, 0, 0)]
    assert marts.rows("fct_current_inventory", *columns) == expected
    assert marts.rows("fct_daily_inventory", *columns) == expected
    assert marts.rows("fct_current_inventory", "sku_id", "assignment_rate") == [
        ("e3", 0.25),
        ("e7", None),
        ("e9", None),
    ]


def test_failed_scope_is_stale_with_its_old_numbers(marts: Marts) -> None:
    world = World()
    world.run(at(1), {A: [sku("e3", 10, 4)], B: [sku("e5", 3, 3)]})
    world.run(at(2), {A: "failed", B: [sku("e5", 4, 3)]})
    world.run(at(3), {A: "quarantined", B: []})
    # day 4 without a run
    marts.build(world, now=at(4, 12))
    assert marts.rows("fct_current_inventory", *SEATS, "is_stale", "observed_at", "age_hours") == [
        ("c1", "e3", 10, 4, True, at(1), 78.0)
    ]
    assert marts.rows("fct_daily_inventory", *DAILY, "observed_at", "age_hours") == [
        (on(1), "c1", "e3", 10, 4, at(1), 18.0),
        (on(1), "c2", "e5", 3, 3, at(1), 18.0),
        (on(2), "c1", "e3", 10, 4, at(1), 42.0),
        (on(2), "c2", "e5", 4, 3, at(2), 18.0),
        (on(3), "c1", "e3", 10, 4, at(1), 66.0),
        # of today to now
        (on(4), "c1", "e3", 10, 4, at(1), 78.0),
    ]


def test_delisted_scope_leaves_from_that_day_and_relisted_comes_back(marts: Marts) -> None:
    world = World()
    world.run(at(1), {A: [sku("e3", 1)], B: [sku("e3", 2)]})
    world.run(at(2), {A: [sku("e3", 1)]})
    world.run(at(4), {A: "failed", B: "failed"})
    world.run(at(5), {A: [sku("e3", 1)], B: [sku("e3", 3)]})
    marts.build(world, now=at(6, 12))
    seen = marts.rows("fct_daily_inventory", "snapshot_date", "customer_id", "total_seats")
    assert seen == in_order(
        [(on(number), "c1", 1) for number in range(1, 7)]
        # relisted though not read well: as it was known last
        + [(on(1), "c2", 2), (on(4), "c2", 2), (on(5), "c2", 3), (on(6), "c2", 3)]
    )
    world.run(at(7), {A: [sku("e3", 1)]})
    marts.build(world, now=at(8, 12))
    assert marts.rows("fct_daily_inventory", "snapshot_date", "customer_id", "total_seats") == in_order(
        [*seen, (on(7), "c1", 1), (on(8), "c1", 1)]
    )
    assert marts.rows("fct_current_inventory", "customer_id") == ["c1"]


@pytest.mark.parametrize("has_full_list", [False, True])
def test_scope_given_by_hand_stays(marts: Marts, has_full_list: bool) -> None:
    world = World()
    world.run(at(1), {B: [sku("e3", 2)]}, full_list=False)
    if has_full_list:
        world.run(at(2), {A: [sku("e3", 1)]})
    marts.build(world, now=at(3, 12))
    expected = [(on(1), "c2", 2)]
    expected += [(on(2), "c1", 1), (on(3), "c1", 1)] if has_full_list else [(on(2), "c2", 2), (on(3), "c2", 2)]
    assert marts.rows("fct_daily_inventory", "snapshot_date", "customer_id", "total_seats") == in_order(expected)


@pytest.mark.parametrize("is_listed_later", [False, True])
def test_scope_given_by_hand_after_the_full_list_is_counted(marts: Marts, is_listed_later: bool) -> None:
    world = World()
    world.run(at(1), {A: [sku("e3", 1)]})
    world.run(at(2), {B: [sku("e3", 2)]}, full_list=False)
    if is_listed_later:
        world.run(at(3), {A: [sku("e3", 1)], B: [sku("e3", 2)]})
    marts.build(world, now=at(3, 12))
    assert marts.rows("fct_daily_inventory", "snapshot_date", "customer_id", "total_seats") == in_order(
        [*((on(number), "c1", 1) for number in (1, 2, 3)), (on(2), "c2", 2), (on(3), "c2", 2)]
    )


def test_run_over_midnight_counts_on_both_days(marts: Marts) -> None:
    world = World()
    world.run(at(1), {A: [sku("e3", 1)], B: [sku("e3", 2)]})
    ends, later = at(3, 1), at(3, 0.5)
    world.run(at(2, 23), {A: [sku("e3", 5)], B: [sku("e3", 6)]}, ends=ends, read_at={B: later})
    marts.build(world, now=at(3, 12))
    assert marts.rows(
        "fct_daily_inventory", "snapshot_date", "customer_id", "total_seats", "observed_at"
    ) == in_order(
        [
            (on(1), "c1", 1, at(1)),
            (on(1), "c2", 2, at(1)),
            (on(2), "c1", 5, at(2, 23)),
            (on(2), "c2", 2, at(1)),
            (on(3), "c1", 5, at(2, 23)),
            (on(3), "c2", 6, later),
        ]
    )


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_run_that_did_not_end_well_takes_nothing_away(marts: Marts, status: str) -> None:
    world = World()
    world.run(at(1), {A: [sku("e3", 1)], B: [sku("e3", 2)]})
    answers: dict[ScopeIds, Any] = {A: "failed" if status == "failed" else [sku("e3", 4)]}
    world.run(at(2), answers | ({B: "skipped"} if status != "running" else {}), status=status)
    marts.build(world, now=at(3, 12))
    now = 1 if status == "failed" else 4
    assert marts.rows("fct_daily_inventory", "snapshot_date", "customer_id", "total_seats") == in_order(
        [(on(1), "c1", 1), (on(2), "c1", now), (on(3), "c1", now), *((on(number), "c2", 2) for number in (1, 2, 3))]
    )


def test_pruned_scope_runs_tell_the_same_days(marts: Marts) -> None:
    world = World()
    world.run(at(1, 1), {A: [sku("e3", 1)], B: [sku("e3", 2)]})
    world.run(at(1, 6), {A: "failed", B: [sku("e3", 3)]})
    world.run(at(2, 1), {A: [sku("e3", 2)], B: [sku("e3", 4)]})
    world.run(at(2, 6), {A: [sku("e3", 2)], B: "failed"})
    world.run(at(3, 1), {A: "forbidden"})
    world.run(at(3, 2), {A: "forbidden"})
    world.run(at(4, 6), {A: "failed", B: [sku("e3", 5)]})
    names = ("fct_daily_inventory", "fct_seat_changes", "fct_daily_totals", "scope_health", "attention")
    before = {name: marts.build(world, now=at(5, 12)).rows(name) for name in names}
    count = len(world.scope_runs)
    world.prune()
    assert len(world.scope_runs) < count
    marts.build(world, now=at(5, 12))
    assert {name: marts.rows(name) for name in names} == before
    assert marts.rows("fct_daily_inventory", "snapshot_date", "customer_id", "total_seats") == in_order(
        [
            *((on(1), "c1", 1), (on(2), "c1", 2), (on(3), "c1", 2), (on(4), "c1", 2), (on(5), "c1", 2)),
            *((on(1), "c2", 3), (on(2), "c2", 4), (on(4), "c2", 5), (on(5), "c2", 5)),
        ]
    )


def test_two_tenants_never_mix(marts: Marts) -> None:
    one, other = World("one"), World("two")
    one.run(at(1), {A: [sku("e3", 1, 1)], B: [sku("e5", 5)]})
    one.run(at(2), {A: [sku("e3", 2, 1)]})
    other.run(at(2), {A: [sku("e3", 30, 3)], ("c9", "p1", "r1"): [sku("e5", 50)]})
    other.run(at(3), {A: "failed", ("c9", "p1", "r1"): [sku("e5", 60)]})
    one.add("customers", id="c1", company_name="First", first_seen_at=at(1))
    other.add("customers", id="c1", company_name="Other", first_seen_at=at(1))
    one.price("e3", "1.5", "EUR", on(1))
    other.price("e5", "9", "USD", on(1))
    names = [mart for mart in marts.build(one, other, now=at(10, 12)).names if mart not in ("metrics", "free_skus")]
    together = {name: marts.rows(name) for name in names}
    apart: dict[str, list[Any]] = {name: [] for name in names}
    for world in (one, other):
        marts.build(world, now=at(10, 12))
        for name in names:
            apart[name] += marts.rows(name)
    assert together == {name: in_order(rows) for name, rows in apart.items()}
    assert all(together[name] for name in ("fct_daily_inventory", "fct_seat_changes", "attention", "checks"))
