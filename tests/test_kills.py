"""`cockpit load` killed at random instants of its life, over a day before it; `make prove` does it at length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from killing import Proof

from cockpit_source.fetch import QUEUED_RESULTS
from cockpit_source.settings import Settings
from cockpit_source.spool import BATCH_SCOPES

TRIALS = 5
MAX_CONCURRENCY = next(field.default for field in fields(Settings) if field.name == "max_concurrency")


@pytest.fixture
def proof(tmp_path: Path) -> Iterator[Proof]:
    with Proof(tmp_path, "duckdb", 300, latency_ms=20, package_scopes=100) as running:
        yield running


def test_load_killed_at_random_instants_loses_and_doubles_nothing(proof: Proof) -> None:
    """Every other trial is killed twice."""
    seconds = proof.measure(1)
    draws = random.Random(7)
    for number in range(TRIALS):
        kills = 1 + number % 2
        trial = proof.run_trial(draws, seconds, kills=kills)
        assert trial.is_exact, trial
        # in flight, waiting to be spooled, and the batch that was not full yet
        assert trial.repeated_calls <= kills * (MAX_CONCURRENCY + QUEUED_RESULTS + BATCH_SCOPES)
