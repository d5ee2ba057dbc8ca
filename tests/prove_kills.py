"""Proof that a load that is killed loses nothing: `python tests/prove_kills.py --trials 100 --scopes 2000`.

Day 0 of a simulated tenant is loaded undisturbed. Then, in every trial from that same state, the load of a later day,
`cockpit load` in a process of its own, is killed once with SIGKILL at a random instant of its life, from the start of
the process to its end, and started again until it has finished. The tables are then compared whole with a plain
Python model, and the log of the sandbox says which calls were made twice. Exits with 1 when a row is lost, doubled or
wrong, when two versions of a product overlap, or when a trial made `--bound` percent of its calls twice.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from killing import Proof, Trial


def prove(arguments: argparse.Namespace) -> bool:
    """Run all trials and print them; whether every bound holds."""
    draws = random.Random(arguments.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Proof(
            Path(folder),
            arguments.destination,
            arguments.scopes,
            latency_ms=arguments.latency_ms,
            package_scopes=arguments.package_scopes,
        ) as proof,
    ):
        seconds = proof.measure()
        scopes = len(proof.scopes)
        print(
            f"{scopes:,} scopes of a simulated tenant on {arguments.destination}, seed {arguments.seed}; "
            f"a load that nobody kills takes {seconds:.1f} s",
            flush=True,
        )
        trials = []
        for number in range(1, arguments.trials + 1):
            trial = proof.run_trial(draws, seconds)
            trials.append(trial)
            if arguments.verbose or not trial.is_exact:
                print(f"{number:>4}  {_describe(trial, scopes)}", flush=True)
    return _conclude(trials, scopes, arguments.bound)


def _describe(trial: Trial, scopes: int) -> str:
    return (
        f"killed at {trial.last_kill_seconds:5.2f} s after {trial.calls_before:>6,} calls; "
        f"{trial.lost} rows lost, {trial.doubled} doubled, {trial.overlaps} overlaps, "
        f"{trial.repeated_calls / scopes:6.1%} of the calls made twice"
    )


def _conclude(trials: Sequence[Trial], scopes: int, bound: float) -> bool:
    shares = [100 * trial.repeated_calls / scopes for trial in trials]
    lost, doubled, overlaps = (
        sum(getattr(trial, name) for trial in trials) for name in ("lost", "doubled", "overlaps")
    )
    phases = [
        sum(trial.calls_before == 0 for trial in trials),
        sum(0 < trial.calls_before < scopes for trial in trials),
        sum(trial.calls_before >= scopes for trial in trials),
    ]
    print(" trials  kills  rows lost  doubled  overlaps  twice, max  median")
    print(
        f"{len(trials):>7} {sum(t.kills for t in trials):>6} {lost:>10} {doubled:>8} {overlaps:>9} "
        f"{max(shares):>9.1f} % {statistics.median(shares):>5.1f} %"
    )
    print("killed before the first call: {}, while calls were made: {}, after the last: {}".format(*phases))
    holds = not (lost or doubled or overlaps) and max(shares) < bound
    print(f"bounds (no row lost or doubled, no overlap, under {bound:g} % twice): {'hold' if holds else 'BROKEN'}")
    return holds


def main() -> None:
    """Prove it on one destination."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--scopes", type=int, default=2_000)
    parser.add_argument("--destination", choices=["duckdb", "postgres"], default="duckdb")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--package-scopes", type=int, help="load packages of this size; usual: one for all")
    parser.add_argument("--bound", type=float, default=15, help="percent of the calls of a trial")
    parser.add_argument("--verbose", action="store_true", help="a line per trial")
    raise SystemExit(not prove(parser.parse_args()))


if __name__ == "__main__":
    main()
