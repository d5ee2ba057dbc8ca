"""Proof that shards load side by side: `python tests/prove_shards.py --trials 20 --destination ducklake`.

In every trial, an empty warehouse on a PostgreSQL of its own gets several days of a simulated tenant. Each day is
loaded as `--shards` shards from `--processes` processes at once, and then finished by `cockpit load --shard finish`.
After every day the tables are compared whole with a plain Python model. Exits with 1 when a load fails or a row is
missing, doubled or wrong.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from postgres_server import running_postgres
from sharded_days import ShardedDays


def prove(arguments: argparse.Namespace) -> bool:
    """Run all trials and print them; whether everything was exact."""
    seconds: list[float] = []
    errors = inexact = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres(durable=True) as server,
        ShardedDays(Path(folder), server, arguments.destination, arguments.scopes, arguments.shards) as days,
    ):
        scopes = len(list(days.tenant.scopes(0)))
        print(
            f"{scopes:,} scopes of a simulated tenant (sandbox) on {arguments.destination}, "
            f"{arguments.shards} shards from {arguments.processes} processes, "
            f"days {', '.join(map(str, arguments.days))}",
            flush=True,
        )
        for trial in range(1, arguments.trials + 1):
            with days.fresh(trial):
                for number in arguments.days:
                    took, failed = days.load(number, arguments.processes)
                    differences = days.differences()
                    seconds.append(took)
                    errors += failed
                    inexact += bool(differences)
                    if arguments.verbose or failed or differences:
                        print(
                            f"{trial:>4}  day {number:>3}: {took:6.1f} s, {failed} errors, {differences}", flush=True
                        )
    print(" trials   days  not exact  errors  seconds a day, median  least    most")
    print(
        f"{arguments.trials:>7} {len(seconds):>6} {inexact:>10} {errors:>7} {statistics.median(seconds):>22.1f} "
        f"{min(seconds):>6.1f} {max(seconds):>7.1f}"
    )
    holds = not (errors or inexact)
    print(f"bounds (every table of every day exact, no error): {'hold' if holds else 'BROKEN'}")
    return holds


def main() -> None:
    """Prove it on one destination."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--destination", choices=["postgres", "ducklake"], default="ducklake")
    parser.add_argument("--scopes", type=int, default=2_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--days", type=int, nargs="+", default=[0, 5, 30])
    parser.add_argument("--verbose", action="store_true", help="a line per day")
    raise SystemExit(not prove(parser.parse_args()))


if __name__ == "__main__":
    main()
