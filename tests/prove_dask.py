"""Proof of loads on two local Dask workers: `python tests/prove_dask.py --trials 5 --scopes 1000`.

A simulated tenant is loaded once in this process, then by two Dask workers, then once per trial on the workers again,
each into a database of its own, while a worker is killed with SIGKILL at a random instant between the first call and
the last. Every time the tables are compared whole with those of the load without Dask, and the log of the sandbox
says which calls were made twice and how many started in the busiest second: the budget is `max_requests_per_second`,
and the sandbox itself has no limit. Exits with 1 when a row differs, when a trial made more calls twice than a shard
has scopes, when calls came faster than the budget from the first to the last, or when a second had more than it and
`--slack` percent: a call counts when it arrives, and on a busy machine some arrive late, next to others.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask_world import busiest_second, meanwhile, wait_until
from support import day, read_rows

from cockpit_source.configuration import open_project, resolve_settings
from cockpit_source.fanout import reader
from cockpit_source.fanout.cluster import DaskFanOut
from cockpit_source.fanout.opening import fan_out_by_dask
from cockpit_source.load import run_load
from cockpit_source.pipeline import create_pipeline, set_runtime_defaults
from cockpit_source.sandbox import SandboxTenant, SpawnedSandbox, spawned_sandbox
from cockpit_source.sandbox_command import write_project

TABLES = ("licenses", "license_history", "scopes")
MEAN_SKUS = 12.5


@dataclass(frozen=True, slots=True)
class Trial:
    """A load and what the sandbox saw of it. `differing` counts rows that the load without Dask has not, or alone."""

    seconds: float
    calls: int
    repeated: int
    rate: float
    busiest: int
    differing: int
    killed_after: int | None = None


class Proof:
    """A simulated tenant, and loads of it that are compared with one in this process."""

    def __init__(self, folder: Path, sandbox: SpawnedSandbox, rate: float) -> None:
        self.folder = folder
        self._sandbox = sandbox
        self._settings = resolve_settings(max_requests_per_second=rate, publish_read_copy=False)
        self._number = 0
        self._expected: dict[str, Counter[str]] = {}
        self.size = 0

    def load(self, fan_out: DaskFanOut | None, kill_after: int | None = None) -> Trial:
        """Load into a database of its own; kill a worker after so many licence calls."""
        self._number += 1
        database = self.folder / f"trial{self._number}.duckdb"
        pipeline = create_pipeline(self._settings.tenant_key, database=database)
        _, first = self._sandbox.requests(10**8)
        pids = [] if fan_out is None else list(fan_out._client.run(os.getpid).values())

        def kill() -> None:
            if kill_after is not None:
                # the sign-in is a call too
                wait_until(lambda: self._sandbox.requests(10**8)[1] - first > kill_after, "the moment of the kill")
                os.kill(random.choice(pids), signal.SIGKILL)

        began = time.monotonic()
        with meanwhile(kill):
            result = run_load(pipeline, self._settings, as_of=day(0), fan_out=fan_out)
        seconds = time.monotonic() - began
        self.size = result.scopes_total
        rows = [row for row in self._sandbox.requests(first)[0] if row["path"].lower().endswith("/licenses")]
        moments = [row["received_at_seconds"] for row in rows]
        return Trial(
            seconds,
            len(rows),
            len(rows) - len({(row["path"], row["query"]) for row in rows}),
            (len(moments) - 1) / (max(moments) - min(moments)),
            busiest_second(moments),
            self._compare(database),
            kill_after,
        )

    def _compare(self, database: Path) -> int:
        tables = {name: Counter(map(repr, read_rows(database, name))) for name in TABLES}
        self._expected = self._expected or tables
        return sum(
            ((self._expected[name] - rows) + (rows - self._expected[name])).total() for name, rows in tables.items()
        )


def prove(arguments: argparse.Namespace) -> bool:
    """Run all loads and print them; whether every bound holds."""
    options: dict[str, Any] = {"customers": round(arguments.scopes * 0.906), "mean_skus": MEAN_SKUS}
    draws = random.Random(arguments.seed)
    with (
        tempfile.TemporaryDirectory() as name,
        spawned_sandbox(latency_ms=20, warm_up=True, incidents=False, **options) as sandbox,
    ):
        folder = Path(name)
        os.environ["DLT_DATA_DIR"] = f"{folder}/dlt"
        write_project(folder, SandboxTenant(incidents=False, **options), sandbox.base_url, list_day=0)
        open_project(folder)
        proof = Proof(folder, sandbox, arguments.rate)
        plain = proof.load(None)
        print(
            f"simulated tenant (sandbox) of {proof.size:,} scopes, budget {arguments.rate:g} calls a second, "
            f"seed {arguments.seed}"
        )
        print(f"{'':<36} {'seconds':>7} {'calls':>6} {'twice':>6} {'calls/s':>8} {'busiest':>8} {'rows differ':>12}")
        print(_format("without Dask", plain), flush=True)
        with fan_out_by_dask("local") as fan_out:
            assert isinstance(fan_out, DaskFanOut)
            trials = [proof.load(fan_out)]
            print(_format("two Dask workers", trials[0]), flush=True)
            for number in range(1, arguments.trials + 1):
                wait_until(lambda: len(fan_out._client.nthreads()) == 2, "two workers")
                trials.append(proof.load(fan_out, draws.randrange(1, proof.size)))
                killed = f"worker killed after {trials[-1].killed_after:,} calls"
                print(_format(f"{number:>3}  {killed}", trials[-1]), flush=True)
    shard = min(reader.SHARD_SCOPES[1], max(reader.SHARD_SCOPES[0], proof.size // 8))
    most = arguments.rate * (1 + arguments.slack / 100) + 1
    bounds = [
        ("the same tables every time", all(not trial.differing for trial in trials), f"{len(trials)} loads"),
        (
            f"at most a shard ({shard} scopes) read twice",
            all(trial.repeated <= shard for trial in trials),
            f"most {max(trial.repeated for trial in trials)}",
        ),
        (
            f"at most {arguments.rate:g} calls a second",
            all(trial.rate <= arguments.rate for trial in trials),
            f"most {max(trial.rate for trial in trials):.1f}",
        ),
        (
            f"at most {most:g} arriving in any second",
            all(trial.busiest <= most for trial in trials),
            f"most {max(trial.busiest for trial in trials)}",
        ),
    ]
    for title, holds, figure in bounds:
        print(f"  {title}: {'holds' if holds else 'BROKEN'} ({figure})")
    return all(holds for _, holds, _ in bounds)


def _format(title: str, trial: Trial) -> str:
    return (
        f"{title:<36} {trial.seconds:>7.1f} {trial.calls:>6,} {trial.repeated:>6} "
        f"{trial.rate:>8.1f} {trial.busiest:>8} {trial.differing:>12}"
    )


def main() -> int:
    """Prove it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--scopes", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=100, help="max_requests_per_second")
    parser.add_argument("--slack", type=float, default=20, help="percent")
    parser.add_argument("--seed", type=int, default=1)
    set_runtime_defaults()
    return int(not prove(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
