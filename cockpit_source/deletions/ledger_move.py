"""Moves the ledger beside a DuckDB file into PostgreSQL, record by record as it is, both stores of it.

The last record of the old ledger says where it went; nothing can be added there any more. The new one holds the same
records, so its chain of hashes is the same, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from cockpit_source.deletions.ledger import MOVED, held_alone, open_ledger_at
from cockpit_source.deletions.ledger_file import LedgerFile
from cockpit_source.deletions.ledger_place import LedgerPlace
from cockpit_source.deletions.ledger_record import LedgerRecord, StoreContent
from cockpit_source.deletions.ledger_rows import read_rows, to_rows
from cockpit_source.deletions.ledger_store import open_store
from cockpit_source.errors import ConfigurationError, LedgerUnavailable


def move_ledger(source: LedgerPlace, target: LedgerPlace, folder: Path, *, at: datetime, actor: str) -> int:
    """Copy the ledger at `source` to `target`; both have their file in `folder`. How many records it has then.

    A move that was killed is carried on by the next: what the target holds has to be the beginning of the ledger.

    Raises:
        ConfigurationError: there is no ledger to move, or it would not go from DuckDB to PostgreSQL.
        WarehouseBusy: another command of the deletions is running on either.
        LedgerUnavailable: the stores of the old one differ, the new one holds something else, or one of them cannot
            be read or written.
    """
    if source.database is None or target.database is not None:
        raise ConfigurationError(
            "The ledger of the deletions moves from a DuckDB file to PostgreSQL only: give --destination postgres."
        )
    if not source.database.exists():
        raise ConfigurationError(
            f"There is no ledger of deletions {source.database}. Name the DuckDB file of the inventory with --from. "
            "Where no deletion was ever planned, there is nothing to move."
        )
    path = target.file_in(folder)
    with (
        open_ledger_at(source, folder) as ledger,
        held_alone(path),
        closing(open_store(target, read_only=False)) as store,
    ):
        ledger.require_equal()
        file = LedgerFile(path)
        in_file = file.read()
        in_store = read_rows(store.read()[1])
        for content in (in_file, in_store):
            _require_beginning(content, ledger.records, target, path)
        if ledger.records and ledger.records[-1].kind != MOVED:
            ledger.append(MOVED, at=at, actor=actor, body={"to": target.location})
        # the file first, as ever: what a kill leaves is then in the store that is written first
        if missing := ledger.records[len(in_file.records) :]:
            file.append(missing)
        if missing := ledger.records[len(in_store.records) :]:
            store.insert(to_rows(missing), len(in_store.records))
        return len(ledger.records)


def _require_beginning(
    content: StoreContent, records: Sequence[LedgerRecord], target: LedgerPlace, path: Path
) -> None:
    """Raises LedgerUnavailable unless a store of the target holds nothing else than the first of these records."""
    if content.problem or content.records != list(records[: len(content.records)]):
        raise LedgerUnavailable(
            f"The ledger at {target.location}, with its file {path}, holds other records than the one that is to be "
            "moved, or has gone on since it was moved. Nothing was changed. `cockpit deletions log` shows both, with "
            "and without --destination."
        )
