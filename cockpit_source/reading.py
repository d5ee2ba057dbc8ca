"""Reads the scopes of a run into its spool while packages load: here in this process, elsewhere on many.

Whoever reads writes batches through `SpoolWriter`, in a thread of its own; the packages are built from its queue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from cockpit_source.client import CockpitClient
from cockpit_source.errors import SignInError
from cockpit_source.fetch import Fetcher
from cockpit_source.outcomes import ScopeResult
from cockpit_source.pacing import Pacer
from cockpit_source.packages import BatchQueue, SpooledBatch
from cockpit_source.recovery import Run
from cockpit_source.run_record import RunRecord
from cockpit_source.settings import Settings
from cockpit_source.spool import HELD, SKIPPED, SKIPPED_AS_ONE, batch_results, split_batch, to_batch
from cockpit_source.stopping import StopRequest

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ReadingJob:
    """What is to be read, and where it goes. `client` signs in with the credentials in `settings`.

    `deadline` is on the monotonic clock, seconds; None without one. `now` dates what is read; `as_of` is set where
    that is always the same moment. `work` is the name of the pipeline, which no other run has at the same time.
    """

    run: Run
    record: RunRecord
    settings: Settings
    client: CockpitClient
    pacer: Pacer
    queue: BatchQueue
    stop_request: StopRequest
    now: Callable[[], datetime]
    note: Callable[[str], None]
    work: Path
    as_of: datetime | None = None
    deadline: float | None = None


class Reading(Protocol):
    """The reading of one run."""

    @property
    def stop_reason(self) -> str | None:
        """Why it ended early."""

    @property
    def sign_in_error(self) -> SignInError | None:
        """The failed sign-in, where that was why."""

    def read(self, already: Sequence[Path]) -> None:
        """Read all scopes that the batches `already` do not hold into the spool; ends the queue, also with an error.

        For a thread of its own.
        """

    def abandon(self, reason: str) -> None:
        """Start no further call and spool nothing more: the next load carries on."""


class FanOut(Protocol):
    """Reads elsewhere than in this process, for one run or several at once."""

    def open_reading(self, job: ReadingJob) -> Reading:
        """The reading of a run. Raises ConfigurationError where it cannot work."""

    def taking_turns(self) -> AbstractContextManager[None]:
        """Be the one run of this process that does anything but wait for batches."""

    def waiting(self) -> AbstractContextManager[None]:
        """Let other runs have their turn, while the context lasts."""

    def run_at_once(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """What the jobs give, several loads at once, each in its turn. Raises what the first one raised."""


class SpoolWriter:
    """Writes batches into the spool of a run, counts them, and queues them for the packages."""

    def __init__(self, job: ReadingJob) -> None:
        self._spool = job.run.spool
        self._queue = job.queue
        self._record = job.record

    def write(self, batch: pa.Table) -> None:
        """Write a batch that was read elsewhere, which nobody has counted yet."""
        self._record.count_batch(batch)
        self.write_counted(batch)

    def write_counted(self, batch: pa.Table) -> None:
        """Write a batch whose results were counted when they came in."""
        for part, kind in split_batch(batch):
            path = self._spool.write_batch(part, kind)
            if kind != HELD:
                weight = part.num_rows / (SKIPPED_AS_ONE if kind == SKIPPED else 1)
                self._queue.put(SpooledBatch(path, weight))


class LocalReading:
    """Reads in this process."""

    def __init__(self, job: ReadingJob) -> None:
        self._job = job
        self._writer = SpoolWriter(job)
        self._ended = threading.Event()
        self._fetcher = Fetcher(
            job.client,
            job.pacer,
            max_concurrency=job.settings.max_concurrency,
            deadline_seconds=None if job.deadline is None else job.deadline - time.monotonic(),
            stop_request=job.stop_request,
            now=job.now,
        )

    @property
    def stop_reason(self) -> str | None:
        return self._fetcher.stop_reason

    @property
    def sign_in_error(self) -> SignInError | None:
        return self._fetcher.sign_in_error

    def abandon(self, reason: str) -> None:
        self._ended.set()
        self._fetcher.stop(reason)

    def read(self, already: Sequence[Path]) -> None:
        try:
            with closing(self._fetcher.fetch(self._job.run.scope_list.iter_scopes(already))) as results:
                for batch in batch_results(self._counted(results)):
                    self._writer.write_counted(to_batch(batch))
            self._job.queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the packages are loaded
            self._job.queue.put(error)

    def _counted(self, results: Iterator[ScopeResult]) -> Iterator[ScopeResult]:
        for result in results:
            if self._ended.is_set():
                return
            self._job.record.count([result])
            yield result
