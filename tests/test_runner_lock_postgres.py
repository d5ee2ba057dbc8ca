"""The advisory lock in a real PostgreSQL: one runner for all machines, named, and never held in name only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, sku

from cockpit_source import load as loading
from cockpit_source import packages
from cockpit_source.errors import WarehouseBusy, WarehouseError
from cockpit_source.pipeline import create_pipeline
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("postgres_url")


def pipeline_of(folder: Path, tenant: str = "a.example") -> Any:
    return create_pipeline(tenant, destination="postgres", pipelines_dir=folder / "pipelines")


def end_session_of_the_lock(postgres: PostgresServer) -> None:
    ended = postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cockpit load %'"
    )
    assert ended == [(True,)]


def test_second_machine_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    """A data folder of its own stands for another machine; another tenant is let in."""
    with one_runner(pipeline_of(tmp_path / "one")) as lock:
        lock.verify()
        with pytest.raises(WarehouseBusy, match=rf"cockpit load \S+ pid {os.getpid()}, session \d+"):
            one_runner(pipeline_of(tmp_path / "two")).__enter__()
        with one_runner(pipeline_of(tmp_path / "two", "b.example")):
            pass
    with one_runner(pipeline_of(tmp_path / "two")):
        pass


def test_lock_whose_session_ended_is_found_lost(postgres: PostgresServer, tmp_path: Path) -> None:
    with one_runner(pipeline_of(tmp_path / "one")) as lock:
        end_session_of_the_lock(postgres)
        with pytest.raises(WarehouseError, match=r"The lock of this run in .* was lost"):
            lock.verify()


def test_load_that_loses_its_lock_stops_and_the_next_carries_on(
    sandbox: Sandbox, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its first package, before its second."""
    scopes: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(250)]
    inventory = Inventory(sandbox, tmp_path / "inventory.duckdb", destination="postgres")
    for customer, _, _ in scopes:
        inventory.answer(customer, [sku("e3")])
    monkeypatch.setattr(packages, "PACKAGE_SCOPES", 100)
    with monkeypatch.context() as patched:
        collect = loading.collect_packages

        def collect_and_lose_the_lock(*arguments: Any) -> Any:
            for number, package in enumerate(collect(*arguments)):
                if number == 1:
                    end_session_of_the_lock(postgres)
                yield package

        patched.setattr(loading, "collect_packages", collect_and_lose_the_lock)
        with pytest.raises(WarehouseError, match=r"The lock of this run in .* was lost"):
            inventory.load(scopes, day(0))
    held = {row["customer_id"] for row in inventory.rows("licenses")}
    assert len(held) == 100
    result = inventory.load(scopes, day(0))
    assert result.carried_on
    assert result.status == "complete"
    model = Model(inventory.tenant_key)
    model.run(result.run_id, day(0), {ids: ("ok", [sku("e3")]) for ids in scopes})
    model.check(inventory)
