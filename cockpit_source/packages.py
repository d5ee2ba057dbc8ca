"""Load packages of bounded size, built from spool batches and loaded one after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.exceptions import DltException

from cockpit_source.listing_store import read_listed
from cockpit_source.run_record import RunRecord
from cockpit_source.source import PackagePart, RunFacts, package_source
from cockpit_source.spool import Spool, read_batches
from cockpit_source.warehouse import Warehouse, describe_location, to_warehouse_error

PACKAGE_SCOPES = 4_000
PACKAGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SpooledBatch:
    """A batch that has just been written."""

    path: Path
    scopes: int


# a batch, None at the end, or what ended the reading
BatchQueue = SimpleQueue[SpooledBatch | None | BaseException]


def collect_packages(queue: BatchQueue) -> Iterator[tuple[list[Path], bool]]:
    """The batches of each package, and whether it is the last; the last may be without batches.

    A package closes before it would hold more than `PACKAGE_SCOPES`, or `PACKAGE_SECONDS` after its first batch.
    Raises what ended the reading, if anything did.
    """
    paths: list[Path] = []
    scopes = 0
    closes_at: float | None = None
    while True:
        try:
            batch = queue.get(timeout=None if closes_at is None else max(0.0, closes_at - time.monotonic()))
        except Empty:
            yield paths, False
            paths, scopes, closes_at = [], 0, None
            continue
        if batch is None:
            yield paths, True
            return
        if isinstance(batch, BaseException):
            raise batch
        if paths and scopes + batch.scopes > PACKAGE_SCOPES:
            yield paths, False
            paths, scopes, closes_at = [], 0, None
        paths.append(batch.path)
        scopes += batch.scopes
        closes_at = closes_at or time.monotonic() + PACKAGE_SECONDS


class PackageLoader:
    """Loads the packages of one run.

    The row of the run goes into the first package and the last, what discovery listed into the first.
    """

    def __init__(self, pipeline: dlt.Pipeline, facts: RunFacts, spool: Spool, record: RunRecord) -> None:
        self._pipeline = pipeline
        self._facts = facts
        self._spool = spool
        self._record = record
        self.loaded = 0

    def load(self, batches: Sequence[Path]) -> None:
        """Load a package that is not the last.

        Raises:
            WarehouseError: the destination refused it; its batches stay in the spool.
        """
        opening = [] if self.loaded else [PackagePart(run=self._record.to_row(None))]
        self._load(chain(self._listed_parts(), _result_parts(batches), opening), batches)

    def load_last(
        self, batches: Sequence[Path], finished_at: datetime, unlisted: Path | None, *, interrupted: bool = False
    ) -> None:
        """Load the last package: with the final row of the run and, after a full list, the delisted scopes."""
        delisted = () if unlisted is None else _delisted_parts(unlisted, self._record.started_at)
        run_row = PackagePart(run=self._record.to_row(finished_at, interrupted=interrupted))
        self._load(chain(self._listed_parts(), _result_parts(batches), delisted, [run_row]), batches)

    def _listed_parts(self) -> Iterator[PackagePart]:
        if not self.loaded:
            yield PackagePart(listed=read_listed(self._spool.folder))

    def _load(self, parts: Iterable[PackagePart], batches: Sequence[Path]) -> None:
        try:
            with Warehouse(self._pipeline).held_open():
                self._pipeline.run(package_source(parts, self._facts))
        except DltException as error:
            abort_unfinished_package(self._pipeline)
            raise to_warehouse_error(error, describe_location(self._pipeline)) from error
        self._spool.mark_loaded(batches)
        self.loaded += 1


def abort_unfinished_package(pipeline: dlt.Pipeline) -> bool:
    """Abort a package that an earlier process left, whose rows are in the spool too; whether there was one.

    It is never resumed: dlt would load its staging rows twice.
    """
    return pipeline.abort_packages() is not None


def _result_parts(batches: Sequence[Path]) -> Iterator[PackagePart]:
    for table in read_batches(batches):
        yield PackagePart(results=table)


def _delisted_parts(unlisted: Path, delisted_at: datetime) -> Iterator[PackagePart]:
    with pq.ParquetFile(unlisted) as file:
        for batch in file.iter_batches():
            yield PackagePart(delisted=pa.Table.from_batches([batch]), delisted_at=delisted_at)
