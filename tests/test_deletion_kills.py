"""`cockpit deletions apply` killed at random instants of its life; `make prove` does it a hundred times."""

from __future__ import annotations

import random
from pathlib import Path

from deletion_kills import DeletionProof

KILLS = 6


def test_apply_killed_at_random_instants_deletes_nothing_twice_or_unrecorded(tmp_path: Path) -> None:
    draws = random.Random(5)
    with DeletionProof(tmp_path) as proof:
        seconds = proof.measure()
        for _ in range(KILLS):
            trial = proof.run_trial(draws, seconds)
            assert trial.holds, trial
