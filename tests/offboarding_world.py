"""A tenant to offboard customers of: a sandbox, its loaded inventory, the ledger, and a clock that a test moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from support import Inventory

from cockpit_source.configuration import open_project
from cockpit_source.deletions.applier import Applied, apply_plan
from cockpit_source.deletions.approval import Approval
from cockpit_source.deletions.history import History
from cockpit_source.deletions.ledger import LedgerRecord, open_ledger
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.deletions.planner import make_plan
from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Plan
from cockpit_source.deletions.selection import DeletionQuery
from cockpit_source.deletions.session import Clock, Session, open_session
from cockpit_source.deletions.settings import resolve_deletion_settings
from cockpit_source.deletions.verifier import settle_open_items
from cockpit_source.errors import DeletionRefused
from cockpit_source.load_result import LoadResult
from cockpit_source.sandbox import (
    CSP_CLIENT,
    TOKEN_SCOPE,
    Customer,
    LoggedRequest,
    Sandbox,
    SandboxTenant,
    create_app,
    running_sandbox,
)
from cockpit_source.sandbox import server as sandbox_server
from cockpit_source.sandbox.directory import Directory

CUSTOMERS = 60
ACTOR = "tester@machine"


class TestClock(Clock):
    """The moment when it was made, and as much later as was slept; `on_sleep` is told of every wait at its start."""

    __test__ = False

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)
        self.slept: list[float] = []
        self.on_sleep: Callable[[int], object] = lambda _: None

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 1))
        self.on_sleep(len(self.slept))
        self.advance(seconds=seconds)

    def advance(self, **by: float) -> None:
        self.moment += timedelta(**by)


Reply = tuple[int, Any]
"""Status and JSON of an answer; None for none."""


class Gate:
    """Stands before the sandbox: tells a test of every DELETE on its arrival, and may answer in its place."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.sandbox: Sandbox | None = None
        self.reset()

    def reset(self) -> None:
        self.on_delete: Callable[[LoggedRequest, int], str | Reply | None] = lambda *_: None
        self.overrides: dict[str, Reply] = {}
        self.count = 0

    def wrap(self, sandbox: Sandbox) -> Gate:
        self.app, self.sandbox = create_app(sandbox), sandbox
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        assert self.sandbox is not None
        reply: str | Reply | None = None
        if scope["type"] == "http" and scope["method"] == "DELETE":
            self.count += 1
            correlation_id = dict(scope["headers"]).get(b"x-correlation-id", b"").decode() or None
            logged = LoggedRequest("DELETE", scope["path"], "", correlation_id, 0.0)
            reply = self.on_delete(logged, self.count)
            if isinstance(reply, str):
                # the sandbox looks for a fault only now, so the next call to meet it is this one
                self.sandbox.faults.for_customer(scope["path"].split("/")[3], reply, times=1)
            elif reply is not None:
                self.sandbox.log.came(logged)
                self.sandbox.log.finished(logged)
        elif scope["type"] == "http":
            reply = self.overrides.get(scope["path"].lower())
        if isinstance(reply, tuple):
            await self._answer(*reply, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, status: int, body: Any, send: Send) -> None:
        raw = b"" if body is None else json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})


def error_body(status: int) -> dict[str, Any]:
    """The API's own error body."""
    return {"statusCode": status, "type": "Error", "description": "No.", "correlationId": None, "errors": None}


@dataclass
class Shared:
    """What the tests of a module share: the sandbox and the file of an inventory that was loaded once."""

    sandbox: Sandbox
    gate: Gate
    database: Path
    offboarded: tuple[str, ...]


@contextmanager
def shared_world(folder: Path, *, load: bool = True) -> Iterator[Shared]:
    """A sandbox whose first customers of one provider instance have left, and an inventory of it."""
    gate = Gate()
    original = sandbox_server.create_app
    sandbox_server.create_app = gate.wrap  # type: ignore[assignment]
    try:
        with running_sandbox(_new_tenant(), deletion_delay_seconds=0) as sandbox:
            plain = [c.id for c in sandbox.tenant.customers if _is_plain(sandbox, c)]
            both = [c.id for c in sandbox.tenant.customers if len(c.provider_instance_ids) == 2]
            shared = Shared(sandbox, gate, folder / "inventory.duckdb", (*plain[:6], both[0]))
            sandbox.offboard(*shared.offboarded)
            if load:
                inventory = Inventory(sandbox, shared.database)
                result = inventory.load((), settings={"scopes": None, "discover": True})
                assert result.exit_code == 0
            yield shared
    finally:
        sandbox_server.create_app = original  # type: ignore[assignment]


def _new_tenant() -> SandboxTenant:
    return SandboxTenant(customers=CUSTOMERS, incidents=False)


