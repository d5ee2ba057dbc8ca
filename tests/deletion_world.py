"""A small simulated tenant, its inventory and its ledger, for tests that let anything happen to the deletions.

Planner, applier, verifier and ledger are the real ones, over HTTP and in DuckDB. What is not: the time, which a test
moves, and the load, whose rows are written directly, into a DuckDB in memory, since an inventory is opened so often.
The world watches every DELETE request at the moment when it reaches the sandbox, before it is answered, and writes
down what must never be.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from starlette.responses import Response

from cockpit_source.client import CockpitClient
from cockpit_source.configuration import resolve_settings
from cockpit_source.deletions.applier import apply_plan
from cockpit_source.deletions.approval import approve_unattended
from cockpit_source.deletions.delete_client import DeleteClient
from cockpit_source.deletions.inventory import Inventory
from cockpit_source.deletions.ledger import open_ledger_at
from cockpit_source.deletions.ledger_file import LedgerFile
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.deletions.ledger_store import DuckDBStore
from cockpit_source.deletions.planner import make_plan
from cockpit_source.deletions.records import Plan, hash_text, to_canonical
from cockpit_source.deletions.selection import DeletionQuery
from cockpit_source.deletions.session import Clock, Session
from cockpit_source.deletions.settings import STOP_VARIABLE, DeletionSettings, resolve_deletion_settings
from cockpit_source.deletions.verifier import settle_open_items
from cockpit_source.errors import CockpitError
from cockpit_source.pipeline import create_pipeline
from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.sandbox.answers import Refused
from cockpit_source.sandbox.request_log import LoggedRequest
from cockpit_source.tables import COUNT, FLAG, TABLES, TEXT, TIME

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
CUSTOMERS = 40
# so many of them something happens to
ACTORS = 6
# answers of the API that say that it did not take the deletion
NOT_TAKEN = {400, 401, 403, 404, 409, 429}
# as if it had never happened
NEVER_SECONDS = 10.0**9
_FILLERS: dict[Any, Any] = {TEXT: "x", COUNT: 0, FLAG: False, TIME: START}
_DAY = timedelta(hours=24)


class Crash(BaseException):
    """The process ends here."""


class WorldClock(Clock):
    """A time that only tests move, and sleeping, which moves it as well."""

    def __init__(self, tick: Callable[[str], None]) -> None:
        self.moment = START
        self._tick = tick

    def now(self) -> datetime:
        # two records at the same microsecond would be one more thing to think about
        self.moment += timedelta(microseconds=1)
        return self.moment

    def sleep(self, seconds: float) -> None:
        self._tick("sleep")
        self.moment += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Delete:
    """A DELETE request as it came."""

    at: datetime
    path: str
    correlation_id: str
    plan_id: str
    item: int
    request: LoggedRequest
    command: int


class InventoryRows:
    """The tables of an inventory, for reading as `warehouse.DatasetClient` reads them."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute("SET TimeZone = 'UTC'")
        self.write_all({name: [] for name in TABLES})
        self._connection.execute("CREATE TABLE _dlt_loads AS SELECT '1' AS load_id, 0 AS status")

    def write_all(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        for name, rows in tables.items():
            self.write(name, rows)

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Put these rows in place of those of a table."""
        new_rows = _to_arrow(name, rows)  # noqa: F841 - the statement names it
        self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM new_rows")

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        names = {name: name for name in (*TABLES, "_dlt_loads")}
        statement = sql.format_map(names).replace("%s", "?")
        found: list[dict[str, Any]] = self._connection.execute(statement, list(values)).to_arrow_table().to_pylist()
        return found


@dataclass(frozen=True, slots=True)
class WorldSession(Session):
    """A session whose inventory lies in memory."""

    tables: InventoryRows

    def inventory(self) -> AbstractContextManager[Inventory]:
        return nullcontext(Inventory(self.tables, self.tenant_key))  # type: ignore[arg-type]


class World:
    """Everything there is; `reset` begins anew. `wrong` holds what must never be."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.tenant = sandbox.tenant
        self.actors = self.tenant.customers[:ACTORS]
        self.names = {customer.id: customer.company_name for customer in self.tenant.customers}
        self.database = folder / "inventory.duckdb"
        self.ledger_database = folder / "inventory.deletions.duckdb"
        self.pipeline = create_pipeline(
            self.tenant.domain, database=self.database, pipelines_dir=folder / "pipelines"
        )
        # dlt resolves its configuration anew at every call, which takes longer than all the rest
        clients = self.pipeline.destination_client(), self.pipeline.sql_client()
        self.pipeline.destination_client = lambda *_: clients[0]
        self.pipeline.sql_client = lambda *_: clients[1]
        self.place = ledger_place(self.pipeline)
        self.inventory = InventoryRows()
        self._write_empty_dataset()
        self._keeper: duckdb.DuckDBPyConnection | None = None
        self.clock = WorldClock(self.tick)
        self.protected_file = folder / "protected.txt"
        self.stop_file = folder / "stop"
        self._clients: dict[object, CockpitClient] = {}
        self.steps = self.deletes_seen = self.runs_seen = 0
        self.ends: Counter[str] = Counter()
        self._listen()
        self.reset()

    # the beginning

    def reset(self) -> None:
        self.runs_seen += 1
        self.sandbox.clear()
        self.sandbox.deletions.undo()
        self.sandbox.restore()
        self.sandbox.configure(deletion_delay_seconds=5, deletion_outcome="Succeded", blocks_active_deletions=False)
        self.sandbox.clear_requests()
        for customer in self.actors:
            self.rename(customer.id, self.names[customer.id])
        self.clock.moment = START
        self.set_switch(None)
        self.protected_file.write_text("")
        self._close_keeper()
        for path in [*self.folder.glob("*.jsonl*"), *self.folder.glob("*.deletions.duckdb*")]:
            path.unlink()
        self.limits: dict[str, Any] = {}
        self.enabled = True
        self.access: dict[str, str] = {}
        self.plans: list[Plan] = []
        self.wrong: list[str] = []
        self.deletes: list[Delete] = []
        self.accepted: set[str] = set()
        self.delete_faults: list[str] = []
        # what happens while the next DELETE is under way
        self.at_next_delete: Callable[[], None] | None = None
        self.crash_at: int | None = None
        self.tampered = False
        self.lines: list[bytes] = []
        self.ended: set[tuple[str, int]] = set()
        self._saved: dict[Path, bytes] = {}
        self._began_at = START
        self._command = 0
        self._is_approved = False
        self._begun_customers = 0
        self._first_seen: dict[str, tuple[str, datetime | None, datetime | None]] = {}
        self._runs: list[dict[str, Any]] = []
        self._ever: dict[tuple[str, str, str | None], datetime | None] = {}
        self._gone: dict[str, datetime | None] = {}
        self.sandbox.offboard(*(customer.id for customer in self.actors[: ACTORS - 1]))
        self.load()
        self.pass_time(timedelta(minutes=1))

    # what happens in the world

    def rename(self, customer_id: str, name: str) -> None:
        object.__setattr__(self.tenant.customer(customer_id), "company_name", name)

    def answer(self, customer_id: str, rows: list[dict[str, Any]] | None) -> None:
        """Let the API answer licence calls for a customer so; None: as usual."""
        if rows is None:
            self.sandbox._answers.pop(customer_id, None)
        else:
            self.sandbox.answer(customer_id, json.dumps(rows).encode())

    def delete_elsewhere(self, customer_id: str) -> None:
        """Somebody else deletes a customer."""
        self.sandbox.deletions._customers.add(customer_id)

    def pass_time(self, span: timedelta) -> None:
        self.clock.moment += span

    def set_switch(self, how: str | None) -> None:
        os.environ.pop(STOP_VARIABLE, None)
        self.stop_file.unlink(missing_ok=True)
        if how == "variable":
            os.environ[STOP_VARIABLE] = "1"
        elif how == "file":
            self.stop_file.touch()

    @property
    def is_stopped(self) -> bool:
        return STOP_VARIABLE in os.environ or self.stop_file.exists()

    def load(self, flaw: str | None = None) -> None:
        """What a load of the sandbox would write now; `flaw` is what goes wrong with it."""
        now = self.clock.now()
        run_id = f"run-{len(self._runs) + 1}"
        listed = [c for c in self.tenant.customers if self.sandbox.is_listed(c, 0)]
        scopes = [
            (c.id, instance_id, c.reseller_id)
            for c in listed
            for instance_id in c.provider_instance_ids
            if self.sandbox.has_instance(c, instance_id)
        ]
        for customer in self.tenant.customers:
            self._gone[customer.id] = None if customer in listed else self._gone.get(customer.id) or now
        for ids in {*scopes, *self._ever}:
            self._ever[ids] = None if ids in scopes else self._ever.get(ids) or now
        outcome = "failed" if flaw == "failed_scopes" else "ok"
        licenses = [row for ids in scopes for row in self._licenses(ids)]
        self._runs.append(
            {
                "run_id": run_id,
                "started_at": now,
                "finished_at": None if flaw == "killed" else now + timedelta(seconds=30),
                "status": "running" if flaw == "killed" else "complete",
                "base_url": self.access.get("base_url", self.sandbox.base_url),
                "listing_complete": flaw != "no_listing",
                "customers_listed": None if flaw == "no_listing" else len(listed),
                "scopes_total": len(scopes),
                "scopes_skipped": 3 if flaw == "gaps" else 0,
                "_dlt_load_id": "lost" if flaw == "uncommitted" else "1",
            }
        )
        actors = {customer.id for customer in self.actors}
        tables = {
            "runs": self._runs,
            "customers": [
                {
                    "id": c.id,
                    "company_name": c.company_name,
                    "reseller_id": c.reseller_id,
                    "removed_at": self._gone[c.id],
                }
                for c in self.tenant.customers
            ],
            "scopes": [
                _scope(ids) | {"last_outcome": outcome, "delisted_at": gone} for ids, gone in self._ever.items()
            ],
            "scope_runs": [_scope(ids) | {"run_id": run_id, "outcome": outcome} for ids in scopes],
            "licenses": licenses,
            "license_history": [
                _scope(ids) | {"valid_from": since, "valid_to": None}
                for ids, since in self._note_changes(scopes, licenses, now).items()
                if ids[0] in actors
            ],
        }
        for name, rows in tables.items():
            self.inventory.write(name, [{"tenant": self.tenant.domain, "_dlt_load_id": "1"} | row for row in rows])

    def _licenses(self, ids: tuple[str, str, str | None]) -> list[dict[str, Any]]:
        scripted = self.sandbox.scripted_answer(ids[0])
        rows = json.loads(scripted.body) if scripted else self.tenant.licenses(ids[0], ids[1], 0)[:2]
        return [
            _scope(ids)
            | {
                "sku_id": row["skuId"],
                "sku_name": row["name"],
                "total_licenses": row["totalLicenses"],
                "consumed_licenses": row["consumedLicenses"],
            }
            for row in rows
        ]

    def _note_changes(
        self, scopes: list[tuple[str, str, str | None]], licenses: list[dict[str, Any]], now: datetime
    ) -> dict[tuple[str, str, str | None], datetime]:
        held: defaultdict[str, list[Any]] = defaultdict(list)
        for row in licenses:
            held[row["scope_key"]].append((row["sku_id"], row["total_licenses"], row["consumed_licenses"]))
        changes = {}
        for ids in scopes:
            key = _scope(ids)["scope_key"]
            text = str(sorted(held[key]))
            known, since, _ = self._first_seen.get(key, ("", None, None))
            if since is None or known != text:
                since = now
            self._first_seen[key] = (text, since, None)
            changes[ids] = since
        return changes

    def _write_empty_dataset(self) -> None:
        """The file that a query is run on."""
        with duckdb.connect(str(self.database)) as connection:
            connection.execute("CREATE SCHEMA cockpit")

    # commands

    def settings(self) -> DeletionSettings:
        api = resolve_settings(
            discover=True,
            token_url=self.sandbox.token_url,
            token_scope=TOKEN_SCOPE,
            client_id=CSP_CLIENT.id,
            client_secret=CSP_CLIENT.secret,
            max_attempts=1,
            **({"tenant": self.tenant.domain, "base_url": self.sandbox.base_url, "timeout_seconds": 5} | self.access),
        )
        return replace(
            DeletionSettings(api=api, protected_file=self.protected_file, stop_file=self.stop_file),
            **({"max_percent": 20.0, "verify_timeout_seconds": 60.0} | self.limits),
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        if not self.enabled:
            # as every command begins
            resolve_deletion_settings()
        settings = self.settings()
        client = self._clients.get(settings.api)
        if client is None:
            client = self._clients[settings.api] = CockpitClient(settings.api)
        with open_ledger_at(self.place, self.folder) as ledger:
            yield WorldSession(
                self.pipeline,
                settings,
                ledger,
                client,
                self.clock,
                "operator@machine",
                lambda _: None,
                self.inventory,
            )

    def summary(self) -> str:
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        return f"{self.runs_seen} runs, {self.steps} steps, {self.deletes_seen} DELETE requests; {ends}"

    def close(self) -> None:
        self._close_keeper()
        for client in self._clients.values():
            client.__exit__(None, None, None)

    def command(self, name: str, act: Callable[[Session], Any]) -> Any:
        """Run a command as a process of its own would; None when it ended with an error or was killed."""
        self._began_at = self.clock.now()
        self._command += 1
        self._begun_customers = sum(self.sandbox.is_listed(customer, 0) for customer in self.tenant.customers)
        try:
            with self.session() as session:
                result = act(session)
            self.ends[f"{name}: {'done' if result else 'nothing'}"] += 1
            return result
        except Crash:
            self.ends[f"{name}: crash"] += 1
        except CockpitError as error:
            self.ends[f"{name}: {getattr(error, 'code', None) or type(error).__name__}"] += 1
        finally:
            self.crash_at = None
            self._keep_ledger_open()
            self.look_at_ledger()
        return None

    def plan(self, rows: list[tuple[str, str, str | None]]) -> None:
        """Make a plan of these rows: action, customer and provider instance."""
        lines = [
            f"SELECT '{action}', '{customer}', {'NULL' if instance is None else repr(instance)}, 'left'"
            for action, customer, instance in rows
        ]
        columns = "t(action, customer_id, provider_instance_id, reason)"
        query = DeletionQuery("q.sql", f"SELECT * FROM ({' UNION ALL '.join(lines)}) AS {columns}")
        made = self.command("plan", lambda session: make_plan(session, query))
        if made is not None:
            self.plans.append(made)

    def apply(self, plan: Plan, given_hash: str) -> None:
        self._is_approved = given_hash == plan.plan_hash
        applied = self.command(
            "apply",
            lambda session: apply_plan(
                session, plan.plan_id, lambda p: approve_unattended(p, given_hash, "somebody")
            ),
        )
        self._is_approved = False
        if applied is not None:
            self.ends[f"apply ended: {applied.stop.code if applied.stop else 'whole'}"] += 1
            for state in applied.states.values():
                self.ends[f"item {state}"] += 1

    def verify(self, wait_seconds: float) -> None:
        self.command("verify", lambda session: [*settle_open_items(session, wait_seconds=wait_seconds), 1])

    def mend(self) -> None:
        mended = self.command("mend", lambda session: session.ledger.mend(at=self.clock.now(), actor="a") or 1)
        if mended is not None:
            self.tampered = False
            self.look_at_ledger()

    # what goes wrong

    def tick(self, _where: str) -> None:
        """A place at which the process may end."""
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at <= 0:
                self.crash_at = None
                raise Crash

    def tamper(self, how: str) -> None:
        """Take something from one store of the ledger, unless that was done already or would be healed."""
        paths = [*self.folder.glob("*.jsonl"), self.ledger_database]
        if self.tampered or len(self.lines) < 3 or not all(path.exists() for path in paths):
            return
        with self._connect_ledger() as connection:
            connection.execute("CHECKPOINT")
        self._close_keeper()
        self._saved = {path: path.read_bytes() for path in paths}
        self.tampered = True
        file = paths[0]
        lines = file.read_bytes().splitlines(keepends=True)
        if how == "lose_file":
            file.unlink()
        elif how == "cut_file":
            file.write_bytes(b"".join(lines[:-1]))
        elif how == "edit_file":
            file.write_bytes(b"".join(lines[:-2]) + lines[-2].replace(b'"actor":"', b'"actor":"x') + lines[-1])
        elif how == "lose_warehouse":
            self.ledger_database.unlink()
        else:
            with self._connect_ledger() as connection:
                least = len(self.lines) - 1
                for table in ("deletion_plans", "deletion_plan_items", "deletion_events"):
                    connection.execute(f"DELETE FROM cockpit_deletions.{table} WHERE seq >= {least}")

    def put_back(self) -> None:
        """Restore what `tamper` took."""
        if self.tampered:
            self._close_keeper()
            for path in self.folder.glob("*.deletions.duckdb.wal"):
                path.unlink()
            for path, content in self._saved.items():
                path.write_bytes(content)
            self.tampered = False

    def _connect_ledger(self) -> duckdb.DuckDBPyConnection:
        # as the ledger does, so that one process may have both open
        return duckdb.connect(str(self.ledger_database), False, {"threads": 1})

    def _keep_ledger_open(self) -> None:
        """Opening a file of DuckDB takes long, unless this process has it open already."""
        if self._keeper is None and self.ledger_database.exists():
            self._keeper = self._connect_ledger()

    def _close_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    # watching

    def _listen(self) -> None:
        log, faults, deletions = self.sandbox.log, self.sandbox.faults, self.sandbox.deletions
        came, next_fault, accept = log.came, faults.next_fault, deletions.accept
        self._latest: LoggedRequest | None = None

        def came_watched(request: LoggedRequest) -> None:
            came(request)
            self._latest = request
            if request.method == "DELETE":
                try:
                    self._watch(request)
                except Exception as error:  # noqa: BLE001 - the server would answer 500 and go on
                    self.wrong.append(f"the watch failed: {error!r}")

        def next_delete_fault(customer_id: str, key: str) -> str | None:
            if self._latest is not None and self._latest.method == "DELETE":
                kind = self.delete_faults.pop(0) if self.delete_faults else None
                if kind == "vanish":
                    self.delete_elsewhere(customer_id)
                self._spoils = kind == "accepted_500"
                return kind if kind not in ("vanish", "accepted_500") else None
            return next_fault(customer_id, key)

        def accept_watched(*values: Any, **named: Any) -> None:
            accept(*values, **named)
            self.accepted.add(named["correlation_id"])
            if self._spoils:
                self._spoils = False
                raise Refused(Response(status_code=500))

        self._spoils = False
        log.came = came_watched  # type: ignore[method-assign]
        faults.next_fault = next_delete_fault  # type: ignore[method-assign]
        deletions.accept = accept_watched  # type: ignore[method-assign]
        deletions.now = lambda: self.clock.moment

    def aim(self, faults: list[str]) -> None:
        """Let the next DELETE requests fail so."""
        self.delete_faults = list(faults)
        # which are asked for only while any are on
        self.sandbox.faults.for_path("/nowhere/at/all", "reset", 1)

    def _watch(self, request: LoggedRequest) -> None:
        """What must hold when a DELETE request comes, judged by what lies on the disk."""
        self.deletes_seen += 1
        records = self._records_in_file()
        with self._connect_ledger() as connection:
            stored = connection.execute(_STORED).fetchall()
        if [(record["seq"], record["record_hash"]) for record in records] != stored:
            self.wrong.append("a DELETE while the stores differ")
        if self.tampered:
            self.wrong.append("a DELETE while a store is not what it was")
        intent = records[-1] if records else {}
        if intent.get("kind") != "intent" or intent["correlation_id"] != request.correlation_id:
            self.wrong.append(f"a DELETE without its intent: {request}")
            return
        if intent["body"]["path"].lower() != request.path.lower():
            self.wrong.append(f"a DELETE of something else than intended: {request}")
        latest = next(record for record in reversed(records) if record["kind"] == "plan")
        plan = latest["body"]["plan"]
        if intent["plan_id"] != latest["plan_id"]:
            self.wrong.append("a DELETE of a superseded plan")
        if _path_of(plan["items"][intent["item"] - 1]["candidate"]) != request.path.lower():
            self.wrong.append("a DELETE outside the plan")
        if hash_text(to_canonical(plan)) != latest["body"]["plan_hash"]:
            self.wrong.append("a DELETE of a changed plan")
        self._watch_settings(request, plan)
        self._watch_world(plan["items"][intent["item"] - 1], plan)
        earlier = [delete for delete in self.deletes if delete.path == request.path.lower()]
        if any(not self._is_closed(delete, records) for delete in earlier):
            self.wrong.append(f"a second DELETE of what may be deleted: {request}")
        self.deletes.append(
            Delete(
                intent_time(intent),
                request.path.lower(),
                str(request.correlation_id),
                intent["plan_id"],
                intent["item"],
                request,
                self._command,
            )
        )
        self._watch_limits(plan)
        self._watch_pace(records)
        if self.at_next_delete is not None:
            happens, self.at_next_delete = self.at_next_delete, None
            happens()

    def _watch_settings(self, request: LoggedRequest, plan: dict[str, Any]) -> None:
        access = {"tenant": self.tenant.domain, "base_url": self.sandbox.base_url} | self.access
        if not request.tenant == access["tenant"] == plan["tenant"]:
            self.wrong.append(f"a DELETE of another tenant: {request}")
        if plan["tenant_key"] != access.get("tenant_key", access["tenant"]):
            self.wrong.append("a DELETE with another tenant_key")
        if access["base_url"] != plan["base_url"]:
            self.wrong.append("a DELETE at another base_url")
        if not self._is_approved:
            self.wrong.append("a DELETE that nobody approved")
        if not self.enabled:
            self.wrong.append("a DELETE while the deletions are switched off")
        if self.is_stopped:
            self.wrong.append("a DELETE while stopped")
        if not _time(plan["created_at"]) <= self._began_at < _time(plan["expires_at"]):
            self.wrong.append("a DELETE of an expired plan")

    def _watch_world(self, item: dict[str, Any], plan: dict[str, Any]) -> None:
        """The customer is as planned, holds nothing, and is not protected."""
        candidate = item["candidate"]
        customer = self.tenant.customer(candidate["customer_id"])
        assert customer is not None
        if candidate["customer_id"] in self.protected_file.read_text():
            self.wrong.append("a DELETE of a protected customer")
        # the query, and the person who approved, knew it by the name of the inventory
        if not customer.company_name == item["live"]["company_name"] == item["inventory"]["company_name"]:
            self.wrong.append("a DELETE of a customer with another name")
        instances = [i for i in customer.provider_instance_ids if self.sandbox.has_instance(customer, i)]
        if candidate["action"] == "delete_customer" and instances:
            self.wrong.append("a DELETE of a customer with a relationship")
        if candidate["action"] != "delete_customer":
            instances = [candidate["provider_instance_id"]]
        scripted = self.sandbox.scripted_answer(customer.id)
        # what is scripted is of every relationship that is left
        rows = json.loads(scripted.body) if scripted and instances else []
        for instance in instances:
            if not scripted and instance in customer.provider_instance_ids:
                rows += self.tenant.licenses(customer.id, instance, 0)
        if any(row["consumedLicenses"] for row in rows):
            self.wrong.append("a DELETE of a customer with assigned seats")
        age = self._began_at - max(
            (run["started_at"] for run in self._runs if run["customers_listed"] and run["_dlt_load_id"] == "1"),
            default=START,
        )
        hours = min(plan["limits"]["max_age_hours"], self.limits.get("max_age_hours", 24.0))
        if age >= timedelta(hours=hours):
            self.wrong.append(f"a DELETE on an inventory that is {age} old")

    def _watch_limits(self, plan: dict[str, Any]) -> None:
        now, limits = self.deletes[-1].at, self.limits
        planned = plan["limits"]
        most = min(planned["max_actions"], limits.get("max_actions", 5))
        if len(plan["items"]) > most:
            self.wrong.append(f"a DELETE of a plan of {len(plan['items'])} where {most} are allowed")
        today = {(d.plan_id, d.item) for d in self.deletes if d.at >= now - _DAY}
        most = min(planned["max_actions_per_day"], limits.get("max_actions_per_day", 20))
        if len(today) > most:
            self.wrong.append(f"{len(today)} deletions in a day where {most} are allowed")
        percent = min(planned["max_percent"], limits.get("max_percent", 20.0))
        share = self._begun_customers * Fraction(str(percent)) / 100
        sent = {(d.plan_id, d.item) for d in self.deletes if d.at >= self._began_at}
        if percent <= 0 or (len(sent) > 3 and len(sent) > share):
            self.wrong.append(f"{len(sent)} deletions where {percent} % are allowed")

    def _watch_pace(self, records: list[dict[str, Any]]) -> None:
        """One item at a time, the first alone until it is seen to be deleted."""
        *earlier, latest = [delete for delete in self.deletes if delete.command == self._command]
        others = [delete for delete in earlier if delete.item != latest.item]
        if not others:
            return
        seconds = self.limits.get("seconds_between_calls", 10.0)
        if latest.at - others[-1].at < timedelta(seconds=seconds):
            self.wrong.append("a DELETE too soon after another")
        ended = {
            record["item"]
            for record in records
            if record["plan_id"] == latest.plan_id and record["body"].get("result") == "verified"
        }
        if others[0].item not in ended:
            self.wrong.append("a DELETE before the first one was seen to be done")

    def _is_closed(self, delete: Delete, records: list[dict[str, Any]]) -> bool:
        """Whether it is certain that this request deletes nothing any more."""
        if delete.correlation_id not in self.accepted and delete.request.status in NOT_TAKEN:
            return True
        index = next(i for i, record in enumerate(records) if record["correlation_id"] == delete.correlation_id)
        return any(
            record["kind"] == "settled"
            and (record["plan_id"], record["item"]) == (delete.plan_id, delete.item)
            and record["body"]["result"] == "failed"
            for record in records[index:]
        )

    def _records_in_file(self) -> list[dict[str, Any]]:
        [file] = self.folder.glob("*.jsonl")
        return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]

    def look_at_ledger(self) -> None:
        """The file only grows, its chain holds, and no item comes back from its end."""
        if self.tampered:
            return
        data = b"".join(path.read_bytes() for path in self.folder.glob("*.jsonl"))
        # what is torn was never committed
        lines = data.split(b"\n")[:-1]
        if lines[: len(self.lines)] != self.lines:
            self.wrong.append("the file of the ledger lost or changed records")
            return
        for line in lines[len(self.lines) :]:
            self._look_at_record(json.loads(line), self.lines[-1] if self.lines else None)
            self.lines.append(line)

    def _look_at_record(self, record: dict[str, Any], previous: bytes | None) -> None:
        before = json.loads(previous) if previous else {"seq": 0, "record_hash": "0" * 64}
        text = json.dumps(
            {name: value for name, value in record.items() if name != "record_hash"},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        if (
            record["seq"] != before["seq"] + 1
            or record["previous_hash"] != before["record_hash"]
            or record["record_hash"] != hashlib.sha256(text.encode()).hexdigest()
        ):
            self.wrong.append(f"the chain of the ledger is broken at {record['seq']}")
        if record["item"] is None:
            return
        key = record["plan_id"], record["item"]
        if key in self.ended:
            self.wrong.append(f"an item goes on after its end: {record}")
        result = record["body"].get("result")
        if record["kind"] == "already_absent" or (record["kind"], result) in _ENDS:
            self.ended.add(key)

    def compare_stores(self) -> None:
        """Both stores hold the same records, or the file one more."""
        if self.tampered or not self.ledger_database.exists():
            return
        with self._connect_ledger() as connection:
            stored = connection.execute(_STORED).fetchall()
        records = [json.loads(line) for line in self.lines]
        held = [(record["seq"], record["record_hash"]) for record in records]
        if stored not in (held, held[:-1]):
            self.wrong.append(f"the stores differ: {len(stored)} records in the warehouse, {len(held)} in the file")


_STORED = (
    "SELECT seq, record_hash FROM cockpit_deletions.deletion_plans UNION ALL "
    "SELECT seq, record_hash FROM cockpit_deletions.deletion_events ORDER BY seq"
)
_ENDS = {("settled", "verified"), ("settled", "failed"), ("outcome", "refused")}


@contextmanager
def opened_world(folder: Path) -> Iterator[World]:
    """A world in `folder`, in which a process may end wherever something is written or sent."""
    with (
        running_sandbox(SandboxTenant(customers=CUSTOMERS, incidents=False)) as sandbox,
        ExitStack() as stack,
    ):
        world = World(folder, sandbox)
        stack.callback(world.close)
        stack.callback(world.set_switch, None)
        for kind, name in ((LedgerFile, "append"), (DuckDBStore, "insert"), (DeleteClient, "send")):
            _interrupt(stack, world, kind, name)
        yield world


def _interrupt(stack: ExitStack, world: World, kind: Any, name: str) -> None:
    method = getattr(kind, name)

    def interrupted(*values: Any, **named: Any) -> Any:
        world.tick(f"before {name}")
        result = method(*values, **named)
        world.tick(f"after {name}")
        return result

    def torn(self: LedgerFile, records: Any) -> None:
        try:
            interrupted(self, records)
        except Crash:
            # half a line, where the whole one was not written
            if world.command and self._whole == (self.path.stat().st_size if self.path.exists() else 0):
                text = records[0].to_text().encode()
                if not self.path.exists() or not self.path.read_bytes().endswith(text + b"\n"):
                    with self.path.open("ab") as file:
                        file.write(text[: len(text) // 2])
            raise

    setattr(kind, name, torn if kind is LedgerFile else interrupted)
    stack.callback(setattr, kind, name, method)


def intent_time(record: dict[str, Any]) -> datetime:
    return _time(record["at"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _path_of(candidate: dict[str, Any]) -> str:
    path = f"/v1/customers/{candidate['customer_id']}"
    instance = candidate["provider_instance_id"]
    return f"{path}/remove-reseller-relationship/{instance}" if instance else path


def _scope(ids: tuple[str, str, str | None]) -> dict[str, Any]:
    customer, instance, reseller = ids
    return {
        "scope_key": f"sandbox.example|{customer}|{instance}|{reseller or '-'}",
        "customer_id": customer,
        "provider_instance_id": instance,
        "reseller_id": reseller,
    }


def _to_arrow(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    columns = [*TABLES[name].columns, *TABLES[name].versioned_columns]
    return pa.table(
        {
            column.name: pa.array(
                [row.get(column.name, None if column.nullable else _FILLERS[column.type]) for row in rows],
                column.type,
            )
            for column in columns
        }
    )


def memory_folder(otherwise: Path) -> Path:
    """A folder in memory where there is one, since the ledger waits for the disk at every record."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        return otherwise
    folder = memory / f"cockpit-{os.getpid()}-{otherwise.name}"
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir()
    return folder
