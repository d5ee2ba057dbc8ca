"""Loads beside other processes: one runner per database, readers that come and go, and the copy made for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb
import pytest
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, read_rows, sku

from cockpit_source import packages
from cockpit_source.errors import WarehouseBusy
from cockpit_source.load import LoadProgress
from cockpit_source.publish import publish_read_copy, read_copy_path

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(300)]
TABLES = ("licenses", "license_history", "scopes", "scope_runs", "runs", "rejected_rows", "customers")

_READER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
print("open", flush=True)
sys.stdin.readline()
print(connection.execute("SELECT count(*) FROM cockpit.licenses").fetchone()[0], flush=True)
"""

_LOAD = """
import json, sys
from datetime import datetime
from cockpit_source import create_pipeline, resolve_settings, run_load
from cockpit_source.errors import CockpitError
order = json.load(sys.stdin)
pipeline = create_pipeline(order["tenant_key"], database=order["database"])
try:
    result = run_load(pipeline, resolve_settings(**order["settings"]), as_of=datetime.fromisoformat(order["as_of"]))
except CockpitError as error:
    print(error)
    sys.exit(error.exit_code)
print(result.run_id)
"""

_PUBLISHER = """
import sys
from pathlib import Path
from cockpit_source.publish import publish_read_copy
while True:
    publish_read_copy(Path(sys.argv[1]), "test", wait_seconds=0, note=print)
    print("once", flush=True)
"""


def rows_of(number: int) -> list[dict[str, object]]:
    return [sku("e3", number, 0), sku("e5", 1, 1)][: number % 3]


def answers_of(scopes: list[ScopeIds]) -> dict[ScopeIds, tuple[str, list[dict[str, object]]]]:
    return {
        scope: ("ok" if rows_of(number) else "empty", rows_of(number))
        for number, scope in enumerate(SCOPES)
        if scope in scopes
    }


@pytest.fixture
def answering(inventory: Inventory) -> Inventory:
    for number, (customer, _, _) in enumerate(SCOPES):
        inventory.answer(customer, rows_of(number))
    return inventory


