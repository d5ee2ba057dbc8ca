"""Loads of an API that allows 100 calls a second: `python benchmarks/throttled.py`.

The sandbox answers 429 with Retry-After 1 beyond 100 calls in any second, every other answer 20 ms late, and serves
about 2,000 scopes. Each contender of `compare_loads.py` loads them once with its usual settings, no setting of a pace
among them. Then this project loads them again, and 8 seconds after its first call the limit is halved.

From the sandbox's log: accepted calls per second from the first licence call to the last, as a share of the limit;
throttled calls as a share of all; scopes that were read. A load that ends with an error reads what it read; nothing
of that is in its tables.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare_loads import CONTENDERS
from measuring import load_command, tenant_options

from cockpit_source.sandbox import SandboxTenant, SpawnedSandbox, spawned_sandbox
from cockpit_source.sandbox_command import write_project

MIN_SHARE_OF_LIMIT = 95.0
MIN_SHARE_OF_NEW_LIMIT = 90.0
MAX_THROTTLED_SHARE = 2.0
HALVED_AFTER_SECONDS = 8.0
# until then a load may still be finding out about the new limit
SETTLED_AFTER_SECONDS = 4.0
TIMEOUT_SECONDS = 240


Bound = tuple[str, bool, str]


@dataclass(frozen=True, slots=True)
class Calls:
    """Licence calls of a load, from the log; `ended_well` is what its exit code says."""

    accepted_at: Sequence[float]
    throttled_at: Sequence[float]
    scopes: int
    seconds: float
    ended_well: bool

    def rate(self, since: float = 0.0) -> float:
        """Calls accepted a second, from `since` on."""
        moments = [moment for moment in self.accepted_at if moment >= since]
        return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else 0.0

    @property
    def throttled_percent(self) -> float:
        return 100 * len(self.throttled_at) / max(1, len(self.accepted_at) + len(self.throttled_at))


def load(
    sandbox: SpawnedSandbox, make_command: Callable[[Path], list[str]], meanwhile: Callable[[], None] | None = None
) -> Calls:
    """One load on a fresh database, and what the sandbox saw of it."""
    _, first = sandbox.requests(10**8)
    helper = threading.Thread(target=meanwhile) if meanwhile else None
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"DLT_DATA_DIR": f"{folder}/dlt", "COLUMNS": "120"}
        if helper:
            helper.start()
        started_at = time.monotonic()
        ended = subprocess.run(
            make_command(Path(folder) / "licences.duckdb"),
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        seconds = time.monotonic() - started_at
        if helper:
            helper.join()
    rows = [row for row in sandbox.requests(first)[0] if row["path"].lower().endswith("/licenses")]
    accepted = [row for row in rows if row["status"] == 200]
    return Calls(
        accepted_at=[row["received_at_seconds"] for row in accepted],
        throttled_at=[row["received_at_seconds"] for row in rows if row["status"] == 429],
        scopes=len({(row["path"], row["query"]) for row in accepted}),
        seconds=seconds,
        ended_well=ended.returncode == 0,
    )


def format_line(title: str, calls: Calls, scopes: int, limit: float) -> str:
    """A line of the table."""
    end = "every scope read" if calls.ended_well and calls.scopes == scopes else "failed, tables empty"
    return (
        f"{title:<34} {calls.seconds:>7.1f} {calls.rate():>8.1f} {100 * calls.rate() / limit:>7.1f} "
        f"{calls.throttled_percent:>9.1f} {calls.scopes:>6,} {end:>21}"
    )


def check_calls(when: str, calls: Calls, scopes: int) -> list[Bound]:
    """The bounds of the calls of a load: what is wanted, whether it holds, and the figure."""
    percent = calls.throttled_percent
    return [
        (
            f"at most {MAX_THROTTLED_SHARE:g} % throttled{when}",
            percent <= MAX_THROTTLED_SHARE,
            f"{percent:.1f} %, {len(calls.throttled_at)} calls",
        ),
        (f"every scope read{when}", calls.ended_well and calls.scopes == scopes, f"{calls.scopes:,}"),
    ]


def halve_when_calls_come(sandbox: SpawnedSandbox, limit: float, halved_at: list[float]) -> None:
    """Halve the limit 8 seconds after the next licence call."""
    _, first = sandbox.requests(10**8)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sandbox.requests(first)[1] < first + 10:
        time.sleep(0.1)
    time.sleep(HALVED_AFTER_SECONDS)
    sandbox.configure(calls_per_second=limit / 2)
    halved_at.append(time.monotonic())


def main() -> int:
    """Print the table and the bounds; 1 where one does not hold and that is to be an error."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scopes", type=int, default=2_000)
    parser.add_argument("--limit", type=float, default=100)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--style", choices=("window", "bucket", "minute"), default="window")
    usual = ["rest_api_parquet", "deferred_parquet"]
    parser.add_argument("--against", nargs="*", choices=CONTENDERS, default=usual, metavar="NAME")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bound does not hold")
    arguments = parser.parse_args()
    options: dict[str, Any] = tenant_options(arguments.scopes)
    tenant = SandboxTenant(**options)
    scopes = sum(1 for _ in tenant.scopes(day=0))
    with (
        tempfile.TemporaryDirectory() as folder,
        spawned_sandbox(
            latency_ms=arguments.latency_ms,
            warm_up=True,
            calls_per_second=arguments.limit,
            limit_style=arguments.style,
            **options,
        ) as sandbox,
    ):
        project = Path(folder)
        write_project(project, tenant, sandbox.base_url, list_day=0)

        def ours(database: Path) -> list[str]:
            return load_command(project, "--database", str(database), "--json")

        print(f"simulated tenant (sandbox) of {scopes:,} scopes, {arguments.limit:g} calls a second, then 429")
        print(f"{'':<34} {'seconds':>7} {'calls/s':>8} {'% limit':>7} {'% of 429':>9} {'scopes':>6} {'end':>21}")
        steady = load(sandbox, ours)
        print(format_line("this project", steady, scopes, arguments.limit), flush=True)
        for name in arguments.against:
            time.sleep(2)
            contender = CONTENDERS[name]
            calls = load(sandbox, lambda database, contender=contender: contender.command(project, database))  # type: ignore[misc]
            print(format_line(name, calls, scopes, arguments.limit), flush=True)
        time.sleep(2)
        halved_at: list[float] = []
        halved = load(sandbox, ours, lambda: halve_when_calls_come(sandbox, arguments.limit, halved_at))
    settled = halved.rate(halved_at[0] + SETTLED_AFTER_SECONDS)
    shares = [100 * steady.rate() / arguments.limit, 200 * settled / arguments.limit]
    bounds = [
        (f"at least {MIN_SHARE_OF_LIMIT:g} % of the limit", shares[0] >= MIN_SHARE_OF_LIMIT, f"{shares[0]:.1f} %"),
        *check_calls("", steady, scopes),
        *check_calls(", limit halved", halved, scopes),
        (
            f"{SETTLED_AFTER_SECONDS:g} s after the limit was halved, {MIN_SHARE_OF_NEW_LIMIT:g} % of the new",
            shares[1] >= MIN_SHARE_OF_NEW_LIMIT,
            f"{shares[1]:.1f} %",
        ),
    ]
    print("this project")
    for title, holds, figure in bounds:
        print(f"  {title}: {'holds' if holds else 'does not hold'} ({figure})")
    return int(arguments.strict and not all(holds for _, holds, _ in bounds))


if __name__ == "__main__":
    sys.exit(main())
