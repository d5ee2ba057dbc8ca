"""Every guard under, at and over its limit; every refusal, word for word; what is not told counts as the worst."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from deletion_facts import (
    BASE_URL,
    NOW,
    OTHER_INSTANCE,
    intent_entry,
    make_candidate,
    make_item,
    make_limits,
    make_live_scope,
    make_protected,
    make_run,
    make_scope,
    make_subscription,
    plan_entry,
    selection_entry,
)
from hypothesis import given
from hypothesis import strategies as st
from support import INSTANCE, new_id

from cockpit_source.deletions import guards
from cockpit_source.deletions.guards import (
    allowed_by_percent,
    check_customer_count,
    check_existence,
    check_grace,
    check_inventory,
    check_items,
    check_limits,
    check_live,
    check_protected,
    check_unsettled,
    removed_before,
)
from cockpit_source.deletions.history import History
from cockpit_source.deletions.protected import read_protected
from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Candidate, PlanItem
from cockpit_source.deletions.refusals import Refusal, about, refuse
from cockpit_source.errors import ConfigurationError, DeletionRefused

HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
CUSTOMER = f"Customer {new_id(1)} (Contoso)"
LOAD_AGAIN = "Run `cockpit load`, then plan again."


def codes(refusals: Iterable[Refusal]) -> list[str]:
    return [refusal.code for refusal in refusals]


def inventory_codes(
    max_age_hours: float = 24, now: datetime = NOW, base_url: str = BASE_URL, **run: Any
) -> list[str]:
    return codes(check_inventory(make_run(**run), base_url, now, max_age_hours))


def live_scopes(*instances: str) -> tuple[Any, ...]:
    return tuple(make_live_scope(instance) for instance in instances)


# --- what each refusal says: what happened, why, what to do next ---

GUARDED: dict[str, tuple[Callable[[], list[Refusal]], str]] = {
    "no_inventory": (
        lambda: check_inventory(None, BASE_URL, NOW, 24),
        "The warehouse holds no finished run of this tenant over the full list, so nothing is known of its "
        "customers. Run `cockpit load` with discover = true, then plan again.",
    ),
    "other_api": (
        lambda: check_inventory(make_run(), "https://other.example.com", NOW, 24),
        "The inventory comes from https://api.example.com, but base_url is now https://other.example.com. Load and "
        "plan again.",
    ),
    "no_listing": (
        lambda: check_inventory(make_run(customers_listed=None), BASE_URL, NOW, 24),
        "Run run-1 did not read the customer listing to its end, so it cannot say which customers there are. Set "
        "discover = true and run `cockpit load` (without a scopes file), then plan again.",
    ),
    "no_customers listed": (
        lambda: check_inventory(make_run(customers_listed=0), BASE_URL, NOW, 24),
        f"Run run-1 lists no customer at all. Check the tenant and the role of the API access. {LOAD_AGAIN}",
    ),
    "unfinished_run": (
        lambda: check_inventory(make_run(status="interrupted"), BASE_URL, NOW, 24),
        f"Run run-1 is interrupted, so its inventory has gaps. {LOAD_AGAIN}",
    ),
    "gaps": (
        lambda: check_inventory(make_run(unread=3), BASE_URL, NOW, 24),
        f"Run run-1 skipped, deferred or held back 3 scopes, so its inventory has gaps. {LOAD_AGAIN}",
    ),
    "stale": (
        lambda: check_inventory(make_run(started_at=NOW - 30.26 * HOUR), BASE_URL, NOW, 24),
        f"The inventory of run run-1 is 30.3 hours old; it must be younger than max_age_hours, 24. {LOAD_AGAIN}",
    ),
    "future_run": (
        lambda: check_inventory(make_run(started_at=NOW + 2.52 * HOUR), BASE_URL, NOW, 24),
        f"Run run-1 began 2.5 hours after now, so a clock is wrong. Set it right. {LOAD_AGAIN}",
    ),
    "fewer_customers": (
        lambda: check_customer_count(make_run(earlier_customers_listed=(1000, 990, 1010)), 949),
        "Only 949 customers are visible, 94.9% of the usual 1000 (median of 3 runs); at least 95% must be. Find out "
        "why the others are gone (role of the API access, tenant), then load and plan again.",
    ),
    "no_customers visible": (
        lambda: check_limits(1, 0, 0, make_limits()),
        "No customer is visible, so no share of them may be deleted. Check the tenant and the role of the API "
        f"access. {LOAD_AGAIN}",
    ),
    "max_actions": (
        lambda: check_limits(6, 1000, 0, make_limits()),
        "The plan has 6 deletions; max_actions is 5. Narrow the query, or raise the limit on purpose.",
    ),
    "max_percent": (
        lambda: check_limits(4, 399, 0, make_limits()),
        "The plan has 4 deletions to send; 3 are allowed for 399 customers (max_percent is 1, and 3 are allowed "
        "unless it is 0). Narrow the query, or raise the limit on purpose.",
    ),
    "max_actions_per_day": (
        lambda: check_limits(2, 1000, 19, make_limits()),
        "The plan has 2 deletions to send and the ledger 19 of the last 24 hours; max_actions_per_day is 20. Wait, "
        "or narrow the query.",
    ),
    "protected": (
        lambda: check_protected([make_item()], make_protected("Cont*")),
        f"{CUSTOMER} is protected by the entry 'Cont*' of the protected list. Leave it out of the query.",
    ),
    "unsettled": (
        lambda: check_unsettled([make_candidate()], History([plan_entry(), intent_entry()])),
        f"delete_customer of customer {new_id(1)} is sending in plan plan-1. Run `cockpit deletions verify` until it "
        "is settled.",
    ),
    "grace": (
        lambda: check_grace([make_candidate()], History([]), "query", make_run(started_at=NOW), 7.5),
        f"delete_customer of customer {new_id(1)} has been selected since 2026-06-01 12:00:00 UTC; grace_days is "
        "7.5. Plan again with an inventory of 2026-06-09 00:00:00 UTC or later.",
    ),
    "gone": (
        lambda: check_existence([make_item(live={"exists": False})]),
        f"{CUSTOMER} is not known to the API any more (404). {LOAD_AGAIN}",
    ),
    "not_in_inventory": (
        lambda: check_items([make_item(inventory={"is_present": False})]),
        f"{CUSTOMER} is not in the inventory any more. {LOAD_AGAIN}",
    ),
    "no_scopes": (
        lambda: check_items([make_item(action=REMOVE_RELATIONSHIP, inventory={"scopes": ()})]),
        f"{CUSTOMER}, provider instance {INSTANCE} has no listed scope there, so its seats are not known. "
        f"{LOAD_AGAIN}",
    ),
    "unread_scope failed": (
        lambda: check_items([make_item(inventory={"scopes": (make_scope(outcome="failed"),)})]),
        f"{CUSTOMER}: its scope in instance {INSTANCE} is failed in the run, so its seats are not known. Mend that "
        "(see `cockpit status`), load and plan again.",
    ),
    "unread_scope not held": (
        lambda: check_items([make_item(inventory={"scopes": (make_scope(outcome=None),)})]),
        f"{CUSTOMER}: its scope in instance {INSTANCE} was not held by the run, so its seats are not known. Mend "
        "that (see `cockpit status`), load and plan again.",
    ),
    "consumed_seats in the inventory": (
        lambda: check_items([make_item(inventory={"scopes": (make_scope(consumed=[1000, 234]),)})]),
        f"{CUSTOMER} has 1,234 assigned seats by the inventory. Take its users' licences away first.",
    ),
    "consumed_seats live": (
        lambda: check_items([make_item(live={"scopes": (make_live_scope(consumed=1),)})]),
        f"{CUSTOMER} has 1 assigned seats by the API. Take its users' licences away first.",
    ),
    "unknown_seats": (
        lambda: check_items([make_item(live={"scopes": (make_live_scope(consumed=None),)})]),
        f"{CUSTOMER}: how many seats are assigned is not told by the API, so there may be some. Look it up in "
        "CloudCockpit, and leave the customer out of the query until it is told.",
    ),
    "other_name": (
        lambda: check_items([make_item(live={"company_name": "Fabrikam"})]),
        f"{CUSTOMER} is called 'Fabrikam' by the API, so it may be another customer than planned. {LOAD_AGAIN}",
    ),
    "other_name none": (
        lambda: check_items([make_item(live={"company_name": None})]),
        f"{CUSTOMER} has no name in the API, so it may be another customer than planned. {LOAD_AGAIN}",
    ),
    "active_subscription": (
        lambda: check_items(
            [make_item(live={"subscriptions": (make_subscription(name="Mail"), make_subscription())})]
        ),
        f"{CUSTOMER} has active subscriptions (2), such as Mail (Active). Suspend or cancel them in CloudCockpit "
        "first.",
    ),
    "no_relationship": (
        lambda: check_items(
            [
                make_item(
                    action=REMOVE_RELATIONSHIP,
                    live={"relationships": (OTHER_INSTANCE,), "scopes": live_scopes(OTHER_INSTANCE)},
                )
            ]
        ),
        f"{CUSTOMER}, provider instance {INSTANCE} has no relationship there by the API, so none to remove. "
        f"{LOAD_AGAIN}",
    ),
    "relationship_left": (
        lambda: check_items(
            [make_item(live={"relationships": (OTHER_INSTANCE, "x"), "scopes": live_scopes(OTHER_INSTANCE, "x")})]
        ),
        f"{CUSTOMER} still has a relationship in these provider instances: {OTHER_INSTANCE}, x. Let the plan remove "
        "them first (remove_reseller_relationship).",
    ),
}


@pytest.mark.parametrize("name", GUARDED)
def test_refusal_says_what_happened_why_and_what_next(name: str) -> None:
    guard, text = GUARDED[name]
    assert guard() == [Refusal(name.split()[0], text)]


def test_every_code_of_the_guards_is_here() -> None:
    calls = [node for node in ast.walk(ast.parse(Path(guards.__file__).read_text())) if isinstance(node, ast.Call)]
    refusals = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Refusal"]
    written = {ast.literal_eval(call.args[0]) for call in refusals}
    assert written == {name.split()[0] for name in GUARDED}


# --- the inventory ---


def test_whole_and_young_inventory_is_usable() -> None:
    assert inventory_codes() == []
    assert inventory_codes(status="partial") == []


@pytest.mark.parametrize(
    ("age", "max_age_hours", "expected"),
    [
        (24 * HOUR - TICK, 24, []),
        (24 * HOUR, 24, ["stale"]),
        (24 * HOUR + TICK, 24, ["stale"]),
        (0 * HOUR, 24, []),
        (-TICK, 24, ["future_run"]),
        (-1000 * HOUR, 24, ["future_run"]),
        (0 * HOUR, 0, ["stale"]),
        (TICK, 0, ["stale"]),
        (0.5 * HOUR - TICK, 0.5, []),
        (0.5 * HOUR, 0.5, ["stale"]),
        (0 * HOUR, math.nan, ["stale"]),
        (HOUR, -1, ["stale"]),
    ],
)
def test_age_of_the_inventory(age: timedelta, max_age_hours: float, expected: list[str]) -> None:
    assert inventory_codes(max_age_hours, started_at=NOW - age) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_age_is_held_against_the_limit_to_the_second(seconds: int, limit_seconds: int) -> None:
    refused = inventory_codes(limit_seconds / 3600, started_at=NOW - timedelta(seconds=seconds))
    assert refused == ([] if seconds < limit_seconds else ["stale"])


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"customers_listed": 1}, []),
        ({"customers_listed": 0}, ["no_customers"]),
        ({"customers_listed": None}, ["no_listing"]),
        ({"unread": 0}, []),
        ({"unread": 1}, ["gaps"]),
        ({"finished_at": None}, ["unfinished_run"]),
        *(({"status": status}, ["unfinished_run"]) for status in ("running", "interrupted", "failed", "guarded", "")),
        ({"base_url": "https://other.example.com"}, ["other_api"]),
        (
            {
                "customers_listed": None,
                "unread": 2,
                "status": "guarded",
                "base_url": "x",
                "started_at": NOW - 100 * HOUR,
            },
            ["other_api", "no_listing", "unfinished_run", "gaps", "stale"],
        ),
    ],
)
def test_inventory_with_gaps_is_refused_and_all_of_it_is_told(run: dict[str, Any], expected: list[str]) -> None:
    assert inventory_codes(**run) == expected


# --- how many customers are visible ---


@pytest.mark.parametrize(
    ("live", "listed", "earlier", "is_refused"),
    [
        (951, 1000, (1000,), False),
        (950, 1000, (1000,), False),
        (949, 1000, (1000,), True),
        # what the run listed counts as well as what the API lists now
        (1000, 950, (1000,), False),
        (1000, 949, (1000,), True),
        # without earlier runs the run itself says what is usual
        (950, 1000, (), False),
        (949, 1000, (), True),
        (2000, 1000, (), False),
        # an even number of runs has its median in between: 95 % of 1001 is 950.95
        (951, 1000, (1000, 1002), False),
        (950, 1000, (1000, 1002), True),
        # one run that saw few does not hide the others, nor does one that saw many
        (950, 1000, (1000, 10, 1000, 5000, 1000), False),
        (949, 1000, (1000, 10, 1000, 5000, 1000), True),
        (0, 0, (1000,), True),
        (19, 20, (20,), False),
        (18, 20, (20,), True),
        # a listing that was not read to its end is refused elsewhere
        (950, None, (1000,), False),
        (949, None, (1000,), True),
        (5, None, (), False),
    ],
)
def test_customers_visible(live: int, listed: int | None, earlier: tuple[int, ...], is_refused: bool) -> None:
    run = make_run(customers_listed=listed, earlier_customers_listed=earlier)
    assert codes(check_customer_count(run, live)) == ["fewer_customers"] * is_refused


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.lists(st.integers(0, 10**7), max_size=7))
def test_95_percent_of_the_median_is_exact(live: int, listed: int, earlier: list[int]) -> None:
    run = make_run(customers_listed=listed, earlier_customers_listed=tuple(earlier))
    twice_usual = int(2 * median(earlier or [listed]))
    is_enough = 200 * min(live, listed) >= 95 * twice_usual
    assert bool(check_customer_count(run, live)) is not is_enough


@given(st.integers(1, 10**6))
def test_exactly_95_percent_is_enough_and_one_less_is_not(twentieth: int) -> None:
    run = make_run(customers_listed=20 * twentieth, earlier_customers_listed=(20 * twentieth,))
    assert check_customer_count(run, 19 * twentieth) == []
    assert codes(check_customer_count(run, 19 * twentieth - 1)) == ["fewer_customers"]


# --- limits ---


@pytest.mark.parametrize(
    ("actions", "customers", "sent_today", "limits", "expected"),
    [
        (4, 1000, 0, {}, []),
        (5, 1000, 0, {}, []),
        (6, 1000, 0, {}, ["max_actions"]),
        (1, 1000, 0, {"max_actions": 0}, ["max_actions"]),
        (0, 1000, 0, {"max_actions": 0, "max_percent": 0, "max_actions_per_day": 0}, []),
        # the larger of 3 and 1 %
        (3, 10, 0, {}, []),
        (4, 399, 0, {}, ["max_percent"]),
        (4, 400, 0, {}, []),
        (5, 400, 0, {}, ["max_percent"]),
        (3, 1, 0, {"max_percent": 0.01}, []),
        (1, 1000, 0, {"max_percent": 0}, ["max_percent"]),
        (1, 1000, 0, {"max_percent": math.nan}, ["max_percent"]),
        (1, 1000, 0, {"max_percent": -1}, ["max_percent"]),
        (1, 1000, 18, {}, []),
        (1, 1000, 19, {}, []),
        (1, 1000, 20, {}, ["max_actions_per_day"]),
        (5, 1000, 16, {}, ["max_actions_per_day"]),
        (5, 1000, 15, {}, []),
        (1, 1000, 0, {"max_actions_per_day": 0}, ["max_actions_per_day"]),
        (1, 0, 0, {}, ["no_customers"]),
        (1, -1, 0, {}, ["no_customers"]),
        (1, 1, 0, {}, []),
        (0, 0, 0, {}, ["no_customers"]),
        (6, 100, 20, {}, ["max_percent", "max_actions", "max_actions_per_day"]),
        (6, 0, 20, {}, ["no_customers", "max_actions", "max_actions_per_day"]),
    ],
)
def test_limits(actions: int, customers: int, sent_today: int, limits: dict[str, Any], expected: list[str]) -> None:
    assert codes(check_limits(actions, customers, sent_today, make_limits(**limits))) == expected


@pytest.mark.parametrize(
    ("actions", "left", "customers", "sent_today", "expected"),
    [
        # max_actions is of the whole plan, what is left counts for the rest
        (5, 1, 1000, 4, []),
        (6, 1, 1000, 5, ["max_actions"]),
        (5, 3, 399, 2, []),
        (5, 4, 399, 1, ["max_percent"]),
        (5, 2, 1000, 18, []),
        (5, 2, 1000, 19, ["max_actions_per_day"]),
        (5, 0, 1000, 20, []),
        (5, 0, 1000, 21, ["max_actions_per_day"]),
    ],
)
def test_limits_of_a_plan_that_is_carried_on(
    actions: int, left: int, customers: int, sent_today: int, expected: list[str]
) -> None:
    assert codes(check_limits(actions, customers, sent_today, make_limits(), left=left)) == expected


@given(st.integers(1, 10**7), st.integers(1, 10_000))
def test_percent_is_taken_as_written_and_never_rounded_up(customers: int, hundredths: int) -> None:
    """0.57 is no number that a float holds: 0.57 % of 10000 are 57, neither 56 nor 58."""
    assert allowed_by_percent(customers, hundredths / 100) == max(3, customers * hundredths // 10_000)


@given(st.integers(0, 20), st.integers(0, 10**4), st.integers(0, 40), st.integers(0, 20), st.integers(0, 40))
def test_what_is_let_through_is_within_every_limit(
    actions: int, customers: int, sent_today: int, max_actions: int, per_day: int
) -> None:
    limits = make_limits(max_actions=max_actions, max_actions_per_day=per_day)
    is_within = (
        actions <= max_actions
        and actions + sent_today <= per_day
        and customers > 0
        and (actions <= 3 or 100 * actions <= customers)
    )
    assert (check_limits(actions, customers, sent_today, limits) == []) is is_within


# --- protected customers ---


def is_protected(entry: str, name: str | None = "Contoso", live_name: str | None = "Contoso") -> bool:
    item = make_item(inventory={"company_name": name}, live={"company_name": live_name})
    return bool(check_protected([item], make_protected(entry)))


@pytest.mark.parametrize(
    ("entry", "name", "expected"),
    [
        ("Contoso", "Contoso", True),
        ("contoso", "CONTOSO", True),
        ("CONTOSO", "contoso", True),
        ("Contoso", "Contoso Ltd", False),
        ("Contoso*", "Contoso Ltd", True),
        ("*contoso*", "The Contoso Ltd", True),
        ("Contos?", "Contoso", True),
        ("Contoso?", "Contoso", False),
        ("Contoso  Ltd", "Contoso Ltd", True),
        ("Contoso Ltd", "  Contoso \t Ltd ", True),
        ("Contoso Ltd", "ContosoLtd", False),
        ("*", "Contoso", True),
        # characters that patterns of files take for more
        ("Contoso [EU]", "Contoso [EU]", True),
        ("Contoso [EU]", "Contoso E", False),
        ("Contoso [!a]", "Contoso b", False),
        ("Contoso.*", "Contosoxx", False),
        # unicode: capital letters that change their length, accents in two encodings, wide letters
        ("straße*", "STRASSE 7", True),
        ("müller", "Mu\u0308ller", True),
        ("Mu\u0308ller", "MÜLLER", True),
        ("ΣΊΣΥΦΟΣ", "σίσυφος", True),
        ("Contoso", "\uff23ontoso", True),
        ("北京*", "北京公司", True),
        ("müller", "mueller", False),
    ],
)
def test_pattern_of_a_name(entry: str, name: str, expected: bool) -> None:
    assert is_protected(entry, name, name) is expected


@pytest.mark.parametrize(
    ("name", "live_name", "expected"),
    [
        ("Contoso", "Fabrikam", True),
        ("Fabrikam", "Contoso", True),
        (None, "Contoso", True),
        ("Contoso", None, True),
        (None, None, False),
        ("Fabrikam", "Fabrikam", False),
    ],
)
def test_either_name_protects(name: str | None, live_name: str | None, expected: bool) -> None:
    assert is_protected("Contoso", name, live_name) is expected


def test_id_protects_whatever_the_name() -> None:
    items = [make_item(1, customer=1), make_item(2, customer=2), make_item(3, 2, REMOVE_RELATIONSHIP)]
    refusals = check_protected(items, make_protected(ids=[new_id(2)]))
    assert codes(refusals) == ["protected", "protected"]
    assert all(new_id(2) in refusal.text for refusal in refusals)
    assert check_protected(items, make_protected()) == []


def read_list(folder: Path, content: str) -> Any:
    path = folder / "protected.txt"
    path.write_text(content, encoding="utf-8")
    return read_protected(path)


def test_list_is_read_line_by_line(tmp_path: Path) -> None:
    protected = read_list(
        tmp_path,
        f"\ufeff# customers that stay\n\n  {new_id(1).upper()}  \n{new_id(2)} # the bank\n{new_id(3)}#x\n"
        f"#{new_id(4)}\n  Contoso   Ltd\nFabrikam # 2\nC# Makers\n   # {new_id(5)} too\n",
    )
    assert protected.ids == {new_id(1), new_id(2), new_id(3)}
    assert protected.patterns == ("Contoso Ltd", "Fabrikam # 2", "C# Makers")
    assert protected.find(new_id(1).upper(), []) == new_id(1)


def test_empty_list_protects_nobody(tmp_path: Path) -> None:
    protected = read_list(tmp_path, "")
    assert (protected.ids, protected.patterns) == (frozenset(), ())
    assert protected.find(new_id(1), ["Contoso"]) is None


@pytest.mark.parametrize(
    "line",
    [
        f"{new_id(1)} Contoso",
        f"{new_id(1)};Contoso",
        f"Contoso,{new_id(1).upper()}",
        f"{{{new_id(1)}}}",
        new_id(1).replace("-", ""),
    ],
)
def test_line_with_an_id_and_something_else_is_refused(tmp_path: Path, line: str) -> None:
    """It would be taken for a name that nobody has, and protect nobody."""
    with pytest.raises(ConfigurationError, match="Line 2 of the list of protected customers") as caught:
        read_list(tmp_path, f"# list\n{line}\n")
    assert line in str(caught.value)
    assert "Write the id alone" in str(caught.value)


def test_hash_of_the_list_follows_its_entries_and_not_their_order() -> None:
    one, other = make_protected("a", "b", ids=[new_id(1)]), make_protected("b", "a", ids=[new_id(1)])
    assert one.content_hash == other.content_hash
    hashes = {made.content_hash for made in (one, make_protected("a"), make_protected("b"), make_protected())}
    assert len(hashes) == 4


# --- deletions of earlier plans that are not settled ---


def test_deletion_that_is_not_settled_is_not_planned_again() -> None:
    history = History([plan_entry(customers=[1, 2]), intent_entry(item=1)])
    candidates = [
        make_candidate(1),
        make_candidate(2),
        make_candidate(3),
        make_candidate(1, REMOVE_RELATIONSHIP),
    ]
    (refusal,) = check_unsettled(candidates, history)
    assert refusal.code == "unsettled"
    assert new_id(1) in refusal.text
    assert check_unsettled(candidates, History([])) == []


# --- grace ---

KEY = make_candidate().key


def grace_codes(history: Iterable[Any], grace_days: float, day: float = 0, query_hash: str = "query") -> list[str]:
    run = make_run(run_id="run-now", started_at=NOW + timedelta(days=day))
    return codes(check_grace([make_candidate()], History(history), query_hash, run, grace_days))


@pytest.mark.parametrize(
    ("day", "grace_days", "expected"),
    [
        (6.999, 7, ["grace"]),
        (7, 7, []),
        (7.001, 7, []),
        (0, 0, []),
        (-1, 0, []),
        (0, -1, []),
        (0.5, 0.5, []),
        (0.499, 0.5, ["grace"]),
        (7, 1, []),
    ],
)
def test_grace(day: float, grace_days: float, expected: list[str]) -> None:
    assert grace_codes([selection_entry([KEY], day=0)], grace_days, day) == expected


@pytest.mark.parametrize(
    ("selections", "expected"),
    [
        # never selected before: it is selected since now
        ([], ["grace"]),
        # the row of runs is broken on day 3
        ([selection_entry([KEY], 1, 0), selection_entry([], 2, 3), selection_entry([KEY], 3, 4)], ["grace"]),
        ([selection_entry([KEY], 1, 0), selection_entry([KEY], 2, 3), selection_entry([KEY], 3, 4)], []),
        # not selected by the latest run
        ([selection_entry([KEY], 1, 0), selection_entry([], 2, 9)], ["grace"]),
        # another query
        ([selection_entry([KEY], 1, 0, query_hash="other")], ["grace"]),
        # another deletion
        ([selection_entry([make_candidate(2).key], 1, 0)], ["grace"]),
    ],
)
def test_grace_counts_an_unbroken_row_of_runs(selections: list[Any], expected: list[str]) -> None:
    assert grace_codes(selections, 7, day=10) == expected


def test_grace_is_told_of_each_deletion_and_without_it_of_none() -> None:
    history = History([selection_entry([make_candidate(1).key], 1, 0)])
    candidates = [make_candidate(1), make_candidate(2), make_candidate(3)]
    run = make_run(started_at=NOW + timedelta(days=7))
    refusals = check_grace(candidates, history, "query", run, 7)
    assert codes(refusals) == ["grace", "grace"]
    assert [new_id(2) in refusals[0].text, new_id(3) in refusals[1].text] == [True, True]
    assert check_grace(candidates, history, "query", run, 0) == []


def test_grace_says_since_when_and_until_when() -> None:
    (refusal,) = check_grace(
        [make_candidate()],
        History([selection_entry([KEY], 1, 1)]),
        "query",
        make_run(started_at=NOW + timedelta(days=2)),
        7,
    )
    assert "since 2026-06-02 12:00:00 UTC" in refusal.text
    assert "inventory of 2026-06-09 12:00:00 UTC or later" in refusal.text


def test_grace_that_is_no_number_lets_nothing_through() -> None:
    with pytest.raises(ValueError):
        grace_codes([selection_entry([KEY])], math.nan, 100)


# --- the items ---


def item_codes(*items: PlanItem) -> list[str]:
    return codes(check_items(items))


def test_item_without_seats_subscriptions_and_relationships_is_let_through() -> None:
    assert item_codes(make_item()) == []
    assert item_codes(make_item(action=REMOVE_RELATIONSHIP)) == []
    # its relationships were removed before the inventory was made
    assert item_codes(make_item(inventory={"scopes": ()}, live={"scopes": ()})) == []


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("ok", []),
        ("empty", []),
        *(
            (outcome, ["unread_scope"])
            for outcome in ("failed", "forbidden", "skipped", "deferred", "invalid", "not_found", "OK", "", None)
        ),
    ],
)
@pytest.mark.parametrize("action", [DELETE_CUSTOMER, REMOVE_RELATIONSHIP])
@pytest.mark.parametrize("instance", [INSTANCE, OTHER_INSTANCE])
def test_every_scope_of_the_customer_must_have_been_read(
    action: Any, instance: str, outcome: str | None, expected: list[str]
) -> None:
    scopes = (make_scope(), make_scope(instance, outcome, consumed=[]))
    assert item_codes(make_item(action=action, inventory={"scopes": scopes})) == expected


COUNTS: list[tuple[list[int | None], list[str]]] = [
    ([], []),
    ([0], []),
    ([1], ["consumed_seats"]),
    ([0, 0, 1], ["consumed_seats"]),
    ([None], ["unknown_seats"]),
    ([0, None], ["unknown_seats"]),
    ([None, 2], ["unknown_seats", "consumed_seats"]),
    # less than nothing is not told, and takes nothing away from the others
    ([-1], ["unknown_seats"]),
    ([5, -5], ["unknown_seats", "consumed_seats"]),
]


@pytest.mark.parametrize(("consumed", "expected"), COUNTS)
def test_assigned_seats_in_the_inventory(consumed: list[int | None], expected: list[str]) -> None:
    one_scope = {"scopes": (make_scope(consumed=consumed),)}
    many_scopes = {"scopes": (make_scope(), *(make_scope(consumed=[count]) for count in consumed))}
    for evidence in (one_scope, many_scopes):
        assert item_codes(make_item(inventory=evidence)) == expected
        assert item_codes(make_item(action=REMOVE_RELATIONSHIP, inventory=evidence)) == expected


@pytest.mark.parametrize(("consumed", "expected"), COUNTS)
def test_assigned_seats_live(consumed: list[int | None], expected: list[str]) -> None:
    evidence = {"scopes": (make_live_scope(), *(make_live_scope(consumed=count) for count in consumed))}
    assert item_codes(make_item(live=evidence)) == expected
    assert item_codes(make_item(action=REMOVE_RELATIONSHIP, live=evidence)) == expected


def test_seats_of_another_instance_go_with_the_customer_only() -> None:
    for evidence in (
        {"inventory": {"scopes": (make_scope(), make_scope(OTHER_INSTANCE, consumed=[3]))}},
        {"live": {"scopes": (make_live_scope(), make_live_scope(OTHER_INSTANCE, 3))}},
    ):
        assert item_codes(make_item(**evidence)) == ["consumed_seats"]
        assert codes(check_items([make_item(action=REMOVE_RELATIONSHIP, **with_relationship(evidence))])) == []


def with_relationship(evidence: dict[str, Any]) -> dict[str, Any]:
    return evidence | {"live": {"relationships": (INSTANCE, OTHER_INSTANCE)} | evidence.get("live", {})}


def test_relationship_whose_seats_were_not_read_live_may_have_some() -> None:
    live = {"relationships": (INSTANCE,), "scopes": (make_live_scope(OTHER_INSTANCE),)}
    assert item_codes(make_item(action=REMOVE_RELATIONSHIP, live=live)) == ["unknown_seats"]
    assert item_codes(make_item(live=live)) == ["unknown_seats", "relationship_left"]
    gone = {"relationships": (OTHER_INSTANCE,), "scopes": (make_live_scope(OTHER_INSTANCE),)}
    assert item_codes(make_item(action=REMOVE_RELATIONSHIP, live=gone)) == ["no_relationship"]


def test_removal_needs_a_scope_of_that_instance() -> None:
    item = make_item(action=REMOVE_RELATIONSHIP, inventory={"scopes": (make_scope(OTHER_INSTANCE),)})
    assert item_codes(item) == ["no_scopes"]


@pytest.mark.parametrize(
    ("status", "is_active"),
    [
        *((status, False) for status in ("Suspended", "Deleted", "Cancelled", "Canceled", "Expired")),
        *((status, False) for status in ("suspended", "DELETED", "eXpired")),
        *((status, True) for status in ("Active", "active", "Pending", "Warning", "None", "", " ", None)),
        ("Suspended soon", True),
        ("Suspend", True),
    ],
)
def test_subscription_of_any_other_status_is_active(status: str | None, is_active: bool) -> None:
    live = {"subscriptions": (make_subscription("Suspended"), make_subscription(status))}
    for action in (DELETE_CUSTOMER, REMOVE_RELATIONSHIP):
        assert item_codes(make_item(action=action, live=live)) == ["active_subscription"] * is_active


@pytest.mark.parametrize(
    ("instance", "of_customer", "of_relationship"),
    [(INSTANCE, True, True), (OTHER_INSTANCE, True, False), (None, True, True)],
)
def test_subscription_without_an_instance_counts_for_every_one(
    instance: str | None, of_customer: bool, of_relationship: bool
) -> None:
    live = {"subscriptions": (make_subscription(instance=instance),)}
    assert item_codes(make_item(live=live)) == ["active_subscription"] * of_customer
    assert item_codes(make_item(action=REMOVE_RELATIONSHIP, live=live)) == ["active_subscription"] * of_relationship


@pytest.mark.parametrize(
    ("subscription", "shown"),
    [
        (make_subscription(None, name="Mail"), "such as Mail (status not told)."),
        (make_subscription("", name=None), f"such as {new_id(70)} (status not told)."),
        (make_subscription(name=None, subscription_id=None), "such as one without a name (Active)."),
    ],
)
def test_subscription_is_named_as_far_as_it_is_told(subscription: Any, shown: str) -> None:
    (refusal,) = check_items([make_item(live={"subscriptions": (subscription,)})])
    assert shown in refusal.text


@pytest.mark.parametrize(
    ("name", "live_name", "is_same"),
    [
        ("Contoso", "Contoso", True),
        ("Contoso", "contoso", False),
        ("Contoso", "Contoso ", False),
        ("Contoso", None, False),
        (None, "Contoso", False),
        (None, None, False),
        ("", "", True),
        ("株式会社", "株式会社", True),
    ],
)
def test_name_must_be_the_planned_one(name: str | None, live_name: str | None, is_same: bool) -> None:
    item = make_item(inventory={"company_name": name}, live={"company_name": live_name})
    assert item_codes(item) == ["other_name"] * (not is_same)


@pytest.mark.parametrize(
    ("name", "live_name", "shown"),
    [("Contoso", "Fabrikam", "(Contoso)"), (None, "Fabrikam", "(Fabrikam)"), (None, None, "(without a name)")],
)
def test_customer_is_described_by_what_is_known(name: str | None, live_name: str | None, shown: str) -> None:
    item = make_item(inventory={"company_name": name, "is_present": False}, live={"company_name": live_name})
    assert check_items([item])[0].text.startswith(f"Customer {new_id(1)} {shown} is not in the inventory")


def test_relationship_is_left_unless_the_plan_removes_it_first() -> None:
    live = {"relationships": (INSTANCE, OTHER_INSTANCE), "scopes": live_scopes(INSTANCE, OTHER_INSTANCE)}
    scopes = {"scopes": (make_scope(), make_scope(OTHER_INSTANCE))}

    def plan(*removed: tuple[int, int, str]) -> list[str]:
        removals = [
            make_item(number, customer, REMOVE_RELATIONSHIP, instance, scopes, live)
            for number, customer, instance in removed
        ]
        return item_codes(*removals, make_item(5, 1, inventory=scopes, live=live))

    assert plan((1, 1, INSTANCE), (2, 1, OTHER_INSTANCE)) == []
    assert plan((1, 1, INSTANCE), (4, 1, OTHER_INSTANCE)) == []
    assert plan() == ["relationship_left"]
    assert plan((1, 1, INSTANCE)) == ["relationship_left"]
    # of another customer
    assert plan((1, 1, INSTANCE), (2, 2, OTHER_INSTANCE)) == ["relationship_left"]
    # after it
    assert plan((1, 1, INSTANCE), (6, 1, OTHER_INSTANCE)) == ["relationship_left"]
    # removed already, and not to be seen yet
    deletion = make_item(5, 1, inventory=scopes, live=live)
    first, second = (new_id(1), INSTANCE), (new_id(1), OTHER_INSTANCE)
    assert check_items([deletion], [first, second]) == []
    assert codes(check_items([deletion], {first})) == ["relationship_left"]
    assert check_items([make_item(1, 1, REMOVE_RELATIONSHIP, INSTANCE, scopes, live), deletion], [second]) == []


def test_removed_before_names_removals_with_a_smaller_number() -> None:
    items = [
        make_item(1, 1, REMOVE_RELATIONSHIP),
        make_item(2, 2, REMOVE_RELATIONSHIP, OTHER_INSTANCE),
        make_item(3, 1),
        make_item(4, 3, REMOVE_RELATIONSHIP),
    ]
    first, second = (new_id(1), INSTANCE), (new_id(2), OTHER_INSTANCE)
    assert [removed_before(item, items) for item in items] == [set(), {first}, {first, second}, {first, second}]


def test_other_relationship_of_a_removal_may_stay() -> None:
    live = {"relationships": (INSTANCE, OTHER_INSTANCE), "scopes": live_scopes(INSTANCE)}
    assert item_codes(make_item(action=REMOVE_RELATIONSHIP, live=live)) == []


def test_customer_that_is_gone_is_nothing_to_delete_but_nothing_to_plan_either() -> None:
    item = make_item(live={"exists": False, "company_name": None, "scopes": ()})
    assert check_live(item, frozenset()) == []
    assert codes(check_existence([make_item(), item])) == ["gone"]
    assert check_existence([make_item()]) == []


# --- several at once ---


def test_everything_that_is_wrong_is_told_of_every_item() -> None:
    bad = make_item(
        1,
        inventory={"is_present": False, "scopes": (make_scope(outcome="failed", consumed=[1, None]),)},
        live={
            "company_name": "Fabrikam",
            "scopes": (make_live_scope(consumed=2), make_live_scope(consumed=None)),
            "subscriptions": (make_subscription(),),
            "relationships": (INSTANCE,),
        },
    )
    expected = [
        "not_in_inventory",
        "unread_scope",
        "unknown_seats",
        "consumed_seats",
        "other_name",
        "unknown_seats",
        "consumed_seats",
        "active_subscription",
        "relationship_left",
    ]
    assert item_codes(bad) == expected
    assert item_codes(make_item(2, 2), bad, make_item(3, 3)) == expected
    assert item_codes(bad, bad) == expected * 2


def test_refusals_are_raised_together_with_the_code_of_the_first() -> None:
    with pytest.raises(DeletionRefused) as caught:
        refuse([Refusal("one", "First."), Refusal("two", "Second.")])
    assert str(caught.value) == "Refused, nothing was sent:\n  - one: First.\n  - two: Second."
    assert (caught.value.code, caught.value.exit_code) == ("one", 4)
    refuse([])


def test_several_deletions_of_a_customer_are_refused_for_one_thing_once() -> None:
    """The customer's deletion speaks for its relationships, and each other customer, code and reason for itself."""
    first, second = (Candidate(REMOVE_RELATIONSHIP, "a", instance, "r") for instance in ("x", "y"))
    whole, other = (Candidate(DELETE_CUSTOMER, customer, None, "r") for customer in ("a", "b"))
    refusals = [
        *about(first, [Refusal("seats", "A in x."), Refusal("seats", "A too."), Refusal("name", "A's name.")]),
        *about(second, [Refusal("seats", "A in y."), Refusal("scope", "A in y.")]),
        Refusal("limit", "Many."),
        Refusal("limit", "Many."),
        *about(whole, [Refusal("seats", "A in all."), Refusal("seats", "A indeed.")]),
        *about(other, [Refusal("seats", "B.")]),
        *about(second, [Refusal("name", "A's other name.")]),
    ]
    with pytest.raises(DeletionRefused) as caught:
        refuse(refusals)
    three = "(for 3 deletions of this customer: its relationship in x; its relationship in y; the customer)"
    two = "(for 2 deletions of this customer: its relationship in x; its relationship in y)"
    assert str(caught.value).splitlines() == [
        "Refused, nothing was sent:",
        f"  - seats: A in all. {three}",
        f"  - seats: A indeed. {three}",
        f"  - name: A's name. {two}",
        "  - scope: A in y.",
        "  - limit: Many.",
        "  - limit: Many.",
        "  - seats: B.",
    ]
    assert caught.value.refusals == tuple((refusal.code, refusal.text) for refusal in refusals)


