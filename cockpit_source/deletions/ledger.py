"""The ledger of the deletions: one stream of records, kept twice, in the warehouse and in a file.

A record counts as committed when both have it: `append` returns only then, and whoever is about to send a request
appends its intent first. A process that dies between the two writes leaves one record in the file only; the next one
to open the ledger completes it. Stores that differ in any other way are read, but nothing is appended to them, so
nothing is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt

from cockpit_source.deletions.ledger_compare import Comparison, compare
from cockpit_source.deletions.ledger_file import LedgerFile
from cockpit_source.deletions.ledger_place import LedgerPlace, ledger_place
from cockpit_source.deletions.ledger_record import KINDS, Kind, LedgerRecord, StoreContent, make_record
from cockpit_source.deletions.ledger_rows import read_rows, to_rows
from cockpit_source.deletions.ledger_store import ANOTHER_IS_RUNNING, LedgerStore, StoreInUse, open_store
from cockpit_source.deletions.ledger_tables import DELETION_EVENTS, DELETION_PLANS
from cockpit_source.errors import LedgerUnavailable
from cockpit_source.lock import file_lock

__all__ = ["KINDS", "Kind", "Ledger", "LedgerRecord", "open_ledger", "open_ledger_at"]

DIFFERS = "ledger_differs"
# the last record of a ledger beside a DuckDB file that goes on in PostgreSQL
MOVED = "moved"
_NUMBERED = (DELETION_PLANS, DELETION_EVENTS)
# of a reader, while a writer is between the two stores
_LOOKS = 4
_SECONDS_BETWEEN_LOOKS = 0.05


class Ledger:
    """An open ledger. `records` are those committed; `difference` tells how the stores differ, None: not."""

    def __init__(self, place: LedgerPlace, file: LedgerFile, store: LedgerStore, *, read_only: bool) -> None:
        self.records: list[LedgerRecord] = []
        self.difference: str | None = None
        self._place = place
        self._file = file
        self._store = store
        self._read_only = read_only
        self._failed = False
        self._comparison = self._read()
        self._take_over()

    def append(
        self,
        kind: str,
        *,
        at: datetime,
        actor: str,
        plan_id: str | None = None,
        item: int | None = None,
        correlation_id: str | None = None,
        body: Mapping[str, Any],
    ) -> LedgerRecord:
        """Commit a record to both stores. After an error the ledger takes no more until it is opened again.

        Raises:
            LedgerUnavailable: a store could not be written, or they differ. The record may be in the file.
            ValueError, TypeError: the record could not be stored; nothing was written.
        """
        self._require_writable()
        self._require_here()
        self.require_equal()
        if kind == "plan" and any(record.plan_id == plan_id for record in self.records if record.kind == "plan"):
            raise ValueError(f"the ledger holds a plan {plan_id} already")
        record = make_record(
            self.records[-1] if self.records else None,
            kind,
            at=at,
            actor=actor,
            body=body,
            plan_id=plan_id,
            item=item,
            correlation_id=correlation_id,
        )
        self._commit(to_file=[record], to_warehouse=[record])
        self.records.append(record)
        return record

    def require_equal(self) -> None:
        """Raises LedgerUnavailable while the stores differ."""
        if self.difference is not None:
            raise self._differs("Nothing can be added to the ledger, so nothing is sent")

    def mend(self, *, at: datetime, actor: str) -> int:
        """Give the store that lacks records those of the other one, and record that. How many they were.

        Raises:
            LedgerUnavailable: a store could not be written, or they contradict each other.
        """
        self._require_writable()
        comparison = self._comparison
        if self.difference is None:
            return 0
        if comparison.remedy not in ("from_file", "from_warehouse"):
            raise self._differs("The stores of the ledger contradict each other, so neither can be completed")
        missing = comparison.missing
        to_file = comparison.remedy == "from_warehouse"
        mended = make_record(
            comparison.records[-1],
            "mended",
            at=at,
            actor=actor,
            body={"records": len(missing), "from": "warehouse" if to_file else "file"},
        )
        self._commit(
            to_file=[*missing, mended] if to_file else [mended],
            to_warehouse=[mended] if to_file else [*missing, mended],
            mends=True,
        )
        self._comparison = Comparison("none", [*comparison.records, mended], [])
        self._take_over()
        return len(missing)

    def _read(self) -> Comparison:
        """Both stores; a reader looks again while a writer may be between them."""
        looks = _LOOKS if self._read_only else 1
        while True:
            looks -= 1
            comparison = self._compare()
            if comparison.remedy not in ("complete", "from_file") or looks == 0:
                return comparison
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _compare(self) -> Comparison:
        try:
            is_there, rows = self._store.read()
        except StoreInUse as error:
            if not self._read_only:
                raise
            file = self._file.read()
            problem = f"; in the file, {file.problem}" if file.problem else ""
            only = f"the warehouse is in use by {error.holder}, so only the file was read{problem}"
            return Comparison("by_hand", file.records, [], only)
        content = read_rows(rows)
        self._stored_last = max((row[0] for table in _NUMBERED for row in rows[table.name]), default=0)
        warehouse = StoreContent(content.records, content.problem, is_there)
        return compare(self._file.read(), warehouse, rows)

    def _take_over(self) -> None:
        """Take the records over, and heal what a killed process left."""
        self.records = list(self._comparison.records)
        self.difference = self._comparison.difference
        if self._read_only:
            if self._comparison.remedy == "complete":
                self.difference = f"{self.difference}; the next plan, apply or verify completes it"
            return
        if self._comparison.remedy == "complete":
            # whoever wrote it may have been killed before the disk had it
            self._file.sync()
            self._store.insert(to_rows(self._comparison.missing), self._stored_last)
            self._stored_last = self.records[-1].seq
            self.difference = None
        if self.difference is None:
            self._file.cut_torn_line()

    def _commit(self, *, to_file: list[LedgerRecord], to_warehouse: list[LedgerRecord], mends: bool = False) -> None:
        """Write to the file, then to the warehouse; a kill in between leaves what opening or `mend` can complete."""
        self._failed = True
        self._file.append(to_file)
        rows = self._missing_rows(to_warehouse) if mends else to_rows(to_warehouse)
        self._store.insert(rows, self._stored_last)
        self._stored_last = to_warehouse[-1].seq
        self._failed = False

    def _missing_rows(self, records: list[LedgerRecord]) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of the records that are not stored; a record may have lost some of its rows only."""
        _, stored = self._store.read()
        held = {name: set(some) for name, some in stored.items()}
        return {name: [row for row in some if row not in held[name]] for name, some in to_rows(records).items()}

    def _require_writable(self) -> None:
        if self._read_only:
            raise LedgerUnavailable("The ledger was opened for reading, so nothing can be added to it.")
        if self._failed:
            raise LedgerUnavailable(
                "The ledger could not be written before, so nothing more is added to it and nothing is sent. Run "
                "again: opening it anew shows what was committed."
            )

    def _require_here(self) -> None:
        """Nothing is added to a ledger that was moved: its new place holds the same records, and goes on."""
        if self._place.database is not None and self.records and self.records[-1].kind == MOVED:
            raise LedgerUnavailable(
                f"The ledger {self._place.location} was moved to {self.records[-1].body['to']}, where it goes on, so "
                "nothing can be added to it here and nothing is sent. Give --destination postgres."
            )

    def _differs(self, what: str) -> LedgerUnavailable:
        if self._comparison.remedy == "by_hand":
            advice = (
                "Find out which store was changed, put it back from a backup, or move it away and keep it: a store "
                "that is not there is made again from the other by `cockpit deletions mend`"
            )
        else:
            advice = "Find out how that came about, then run `cockpit deletions mend`, which copies what is missing"
        return LedgerUnavailable(
            f"{what}: {self.difference}. The file is {self._file.path}, the warehouse {self._place.location}. "
            f"{advice}.",
            DIFFERS,
        )


