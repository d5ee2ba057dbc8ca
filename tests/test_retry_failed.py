"""`--retry-failed`: reads what the last run did not, and nothing else."""

from __future__ import annotations

import pytest
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, new_id, sku

from cockpit_source.errors import NothingToRetry
from cockpit_source.sandbox import Sandbox

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(8)]


def _load_with_two_failed(inventory: Inventory) -> Model:
    """Day 0 with two failed scopes and a delisted one that had failed before."""
    for customer, _, _ in SCOPES:
        inventory.answer(customer, [sku("e3")])
    inventory.answer(SCOPES[0][0], None, 500)
    inventory.answer(SCOPES[1][0], None, 403)
    inventory.answer(SCOPES[7][0], None, 404)
    model = Model(inventory.tenant_key)
    answers: dict[ScopeIds, tuple[str, list[Row]]] = {scope: ("ok", [sku("e3")]) for scope in SCOPES}
    answers |= {SCOPES[0]: ("failed", []), SCOPES[1]: ("forbidden", []), SCOPES[7]: ("not_found", [])}
    model.run(inventory.load(SCOPES, day(0)).run_id, day(0), answers)
    del answers[SCOPES[7]]
    model.run(inventory.load(SCOPES[:7], day(1)).run_id, day(1), answers)
    return model


def test_only_scopes_that_were_not_read_are_read_and_nothing_is_delisted(
    inventory: Inventory, sandbox: Sandbox
) -> None:
    model = _load_with_two_failed(inventory)
    inventory.answer(SCOPES[0][0], [sku("e3", 5, 5)])
    sandbox.clear_requests()
    # the configured list says something else, which does not matter
    result = inventory.load(SCOPES[4:5], day(2), retry_failed=True)
    assert set(sandbox.call_counts()) == set(SCOPES[:2])
    assert (result.scopes_total, result.outcomes, result.exit_code) == (2, {"ok": 1, "forbidden": 1}, 3)
    _retry(model, result.run_id, {SCOPES[0]: ("ok", [sku("e3", 5, 5)]), SCOPES[1]: ("forbidden", [])})
    model.check(inventory.database)


def _retry(model: Model, run_id: str, answers: dict[ScopeIds, tuple[str, list[Row]]]) -> None:
    """A run over a part of the list in the model: delists nothing, lists nothing."""
    before = {key: dict(scope) for key, scope in model.scopes.items()}
    model.run(run_id, day(2), answers)
    for key, scope in model.scopes.items():
        scope["delisted_at"] = before[key]["delisted_at"]
        scope["last_listed_run_id"] = before[key]["last_listed_run_id"]


def test_nothing_to_retry_is_said(inventory: Inventory) -> None:
    with pytest.raises(NothingToRetry):
        inventory.load(SCOPES, day(0), retry_failed=True)
    inventory.answer(SCOPES[3][0], [])
    assert inventory.load(SCOPES[3:4], day(1)).exit_code == 0
    with pytest.raises(NothingToRetry) as nothing:
        inventory.load(SCOPES[3:4], day(2), retry_failed=True)
    assert nothing.value.exit_code == 0
    assert len(inventory.rows("runs")) == 1