@contextmanager
def reading(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open until it is told to close it."""
    reader = subprocess.Popen(
        [sys.executable, "-c", _READER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline() == "open\n"
        yield reader
    finally:
        reader.kill()
        reader.communicate()


def start_load(inventory: Inventory, folder: Path) -> subprocess.Popen[str]:
    """A load of all scopes in a process and with a data folder of its own."""
    tables = [dict(zip(("customer_id", "provider_instance_id", "reseller_id"), s, strict=True)) for s in SCOPES]
    order = {
        "tenant_key": inventory.tenant_key,
        "database": str(inventory.database),
        "as_of": day(0).isoformat(),
        "settings": inventory.connection() | inventory.settings | {"scopes": tables},
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _LOAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DLT_DATA_DIR": str(folder)},
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(order))
    child.stdin.close()
    child.stdin = None
    return child


class LeavesWhenNoted(list[str]):
    """Notes of a load; the reader goes once the load has said that it waits."""

    reader: subprocess.Popen[str] | None = None

    def append(self, note: str) -> None:
        super().append(note)
        if "Waiting up to" in note:
            assert self.reader is not None
            self.reader.kill()


def check_model(inventory: Inventory, *runs: tuple[str, int]) -> None:
    model = Model(inventory.tenant_key)
    for run_id, number in runs:
        model.run(run_id, day(number), answers_of(SCOPES))
    model.check(inventory.database)


def test_load_waits_for_a_reader_that_leaves(answering: Inventory) -> None:
    first = answering.load(SCOPES, day(0))
    with reading(answering.database) as reader:
        progress = LoadProgress()
        progress.notes = notes = LeavesWhenNoted()
        notes.reader = reader
        second = answering.load(SCOPES, day(1), progress=progress)
    (note,) = progress.notes
    assert f"is in use by process {reader.pid}" in note
    assert "Waiting up to 120 s" in note
    check_model(answering, (first.run_id, 0), (second.run_id, 1))


def test_load_is_refused_beside_a_reader_that_stays_and_names_it(answering: Inventory) -> None:
    answering.load(SCOPES, day(0))
    with reading(answering.database) as reader, pytest.raises(WarehouseBusy) as refused:
        answering.load(SCOPES, day(1), settings={"lock_wait_seconds": 0.5})
    assert f"in use by process {reader.pid}" in str(refused.value)
    assert refused.value.exit_code == 6
    assert answering.load(SCOPES, day(1)).exit_code == 0


def test_reader_between_two_packages_is_waited_for(answering: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGE_SCOPES", 100)
    progress = LoadProgress()
    progress.notes = notes = LeavesWhenNoted()
    load_package = packages.PackageLoader._load

    def load_then_read(self, parts, batches) -> None:
        if self.loaded == 1:
            notes.reader = stack.enter_context(reading(answering.database))
        load_package(self, parts, batches)

    monkeypatch.setattr(packages.PackageLoader, "_load", load_then_read)
    with ExitStack() as stack:
        result = answering.load(SCOPES, day(0), progress=progress)
    assert result.packages >= 2
    assert [note for note in notes if "Waiting up to" in note]
    check_model(answering, (result.run_id, 0))


def test_of_two_loads_with_own_data_folders_on_one_database_one_is_refused(
    answering: Inventory, tmp_path: Path
) -> None:
    answering.sandbox.faults.configure(latency_ms=50)
    children = [start_load(answering, tmp_path / name) for name in ("one", "two")]
    try:
        printed = [child.communicate(timeout=120)[0].strip() for child in children]
    finally:
        for child in children:
            child.kill()
    codes = [child.returncode for child in children]
    assert sorted(codes) == [0, 6], printed
    winner = codes.index(0)
    assert f"running (process {children[winner].pid})" in printed[1 - winner]
    check_model(answering, (printed[winner], 0))


def test_read_copy_equals_the_database_and_is_read_during_the_next_load(answering: Inventory) -> None:
    """Queries name schema and table; a reader keeps the copy that it has opened, and no load waits for it."""
    first = answering.load(SCOPES, day(0))
    copy = read_copy_path(answering.database)
    assert copy.name == "inventory.read.duckdb"
    for table in TABLES:
        assert read_rows(copy, table, per_run=True) == read_rows(answering.database, table, per_run=True)
    answering.answer(SCOPES[0][0], [sku("new", 1, 0)])
    with reading(copy) as reader:
        progress = LoadProgress()
        assert answering.load(SCOPES, day(1), progress=progress, settings={"lock_wait_seconds": 0}).exit_code == 0
        assert reader.communicate("\n")[0] == f"{first.license_rows}\n"
    assert progress.notes == []
    assert len(read_rows(copy, "licenses")) == first.license_rows + 1
    assert not list(copy.parent.glob("*.tmp"))


def test_read_copy_is_not_made_when_switched_off(inventory: Inventory) -> None:
    inventory.answer(SCOPES[0][0], [sku("e3")])
    inventory.load(SCOPES[:1], day(0), settings={"publish_read_copy": False})
    assert not read_copy_path(inventory.database).exists()


def test_kill_while_publishing_leaves_a_whole_copy(tmp_path: Path) -> None:
    database = tmp_path / "large.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT random() AS x, i FROM range(1000000) t(i)")
    for number in range(5):
        publisher = subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, str(database)], stdout=subprocess.PIPE, text=True
        )
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "once\n"
        time.sleep(0.003 * number)
        publisher.send_signal(signal.SIGKILL)
        publisher.communicate()
        with duckdb.connect(str(read_copy_path(database)), read_only=True) as connection:
            assert connection.execute("SELECT count(*), sum(i) FROM numbers").fetchone() == (1000000, 499999500000)


def test_full_disk_is_noted_and_leaves_the_copy_before(tmp_path: Path) -> None:
    database = tmp_path / "small.duckdb"
    duckdb.connect(str(database)).close()
    notes: list[str] = []
    assert publish_read_copy(database, "test", wait_seconds=0, note=notes.append)
    before = read_copy_path(database).read_bytes()
    unfinished = tmp_path / "small.read.duckdb.test.tmp"
    unfinished.symlink_to("/dev/full")
    assert not publish_read_copy(database, "test", wait_seconds=0, note=notes.append)
    assert "No space left on device" in notes[0]
    assert read_copy_path(database).read_bytes() == before
    assert not unfinished.exists()
