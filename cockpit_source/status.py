"""What `cockpit status` tells: the last runs, what they changed, and which scopes are stale. Reads only.

Everything is added up by the warehouse, so memory does not grow with the number of scopes. Every time is UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt

from cockpit_source import status_sql
from cockpit_source.errors import EXIT_ALL_READ, EXIT_SOME_NOT_READ, ConfigurationError, WarehouseBusy
from cockpit_source.failed_attempt import FailedAttempt, read_failure
from cockpit_source.lock import lock_holder
from cockpit_source.pipeline import work_folder
from cockpit_source.publish import read_copy_path
from cockpit_source.scopes import GOOD_OUTCOMES, OUTCOMES
from cockpit_source.spool import list_spools
from cockpit_source.warehouse import DatasetClient, Warehouse, database_file

UNCOMMITTED = "uncommitted"

_MAX_AGE_HOURS = 1_000_000
_CUSTOMERS_SHOWN = 10
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """A run that is not finished, as its spool tells: `done` of `total` scopes have an outcome.

    `process`: the process that loads it now; None for a run that was interrupted and waits for the next load.
    """

    run_id: str
    started_at: datetime
    done: int
    total: int
    process: str | None


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run. `status` is running also for a run that was killed and not carried on yet, and for shards that no run
    has ended yet, whether one of them goes on or not; then `finished_at` is None.

    `emptied` scopes read empty and held licences before, `delisted` ones left the list. `row_change` and
    `seat_change` are against the state before the run; see `status_sql` for what counts. `shards_done`: of shards
    that no run has ended yet, which are together one line with the id `shards`, how many different ones; 0 for every
    other run. A shard that was repeated, and a scope that several of them read, count once; calls count all.
    """

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    status: str
    scopes_total: int
    scopes_read: int
    license_rows: int
    requests: int
    throttled: int
    emptied: int
    delisted: int
    row_change: int
    seat_change: int
    shards_done: int = 0


@dataclass(frozen=True, slots=True)
class NamedScope:
    """A scope with the names that are known; None where discovery did not tell them.

    `customer_label`: the name, with the beginning of the id where several customers have it.
    """

    scope_key: str
    customer_id: str
    customer_name: str | None
    customer_label: str | None
    provider_instance_id: str
    provider_instance_alias: str | None
    reseller_id: str | None
    reseller_name: str | None


@dataclass(frozen=True, slots=True)
class ChangedScope(NamedScope):
    """A scope that was emptied or delisted in the last run; `rows_before`: its licence rows before it was emptied."""

    rows_before: int | None


@dataclass(frozen=True, slots=True)
class StaleScope(NamedScope):
    """A listed scope that was not read last, or not lately.

    `outcome` is that of the last run, or `uncommitted`. `last_good_at` is None when it was never read.
    """

    outcome: str
    reason: str
    correlation_id: str | None
    server_correlation_id: str | None
    last_good_at: datetime | None
    failing_runs: int