def _is_plain(sandbox: Sandbox, customer: Customer) -> bool:
    """In one Microsoft instance, and in no other of any kind."""
    return len(list(sandbox.directory.entries(customer))) == 1


@dataclass
class World:
    """One test's part of it. `a` to `f` are customers that have left, in one instance each; `both` is in two."""

    shared: Shared
    folder: Path
    destination: str = "duckdb"
    clock: TestClock = field(default_factory=TestClock)
    said: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    extend: Callable[[Session], object] = lambda _: None

    @property
    def sandbox(self) -> Sandbox:
        return self.shared.sandbox

    @property
    def gate(self) -> Gate:
        return self.shared.gate

    @property
    def ids(self) -> tuple[str, ...]:
        return self.shared.offboarded

    @property
    def a(self) -> str:
        return self.ids[0]

    @property
    def b(self) -> str:
        return self.ids[1]

    @property
    def c(self) -> str:
        return self.ids[2]

    @property
    def both(self) -> str:
        return self.ids[-1]

    @property
    def other(self) -> str:
        """A customer that stays, with seats."""
        return next(c.id for c in self.sandbox.tenant.customers if c.id not in self.ids)

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.sandbox, self.folder / "inventory.duckdb", destination=self.destination)

    @cached_property
    def pipeline(self) -> Any:
        return self.inventory.pipeline()

    @property
    def protected_file(self) -> Path:
        return self.folder / "protected.txt"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop_deletions"

    def name(self, customer_id: str) -> str:
        return self.customer(customer_id).company_name

    def customer(self, customer_id: str) -> Customer:
        found = self.sandbox.tenant.customer(customer_id)
        assert found is not None
        return found

    def instance(self, customer_id: str, number: int = 0) -> str:
        return self.customer(customer_id).provider_instance_ids[number]

    # what is to be deleted

    def delete(self, customer_id: str) -> str:
        return f"SELECT '{DELETE_CUSTOMER}', '{customer_id}', CAST(NULL AS VARCHAR), 'left'"

    def remove(self, customer_id: str, number: int = 0) -> str:
        return f"SELECT '{REMOVE_RELATIONSHIP}', '{customer_id}', '{self.instance(customer_id, number)}', 'left'"

    def query(self, *selects: str) -> DeletionQuery:
        names = "action, customer_id, provider_instance_id, reason"
        if not selects:
            return DeletionQuery(
                "none.sql", f"WITH q({names}) AS ({self.delete(self.a)}) SELECT * FROM q WHERE 1 = 0"
            )
        rows = " UNION ALL ".join(selects)
        return DeletionQuery("left.sql", f"WITH q({names}) AS ({rows}) SELECT {names} FROM q")

    @property
    def three(self) -> tuple[str, ...]:
        """The usual plan: two relationships and a customer, which one of them is of."""
        return (self.remove(self.a), self.remove(self.b), self.delete(self.a))

    # the commands

    @contextmanager
    def session(self, **changes: Any) -> Iterator[Session]:
        changes = self.changes | changes
        api = {
            name: changes.pop(name)
            for name in ("base_url", "tenant", "tenant_key", "timeout_seconds")
            if name in changes
        }
        settings = resolve_deletion_settings()
        settings = replace(settings, api=replace(settings.api, **api), **changes)
        with open_session(self.pipeline, settings, actor=ACTOR, clock=self.clock, say=self.said.append) as session:
            self.extend(session)
            yield session

    def plan(self, *selects: str, **changes: Any) -> Plan:
        with self.session(**changes) as session:
            plan = make_plan(session, self.query(*selects))
        assert plan is not None
        return plan

    def plan_refused(self, *selects: str, **changes: Any) -> DeletionRefused:
        return _refused(lambda: self.plan(*selects, **changes))

    def apply(self, plan: Plan | str, **changes: Any) -> Applied:
        plan_id = plan if isinstance(plan, str) else plan.plan_id
        with self.session(**changes) as session:
            return apply_plan(session, plan_id, lambda _: Approval("boss", "unattended"))

    def states(self) -> dict[int, str]:
        """Of the items of the latest plan."""
        latest = History(self.records()).latest
        assert latest is not None
        return {number: item.state for number, item in latest.items.items()}

    def apply_refused(self, plan: Plan | str, **changes: Any) -> DeletionRefused:
        return _refused(lambda: self.apply(plan, **changes))

    def verify(self, wait_seconds: float = 0, **changes: Any) -> list[tuple[int, str]]:
        with self.session(**changes) as session:
            return [(i.number, s) for i, s in settle_open_items(session, wait_seconds=wait_seconds)]

    def load(self, **options: Any) -> LoadResult:
        """A new load over all customers, dated by the clock."""
        settings = {"scopes": None, "discover": True} | options.pop("settings", {})
        return self.inventory.load((), self.clock.now(), settings=settings, **options)

    # what came of it

    def records(self) -> list[LedgerRecord]:
        with open_ledger(self.pipeline, self.folder, read_only=True) as ledger:
            assert ledger.difference is None
            return list(ledger.records)

    def story(self, start: int = 0) -> list[str]:
        """The ledger from a record on, each in a few words: kind, item and result."""
        return [_to_words(record) for record in self.records()[start:]]

    def ledger_text(self) -> str:
        """Both stores as they lie on the disk."""
        place = ledger_place(self.pipeline)
        raw = place.file_in(self.folder).read_bytes()
        return (raw + (place.database.read_bytes() if place.database else b"")).decode("utf-8", "replace")

    def requests(self) -> list[LoggedRequest]:
        return [request for request in self.sandbox.requests if request.method == "DELETE"]

    def sent(self) -> list[str]:
        """The DELETEs that the sandbox got, in order."""
        return [request.path for request in self.requests()]

    def path(self, customer_id: str, *, removes: bool = False, number: int = 0) -> str:
        path = f"/v1/Customers/{customer_id}"
        return f"{path}/remove-reseller-relationship/{self.instance(customer_id, number)}" if removes else path

    # changes of the world

    def return_customer(self, customer_id: str) -> None:
        """Its licences and subscriptions are there again."""
        self.sandbox.tenant._offboarded.discard(customer_id)
        self.sandbox.offboard()
        self.sandbox._licenses.cache_clear()
        self.sandbox._subscriptions.cache_clear()

    def rename(self, customer_id: str, name: str) -> None:
        tenant = self.sandbox.tenant
        renamed = replace(self.customer(customer_id), company_name=name)
        tenant._by_id[customer_id] = renamed
        tenant.customers = tuple(renamed if c.id == customer_id else c for c in tenant.customers)

    def hide(self, count: int) -> None:
        """So many customers vanish from the API."""
        for customer in [c for c in self.sandbox.tenant.customers if c.id not in self.ids][:count]:
            self.take(customer.id)

    def take(self, customer_id: str) -> None:
        """Somebody else deletes this customer."""
        self.sandbox.deletions.accept("DeleteCustomer", self.customer(customer_id), None, "x", "else", "Succeded")

    def detach(self, customer_id: str, number: int = 0) -> None:
        """Somebody else removes this relationship."""
        self.sandbox.deletions.accept(
            "RemoveResellerRelationship",
            self.customer(customer_id),
            self.instance(customer_id, number),
            "x",
            "else",
            "Succeded",
        )


