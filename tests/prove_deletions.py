"""Proof that a killed apply deletes nothing twice or unrecorded: `python tests/prove_deletions.py --trials 100`.

A plan of five deletions is made once. Then, in every trial from that same state, `cockpit deletions apply`, in
a process of its own, is killed once with SIGKILL at a random instant of its life, and run again, with `cockpit
deletions verify`, until nothing more comes of it. The log of the sandbox says which DELETE requests came. Exits
with 1 when one came without an intent that both stores of the ledger held at the kill and hold at the end (an
orphan), when one came a second time (a double), when there were others or more than planned, when the stores
differ, or when an item did not end as the log of the sandbox says.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from deletion_kills import ACTIONS, DeletionProof, Trial


def prove(arguments: argparse.Namespace) -> bool:
    """Run all trials and print them; whether all holds."""
    draws = random.Random(arguments.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        DeletionProof(Path(folder), arguments.destination, latency_ms=arguments.latency_ms) as proof,
    ):
        seconds = proof.measure()
        print(
            f"a plan of {ACTIONS} deletions on {arguments.destination}, seed {arguments.seed}; "
            f"an apply that nobody kills takes {seconds:.1f} s",
            flush=True,
        )
        trials = []
        for number in range(1, arguments.trials + 1):
            trial = proof.run_trial(draws, seconds)
            trials.append(trial)
            if arguments.verbose or not trial.holds:
                print(f"{number:>4}  {_describe(trial)}", flush=True)
    return _conclude(trials)


def _describe(trial: Trial) -> str:
    wrong = "".join(f"; {text}" for text in trial.wrong)
    return (
        f"killed at {trial.kill_seconds:5.2f} s after {trial.sent_before} DELETE requests; {trial.deletes} in all, "
        f"{trial.intents} intents, {trial.doubles} doubles, {trial.orphans} orphans; {_count(trial.states)}{wrong}"
    )


def _conclude(trials: Sequence[Trial]) -> bool:
    deletes, intents, doubles, orphans = (
        sum(getattr(trial, name) for trial in trials) for name in ("deletes", "intents", "doubles", "orphans")
    )
    phases = [
        sum(trial.sent_before == 0 for trial in trials),
        sum(0 < trial.sent_before < ACTIONS for trial in trials),
        sum(trial.sent_before >= ACTIONS for trial in trials),
    ]
    print(" trials  DELETEs  intents  doubles  orphans  otherwise wrong")
    wrong = sum(bool(trial.wrong) for trial in trials)
    print(f"{len(trials):>7} {deletes:>8} {intents:>8} {doubles:>8} {orphans:>8} {wrong:>16}")
    print("killed before the first DELETE: {}, between: {}, after the last: {}".format(*phases))
    states: Counter[str] = Counter()
    for trial in trials:
        states += trial.states
    print(f"items at the end: {_count(states)}")
    holds = all(trial.holds for trial in trials)
    print(f"no DELETE without an intent, none twice, none but those planned: {'holds' if holds else 'BROKEN'}")
    return holds


def _count(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def main() -> None:
    """Prove it on one destination."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--destination", choices=["duckdb", "postgres"], default="duckdb")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--verbose", action="store_true", help="a line per trial")
    raise SystemExit(not prove(parser.parse_args()))


if __name__ == "__main__":
    main()
