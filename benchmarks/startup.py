"""How long a small load takes until its first call, and in all: `python benchmarks/startup.py`.

Loads 20 scopes twice into a fresh project, five times over, each load in a process of its own, against a sandbox in
this process that answers 20 ms late. Prints medians: seconds from the start of the command to the arrival of the
first licence call at the sandbox, to that of the last, and to the end of the process. `--profile` shows where a first
load spends them: the packages that take longest to import, and the calls of the main thread.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pstats
import re
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import MEAN_SKUS, load_command, run_measured

from cockpit_source.sandbox import Faults, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.sandbox_command import write_project

PROFILE_PACKAGES = 10
PROFILE_CALLS = 15

_IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| +(\S+)")
_OURS = re.compile(r"\b(?:cockpit_source|dlt)/.*")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the start of a command: to its first and last licence call, and to its end."""

    first_call: float
    last_call: float
    whole: float


def small_tenant(scopes: int) -> SandboxTenant:
    """The smallest tenant with that many scopes, or one more."""
    tenants = (
        SandboxTenant(customers=customers, mean_skus=MEAN_SKUS, incidents=False) for customers in itertools.count(1)
    )
    return next(tenant for tenant in tenants if count_scopes(tenant) >= scopes)


def count_scopes(tenant: SandboxTenant) -> int:
    """Scopes of a tenant on its first day."""
    return sum(1 for _ in tenant.scopes(day=0))


@contextmanager
def fresh_project(sandbox: Sandbox) -> Iterator[tuple[Path, dict[str, str]]]:
    """A project that was never loaded, and the environment to load it in."""
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), sandbox.tenant, sandbox.base_url, list_day=0)
        yield Path(folder), {"DLT_DATA_DIR": str(Path(folder) / "dlt")}


def time_load(sandbox: Sandbox, project: Path, environment: dict[str, str]) -> Timing:
    """Load the project once."""
    sandbox.clear_requests()
    measured = run_measured(load_command(project, "--json"), environment)
    arrivals = [
        request.received_at_seconds - measured.started_at
        for request in sandbox.requests
        if request.path.endswith("/licenses")
    ]
    return Timing(min(arrivals), max(arrivals), measured.seconds)


def print_timings(sandbox: Sandbox, rounds: int) -> None:
    """The table, over `rounds` fresh projects."""
    timings: dict[str, list[Timing]] = {"first": [], "second": []}
    for _ in range(rounds):
        with fresh_project(sandbox) as (project, environment):
            for load in timings.values():
                load.append(time_load(sandbox, project, environment))
    print(f"{'load':>6} {'first call':>11} {'last call':>10} {'whole load':>11} {'min-max':>11}")
    for name, load in timings.items():
        whole = [timing.whole for timing in load]
        print(
            f"{name:>6} {statistics.median(timing.first_call for timing in load):>9.2f} s "
            f"{statistics.median(timing.last_call for timing in load):>8.2f} s {statistics.median(whole):>9.2f} s "
            f"{min(whole):>6.2f}-{max(whole):.2f}"
        )


def print_imports(sandbox: Sandbox) -> None:
    """The packages that take longest to import in a first load, by the time spent in their own modules."""
    with fresh_project(sandbox) as (project, environment):
        python, *command = load_command(project, "--json")
        log = _run_quietly([python, "-X", "importtime", *command], environment).stderr
    own: defaultdict[str, int] = defaultdict(int)
    modules: defaultdict[str, int] = defaultdict(int)
    for microseconds, module in _IMPORT.findall(log):
        package = module.split(".")[0]
        own[package] += int(microseconds)
        modules[package] += 1
    print(f"\nimports: {sum(own.values()) / 1000:.0f} ms under -X importtime, by package, without what it imports")
    for package in sorted(own, key=own.__getitem__, reverse=True)[:PROFILE_PACKAGES]:
        print(f"{own[package] / 1000:>8.0f} ms  {package} ({modules[package]} modules)")


def print_calls(sandbox: Sandbox) -> None:
    """Where the main thread of a first load spends its time, under cProfile: functions of this project and dlt."""
    with fresh_project(sandbox) as (project, environment):
        profile = project / "load.prof"
        python, _, *command = load_command(project, "--json")
        _run_quietly([python, "-m", "cProfile", "-o", str(profile), "-m", *command], environment)
        calls: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(str(profile)).stats
    print("\ncalls of the main thread, cumulative and own ms under cProfile, in this project and dlt")
    found = [
        (cumulative, own, place) for place, (_, _, own, cumulative, _) in calls.items() if _OURS.search(place[0])
    ]
    for cumulative, own, (path, line, function) in sorted(found, reverse=True)[:PROFILE_CALLS]:
        print(f"{cumulative * 1000:>8.0f} {own * 1000:>6.0f} ms  {_OURS.findall(path)[-1]}:{line} {function}")


def _run_quietly(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)


def main() -> None:
    """Print the table, and the profile when asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scopes", type=int, default=20)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    tenant = small_tenant(arguments.scopes)
    with running_sandbox(tenant, faults=Faults(latency_ms=arguments.latency_ms)) as sandbox:
        print(
            f"simulated tenant (sandbox) of {count_scopes(tenant)} scopes, medians of {arguments.rounds}, "
            "from the start of the command"
        )
        print_timings(sandbox, arguments.rounds)
        if arguments.profile:
            print_imports(sandbox)
            print_calls(sandbox)


if __name__ == "__main__":
    main()
