"""`run_load`: one run of the inventory load, from the scope list to committed tables.

Results are spooled to disk while they come in; the main thread builds load packages from the spool, so that the
next package is fetched while one loads. A run that was killed is carried on, or closed, by the next.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import SimpleQueue

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cockpit_source.busy_tries import BusyTries
from cockpit_source.client import CockpitClient
from cockpit_source.configuration import resolve_settings
from cockpit_source.dlt_options import loading
from cockpit_source.drop_guard import quarantine
from cockpit_source.errors import CockpitError, ConfigurationError, NothingToRetry, WarehouseBusy
from cockpit_source.failed_attempt import forget_failure, keep_failure
from cockpit_source.fetch import utc_now
from cockpit_source.hooks import tell_after_run
from cockpit_source.lake import one_committer
from cockpit_source.load_result import LoadResult, UnreadScope
from cockpit_source.pacing import Pacer
from cockpit_source.packages import PackageLoader, SpooledBatch, abort_unfinished_package, collect_packages
from cockpit_source.pipeline import shard_of, work_folder
from cockpit_source.publish import publish_pipeline
from cockpit_source.reading import FanOut, LocalReading, Reading, ReadingJob
from cockpit_source.recovery import Run, RunOpener
from cockpit_source.run_record import RunRecord
from cockpit_source.runner_lock import RunnerLock, one_runner
from cockpit_source.scope_listing import ScopeLister
from cockpit_source.scopes import GOOD_OUTCOMES
from cockpit_source.settings import Settings
from cockpit_source.shards import FINISH, Shard, parse_shard
from cockpit_source.spool import read_batch
from cockpit_source.stopping import StopRequest
from cockpit_source.warehouse import Warehouse, waiting_for_readers

MAX_UNREAD_SHOWN = 50
_UNREAD_COLUMNS = list(UnreadScope.__dataclass_fields__)


class LoadProgress:
    """What can be watched while a load runs: pass one to `run_load` and read it from another thread."""

    def __init__(self) -> None:
        self.record: RunRecord | None = None
        self.stage = "preparing"
        self.packages = 0
        self.notes: list[str] = []

    def show_stage(self, stage: str) -> None:
        """What is being done before the first scope is read."""
        self.stage = stage


def run_load(
    pipeline: dlt.Pipeline,
    settings: Settings | None = None,
    *,
    full_list: bool = True,
    retry_failed: bool = False,
    accept_drop: int = 0,
    as_of: datetime | None = None,
    fresh: bool = False,
    shard: str | None = None,
    progress: LoadProgress | None = None,
    stop_request: StopRequest | None = None,
    fan_out: FanOut | None = None,
    busy: BusyTries | None = None,
    carry_on: str | None = None,
) -> LoadResult:
    """Read every scope of the list and bring the tables of `pipeline` up to date.

    `pipeline` comes from `create_pipeline`; `settings` default to dlt's configuration. `full_list=False` says that
    the list is only a part, so that nothing is delisted; `retry_failed` reads only the scopes that the last run that
    held them did not read. `accept_drop`: so many scopes may lose all licences or leave the list without a question.
    `as_of` (UTC) dates the whole run, for simulated days. `fresh` starts a new run where the last was interrupted.
    `shard` such as "3/16" reads a part of the list beside other shards, with a pipeline that was created for it;
    "finish", with the ordinary one and after all of them, reads what they did not, and decides about what left the
    list or lost all licences. `stop_request` ends it early. `fan_out` reads elsewhere than in this process, see
    `reading`. `busy`: how often to try while another run or a reader is in the way. `carry_on`: the id of an
    interrupted run to go on with, also where `fresh` or `retry_failed` would begin a new one.

    The result tells what became of the scopes, also when none could be read; its `exit_code` is that of
    `cockpit load`. At the end `after_run_command` and `after_run_webhook` are told, where they are set.

    Raises:
        ConfigurationError: settings, scope list, `as_of` or `shard` do not work; nothing was read.
        DiscoveryFailed: discovery found nothing to load.
        NothingToRetry: `retry_failed`, and every listed scope was read; EmptyShard: no scope falls into `shard`.
        SignInError: discovery had no usable token; later the result says so.
        WarehouseError: the destination cannot be used. What was read is in the spool; the next run loads it.
        WarehouseBusy: another run of the same pipeline, or another program, holds the database.
    """
    settings = settings or resolve_settings()
    progress = progress or LoadProgress()
    as_of = as_of.astimezone(UTC) if as_of is not None else None
    request = stop_request or StopRequest()
    order = _Order(full_list, retry_failed, accept_drop, as_of, fresh, request, shard, fan_out, carry_on)
    _check_shard(pipeline, order)
    try:
        result = _run_until_free(pipeline, settings, order, progress, busy or BusyTries())
    except NothingToRetry:
        forget_failure(pipeline)
        raise
    except CockpitError as error:
        if progress.record is None:
            keep_failure(pipeline, error)
        tell_after_run(settings, error, progress.notes.append)
        raise
    tell_after_run(settings, result, progress.notes.append)
    return result


@dataclass(frozen=True, slots=True)
class _Order:
    """What `run_load` was asked for."""

    full_list: bool
    retry_failed: bool
    accept_drop: int
    as_of: datetime | None
    fresh: bool
    stop_request: StopRequest
    shard: str | None
    fan_out: FanOut | None = None
    carry_on: str | None = None

    @property
    def part(self) -> Shard | None:
        """The part of the list that is read; None for all of it."""
        return None if self.shard in (None, FINISH) else parse_shard(str(self.shard))

    def waiting(self) -> AbstractContextManager[None]:
        """While the context lasts, this run only waits for batches."""
        return nullcontext() if self.fan_out is None else self.fan_out.waiting()

    def now(self) -> datetime:
        """The moment that dates what is read now."""
        return self.as_of or utc_now()


def _check_shard(pipeline: dlt.Pipeline, order: _Order) -> None:
    part = order.part
    if shard_of(pipeline) != str(part or ""):
        raise ConfigurationError(
            f"The pipeline was created for shard {shard_of(pipeline) or 'none'!r}, and the run is for "
            f"{str(part or '') or 'none'!r}: give create_pipeline and run_load the same I/N, and for {FINISH} "
            "create_pipeline none."
        )
    if order.shard is not None and (order.retry_failed or not order.full_list):
        raise ConfigurationError(
            "A shard is a part of the full list: leave out --retry-failed (finish reads what the shards did not) and "
            "--scopes-file (name the file as scopes_file in the configuration)."
        )
    if part is not None and order.accept_drop:
        raise ConfigurationError(f"A shard takes no licences away: --accept-drop goes with --shard {FINISH}.")


def _run_until_free(
    pipeline: dlt.Pipeline, settings: Settings, order: _Order, progress: LoadProgress, busy: BusyTries
) -> LoadResult:
    """Run, and again while the database is in use; a run that has begun by then is carried on."""
    tried = 1
    while True:
        try:
            with nullcontext() if order.fan_out is None else order.fan_out.taking_turns():
                return _run_once(pipeline, settings, order, progress)
        except WarehouseBusy as error:
            begun, progress.record = progress.record, None
            progress.show_stage("waiting for the database")
            if not busy.wait(tried, str(error), order.stop_request, progress.notes.append):
                progress.record = begun
                raise
            progress.show_stage("preparing")
            order = replace(order, carry_on=begun.run_id if begun else order.carry_on)
        tried += 1


def _run_once(pipeline: dlt.Pipeline, settings: Settings, order: _Order, progress: LoadProgress) -> LoadResult:
    began = time.monotonic()
    folder = work_folder(pipeline)
    warehouse = Warehouse(pipeline)
    with (
        loading(pipeline),
        one_runner(pipeline, order.part) as lock,
        waiting_for_readers(
            settings.lock_wait_seconds, progress.notes.append, lambda: order.stop_request.reason is not None
        ),
    ):
        # where a lake is opened for the first time, this makes its catalogue
        with one_committer(pipeline):
            warehouse.check()
        if abort_unfinished_package(pipeline):
            progress.notes.append("Aborted a load package that was left unfinished; its rows are loaded anew.")
        pacer = Pacer(settings.max_requests_per_second, settings.max_concurrency)
        with CockpitClient(settings, pacer=pacer) as client:
            lister = ScopeLister(
                settings,
                client,
                warehouse,
                retry_failed=order.retry_failed,
                shard=order.part,
                note=progress.notes.append,
                show_stage=progress.show_stage,
            )
            opener = RunOpener(
                pipeline,
                warehouse,
                settings,
                lister,
                folder,
                full_list=order.full_list,
                retry_failed=order.retry_failed,
                as_of=order.as_of,
                now=order.now,
                note=progress.notes.append,
                shard=order.shard,
            )
            run = opener.open(fresh=order.fresh, carry_on=order.carry_on)
            record = progress.record = run.open_record(settings)
            forget_failure(pipeline)
            record.calls = client.calls
            minutes = settings.run_deadline_minutes
            job = ReadingJob(
                run,
                record,
                settings,
                client,
                pacer,
                SimpleQueue(),
                order.stop_request,
                order.now,
                progress.notes.append,
                work=folder,
                as_of=order.as_of,
                deadline=None if minutes is None else time.monotonic() + minutes * 60,
            )
            reading = _open_reading(job, order.fan_out)
            guard = run.guard(settings, order.accept_drop)
            loader = PackageLoader(
                pipeline, run.facts, run.spool, run.scope_list, record, guard, progress.notes.append
            )
            _read_and_load(job, reading, loader, lock, progress, order)
        result = LoadResult(
            run_id=record.run_id,
            status=record.status(),
            scopes_total=record.total,
            scopes_listed=record.listed,
            outcomes=dict(record.outcomes),
            license_rows=record.license_rows,
            delisted=_count_delisted(run, record),
            requests=record.requests,
            throttled=record.calls.throttled,
            packages=loader.loaded,
            seconds=round(time.monotonic() - began, 3),
            carried_on=run.carried_on,
            location=warehouse.location,
            dataset=pipeline.dataset_name,
            drops=record.drops,
            unread_scopes=tuple(_read_unread(run, record)),
            stop_reason=reading.stop_reason,
            sign_in_error=reading.sign_in_error,
            listing_problem=run.info.listing_problem,
            is_full_list=order.full_list and not order.retry_failed and order.part is None,
            shard=order.shard,
        )
        run.spool.remove()
        if settings.refresh_marts and order.part is None:
            _refresh_marts(pipeline, settings, lock, progress)
        if settings.publish_read_copy:
            publish_pipeline(pipeline, wait_seconds=settings.lock_wait_seconds, note=progress.notes.append)
    return result


def _refresh_marts(pipeline: dlt.Pipeline, settings: Settings, lock: RunnerLock, progress: LoadProgress) -> None:
    """Refresh the marts; what goes wrong is noted, since the load itself is done."""
    # takes time to import, and few loads need it
    from cockpit_source.marts.refresh import refresh_locked

    try:
        progress.notes.extend(refresh_locked(pipeline, settings, lock).notes)
    except CockpitError as error:
        progress.notes.append(f"The marts were not refreshed; the load is not affected. {error}")


def _open_reading(job: ReadingJob, fan_out: FanOut | None) -> Reading:
    return LocalReading(job) if fan_out is None else fan_out.open_reading(job)


def _read_and_load(
    job: ReadingJob, reading: Reading, loader: PackageLoader, lock: RunnerLock, progress: LoadProgress, order: _Order
) -> None:
    """Spool results in a thread of their own and load packages in this one until both are done."""
    spool = job.run.spool
    already = spool.batches()
    for path in spool.pending_batches():
        job.queue.put(SpooledBatch(path, pq.read_metadata(path).num_rows))
    reader = threading.Thread(target=reading.read, args=(already,), name="spool")
    reader.start()
    try:
        for batches, is_last in collect_packages(job.queue, order.waiting):
            lock.verify()
            if is_last:
                loader.load_last(batches, order.now(), interrupted=order.stop_request.reason is not None)
            else:
                loader.load(batches)
            progress.packages = loader.loaded
    except BaseException:
        # the scopes that are left are not skipped: the next load carries on with them
        reading.abandon("the load ended")
        raise
    finally:
        reader.join()


def _count_delisted(run: Run, record: RunRecord) -> int:
    if not run.facts.delists:
        return 0
    unlisted: int = pq.read_metadata(run.scope_list.unlisted_path).num_rows
    return unlisted - (record.drops.unlisted if record.drops and record.drops.are_held_back else 0)


def _read_unread(run: Run, record: RunRecord) -> list[UnreadScope]:
    """The first scopes of the run that were tried and not read, from its spool, sorted by outcome and ids."""
    unread: list[UnreadScope] = []
    held = set(run.spool.held_batches()) if record.drops and record.drops.are_held_back else set()
    for path in run.spool.batches():
        # of the others only what is shown, since every batch of the run is read here
        table = (
            quarantine(read_batch(path), record.drops)
            if record.drops and path in held
            else pq.read_table(path, columns=_UNREAD_COLUMNS)
        )
        left_out = pa.array([*GOOD_OUTCOMES, "skipped"])
        rows = table.filter(pc.invert(pc.is_in(table["outcome"], left_out))).select(_UNREAD_COLUMNS)
        unread += [UnreadScope(**row) for row in rows.slice(0, MAX_UNREAD_SHOWN - len(unread)).to_pylist()]
        if len(unread) >= MAX_UNREAD_SHOWN:
            break
    return sorted(unread, key=lambda s: (s.outcome, s.customer_id, s.provider_instance_id, s.reseller_id or ""))
