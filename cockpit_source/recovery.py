"""The run that a load begins: a new one, or the interrupted one before it, carried on or closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dlt

from cockpit_source.drop_guard import DropGuard
from cockpit_source.errors import ConfigurationError
from cockpit_source.fetch import Clock, utc_now
from cockpit_source.outcomes import skip
from cockpit_source.packages import PackageLoader
from cockpit_source.run_record import RunRecord, new_run_id
from cockpit_source.scope_list import ScopeList
from cockpit_source.scope_listing import ScopeLister
from cockpit_source.settings import Settings
from cockpit_source.shard_coverage import write_covered
from cockpit_source.shards import FINISH, parse_shard
from cockpit_source.source import RunFacts
from cockpit_source.spool import SKIPPED, RunInfo, Spool, batch_results, to_batch
from cockpit_source.warehouse import Warehouse

CARRY_ON_WITHIN = timedelta(hours=12)

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run about to read scopes: new, or carried on from its spool."""

    spool: Spool
    info: RunInfo
    scope_list: ScopeList
    carried_on: bool = False

    @property
    def facts(self) -> RunFacts:
        info = self.info
        return RunFacts(
            info.run_id,
            info.tenant_key,
            full_list=info.full_list,
            boundary_timestamp=info.as_of,
            is_part=info.is_part,
        )

    def guard(self, settings: Settings, accepted: int = 0) -> DropGuard:
        """What decides about scopes that lost all licences; `accepted` as in `DropGuard`."""
        return DropGuard.of_shard() if self.info.is_part else DropGuard.of(settings, accepted)

    def open_record(self, settings: Settings) -> RunRecord:
        """The record of the run, with what its spool already holds."""
        record = RunRecord(self.info.run_id, settings, self.info.started_at)
        info = self.info
        record.start(
            self.scope_list,
            full_list=self.facts.delists,
            listing_problem=info.listing_problem,
            customers_listed=info.customers_listed,
            shard=info.shard,
            list_begun_at=info.list_begun_at,
        )
        record.count_covered(self.scope_list.covered_path)
        record.count_spooled(self.spool.batches())
        return record


