"""The record of one run: what is counted while it goes on, and its row in `runs`."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cockpit_source.client import CallCounter
from cockpit_source.drop_guard import QUARANTINED, Drops
from cockpit_source.outcomes import ScopeResult
from cockpit_source.scope_list import ScopeList
from cockpit_source.scopes import GOOD_OUTCOMES, OUTCOMES
from cockpit_source.settings import Settings
from cockpit_source.version import __version__


def new_run_id(started_at: datetime) -> str:
    """A run id: the start in UTC and a random part, so that ids sort by time."""
    return f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class RunRecord:
    """Counts of one run. `calls` are those of this process; a run carried on adds what its spool tells."""

    def __init__(self, run_id: str, settings: Settings, started_at: datetime) -> None:
        self.run_id = run_id
        self.started_at = started_at
        self.total = 0
        self.listed = 0
        self.full_list = True
        self.listing_problem: str | None = None
        self.customers_listed: int | None = None
        self.shard: str | None = None
        self.list_begun_at: datetime | None = None
        self.license_rows = 0
        self.outcomes: Counter[str] = Counter()
        self.drops: Drops | None = None
        # ended before all scopes were tried: asked to, or closed after a kill
        self.is_interrupted = False
        self.calls = CallCounter()
        self.opened_at_monotonic = time.monotonic()
        self.done_at_opening = 0
        self._earlier_requests = 0
        self._scopes_hash = ""
        self._tenant_key = settings.tenant_key
        self._base_url = settings.base_url

    @property
    def done(self) -> int:
        """Scopes that have an outcome."""
        return self.outcomes.total()

    @property
    def good(self) -> int:
        """Scopes that were read."""
        return sum(self.outcomes[outcome] for outcome in GOOD_OUTCOMES)

    @property
    def requests(self) -> int:
        return self.calls.requests + self._earlier_requests

    def start(
        self,
        scope_list: ScopeList,
        *,
        full_list: bool,
        listing_problem: str | None = None,
        customers_listed: int | None = None,
        shard: str | None = None,
        list_begun_at: datetime | None = None,
    ) -> None:
        """Take over the size and hash of the list; `listing_problem` says why it may lack scopes.

        `customers_listed`: how many customers a complete listing held, None without one. `shard` and
        `list_begun_at` as in `runs`.
        """
        self.total = scope_list.total
        self.listed = scope_list.listed
        self._scopes_hash = scope_list.scopes_hash
        self.full_list = full_list
        self.listing_problem = listing_problem
        self.customers_listed = customers_listed
        self.shard = shard
        self.list_begun_at = list_begun_at

    def count(self, results: Iterable[ScopeResult]) -> None:
        """Count results as they come in."""
        for result in results:
            self.outcomes[result.outcome] += 1
            self.license_rows += len(result.rows)

    def count_batch(self, batch: pa.Table) -> None:
        """Count results that were read elsewhere; their calls are counted by whoever made them."""
        self.outcomes.update(batch["outcome"].to_pylist())
        self.license_rows += sum(filter(None, batch["license_count"].to_pylist()))

    def count_covered(self, path: Path) -> None:
        """Count what shards have read already, where there is such a file."""
        if path.exists():
            self.count_batch(pq.read_table(path, columns=["outcome", "license_count"]))

    def count_spooled(self, batches: Sequence[Path]) -> None:
        """Count the results of an interrupted run from its spool."""
        for path in batches:
            table = pq.read_table(path, columns=["outcome", "license_count", "attempts"])
            self.count_batch(table)
            self._earlier_requests += sum(table["attempts"].to_pylist())
        self.done_at_opening = self.done

    def count_drops(self, drops: Drops) -> None:
        """Take over what the drop guard decided, once at the end of the run."""
        self.drops = drops
        if drops.are_held_back:
            self.outcomes["empty"] -= drops.emptied
            self.outcomes[QUARANTINED] += drops.emptied

    def count_refused(self, outcomes: Mapping[str, int], license_rows: int) -> None:
        """Scopes, counted by their outcome, that failed after all, since the destination refused their rows."""
        self.outcomes.subtract(outcomes)
        self.outcomes["failed"] += sum(outcomes.values())
        self.license_rows -= license_rows

    def status(self) -> str:
        """The final status: complete, partial, guarded, interrupted or failed."""
        if self.is_interrupted:
            return "interrupted"
        if not self.good and not self.outcomes[QUARANTINED]:
            return "failed"
        if self.drops is not None and self.drops.are_guarded:
            return "guarded"
        return "complete" if self.good == self.total and self.listing_problem is None else "partial"

    def to_row(self, finished_at: datetime | None) -> Mapping[str, Any]:
        """The row in `runs`; while the run goes on `finished_at` is None."""
        return {
            "run_id": self.run_id,
            "started_at": self.started_at,
            "finished_at": finished_at,
            "status": "running" if finished_at is None else self.status(),
            "base_url": self._base_url,
            "scopes_hash": self._scopes_hash,
            "listing_complete": self.full_list,
            "shard": self.shard,
            "list_begun_at": self.list_begun_at,
            "customers_listed": self.customers_listed,
            "scopes_total": self.total,
            **{f"scopes_{outcome}": self.outcomes[outcome] for outcome in OUTCOMES},
            "unlisted_quarantined": self.drops.unlisted if self.drops and self.drops.are_held_back else 0,
            "license_rows": self.license_rows,
            "requests": self.requests,
            "throttled": self.calls.throttled,
            "peak_concurrency": self.calls.peak or None,
            "final_concurrency": self.calls.allowed,
            "version": __version__,
        }
