"""The drop guard: whole tables against the model, whatever empties or leaves the list, also over retries."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, every_table, new_id, sku

from cockpit_source import packages, source
from cockpit_source.drop_guard import DropGuard
from cockpit_source.load_result import LoadResult

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(60)]
LIMITS = {"max_drop_scopes": 3, "max_drop_percent": 10}

Answers = dict[ScopeIds, tuple[str, list[Row]]]


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 50), st.floats(0, 100), st.integers(0, 200))
def test_guard_acts_where_all_three_bounds_are_exceeded(
    count: int, holding: int, max_scopes: int, max_percent: float, accepted: int
) -> None:
    too_many = count > max_scopes and 100 * count > max_percent * holding and count > accepted
    assert DropGuard(max_scopes, max_percent, accepted).holds_back(count, holding) == too_many


class Tenant:
    """Scopes with a licence each, of which some are emptied; loads them and keeps the model."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        inventory.settings |= LIMITS
        self.model = Model(inventory.tenant_key)
        for customer, _, _ in SCOPES:
            inventory.answer(customer, [sku("e3")])
        self.answers: Answers = {scope: ("ok", [sku("e3")]) for scope in SCOPES}
        self.load(0)

    def empty(self, scopes: list[ScopeIds]) -> None:
        for scope in scopes:
            self.inventory.answer(scope[0], [])
            self.answers[scope] = ("empty", [])

    def load(self, number: int, scopes: list[ScopeIds] = SCOPES, *, held_back: bool = False, **options) -> LoadResult:
        """Load on a day; `held_back`: what empties is expected to be quarantined."""
        result = self.inventory.load(scopes, day(number), **options)
        answers = {scope: self.answers[scope] for scope in scopes}
        if held_back:
            answers = {
                scope: ("quarantined", []) if outcome == "empty" else (outcome, rows)
                for scope, (outcome, rows) in answers.items()
            }
        self.model.run(result.run_id, day(number), answers)
        return result

    def check(self) -> None:
        self.model.check(self.inventory.database)


@pytest.fixture
def tenant(inventory: Inventory) -> Tenant:
    return Tenant(inventory)


def test_few_emptied_scopes_are_let_through(tenant: Tenant) -> None:
    tenant.empty(SCOPES[:6])
    result = tenant.load(1)
    assert (result.status, result.exit_code, result.guard_message) == ("complete", 0, None)
    tenant.check()


def test_many_are_quarantined_all_and_the_others_are_loaded(tenant: Tenant) -> None:
    tenant.empty(SCOPES[:7])
    tenant.inventory.answer(SCOPES[20][0], [sku("e5")])
    tenant.answers[SCOPES[20]] = ("ok", [sku("e5")])
    result = tenant.load(1, held_back=True)
    assert (result.status, result.exit_code) == ("guarded", 4)
    assert result.outcomes == {"ok": 53, "empty": 0, "quarantined": 7}
    assert "--accept-drop 7" in (result.guard_message or "")
    assert {scope.outcome for scope in result.unread_scopes} == {"quarantined"}
    tenant.check()
    run = max(tenant.inventory.rows("runs", per_run=True), key=lambda run: run["started_at"])
    assert (run["status"], run["scopes_quarantined"], run["scopes_empty"]) == ("guarded", 7, 0)
    reasons = {
        row["error_description"] for row in tenant.inventory.rows("scope_runs") if row["outcome"] == "quarantined"
    }
    assert reasons == {"the answer was empty, and the scope held 1 licence rows"}


def test_quarantine_lasts_until_it_is_accepted_or_the_licences_come_back(tenant: Tenant) -> None:
    tenant.empty(SCOPES[:7])
    assert tenant.load(1, held_back=True).exit_code == 4
    assert tenant.load(2, held_back=True, accept_drop=6).exit_code == 4
    tenant.check()
    result = tenant.load(3, accept_drop=7)
    assert (result.exit_code, result.guard_message) == (0, None)
    tenant.check()
    assert tenant.load(4).exit_code == 0
    tenant.check()


def test_scopes_that_held_nothing_do_not_count(tenant: Tenant) -> None:
    tenant.empty(SCOPES[:6])
    tenant.load(1)
    tenant.empty(SCOPES[6:11])
    # 5 of 54 that hold licences: 6 of the 11 empty ones were empty before
    assert tenant.load(2).exit_code == 0
    tenant.check()


def test_scopes_that_held_nothing_stay_empty_beside_those_that_are_held_back(tenant: Tenant) -> None:
    """They are in the same package, and their outcome is that of their answer."""
    tenant.empty(SCOPES[:2])
    tenant.load(1)
    tenant.empty(SCOPES[2:10])
    result = tenant.inventory.load(SCOPES, day(2))
    assert (result.exit_code, result.outcomes) == (4, {"ok": 50, "empty": 2, "quarantined": 8})
    held_back = {scope: ("quarantined", []) for scope in SCOPES[2:10]}
    tenant.model.run(result.run_id, day(2), tenant.answers | held_back)
    tenant.check()


