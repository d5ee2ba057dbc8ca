"""Promise 1 as a property: any sequence of days and failures leaves the tables equal to a plain Python model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, sku

from cockpit_source.sandbox import Sandbox, running_sandbox

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(4)]

# what the sandbox answers, and the outcome that it must come to
FAILURES: dict[str, tuple[int, Any]] = {
    "forbidden": (403, None),
    "not_found": (404, {"statusCode": 404, "type": "NotFound"}),
    "invalid": (400, {"statusCode": 400}),
    "deferred": (429, None),
    "failed": (500, {"statusCode": 500}),
}

counts = st.integers(-2, 3)
rows = st.lists(st.builds(sku, st.sampled_from(["e1", "e3", "e5"]), counts, counts), max_size=4)
readings = st.one_of(
    st.none(),
    rows,
    rows,
    st.sampled_from([*FAILURES.items(), ("failed", (200, {"an": "object"})), ("failed", (200, [{"skuId": ""}]))]),
)
# one reading per scope: not listed (None), rows, or a failure
days = st.lists(readings, min_size=len(SCOPES), max_size=len(SCOPES)).filter(lambda day: day != [None] * len(SCOPES))


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    with running_sandbox() as running:
        yield running


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(sequence=st.lists(days, min_size=2, max_size=5))
def test_any_sequence_of_days_and_failures_equals_the_model(
    shared_sandbox: Sandbox, sequence: list[list[Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        inventory = Inventory(shared_sandbox, Path(folder) / "inventory.duckdb")
        model = Model(inventory.tenant_key)
        for number, reading in enumerate(sequence):
            shared_sandbox.clear()
            answers = {}
            for scope, answer in zip(SCOPES, reading, strict=True):
                if isinstance(answer, tuple):
                    outcome, (status, body) = answer
                    shared_sandbox.answer(scope[0], json.dumps(body).encode(), status=status)
                    answers[scope] = (outcome, [])
                elif answer is not None:
                    shared_sandbox.answer(scope[0], json.dumps(answer).encode())
                    answers[scope] = ("ok" if answer else "empty", answer)
            result = inventory.load(answers, day(number))
            model.run(result.run_id, day(number), answers)
            model.check(inventory.database)
