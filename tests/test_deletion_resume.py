"""A process that ends after any record of the ledger, or between a DELETE and its outcome, and the next one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from offboarding_world import Shared, World, new_world, shared_world

from cockpit_source.deletions.delete_client import DeleteClient
from cockpit_source.deletions.session import Session
from cockpit_source.errors import LedgerUnavailable


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: Shared, tmp_path: Path) -> World:
    world = new_world(shared, tmp_path)
    world.changes = {"verify_timeout_seconds": 30.0}
    return world


class Crash(BaseException):
    """The process ends here."""


def crash_after_record(number: int) -> Any:
    """The process ends when it has committed so many records."""

    def extend(session: Session) -> None:
        append = session.ledger.append
        count = 0

        def appended(*args: Any, **about: Any) -> Any:
            nonlocal count
            record = append(*args, **about)
            count += 1
            if count == number:
                raise Crash
            return record

        session.ledger.append = appended  # type: ignore[method-assign]

    return extend


def crash_once(world: World, plan: Any) -> None:
    with pytest.raises(Crash):
        world.apply(plan)
    world.extend = lambda _: None


def expected(world: World) -> list[str]:
    a, b = sorted((world.a, world.b))
    return [world.path(a, removes=True), world.path(b, removes=True), world.path(world.a)]


# apply_started, three times intent, outcome and settled, finished
RECORDS = 11


@pytest.mark.parametrize("number", range(1, RECORDS + 1))
def test_ended_after_each_record(world: World, number: int) -> None:
    plan = world.plan(*world.three)
    world.extend = crash_after_record(number)
    crash_once(world, plan)
    sent_before = len(world.sent())
    assert sent_before == len([n for n in (3, 6, 9) if n <= number])
    # an intent without a DELETE is settled by reading, and since it shows that nothing was deleted, it stays open
    is_lost = number in (2, 5, 8)
    lost = {2: 0, 5: 1, 8: 2}.get(number)
    if number >= RECORDS - 1:
        refusal = world.apply_refused(plan)
        assert refusal.code == "already_applied"
        # between the last settlement and the end of the plan
        is_recorded = number == RECORDS
        assert ("Run `cockpit deletions verify`, which records it." in str(refusal)) is not is_recorded
        assert (world.story()[-1] == "finished {'verified': 3}") is is_recorded
        assert world.verify() == []
        assert world.story()[-1] == "finished {'verified': 3}"
        assert str(world.apply_refused(plan)).endswith(f"Plan {plan.plan_id} was carried out already.")
    elif lost is not None and world.a in expected(world)[lost] and lost < 2:
        # the customer waits for this relationship
        assert world.apply_refused(plan).code == "relationship_left"
    else:
        assert world.apply(plan).is_done is not is_lost
    if lost is None:
        assert world.sent() == expected(world)
    else:
        assert expected(world)[lost] not in world.sent()
        assert world.states()[lost + 1] == "unknown"
        world.clock.advance(hours=24)
        assert world.verify() == [(lost + 1, "failed")]
    counts = {path: world.sent().count(path) for path in world.sent()}
    assert set(counts.values()) <= {1}


@pytest.mark.parametrize("item", [1, 2, 3])
def test_ended_between_the_delete_and_its_outcome(world: World, monkeypatch: pytest.MonkeyPatch, item: int) -> None:
    plan = world.plan(*world.three)
    send = DeleteClient.send
    sent = 0

    def send_and_end(self: DeleteClient, *args: Any) -> Any:
        nonlocal sent
        delivery = send(self, *args)
        sent += 1
        if sent == item:
            raise Crash
        return delivery

    monkeypatch.setattr(DeleteClient, "send", send_and_end)
    crash_once(world, plan)
    assert world.states()[item] == "sending"
    assert world.story()[-1] == f"intent {item}"
    if item < 3:
        assert world.apply(plan).is_done
    else:
        # nothing is left to send
        assert world.apply(plan).states == {1: "verified", 2: "verified", 3: "verified"}
    assert world.sent() == expected(world)
    assert world.story()[-1] == "finished {'verified': 3}"


def test_an_open_item_of_another_process_is_not_sent_in_a_new_plan(world: World) -> None:
    plan = world.plan(*world.three)
    world.sandbox.deletion_delay_seconds = 3600
    world.extend = crash_after_record(3)
    crash_once(world, plan)
    assert world.states()[1] == "accepted"
    assert world.plan_refused(*world.three).code == "unsettled"
    refusal = world.apply_refused(plan)
    assert refusal.code == "relationship_left"
    assert "Item 3 waits for item 1, the removal of a relationship, which is accepted_unverified" in str(refusal)
    assert world.sent() == expected(world)[:1]
    world.sandbox.deletion_delay_seconds = 0
    assert world.apply(plan).is_done
    assert world.sent() == expected(world)


def test_resumed_after_a_load_in_between(world: World) -> None:
    """What the plan itself has changed in the inventory is no other evidence."""
    plan = world.plan(*world.three)
    world.extend = crash_after_record(4)
    crash_once(world, plan)
    world.clock.advance(minutes=1)
    assert world.load().exit_code == 0
    assert world.apply(plan).is_done
    assert world.sent() == expected(world)


def test_resumed_after_it_has_expired_is_refused(world: World) -> None:
    plan = world.plan(*world.three)
    world.extend = crash_after_record(4)
    crash_once(world, plan)
    world.clock.advance(minutes=61)
    assert world.apply_refused(plan).code == "expired"
    # and another plan takes over what is left
    a, b = sorted((world.a, world.b))
    later = world.plan(*([world.remove(world.b)] if b == world.b else [world.remove(world.a)]), world.delete(a))
    assert world.apply(later).is_done


def test_no_ledger_no_delete(world: World) -> None:
    """The intent cannot be committed, so nothing is sent."""
    plan = world.plan(*world.three)

    def extend(session: Session) -> None:
        append = session.ledger.append

        def appended(kind: str, **about: Any) -> Any:
            if kind == "intent":
                raise LedgerUnavailable("no space left")
            return append(kind, **about)

        session.ledger.append = appended  # type: ignore[method-assign]

    world.extend = extend
    assert world.apply_refused(plan).code == "ledger_unavailable"
    assert (world.sent(), world.story()) == ([], ["plan", "apply_started unattended"])
    world.extend = lambda _: None
    assert world.apply(plan).is_done


def test_the_outcome_cannot_be_written(world: World) -> None:
    """The DELETE went out, its outcome is lost: the next run settles it by reading."""
    plan = world.plan(*world.three)

    def extend(session: Session) -> None:
        append = session.ledger.append

        def appended(kind: str, **about: Any) -> Any:
            if kind == "outcome":
                raise LedgerUnavailable("no space left")
            return append(kind, **about)

        session.ledger.append = appended  # type: ignore[method-assign]

    world.extend = extend
    world.apply_refused(plan)
    assert world.sent() == expected(world)[:1]
    world.extend = lambda _: None
    assert world.apply(plan).is_done
    assert world.sent() == expected(world)