def test_everything_emptied_is_guarded_and_not_failed(tenant: Tenant) -> None:
    before = every_table(tenant.inventory.database)
    tenant.empty(SCOPES)
    result = tenant.load(1, held_back=True)
    assert (result.status, result.exit_code) == ("guarded", 4)
    assert every_table(tenant.inventory.database) == before
    tenant.check()


def test_scopes_that_leave_the_list_are_guarded_with_the_emptied_ones(tenant: Tenant) -> None:
    """5 of 55 emptied and 5 of those with licences unlisted: too many only together."""
    tenant.empty(SCOPES[:5])
    inventory = tenant.inventory
    result = inventory.load(SCOPES[:55], day(1))
    assert (result.exit_code, result.status, result.delisted) == (4, "guarded", 0)
    assert result.drops is not None
    assert (result.drops.emptied, result.drops.unlisted, result.drops.holding) == (5, 5, 55)
    assert not [row for row in inventory.rows("scopes") if row["delisted_at"]]
    run = max(inventory.rows("runs", per_run=True), key=lambda run: run["started_at"])
    assert run["unlisted_quarantined"] == 5
    scopes = {row["customer_id"]: row for row in inventory.rows("scopes", per_run=True)}
    unlisted = [scopes[customer] for customer, _, _ in SCOPES[55:]]
    assert {(row["last_outcome"], row["failing_runs"], row["last_run_id"]) for row in unlisted} == {
        ("quarantined", 1, run["run_id"])
    }
    reasons = {
        row["customer_id"]: (row["outcome"], row["error_type"], row["error_description"])
        for row in inventory.rows("scope_runs", per_run=True)
        if row["run_id"] == run["run_id"]
    }
    assert {reasons[customer] for customer, _, _ in SCOPES[55:]} == {
        ("quarantined", "drop_guard", "it left the list, and the scope held 1 licence rows")
    }
    held = {row["customer_id"] for row in inventory.rows("licenses")}
    assert held == {scope[0] for scope in SCOPES}
    accepted = tenant.load(2, SCOPES[:55], accept_drop=10)
    assert (accepted.exit_code, accepted.delisted) == (0, 5)
    # the day that was held back left its mark on the scopes, and on nothing else
    unlisted_ids = {customer for customer, _, _ in SCOPES[55:]}
    for scope in tenant.model.scopes.values():
        if scope["customer_id"] in unlisted_ids:
            scope |= {"last_outcome": "quarantined", "failing_runs": 1, "last_run_id": run["run_id"]}
    tenant.model.check(inventory.database)


def test_unlisted_scopes_without_licences_are_delisted_whatever_the_guard_says(tenant: Tenant) -> None:
    tenant.empty(SCOPES[:2])
    tenant.load(1)
    tenant.empty(SCOPES[2:20])
    result = tenant.load(2, SCOPES[2:], held_back=True)
    assert (result.exit_code, result.delisted) == (4, 2)
    tenant.check()


def test_part_of_the_list_is_guarded_by_what_that_part_held(tenant: Tenant) -> None:
    """A scopes file or `--retry-failed`: the share is of the scopes that are read."""
    tenant.empty(SCOPES[:4])
    result = tenant.inventory.load(SCOPES[:12], day(1), full_list=False)
    assert (result.exit_code, result.outcomes["quarantined"]) == (4, 4)
    assert not [row for row in tenant.inventory.rows("scopes") if row["delisted_at"]]


def test_retried_scopes_that_were_quarantined_are_guarded_again(tenant: Tenant) -> None:
    tenant.empty(SCOPES[:7])
    assert tenant.load(1, held_back=True).exit_code == 4
    retried = tenant.inventory.load(SCOPES[:1], day(2), retry_failed=True)
    assert (retried.scopes_total, retried.exit_code) == (7, 4)
    accepted = tenant.inventory.load(SCOPES[:1], day(3), retry_failed=True, accept_drop=7)
    assert (accepted.scopes_total, accepted.exit_code) == (7, 0)
    assert {row["customer_id"] for row in tenant.inventory.rows("licenses")} == {s[0] for s in SCOPES[7:]}


def test_first_load_drops_nothing(inventory: Inventory, tmp_path: Path) -> None:
    inventory.settings |= {"max_drop_scopes": 0, "max_drop_percent": 0}
    for customer, _, _ in SCOPES[:5]:
        inventory.answer(customer, [])
    assert inventory.load(SCOPES[:5], day(0)).exit_code == 0


def test_guard_decides_once_over_a_killed_and_resumed_run(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process loads packages and dies; only the second sees that the emptied scopes are many."""
    monkeypatch.setattr(packages, "PACKAGE_SCOPES", 20)
    monkeypatch.setattr(source.batch_results, "__defaults__", (10,))
    tenant.empty([scope for number, scope in enumerate(SCOPES) if number % 8 == 0])
    load_last = packages.PackageLoader.load_last

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packages.PackageLoader, "load_last", die)
    with pytest.raises(KeyboardInterrupt):
        tenant.inventory.load(SCOPES, day(1))
    monkeypatch.setattr(packages.PackageLoader, "load_last", load_last)
    result = tenant.load(1, held_back=True)
    assert (result.carried_on, result.exit_code, result.outcomes["quarantined"]) == (True, 4, 8)
    tenant.check()
