"""Loads that are killed with SIGKILL at random instants of their life, and what they leave in the tables."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import duckdb
from comparable_rows import to_comparable, to_text
from support import Model, Row, ScopeIds, day

from cockpit_source.pipeline import DEFAULT_DATABASE
from cockpit_source.sandbox import SandboxTenant, spawned_sandbox
from cockpit_source.sandbox_command import write_project

# far enough from day 0 that many scopes have other answers
CHANGED_DAY = 30
MEAN_SKUS = 12.5
CUSTOMERS_PER_SCOPE = 0.906
TABLES = ("licenses", "license_history", "scopes", "scope_runs", "runs")
# what a row of these tables is compared by; of the others by every column
_COMPARED = {
    "scope_runs": ("run_id", "scope_key", "outcome"),
    "runs": ("run_id", "status", "scopes_total", "scopes_ok", "scopes_empty"),
}
_SOME_UNREAD = 3
_BUSY = 6
_CONFIGURATION = ("SOURCES__", "DESTINATION__", "DLT_")
SOURCE_FOLDER = str(Path(__file__).resolve().parents[1])


class Destination(Protocol):
    """Where the loads of a proof go: how to start from the same state again and again, and to read the tables."""

    arguments: list[str]
    environment: dict[str, str]

    def save(self) -> None:
        """Keep the state of now."""

    def restore(self) -> None:
        """Go back to the state that was kept."""

    def rows(self, table: str, dataset: str = "cockpit") -> list[Row]:
        """All rows of a table."""


class DuckDBFile:
    """The DuckDB file of the project; it is saved and restored with the project's folder."""

    def __init__(self, project: Path) -> None:
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self._database = project / DEFAULT_DATABASE

    def save(self) -> None:
        pass

    def restore(self) -> None:
        pass

    def rows(self, table: str, dataset: str = "cockpit") -> list[Row]:
        with duckdb.connect(str(self._database), read_only=True) as connection:
            rows: list[Row] = connection.execute(f"SELECT * FROM {dataset}.{table}").to_arrow_table().to_pylist()
        return rows