@dataclass(frozen=True, slots=True)
class CustomerChange:
    """Licence rows and seats that a customer gained or lost in the last run, over all its scopes; names as above."""

    customer_id: str
    customer_name: str | None
    customer_label: str | None
    row_change: int
    seat_change: int


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. `runs` begin with the last; `outcomes`, `emptied`, `delisted` and `customer_changes` are of that.

    `listed` scopes are on the list, `stale` of them were not read last, or not for `max_age_hours`; `too_old` are
    those without a good read in that time, 0 without that limit. The scopes named are the first ones only.
    `failed_attempt`: the last load on this machine, where it ended before it had a run and no run has ended since.
    """

    tenant: str
    read_at: datetime
    destination: str
    dataset: str
    dlt_folder: str
    spool_folder: str
    max_age_hours: float | None
    spooled_run: SpooledRun | None
    failed_attempt: FailedAttempt | None = None
    copied_at: datetime | None = None
    runs: tuple[RunLine, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)
    listed: int = 0
    stale: int = 0
    too_old: int = 0
    stale_scopes: tuple[StaleScope, ...] = ()
    stale_sql: str = ""
    emptied: tuple[ChangedScope, ...] = ()
    delisted: tuple[ChangedScope, ...] = ()
    customer_changes: tuple[CustomerChange, ...] = ()

    @property
    def exit_code(self) -> int:
        """3 when a limit is given and a listed scope has no good read within it, or nothing was ever loaded."""
        is_late = self.max_age_hours is not None and (self.too_old > 0 or not self.runs)
        return EXIT_SOME_NOT_READ if is_late else EXIT_ALL_READ


def read_status(
    pipeline: dlt.Pipeline,
    tenant_key: str,
    *,
    runs: int,
    max_age_hours: float | None = None,
    limit: int = 20,
    now: datetime | None = None,
) -> Status:
    """The state of the inventory of one tenant: its last `runs` runs, at most `limit` scopes of each kind by name.

    Raises:
        ConfigurationError: `max_age_hours` does not work.
        WarehouseError: the warehouse cannot be read; WarehouseBusy while a load writes a DuckDB file that has no
            read copy.
    """
    if max_age_hours is not None and not 0 < max_age_hours <= _MAX_AGE_HOURS:
        raise ConfigurationError(
            f"--max-age-hours {max_age_hours:g} does not fit. Valid: hours above 0 and up to {_MAX_AGE_HOURS}, such "
            "as 36."
        )
    now = now or datetime.now(UTC)
    warehouse = Warehouse(pipeline)
    folder = work_folder(pipeline)
    common: dict[str, Any] = {
        "tenant": tenant_key,
        "read_at": now,
        "destination": warehouse.location,
        "dataset": warehouse.dataset,
        "dlt_folder": str(pipeline.working_dir),
        "spool_folder": str(folder),
        "max_age_hours": max_age_hours,
        "spooled_run": find_spooled_run(folder, tenant_key),
        "failed_attempt": read_failure(pipeline),
    }
    oldest = None if max_age_hours is None else now - timedelta(hours=max_age_hours)
    try:
        return _read(warehouse, tenant_key, common, runs, oldest, limit)
    except WarehouseBusy:
        # a load writes: the copy for readers is as of the end of the run before
        copy = _find_copy(pipeline)
        if copy is None:
            raise
        common["copied_at"] = datetime.fromtimestamp(copy.stat().st_mtime, UTC)
        return _read(Warehouse(pipeline, copy=copy), tenant_key, common, runs, oldest, limit)


def read_tenants(pipeline: dlt.Pipeline) -> list[str]:
    """The keys of the tenants that were ever loaded into the dataset of `pipeline`, in order.

    Raises:
        WarehouseError: as `read_status`.
    """
    try:
        return _read_tenants(Warehouse(pipeline))
    except WarehouseBusy:
        copy = _find_copy(pipeline)
        if copy is None:
            raise
        return _read_tenants(Warehouse(pipeline, copy=copy))


def _read_tenants(warehouse: Warehouse) -> list[str]:
    with warehouse.opened(read_only=True) as client:
        if client is None or not client.has_table("runs"):
            return []
        return sorted(row["tenant"] for row in client.rows("SELECT DISTINCT tenant FROM {runs}"))


def _find_copy(pipeline: dlt.Pipeline) -> Path | None:
    database = database_file(pipeline)
    copy = None if database is None else read_copy_path(database)
    return copy if copy is not None and copy.exists() else None


def _read(
    warehouse: Warehouse, tenant_key: str, common: dict[str, Any], runs: int, oldest: datetime | None, limit: int
) -> Status:
    with warehouse.opened(read_only=True) as client:
        if client is None or not client.has_table("runs"):
            return Status(**common)
        reader = _StatusReader(client, tenant_key, limit)
        lines = reader.read_runs(runs)
        if not lines:
            return Status(**common)
        failed = common["failed_attempt"]
        if failed is not None and (lines[0].finished_at or lines[0].started_at) >= failed.ended_at:
            common["failed_attempt"] = None
        counts = reader.count_listed(oldest)
        return Status(
            **common,
            runs=lines,
            outcomes=reader.read_outcomes(lines[0]),
            listed=counts["scopes"],
            stale=counts["stale"],
            too_old=0 if oldest is None else counts["too_old"],
            stale_scopes=reader.read_stale(oldest),
            stale_sql=_compose_stale_sql(warehouse.dataset, tenant_key, oldest),
            emptied=reader.read_changed(status_sql.EMPTIED),
            delisted=reader.read_changed(status_sql.DELISTED),
            customer_changes=reader.read_customer_changes(),
        )


def find_spooled_run(folder: Path, tenant_key: str) -> SpooledRun | None:
    """The latest run of the tenant in the spool, if any: it is being loaded now, or was interrupted."""
    for spool in reversed(list_spools(folder)):
        info = spool.read_info()
        if info is None or info.tenant_key != tenant_key:
            continue
        try:
            done = spool.scope_count()
        except FileNotFoundError:
            # the load has ended just now
            return None
        return SpooledRun(info.run_id, info.started_at.astimezone(UTC), done, info.total, lock_holder(folder))
    return None


class _StatusReader:
    """The queries of one status, on one connection."""

    def __init__(self, client: DatasetClient, tenant_key: str, limit: int) -> None:
        self._client = client
        self._tenant = tenant_key
        self._limit = limit

    def read_runs(self, number: int) -> tuple[RunLine, ...]:
        """The last runs, the latest first."""
        span = (self._tenant, number, self._tenant)
        changes = {row["run_id"]: row for row in self._client.rows(status_sql.CHANGES, *span)}
        emptied = self._count_by_run(status_sql.EMPTIED_COUNTS, span)
        delisted = self._count_by_run(status_sql.DELISTED_COUNTS, span)
        return tuple(
            RunLine(
                **row,
                emptied=emptied.get(row["run_id"], 0),
                delisted=delisted.get(row["run_id"], 0),
                row_change=int(changes.get(row["run_id"], _NO_CHANGE)["row_change"]),
                seat_change=int(changes.get(row["run_id"], _NO_CHANGE)["seat_change"]),
            )
            for row in self._client.rows(status_sql.RUNS, self._tenant, number)
        )

    def read_outcomes(self, run: RunLine) -> dict[str, int]:
        """Scopes of a run by outcome, in the usual order, those that did not occur left out."""
        rows = self._client.rows(status_sql.OUTCOMES, self._tenant, run.run_id, run.started_at)
        counts = {row["outcome"]: row["scopes"] for row in rows}
        return {outcome: counts[outcome] for outcome in OUTCOMES if outcome in counts}

    def count_listed(self, oldest: datetime | None) -> dict[str, int]:
        """`scopes`, `too_old` and `stale` among the listed scopes."""
        moment = oldest or _LONG_AGO
        (counts,) = self._client.rows(status_sql.LISTED_COUNTS, self._tenant, moment, moment)
        return counts

    def read_stale(self, oldest: datetime | None) -> tuple[StaleScope, ...]:
        rows = self._client.rows(status_sql.STALE, self._tenant, oldest or _LONG_AGO, self._limit)
        return tuple(_to_stale_scope(row) for row in rows)

    def read_changed(self, sql: str) -> tuple[ChangedScope, ...]:
        rows = self._client.rows(sql, self._tenant, 1, self._tenant, self._limit)
        return tuple(ChangedScope(**row) for row in rows)

    def read_customer_changes(self) -> tuple[CustomerChange, ...]:
        """The largest changes of seats in the last run, then of rows, gained or lost."""
        values = (self._tenant, 1, self._tenant, self._tenant, _CUSTOMERS_SHOWN)
        rows = self._client.rows(status_sql.CUSTOMER_CHANGES, *values)
        return tuple(
            CustomerChange(**row | {name: int(row[name]) for name in ("row_change", "seat_change")}) for row in rows
        )

    def _count_by_run(self, sql: str, span: Iterable[Any]) -> dict[str, int]:
        return {row["run_id"]: row["scopes"] for row in self._client.rows(sql, *span)}


_NO_CHANGE = {"row_change": 0, "seat_change": 0}


def _to_stale_scope(row: dict[str, Any]) -> StaleScope:
    kept = {name: value for name, value in row.items() if name in StaleScope.__dataclass_fields__}
    return StaleScope(**kept, reason=_explain(row))


def _explain(row: dict[str, Any]) -> str:
    """Why a scope is stale, as far as it is known."""
    if row["outcome"] == UNCOMMITTED:
        return (
            "what was read last is not committed; the load goes on, or was interrupted and is carried on by the next"
        )
    if row["outcome"] in GOOD_OUTCOMES:
        return "read well, but too long ago"
    reason = f"{row['error_type'] or 'no reason known'}: {row['error_description'] or 'no description'}"
    if row["outcome"] != "forbidden" or row["has_active_gdap"] is not False:
        return reason
    statuses = ", ".join(sorted((row["gdap_statuses"] or "").split(", ")))
    others = f" (those it has: {statuses})" if statuses else ""
    return f"{reason}; the customer has no active GDAP relationship{others}"


def _compose_stale_sql(dataset: str, tenant_key: str, oldest: datetime | None) -> str:
    """One SELECT of all stale scopes, for copying."""
    late = "" if oldest is None else f" OR s.last_good_at < TIMESTAMP WITH TIME ZONE '{oldest.isoformat()}'"
    return status_sql.ALL_STALE.format(dataset=dataset, tenant=tenant_key.replace("'", "''"), oldest=late)
