"""The advisory lock in a real PostgreSQL: one runner for all machines, named, and never held in name only."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cockpit_source.errors import WarehouseBusy, WarehouseError
from cockpit_source.pipeline import create_pipeline
from cockpit_source.runner_lock import one_runner

_BINARIES = Path("/usr/lib/postgresql/15/bin")

pytest.importorskip("psycopg2", reason="needs the driver of PostgreSQL")
pytestmark = pytest.mark.skipif(not (_BINARIES / "initdb").exists(), reason="needs the programs of PostgreSQL")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a throwaway server on the loopback interface."""
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    folder = Path(f"/tmp/cockpit_pg_{os.getpid()}")
    folder.mkdir(mode=0o700)
    if user:
        shutil.chown(folder, "postgres")

    def run(*command: str) -> None:
        subprocess.run(
            [str(_BINARIES / command[0]), *command[1:]], check=True, cwd="/", stdout=subprocess.DEVNULL, **user
        )

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "loader", "-A", "trust", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-k {folder} -p {port} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield port
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def configured(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DATABASE": "postgres",
        "USERNAME": "loader",
        "PASSWORD": "none",
    }
    for name, value in address.items():
        monkeypatch.setenv(f"DESTINATION__POSTGRES__CREDENTIALS__{name}", value)


def pipeline_of(folder: Path, tenant: str = "a.example") -> Any:
    return create_pipeline(tenant, destination="postgres", pipelines_dir=folder / "pipelines")


def test_second_machine_is_refused_and_told_who_holds_the_lock(configured: None, tmp_path: Path) -> None:
    """A data folder of its own stands for another machine; another tenant is let in."""
    with one_runner(pipeline_of(tmp_path / "one")) as lock:
        lock.verify()
        with pytest.raises(WarehouseBusy, match=rf"cockpit load \S+ pid {os.getpid()}, session \d+"):
            one_runner(pipeline_of(tmp_path / "two")).__enter__()
        with one_runner(pipeline_of(tmp_path / "two", "b.example")):
            pass
    with one_runner(pipeline_of(tmp_path / "two")):
        pass


def test_lock_whose_session_ended_is_found_lost(configured: None, port: int, tmp_path: Path) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    with one_runner(pipeline_of(tmp_path / "one")) as lock:
        other = psycopg2.connect(host="127.0.0.1", port=port, dbname="postgres", user="loader")
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cockpit load %'"
            )
        with pytest.raises(WarehouseError, match=r"The lock of this run in .* was lost"):
            lock.verify()
        other.close()
