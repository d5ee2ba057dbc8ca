"""Three simulated tenants, each a sandbox of its own with its own domain and credentials, and a project of all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import INSTANCE, Model, Row, ScopeIds, day, new_id, read_rows, sku

from cockpit_source.sandbox import TOKEN_SCOPE, ApiClient, Sandbox, SandboxTenant, running_sandbox

NAMES = ("north", "south", "west")
# tenants that fail, each in its own way, answer as south does
FAILING = ("refused", "stolen", "secretless", "misset", "down", "guarded", "forbidden", "crashing")

# two tenants know a customer by the same id, which must not matter
A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
Answers = dict[ScopeIds, list[Row]]
DAYS: list[dict[str, Answers]] = [
    {
        "north": {A: [sku("e3", 25, 22), sku("e5", 5, 5)], B: [sku("e3", 7, 1)]},
        "south": {A: [sku("e3", 9, 9)], B: [sku("p1", 1, 0)]},
        "west": {A: [sku("e1", 3, 3)], B: [sku("p1", 2, 0), sku("e5", 1, 1)]},
    },
    {
        "north": {A: [sku("e3", 30, 22)], B: [sku("e3", 7, 1), sku("p1", 2, 2)]},
        "south": {A: [sku("e3", 9, 8)], B: [sku("p1", 1, 0)]},
        "west": {A: [sku("e1", 3, 3), sku("e3", 1, 0)], B: [sku("e5", 1, 1)]},
    },
]


def answers_on(number: int, name: str) -> Answers:
    """What the API of a tenant answers on a day."""
    return DAYS[number].get(name, DAYS[number]["south"])


@dataclass
class Tenants:
    """The sandboxes by name, and what a project says of each."""

    apis: dict[str, Sandbox]
    common: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def reset(self, *names: str) -> None:
        """These tenants, or `NAMES`, as it works, and with the answers of the first day."""
        self.common = {
            "token_scope": TOKEN_SCOPE,
            "max_attempts": 1,
            "timeout_seconds": 5,
            "max_concurrency": 4,
            "lock_wait_seconds": 0.5,
            "customers": [A[0], B[0]],
            "provider_instances": [INSTANCE],
        }
        self.own = {name: self.access(name) for name in names or NAMES}
        self.secrets = {name: {"client_secret": client(name).secret} for name in self.own}
        for api in self.apis.values():
            api.clear_requests()
        self.answer(0)

    def access(self, name: str) -> dict[str, Any]:
        api = self.apis[name]
        return {
            "tenant": api.tenant.domain,
            "base_url": api.base_url,
            "token_url": api.token_url,
            "client_id": client(name).id,
        }

    def answer(self, number: int, *names: str) -> None:
        """Answer as on a day, for these tenants or all."""
        for name in names or self.apis:
            self.apis[name].clear()
            for scope, rows in answers_on(number, name).items():
                self.apis[name].answer(scope[0], json.dumps(rows).encode())

    def write(self, folder: Path, added: str = "") -> Path:
        """The two files of the project."""
        (folder / ".dlt").mkdir(parents=True, exist_ok=True)
        config = [f"[sources.cockpit]\n{_to_toml(self.common)}"]
        config += [f"[sources.cockpit.tenants.{name}]\n{_to_toml(values)}" for name, values in self.own.items()]
        secrets = [f"[sources.cockpit.tenants.{name}]\n{_to_toml(values)}" for name, values in self.secrets.items()]
        destination = '[destination.duckdb]\ncredentials = "w.duckdb"\n'
        # a table between those of the tenants, as people write it
        config.insert(2, destination)
        (folder / ".dlt" / "config.toml").write_text("\n".join([*config, added]), encoding="utf-8")
        (folder / ".dlt" / "secrets.toml").write_text("\n".join(secrets), encoding="utf-8")
        return folder


def client(name: str) -> ApiClient:
    """The API access of a tenant, which no other tenant knows."""
    return ApiClient(f"{name}-client", f"{name}-hush-hush", "csp")


def _to_toml(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@contextmanager
def running_tenants() -> Iterator[Tenants]:
    """A sandbox for each of `NAMES` and `FAILING`."""
    with ExitStack() as stack:
        apis = {}
        for name in (*NAMES, *FAILING):
            api = stack.enter_context(running_sandbox(SandboxTenant(customers=3)))
            api.tenant.domain = f"{name}.example"
            api.api_clients = {client(name).id: client(name)}
            apis[name] = api
        yield Tenants(apis)


class Models:
    """What the tables of one dataset must hold: a model for each tenant key."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.models = {name: Model(f"{name}.example") for name in (*NAMES, *FAILING)}

    def load(self, number: int, *names: str, outcomes: Mapping[str, str] | None = None) -> None:
        """These tenants were loaded on a day; with `outcomes` their scopes came to something else than ok."""
        for name in names:
            (run_id,) = (
                row["run_id"]
                for row in read_rows(self.database, "runs", per_run=True)
                if row["tenant"] == f"{name}.example" and row["started_at"] == day(number)
            )
            outcome = (outcomes or {}).get(name, "ok")
            answers = {scope: (outcome, rows) for scope, rows in answers_on(number, name).items()}
            self.models[name].run(run_id, day(number), answers)

    def check(self) -> None:
        """Compare whole tables."""
        together = Model("all")
        for model in self.models.values():
            together.licenses |= model.licenses
            together.history += model.history
            together.scopes |= model.scopes
        together.check(self.database)


def secrets_in(text: str) -> list[str]:
    """The secrets of tenants that stand in `text`."""
    return re.findall(r"\w+-hush-hush", text)
