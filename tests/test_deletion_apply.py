"""What happens while a plan is carried out: every answer of the API, the kill switch, a world that moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from offboarding_world import Reply, Shared, World, error_body, new_world, shared_world

from cockpit_source.deletions.settings import STOP_VARIABLE
from cockpit_source.deletions.verifier import settle_from_inventory
from cockpit_source.errors import SignInRefused
from cockpit_source.sandbox import LoggedRequest

PATIENCE = 100.0
POLLS = [1, 2, 4, 8, 16, 32, 37]
"""The waits that make up the patience."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: Shared, tmp_path: Path) -> World:
    world = new_world(shared, tmp_path)
    world.changes = {"verify_timeout_seconds": PATIENCE, "max_percent": 10.0, "timeout_seconds": 4.0}
    return world


def replies(*wanted: str | Reply | None) -> Callable[[LoggedRequest, int], str | Reply | None]:
    """What the first DELETEs meet, in their order."""
    return lambda _, number: wanted[number - 1] if number <= len(wanted) else None


def removals(world: World, count: int) -> tuple[str, ...]:
    """Plans of relationships, in the order in which they are carried out, of customers `ordered(world)`."""
    return tuple(world.remove(customer) for customer in ordered(world)[:count])


def ordered(world: World) -> list[str]:
    return sorted(world.ids[:6])


def at_delete(number: int, do: Callable[[], object]) -> Callable[[LoggedRequest, int], None]:
    """Do this when the DELETE of that number arrives."""

    def on_delete(_: LoggedRequest, count: int) -> None:
        if count == number:
            do()

    return on_delete


# what the first DELETE meets; outcome, state and stop of the run
ANSWERS: list[tuple[str | Reply, str, str, str]] = [
    ("forbidden", "refused", "failed", "forbidden"),
    ((400, error_body(400)), "refused", "failed", "first_not_verified"),
    ((404, error_body(404)), "refused", "failed", "first_not_verified"),
    ((409, None), "refused", "failed", "first_not_verified"),
    ((400, None), "refused", "failed", "outside_contract"),
    ((404, {"message": "no route"}), "refused", "failed", "outside_contract"),
    ("error_500", "unknown", "unknown", "first_not_verified"),
    ("html_503", "unknown", "unknown", "first_not_verified"),
    ("reset", "unknown", "unknown", "first_not_verified"),
    ("truncated", "unknown", "unknown", "first_not_verified"),
    ("hang", "unknown", "unknown", "first_not_verified"),
    ("redirect", "unknown", "unknown", "outside_contract"),
    ("sign_in_page", "unknown", "unknown", "outside_contract"),
    ((200, {}), "unknown", "unknown", "outside_contract"),
    ((204, None), "unknown", "unknown", "outside_contract"),
    ((410, error_body(410)), "unknown", "unknown", "outside_contract"),
]


@pytest.mark.parametrize(("answer", "outcome", "state", "stop"), ANSWERS)
def test_what_stops_the_run_at_the_first(
    world: World, answer: str | Reply, outcome: str, state: str, stop: str
) -> None:
    plan = world.plan(*removals(world, 2))
    world.gate.on_delete = replies(answer)
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.is_done, applied.states) == (stop, False, {1: state, 2: "planned"})
    assert world.sent() == [world.path(ordered(world)[0], removes=True)]
    assert world.story(1) == ["apply_started unattended", "intent 1", f"outcome 1 {outcome}", f"stopped {stop}"]
    assert world.clock.slept == (POLLS if outcome == "unknown" and stop != "outside_contract" else [])
    # it may be carried on with: what failed is over, what is unknown is settled by reading only
    world.gate.on_delete = replies()
    later = world.apply(plan)
    assert (later.states[1], later.states[2]) == (state, "verified")
    assert world.sent().count(world.path(ordered(world)[0], removes=True)) == 1


@pytest.mark.parametrize("kind", ["throttle", "throttle_date", "throttle_bare", (429, error_body(429))])
def test_throttled_is_sent_again(world: World, kind: str | Reply) -> None:
    world.sandbox.faults.configure(retry_after_seconds=20)
    plan = world.plan(*removals(world, 1))
    world.gate.on_delete = replies(kind)
    assert world.apply(plan).is_done
    assert world.sent() == [world.path(ordered(world)[0], removes=True)] * 2
    assert len({request.correlation_id for request in world.requests()}) == 2
    (slept,) = world.clock.slept
    assert 15 < slept < 25 if kind in ("throttle", "throttle_date") else 9 < slept <= 10
    assert world.story(2) == [
        "intent 1",
        "outcome 1 throttled",
        "intent 1",
        "outcome 1 accepted",
        "settled 1 verified",
        "finished {'verified': 1}",
    ]


