"""A load that another program gets in the way of in the middle, and that tries again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, sku

from cockpit_source.busy_tries import BusyTries
from cockpit_source.errors import WarehouseBusy
from cockpit_source.load import LoadProgress
from cockpit_source.stopping import StopRequest

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(6)]
HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
CALL_MS = 700


class Notes(list[str]):
    """Notes of a load, one of which lets the database go."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__()
        self._released = released

    def append(self, note: str) -> None:
        super().append(note)
        if "Tried again in" in note:
            self._released.set()


@contextmanager
def held_from_the_first_call(inventory: Inventory, progress: LoadProgress) -> Iterator[None]:
    """Another process has the file open from the first licence call on, until the load waits for it."""
    released = threading.Event()
    progress.notes = Notes(released)
    inventory.sandbox.clear_requests()
    inventory.sandbox.faults.configure(latency_ms=CALL_MS)

    def hold() -> None:
        give_up_at = time.monotonic() + 60
        while not license_calls(inventory) and time.monotonic() < give_up_at:
            time.sleep(0.01)
        command = [sys.executable, "-c", HOLD, str(inventory.database)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            released.wait(60)
            holder.communicate()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        inventory.sandbox.faults.clear()


def license_calls(inventory: Inventory) -> list[str]:
    return [request.path for request in inventory.sandbox.requests if "license" in request.path.lower()]


@pytest.fixture
def failing(inventory: Inventory) -> tuple[Inventory, Model]:
    """Of six scopes, read once, three failed."""
    inventory.settings |= {"lock_wait_seconds": 0, "max_concurrency": 2}
    for number, (customer, _, _) in enumerate(SCOPES):
        inventory.answer(customer, [sku("e3", number + 1)])
    for customer, _, _ in SCOPES[3:]:
        inventory.answer(customer, {}, status=500)
    model = Model(inventory.tenant_key)
    answers = {scope: ("ok", [sku("e3", number + 1)]) for number, scope in enumerate(SCOPES[:3])}
    result = inventory.load(SCOPES, day(0))
    model.run(result.run_id, day(0), answers | {scope: ("failed", []) for scope in SCOPES[3:]})
    for customer, _, _ in SCOPES[3:]:
        inventory.answer(customer, [sku("e5", 7)])
    return inventory, model


@pytest.mark.parametrize("how", ["fresh", "retry_failed", "as ever"])
def test_run_that_was_held_in_the_middle_is_carried_on(
    failing: tuple[Inventory, Model], how: str, tmp_path: Path
) -> None:
    """No scope is read twice, one run is made of it, and what follows a load is told once."""
    inventory, model = failing
    told = tmp_path / "told"
    script = tmp_path / "tell.py"
    script.write_text(f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() and 'told ')")
    progress = LoadProgress()
    with held_from_the_first_call(inventory, progress):
        result = inventory.load(
            SCOPES,
            day(1),
            progress=progress,
            busy=BusyTries(5, 0.5),
            settings={"after_run_command": f"{sys.executable} {script}"},
            **({} if how == "as ever" else {how: True}),
        )
    assert any("is in use by process" in note and "Tried again in 0.5 s" in note for note in progress.notes)
    assert any(note.startswith(f"Carrying on run {result.run_id}") for note in progress.notes)
    expected = SCOPES[3:] if how == "retry_failed" else SCOPES
    calls = license_calls(inventory)
    assert len(calls) == len(set(calls)) == len(expected)
    assert (result.exit_code, result.good, result.carried_on) == (0, len(expected), True)
    answers = {scope: ("ok", [sku("e3", number + 1)]) for number, scope in enumerate(SCOPES[:3])}
    answers |= {scope: ("ok", [sku("e5", 7)]) for scope in SCOPES[3:]}
    model.run(result.run_id, day(1), {s: answers[s] for s in expected}, full_list=how != "retry_failed")
    model.check(inventory)
    assert [run["status"] for run in inventory.rows("runs")].count("complete") == 1
    assert len(inventory.rows("runs")) == 2
    assert told.read_text() == "told "


def test_enough_tries_end_with_the_reason(failing: tuple[Inventory, Model]) -> None:
    inventory, _ = failing
    command = [sys.executable, "-c", HOLD, str(inventory.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        progress = LoadProgress()
        with pytest.raises(WarehouseBusy, match=f"in use by process {holder.pid}"):
            inventory.load(SCOPES, day(1), progress=progress, busy=BusyTries(3, 0))
        holder.communicate()
    assert [note.rsplit(". ", 1)[1] for note in progress.notes] == [
        "Tried again in 0 s, up to 2 times.",
        "Tried again in 0 s, for the last time.",
    ]


def test_load_that_is_asked_to_end_waits_no_longer() -> None:
    request = StopRequest()
    threading.Timer(0.1, request.ask, ["enough"]).start()
    notes: list[str] = []
    assert not BusyTries(2, 60).wait(1, "Held.", request, notes.append)
    assert notes == ["Held. Tried again in 60 s, for the last time."]
    assert not BusyTries(2, 60).wait(1, "Held.", request, notes.append)
    assert not BusyTries(0).wait(1, "Held.", StopRequest(), notes.append)
    assert len(notes) == 1
