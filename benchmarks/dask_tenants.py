"""Many tenants on Dask workers at once, against one after another: `python benchmarks/dask_tenants.py`.

Eight sandboxes, each a simulated tenant of about 500 scopes behind an API that allows 50 calls a second and answers
429 beyond, every answer 20 ms late. All are loaded into one DuckDB file, first one after another as `cockpit load`
does, then at once with two local Dask workers reading and this process loading. Seconds are from the start of the
first load to the end of the last, with and without the start of the workers.

From the logs of the sandboxes: calls a second of a tenant from its first licence call to its last, the busiest of
its seconds, counting refused calls too, and the share of calls that were refused. The tables of both ways are
compared whole. Everything shares this machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from measuring import tenant_options

from cockpit_source.configuration import resolve_settings
from cockpit_source.fanout.opening import fan_out_by_dask
from cockpit_source.load import run_load
from cockpit_source.load_result import LoadResult
from cockpit_source.pipeline import create_pipeline, set_runtime_defaults
from cockpit_source.reading import FanOut
from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, SandboxTenant, SpawnedSandbox, spawned_sandbox

MIN_TIMES_FASTER = 4.0
MAX_THROTTLED_PERCENT = 5.0
TABLES = ("licenses", "license_history", "scopes")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A simulated tenant, and the sandbox that serves it."""

    name: str
    sandbox: SpawnedSandbox
    tenant: SandboxTenant

    def settings(self) -> Any:
        """The settings of its load: every scope that it has."""
        scopes = [
            {"customer_id": customer, "provider_instance_id": instance, "reseller_id": reseller}
            for customer, instance, reseller in self.tenant.scopes(day=0)
        ]
        return resolve_settings(
            tenant=self.tenant.domain,
            tenant_key=self.name,
            base_url=self.sandbox.base_url,
            token_url=self.sandbox.token_url,
            token_scope=TOKEN_SCOPE,
            client_id=CSP_CLIENT.id,
            client_secret=CSP_CLIENT.secret,
            scopes=scopes,
            publish_read_copy=False,
        )


@dataclass(frozen=True, slots=True)
class Calls:
    """Licence calls of a tenant, from the log of its sandbox."""

    started_at: Sequence[float]
    throttled: int

    @property
    def rate(self) -> float:
        """Calls a second from the first to the last."""
        seconds = max(self.started_at) - min(self.started_at)
        return (len(self.started_at) - 1) / seconds if seconds else 0.0

    @property
    def busiest_second(self) -> int:
        """The most calls in any second."""
        moments = sorted(self.started_at)
        most = first = 0
        for last, moment in enumerate(moments):
            while moments[first] <= moment - 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    @property
    def throttled_percent(self) -> float:
        return 100 * self.throttled / len(self.started_at)


@contextmanager
def serve(count: int, scopes: int, rate: float, latency_ms: float) -> Iterator[list[Tenant]]:
    """So many sandboxes, each with a tenant of its own."""
    with ExitStack() as stack:
        tenants = []
        for number in range(count):
            options = tenant_options(scopes) | {"seed": 7 + number}
            sandbox = stack.enter_context(
                spawned_sandbox(latency_ms=latency_ms, warm_up=True, calls_per_second=rate, **options)
            )
            tenants.append(Tenant(f"tenant{number + 1}", sandbox, SandboxTenant(**options)))
        yield tenants


def load(tenants: Sequence[Tenant], database: Path, fan_out: FanOut | None) -> list[LoadResult]:
    """Load all tenants into one file: one after another, or at once where there is a fan-out."""

    def load_one(tenant: Tenant) -> LoadResult:
        settings = tenant.settings()
        return run_load(create_pipeline(settings.tenant_key, database=database), settings, fan_out=fan_out)

    jobs: list[Callable[[], LoadResult]] = [lambda tenant=tenant: load_one(tenant) for tenant in tenants]  # type: ignore[misc]
    return [job() for job in jobs] if fan_out is None else fan_out.run_at_once(jobs)


def watch(tenants: Sequence[Tenant], work: Callable[[], None]) -> list[Calls]:
    """What each sandbox saw while something was done."""
    first = [tenant.sandbox.requests(10**8)[1] for tenant in tenants]
    work()
    calls = []
    for tenant, since in zip(tenants, first, strict=True):
        rows = [row for row in tenant.sandbox.requests(since)[0] if row["path"].lower().endswith("/licenses")]
        calls.append(Calls([row["received_at_seconds"] for row in rows], sum(row["status"] == 429 for row in rows)))
    return calls