def test_throttled_to_the_end_is_left_planned(world: World) -> None:
    plan = world.plan(*removals(world, 2))
    world.gate.on_delete = replies("throttle", "throttle", "throttle")
    applied = world.apply(plan)
    assert applied.states == {1: "planned", 2: "planned"}
    assert applied.stop is not None
    assert applied.stop.code == "first_not_verified"
    assert world.sent() == [world.path(ordered(world)[0], removes=True)] * 3
    assert world.apply(plan).is_done


def test_unauthorized_once_renews_the_token(world: World) -> None:
    plan = world.plan(*removals(world, 1))
    world.gate.on_delete = replies("expired_token")
    world.sandbox.clear_requests()
    assert world.apply(plan).is_done
    assert world.sent() == [world.path(ordered(world)[0], removes=True)] * 2
    assert world.clock.slept == [pytest.approx(10, abs=1)]
    assert world.story(2)[:3] == ["intent 1", "outcome 1 unauthorized", "intent 1"]


def test_asked_to_wait_for_too_long_stops(world: World) -> None:
    world.sandbox.faults.configure(retry_after_seconds=3600)
    plan = world.plan(*removals(world, 2))
    world.gate.on_delete = replies("throttle")
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("throttled", {1: "planned", 2: "planned"})
    assert (len(world.sent()), world.clock.slept) == (1, [])


@pytest.mark.parametrize("answer", ["throttle", "expired_token"])
def test_a_change_before_it_is_sent_again_blocks(world: World, answer: str) -> None:
    plan = world.plan(*removals(world, 2))
    first = ordered(world)[0]
    world.gate.on_delete = replies(answer)
    world.clock.on_sleep = lambda _: world.return_customer(first)
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("blocked", {1: "blocked", 2: "planned"})
    assert len(world.sent()) == 1


def test_gone_before_it_is_sent_again_is_already_absent(world: World) -> None:
    plan = world.plan(*removals(world, 2))
    first = ordered(world)[0]
    world.gate.on_delete = replies("throttle")
    world.clock.on_sleep = lambda _: world.take(first)
    assert world.apply(plan).states == {1: "already_absent", 2: "verified"}
    assert world.sent() == [world.path(customer, removes=True) for customer in ordered(world)[:2]]


def test_a_refused_sign_in_in_between_is_recorded(world: World) -> None:
    """Reading is refused after the first DELETE: it stays open, and the next run settles it."""
    plan = world.plan(*removals(world, 2))
    first = ordered(world)[0]
    world.gate.on_delete = at_delete(1, lambda: world.gate.overrides.update({f"/v1/customers/{first}": (401, None)}))
    with pytest.raises(SignInRefused) as refused:
        world.apply(plan)
    assert refused.value.exit_code == 5
    assert world.story(1) == ["apply_started unattended", "intent 1", "outcome 1 accepted", "stopped sign_in"]
    world.gate.overrides.clear()
    assert world.apply(plan).is_done
    assert world.sent() == [world.path(customer, removes=True) for customer in ordered(world)[:2]]


def test_unauthorized_twice_stops(world: World) -> None:
    plan = world.plan(*removals(world, 2))
    world.gate.on_delete = replies("expired_token", "expired_token")
    applied = world.apply(plan)
    assert applied.states == {1: "planned", 2: "planned"}
    assert len(world.sent()) == 2


@pytest.mark.parametrize("fault", ["error_500", "reset", "hang", (200, {})])
def test_delivered_without_an_answer_is_settled_by_reading(world: World, fault: str | Reply) -> None:
    plan = world.plan(*removals(world, 2))
    first = ordered(world)[0]

    def carry_out_silently(_: LoggedRequest, number: int) -> str | Reply | None:
        if number > 1:
            return None
        world.detach(first)
        return fault

    world.gate.on_delete = carry_out_silently
    applied = world.apply(plan)
    stops = fault == (200, {})
    assert (applied.states, applied.is_done) == ({1: "verified", 2: "planned" if stops else "verified"}, not stops)
    assert world.story(2)[:3] == ["intent 1", "outcome 1 unknown", "settled 1 verified"]
    assert len(world.sent()) == (1 if stops else 2)


