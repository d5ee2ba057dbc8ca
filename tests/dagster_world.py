"""Dagster on two simulated tenants: a project of both, the definitions on it, and the tables that loads end in."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import duckdb
from support import day

from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, Sandbox

ROOT = Path(__file__).parent.parent
SEEDS = {"north": 7, "south": 11}

# ids of runs and packages, and what depends on the moment or on chance
PER_RUN = {"run_id", "last_run_id", "last_listed_run_id", "last_good_run_id", "_dlt_load_id"}
BY_CHANCE = {"correlation_id", "server_correlation_id", "duration_ms", "peak_concurrency", "final_concurrency"}


@dataclass
class World:
    """A sandbox for each tenant, a project of all, and Dagster on it."""

    folder: Path
    apis: Mapping[str, Sandbox]
    definitions: ModuleType
    instance: dg.DagsterInstance

    @property
    def database(self) -> Path:
        return self.folder / "w.duckdb"

    def run(self, job: str, partition: str | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        given = {"ops": {"licence_tables": {"config": config}}} if config else {}
        return self.definitions.defs.resolve_job_def(job).execute_in_process(
            partition_key=partition, run_config=given, instance=self.instance, raise_on_error=False
        )

    def load(self, partition: str, number: int, **config: Any) -> dg.ExecuteInProcessResult:
        """The load of a tenant on a simulated day."""
        return self.run("load", partition, as_of=day(number).isoformat(), **config)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def checks(self) -> dict[str, tuple[bool, str, str | None]]:
        found = self.run("checks").get_asset_check_evaluations()
        return {check.check_name: (check.passed, check.severity.value, check.description) for check in found}


def write_project(folder: Path, apis: Mapping[str, Sandbox], **others: Any) -> None:
    common = {
        "token_scope": TOKEN_SCOPE,
        "discover": True,
        # a flaky customer of the simulated tenant fails at every other call
        "max_attempts": 2,
        "lock_wait_seconds": 0,
        "max_drop_scopes": 0,
        "max_drop_percent": 0,
    } | others
    text = f"[sources.cockpit]\n{to_toml(common)}"
    for name, api in apis.items():
        api.tenant.domain = f"{name}.example"
        access = {"tenant": api.tenant.domain, "base_url": api.base_url, "token_url": api.token_url}
        client = {"client_id": CSP_CLIENT.id, "client_secret": CSP_CLIENT.secret}
        text += f"[sources.cockpit.tenants.{name}]\n{to_toml(access | client)}"
    (folder / ".dlt").mkdir(parents=True, exist_ok=True)
    (folder / ".dlt" / "secrets.toml").write_text(f'{text}[destination.duckdb]\ncredentials = "w.duckdb"\n')


def to_toml(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def load_definitions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("definitions", ROOT / "pipelines" / "dagster_definitions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_tables(database: Path, times: Collection[str] = ()) -> dict[str, list[str]]:
    """All tables of the dataset, dlt's own left out: rows as text, ids of runs replaced by the tenant's.

    Of the columns `times` stays whether they are filled; what depends on chance is left out.
    """
    with duckdb.connect(str(database), read_only=True) as connection:
        names = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'cockpit' "
            "AND table_type = 'BASE TABLE' AND NOT starts_with(table_name, '_dlt')"
        ).fetchall()
        runs = dict(connection.execute("SELECT run_id, tenant FROM cockpit.runs").fetchall())
        tables = {}
        for (name,) in names:
            rows = connection.execute(f'SELECT * FROM cockpit."{name}"').to_arrow_table().to_pylist()
            for row in rows:
                row.update({column: runs.get(row[column]) for column in PER_RUN & row.keys()})
                row.update(dict.fromkeys(BY_CHANCE & row.keys()))
                row.update({column: row[column] is not None for column in set(times) & row.keys()})
            tables[name] = sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)
    return tables
