"""Every reason to refuse, on a world that gives it: when a plan is made, and when the world changes after that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from offboarding_world import Shared, World, new_world, shared_world
from support import sku

Do = Callable[[World], object]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: Shared, tmp_path: Path) -> World:
    return new_world(shared, tmp_path)


@dataclass(frozen=True)
class Case:
    """A change of the world, and the codes with which a plan of `selects` is refused then."""

    name: str
    do: Do
    at_plan: str | None
    at_apply: str | None
    selects: Callable[[World], tuple[str, ...]] = lambda world: world.three
    changes: dict[str, Any] = field(default_factory=dict)


def nothing(_: World) -> None:
    pass


def sql(statement: str) -> Do:
    """Change the warehouse, as a run with that result would have."""

    def do(world: World) -> None:
        with duckdb.connect(str(world.inventory.database)) as connection:
            connection.execute(statement.format(a=world.a, other=world.other))

    return do


def after_load(change: Do) -> Do:
    """A new load after the change."""

    def do(world: World) -> None:
        change(world)
        world.clock.advance(seconds=1)
        world.load()
        world.sandbox.clear()
        world.sandbox.clear_requests()

    return do


def answer(rows: Any, status: int = 200) -> Do:
    return lambda world: world.inventory.answer(world.a, rows, status)


def fault(kind: str, of: str = "a") -> Do:
    return lambda world: world.sandbox.faults.for_customer(getattr(world, of), kind)


def advance(**by: float) -> Do:
    return lambda world: world.clock.advance(**by)


def protect(entry: str) -> Do:
    return lambda world: world.protected_file.write_text(entry.format(a=world.a, name=world.name(world.a)))


def only_subscriptions(world: World) -> None:
    world.return_customer(world.a)
    world.inventory.answer(world.a, [])


def override_customer(**members: Any) -> Do:
    """The API answers a customer with other members."""

    def do(world: World) -> None:
        row = {"id": world.a, "companyName": world.name(world.a), "resellerId": None, "providerCustomers": {}}
        world.gate.overrides[f"/v1/customers/{world.a}"] = (200, row | members)

    return do


def no_list(world: World) -> None:
    world.protected_file.unlink()


def only_delete(world: World) -> tuple[str, ...]:
    return (world.delete(world.a),)


def only_remove(world: World) -> tuple[str, ...]:
    return (world.remove(world.a),)


CASES = [
    Case("stop file", lambda world: world.stop_file.touch(), "stopped", "stopped"),
    # the inventory
    Case("too old", advance(hours=24.1), "stale", "expired"),
    Case("too old, plan good", nothing, "stale", "stale", changes={"max_age_hours": 0}),
    Case("from the future", advance(hours=-1), "future_run", "expired"),
    Case("unfinished", sql("UPDATE cockpit.runs SET status = 'interrupted'"), "unfinished_run", "unfinished_run"),
    Case("running", sql("UPDATE cockpit.runs SET finished_at = NULL"), "unfinished_run", "unfinished_run"),
    Case("skipped", sql("UPDATE cockpit.runs SET scopes_skipped = 1"), "gaps", "gaps"),
    Case("deferred by a load", after_load(fault("throttle", "other")), "gaps", "gaps"),
    Case("no listing", sql("UPDATE cockpit.runs SET customers_listed = NULL"), "no_listing", "no_listing"),
    Case("nobody listed", sql("UPDATE cockpit.runs SET customers_listed = 0"), "no_customers", "no_customers"),
    Case("never loaded", sql("DELETE FROM cockpit.runs"), "no_inventory", "no_inventory"),
    Case("package not committed", sql("UPDATE cockpit._dlt_loads SET status = 1"), "no_inventory", "no_inventory"),
    Case(
        "other host in the inventory", sql("UPDATE cockpit.runs SET base_url = 'https://x'"), "other_api", "other_api"
    ),
    # the numbers
    Case("vanished", lambda world: world.hide(4), "fewer_customers", "fewer_customers"),
    Case("fewer than before", after_load(lambda world: world.hide(4)), "fewer_customers", "fewer_customers"),
    Case("too many", nothing, "max_actions", "max_actions", changes={"max_actions": 2}),
    Case("zero", nothing, "max_actions", "max_actions", changes={"max_actions": 0}),
    Case("zero percent", nothing, "max_percent", "max_percent", changes={"max_percent": 0.0}),
    Case("day", nothing, "max_actions_per_day", "max_actions_per_day", changes={"max_actions_per_day": 2}),
    Case("grace", nothing, "grace", "grace", changes={"grace_days": 1.0}),
    # the customers
    Case("protected id", protect("{a}"), "protected", "protected"),
    Case("protected name", protect("{name}"), "protected", "protected"),
    Case("renamed", lambda world: world.rename(world.a, "Other"), "other_name", "evidence_changed"),
    Case("renamed in both", after_load(lambda world: world.rename(world.a, "Other")), None, "evidence_changed"),
    Case(
        "assigned in both",
        after_load(lambda world: world.return_customer(world.a)),
        "consumed_seats",
        "evidence_changed",
    ),
    Case("assigned in the inventory", after_load(answer([sku("e3", 5, 1)])), "consumed_seats", "evidence_changed"),
    Case("assigned live", answer([sku("e3", 5, 1)]), "consumed_seats", "evidence_changed"),
    Case("not told in the inventory", after_load(answer([sku("e3", 5, None)])), "unknown_seats", "evidence_changed"),
    Case("not told live", answer([sku("e3", 5, None)]), "unknown_seats", "evidence_changed"),
    Case("seats, none assigned", answer([sku("e3", 5, 0)]), None, "evidence_changed"),
    Case("subscription", only_subscriptions, "active_subscription", "evidence_changed"),
    Case("unread in the inventory", after_load(fault("forbidden")), "unread_scope", "evidence_changed"),
    Case("unreadable", fault("error_500"), "unreadable", "unreadable"),
    Case("forbidden", fault("forbidden"), "unreadable", "unreadable"),
    Case("wrong shape", fault("wrong_shape"), "unreadable", "unreadable"),
    Case("flagged", override_customer(isDeleted=True), "flagged_deleted", "flagged_deleted"),
    Case(
        "another customer", override_customer(id="0" * 8 + "-0000-4000-8000-" + "0" * 12), "unreadable", "unreadable"
    ),
    Case("gone", lambda world: world.take(world.a), "gone", None),
    Case("gone in the inventory", after_load(lambda world: world.take(world.a)), "unknown_id", "unknown_id"),
    Case("detached", lambda world: world.detach(world.a), "no_relationship", "evidence_changed", only_remove),
    Case(
        "detached in both", after_load(lambda world: world.detach(world.a)), "unknown_id", "unknown_id", only_remove
    ),
    Case(
        "listing fails",
        lambda world: world.sandbox.faults.for_path("/v1/customers?pageNumber=1", "error_500"),
        "unreadable",
        "unreadable",
    ),
]


def ids(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [case for case in CASES if case.at_plan], ids=ids)
def test_refused_when_it_is_planned(world: World, case: Case) -> None:
    case.do(world)
    refusal = world.plan_refused(*case.selects(world), **case.changes)
    assert refusal.code == case.at_plan, refusal
    assert world.sent() == []
    assert world.story() == (["selection"] if case.at_plan == "grace" else [])
    assert str(refusal).count("\n") < 12


@pytest.mark.parametrize("case", [case for case in CASES if case.at_apply], ids=ids)
def test_refused_when_the_world_has_changed(world: World, case: Case) -> None:
    plan = world.plan(*case.selects(world))
    case.do(world)
    refusal = world.apply_refused(plan, **case.changes)
    assert refusal.code == case.at_apply, refusal
    assert world.sent() == []
    assert world.story() == ["plan"]
    # and it is not the plan as such that stands in the way
    assert world.records()[0].body["plan_hash"] == plan.plan_hash
