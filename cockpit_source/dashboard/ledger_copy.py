"""Reads the ledger of the deletions from a private copy, so that no command of the deletions ever waits for a page.

The ledger is a DuckDB file of its own beside the inventory. Opening it would keep the next writer out, so its bytes
are copied without a lock, and taken only if the file was left alone meanwhile.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

LEDGER_DATASET = "cockpit_deletions"

_TRIES = 20
_PAUSE_SECONDS = 0.1
# clocks of file systems are coarser than writes are short
_QUIET_SECONDS = 0.05


class LedgerMissing(Exception):
    """There is no ledger, or none with its tables."""


class LedgerBusy(Exception):
    """It is being written all the time, or cannot be read."""


def ledger_path(database: Path) -> Path:
    """Where the deletions of an inventory in a DuckDB file keep their ledger."""
    return database.with_name(f"{database.stem}.deletions.duckdb")


def read_ledger(path: Path, queries: Sequence[str]) -> list[pa.Table]:
    """The answers of SELECTs on the ledger as it is now; its tables need no dataset.

    Raises:
        LedgerMissing: it was never written.
        LedgerBusy: it changes while it is copied.
    """
    with tempfile.TemporaryDirectory(prefix="cockpit_ledger_") as folder:
        copy = Path(folder) / "ledger.duckdb"
        _copy_quiet(path, copy)
        try:
            with duckdb.connect(str(copy)) as connection:
                connection.execute("SET autoinstall_known_extensions = false")
                connection.execute("SET enable_external_access = false")
                connection.execute("SET TimeZone = 'UTC'")
                connection.execute(f"USE {LEDGER_DATASET}")
                return [connection.execute(sql).to_arrow_table() for sql in queries]
        except duckdb.CatalogException:
            raise LedgerMissing from None
        except duckdb.Error as error:
            raise LedgerBusy(str(error).splitlines()[0]) from None


def _copy_quiet(source: Path, target: Path) -> None:
    """Copy the file and what it has not taken in yet, both from one moment."""
    pairs = [(source, target), (_log(source), _log(target))]
    for _ in range(_TRIES):
        before = _states(source)
        if before[0] is None:
            raise LedgerMissing
        for one, other in pairs:
            try:
                shutil.copyfile(one, other)
            except FileNotFoundError:
                other.unlink(missing_ok=True)
        if before == _states(source) and _is_quiet(before):
            return
        time.sleep(_PAUSE_SECONDS)
    raise LedgerBusy(f"{source.name} is being written")


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _states(path: Path) -> list[tuple[int, int, int] | None]:
    return [_state(path), _state(_log(path))]


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _is_quiet(states: Sequence[tuple[int, int, int] | None]) -> bool:
    newest = max(state[1] for state in states if state is not None)
    return abs(time.time_ns() - newest) > _QUIET_SECONDS * 1e9