def test_what_counts_as_harmless_is_exactly_this() -> None:
    """Whoever lengthens one of these lists lets more be deleted."""
    assert set(guards.GOOD_OUTCOMES) == {"ok", "empty"}
    assert set(guards.INACTIVE_STATUSES) == {"suspended", "deleted", "cancelled", "canceled", "expired"}


# --- a guard never opens when the facts get worse ---

_counts = st.lists(st.one_of(st.none(), st.integers(-2, 3)), max_size=3)
_statuses = st.sampled_from(["Active", "Suspended", "Deleted", None, "?"])


@given(_counts, _counts, st.lists(_statuses, max_size=3), st.booleans())
def test_only_an_item_without_anything_is_let_through(
    consumed: list[int | None], live_consumed: list[int | None], statuses: list[str | None], is_removal: bool
) -> None:
    item = make_item(
        action=REMOVE_RELATIONSHIP if is_removal else DELETE_CUSTOMER,
        inventory={"scopes": (make_scope(consumed=consumed),)},
        live={
            "scopes": (make_live_scope(), *(make_live_scope(consumed=count) for count in live_consumed)),
            "subscriptions": tuple(make_subscription(status) for status in statuses),
        },
    )
    is_harmless = set(consumed) | set(live_consumed) <= {0} and set(statuses) <= {"Suspended", "Deleted"}
    assert (item_codes(item) == []) is is_harmless


def test_older_and_fewer_is_never_let_through_where_younger_and_more_is_not() -> None:
    ages = [inventory_codes(24, started_at=NOW - timedelta(hours=hours)) for hours in range(48)]
    visible = [codes(check_customer_count(make_run(), customers)) for customers in range(1000, 0, -1)]
    for row in (ages, visible):
        assert all(bool(later) or not earlier for earlier, later in pairwise(row))
