"""`cockpit prune`: deletes old rows about how reads went, and rests of runs in the spool. Licence tables stay.

Of `scope_runs` every scope keeps a row for each UTC day, so that gaps stay visible; `rejected_rows` go by age alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dlt
from rich.console import Console

from cockpit_source.lake import one_committer
from cockpit_source.pipeline import work_folder
from cockpit_source.report import create_table
from cockpit_source.runner_lock import one_runner
from cockpit_source.scopes import GOOD_OUTCOMES
from cockpit_source.spool import Spool, list_spools
from cockpit_source.warehouse import DatasetClient, Warehouse

# so that memory does not grow with the rows
_DAYS_AT_ONCE = timedelta(days=7)

_GOOD = ", ".join(f"'{outcome}'" for outcome in GOOD_OUTCOMES)
_COMMITTED = "(SELECT load_id FROM {_dlt_loads} WHERE status = 0)"

# kept of each scope and UTC day: the last row that was read well, else the last; and what `scopes` points to
# values: tenant, start and end of the days, tenant, limit
_DELETE_SCOPE_RUNS = f"""
DELETE FROM {{scope_runs}} WHERE (run_id, scope_key) IN (
    SELECT ranked.run_id, ranked.scope_key FROM (
        SELECT run_id, scope_key, tenant, observed_at, ROW_NUMBER() OVER (
            PARTITION BY scope_key, CAST(observed_at AT TIME ZONE 'UTC' AS DATE)
            ORDER BY CASE WHEN outcome IN ({_GOOD}) AND _dlt_load_id IN {_COMMITTED} THEN 0 ELSE 1 END,
                observed_at DESC, run_id DESC
        ) AS place
        FROM {{scope_runs}} WHERE tenant = %s AND observed_at >= %s AND observed_at < %s
    ) ranked LEFT JOIN {{scopes}} s ON s.scope_key = ranked.scope_key
        AND (s.last_run_id = ranked.run_id OR s.last_good_run_id = ranked.run_id)
    WHERE ranked.place > 1 AND s.scope_key IS NULL AND ranked.tenant = %s AND ranked.observed_at < %s
)"""

_DELETE_REJECTED_ROWS = "DELETE FROM {rejected_rows} WHERE tenant = %s AND observed_at < %s"

_RUN_IS_LOADED = f"""
SELECT run_id FROM {{runs}} WHERE tenant = %s AND run_id = %s AND finished_at IS NOT NULL
    AND _dlt_load_id IN {_COMMITTED}"""

_LATER_RUN_HAS_LOADED = f"""
SELECT run_id FROM {{runs}} WHERE tenant = %s AND run_id <> %s AND started_at > %s AND finished_at IS NOT NULL
    AND scopes_ok + scopes_empty > 0 AND _dlt_load_id IN {_COMMITTED} LIMIT 1"""


@dataclass(frozen=True, slots=True)
class PrunedTable:
    """Rows of the tenant in a table, before and after."""

    name: str
    before: int
    after: int

    @property
    def deleted(self) -> int:
        return self.before - self.after


@dataclass(frozen=True, slots=True)
class KeptSpool:
    """A run in the spool that was left alone: it is not loaded yet. `started_at` is UTC."""

    run_id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was deleted, or with `dry_run` would be: rows older than `cutoff` (UTC), and bytes in the spool."""

    tenant: str
    keep_days: int
    cutoff: datetime
    dry_run: bool
    tables: tuple[PrunedTable, ...]
    spools_removed: tuple[str, ...]
    spool_bytes_freed: int
    spools_kept: tuple[KeptSpool, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON: times are ISO 8601."""
        record = asdict(self) | {"cutoff": self.cutoff.isoformat()}
        record["tables"] = [asdict(table) | {"deleted": table.deleted} for table in self.tables]
        record["spools_kept"] = [
            {"run_id": spool.run_id, "started_at": spool.started_at.isoformat()} for spool in self.spools_kept
        ]
        return record


def prune(
    pipeline: dlt.Pipeline, tenant_key: str, *, keep_days: int, dry_run: bool = False, now: datetime | None = None
) -> PruneResult:
    """Delete what is older than `keep_days` (0 or more); with `dry_run` find out what that would be.

    The rows go in one transaction, after which nothing points to a row that is gone. Runs beside no load.

    Raises:
        WarehouseBusy: a load of the same pipeline is running, or another program holds the database.
        WarehouseError: the warehouse cannot be used; then nothing was deleted.
    """
    cutoff = (now or datetime.now(UTC)) - timedelta(days=keep_days)
    warehouse = Warehouse(pipeline)
    folder = work_folder(pipeline)
    tables: tuple[PrunedTable, ...] = ()
    removable: list[Spool] = []
    kept: list[KeptSpool] = []
    with one_runner(pipeline):
        with one_committer(pipeline), warehouse.opened(read_only=False) as opened:
            client = opened if opened is not None and opened.has_table("runs") else None
            if client is not None:
                tables = _prune_tables(client, tenant_key, cutoff, dry_run=dry_run)
            for spool in list_spools(folder):
                waiting = _find_waiting(spool, client, cutoff)
                if waiting is None:
                    removable.append(spool)
                else:
                    kept.append(waiting)
        freed = sum(_remove(spool, dry_run=dry_run) for spool in removable)
    removed = tuple(spool.folder.name for spool in removable)
    return PruneResult(tenant_key, keep_days, cutoff, dry_run, tables, removed, freed, tuple(kept))


def _prune_tables(
    client: DatasetClient, tenant_key: str, cutoff: datetime, *, dry_run: bool
) -> tuple[PrunedTable, ...]:
    names = ("scope_runs", "rejected_rows")
    with client.transaction(keep=not dry_run):
        before = {name: _count(client, name, tenant_key) for name in names}
        for begin, end in _split_days(_find_oldest(client, tenant_key), cutoff):
            client.execute(_DELETE_SCOPE_RUNS, tenant_key, begin, end, tenant_key, cutoff)
        client.execute(_DELETE_REJECTED_ROWS, tenant_key, cutoff)
        return tuple(PrunedTable(name, before[name], _count(client, name, tenant_key)) for name in names)


def _count(client: DatasetClient, table: str, tenant_key: str) -> int:
    (row,) = client.rows(f"SELECT COUNT(*) AS number FROM {{{table}}} WHERE tenant = %s", tenant_key)
    return int(row["number"])


def _find_oldest(client: DatasetClient, tenant_key: str) -> datetime | None:
    (row,) = client.rows("SELECT MIN(observed_at) AS oldest FROM {scope_runs} WHERE tenant = %s", tenant_key)
    oldest: datetime | None = row["oldest"]
    return oldest


def _split_days(oldest: datetime | None, cutoff: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Whole UTC days from the oldest row to the limit, a few at a time; the day of the limit is whole too."""
    if oldest is None:
        return
    begin = datetime.combine(oldest.astimezone(UTC).date(), time(), UTC)
    while begin < cutoff:
        yield begin, begin + _DAYS_AT_ONCE
        begin += _DAYS_AT_ONCE


def _find_waiting(spool: Spool, client: DatasetClient | None, cutoff: datetime) -> KeptSpool | None:
    """The run of `spool` when it may still be loaded; None when nothing of it is missing in the tables.

    That is so when it never began, when it is loaded to the end, or when it is old and a later run has loaded.
    """
    info = spool.read_info()
    if info is None:
        return None
    if client is not None:
        is_done = not spool.pending_batches() and client.rows(_RUN_IS_LOADED, info.tenant_key, info.run_id)
        is_old = info.started_at < cutoff
        if is_done or (is_old and client.rows(_LATER_RUN_HAS_LOADED, info.tenant_key, info.run_id, info.started_at)):
            return None
    return KeptSpool(info.run_id, info.started_at.astimezone(UTC))


def _remove(spool: Spool, *, dry_run: bool) -> int:
    """Remove a folder of the spool; the bytes that it took."""
    size = spool.size()
    if not dry_run:
        spool.remove()
    return size


def print_pruned(result: PruneResult, console: Console) -> None:
    """What was deleted, in a few lines."""
    table = create_table(
        "table", "rows before", "deleted", "rows after", right=("rows before", "deleted", "rows after")
    )
    for pruned in result.tables:
        table.add_row(pruned.name, *(f"{number:,}" for number in (pruned.before, pruned.deleted, pruned.after)))
    if result.tables:
        console.print(table)
    else:
        console.print("No tables yet: nothing was ever loaded.")
    console.print(
        f"Every row since {result.cutoff:%Y-%m-%d %H:%M} UTC stays. Of each day before, a scope keeps one row in "
        "scope_runs.",
        soft_wrap=True,
    )
    console.print(
        f"Spool: {len(result.spools_removed)} folders removed, {result.spool_bytes_freed / 2**20:.1f} MiB freed."
    )
    for spool in result.spools_kept:
        console.print(
            f"Kept in the spool: run {spool.run_id}, begun {spool.started_at:%Y-%m-%d %H:%M} UTC, is not loaded yet; "
            "`cockpit load` carries it on or closes it.",
            markup=False,
            soft_wrap=True,
        )
    if result.dry_run:
        console.print("--dry-run: nothing was changed; this is what would be.")
