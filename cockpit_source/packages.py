"""Load packages of bounded size, built from spool batches and loaded one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt.common.exceptions import DltException
from dlt.extract import DltSource

from cockpit_source.drop_guard import DropGuard, Drops, count_drops, quarantine
from cockpit_source.errors import WarehouseRefused
from cockpit_source.lake import is_shared_lake, one_committer
from cockpit_source.listing_store import read_listed
from cockpit_source.run_record import RunRecord
from cockpit_source.scope_list import ScopeList
from cockpit_source.source import PackagePart, RunFacts, known_tables, package_source
from cockpit_source.spool import Spool, fail_batch, read_batch, read_batches
from cockpit_source.warehouse import Warehouse, describe_location, tells_lost_connection, to_warehouse_error

PACKAGE_SCOPES = 4_000
PACKAGE_SECONDS = 60.0
SECOND_TRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SpooledBatch:
    """A batch that has just been written. `scopes` are those in it, of which skipped ones count less."""

    path: Path
    scopes: float


# a batch, None at the end, or what ended the reading
BatchQueue = SimpleQueue[SpooledBatch | None | BaseException]


def collect_packages(
    queue: BatchQueue, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[tuple[list[Path], bool]]:
    """The batches of each package, and whether it is the last; the last may be without batches.

    Waits for batches inside of `waiting`.

    A package closes before it would hold more than `PACKAGE_SCOPES`, or `PACKAGE_SECONDS` after its first batch.
    Raises what ended the reading, if anything did.
    """
    paths: list[Path] = []
    scopes = 0.0
    closes_at: float | None = None
    while True:
        try:
            with waiting():
                batch = queue.get(timeout=None if closes_at is None else max(0.0, closes_at - time.monotonic()))
        except Empty:
            yield paths, False
            paths, scopes, closes_at = [], 0.0, None
            continue
        if batch is None:
            yield paths, True
            return
        if isinstance(batch, BaseException):
            raise batch
        if paths and scopes + batch.scopes > PACKAGE_SCOPES:
            yield paths, False
            paths, scopes, closes_at = [], 0.0, None
        paths.append(batch.path)
        scopes += batch.scopes
        closes_at = closes_at or time.monotonic() + PACKAGE_SECONDS


class PackageLoader:
    """Loads the packages of one run.

    The row of the run goes into the first package and the last, what discovery listed into the first. Emptied scopes
    wait for the last, when the drop guard has seen all of them. A package that the destination refuses twice is
    loaded batch by batch, and the scopes of a batch that it refuses alone have failed.
    """

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        facts: RunFacts,
        spool: Spool,
        scope_list: ScopeList,
        record: RunRecord,
        guard: DropGuard,
        note: Callable[[str], None],
    ) -> None:
        self._pipeline = pipeline
        self._facts = facts
        self._spool = spool
        self._scope_list = scope_list
        self._record = record
        self._guard = guard
        self._note = note
        self._has_opened = False
        self._has_synced = False
        self.loaded = 0

    def load(self, batches: Sequence[Path]) -> None:
        """Load a package that is not the last.

        Raises:
            WarehouseError: the destination cannot be used; the batches stay in the spool.
        """
        self._load(batches, self._opening_parts)

    def load_last(self, batches: Sequence[Path], finished_at: datetime, *, interrupted: bool = False) -> None:
        """Load the last package: with the emptied scopes, the delisted ones after a full list, and the final row."""
        self._record.is_interrupted = interrupted
        held = self._spool.held_batches()
        drops = count_drops(self._guard, self._scope_list, held, full_list=self._facts.delists)
        self._record.count_drops(drops)

        def closing_parts() -> Iterator[PackagePart]:
            if not self._has_opened:
                yield self._listed_part()
            if self._facts.delists:
                yield from _delisted_parts(self._scope_list.unlisted_path, self._record.started_at, drops)
            yield PackagePart(run=self._record.to_row(finished_at))

        self._load([*batches, *held], closing_parts)

    def _opening_parts(self) -> Iterator[PackagePart]:
        if not self._has_opened:
            yield self._listed_part()
            yield PackagePart(run=self._record.to_row(None))

    def _listed_part(self) -> PackagePart:
        return PackagePart(listed={} if self._facts.is_part else read_listed(self._spool.folder))

    def _load(self, batches: Sequence[Path], other_parts: Callable[[], Iterator[PackagePart]]) -> None:
        try:
            self._load_twice(batches, other_parts)
        except WarehouseRefused as refusal:
            if not batches:
                raise
            self._note(f"The destination refused a package twice, so its batches are loaded one by one. {refusal}")
            for path in batches:
                self._load_alone(path)
            self._load_package([], other_parts)
        self._has_opened = True

    def _load_twice(self, batches: Sequence[Path], other_parts: Callable[[], Iterator[PackagePart]]) -> None:
        try:
            self._load_package(batches, other_parts)
        except WarehouseRefused:
            time.sleep(SECOND_TRY_AFTER_SECONDS)
            self._load_package(batches, other_parts)

    def _load_alone(self, path: Path) -> None:
        """Load one batch; when the destination refuses it, its scopes have failed, which is loaded instead."""
        try:
            self._load_package([path])
        except WarehouseRefused as refusal:
            if tells_lost_connection(refusal.reason):
                raise
            batch = read_batch(path)
            failed, outcomes, rows = fail_batch(batch, refusal.reason)
            self._load_tables([failed])
            self._spool.rewrite_batch(path, failed)
            self._spool.mark_loaded([path])
            self._record.count_refused(outcomes, rows)
            self._note(
                f"The destination refused the rows of {sum(outcomes.values())} scopes: {refusal.reason}. They have "
                "failed and keep their last good rows; correct what it names (`cockpit status` lists the scopes), "
                "then run `cockpit load --retry-failed`."
            )

    def _load_package(
        self, batches: Sequence[Path], other_parts: Callable[[], Iterable[PackagePart]] = tuple
    ) -> None:
        self._load_tables(read_batches(batches), other_parts())
        self._spool.mark_loaded(batches)

    def _load_tables(self, tables: Iterable[pa.Table], other_parts: Iterable[PackagePart] = ()) -> None:
        """Load results and other parts in one package.

        Raises:
            WarehouseRefused: the destination did not take it; WarehouseBusy: another process holds it.
        """
        results = (PackagePart(results=self._guarded(table)) for table in tables)
        try:
            with Warehouse(self._pipeline).held_open():
                self._run(package_source(chain(results, other_parts), self._facts, known_tables(self._pipeline)))
        except DltException as error:
            abort_unfinished_package(self._pipeline)
            raise to_warehouse_error(error, describe_location(self._pipeline)) from error
        self.loaded += 1

    def _run(self, source: DltSource) -> None:
        if not is_shared_lake(self._pipeline):
            self._pipeline.run(source)
            return
        # as `run` does it, but only what commits waits for its turn
        if not self._has_synced:
            self._pipeline.sync_destination()
            self._has_synced = True
        self._pipeline.extract(source)
        self._pipeline.normalize()
        with one_committer(self._pipeline):
            self._pipeline.load()

    def _guarded(self, table: pa.Table) -> pa.Table:
        drops = self._record.drops
        return quarantine(table, drops) if drops is not None and drops.are_held_back else table


def abort_unfinished_package(pipeline: dlt.Pipeline) -> bool:
    """Abort a package that an earlier process left, whose rows are in the spool too; whether there was one.

    It is never resumed: dlt would load its staging rows twice. Where a kill left dlt's own files half written, its
    working folder is made anew; the schema comes back from the destination.
    """
    _remove_half_written_schemas(pipeline)
    try:
        return pipeline.abort_packages() is not None
    except (OSError, ValueError):
        pipeline.drop()
        return True


def _remove_half_written_schemas(pipeline: dlt.Pipeline) -> None:
    """dlt 1.31 takes any file in its folder of schemas for one, also what a kill left of writing one."""
    for path in Path(pipeline.working_dir, "schemas").glob("*"):
        if path.is_file() and not path.name.endswith(".schema.json"):
            path.unlink()


def _delisted_parts(unlisted: Path, delisted_at: datetime, drops: Drops) -> Iterator[PackagePart]:
    with pq.ParquetFile(unlisted) as file:
        for batch in file.iter_batches():
            table = pa.Table.from_batches([batch])
            if drops.are_held_back:
                holds = pc.greater(table["held_licenses"], 0)
                yield PackagePart(held_back=table.filter(holds), delisted_at=delisted_at)
                table = table.filter(pc.invert(holds))
            yield PackagePart(delisted=table, delisted_at=delisted_at)