def test_one_failure_among_others_does_not_stop(world: World) -> None:
    plan = world.plan(*removals(world, 4))
    world.gate.on_delete = replies(None, (409, None), None, (409, None))
    applied = world.apply(plan)
    assert (applied.stop, applied.is_done) == (None, False)
    assert applied.states == {1: "verified", 2: "failed", 3: "verified", 4: "failed"}
    assert world.records()[-1].body == {"results": {"verified": 2, "failed": 2}}
    assert world.apply_refused(plan).code == "already_applied"
    assert len(world.sent()) == 4


def test_two_failures_in_a_row_stop(world: World) -> None:
    plan = world.plan(*removals(world, 4))
    world.gate.on_delete = replies(None, (409, None), (409, None))
    applied = world.apply(plan)
    assert applied.stop is not None
    assert applied.stop.code == "failures_in_a_row"
    assert applied.states == {1: "verified", 2: "failed", 3: "failed", 4: "planned"}
    assert len(world.sent()) == 3


def test_forbidden_later_stops(world: World) -> None:
    plan = world.plan(*removals(world, 3))
    world.gate.on_delete = replies(None, "forbidden")
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("forbidden", {1: "verified", 2: "failed", 3: "planned"})
    assert len(world.sent()) == 2


def test_a_customer_waits_for_its_relationships(world: World) -> None:
    """The removal of the second relationship fails, so the customer is not deleted."""
    both = world.both
    plan = world.plan(world.remove(both, 0), world.remove(both, 1), world.delete(both))
    world.gate.on_delete = replies(None, (409, None))
    applied = world.apply(plan)
    assert applied.stop is not None
    assert applied.stop.code == "relationship_left"
    assert applied.states == {1: "verified", 2: "failed", 3: "planned"}
    assert len(world.sent()) == 2


def test_a_customer_of_two_instances(world: World) -> None:
    both = world.both
    plan = world.plan(world.delete(both), world.remove(both, 1), world.remove(both, 0))
    assert world.apply(plan).is_done
    removed = sorted(world.path(both, removes=True, number=number) for number in (0, 1))
    assert world.sent() == [*removed, world.path(both)]
    assert world.clock.slept[:2] == [pytest.approx(10, abs=1)] * 2


# the kill switch


def test_stopped_by_a_file_before_the_first(world: World) -> None:
    plan = world.plan(*removals(world, 2))
    world.stop_file.touch()
    assert world.apply_refused(plan).code == "stopped"
    assert (world.sent(), world.story()) == ([], ["plan"])


def test_stopped_by_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan(*removals(world, 2))
    monkeypatch.setenv(STOP_VARIABLE, "1")
    assert world.apply_refused(plan).code == "stopped"
    assert world.plan_refused(*removals(world, 2)).code == "stopped"
    assert (world.sent(), world.story()) == ([], ["plan"])


@pytest.mark.parametrize("by", ["file", "environment"])
@pytest.mark.parametrize("when", ["approval", "first", "pause"])
def test_stopped_while_it_runs(world: World, monkeypatch: pytest.MonkeyPatch, by: str, when: str) -> None:
    def stop() -> None:
        if by == "file":
            world.stop_file.touch()
        else:
            monkeypatch.setenv(STOP_VARIABLE, "1")

    plan = world.plan(*removals(world, 3))
    if when == "approval":
        world.extend = lambda session: _at_record(session, "apply_started", stop)
    elif when == "first":
        world.gate.on_delete = at_delete(1, stop)
    else:
        world.clock.on_sleep = lambda _: stop()
    applied = world.apply(plan)
    assert applied.stop is not None
    assert applied.stop.code == "stopped"
    assert len(world.sent()) == (0 if when == "approval" else 1)
    assert world.story()[-1] == "stopped stopped"
    # and on it goes
    world.stop_file.unlink(missing_ok=True)
    monkeypatch.delenv(STOP_VARIABLE, raising=False)
    world.extend, world.clock.on_sleep = lambda _: None, lambda _: None
    assert world.apply(plan).is_done
    assert world.sent() == [world.path(customer, removes=True) for customer in ordered(world)[:3]]


