"""Days of a simulated tenant, each loaded in shards by several processes and then finished; what that must give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
from comparable_rows import to_comparable, to_text
from killing import CUSTOMERS_PER_SCOPE, SOURCE_FOLDER, bare_environment
from postgres_server import PostgresServer
from support import Model, Row, ScopeIds, day

from cockpit_source.pipeline import create_pipeline
from cockpit_source.sandbox import SandboxTenant, spawned_sandbox
from cockpit_source.sandbox_command import write_project
from cockpit_source.scopes import Scope, scope_key
from cockpit_source.shards import Shard
from cockpit_source.warehouse import Warehouse

MEAN_SKUS = 5.0
FINISHES_AFTER = timedelta(hours=1)
TABLES = ("licenses", "license_history", "scopes", "scope_runs", "runs")
# what a row of these tables is compared by; of the others by every column
_COMPARED = {
    "scope_runs": ("run_id", "scope_key", "outcome"),
    "runs": ("run_id", "status", "shard", "list_begun_at", "scopes_total", "scopes_ok", "scopes_empty"),
}
_LOADED = (0, 3)

# loads the shards that it is told one after another, as a script of a user would
_WORKER = """
import json, sys
from datetime import datetime
from pathlib import Path
from cockpit_source.command_options import enter_project
order = json.load(sys.stdin)
enter_project(Path(order["project"]))
from cockpit_source import CockpitError, create_pipeline, resolve_settings, run_load
from cockpit_source.errors import EmptyShard
settings = resolve_settings()
errors = 0
for shard in order["shards"]:
    pipeline = create_pipeline(settings.tenant_key, destination=order["destination"], shard=shard)
    try:
        result = run_load(pipeline, settings, shard=shard, as_of=datetime.fromisoformat(order["as_of"]))
        errors += result.exit_code not in (0, 3)
    except EmptyShard:
        pass
    except CockpitError as error:
        errors += 1
        print(shard, error, file=sys.stderr, flush=True)
