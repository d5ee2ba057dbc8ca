"""Fixtures: an own home and working directory for every test, and a sandbox that listens on a free port."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__INTERCEPT_SIGNALS"] = "false"

from dlt.common.runtime.run_context import switch_context
from postgres_server import PostgresMissing, PostgresServer, running_postgres
from support import Inventory

from cockpit_source.pipeline import create_pipeline
from cockpit_source.sandbox import Sandbox, running_sandbox

if TYPE_CHECKING:
    from marts_world import Marts


def pytest_configure() -> None:
    """What runs in the background ignores Ctrl+C, and so would every process that a test starts and interrupts."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs in a folder of its own: no configuration, home or working directory of anybody else."""
    for name in list(os.environ):
        if name.startswith(("SOURCES__", "DESTINATION__", "DLT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    switch_context(str(tmp_path))
    return tmp_path


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox with its usual tenant on day 0."""
    with running_sandbox() as running:
        yield running


@pytest.fixture
def inventory(sandbox: Sandbox, tmp_path: Path) -> Inventory:
    """A fresh DuckDB inventory that loads from `sandbox`."""
    return Inventory(sandbox, tmp_path / "inventory.duckdb")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this process; skipped where there is none, but not in CI."""
    try:
        with running_postgres() as server:
            yield server
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
def postgres_url(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh database, configured as the destination `postgres`."""
    with postgres.fresh_database() as name:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.url(name))
        yield postgres.url(name)


@pytest.fixture
def ducklake_url(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh lake, configured as the destination `ducklake`: catalogue in PostgreSQL, Parquet files in a folder."""
    with postgres.fresh_database() as name:
        prefix = "DESTINATION__DUCKLAKE__CREDENTIALS"
        monkeypatch.setenv(f"{prefix}__DUCKLAKE_NAME", "lake")
        # nothing may be fetched
        monkeypatch.setenv(f"{prefix}__GLOBAL_CONFIG", '{"autoinstall_known_extensions": false}')
        monkeypatch.setenv(f"{prefix}__CATALOG", postgres.url(name))
        monkeypatch.setenv(f"{prefix}__STORAGE__BUCKET_URL", str(tmp_path / "lake_files"))
        yield postgres.url(name)


@pytest.fixture(params=["duckdb", "postgres"])
def marts(request: pytest.FixtureRequest, tmp_path: Path) -> Marts:
    """Marts in the warehouse of the parameter."""
    from marts_world import Marts

    pipelines = tmp_path / "pipelines"
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
        return Marts(create_pipeline("t", destination="postgres", pipelines_dir=pipelines))
    return Marts(create_pipeline("t", database=tmp_path / "inventory.duckdb", pipelines_dir=pipelines))