def test_stopped_while_the_api_wants_to_be_left_alone(world: World) -> None:
    plan = world.plan(*removals(world, 2))
    world.gate.on_delete = replies("throttle")
    world.clock.on_sleep = lambda _: world.stop_file.touch()
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("stopped", {1: "planned", 2: "planned"})
    assert len(world.sent()) == 1


def _at_record(session: Any, kind: str, do: Callable[[], object]) -> None:
    append = session.ledger.append

    def appended(kind_now: str, **about: Any) -> Any:
        record = append(kind_now, **about)
        if kind_now == kind:
            do()
        return record

    session.ledger.append = appended


# a world that moves


def test_gone_before_sending_is_already_absent(world: World) -> None:
    plan = world.plan(*removals(world, 3))
    second = ordered(world)[1]
    world.gate.on_delete = at_delete(1, lambda: world.take(second))
    applied = world.apply(plan)
    assert (applied.is_done, applied.states) == (True, {1: "verified", 2: "already_absent", 3: "verified"})
    assert len(world.sent()) == 2
    assert "already_absent 2" in world.story()


def test_gone_between_plan_and_apply_is_already_absent(world: World) -> None:
    plan = world.plan(*world.three)
    world.take(world.a)
    applied = world.apply(plan)
    assert applied.is_done
    assert sorted(applied.states.values()) == ["already_absent", "already_absent", "verified"]
    assert world.sent() == [world.path(world.b, removes=True)]


