"""The same load by this project and by what one would write instead: `python benchmarks/compare_loads.py`.

In turn, each run in a process of its own, on a fresh database and without any working files of dlt: `cockpit load`,
dlt's `rest_api` source, `@dlt.defer` with `requests`, and the floor, which is aiohttp, Arrow and DuckDB without dlt.
All sign in by client credentials, read the licences of every scope of one list from the sandbox, about 4,000 scopes
and 50,000 rows with every answer 20 ms late, and keep `licenses`, replaced scope by scope, and `license_history` in a
DuckDB file. After each run both tables are compared row by row with the simulated tenant; a contender that loaded
anything else ends the benchmark. The rounds are interleaved, so that a busy minute hits all alike.

Measured from outside: seconds from process start to process end, CPU of the process and its children (not of the
sandbox, which shares the machine), and the maximum resident set. The table shows medians.

What is the same, and what is not:

* Each has the number of calls at a time that suits it: this project 96 (64 took 0.4 s longer, 128 as long),
  `@dlt.defer` and the floor 64, `rest_api` 32; `rest_api_64` is the same with 64, and was slower.
* `cockpit load` also writes outcomes, runs and scopes, syncs every batch to disk, retries and guards. The others do
  not, except that `rest_api` retries: a call that fails ends their load. The two on dlt keep the last rows of a scope
  that comes back empty, as a merge by key does; the tenant of this benchmark has no such scope.
* The two on dlt come in two forms: with the concurrency tuned and dlt's defaults for the rest, and `_parquet`, tuned
  as far as dlt's settings go. Seconds of single trials on two cores, where half a second is
  noise: Parquet as loader file format instead of `insert_values`, dlt's default for DuckDB, takes `rest_api` from
  about 20 to 8.2, `@dlt.defer` from 12 or more to 5.8, and the peak of both from 1.3 GiB to under 400 MiB; `jsonl`
  takes 8.9 and 6.7. Twice as many calls handed out as there are workers: as many (8.4, 6.2) or four times as many
  (9.3, 6.7) were no faster. Two processes for normalising instead of one: 8.6 and 7.1. `fifo` order, scopes in pages
  and letting `rest_api` find the rows of an answer change nothing, nor do 8 or 16 scopes per deferred call.
* What goes beyond settings is left out of `@dlt.defer`. An Arrow table per deferred call of 16 scopes, with a schema
  and row hashes of one's own, takes about 0.8 of the CPU and 500 MiB; one per scope takes twice the seconds. Parsing
  by orjson saves another 0.4 s, and sessions with `trust_env = False` 0.8 s, but ignore the proxies and certificates
  of the environment. All three together took 4.0 to 5.4, when the rows alone took 5.5 to 7.7.

`--only` picks contenders by name. The bounds are checked on all of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from measuring import Measured, load_command, run_measured, sandbox_project, tenant_options

CONTENDERS_FOLDER = Path(__file__).parent / "contenders"

MIN_TIMES_FASTER = 4.0
MAX_TIMES_FLOOR = 1.8
MAX_PEAK_MIB = 400

Row = tuple[str, str, str, str, int, int]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the load: a script of `contenders/`, or None for this project.

    `tables` finds the current rows in what it loaded: schema, prefix of the columns with ids, column that ends a
    version.
    """

    title: str
    script: str | None
    tables: tuple[str, str, str]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, project: Path, database: Path) -> list[str]:
        """The command that loads the project into a database."""
        if self.script is None:
            return load_command(project, "--database", str(database), "--json")
        return [sys.executable, str(CONTENDERS_FOLDER / self.script), str(project), str(database), *self.arguments]

    def queries(self) -> dict[str, str]:
        """SQL for the current rows of each table, in the columns of `Row`."""
        schema, prefix, valid_to = self.tables
        columns = (
            f"{prefix}customer_id, {prefix}provider_instance_id, coalesce({prefix}reseller_id, ''), "
            "sku_id, total_licenses, consumed_licenses"
        )
        return {
            "licenses": f"SELECT {columns} FROM {schema}.licenses",
            "license_history": f"SELECT {columns} FROM {schema}.license_history WHERE {valid_to} IS NULL",
        }


_REST_API = ("rest_api_source.py", ("inventory", "_scopes_", "_dlt_valid_to"))
_DEFERRED = ("deferred_requests.py", ("inventory", "", "_dlt_valid_to"))
_WORKERS_64 = {"EXTRACT__WORKERS": "64", "EXTRACT__MAX_PARALLEL_ITEMS": "96"}

CONTENDERS = {
    "project": Contender(
        "this project, 96 at a time",
        None,
        ("cockpit", "", "valid_to"),
        environment={"SOURCES__COCKPIT__MAX_CONCURRENCY": "96"},
    ),
    "rest_api": Contender("dlt rest_api, 32 workers", *_REST_API),
    "rest_api_parquet": Contender("the same with Parquet files", *_REST_API, ("parquet",)),
    "deferred": Contender("@dlt.defer, requests, 64 threads", *_DEFERRED),
    "deferred_parquet": Contender("the same with Parquet files", *_DEFERRED, ("parquet",)),
    "floor": Contender("floor: aiohttp, Arrow, DuckDB", "floor_aiohttp.py", ("main", "", "valid_to")),
    "rest_api_64": Contender("rest_api_parquet with 64 workers", *_REST_API, ("parquet",), _WORKERS_64),
}
USUAL = tuple(name for name in CONTENDERS if name != "rest_api_64")


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of one contender; `fastest` and `slowest` are its extreme runs, in seconds."""

    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    peak_mib: float


def run_once(contender: Contender, project: Path, scopes: int, checker: Executor) -> Measured:
    """One load into a fresh database, compared with the tenant."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "licences.duckdb"
        environment = {**contender.environment, "DLT_DATA_DIR": str(Path(folder) / "dlt")}
        measured = run_measured(contender.command(project, database), environment)
        difference = checker.submit(find_difference, scopes, database, contender.queries()).result()
    if difference:
        raise SystemExit(f"{contender.title} did not load the tenant: {difference}")
    return measured


