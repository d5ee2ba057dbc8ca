"""The ledger of the deletions moved from DuckDB to PostgreSQL: the same records and hashes, and it goes on there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_support import ACTOR, ODD, LedgerFixture, append_story, at

from cockpit_source.deletions.ledger_move import move_ledger
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.errors import CockpitError, ConfigurationError, LedgerUnavailable, WarehouseBusy


@pytest.fixture
def old(tmp_path: Path) -> LedgerFixture:
    """A ledger of two plans beside a DuckDB file."""
    made = LedgerFixture("duckdb", tmp_path)
    with made.open() as ledger:
        append_story(ledger, name=ODD)
        append_story(ledger, "plan-2")
    return made


@pytest.fixture
def new(tmp_path: Path, postgres_url: str) -> LedgerFixture:
    return LedgerFixture("postgres", tmp_path, postgres_url)


def move(old: LedgerFixture, new: LedgerFixture) -> int:
    places = (ledger_place(old.pipeline), ledger_place(new.pipeline))
    return move_ledger(*places, old.folder, at=at(50), actor=ACTOR)


def refusal(old: LedgerFixture, new: LedgerFixture, kind: type[CockpitError] = LedgerUnavailable) -> str:
    with pytest.raises(kind) as caught:
        move(old, new)
    return str(caught.value)


def test_moved_ledger_has_the_same_records_and_goes_on(old: LedgerFixture, new: LedgerFixture) -> None:
    records, _ = old.read()
    assert move(old, new) == 17
    moved, difference = new.read()
    assert (moved[:16], difference) == (records, None)
    assert (moved[16].kind, moved[16].body) == ("moved", {"to": ledger_place(new.pipeline).location})
    assert old.read() == (moved, None)
    assert new.file.read_bytes() == old.file.read_bytes()
    # a second time changes nothing
    assert move(old, new) == 17
    with new.open() as ledger:
        append_story(ledger, "plan-3")
    assert new.read()[0][:17] == moved
    assert "has gone on since it was moved" in refusal(old, new)


def test_old_ledger_takes_no_more(old: LedgerFixture, new: LedgerFixture) -> None:
    move(old, new)
    with (
        old.open() as ledger,
        pytest.raises(LedgerUnavailable, match=r"was moved to postgresql://.*where it goes on"),
    ):
        append_story(ledger, "plan-3")
    assert len(old.read()[0]) == 17


def test_ledger_of_something_else_is_not_mixed(old: LedgerFixture, new: LedgerFixture) -> None:
    with new.open() as ledger:
        append_story(ledger, "plan-9")
    before = new.read()
    assert "holds other records than the one that is to be moved" in refusal(old, new)
    assert (new.read(), len(old.read()[0])) == (before, 16)


def test_ledger_that_differs_or_is_in_use_or_not_there_is_not_moved(old: LedgerFixture, new: LedgerFixture) -> None:
    with old.open():
        assert "Another deletions command" in refusal(old, new, WarehouseBusy)
    old.file.rename(old.file.with_suffix(".away"))
    assert "the file does not exist" in refusal(old, new)
    old.file.with_suffix(".away").rename(old.file)
    assert "from a DuckDB file to PostgreSQL only" in refusal(old, old, ConfigurationError)
    old.database.unlink()
    assert "There is no ledger of deletions" in refusal(old, new, ConfigurationError)
    assert new.read() == ([], None)


# ends the process at the n-th of the places where a store is written
_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ledger_support import ACTOR, LedgerFixture, at
from cockpit_source.deletions import ledger_file, ledger_store
from cockpit_source.deletions.ledger_move import move_ledger
from cockpit_source.deletions.ledger_place import ledger_place
left = int(sys.argv[3])
def count(usual):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*arguments, **options)
    return counted
os.write, os.fsync = count(os.write), count(os.fsync)
ledger_store.LedgerStore._insert = count(ledger_store.LedgerStore._insert)
places = [ledger_place(LedgerFixture(kind, Path(sys.argv[2])).pipeline) for kind in ("duckdb", "postgres")]
move_ledger(*places, Path(sys.argv[2]), at=at(50), actor=ACTOR)
"""


def test_killed_move_is_carried_on(old: LedgerFixture, new: LedgerFixture) -> None:
    """SIGKILL at places where a store is written, each after what the kill before left, until a move ends."""
    command = [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(old.folder)]
    codes = []
    for number in (2, 4, 5, 99):
        ended = subprocess.run([*command, str(number)], check=False, capture_output=True, text=True, env=os.environ)
        assert ended.returncode in (0, -9), ended.stderr
        codes.append(ended.returncode)
    assert codes == [-9, -9, -9, 0]
    moved, difference = new.read()
    assert ([record.kind for record in moved[16:]], difference) == (["moved"], None)
    assert old.read() == (moved, None)