MOVES: dict[str, Callable[[World, str], object]] = {
    "licences": lambda world, customer: world.return_customer(customer),
    "name": lambda world, customer: world.rename(customer, "Another"),
    "relationship": lambda world, customer: world.detach(customer),
    "unreadable": lambda world, customer: world.sandbox.faults.for_customer(customer, "error_500"),
    "forbidden": lambda world, customer: world.sandbox.faults.for_customer(customer, "forbidden"),
    "throttled": lambda world, customer: world.sandbox.faults.for_customer(customer, "throttle"),
    "sign-in page": lambda world, customer: world.sandbox.faults.for_customer(customer, "sign_in_page"),
    "reset": lambda world, customer: world.sandbox.faults.for_customer(customer, "reset"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_change_between_two_items_blocks(world: World, move: str) -> None:
    plan = world.plan(*removals(world, 3))
    second = ordered(world)[1]
    name = world.name(second)
    world.gate.on_delete = at_delete(1, lambda: MOVES[move](world, second))
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("blocked", {1: "verified", 2: "blocked", 3: "planned"})
    assert world.sent() == [world.path(ordered(world)[0], removes=True)]
    assert world.story()[-2:] == ["blocked 2", "stopped blocked"]
    refusal = world.apply_refused(plan)
    assert refusal.code == ("evidence_changed" if move in ("licences", "name", "relationship") else "unreadable")
    # what was blocked may be tried again when the world is as it was
    world.sandbox.clear()
    if move == "relationship":
        return
    world.sandbox.offboard(second)
    world.rename(second, name)
    assert world.apply(plan).is_done
    assert len(world.sent()) == 3


# whether it shows


def test_failed_by_the_audit_log(world: World) -> None:
    plan = world.plan(*removals(world, 2))
    world.sandbox.deletion_outcome = "Failed"
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("first_not_verified", {1: "failed", 2: "planned"})
    settled = next(record for record in world.records() if record.kind == "settled")
    assert settled.body["proof"]["kind"] == "audit_log"
    assert len(world.sent()) == 1


def test_waits_until_it_shows(world: World) -> None:
    plan = world.plan(*removals(world, 1))
    world.sandbox.deletion_delay_seconds = 3600

    def show(count: int) -> None:
        if count == 5:
            world.sandbox.deletion_delay_seconds = 0

    world.clock.on_sleep = show
    assert world.apply(plan).is_done
    assert world.clock.slept == [1, 2, 4, 8, 16]


def leave_unverified(world: World, *selects: str) -> Any:
    """Apply a plan whose first deletion does not show in time."""
    plan = world.plan(*selects)
    world.sandbox.deletion_delay_seconds = 3600
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states[1]) == ("first_not_verified", "accepted_unverified")
    assert world.clock.slept == POLLS
    assert world.story(2) == [
        "intent 1",
        "outcome 1 accepted",
        "settled 1 accepted_unverified",
        "stopped first_not_verified",
    ]
    return plan


def test_not_seen_is_settled_by_verify(world: World) -> None:
    plan = leave_unverified(world, *removals(world, 2))
    assert world.verify() == [(1, "accepted_unverified")]
    assert len(world.records()) == 6
    assert world.plan_refused(*removals(world, 1)).code == "unsettled"
    world.sandbox.deletion_delay_seconds = 0
    assert world.verify() == [(1, "verified")]
    assert world.verify() == []
    assert world.sent() == [world.path(ordered(world)[0], removes=True)]
    assert world.apply(plan).is_done
    assert len(world.sent()) == 2


def test_apply_again_does_not_send_what_is_not_seen_again(world: World) -> None:
    plan = leave_unverified(world, *removals(world, 1))
    applied = world.apply(plan)
    assert applied.stop is not None
    assert (applied.stop.code, applied.states) == ("unsettled", {1: "accepted_unverified"})
    assert len(world.sent()) == 1


@pytest.mark.parametrize("is_customer", [True, False])
def test_settled_by_the_next_load(world: World, is_customer: bool) -> None:
    if is_customer:
        world.detach(world.a)
    leave_unverified(world, world.delete(world.a) if is_customer else world.remove(world.a))
    world.sandbox.deletion_delay_seconds = 0
    world.clock.advance(minutes=1)
    result = world.load()
    assert result.exit_code == 0
    world.sandbox.clear_requests()
    with world.session() as session:
        assert settle_from_inventory(session) == 1
        assert settle_from_inventory(session) == 0
    assert world.sandbox.requests == []
    settled = world.records()[-1]
    assert (settled.body["result"], settled.body["proof"]["kind"]) == ("verified", "inventory")
    assert world.verify() == []
    assert world.story()[-1] == "finished {'verified': 1}"


def test_a_load_before_it_shows_settles_nothing(world: World) -> None:
    leave_unverified(world, world.remove(world.a))
    world.clock.advance(minutes=1)
    world.load()
    with world.session() as session:
        assert settle_from_inventory(session) == 0
    assert world.states() == {1: "accepted_unverified"}


def test_another_tenant_or_api_proves_nothing(world: World) -> None:
    """Where somebody points the settings elsewhere, the customer is absent there, or cannot be read at all."""
    leave_unverified(world, world.remove(world.a))
    world.sandbox.deletion_delay_seconds = 0
    world.sandbox.clear_requests()
    for changes in ({"base_url": "http://127.0.0.1:1"}, {"tenant": "other"}, {"tenant_key": "other"}):
        assert world.verify(**changes) == []
    assert world.states() == {1: "accepted_unverified"}
    assert world.sandbox.requests == []
    assert "another tenant or API" in world.said[-1]
    # nor does an inventory into which another API was loaded
    world.clock.advance(minutes=1)
    world.load()
    with duckdb.connect(str(world.inventory.database)) as connection:
        connection.execute(
            "UPDATE cockpit.runs SET base_url = 'http://127.0.0.1:1' "
            "WHERE started_at = (SELECT max(started_at) FROM cockpit.runs)"
        )
    with world.session() as session:
        assert settle_from_inventory(session) == 0
    assert world.verify() == [(1, "verified")]


def test_still_there_after_a_day_has_failed(world: World) -> None:
    leave_unverified(world, world.remove(world.a))
    world.clock.advance(hours=23)
    assert world.verify() == [(1, "accepted_unverified")]
    world.clock.advance(hours=1)
    assert world.verify() == [(1, "failed")]
    settled = next(record for record in reversed(world.records()) if record.kind == "settled")
    assert settled.body["proof"]["kind"] == "still_there"


@pytest.mark.parametrize("fault", ["error_500", "forbidden", "sign_in_page", "throttle", "reset"])
def test_what_cannot_be_read_proves_nothing_even_after_a_day(world: World, fault: str) -> None:
    leave_unverified(world, world.remove(world.a))
    world.sandbox.faults.for_customer(world.a, fault)
    world.clock.advance(hours=48)
    assert world.verify() == [(1, "accepted_unverified")]
