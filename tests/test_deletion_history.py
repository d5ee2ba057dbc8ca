"""The states of plans and items from records of the ledger, against a table of transitions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, get_args

import pytest
from deletion_facts import (
    NOW,
    Entry,
    intent_entry,
    make_candidate,
    make_item,
    make_plan,
    plan_entry,
    selection_entry,
)
from hypothesis import given
from hypothesis import strategies as st
from support import INSTANCE, new_id

from cockpit_source.deletions.history import (
    END_STATES,
    GONE_STATES,
    OPEN_STATES,
    UNSENT_STATES,
    History,
    ItemHistory,
    State,
    count_states,
)
from cockpit_source.deletions.records import REMOVE_RELATIONSHIP
from cockpit_source.errors import LedgerUnavailable

TICK = timedelta(microseconds=1)
DAY = timedelta(hours=24)
OUTCOMES = ("accepted", "refused", "throttled", "unauthorized", "not_delivered", "unknown")
SETTLEMENTS = ("verified", "failed", "accepted_unverified", "unknown")

# a record about an item, and its result where it has one
Event = tuple[str, str | None]
EVENTS: list[Event] = [
    ("intent", None),
    *(("outcome", result) for result in (*OUTCOMES, "something new")),
    *(("settled", result) for result in (*SETTLEMENTS, "something new")),
    ("already_absent", None),
    ("blocked", None),
    ("something new", None),
]

_SETTLED: dict[Event, str] = {
    ("settled", "verified"): "verified",
    ("settled", "failed"): "failed",
    ("settled", "accepted_unverified"): "accepted_unverified",
    ("settled", "unknown"): "unknown",
    ("settled", "something new"): "unknown",
}
_BEFORE_SENDING: dict[Event, str] = {
    ("intent", None): "sending",
    ("already_absent", None): "already_absent",
    ("blocked", None): "blocked",
}
# what moves an item, by its state; every other record leaves it where it is
MOVES: dict[str, dict[Event, str]] = {
    "planned": _BEFORE_SENDING,
    "blocked": _BEFORE_SENDING,
    "sending": {
        ("intent", None): "sending",
        ("outcome", "accepted"): "accepted",
        ("outcome", "refused"): "failed",
        ("outcome", "throttled"): "planned",
        ("outcome", "unauthorized"): "planned",
        ("outcome", "not_delivered"): "planned",
        ("outcome", "unknown"): "unknown",
        ("outcome", "something new"): "unknown",
        **_SETTLED,
    },
    **{state: {("intent", None): "sending", **_SETTLED} for state in ("accepted", "unknown", "accepted_unverified")},
    # nothing is sent after these; an intent there would say that something was
    **{state: {("intent", None): "sending"} for state in ("verified", "failed", "already_absent")},
}
# records that lead to each state
WAYS: dict[str, list[Event]] = {
    "planned": [],
    "blocked": [("blocked", None)],
    "sending": [("intent", None)],
    "accepted": [("intent", None), ("outcome", "accepted")],
    "unknown": [("intent", None), ("outcome", "unknown")],
    "accepted_unverified": [("intent", None), ("outcome", "accepted"), ("settled", "accepted_unverified")],
    "verified": [("intent", None), ("outcome", "accepted"), ("settled", "verified")],
    "failed": [("intent", None), ("outcome", "refused")],
    "already_absent": [("already_absent", None)],
}


def to_entry(event: Event, item: int = 1, **body: Any) -> Entry:
    kind, result = event
    if kind == "intent":
        return intent_entry(item)
    return Entry(kind, NOW, "plan-1", item, "c-1", ({"result": result} if result else {}) | body)


def item_after(events: Iterable[Event]) -> ItemHistory:
    history = History([plan_entry(), *map(to_entry, events)])
    return history.plans["plan-1"].items[1]


def test_every_state_is_of_one_kind() -> None:
    states = set(get_args(State))
    assert set(MOVES) == set(WAYS) == states
    assert states == END_STATES | OPEN_STATES | UNSENT_STATES
    assert len(states) == len(END_STATES) + len(OPEN_STATES) + len(UNSENT_STATES)
    assert set(END_STATES) == {"verified", "already_absent", "failed"}
    assert set(GONE_STATES) == {"verified", "already_absent"}
    assert set(UNSENT_STATES) == {"planned", "blocked"}
    assert set(OPEN_STATES) == {"sending", "unknown", "accepted", "accepted_unverified"}


def test_an_item_changed_when_it_was_last_told_of() -> None:
    assert item_after([]).changed_at is None
    sent, answered = NOW + TICK, NOW + 2 * TICK
    entries = [plan_entry(), intent_entry(at=sent)]
    assert History(entries).plans["plan-1"].items[1].changed_at == sent
    entries.append(Entry("outcome", answered, "plan-1", 1, "c-1", {"result": "accepted"}))
    assert History(entries).plans["plan-1"].items[1].changed_at == answered


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", WAYS)
def test_every_record_in_every_state(state: str, event: Event) -> None:
    assert item_after(WAYS[state]).state == state
    assert item_after([*WAYS[state], event]).state == MOVES[state].get(event, state)


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_any_row_of_records_follows_the_table(events: list[Event]) -> None:
    state = "planned"
    for event in events:
        state = MOVES[state].get(event, state)
    item = item_after(events)
    assert item.state == state
    assert item.is_open == (state in OPEN_STATES)
    assert item.is_unsent == (state in UNSENT_STATES)


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_item_that_may_be_sent_had_every_request_turned_down(events: list[Event]) -> None:
    """Said without states: after its last intent, the first word on that request was that it did not arrive."""
    if not item_after(events).is_unsent:
        return
    since_intent = events[::-1][: events[::-1].index(("intent", None))][::-1] if ("intent", None) in events else None
    if since_intent is not None:
        first_word = next(event for event in since_intent if event[0] in ("outcome", "settled"))
        assert first_word in {("outcome", result) for result in ("throttled", "unauthorized", "not_delivered")}


def test_items_of_a_plan_are_known_by_number_and_key() -> None:
    removal, deletion = make_item(1, 1, REMOVE_RELATIONSHIP), make_item(2, 1)
    plan = make_plan([removal, deletion])
    candidates = [
        {
            "number": item.number,
            "candidate": {
                "action": item.candidate.action,
                "customer_id": item.candidate.customer_id,
                "provider_instance_id": item.candidate.provider_instance_id,
                "reason": item.candidate.reason,
            },
        }
        for item in plan.items
    ]
    entry = Entry("plan", NOW + DAY, "plan-1", body={"plan": {"items": candidates}, "plan_hash": plan.plan_hash})
    history = History([entry]).plans["plan-1"]
    assert history.items == {
        1: ItemHistory("plan-1", 1, f"remove_reseller_relationship|{new_id(1)}|{INSTANCE}"),
        2: ItemHistory("plan-1", 2, f"delete_customer|{new_id(1)}|-"),
    }
    assert [item.key for item in history.items.values()] == [item.candidate.key for item in plan.items]
    assert (history.plan_id, history.created_at, history.plan_hash) == ("plan-1", NOW + DAY, plan.plan_hash)
    assert history.body == entry.body


def test_item_keeps_what_was_said_of_it_last() -> None:
    first = intent_entry(correlation_id="c-1")
    second = intent_entry(at=NOW + DAY, correlation_id="c-2")
    entries = [
        plan_entry(),
        to_entry(("blocked", None), description="another name"),
        first,
        to_entry(("outcome", "throttled"), description="429"),
        second,
        to_entry(("outcome", "accepted"), description=None),
        to_entry(("settled", "verified"), description="gone", proof={"status": 404}),
    ]
    items = [History(entries[: count + 1]).plans["plan-1"].items[1] for count in range(len(entries))]
    assert [item.description for item in items] == ["", "another name", "", "429", "", "", "gone"]
    assert [item.correlation_ids for item in items] == [[], [], *[["c-1"]] * 2, *[["c-1", "c-2"]] * 3]
    assert [item.sent_at for item in items] == [None, None, NOW, NOW, *[NOW + DAY] * 3]
    assert [item.proof for item in items] == [None] * 6 + [{"status": 404}]


def test_proof_of_an_absence_is_kept() -> None:
    entry = to_entry(("already_absent", None), proof={"status": 404})
    assert History([plan_entry(), entry]).plans["plan-1"].items[1].proof == {"status": 404}
    assert item_after([("already_absent", None)]).proof is None
    assert item_after(WAYS["verified"]).proof is None


def test_intent_without_correlation_id_adds_none() -> None:
    entry = Entry("intent", NOW, "plan-1", 1)
    assert History([plan_entry(), entry]).plans["plan-1"].items[1].correlation_ids == []


def test_other_items_and_plans_are_left_alone() -> None:
    history = History(
        [plan_entry("plan-1", [1, 2]), plan_entry("plan-2", [1, 2]), intent_entry(2, "plan-2"), intent_entry(1)]
    )
    states = {plan.plan_id: [item.state for item in plan.items.values()] for plan in history.plans.values()}
    assert states == {"plan-1": ["sending", "planned"], "plan-2": ["planned", "sending"]}
    assert [(item.plan_id, item.number) for item in history.open_items()] == [("plan-1", 1), ("plan-2", 2)]


# --- plans ---


def test_plan_is_started_finished_and_ended_by_its_own_records() -> None:
    started, finished = Entry("apply_started"), Entry("finished")
    others = [
        Entry("stopped"),
        Entry("something new"),
        Entry("mended", plan_id=None),
        Entry("finished", plan_id=None),
    ]

    def flags(*entries: Entry) -> tuple[bool, bool]:
        plan = History([plan_entry(), plan_entry("plan-2"), *others, *entries]).plans["plan-1"]
        return plan.is_started, plan.is_finished

    assert flags() == (False, False)
    assert flags(started) == (True, False)
    assert flags(finished) == (False, True)
    assert flags(started, finished) == (True, True)
    assert flags(Entry("apply_started", plan_id="plan-2")) == (False, False)
    # a record about an item is none about the plan
    assert flags(Entry("apply_started", item=1), Entry("finished", item=1)) == (False, False)


@pytest.mark.parametrize("state", WAYS)
def test_plan_has_ended_when_every_item_has(state: str) -> None:
    way = [to_entry(event, item=2) for event in WAYS[state]]
    ended_first = [to_entry(event, item=1) for event in WAYS["verified"]]
    plan_1 = plan_entry(customers=[1, 2])
    assert History([plan_1, *ended_first, *way]).plans["plan-1"].has_ended is (state in END_STATES)
    assert History([plan_1, *way]).plans["plan-1"].has_ended is False


def test_latest_plan_supersedes_those_before_it() -> None:
    assert History([]).latest is None
    history = History([plan_entry("plan-2"), plan_entry("plan-1", at=NOW - DAY), intent_entry(1, "plan-2")])
    assert history.latest is history.plans["plan-1"]
    assert list(history.plans) == ["plan-2", "plan-1"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([plan_entry(), plan_entry()], "record plan of plan plan-1, item None,"),
        ([plan_entry(), plan_entry(customers=[2])], "record plan of plan plan-1, item None,"),
        ([intent_entry(), plan_entry()], "record intent of plan plan-1, item 1,"),
        ([Entry("apply_started")], "record apply_started of plan plan-1, item None,"),
        ([plan_entry(), intent_entry(2)], "record intent of plan plan-1, item 2,"),
        ([plan_entry(), intent_entry(0)], "record intent of plan plan-1, item 0,"),
        ([plan_entry(), intent_entry(1, "plan-2")], "record intent of plan plan-2, item 1,"),
    ],
)
def test_records_that_contradict_each_other_are_refused(entries: list[Entry], said: str) -> None:
    with pytest.raises(LedgerUnavailable) as caught:
        History(entries)
    assert str(caught.value) == (
        f"The ledger contradicts itself: its {said} does not fit those before it. Nothing is sent. Keep both copies "
        "of the ledger, and find out what wrote to them."
    )
    assert caught.value.exit_code == 4


# --- the day's count ---


@pytest.mark.parametrize(
    ("age", "count"),
    [
        (timedelta(0), 1),
        (DAY - TICK, 1),
        (DAY, 1),
        (DAY + TICK, 0),
        (2 * DAY, 0),
        # the clock was set back
        (-DAY, 1),
    ],
)
def test_day_has_24_hours_both_ends_included(age: timedelta, count: int) -> None:
    assert History([plan_entry(), intent_entry(at=NOW - age)]).sent_within_a_day(NOW) == count


@pytest.mark.parametrize("state", WAYS)
def test_day_counts_items_that_had_a_request_whatever_came_of_it(state: str) -> None:
    sent = any(kind == "intent" for kind, _ in WAYS[state])
    assert History([plan_entry(), *map(to_entry, WAYS[state])]).sent_within_a_day(NOW) == int(sent)


def test_day_counts_an_item_once_and_every_plan_of_it() -> None:
    plans = [plan_entry("plan-1", [1, 2]), plan_entry("plan-2", [1])]
    again = [intent_entry(1), to_entry(("outcome", "throttled")), intent_entry(1), intent_entry(2)]
    assert History([*plans, *again]).sent_within_a_day(NOW) == 2
    assert History([*plans, *again, intent_entry(1, "plan-2")]).sent_within_a_day(NOW) == 3
    assert History(plans).sent_within_a_day(NOW) == 0


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(-100, 3000)), max_size=20))
def test_day_counts_as_a_plain_loop_does(sent: list[tuple[int, int]]) -> None:
    entries = [intent_entry(item, at=NOW - timedelta(minutes=minutes)) for item, minutes in sent]
    counted = {item for item, minutes in sent if minutes <= 24 * 60}
    assert History([plan_entry(customers=[1, 2, 3]), *entries]).sent_within_a_day(NOW) == len(counted)


# --- selections ---

KEY, OTHER = make_candidate(1).key, make_candidate(2).key


@pytest.mark.parametrize(
    ("selections", "day"),
    [
        ([], None),
        ([selection_entry([KEY], 1, 3)], 3),
        ([selection_entry([KEY, OTHER], 1, 3)], 3),
        ([selection_entry([OTHER], 1, 3)], None),
        ([selection_entry([KEY], 1, 3, query_hash="other")], None),
        ([selection_entry([KEY], 1, 1), selection_entry([KEY], 2, 3)], 1),
        ([selection_entry([], 1, 1), selection_entry([KEY], 2, 3)], 3),
        ([selection_entry([KEY], 1, 1), selection_entry([], 2, 3)], None),
        ([selection_entry([KEY], 1, 1), selection_entry([], 2, 2), selection_entry([KEY], 3, 3)], 3),
        # another query neither breaks nor lengthens the row
        ([selection_entry([KEY], 1, 1), selection_entry([], 2, 2, "other"), selection_entry([KEY], 3, 3)], 1),
        ([selection_entry([KEY], 1, 1, "other"), selection_entry([KEY], 2, 2)], 2),
        # of the same run, what was selected last counts
        ([selection_entry([KEY], 1, 1), selection_entry([], 1, 1)], None),
        ([selection_entry([], 1, 1), selection_entry([KEY], 1, 1)], 1),
        # by the runs, not by the order of the records
        ([selection_entry([KEY], 2, 3), selection_entry([], 1, 1)], 3),
        ([selection_entry([], 2, 3), selection_entry([KEY], 1, 1)], None),
    ],
)
def test_selected_since_is_the_start_of_the_latest_unbroken_row(selections: list[Entry], day: int | None) -> None:
    since = History(selections).selected_since(KEY, "query")
    assert since == (None if day is None else NOW + timedelta(days=day))


@given(st.lists(st.booleans(), max_size=12), st.randoms())
def test_selected_since_counts_back_from_the_latest_run(selected: list[bool], random: Any) -> None:
    entries = [selection_entry([KEY] * is_in, run, run) for run, is_in in enumerate(selected)]
    random.shuffle(entries)
    row = next((back for back, is_in in enumerate(reversed(selected)) if not is_in), len(selected))
    expected = NOW + timedelta(days=len(selected) - row) if row else None
    assert History(entries).selected_since(KEY, "query") == expected


def test_states_are_counted() -> None:
    states: list[State] = ["verified", "failed", "verified"]
    items = [ItemHistory("plan-1", number, "key", state) for number, state in enumerate(states)]
    assert count_states(items) == {"verified": 2, "failed": 1}
    assert count_states([]) == {}
