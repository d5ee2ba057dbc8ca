"""The canonical form of a plan and its hash: the same facts give the same text, and any other fact another."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from deletion_facts import (
    NOW,
    OTHER_INSTANCE,
    make_candidate,
    make_evidence,
    make_item,
    make_limits,
    make_live,
    make_plan,
    make_run,
    make_scope,
    make_subscription,
)
from hypothesis import given
from hypothesis import strategies as st
from support import INSTANCE, new_id

from cockpit_source.deletions.records import (
    ACTIONS,
    DELETE_CUSTOMER,
    REMOVE_RELATIONSHIP,
    Limits,
    Plan,
    hash_text,
    read_plan,
    to_canonical,
)


def test_canonical_form_is_json_with_sorted_members_and_no_blanks() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    value = {"b": (1, None, True), "a": "Zürich", "c": moment, "d": 1.0}
    assert to_canonical(value) == ('{"a":"Zürich","b":[1,null,true],"c":"2026-01-02T01:04:05.000006+00:00","d":1.0}')


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), {1, 2}, b"x", object()])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """A time without a zone would be another moment on another machine."""
    with pytest.raises(TypeError, match="has no canonical form"):
        to_canonical({"a": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_number_that_json_does_not_know_is_refused(value: float) -> None:
    with pytest.raises(ValueError):
        to_canonical(make_limits(max_percent=value).max_percent)


def test_hash_is_that_of_the_text_in_utf_8() -> None:
    assert hash_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert len(hash_text("\ud800")) == 64


def test_relationships_are_removed_before_customers_are_deleted() -> None:
    assert ACTIONS == (REMOVE_RELATIONSHIP, DELETE_CUSTOMER) == ("remove_reseller_relationship", "delete_customer")


def test_key_names_the_deletion_in_whichever_plan() -> None:
    assert make_candidate(1).key == f"delete_customer|{new_id(1)}|-"
    assert make_candidate(1, REMOVE_RELATIONSHIP).key == f"remove_reseller_relationship|{new_id(1)}|{INSTANCE}"
    assert make_candidate(1, reason="another").key == make_candidate(1).key
    keys = {
        make_candidate(customer, action, instance).key
        for customer in (1, 2)
        for action, instance in (
            (DELETE_CUSTOMER, None),
            (REMOVE_RELATIONSHIP, INSTANCE),
            (REMOVE_RELATIONSHIP, OTHER_INSTANCE),
        )
    }
    assert len(keys) == 6


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + " "
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, tuple):
        return (*value, value[-1]) if value else ("x",)
    return "x"


def variants(value: Any) -> list[Any]:
    """Every value that differs from this one in a single field, however deep."""
    if isinstance(value, tuple) and value and hasattr(value[0], "__dataclass_fields__"):
        inner = [(*value[:i], changed, *value[i + 1 :]) for i in range(len(value)) for changed in variants(value[i])]
        return [*inner, other(value), value[:-1]]
    if not hasattr(value, "__dataclass_fields__"):
        return [other(value)]
    return [
        replace(value, **{field.name: changed})
        for field in fields(value)
        for changed in variants(getattr(value, field.name))
    ]


def make_full_plan() -> Plan:
    """A plan with something in every field."""
    evidence = make_evidence(scopes=(make_scope(consumed=[1, None]), make_scope(OTHER_INSTANCE, None, [])))
    live = make_live(relationships=(INSTANCE,), subscriptions=(make_subscription(),))
    item = replace(make_item(1), inventory=evidence, live=live)
    return make_plan([item, make_item(2, 2, REMOVE_RELATIONSHIP)], limits=make_limits(grace_days=7.0), run=make_run())


def test_every_field_goes_into_the_hash() -> None:
    plan = make_full_plan()
    changed = variants(plan)
    assert len(changed) > 80
    assert plan.plan_hash not in {variant.plan_hash for variant in changed}
    assert len({variant.plan_hash for variant in changed}) == len(changed)
    assert make_full_plan().plan_hash == plan.plan_hash == hash_text(plan.canonical())


def test_hash_does_not_depend_on_the_zone_of_a_time() -> None:
    plan = make_full_plan()
    elsewhere = plan.created_at.astimezone(timezone(timedelta(hours=-5)))
    assert replace(plan, created_at=elsewhere).plan_hash == plan.plan_hash
    assert NOW.tzinfo is UTC


def test_stored_plan_is_read_again_as_it_was() -> None:
    plan = make_full_plan()
    again = read_plan(json.loads(plan.canonical()))
    assert again == plan
    assert again.plan_hash == plan.plan_hash
    assert read_plan(plan.to_dict()) == plan


@given(st.floats(0, 100), st.integers(0, 10**6))
def test_limits_keep_their_numbers_when_they_are_stored(percent: float, actions: int) -> None:
    plan = make_plan(limits=make_limits(max_percent=percent, max_actions=actions))
    stored: Limits = read_plan(plan.to_dict()).limits
    assert stored == plan.limits
