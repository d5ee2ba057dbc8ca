"""Every reason to refuse, on a world that gives it: when a plan is made, and when the world changes after that."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from offboarding_world import Shared, World, error_body, new_world, shared_world
from support import new_id, sku

from cockpit_source.deletions import guards
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.deletions.planner import make_plan
from cockpit_source.deletions.selection import DeletionQuery
from cockpit_source.errors import ConfigurationError, DeletionRefused

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


def four(world: World) -> tuple[str, ...]:
    return (*world.three, world.remove(world.c))


# of 60 customers
def nearly_a_day_old(world: World) -> None:
    """A second is left until the inventory is too old."""
    started_at = max(row["started_at"] for row in world.inventory.rows("runs", per_run=True))
    world.clock.moment = started_at.astimezone(UTC) + timedelta(hours=24, seconds=-1)


AT_THE_LIMIT = [
    Case("actions", nothing, None, None, changes={"max_actions": 3}),
    Case("day", nothing, None, None, changes={"max_actions_per_day": 3}),
    Case("few", nothing, None, None, changes={"max_percent": 0.01}),
    Case("percent", nothing, None, None, four, {"max_percent": 6.67}),
    Case("age", nearly_a_day_old, None, None, changes={"plan_lifetime_minutes": 10_080.0}),
    Case("customers", lambda world: world.hide(3), None, None),
    Case("protects others", protect("somebody else"), None, None),
]


@pytest.mark.parametrize("case", AT_THE_LIMIT, ids=ids)
@pytest.mark.parametrize("is_planned_before", [True, False])
def test_at_the_limit_it_is_done(world: World, case: Case, is_planned_before: bool) -> None:
    if not is_planned_before:
        case.do(world)
    plan = world.plan(*case.selects(world), **case.changes)
    if is_planned_before:
        case.do(world)
    assert world.apply(plan, **case.changes).is_done
    assert len(world.sent()) == len(case.selects(world))


def test_just_over_the_percentage(world: World) -> None:
    plan = world.plan(*four(world), max_percent=6.67)
    assert world.apply_refused(plan, max_percent=6.66).code == "max_percent"
    assert world.plan_refused(*four(world), max_percent=6.66).code == "max_percent"
    assert world.sent() == []


# the plan as such


def test_refused_on_another_tenant_or_host(world: World) -> None:
    plan = world.plan(*world.three)
    for changes, code in (
        ({"tenant": "other.example"}, "other_tenant"),
        ({"tenant_key": "other"}, "other_tenant"),
        ({"base_url": world.sandbox.base_url.replace("127.0.0.1", "localhost")}, "other_api"),
    ):
        assert world.apply_refused(plan, **changes).code == code
    assert (world.sent(), world.story()) == ([], ["plan"])
    # and where the inventory is that of the other host: nothing to plan on
    assert world.plan_refused(*world.three, base_url="http://localhost:1").code == "other_api"
    assert world.plan_refused(*world.three, tenant_key="other").code == "no_inventory"


def test_expiry_is_judged_at_the_start(world: World) -> None:
    plan = world.plan(*world.three, plan_lifetime_minutes=1.0)
    world.clock.advance(seconds=30)
    world.clock.on_sleep = lambda _: world.clock.advance(minutes=5)
    assert world.apply(plan).is_done
    late = world.plan(world.remove(world.c), plan_lifetime_minutes=1.0)
    world.clock.advance(seconds=61)
    assert world.apply_refused(late).code == "expired"
    # made in the future: a clock was set back
    world.clock.advance(minutes=-5)
    assert world.apply_refused(late).code == "expired"


def test_superseded_by_a_later_plan(world: World) -> None:
    first = world.plan(*world.three)
    second = world.plan(world.remove(world.c))
    assert world.apply_refused(first).code == "superseded"
    assert world.sent() == []
    assert world.apply(second).is_done
    assert world.apply_refused(first).code == "superseded"
    assert world.apply_refused(second).code == "already_applied"
    assert len(world.sent()) == 1


def test_an_unknown_plan(world: World) -> None:
    assert world.apply_refused("20000101T000000Z-00000000").code == "no_plan"


def test_a_plan_changed_in_the_store(world: World) -> None:
    plan = world.plan(*world.three)
    place = ledger_place(world.pipeline)
    with duckdb.connect(str(place.database)) as connection:
        connection.execute(
            f"UPDATE cockpit_deletions.deletion_plans SET plan = replace(plan, '{world.a}', '{world.other}')"
        )
    assert world.apply_refused(plan).code == "ledger_differs"
    assert world.sent() == []


def test_a_plan_whose_hash_is_another(world: World) -> None:
    """Both stores agree, and were written by something else."""
    plan = world.plan(*world.three)
    with world.session() as session:
        stored = plan.to_dict() | {"plan_id": "forged"}
        session.record("plan", plan_id="forged", body={"plan": stored, "plan_hash": plan.plan_hash})
    assert world.apply_refused("forged").code == "changed"
    assert world.sent() == []


def test_the_strictest_of_the_limits_counts(world: World) -> None:
    """Those of the plan hold when the limits were raised since, and those of now when they were lowered."""
    plan = world.plan(*world.three, max_age_hours=1.0, plan_lifetime_minutes=600.0)
    world.clock.advance(hours=1.5)
    assert world.apply_refused(plan, max_age_hours=24.0).code == "stale"
    assert world.apply_refused(plan, max_actions=2).code == "stale"
    assert (world.sent(), world.story()) == ([], ["plan"])


def test_without_the_protected_list_nothing_happens(world: World) -> None:
    plan = world.plan(*world.three)
    world.protected_file.unlink()
    with pytest.raises(ConfigurationError, match="protected"):
        world.apply(plan)
    with pytest.raises(ConfigurationError, match="protected"):
        world.plan(*world.three)
    assert (world.sent(), world.story()) == ([], ["plan"])


def test_an_entry_of_the_protected_list_that_fits_nobody_is_warned_of(world: World) -> None:
    """By the names and ids of the inventory, those that have left it too; it is no refusal."""
    sql("UPDATE cockpit.customers SET removed_at = now() WHERE id = '{other}'")(world)
    stays = next(c for c in world.sandbox.tenant.customers if c.id not in (*world.ids, world.other))
    name = stays.company_name.upper()
    idle = ["Nobody [AG] *", "*Contosso*", new_id(77)]
    world.protected_file.write_text("\n".join([f"{name[:4]}*", world.other.upper(), *idle, "# a remark"]))
    assert world.plan(*world.three).items
    warnings = [line for line in world.said if line.startswith("Warning")]
    assert warnings == [
        f"Warning: the entry {entry!r} of the protected list fits no customer of the inventory, so it protects "
        "nobody. Look whether it is misspelt."
        for entry in idle
    ]


def test_a_listed_customer_more_on_the_protected_list_does_not_matter(world: World) -> None:
    plan = world.plan(*world.three)
    world.protected_file.write_text(f"{world.other}\n")
    assert world.apply(plan).is_done


def test_a_relationship_that_the_plan_does_not_remove(world: World) -> None:
    assert world.plan_refused(world.delete(world.a)).code == "relationship_left"
    assert world.plan_refused(world.remove(world.both), world.delete(world.both)).code == "relationship_left"
    world.detach(world.a)
    plan = world.plan(world.delete(world.a))
    # it is back
    world.sandbox.deletions.undo()
    assert world.apply_refused(plan).code == "evidence_changed"
    assert world.sent() == []


def test_no_inventory_at_all(world: World) -> None:
    world.inventory.database.unlink()
    assert world.plan_refused(*world.three).code == "no_inventory"
    assert world.sent() == []


def test_only_scopes_by_hand_are_no_listing(world: World) -> None:
    world.inventory.database.unlink()
    world.inventory.load([(world.a, world.instance(world.a), world.customer(world.a).reseller_id)])
    assert world.plan_refused(*world.three).code == "no_listing"


def test_all_reasons_are_told_at_once(world: World) -> None:
    world.return_customer(world.b)
    refusal = world.plan_refused(*world.three, world.delete(world.both), max_actions=3)
    assert refusal.code == "max_percent"
    world.protected_file.write_text(world.name(world.a))
    text = str(world.plan_refused(*world.three))
    for part in ("is protected by the entry", "assigned seats", "active subscriptions"):
        assert part in text


def unread_scope_of_a(world: World) -> None:
    sql("UPDATE cockpit.scopes SET last_outcome = 'failed' WHERE customer_id = '{a}'")(world)


def codes_of(refusal: DeletionRefused) -> set[str]:
    return set(re.findall(r"^  - (\w+): ", str(refusal), re.MULTILINE))


def test_a_customer_that_has_left_the_listing_already(world: World) -> None:
    plan = world.plan(*world.three)
    sql("UPDATE cockpit.customers SET removed_at = now() WHERE id = '{a}'")(world)
    left = f"unknown_id: Customer {world.a} has left the listing already, or is deleted. Let the query leave out "
    for refusal in (world.plan_refused(*world.three), world.apply_refused(plan)):
        assert refusal.code == "unknown_id"
        assert left + "customers whose removed_at is set." in str(refusal)
        assert str(refusal).count("unknown_id") == 1
    assert "The inventory holds no customer " + new_id(77) in str(
        world.plan_refused(f"SELECT 'delete_customer', '{new_id(77)}', CAST(NULL AS VARCHAR), 'r'")
    )
    assert (world.sent(), world.story()) == ([], ["plan"])


@pytest.mark.parametrize("where", ["customer", "listing"])
def test_what_cannot_be_read_hides_no_other_refusal(world: World, where: str) -> None:
    """Neither of the same customer, as far as the warehouse knows it, nor of others."""
    gone = new_id(77)
    selects = (*world.three, world.delete(world.c), f"SELECT 'delete_customer', '{gone}', CAST(NULL AS VARCHAR), 'r'")
    plan = world.plan(*world.three)
    world.protected_file.write_text(f"{world.b}\n{world.name(world.a)}\n")
    unread_scope_of_a(world)
    world.return_customer(world.c)
    if where == "customer":
        fault("forbidden")(world)
        fault("forbidden", "b")(world)
    else:
        world.gate.overrides["/v1/customers"] = (500, error_body(500))
    without_calls = {"unreadable", "protected", "unread_scope"}
    of_others = {"consumed_seats", "active_subscription", "relationship_left"} if where == "customer" else set()
    refusal = world.plan_refused(*selects, max_percent=10.0)
    assert codes_of(refusal) == without_calls | {"unknown_id"} | of_others
    assert refusal.code == "unknown_id"
    assert str(refusal).count("could not be read") == (2 if where == "customer" else 1)
    assert codes_of(world.apply_refused(plan)) == without_calls
    assert (world.sent(), world.story()) == ([], ["plan"])


def test_a_limit_hides_no_refusal_that_needs_no_call(world: World) -> None:
    world.protected_file.write_text(world.name(world.a))
    unread_scope_of_a(world)
    world.sandbox.clear_requests()
    assert codes_of(world.plan_refused(*world.three, max_actions=2)) == {"max_actions", "protected", "unread_scope"}
    read = [request.path.lower() for request in world.sandbox.requests]
    assert not [path for path in read if any(customer in path for customer in world.ids)]


def test_nothing_to_do_is_not_said_where_nothing_can_be_known(world: World) -> None:
    with world.session() as session:
        assert make_plan(session, world.query()) is None
    with duckdb.connect(str(world.inventory.database)) as connection:
        connection.execute("DELETE FROM cockpit.customers")
    with world.session() as session, pytest.raises(DeletionRefused, match="holds no customer") as refused:
        make_plan(session, world.query())
    assert refused.value.code == "no_customers"


# the numbers over time


def test_the_limit_of_a_day_counts_across_plans(world: World) -> None:
    limits = {"max_actions_per_day": 4}
    first = world.plan(*world.three, **limits)
    assert world.apply(first, **limits).is_done
    assert world.plan_refused(world.remove(world.c), world.delete(world.b), **limits).code == "max_actions_per_day"
    fourth = world.plan(world.remove(world.c), **limits)
    assert world.apply_refused(fourth, max_actions_per_day=3).code == "max_actions_per_day"
    assert world.apply(fourth, **limits).is_done
    assert world.plan_refused(world.delete(world.b), **limits).code == "max_actions_per_day"
    assert len(world.sent()) == 4
    # a day later
    world.clock.advance(hours=24, seconds=1)
    world.load()
    assert world.apply(world.plan(world.delete(world.b), **limits), **limits).is_done
    assert len(world.sent()) == 5


def test_the_limit_of_a_day_counts_what_did_not_arrive(world: World) -> None:
    limits = {"max_actions_per_day": 1}
    plan = world.plan(world.remove(world.c), **limits)
    world.gate.on_delete = lambda *_: "throttle"
    assert not world.apply(plan, **limits).is_done
    world.gate.reset()
    assert world.apply_refused(plan, **limits).code == "max_actions_per_day"


def test_grace_days_across_loads(world: World) -> None:
    grace = {"grace_days": 2.0}
    for _ in range(2):
        assert world.plan_refused(*world.three, **grace).code == "grace"
    world.clock.advance(days=1.9)
    world.load()
    assert world.plan_refused(*world.three, **grace).code == "grace"
    world.clock.advance(days=0.2)
    world.load()
    # another query has not waited
    assert world.plan_refused(world.remove(world.a), **grace).code == "grace"
    plan = world.plan(*world.three, **grace)
    assert world.story() == ["selection"] * 5 + ["plan"]
    # raised since
    assert world.apply_refused(plan, grace_days=3.0).code == "grace"
    assert world.apply(plan, **grace).is_done


def test_grace_begins_anew_when_it_was_not_selected(world: World) -> None:
    """Selected, then not, then again: the same query on other facts."""
    grace = {"grace_days": 2.0}
    query = DeletionQuery(
        "left.sql",
        "SELECT 'remove_reseller_relationship' AS action, s.customer_id AS customer_id, s.provider_instance_id AS "
        f"provider_instance_id, 'left' AS reason FROM scopes s WHERE s.customer_id IN ('{world.a}', '{world.b}') AND "
        "NOT EXISTS (SELECT 1 FROM licenses l WHERE l.scope_key = s.scope_key)",
    )

    def try_plan() -> str | None:
        with world.session(**grace) as session:
            try:
                plan = make_plan(session, query)
            except DeletionRefused as refusal:
                return refusal.code
        return plan.plan_id if plan else None

    assert try_plan() == "grace"
    world.clock.advance(days=1)
    world.return_customer(world.a)
    world.load()
    assert try_plan() == "grace"
    world.clock.advance(days=1)
    world.sandbox.offboard(world.a)
    world.load()
    assert try_plan() == "grace"
    world.clock.advance(days=2)
    world.load()
    assert (try_plan() or "").startswith("20")


# every code

_NOT_HERE = {
    # behind unknown_id, and tested in test_deletion_guards.py
    "no_scopes",
    "not_in_inventory",
    # in test_deletion_commands.py
    "not_enabled",
    "not_approved",
    "hash_differs",
    "query_not_select",
    "query_not_allowed",
    "query_failed",
    "query_columns",
    "query_null",
    "query_not_uuid",
    "query_action",
    "query_duplicate",
    # in test_deletion_locked_run.py
    "inventory_unreadable",
}


def test_no_code_is_forgotten() -> None:
    folder = Path(guards.__file__).parent
    calls = [
        node
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Refusal", "DeletionRefused", "_Stop")
    ]
    found = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    assert len(found) > 40
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_deletion_*.py"))
    assert {code for code in found if f'"{code}"' not in tests} == set()
    here = Path(__file__).read_text() + (Path(__file__).parent / "test_deletion_apply.py").read_text()
    assert {code for code in found - _NOT_HERE if f'"{code}"' not in here} == set()
