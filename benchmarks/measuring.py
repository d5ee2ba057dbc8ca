"""What the benchmarks share: the tenant they load, and a measured child process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cockpit_source.sandbox import SandboxTenant, SpawnedSandbox, spawned_sandbox
from cockpit_source.sandbox_command import write_project

MEAN_SKUS = 12.5
# gives exactly 4,000 scopes, one load package, where 4,000 are asked for
CUSTOMERS_PER_SCOPE = 0.906


@dataclass(frozen=True, slots=True)
class Measured:
    """A child process that ended well.

    `started_at` is on the monotonic clock. `cpu_seconds` is user and system time, children included. `peak_mib` is
    the maximum resident set of the process or, where larger, of its largest child. It is never less than that of
    the process which starts it, so that one has to stay small.
    """

    output: str
    started_at: float
    seconds: float
    cpu_seconds: float
    peak_mib: float


def tenant_options(scopes: int) -> dict[str, Any]:
    """Options of a simulated tenant of about `scopes` scopes, in which nothing happens to a customer."""
    return {"customers": round(scopes * CUSTOMERS_PER_SCOPE), "mean_skus": MEAN_SKUS, "incidents": False}


@contextmanager
def sandbox_project(scopes: int, latency_ms: float, **tenant: Any) -> Iterator[tuple[Path, SpawnedSandbox]]:
    """A project folder that points at a sandbox in a process of its own, whose answers are made in advance.

    `tenant` are further options of the simulated tenant.
    """
    options = tenant_options(scopes) | tenant
    with (
        tempfile.TemporaryDirectory() as folder,
        spawned_sandbox(latency_ms=latency_ms, warm_up=True, **options) as sandbox,
    ):
        write_project(Path(folder), SandboxTenant(**options), sandbox.base_url, list_day=0)
        yield Path(folder), sandbox


def load_command(project: Path, *arguments: str) -> list[str]:
    """`cockpit load` of a project, with the command of this environment."""
    return [str(Path(sys.executable).with_name("cockpit")), "load", "--project", str(project), *arguments]


def run_measured(command: Sequence[str], environment: Mapping[str, str]) -> Measured:
    """Run a command to its end, with `environment` on top of ours. Exits when it fails."""
    started_at = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | dict(environment)) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started_at
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}: {output}")
    return Measured(output, started_at, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
