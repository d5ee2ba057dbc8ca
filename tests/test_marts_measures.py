"""What the marts derive: changes, free SKUs, prices, dimensions, health, attention, checks and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from marts_world import Marts, World, at, in_order, on
from support import Row, ScopeIds, sku

A: ScopeIds = ("c1", "p1", None)
B: ScopeIds = ("c2", "p1", None)
C: ScopeIds = ("c3", "p1", "r1")

FREE = "a403ebcc-fae0-4ca2-8c8c-7a907fd6c235"
MANY = "10,000 seats or more"

CHANGES = ("kind", "customer_id", "sku_id", "is_free", "seats_before", "seats_after", "seat_change")


def test_each_kind_of_seat_change(marts: Marts) -> None:
    world = World()
    before = [sku("e1", 10, 4), sku("e2", 10, 4), sku("e3", 5), sku("e5", 4, 1), sku(FREE, 5), sku("e6", 9_999)]
    after = [sku("e1", 12, 5), sku("e2", 7, 4), sku("e4", 3), sku("e5", 4, 2), sku(FREE, 6), sku("e6", 10_000)]
    world.run(at(1), {A: before, B: [sku("e1", 8, 8)]})
    world.run(at(2), {A: after, C: [sku("e1", 6), sku("e9", None, None)]})
    marts.build(world, now=at(2, 12))
    shared = {"tenant": "t", "from_date": on(1), "to_date": on(2), "span_days": 1, "provider_instance_id": "p1"}
    changes = [
        ("c1", "e1", "expansion", 10, 12, 4, 5),
        ("c1", "e2", "contraction", 10, 7, 4, 4),
        ("c1", "e3", "lost_sku", 5, 0, 4, None),
        ("c1", "e4", "new_sku", 0, 3, None, 4),
        ("c2", "e1", "lost_customer", 8, 0, 8, None),
        ("c3", "e1", "new_customer", 0, 6, None, 4),
        ("c3", "e9", "new_customer", 0, 0, None, None),
        # from paid to free, on both sides
        ("c1", "e6", "lost_sku", 9_999, 0, 4, None),
        ("c1", "e6", "new_sku", 0, 10_000, None, 4),
        ("c1", FREE, "expansion", 5, 6, 4, 4),
    ]
    assert marts.rows("fct_seat_changes") == in_order(
        {
            **shared,
            "customer_id": customer,
            "reseller_id": "r1" if customer == "c3" else None,
            "sku_id": sku_id,
            "sku_name": f"Product {sku_id}",
            "is_free": sku_id == FREE or after == 10_000,
            "kind": kind,
            "seats_before": before,
            "seats_after": after,
            "seat_change": after - before,
            "assigned_before": assigned_before,
            "assigned_after": assigned_after,
        }
        for customer, sku_id, kind, before, after, assigned_before, assigned_after in changes
    )


def test_spans_of_1_7_and_30_days(marts: Marts) -> None:
    world = World()
    world.run(at(1), {A: [sku("e3", 10)]})
    world.run(at(31), {A: [sku("e3", 15)]})
    marts.build(world, now=at(38, 12))
    assert marts.rows("fct_seat_changes", "span_days", "from_date", "to_date", "seat_change") == in_order(
        [(1, on(30), on(31), 5)]
        + [(7, on(number - 7), on(number), 5) for number in range(31, 38)]
        + [(30, on(number - 30), on(number), 5) for number in range(31, 39)]
    )


def test_free_and_viral_skus_are_left_out(marts: Marts) -> None:
    world = World()
    totals = {"e1": 9_999, "e2": 10_000, "e3": 10_000, "e4": 10_000, "e5": 10_000, FREE: 1}
    world.run(at(1), {A: [sku(sku_id, total, 0) for sku_id, total in totals.items()]})
    world.price("e3", "0.01", "EUR", on(1))
    # neither a price of nothing nor one that holds later makes it paid
    world.price("e4", "0", "EUR", on(1))
    world.price("e5", "3", "EUR", on(3))
    world.price(FREE, "3", "EUR", on(1))
    marts.build(world, now=at(2, 12))
    reasons = {"e1": None, "e2": MANY, "e3": None, "e4": MANY, "e5": MANY, FREE: "free"}
    flags = in_order((sku_id, reason is not None) for sku_id, reason in reasons.items())
    assert marts.rows("fct_current_inventory", "sku_id", "free_reason") == in_order(reasons.items())
    assert marts.rows("fct_current_inventory", "sku_id", "is_free") == flags
    assert marts.rows("fct_daily_inventory", "sku_id", "is_free", where=f"snapshot_date = '{on(2)}'") == flags
    assert marts.rows("dim_skus", "sku_id", where="is_free") == [FREE]
    columns = ("snapshot_date", "is_free", "customers", "total_seats", "assigned_seats", "unassigned_seats")
    assert marts.rows("fct_daily_totals", *columns, "suspended_seats") == in_order(
        row
        for number in (1, 2)
        for row in [(on(number), False, 1, 19_999, 0, 19_999, 0), (on(number), True, 1, 30_001, 0, 30_001, 0)]
    )
    assert marts.rows("fct_reclaimable_seats", "sku_id") == ["e1", "e3"]


def test_reclaimable_seats_and_their_cost(marts: Marts) -> None:
    world = World()
    unknown = sku("e6", 5, None, availableLicenses=None)
    rows = [sku("e1", 10, 4), sku("e2", 3, 1), sku("e3", 5, 0), sku("e4", 5, 5), sku("e5", 5, 7), unknown]
    world.run(at(1), {C: rows})
    world.run(at(2), {C: "failed"})
    world.price("e1", "1", "EUR", on(1))
    world.price("e1", "2.5", "EUR", on(2))
    world.price("e1", "9", "EUR", on(4))
    world.price("e2", "0.3333", "USD", on(1))
    world.add("customers", id="c3", company_name="Third", reseller_id="r9", first_seen_at=at(1))
    world.add("resellers", id="r1", company_name="First reseller", first_seen_at=at(1))
    world.add("provider_instances", id="p1", alias="Europe", first_seen_at=at(1))
    marts.build(world, now=at(3, 6))
    shared: Row = {
        "tenant": "t",
        "customer_id": "c3",
        "customer_name": "Third",
        "provider_instance_id": "p1",
        "provider_instance_name": "Europe",
        "reseller_id": "r1",
        "reseller_name": "First reseller",
        "observed_at": at(1),
        "age_hours": 48.0,
        "is_stale": True,
    }
    prices: list[tuple[Any, ...]] = [
        ("e1", 10, 4, 6, Decimal("2.5"), "EUR", on(2), Decimal(15)),
        ("e2", 3, 1, 2, Decimal("0.3333"), "USD", on(1), Decimal("0.6666")),
        ("e3", 5, 0, 5, None, None, None, None),
    ]
    names = ("total_seats", "assigned_seats", "reclaimable_seats", "unit_price", "currency", "price_valid_from")
    assert without_scale(marts.rows("fct_reclaimable_seats")) == without_scale(
        shared
        | {"sku_id": row[0], "sku_name": f"Product {row[0]}"}
        | dict(zip((*names, "reclaimable_cost"), row[1:], strict=True))
        for row in prices
    )


def without_scale(rows: Any) -> list[Row]:
    """Prices as floats, since one database answers 15.00 where the other says 15.0000."""
    return in_order({k: float(v) if isinstance(v, Decimal) else v for k, v in row.items()} for row in rows)


def test_dimensions(marts: Marts) -> None:
    world = World()
    world.run(at(2), {A: [sku("e1", 1), sku("x9", 1, name="  ")], C: [sku("e1", 2, name="Old name")]})
    world.run(at(3), {A: [sku("e2", 1), sku("x9", 1, name=None)], C: [sku("e1", 2, name="New name")]})
    world.run(at(5), {A: "failed"})
    seen = {"first_seen_at": at(1)}
    world.add("customers", id="c1", company_name=" First ", country="DE", internal_identifier="7", **seen)
    world.add("customers", id="c8-and-more", company_name="First", country="DE", **seen)
    world.add("customers", id="c7", company_name=" ", reseller_id="r2", first_seen_at=at(1), removed_at=at(4))
    world.add("resellers", id="r2", company_name="Second reseller", country="AT", **seen)
    world.add("sku_catalog", sku_id="e2", part_number="E_TWO", official_name="Official two", service_plans=3)
    world.price("e1", "4", "EUR", on(1))
    marts.build(world, now=at(6, 6))
    customers = (
        ("c1", "First", "First (c1)", True, "DE", None, None, "7", 1, at(1), at(3), None, True),
        ("c3", "c3", "c3", False, None, None, None, None, 0, at(2), at(3), None, False),
        ("c7", "c7", "c7", False, None, "r2", "Second reseller", None, 0, at(1), None, at(4), False),
        ("c8-and-more", "First", "First (c8-and-m)", True, "DE", None, None, None, 0, at(1), None, None, False),
    )
    names = (
        *("customer_id", "customer_name", "customer_label", "is_name_known", "country", "reseller_id"),
        *(
            "reseller_name",
            "internal_identifier",
            "scopes",
            "first_seen_at",
            "last_good_at",
            "removed_at",
            "is_listed",
        ),
    )
    assert marts.rows("dim_customers", *names) == in_order(customers)
    skus = (
        # delisted with its scope: last seen when that was last read
        ("e1", "New name", "New name", None, None, None, True, False, on(2), on(3), 0, 4.0, "EUR"),
        ("e2", "Official two", "Product e2", "Official two", "E_TWO", 3, True, False, on(3), on(3), 1, None, None),
        ("x9", "x9", None, None, None, None, False, False, on(2), on(3), 1, None, None),
    )
    names = (
        *("sku_id", "sku_name", "api_name", "official_name", "part_number", "service_plans", "is_name_known"),
        *("is_free", "first_seen_date", "last_seen_date", "customers", "unit_price", "currency"),
    )
    found = [tuple(float(v) if isinstance(v, Decimal) else v for v in row) for row in marts.rows("dim_skus", *names)]
    assert in_order(found) == in_order(skus)
    names = ("reseller_id", "reseller_name", "country", "customers", "first_seen_at", "removed_at")
    assert marts.rows("dim_resellers", *names) == [("r2", "Second reseller", "AT", 0, at(1), None)]


def test_health_of_scopes(marts: Marts) -> None:
    world = World()
    gone: ScopeIds = ("c4", "p2", None)
    never: ScopeIds = ("c5", "p1", None)
    world.run(at(1), {A: [sku("e1")], B: [], C: [sku("e1")], gone: [sku("e1")], never: "not_found"})
    world.run(at(2), {A: [sku("e1")], B: "failed", C: "forbidden", never: "not_found"})
    world.run(at(3), {A: [], B: [], C: "forbidden", never: "failed"})
    world.add("customers", id="c1", company_name="First", first_seen_at=at(1))
    world.add("resellers", id="r1", company_name="First reseller", first_seen_at=at(1))
    world.add("provider_instances", id="p1", alias="Europe", first_seen_at=at(1))
    marts.build(world, now=at(3, 12))
    names = (
        *("scope_key", "customer_name", "provider_instance_name", "reseller_name", "state", "last_outcome"),
        *(
            "http_status",
            "error_type",
            "reason",
            "last_good_at",
            "age_hours",
            "failing_runs",
            "is_listed",
            "delisted_at",
        ),
    )
    refused = ("stale", "forbidden", 403, "Forbidden", "it was forbidden")
    assert marts.rows("scope_health", *names) == in_order(
        [
            ("t|c1|p1|-", "First", "Europe", None, "good", "empty", 200, None, None, at(3), 6.0, 0, True, None),
            ("t|c2|p1|-", "c2", "Europe", None, "good", "empty", 200, None, None, at(3), 6.0, 0, True, None),
            ("t|c3|p1|r1", "c3", "Europe", "First reseller", *refused, at(1), 54.0, 2, True, None),
            ("t|c4|p2|-", "c4", "p2", None, "delisted", "ok", 200, None, None, at(1), 54.0, 0, False, at(2)),
            (
                *("t|c5|p1|-", "c5", "Europe", None, "never read", "failed", 500, "Failed", "it was failed"),
                *(None, None, 3, True, None),
            ),
        ]
    )
    stale = ("kind", "customer_id", "sku_id", "detail")
    assert marts.rows("attention", *stale, where="kind = 'stale'") == in_order(
        [
            ("stale", "c3", None, "not read for 2 runs: it was forbidden"),
            ("stale", "c5", None, "never read: it was failed"),
        ]
    )


def attention_to(marts: Marts, kind: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = marts.rows("attention", "sku_id", "detail", where=f"kind = '{kind}'")
    return found


def test_attention_at_under_and_over_each_limit(marts: Marts) -> None:
    world = World()

    def rows(*seats: tuple[str, int | None, int | None, int | None]) -> Sequence[Row]:
        return [sku(name, total, assigned, suspendedLicenses=suspended) for name, total, assigned, suspended in seats]

    # the first is exactly 30 days old at the end, the second an hour younger
    world.run(at(1, 12), {A: rows(("idle", 5, 0, 0), ("was", 5, 1, 0), (FREE, 5, 0, 0), ("none", 0, 0, 0))})
    both = {A: rows(("idle", 6, 0, 0), ("was", 5, 0, 0), (FREE, 5, 0, 0), ("none", 0, 0, 0))}
    world.run(at(1, 13), both | {B: rows(("young", 5, 0, 0))})
    seats = [
        *(("over", 10, 11, 0), ("full", 10, 10, 0), ("under", 10, 9, 0), ("zero", 0, 0, 0), ("told", None, 3, 0)),
        *(("held", 10, 1, 1), ("let", 10, 0, 1), ("whole", 10, 1, 0)),
    ]
    nameless = [sku("q1", 5, 1, name=None), sku("q2", 5, 1, name="Q2"), sku("q3", 5, 1, name=" "), sku("q4", 5, 1)]
    world.add("sku_catalog", sku_id="q3", official_name="Known", service_plans=0)
    answers: dict[ScopeIds, Any] = both | {B: [*rows(("young", 5, 0, 0)), *rows(*seats)], C: nameless}
    world.run(at(31), answers)
    marts.build(world, now=at(31, 12))
    assert attention_to(marts, "over_assigned") == [("over", "more seats assigned than there are: 1")]
    assert attention_to(marts, "full") == [("full", "every seat is assigned")]
    assert attention_to(marts, "suspended_but_assigned") == [("held", "1 seat suspended, and 1 assigned")]
    # one that was assigned until 30 days ago less an hour, and one first seen then, are not wholly unassigned
    assert attention_to(marts, "unassigned_30_days") == [("idle", "no seat was assigned in the last 30 days")]
    assert attention_to(marts, "sudden_change") == []
    assert attention_to(marts, "unknown_name") == in_order(
        (name, "neither the API nor the catalogue names this SKU") for name in ("q1", "q2")
    )
    assert attention_to(marts, "stale") == []


def test_sudden_change_is_ten_seats_and_half_of_them_within_a_week(marts: Marts) -> None:
    world = World()
    week = {
        "e1": (20, 30),
        "e2": (21, 31),
        "e3": (10, 1),
        "e4": (20, 10),
        "e5": (30, 20),
        "e6": (9, 19),
        "e7": (1, 10),
        "e8": (2_000, 9_000),
    }
    for turn, number in enumerate((1, 5)):
        world.run(at(number), {A: [sku(name, seats[turn], 0) for name, seats in week.items()]})
    expected = [("e1", "20 to 30"), ("e4", "20 to 10"), ("e6", "9 to 19"), ("e8", "2,000 to 9,000")]
    marts.build(world, now=at(8, 12))
    assert attention_to(marts, "sudden_change") == [
        (name, f"seats from {text} within 7 days") for name, text in expected
    ]
    # a week after the change there is nothing sudden left; before a week of data nothing can be told
    for number in (7, 12):
        marts.create(at(number, 12))
        assert attention_to(marts, "sudden_change") == []


CHECKS = ("check_name", "rows_checked", "rows_holding", "rows_telling", "share_holding", "holds")


def test_checks_that_hold_do_not_or_cannot_tell(marts: Marts) -> None:
    world = World()
    by_r1: ScopeIds = ("c1", "p1", "r1")
    without = [sku("e1", 10, 4), sku("e2", 5, None, availableLicenses=None)]
    world.run(at(1), {A: without, B: without})
    marts.build(world, now=at(1, 12))
    less, both = "unassigned_is_total_less_assigned", "unassigned_is_total_less_assigned_and_suspended"
    agree = "reseller_scopes_agree"
    assert marts.rows("checks", *CHECKS) == in_order(
        [(less, 2, 2, 0, None, None), (both, 2, 2, 0, None, None), (agree, 0, 0, 0, None, None)]
    )
    told = [sku("e1", 10, 4, suspendedLicenses=2), sku("e2", 10, 4), sku("e3", 9, 4, suspendedLicenses=1)]
    part = [sku("e1", 10, 4, suspendedLicenses=3, availableLicenses=3), sku("e2", 10, 5)]
    world.run(at(2), {A: told, by_r1: part})
    marts.build(world, now=at(2, 12))
    # e1 agrees, e2 does not, e3 stands in one scope only
    assert marts.rows("checks", *CHECKS) == in_order(
        [(less, 5, 4, 3, 2 / 3, False), (both, 5, 3, 3, 1 / 3, False), (agree, 3, 1, 3, 1 / 3, False)]
    )
    world.run(at(3), {A: told, by_r1: told})
    marts.build(world, now=at(3, 12))
    assert marts.rows("checks", *CHECKS) == in_order(
        [(less, 6, 6, 4, 1.0, True), (both, 6, 2, 4, 0.0, False), (agree, 3, 3, 3, 1.0, True)]
    )


def measured(marts: Marts) -> dict[str, list[tuple[Any, ...]]]:
    """What the SQL of every metric answers."""
    values = {}
    for metric, sql in marts.rows("metrics", "metric", "sql"):
        rows = [tuple(row.values()) for row in marts.query(sql.replace("{", "{{").replace("}", "}}"))]
        values[metric] = in_order(tuple(float(v) if isinstance(v, Decimal) else v for v in row) for row in rows)
    return values


def test_sql_of_every_metric_answers_what_it_defines(marts: Marts) -> None:
    world = World()
    lost: ScopeIds = ("c9", "p1", None)
    world.run(at(1), {A: [sku("e1", 10, 4)], B: [sku("e1", 5, 5)], lost: [sku("e1", 1)], C: "forbidden"})
    unknown = sku("e3", 7, None, availableLicenses=None, suspendedLicenses=None)
    world.run(at(25), {A: [sku("e1", 20, 4)], B: "failed", C: "forbidden"})
    world.run(
        at(31), {A: [sku("e1", 30, 4), sku("e2", 8, 9, suspendedLicenses=2), unknown, sku(FREE, 100)], B: "failed"}
    )
    world.run(at(31, 8), {C: "failed"}, full_list=False)
    world.price("e1", "2", "EUR", on(1))
    marts.build(world, now=at(31, 12))
    # delisted by the last full list, and read by hand since: still not listed
    assert measured(marts) == {
        "total_seats": [("t", 50)],
        "assigned_seats": [("t", 18)],
        "unassigned_seats": [("t", 25)],
        "suspended_seats": [("t", 2)],
        "assignment_rate": [("t", 18 / 43)],
        "left_out_seats": [("t", 100)],
        "reclaimable_seats": [("t", 26)],
        "reclaimable_cost": [("t", "EUR", 52.0)],
        "reclaimable_priced_share": [("t", 1.0)],
        "seat_change_7_days": [("t", 50 - 16)],
        "seat_change_30_days": [("t", 50 - 16)],
        "customers": [("t", 2)],
        "scopes_listed": [("t", 2)],
        "coverage": [("t", 0.5)],
        "oldest_read_hours": [("t", 30 * 24 + 6.0)],
    }


def test_marts_of_runs_that_brought_nothing_are_empty(marts: Marts) -> None:
    marts.build(World(), now=at(1))
    for name in marts.names:
        assert bool(marts.rows(name)) == (name in ("metrics", "free_skus")), name
    world = World()
    world.run(at(1), {}, status="failed")
    marts.build(world, now=at(2))
    assert all(rows == [] for rows in measured(marts).values())
    assert marts.rows("checks", "rows_checked", "holds") == [(0, None)] * 3
    for name in set(marts.names) - {"metrics", "free_skus", "checks"}:
        assert marts.rows(name) == []