class PostgresDatabase:
    """A database of its own on a PostgreSQL server, and a copy of it as it was when it was saved."""

    def __init__(self, dsn: str) -> None:
        self._server = dsn
        self._name = f"cockpit_kills_{os.getpid()}"
        self._run(f"CREATE DATABASE {self._name}")
        self.arguments = ["--destination", "postgres"]
        self.environment = {"DESTINATION__POSTGRES__CREDENTIALS": self._dsn(self._name)}

    def save(self) -> None:
        self._run(f"CREATE DATABASE {self._name}_saved TEMPLATE {self._name}")

    def restore(self) -> None:
        self._run(f"DROP DATABASE {self._name} WITH (FORCE)")
        self._run(f"CREATE DATABASE {self._name} TEMPLATE {self._name}_saved")

    def rows(self, table: str, dataset: str = "cockpit") -> list[Row]:
        import psycopg2.extras

        with psycopg2.connect(self._dsn(self._name)) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {dataset}.{table}")
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        connection.close()
        return rows

    def drop(self) -> None:
        for name in (self._name, f"{self._name}_saved"):
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _dsn(self, database: str) -> str:
        return urlsplit(self._server)._replace(path=f"/{database}").geturl()

    def _run(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(self._server)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Trial:
    """What one load came to that was killed `kills` times and then left to finish.

    `last_kill_seconds` is the age of the process at its last kill, `calls_before` the calls made until then.
    """

    kills: int
    last_kill_seconds: float
    calls_before: int
    repeated_calls: int
    lost: int
    doubled: int
    overlaps: int

    @property
    def is_exact(self) -> bool:
        return not (self.lost or self.doubled or self.overlaps)


class Proof:
    """A simulated tenant, its day 0 loaded, and any number of trials of the load of a later day.

    By then one customer has left, one has lost its licences, four may not be read and one fails at every other call.
    """

    def __init__(
        self, folder: Path, destination: str, scopes: int, *, latency_ms: float, package_scopes: int | None
    ) -> None:
        self._stack = ExitStack()
        self._latency_ms = latency_ms
        self._package_scopes = package_scopes
        self._project = folder / "project"
        self._saved = folder / "saved"
        self._options: dict[str, Any] = {
            "customers": round(scopes * CUSTOMERS_PER_SCOPE),
            "mean_skus": MEAN_SKUS,
        }
        self._tenant = SandboxTenant(**self._options)
        self.scopes: list[ScopeIds] = list(self._tenant.scopes(0))
        self._destination_name = destination

    def __enter__(self) -> Proof:
        self._sandbox = self._stack.enter_context(spawned_sandbox(latency_ms=self._latency_ms, **self._options))
        write_project(self._project, self._tenant, self._sandbox.base_url, list_day=0)
        self.destination = self._stack.enter_context(open_destination(self._destination_name, self._project))
        self._load(0)
        self._sandbox.set_day(CHANGED_DAY)
        self.destination.save()
        shutil.copytree(self._project, self._saved)
        self._expected = self._expect()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, times: int = 2) -> float:
        """Seconds that a load of the later day takes when nothing happens to it; the longest of `times`."""
        return max(self._measure_once() for _ in range(times))

    def _measure_once(self) -> float:
        self._restore()
        began = time.monotonic()
        self._load(CHANGED_DAY)
        seconds = time.monotonic() - began
        trial = self._judge(0, 0.0, 0, 0)
        assert trial.is_exact, f"a load that nobody killed is not exact: {trial}"
        return seconds

    def run_trial(self, draws: random.Random, seconds: float, kills: int = 1) -> Trial:
        """Kill the load `kills` times, each at an instant of its first `seconds`, then let it finish."""
        self._restore()
        _, mark = self._sandbox.requests(since=10**8)
        killed = 0
        instant = 0.0
        while killed < kills:
            instant = draws.uniform(0, seconds)
            if self._kill_at(instant):
                killed += 1
            else:
                # it was over before; another load and another instant
                self._restore()
                _, mark = self._sandbox.requests(since=10**8)
                killed = 0
        calls_before = len(self._license_calls(mark))
        self._finish()
        calls = self._license_calls(mark)
        return self._judge(kills, instant, calls_before, len(calls) - len(set(calls)))

    def load_twice_at_once(self, *, work_folders: tuple[str, str] = ("dlt", "dlt")) -> tuple[list[str], Trial]:
        """Two loads of the later day, started together: how each ended, and what they came to.

        A load is "done", "busy", or "over" where it waited and then found its work done.
        """
        self._restore()
        children = [self.start(CHANGED_DAY, work_folder) for work_folder in work_folders]
        ends = []
        for child in children:
            _, raw = child.communicate()
            said = raw.decode()
            over = _is_over(child.returncode, said)
            ends.append("over" if over else {_SOME_UNREAD: "done", _BUSY: "busy"}.get(child.returncode, said))
        return sorted(ends), self._judge(0, 0.0, 0, 0)

    def start(self, number: int, work_folder: str = "dlt") -> subprocess.Popen[bytes]:
        """`cockpit load` of a day, in a process of its own."""
        preamble = ""
        if self._package_scopes is not None:
            preamble = f"from cockpit_source import packages; packages.PACKAGE_SCOPES = {self._package_scopes}; "
        path = os.pathsep.join(filter(None, (SOURCE_FOLDER, os.environ.get("PYTHONPATH"))))
        own = {"DLT_DATA_DIR": str(self._project / work_folder), "PYTHONPATH": path}
        return subprocess.Popen(
            [
                *(sys.executable, "-c", f"{preamble}from cockpit_source.cli import run; run()"),
                *("load", "--project", str(self._project), "--as-of", f"{day(number):%Y-%m-%dT%H:%M:%S}"),
                *self.destination.arguments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=bare_environment() | own | self.destination.environment,
        )

    def _load(self, number: int) -> None:
        child = self.start(number)
        _, said = child.communicate()
        assert child.returncode == _SOME_UNREAD, said.decode()

    def _kill_at(self, seconds: float) -> bool:
        """Start the load and kill it at this age; False when it was over before."""
        child = self.start(CHANGED_DAY)
        assert child.stderr is not None
        with child.stderr:
            time.sleep(seconds)
            if child.poll() is not None:
                said = child.stderr.read().decode()
                assert child.returncode == _SOME_UNREAD or _is_over(child.returncode, said), said
                return False
            child.send_signal(signal.SIGKILL)
            return child.wait() == -signal.SIGKILL

    def _finish(self) -> None:
        """Load until it is done. A server may hold on to what a killed client had for an instant."""
        for _ in range(60):
            child = self.start(CHANGED_DAY)
            _, raw = child.communicate()
            said = raw.decode()
            if child.returncode == _SOME_UNREAD or _is_over(child.returncode, said):
                return
            assert child.returncode == _BUSY, said
            time.sleep(0.5)
        raise AssertionError("the database stayed in use")

    def _restore(self) -> None:
        shutil.rmtree(self._project)
        shutil.copytree(self._saved, self._project)
        self.destination.restore()

    def _license_calls(self, since: int) -> list[tuple[str, str]]:
        """The calls that were answered; of a customer that fails at every other call only the others."""
        requests, _ = self._sandbox.requests(since)
        return [
            (request["path"], request["query"])
            for request in requests
            # one that was in flight at a kill has no status
            if request["path"].lower().endswith("/licenses") and (request["status"] or 0) < 500
        ]

    def _expect(self) -> dict[str, Counter[str]]:
        """The rows of every table after both days, with the days in place of the ids of runs."""
        model = Model(self._tenant.domain)
        days = (0, CHANGED_DAY)
        runs: list[Row] = []
        scope_runs: list[Row] = []
        for number in days:
            answers = {ids: self._right(ids, number) for ids in self.scopes}
            model.run(_label(number), day(number), answers)
            counts = Counter(outcome for outcome, _ in answers.values())
            runs.append(
                {
                    "run_id": _label(number),
                    "status": "partial",
                    "scopes_total": len(answers),
                    "scopes_ok": counts["ok"],
                    "scopes_empty": counts["empty"],
                }
            )
            for (customer, instance, reseller), (outcome, _) in answers.items():
                key = f"{self._tenant.domain}|{customer}|{instance}|{reseller or '-'}"
                scope_runs.append({"run_id": _label(number), "scope_key": key, "outcome": outcome})
        tables: dict[str, Iterable[Row]] = {
            "licenses": (row for rows in model.licenses.values() for row in rows),
            "license_history": model.history,
            "scopes": model.scopes.values(),
            "scope_runs": scope_runs,
            "runs": runs,
        }
        return {table: Counter(map(to_text, rows)) for table, rows in tables.items()}

    def _right(self, ids: ScopeIds, number: int) -> tuple[str, list[Row]]:
        customer = self._tenant.customer(ids[0])
        assert customer is not None
        if not customer.is_listed(number):
            return "not_found", []
        if not customer.has_gdap_on(number):
            return "forbidden", []
        rows = self._tenant.licenses(ids[0], ids[1], number)
        return ("ok" if rows else "empty", rows)

    def _judge(self, kills: int, seconds: float, calls_before: int, repeated: int) -> Trial:
        labels = self._label_runs()
        lost = doubled = 0
        for table in TABLES:
            rows = self.destination.rows(table)
            actual = Counter(to_text(to_comparable(row, labels, _COMPARED.get(table))) for row in rows)
            lost += (self._expected[table] - actual).total()
            doubled += (actual - self._expected[table]).total()
            if table == "license_history":
                overlaps = _count_overlaps(rows)
        return Trial(kills, seconds, calls_before, repeated, lost, doubled, overlaps)

    def _label_runs(self) -> dict[str, str]:
        """Ids of runs and the day that each is of; a day with a second run keeps the id of that."""
        labels: dict[str, str] = {}
        started = {day(number): _label(number) for number in (0, CHANGED_DAY)}
        for row in sorted(self.destination.rows("runs"), key=lambda row: str(row["run_id"])):
            label = started.pop(row["started_at"].astimezone(UTC), None)
            if label is not None:
                labels[row["run_id"]] = label
        return labels


@contextmanager
def open_destination(name: str, project: Path) -> Iterator[Destination]:
    """The destination of this name, empty; a PostgreSQL server is that of `PROOF_POSTGRES_DSN` or one of its own."""
    if name == "duckdb":
        yield DuckDBFile(project)
        return
    with _postgres_dsn() as dsn:
        database = PostgresDatabase(dsn)
        try:
            yield database
        finally:
            database.drop()


@contextmanager
def _postgres_dsn() -> Iterator[str]:
    if dsn := os.environ.get("PROOF_POSTGRES_DSN"):
        yield dsn
        return
    from postgres_server import running_postgres

    with running_postgres() as server:
        yield server.url()


def _is_over(exit_code: int, said: str) -> bool:
    """Whether the load of that day was refused since it is complete: the kill came after its last work."""
    return exit_code == 2 and "not later than" in said


def bare_environment() -> dict[str, str]:
    """The environment without configuration of anybody's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_CONFIGURATION)}


def _label(number: int) -> str:
    return f"run of day {number}"


def _count_overlaps(history: Iterable[Row]) -> int:
    """Versions of a product of a scope that begin before the one before them has ended."""
    versions: defaultdict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in history:
        versions[row["scope_key"], row["sku_id"], row["occurrence"]].append(row)
    return sum(
        earlier["valid_to"] is None or later["valid_from"] < earlier["valid_to"]
        for rows in versions.values()
        for earlier, later in pairwise(sorted(rows, key=lambda row: row["valid_from"]))
    )