def _refused(call: Callable[[], object]) -> DeletionRefused:
    with pytest.raises(DeletionRefused) as refused:
        call()
    assert refused.value.exit_code == 4
    return refused.value


def _to_words(record: LedgerRecord) -> str:
    body = record.body
    what = body.get("result") or body.get("results") or body.get("code") or body.get("mode") or ""
    return " ".join(str(part) for part in (record.kind, record.item, what) if part not in (None, ""))


CONFIG = """[sources.cockpit]
tenant = "{tenant}"
base_url = "{base_url}"
token_url = "{token_url}"
token_scope = "{token_scope}"
max_attempts = 1
timeout_seconds = 5

[sources.cockpit.deletions]
enabled = true
protected_file = "protected.txt"
"""


def configure(folder: Path, sandbox: Sandbox, *, added: str = "") -> None:
    """The project of the deletions; those of the load have no credentials in it."""
    values = {
        "tenant": sandbox.tenant.domain,
        "base_url": sandbox.base_url,
        "token_url": sandbox.token_url,
        "token_scope": TOKEN_SCOPE,
    }
    (folder / ".dlt").mkdir(exist_ok=True)
    (folder / ".dlt" / "config.toml").write_text(CONFIG.format(**values) + added)
    (folder / ".dlt" / "secrets.toml").write_text(
        f'[sources.cockpit.deletions]\nclient_id = "{CSP_CLIENT.id}"\nclient_secret = "{CSP_CLIENT.secret}"\n'
    )
    (folder / "protected.txt").write_text("# nobody yet\n")
    open_project(folder)


def new_world(shared: Shared, folder: Path, *, destination: str = "duckdb") -> World:
    """A world in which nothing has happened since the load."""
    sandbox = shared.sandbox
    sandbox.clear()
    sandbox.deletions.undo()
    sandbox.tenant = _new_tenant()
    sandbox.directory = Directory(sandbox.tenant)
    sandbox.configure(
        deletion_delay_seconds=0, deletion_outcome="Succeded", blocks_active_deletions=False, page_churn=0
    )
    sandbox.offboard(*shared.offboarded)
    sandbox.clear_requests()
    shared.gate.reset()
    configure(folder, sandbox)
    if shared.database.exists() and destination == "duckdb":
        shutil.copy(shared.database, folder / "inventory.duckdb")
    return World(shared, folder, destination)