def read_tables(database: Path) -> dict[str, list[Any]]:
    """The tables without what differs between two runs: ids of runs and packages, and times."""
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = {}
        for table in TABLES:
            names = [row[0] for row in connection.execute(f"DESCRIBE cockpit.{table}").fetchall()]
            kept = [n for n in names if not n.endswith(("run_id", "_at", "_load_id")) and not n.startswith("valid_")]
            tables[table] = connection.execute(
                f"SELECT {', '.join(kept)} FROM cockpit.{table} ORDER BY ALL"
            ).fetchall()
        return tables


def format_line(title: str, seconds: float, scopes: int, calls: Sequence[Calls]) -> str:
    """A line of the table."""
    return (
        f"{title:<34} {seconds:>7.1f} {scopes / seconds:>8.0f} {max(c.rate for c in calls):>8.1f} "
        f"{max(c.busiest_second for c in calls):>8} {max(c.throttled_percent for c in calls):>9.1f}"
    )


def main() -> int:
    """Print the table and the bounds; 1 where one does not hold and that is to be an error."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tenants", type=int, default=8)
    parser.add_argument("--scopes", type=int, default=500)
    parser.add_argument("--limit", type=float, default=50, help="calls a second that each API allows")
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bound does not hold")
    arguments = parser.parse_args()
    set_runtime_defaults()
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(arguments.tenants, arguments.scopes, arguments.limit, arguments.latency_ms) as tenants,
    ):
        os.environ["DLT_DATA_DIR"] = f"{folder}/dlt"
        total = sum(sum(1 for _ in tenant.tenant.scopes(day=0)) for tenant in tenants)
        print(
            f"{len(tenants)} simulated tenants (sandboxes), {total:,} scopes in all, "
            f"{arguments.limit:g} calls a second each, then 429"
        )
        print(f"{'':<34} {'':>7} {'scopes':>8} {'highest of a tenant:':>27}")
        print(f"{'':<34} {'seconds':>7} {'a second':>8} {'calls/s':>8} {'busiest':>8} {'% of 429':>9}")
        results: dict[str, list[LoadResult]] = {}

        def work(name: str, fan_out: FanOut | None) -> Callable[[], None]:
            def run() -> None:
                results[name] = load(tenants, Path(folder) / f"{name}.duckdb", fan_out)

            return run

        began = time.monotonic()
        one_by_one = watch(tenants, work("one_by_one", None))
        seconds_before = time.monotonic() - began
        print(format_line("one tenant after another", seconds_before, total, one_by_one), flush=True)
        began = time.monotonic()
        with fan_out_by_dask("local") as fan_out:
            up = time.monotonic() - began
            at_once = watch(tenants, work("at_once", fan_out))
            seconds = time.monotonic() - began - up
        print(format_line("at once, on two Dask workers", seconds, total, at_once), flush=True)
        print(
            f"(the workers took {up:.1f} s to start; with that {(seconds_before / (seconds + up)):.1f} times as fast)"
        )
        same = read_tables(Path(folder) / "one_by_one.duckdb") == read_tables(Path(folder) / "at_once.duckdb")
    times = seconds_before / seconds
    highest = max(calls.rate for calls in at_once)
    throttled = max(calls.throttled_percent for calls in at_once)
    read = all(result.status == "complete" for loads in results.values() for result in loads)
    bounds = [
        (f"at least {MIN_TIMES_FASTER:g} times as fast", times >= MIN_TIMES_FASTER, f"{times:.1f} times"),
        ("calls a second of each tenant within its limit", highest <= arguments.limit, f"{highest:.1f}"),
        (f"at most {MAX_THROTTLED_PERCENT:g} % throttled", throttled <= MAX_THROTTLED_PERCENT, f"{throttled:.1f} %"),
        ("every scope read, both ways", read, f"{total:,}"),
        ("the same tables both ways", same, ", ".join(TABLES)),
    ]
    for title, holds, figure in bounds:
        print(f"  {title}: {'holds' if holds else 'does not hold'} ({figure})")
    return int(arguments.strict and not all(holds for _, holds, _ in bounds))


if __name__ == "__main__":
    sys.exit(main())
