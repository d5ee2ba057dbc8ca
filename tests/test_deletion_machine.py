"""Anything may happen around the deletions, in any order: what must never be, never is.

Hypothesis plans, applies and verifies while customers change, limits and settings change, time passes, calls fail,
processes die and stores of the ledger lose records. At every DELETE request and after every step, the log of the
sandbox and both stores of the ledger must tell a story that is allowed; `deletion_world` says which. `DELETION_RUNS`
sets how many runs each of the four seeds makes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from deletion_world import ACTORS, NEVER_SECONDS, World, memory_folder, opened_world
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from support import new_id, sku

from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP

RUNS = int(os.environ.get("DELETION_RUNS", "125"))
SEEDS = range(4)
# a failure is made small, unless this says 0
PHASES = (Phase.generate, Phase.shrink)[: 1 + int(os.environ.get("DELETION_SHRINK", "1"))]
# the beginning is one more
STEPS = 31

Change = tuple[str, Any]

actors = st.integers(0, ACTORS - 1)
# both deletions of a customer as they belong together, or one of them, or what no inventory holds
wishes = st.sampled_from(["whole"] * 5 + ["customer", "relationship", "unknown"])
chosen = st.lists(st.tuples(wishes, actors), min_size=1, max_size=3)
crashes = st.one_of(st.none(), st.none(), st.integers(1, 40))
delete_faults = st.sampled_from(
    [
        *("error_500", "html_503", "reset", "truncated", "wrong_shape", "sign_in_page", "redirect"),
        *("expired_token", "forbidden", "throttle_bare", "vanish", "accepted_500"),
    ]
)
read_faults = st.sampled_from(["error_500", "reset", "forbidden", "wrong_shape", "throttle_bare", "expired_token"])
read_paths = st.sampled_from(["/licenses", "/subscriptions", "auditlogs", "/v1/customers?", "/v1/customers/"])
spans = st.sampled_from([1, 10, 30, 61, 13 * 60, 25 * 60, -30])
flaws = st.sampled_from([None, None, "killed", "no_listing", "gaps", "failed_scopes", "uncommitted"])
_limits: dict[str, list[float]] = {
    "max_actions": [0, 1, 2],
    "max_percent": [0.0, 1.0, 10.0],
    "max_actions_per_day": [0, 1, 2, 3],
    "max_age_hours": [0.5],
    "seconds_between_calls": [0.0, 30.0],
    "verify_timeout_seconds": [0.0],
    "grace_days": [0.5],
}
# one at a time, so that each of them is what counts
limits = st.sampled_from([{name: value} for name, values in _limits.items() for value in values])
changes: st.SearchStrategy[Change] = st.one_of(
    st.tuples(st.just("switch"), st.sampled_from([None, "variable", "file"])),
    st.tuples(st.just("limits"), limits),
    st.tuples(
        st.just("access"), st.sampled_from(["usual", "tenant", "tenant_key", "base_url", "other_tenant", "disabled"])
    ),
    st.tuples(st.just("protect"), st.one_of(st.none(), actors)),
    st.tuples(
        st.just("customer"),
        st.tuples(actors, st.sampled_from(["offboarded", "back", "seat", "subscription", "renamed", "deleted"])),
    ),
    st.tuples(st.just("minutes"), spans),
    st.tuples(st.just("load"), flaws),
    st.tuples(
        st.just("tamper"),
        st.sampled_from(["lose_file", "cut_file", "edit_file", "lose_warehouse", "cut_warehouse"]),
    ),
    st.tuples(st.just("ledger"), st.sampled_from(["mended", "put_back"])),
    st.tuples(st.just("delete"), st.lists(delete_faults, min_size=1, max_size=4)),
    st.tuples(st.just("sign_in"), st.sampled_from(["error_500", "forbidden", "reset"])),
    st.tuples(st.just("read"), st.tuples(read_paths, read_faults, st.integers(1, 2))),
    st.tuples(st.just("delays"), st.tuples(st.sampled_from([0, 1, 20, 3600, NEVER_SECONDS]), st.booleans())),
)


# while the first DELETE of an apply is under way
meanwhile: st.SearchStrategy[Change | None] = st.one_of(
    st.none(),
    st.none(),
    st.just(("switch", "file")),
    st.tuples(st.just("customer"), st.tuples(actors, st.sampled_from(["back", "seat", "subscription", "renamed"]))),
)


# why the first customer of a plan must not be deleted, before it is planned; known to the last load or not
flaws_of_customers = st.one_of(
    *[st.none()] * 3, st.tuples(st.sampled_from(["back", "seat", "subscription", "renamed"]), st.booleans())
)


@dataclass(frozen=True)
class Day:
    """A plan and its apply under these limits, and what comes between. `which` plan is applied, 1 for the latest."""

    wanted: list[tuple[str, int]]
    flaw: tuple[str, bool] | None
    limits: dict[str, float]
    changes: list[Change]
    faults: list[str]
    which: int
    has_hash: bool
    crash: int | None
    meanwhile: Change | None
    goes_on: bool


days = st.builds(
    Day,
    chosen,
    flaws_of_customers,
    st.one_of(st.just({}), st.just({}), limits),
    st.lists(changes, max_size=2),
    st.one_of(st.just([]), st.just([]), st.lists(delete_faults, max_size=2)),
    st.sampled_from([1, 1, 1, 1, 2]),
    st.sampled_from([True] * 7 + [False]),
    crashes,
    meanwhile,
    st.booleans(),
)


class DeletionMachine(RuleBasedStateMachine):
    """One run."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.world.reset()

    @rule(change=changes)
    def something_changes(self, change: Change) -> None:
        self._change(change)

    @rule()
    def everything_is_well(self) -> None:
        self._heal()

    @rule(wanted=chosen, twice=st.booleans(), crash=crashes)
    def plan(self, wanted: list[tuple[str, int]], twice: bool, crash: int | None) -> None:
        self.world.crash_at = crash
        rows = self._rows(wanted)
        # the same deletion twice is refused
        self.world.plan(rows * 2 if twice and len(rows) == 1 else rows)

    @rule(
        which=st.sampled_from([1, 1, 1, 1, 2, 3]),
        has_hash=st.sampled_from([True] * 5 + [False]),
        crash=crashes,
        change=meanwhile,
    )
    def apply(self, which: int, has_hash: bool, crash: int | None, change: Change | None) -> None:
        self._apply(which, has_hash, crash, change)

    @rule(day=days)
    def go_through_a_day(self, day: Day) -> None:
        self._go_through(day)

    @rule(day=days)
    def go_through_another_day(self, day: Day) -> None:
        """The same again, since each run leaves some rules out."""
        self._go_through(day)

    @rule(seconds=st.sampled_from([0, 0, 30]), crash=crashes)
    def verify(self, seconds: float, crash: int | None) -> None:
        self.world.crash_at = crash
        self.world.verify(seconds)

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.world.steps += 1
        assert self.world.wrong == []

    def teardown(self) -> None:
        self.world.compare_stores()
        assert self.world.wrong == []

    def _go_through(self, day: Day) -> None:
        """What usually happens, so that much is deleted, with few things between that should not be."""
        wanted = [actor for _, actor in day.wanted]
        self._heal()
        self.world.limits = day.limits
        for actor in wanted:
            self._change_customer(actor, "offboarded")
        flaw, is_loaded = day.flaw or ("offboarded", True)
        if is_loaded:
            self._change_customer(wanted[0], flaw)
        self.world.load()
        self.world.pass_time(timedelta(minutes=1))
        self._change_customer(wanted[0], flaw)
        self.world.plan(self._rows([("whole", actor) for actor in wanted]))
        for change in day.changes:
            self._change(change)
        if day.faults:
            self.world.aim(day.faults)
        self._apply(day.which, day.has_hash, day.crash, self._aim(day.meanwhile, wanted))
        if day.goes_on:
            self._apply(1, True, None, None)

    def _aim(self, change: Change | None, wanted: list[int]) -> Change | None:
        """The change, of a customer that is to be deleted where it is one of a customer."""
        if change is None or change[0] != "customer":
            return change
        actor, how = change[1]
        return "customer", (wanted[actor % len(wanted)], how)

    def _heal(self) -> None:
        """All as it should be for deletions to be made, but for what was made before."""
        world = self.world
        world.sandbox.clear()
        world.put_back()
        world.set_switch(None)
        world.protected_file.write_text("")
        world.limits, world.access, world.enabled, world.delete_faults = {}, {}, True, []
        world.sandbox.configure(deletion_delay_seconds=0, deletion_outcome="Succeded")

    def _change(self, change: Change) -> None:
        """One thing that plan and apply may have to notice."""
        world, (kind, value) = self.world, change
        match kind:
            case "switch":
                world.set_switch(value)
            case "limits":
                world.limits = value
            case "access":
                self._set_access(value)
            case "protect":
                world.protected_file.write_text("" if value is None else world.actors[value].id)
            case "customer":
                self._change_customer(*value)
            case "minutes":
                world.pass_time(timedelta(minutes=value))
            case "load":
                world.load(value)
            case "tamper":
                world.tamper(value)
            case "ledger":
                world.mend() if value == "mended" else world.put_back()
            case "delete":
                world.aim(value)
            case "sign_in":
                world.sandbox.faults.for_sign_in(value, 1)
            case "read":
                world.sandbox.faults.for_path(*value)
            case "delays":
                seconds, fails = value
                world.sandbox.configure(
                    deletion_delay_seconds=seconds, deletion_outcome="Failed" if fails else "Succeded"
                )

    def _change_customer(self, actor: int, how: str) -> None:
        world = self.world
        customer = world.actors[actor]
        if how == "deleted":
            world.delete_elsewhere(customer.id)
            return
        world.answer(customer.id, None)
        world.rename(customer.id, world.names[customer.id])
        if how == "offboarded":
            world.sandbox.offboard(customer.id)
        elif how == "back":
            world.sandbox.restore(customer.id)
        elif how == "seat":
            world.answer(customer.id, [sku("seat", 1, 1)])
        elif how == "subscription":
            world.sandbox.restore(customer.id)
            world.answer(customer.id, [])
        else:
            world.rename(customer.id, "Another Name")

    def _set_access(self, how: str) -> None:
        world = self.world
        world.enabled = how != "disabled"
        # the same server by another name
        other = world.sandbox.base_url.replace("127.0.0.1", "localhost")
        world.access = {
            "tenant": {"tenant": "other.example", "tenant_key": world.tenant.domain},
            "other_tenant": {"tenant": "other.example"},
            "tenant_key": {"tenant_key": "other"},
            "base_url": {"base_url": other},
        }.get(how, {})
        if how == "base_url":
            # else the inventory is of another address, which is refused anyway
            world.load()

    def _apply(self, which: int, has_hash: bool, crash: int | None, change: Change | None) -> None:
        world = self.world
        if len(world.plans) < which:
            return
        plan = world.plans[-which]
        world.crash_at = crash
        if change is not None:
            world.at_next_delete = partial(self._change, change)
        world.apply(plan, plan.plan_hash if has_hash else "0" * 64)
        world.at_next_delete = None

    def _rows(self, wanted: list[tuple[str, int]]) -> list[tuple[str, str, str | None]]:
        rows: dict[tuple[str, str, str | None], None] = {}
        for wish, actor in wanted:
            customer = self.world.actors[actor]
            for instance in customer.provider_instance_ids:
                is_there = self.world.sandbox.has_instance(customer, instance)
                if wish == "relationship" or (wish == "whole" and is_there):
                    rows[REMOVE_RELATIONSHIP, customer.id, instance] = None
            if wish in ("whole", "customer"):
                rows[DELETE_CUSTOMER, customer.id, None] = None
            if wish == "unknown":
                rows[DELETE_CUSTOMER, new_id(actor), None] = None
        return list(rows)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = memory_folder(tmp_path)
    try:
        with opened_world(folder) as opened:
            yield opened
    finally:
        if folder != tmp_path:
            shutil.rmtree(folder)


@pytest.mark.parametrize("number", SEEDS)
def test_whatever_happens_nothing_is_deleted_that_must_not_be(world: World, number: int) -> None:
    machine = seed(number)(type("Machine", (DeletionMachine,), {"world": world}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
        ),
    )
    # else it proves nothing
    assert world.deletes_seen > RUNS / 2, world.summary()
    if os.environ.get("DELETION_SUMMARY"):
        Path(os.environ["DELETION_SUMMARY"], f"machine_{number}.txt").write_text(world.summary())