class RunOpener:
    """Opens the run of a load in `folder`, the spool of the pipeline, after dealing with an interrupted one."""

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        warehouse: Warehouse,
        settings: Settings,
        lister: ScopeLister,
        folder: Path,
        *,
        full_list: bool,
        retry_failed: bool,
        as_of: datetime | None,
        now: Clock,
        note: Note,
        shard: str | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._warehouse = warehouse
        self._settings = settings
        self._lister = lister
        self._folder = folder
        self._full_list = full_list and not retry_failed
        self._retry_failed = retry_failed
        self._as_of = as_of
        # as in `runs`
        self._shard = shard
        self._now = now
        self._note = note

    def open(self, *, fresh: bool, carry_on: str | None = None) -> Run:
        """The run to read: the interrupted one where it is young and of the same list, else a new one.

        A list that was discovered is not discovered again for that. Before scopes are retried, an interrupted run is
        closed, which makes its unread scopes some of those. The run with the id `carry_on` is carried on all the
        same.

        Raises:
            ConfigurationError: the scope list or `as_of` does not work.
            DiscoveryFailed: discovery found nothing to load.
            SignInError: discovery has no usable token.
        """
        interrupted = self._find_interrupted()
        if interrupted is not None and interrupted.info.run_id == carry_on and self._can_carry_on(interrupted):
            return self._carry_on(interrupted)
        if interrupted is not None and (fresh or self._retry_failed or not self._can_carry_on(interrupted)):
            self._close(interrupted)
            interrupted = None
        if interrupted is not None and self._is_same_discovery(interrupted):
            return self._carry_on(interrupted)
        run = self._create()
        if interrupted is None:
            self._check_as_of(run)
            return run
        if self._is_same(interrupted, run):
            run.spool.remove()
            return self._carry_on(interrupted)
        run.spool.remove()
        self._close(interrupted)
        # what was just loaded belongs to the state that the new run begins with
        run = self._create()
        self._check_as_of(run)
        return run

    def _find_interrupted(self) -> Run | None:
        """The latest run that was not finished; older rests and those that never began are removed."""
        found: list[Run] = []
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            spool = Spool(folder)
            info = spool.read_info()
            if info is None or info.tenant_key != self._settings.tenant_key:
                spool.remove()
            else:
                scope_list = ScopeList(folder, info.total, info.listed, info.scopes_hash)
                found.append(Run(spool, info, scope_list, carried_on=True))
        for older in found[:-1]:
            self._close(older)
        return found[-1] if found else None

    def _can_carry_on(self, run: Run) -> bool:
        # simulated days have no age; whether the day is the same is compared below
        is_young = run.info.as_of is not None or utc_now() - run.info.started_at < CARRY_ON_WITHIN
        return is_young and not self._is_overtaken(run.info)

    def _is_overtaken(self, info: RunInfo) -> bool:
        """Whether a later run has loaded, or may have, what the spool of this one holds."""
        return self._warehouse.has_run_since(info.tenant_key, info.run_id, info.started_at, info.shard)

    def _carry_on(self, run: Run) -> Run:
        # a signal may have skipped the rest, and the process been killed before that was loaded
        run.spool.forget_skipped()
        spooled = run.open_record(self._settings).done
        self._note(
            f"Carrying on run {run.info.run_id}, which was interrupted: {spooled} of "
            f"{run.info.total} scopes are done already (--fresh starts over)."
        )
        return run

    def _is_same_discovery(self, interrupted: Run) -> bool:
        is_wanted = self._settings.scopes.origin == "discover"
        info = interrupted.info
        return is_wanted and info.is_discovered and (info.as_of, info.shard) == (self._as_of, self._shard)

    def _is_same(self, interrupted: Run, new: Run) -> bool:
        old, wanted = interrupted.info, new.info
        return all(
            getattr(old, name) == getattr(wanted, name) for name in ("scopes_hash", "full_list", "as_of", "shard")
        )

    def _create(self) -> Run:
        started_at = self._now()
        run_id = new_run_id(utc_now())
        spool = Spool.create(self._folder / run_id)
        begun_at = None
        try:
            prepared = self._lister.prepare(spool.folder, started_at)
            scope_list = prepared.scope_list
            if self._shard == FINISH:
                begun_at = write_covered(scope_list, self._warehouse, self._settings.tenant_key, started_at)
        except BaseException:
            spool.remove()
            raise
        info = RunInfo(
            run_id,
            self._settings.tenant_key,
            started_at,
            self._full_list and prepared.problem is None,
            self._as_of,
            scope_list.total,
            scope_list.listed,
            scope_list.scopes_hash,
            prepared.discovery is not None,
            prepared.problem,
            # a shard does not load the customers that it lists
            prepared.customers_listed if self._shard in (None, FINISH) else None,
            self._shard,
            begun_at,
        )
        spool.write_info(info)
        return Run(spool, info, scope_list)

    def _check_as_of(self, run: Run) -> None:
        shard = parse_shard(run.info.shard) if run.info.is_part and run.info.shard else None
        latest = self._warehouse.latest_validity(self._settings.tenant_key, shard) if self._as_of else None
        if latest is not None and self._as_of is not None and self._as_of <= latest:
            run.spool.remove()
            raise ConfigurationError(
                f"--as-of {self._as_of.isoformat()} is not later than {latest.astimezone(UTC).isoformat()}, the "
                "latest time in license_history; history can only be appended to."
            )

    def _close(self, run: Run) -> None:
        """Load what the spool of an interrupted run still holds, the rest as skipped, and end the run."""
        info = run.info
        if self._is_overtaken(info):
            self._note(f"Dropped the spool of run {info.run_id}: a later run has loaded newer answers.")
        else:
            already = run.spool.batches()
            left = (
                skip(listed, "the run was interrupted", info.as_of or info.started_at)
                for listed in run.scope_list.iter_scopes(already)
            )
            for batch in batch_results(left):
                run.spool.write_batch(to_batch(batch), SKIPPED)
            record = run.open_record(self._settings)
            guard = run.guard(self._settings)
            loader = PackageLoader(self._pipeline, run.facts, run.spool, run.scope_list, record, guard, self._note)
            loader.load_last(run.spool.pending_batches(), self._now(), interrupted=True)
            self._note(f"Closed run {info.run_id}, which was interrupted: what it had read is loaded.")
        run.spool.remove()
