"""Gathers what the report shows, as plain values for the template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

from cockpit_source.dashboard import queries as shared
from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.dashboard.filters import Filters
from cockpit_source.dashboard.queries import CHANGE_KINDS, Query
from cockpit_source.html_report import queries
from cockpit_source.settings import is_loopback

TREND_DAYS = 14
_SPANS = ((1, "day"), (7, "week"), (30, "month"))
_EVERYTHING = Filters()

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CutRows:
    """The first rows of a table, and how many it has."""

    rows: list[Row]
    total: int

    @property
    def left_out(self) -> int:
        """How many rows are not shown."""
        return self.total - len(self.rows)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How paid seats changed between the ends of two days; `seat_change` is None without a first day."""

    name: str
    from_date: date
    to_date: date
    seat_change: int | None
    by_kind: dict[str, Row]

    @property
    def is_known(self) -> bool:
        """Whether the history reaches back so far."""
        return self.seat_change is not None


class Figures:
    """Everything of one read copy; `rows` is how many rows a table may show."""

    def __init__(self, database: ShownDatabase, *, rows: int, now: datetime | None = None) -> None:
        self._database = database
        self._rows = rows
        self._now = now or datetime.now(UTC)

    def gather(self) -> Row:
        """The values that the template names."""
        runs = self._all(queries.last_runs())
        first_day = self._all(shared.days())[0]["first_day"] or max(run["run_date"] for run in runs)
        # the marts go on to today; what happened until the last run is what there is to compare
        last_day = max(max(run["run_date"] for run in runs), first_day)
        totals = {row["is_free"]: row for row in self._all(shared.totals(_EVERYTHING))}
        comparisons = list(self._compare(first_day, last_day))
        return {
            "generated_at": self._now,
            "runs": runs,
            "simulated": [run for run in runs if is_loopback(run["base_url"])],
            "first_day": first_day,
            "last_day": last_day,
            "totals": totals.get(
                False, dict.fromkeys((*shared.SUMS, "oldest_read")) | {"customers": 0, "skus": 0, "row_count": 0}
            ),
            "free_totals": totals.get(True),
            "reclaimable": self._reclaimable(),
            "coverage": self._all(shared.coverage(_EVERYTHING))[0],
            "comparisons": comparisons,
            "change_kinds": CHANGE_KINDS,
            "trend": self._trend(first_day, last_day),
            "sku_bars": self._all(shared.unassigned_by_sku(_EVERYTHING)),
            "customers": self._cut(shared.customers(_EVERYTHING)),
            "skus": self._cut(shared.skus(_EVERYTHING)),
            "resellers": self._cut(shared.resellers(_EVERYTHING)),
            "attention": self._attention(),
            "unread": self._cut(queries.unread_scopes()),
            "left_out": self._cut(queries.left_out()),
            "definitions": self._all(shared.definitions()),
            "checks": self._all(shared.checks()),
        }

    def _all(self, query: Query) -> list[Row]:
        found: list[Row] = self._database.query(query.sql, query.values).to_pylist()
        return found

    def _cut(self, query: Query) -> CutRows:
        return self._cut_rows(self._all(query), self._rows)

    def _cut_rows(self, found: Sequence[Row], limit: int) -> CutRows:
        """The first rows, without a column for the tenant where all are of one."""
        left_out = () if self._has_several_tenants else ("tenant",)
        rows = [{name: value for name, value in row.items() if name not in left_out} for row in found[:limit]]
        return CutRows(rows, len(found))

    @cached_property
    def _has_several_tenants(self) -> bool:
        return len(self._all(queries.last_runs())) > 1

    def _reclaimable(self) -> Row:
        whole, *currencies = self._all(shared.reclaimable(_EVERYTHING))
        seats = whole["reclaimable_seats"]
        return whole | {
            "currencies": [
                row | {"priced_share": row["priced_seats"] / seats if seats else None}
                for row in currencies
                if row["currency"] is not None
            ],
        }

    def _compare(self, first_day: date, last_day: date) -> Iterable[Comparison]:
        wanted = [(name, last_day - timedelta(days=span)) for span, name in _SPANS]
        if wanted[-1][1] < first_day < last_day and first_day not in {day for _, day in wanted}:
            wanted.append(("beginning", first_day))
        days = sorted({last_day, *(day for _, day in wanted if day >= first_day)})
        seats = {
            row["snapshot_date"]: row["total_seats"] or 0 for row in self._all(shared.history(_EVERYTHING, days))
        }
        for name, day in wanted:
            if day < first_day:
                yield Comparison(name, day, last_day, None, {})
                continue
            kinds = {row["kind"]: row for row in self._all(queries.changes_by_kind(_EVERYTHING, day, last_day))}
            yield Comparison(name, day, last_day, seats.get(last_day, 0) - seats.get(day, 0), kinds)

    def _trend(self, first_day: date, last_day: date) -> list[Row]:
        days = [last_day - timedelta(days=back) for back in range(TREND_DAYS)]
        return self._all(shared.history(_EVERYTHING, [day for day in days if day >= first_day]))

    def _attention(self) -> list[Row]:
        """The kinds that occur, what matters most first, each with its first rows."""
        limit = max(1, self._rows // 2)
        by_kind = groupby(self._all(shared.attention_rows(_EVERYTHING)), key=itemgetter("kind"))
        return [{"kind": kind, "table": self._cut_rows(list(rows), limit)} for kind, rows in by_kind]