sys.exit(errors)
"""


def environment_of(destination: str, dsn: str, files: Path) -> dict[str, str]:
    """How dlt is told of a database of PostgreSQL, as the destination or as the catalogue of a lake."""
    if destination == "postgres":
        return {"DESTINATION__POSTGRES__CREDENTIALS": dsn}
    prefix = "DESTINATION__DUCKLAKE__CREDENTIALS"
    return {
        f"{prefix}__DUCKLAKE_NAME": "lake",
        # nothing may be fetched
        f"{prefix}__GLOBAL_CONFIG": '{"autoinstall_known_extensions": false}',
        f"{prefix}__CATALOG": dsn,
        f"{prefix}__STORAGE__BUCKET_URL": str(files),
    }


class ShardedDays:
    """A simulated tenant of about so many scopes, and a warehouse that its days are loaded into, from day 0 on."""

    def __init__(self, folder: Path, server: PostgresServer, destination: str, scopes: int, shards: int) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._server = server
        self._destination = destination
        self._options: dict[str, Any] = {"customers": round(scopes * CUSTOMERS_PER_SCOPE), "mean_skus": MEAN_SKUS}
        self.tenant = SandboxTenant(**self._options)
        self.shards = [Shard(index, shards) for index in range(1, shards + 1)]
        self.processes: list[subprocess.Popen[str]] = []
        self._project = folder / "project"

    def __enter__(self) -> ShardedDays:
        self.sandbox = self._stack.enter_context(spawned_sandbox(**self._options))
        write_project(self._project, self.tenant, self.sandbox.base_url, list_day=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def fresh(self, number: int = 0) -> Iterator[None]:
        """An empty warehouse, and no folder of dlt."""
        with self._server.fresh_database() as database:
            root = self._folder / f"trial_{number}"
            files = environment_of(self._destination, self._server.url(database), root / "files")
            self.environment = bare_environment() | files | {"DLT_DATA_DIR": str(root / "dlt")}
            self._files = files
            self._pipelines = root / "pipelines"
            self.model = Model(self.tenant.domain)
            self._scope_runs: list[Row] = []
            self._runs: list[Row] = []
            yield

    def load(self, number: int, processes: int) -> tuple[float, int]:
        """Load a day from so many processes, and finish it: seconds, and how many errors there were."""
        self.sandbox.set_day(number)
        write_project(self._project, self.tenant, self.sandbox.base_url, list_day=number)
        began = time.monotonic()
        children = [self.start(number, self.shards[first::processes]) for first in range(processes)]
        errors = 0
        for child in children:
            _, said = child.communicate()
            if child.returncode:
                errors += 1
                sys.stderr.write(said)
        finish = self.command("load", "--shard", "finish", "--as-of", f"{_finish(number):%Y-%m-%dT%H:%M:%S}")
        if finish.returncode not in _LOADED:
            errors += 1
            sys.stderr.write(finish.stderr)
        seconds = time.monotonic() - began
        self._expect(number)
        return seconds, errors

    def start(self, number: int, shards: Sequence[Shard]) -> subprocess.Popen[str]:
        """A process that loads these shards of a day."""
        child = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self._child_environment(),
        )
        assert child.stdin is not None
        order = {
            "project": str(self._project),
            "destination": self._destination,
            "shards": [str(shard) for shard in shards],
            "as_of": day(number).isoformat(),
        }
        child.stdin.write(json.dumps(order))
        child.stdin.close()
        child.stdin = None
        return child

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`cockpit` with these arguments, on this warehouse."""
        place = ["--project", str(self._project), "--destination", self._destination]
        return subprocess.run(
            [sys.executable, "-c", "from cockpit_source.cli import run; run()", *arguments, *place],
            capture_output=True,
            text=True,
            env=self._child_environment(),
        )

    def differences(self) -> dict[str, tuple[int, int]]:
        """Tables that differ from the model: rows that lack, and rows too many."""
        labels = {row["run_id"]: _label(row["started_at"].astimezone(UTC), row["shard"]) for row in self.rows("runs")}
        found = {}
        for table, expected in self._expected().items():
            wanted = Counter(map(to_text, expected))
            actual = Counter(to_text(to_comparable(row, labels, _COMPARED.get(table))) for row in self.rows(table))
            if wanted != actual:
                found[table] = ((wanted - actual).total(), (actual - wanted).total())
        return found

    def rows(self, table: str) -> list[Row]:
        """All rows of a table."""
        with Warehouse(self.pipeline()).opened(read_only=True) as client:
            assert client is not None
            return client.rows(f"SELECT * FROM {{{table}}}")

    def pipeline(self) -> dlt.Pipeline:
        """The ordinary pipeline of the warehouse."""
        os.environ.update(self._files)
        return create_pipeline(self.tenant.domain, destination=self._destination, pipelines_dir=self._pipelines)

    def _child_environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (SOURCE_FOLDER, os.environ.get("PYTHONPATH"))))
        return self.environment | {"PYTHONPATH": path}

    def _expect(self, number: int) -> None:
        """What the model makes of the shards of a day and the run that ends them."""
        answers = {ids: self._right(ids, number) for ids in self.tenant.scopes(number)}
        keys = {ids: scope_key(self.tenant.domain, Scope(*ids)) for ids in answers}
        covered = set()
        for shard in self.shards:
            part = {
                ids: ("quarantined", []) if outcome == "empty" and self.model.licenses.get(keys[ids]) else answer
                for ids, answer in answers.items()
                if shard.holds(keys[ids])
                for outcome in answer[:1]
            }
            if part:
                self._note(day(number), str(shard), part, others=None)
            covered |= {ids for ids, (outcome, _) in part.items() if outcome in ("ok", "empty")}
        left = {ids: answer for ids, answer in answers.items() if ids not in covered}
        self._note(_finish(number), "finish", left, others=covered, covered=[answers[ids][0] for ids in covered])

    def _note(
        self,
        moment: datetime,
        shard: str,
        answers: dict[ScopeIds, tuple[str, list[Row]]],
        *,
        others: set[ScopeIds] | None,
        covered: Sequence[str] = (),
    ) -> None:
        label = _label(moment, shard)
        self.model.run(label, moment, answers, others=others)
        self._scope_runs += [
            {"run_id": label, "scope_key": self.model.scope_key(ids), "outcome": outcome}
            for ids, (outcome, _) in answers.items()
        ]
        outcomes = Counter([*covered, *(outcome for outcome, _ in answers.values())])
        good = outcomes["ok"] + outcomes["empty"]
        self._runs.append(
            {
                "run_id": label,
                "status": "complete" if good == outcomes.total() else "partial",
                "shard": shard,
                "list_begun_at": moment - FINISHES_AFTER if covered else None,
                "scopes_total": outcomes.total(),
                "scopes_ok": outcomes["ok"],
                "scopes_empty": outcomes["empty"],
            }
        )

    def _right(self, ids: ScopeIds, number: int) -> tuple[str, list[Row]]:
        customer = self.tenant.customer(ids[0])
        assert customer is not None
        if not customer.has_gdap_on(number):
            return "forbidden", []
        rows = self.tenant.licenses(ids[0], ids[1], number)
        return ("ok" if rows else "empty", rows)

    def _expected(self) -> dict[str, list[Row]]:
        return {
            "licenses": [row for rows in self.model.licenses.values() for row in rows],
            "license_history": self.model.history,
            "scopes": list(self.model.scopes.values()),
            "scope_runs": self._scope_runs,
            "runs": self._runs,
        }


def _finish(number: int) -> datetime:
    return day(number) + FINISHES_AFTER


def _label(moment: datetime, shard: str | None) -> str:
    return f"{moment:%m-%d %H} {shard}"