def find_difference(scopes: int, database: Path, queries: Mapping[str, str]) -> str:
    """How the tables of a database differ from the tenant; empty when they do not.

    Runs in a process of its own: the memory it takes would else show in the peaks of the contenders.
    """
    import duckdb

    expected = _expected_rows(scopes)
    with duckdb.connect(str(database), read_only=True) as connection:
        for table, query in queries.items():
            rows: Counter[Any] = Counter(connection.execute(query).fetchall())
            if rows != expected:
                missing, foreign = (expected - rows).total(), (rows - expected).total()
                return f"{table} lacks {missing} of {expected.total()} rows and has {foreign} others"
    return ""


@cache
def _expected_rows(scopes: int) -> Counter[Row]:
    from cockpit_source.sandbox import SandboxTenant

    tenant = SandboxTenant(**tenant_options(scopes))
    return Counter(
        (customer, instance, reseller or "", row["skuId"], row["totalLicenses"], row["consumedLicenses"])
        for customer, instance, reseller in tenant.scopes(day=0)
        for row in tenant.licenses(customer, instance, day=0)
    )


def count_tenant(scopes: int) -> tuple[int, int]:
    """Scopes and licence rows of the tenant."""
    from cockpit_source.sandbox import SandboxTenant

    tenant = SandboxTenant(**tenant_options(scopes))
    return sum(1 for _ in tenant.scopes(day=0)), _expected_rows(scopes).total()


def compare(names: Sequence[str], project: Path, scopes: int, rounds: int, checker: Executor) -> dict[str, Figures]:
    """The figures of each contender over interleaved rounds."""
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(run_once(CONTENDERS[name], project, scopes, checker))
    return {name: _summarise(measured) for name, measured in runs.items()}


def _summarise(runs: Sequence[Measured]) -> Figures:
    seconds = [run.seconds for run in runs]
    return Figures(
        seconds=statistics.median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        peak_mib=statistics.median(run.peak_mib for run in runs),
    )


def format_table(figures: Mapping[str, Figures]) -> list[str]:
    """The table: a line per contender, with ratios of seconds where there is something to compare with."""
    lines = [
        f"{'':<34} {'seconds':>7} {'min-max':>11} {'CPU s':>6} {'peak MiB':>8} {'x this project':>14} {'x floor':>7}"
    ]
    for name, figure in figures.items():
        ratios = [_ratio(figure, figures.get(other)) for other in ("project", "floor")]
        span = f"{figure.fastest:.1f}-{figure.slowest:.1f}"
        lines.append(
            f"{CONTENDERS[name].title:<34} {figure.seconds:>7.1f} {span:>11} {figure.cpu_seconds:>6.1f} "
            f"{figure.peak_mib:>8.0f} {ratios[0]:>14} {ratios[1]:>7}"
        )
    return lines


def _ratio(figure: Figures, other: Figures | None) -> str:
    return "" if other is None else f"{figure.seconds / other.seconds:.2f}"


def check_bounds(figures: Mapping[str, Figures]) -> list[str]:
    """A line per bound that the figures allow to judge."""
    lines = []
    project, floor = figures.get("project"), figures.get("floor")
    if project is None:
        return lines
    for name in ("rest_api", "rest_api_parquet", "deferred", "deferred_parquet"):
        if name in figures:
            times = figures[name].seconds / project.seconds
            text = f"at least {MIN_TIMES_FASTER:g} times as fast as {name}"
            lines.append(_judge(text, times >= MIN_TIMES_FASTER, f"{times:.2f} times"))
    if floor is not None:
        times = project.seconds / floor.seconds
        text = f"at most {MAX_TIMES_FLOOR:g} times the seconds of the floor"
        lines.append(_judge(text, times <= MAX_TIMES_FLOOR, f"{times:.2f} times"))
    text = f"peak memory at most {MAX_PEAK_MIB} MiB"
    lines.append(_judge(text, project.peak_mib <= MAX_PEAK_MIB, f"{project.peak_mib:.0f} MiB"))
    return lines


def _judge(bound: str, holds: bool, figure: str) -> str:
    return f"{bound}: {'holds' if holds else 'does not hold'} ({figure})"


def main() -> None:
    """Print the table and the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scopes", type=int, default=4_000)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=CONTENDERS, default=USUAL, metavar="NAME", help=", ".join(CONTENDERS)
    )
    arguments = parser.parse_args()
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as checker,
        sandbox_project(arguments.scopes, arguments.latency_ms) as (project, _),
    ):
        scopes, rows = checker.submit(count_tenant, arguments.scopes).result()
        print(
            f"simulated tenant (sandbox) of {scopes:,} scopes and {rows:,} rows, answers {arguments.latency_ms:g} ms "
            f"late, all processes on {os.cpu_count()} cores; medians of {arguments.rounds}",
            flush=True,
        )
        figures = compare(arguments.only, project, arguments.scopes, arguments.rounds, checker)
    print("\n".join([*format_table(figures), "this project", *(f"  {line}" for line in check_bounds(figures))]))


if __name__ == "__main__":
    main()
