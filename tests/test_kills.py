"""`cockpit load` killed at random instants of its life, and two at a time, over a day that was loaded before.

`CHAOS_SEEDS=20` tries more seeds (`make chaos`), and `make prove` kills a larger load a hundred times.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import fields

import pytest
from killing import Proof

from cockpit_source.fetch import QUEUED_RESULTS
from cockpit_source.settings import Settings
from cockpit_source.spool import BATCH_SCOPES

SEEDS = range(1, 1 + int(os.environ.get("CHAOS_SEEDS", "1")))
TRIALS = 5
MAX_CONCURRENCY = next(field.default for field in fields(Settings) if field.name == "max_concurrency")


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    with Proof(tmp_path_factory.mktemp("kills"), "duckdb", 300, latency_ms=20, package_scopes=100) as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
def test_load_killed_at_random_instants_loses_and_doubles_nothing(proof: Proof, seed: int) -> None:
    """Every other trial is killed twice."""
    seconds = proof.measure(1)
    draws = random.Random(seed)
    for number in range(TRIALS):
        kills = 1 + number % 2
        trial = proof.run_trial(draws, seconds, kills=kills)
        assert trial.is_exact, trial
        # in flight, waiting to be spooled, and the batch that was not full yet
        assert trial.repeated_calls <= kills * (MAX_CONCURRENCY + QUEUED_RESULTS + BATCH_SCOPES)


@pytest.mark.parametrize("work_folders", [("dlt", "dlt"), ("dlt", "dlt_of_another")], ids=["one machine", "two"])
def test_two_loads_started_together_are_one_load(proof: Proof, work_folders: tuple[str, str]) -> None:
    """One loads, the other refuses, or waits and finds that nothing is left to do."""
    ends, trial = proof.load_twice_at_once(work_folders=work_folders)
    assert ends in (["busy", "done"], ["done", "over"])
    assert trial.is_exact, trial