@contextmanager
def open_ledger(pipeline: dlt.Pipeline, folder: Path, *, read_only: bool = False) -> Iterator[Ledger]:
    """The ledger of the inventory that `pipeline` loads, with its file in the project folder.

    To write, it is held by one process at a time; what a killed one left is completed. `read_only` creates, completes
    and locks nothing.

    Raises:
        ConfigurationError: there is no ledger for this destination.
        WarehouseBusy: another process has it open to write.
        LedgerUnavailable: a store cannot be read, or not be completed.
    """
    with open_ledger_at(ledger_place(pipeline), folder, read_only=read_only) as ledger:
        yield ledger


@contextmanager
def open_ledger_at(place: LedgerPlace, folder: Path, *, read_only: bool = False) -> Iterator[Ledger]:
    """As `open_ledger`, with the place given."""
    path = place.file_in(folder)
    with nullcontext() if read_only else held_alone(path):
        store = open_store(place, read_only=read_only)
        try:
            ledger = Ledger(place, LedgerFile(path), store, read_only=read_only)
            yield ledger
        finally:
            store.close()


@contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Hold the lock beside the file of a ledger.

    Raises:
        WarehouseBusy: another process holds it.
        LedgerUnavailable: it cannot be locked.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path.with_name(f"{path.name}.lock"), ANOTHER_IS_RUNNING))
        except OSError as error:
            raise LedgerUnavailable(
                f"The ledger cannot be locked: {error.filename}: {error.strerror}. Nothing is sent without it. Check "
                "the project folder and its permissions, then run again."
            ) from error
        yield
