"""Writers of the ledger that are killed with SIGKILL: what they reported as committed is in both stores, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ledger_support import ACTOR, LedgerFixture, at

from cockpit_source.deletions.ledger import Ledger, LedgerRecord
from cockpit_source.deletions.ledger_file import LedgerFile
from cockpit_source.errors import WarehouseBusy

_WRITER = Path(__file__).with_name("ledger_writer.py")
# after the last report that is waited for; about what an append takes
_LONGEST_SECONDS = 0.03
_MOST_REPORTS = 4


@pytest.mark.parametrize(("kind", "kills"), [("duckdb", 30), ("postgres", 30)])
def test_killed_writers_lose_and_double_nothing(
    kind: str, kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Opening after a kill heals what it left, or finds both equal; what lies in the stores only grows."""
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    stores = LedgerFixture(kind, tmp_path, url)
    # two writers that both create dlt's folder of it would meet
    assert stores.pipeline
    draws = random.Random(5)
    reported: list[tuple[int, str | None]] = []
    before: list[LedgerRecord] = []
    for writer in _spawned_ahead(stores, kills):
        reported += _run_and_kill(writer, draws.randint(0, _MOST_REPORTS), draws.uniform(0, _LONGEST_SECONDS))
        with _opened_when_free(stores) as ledger:
            assert ledger.difference is None
            records = list(ledger.records)
        assert stores.read() == (records, None)
        assert LedgerFile(stores.file).read().records == records
        assert records[: len(before)] == before
        held = [(record.seq, record.correlation_id) for record in records]
        assert len(held) == len(set(held))
        assert set(reported) <= set(held)
        before = records
    assert len(reported) > kills
    with stores.open() as last:
        last.append("stopped", at=at(0), actor=ACTOR, body={})


def _spawned_ahead(stores: LedgerFixture, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Writers that wait for their turn; the next one is starting meanwhile."""
    waiting = [_spawn(stores, 0)]
    for number in range(1, count + 1):
        if number < count:
            waiting.append(_spawn(stores, number))
        yield waiting.pop(0)


def _spawn(stores: LedgerFixture, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(_WRITER), stores.kind, str(stores.folder), f"w{number}"]
    environment = os.environ | {"PYTHONPATH": str(_WRITER.parents[1])}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _run_and_kill(writer: subprocess.Popen[bytes], reports: int, seconds: float) -> list[tuple[int, str | None]]:
    """What a writer reported as committed before it was killed, `seconds` after so many reports."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    writer.stdin.write(b"\n")
    writer.stdin.flush()
    lines = [writer.stdout.readline() for _ in range(reports)]
    time.sleep(seconds)
    assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.read().splitlines(keepends=True)
    writer.wait(timeout=30)
    writer.stdin.close()
    pairs = (line.decode().split() for line in lines if line.endswith(b"\n"))
    return [(int(seq), correlation_id) for seq, correlation_id in pairs]


@contextmanager
def _opened_when_free(stores: LedgerFixture) -> Iterator[Ledger]:
    """PostgreSQL may need a moment to see that the session of a killed process is over."""
    give_up_at = time.monotonic() + 30
    while True:
        opening = stores.open()
        try:
            ledger = opening.__enter__()
            break
        except WarehouseBusy:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
    try:
        yield ledger
    finally:
        opening.__exit__(None, None, None)
