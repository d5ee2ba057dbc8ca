"""Dask clusters of real processes for the tests, and loads on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import INSTANCE, Inventory, Row, ScopeIds, new_id, sku

from cockpit_source.sandbox import Sandbox

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(400)]
_SECONDS = 60
_SOURCE_FOLDER = str(Path(__file__).resolve().parents[1])


def answer_slowly(inventory: Inventory, latency_ms: float = 15) -> Inventory:
    """400 scopes, a third of them without licences, read slowly enough to be disturbed."""
    for number, (customer, _, _) in enumerate(SCOPES):
        inventory.answer(customer, rows_of(number))
    inventory.sandbox.faults.configure(latency_ms=latency_ms)
    return inventory


def rows_of(number: int) -> list[Row]:
    return [sku("e3", number, 0), sku("e5", 1, 1)][: number % 3]


def answers() -> dict[ScopeIds, tuple[str, list[Row]]]:
    """What a load of all scopes has to find."""
    return {scope: ("ok" if rows_of(number) else "empty", rows_of(number)) for number, scope in enumerate(SCOPES)}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a moment in a run; fails when it does not come."""
    give_up_at = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, f"{what}: it never came"
        time.sleep(0.005)


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Do something beside what happens in the context; its failure is that of the context."""
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def license_calls(sandbox: Sandbox) -> int:
    return sum(sandbox.call_counts().values())


def busiest_second(moments: Sequence[float]) -> int:
    """The most calls in any second."""
    most = first = 0
    ordered = sorted(moments)
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


class Processes:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        # of this source tree, whichever folder they start in
        self.environment = os.environ | {"PYTHONPATH": _SOURCE_FOLDER} | dict(environment or {})
        self.running: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []
        self.scheduler = self._start("scheduler", "--no-dashboard", "--port", "0", "--host", "127.0.0.1")
        wait_until(self._file.exists, "the scheduler")
        # it is there before it is written
        wait_until(lambda: bool(self._file.read_text().strip()), "the address of the scheduler")
        self.address: str = json.loads(self._file.read_text())["address"]

    @property
    def _file(self) -> Path:
        return self.folder / "scheduler.json"

    def start_worker(
        self, *, cwd: Path | None = None, prepare: Callable[[], None] | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A worker of four threads; `prepare` runs in its process before it begins."""
        scratch = self.folder / f"scratch{len(self.running)}"
        return self._start(
            "worker",
            "--no-nanny",
            "--no-dashboard",
            "--nthreads",
            "4",
            "--local-directory",
            str(scratch),
            cwd=cwd,
            prepare=prepare,
            environment=environment,
        )

    def _start(
        self,
        kind: str,
        *options: str,
        cwd: Path | None = None,
        prepare: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        log = self.folder / f"{kind}{len(self.running)}.log"
        self.logs.append(log)
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{kind}",
            "--scheduler-file",
            str(self._file),
            *options,
        ]
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=self.environment | dict(environment or {}),
                preexec_fn=prepare,
            )
        self.running.append(child)
        return child

    def stop(self) -> None:
        for child in self.running:
            child.send_signal(signal.SIGKILL)
            child.wait()


@contextmanager
def processes(folder: Path, **environment: str) -> Iterator[Processes]:
    """A scheduler without workers yet; all that is started ends with the context."""
    folder.mkdir(parents=True, exist_ok=True)
    started = Processes(folder, environment)
    try:
        yield started
    finally:
        started.stop()
