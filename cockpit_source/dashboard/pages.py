"""What each tab shows, from the answers of `queries`."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import marimo as mo

from cockpit_source.dashboard import charts, parts, queries, words
from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.dashboard.filters import Filters
from cockpit_source.dashboard.ledger_copy import ledger_path
from cockpit_source.dashboard.ledger_page import ledger_page
from cockpit_source.dashboard.parts import Card
from cockpit_source.dashboard.queries import Query
from cockpit_source.wording import plural

TABS = (
    "Overview",
    "Customers",
    "SKUs",
    "Resellers",
    "Changes",
    "Attention",
    "Scope health",
    "Deletions",
)


def _since(span: int) -> str:
    return "Since the day before" if span == 1 else f"Since {span} days before"


class Pages:
    """The pages of one database under one choice of filters."""

    def __init__(self, database: ShownDatabase, filters: Filters) -> None:
        self._database = database
        self._filters = filters

    def rows(self, query: Query) -> Any:
        """The answer as an Arrow table."""
        return self._database.query(query.sql, query.values, lasting=query.lasting)

    def one(self, query: Query) -> dict[str, Any]:
        """The only row of an answer."""
        found: list[dict[str, Any]] = self.rows(query).to_pylist()
        return found[0] if found else {}

    @property
    def day(self) -> date | None:
        """The chosen day; None for the newest inventory."""
        return self._filters.day

    def outside(self, *wanted: date | None) -> mo.Html | None:
        """A page instead, where a day is not in the history: it may still be being typed."""
        days = self.one(queries.days())
        first_day, last_day = days["first_day"], days["last_day"]
        if all(day is None or first_day <= day <= last_day for day in wanted):
            return None
        return parts.notice("No data of that day", [f"The history goes from {first_day} to {last_day}."])

    # ---- overview

    def overview(self) -> mo.Html:
        """Seats, what is not assigned and costs, what changed, and how far to trust it."""
        return parts.stack(
            parts.cards([*self._seat_cards(), *self._reclaimable_cards()]),
            parts.cards([*self._change_cards(), *self._coverage_cards()]),
            self._left_out(),
        )

    def overview_charts(self) -> mo.Html:
        """What takes longer: how the seats developed, where those without assignment are, and what it all means."""
        return parts.stack(
            parts.side_by_side(
                parts.stack(
                    parts.heading("How the seats developed"),
                    charts.trend(self._history()),
                ),
                parts.stack(
                    parts.heading("Most unassigned seats, by SKU"),
                    charts.unassigned_by_sku(self.rows(queries.unassigned_by_sku(self._filters))),
                ),
            ),
            mo.accordion(
                {
                    "What the figures mean": lambda: parts.table(self.rows(queries.definitions()), "metrics"),
                    "What the data say about open questions": lambda: parts.table(
                        self.rows(queries.checks()), "checks", hidden=("tenant",)
                    ),
                },
                lazy=True,
            ),
        )

    def _seat_cards(self) -> list[Card]:
        wanted = self.wanted_totals()
        return [
            Card("total_seats", "Seats", words.count(wanted["total_seats"]), self._describe_width(wanted)),
            Card(
                "assignment_rate",
                "Assignment rate",
                words.share(wanted["assignment_rate"]),
                words.assignment(wanted),
            ),
        ]

    def wanted_totals(self) -> dict[str, Any]:
        """Sums over the rows that the filter of free and paid SKUs lets in."""
        found = {row["is_free"]: row for row in self.rows(queries.totals(self._filters)).to_pylist()}
        kinds = {"paid": (False,), "free": (True,), "all": (False, True)}[self._filters.kind]
        chosen = [found[kind] for kind in kinds if kind in found]
        if len(chosen) == 1:
            return dict(chosen[0])
        if not chosen:
            return dict.fromkeys(queries.SUMS) | {"customers": 0, "skus": 0, "row_count": 0}
        return self.one(queries.totals_of_all(self._filters))

    def _describe_width(self, wanted: dict[str, Any]) -> str:
        return f"{plural(wanted['customers'], 'customer')}, {plural(wanted['skus'], 'SKU')}"

    def _reclaimable_cards(self) -> list[Card]:
        if self._filters.day is not None or self._filters.kind == "free":
            reason = "shown for paid SKUs" if self._filters.kind == "free" else "shown for the newest day only"
            return [Card("reclaimable_seats", "Reclaimable seats", words.NOT_TOLD, reason)]
        found, *currencies = self.rows(queries.reclaimable(self._filters)).to_pylist()
        seats = found["reclaimable_seats"]
        figures = [
            Card(
                "reclaimable_seats",
                "Reclaimable seats",
                words.count(seats),
                f"paid and unassigned, at {plural(found['customers'], 'customer')}",
            )
        ]
        figures += [
            Card(
                f"reclaimable_cost_{row['currency']}",
                f"Their cost in {row['currency']}",
                words.money(row["cost"], row["currency"]),
                f"a billing period; {words.share(row['priced_seats'] / seats if seats else None)} of the seats have "
                "such a price",
            )
            for row in currencies
            if row["currency"] is not None
        ]
        if len(figures) == 1:
            figures.append(Card("reclaimable_cost", "Their cost", words.NOT_TOLD, "none of them has a price"))
        return figures

    def _history(self) -> Any:
        """Seats at the end of days up to the chosen one, the oldest first."""
        days = self.one(queries.days())
        wanted = queries.history_days(self._filters.day or days["last_day"], days["first_day"])
        return self.rows(queries.history(self._filters, wanted))

    def _change_cards(self) -> list[Card]:
        days = self.one(queries.days())
        until = self._filters.day or days["last_day"]
        seats = {row["snapshot_date"]: row["total_seats"] or 0 for row in self._history().to_pylist()}
        figures = []
        for span, name in queries.COMPARED_DAYS.items():
            day = until - timedelta(days=span)
            if day < days["first_day"]:
                value, note = words.NOT_TOLD, f"the history begins on {days['first_day'].isoformat()}"
            else:
                before = seats.get(day, 0)
                value = words.change(seats.get(until, 0) - before)
                note = f"from {words.count(before)} seats on {day.isoformat()}"
            figures.append(Card(f"change_{name}", _since(span), value, note))
        return figures

    def _coverage_cards(self) -> list[Card]:
        found = self.one(queries.coverage(self._filters))
        listed, good = found["listed"], found["good"]
        now = "" if self._filters.day is None else " (now, not on the chosen day)"
        bad = f"{words.count(found['stale'])} stale, {words.count(found['never_read'])} never read"
        return [
            Card(
                "coverage",
                "Scopes read well",
                words.share(good / listed if listed else None),
                f"{words.count(good)} of {words.count(listed)} listed; {bad}{now}",
                tone="good" if listed and good == listed else "warn",
            ),
            Card(
                "age",
                "Age of the data",
                words.age(found["median_age_hours"]),
                f"median over scopes; the oldest {words.age(found['oldest_age_hours'])}{now}",
            ),
        ]

    def _left_out(self) -> mo.Html | None:
        found = [row for row in self.rows(queries.totals(self._filters)).to_pylist() if row["is_free"]]
        if not (found and self._filters.kind == "paid") and not self.wanted_totals()["row_count"]:
            return parts.note("Nothing fits these filters.")
        if self._filters.kind != "paid":
            return None
        if not found:
            return parts.note("No free or viral SKU is among these rows, so nothing is left out.")
        row = found[0]
        return mo.Html(
            '<p class="ck-explain">Left out of these totals: <span data-figure="left_out_seats">'
            f"{words.count(row['total_seats'])}</span> seats of {plural(row['skus'], 'free or viral SKU')} at "
            f"{plural(row['customers'], 'customer')}. The filter “Free or paid” brings them in.</p>"
        )

    # ---- customers, SKUs, resellers

    def _costs(self) -> str:
        if self._filters.kind == "free":
            return ""
        if self._filters.day is not None:
            return " Costs are shown for the newest day only."
        return " Costs are those of a billing period, by today's prices."

    def customers(self) -> mo.Html:
        """A row per customer."""
        return parts.stack(
            parts.heading(
                "Customers",
                f"Most reclaimable seats first.{self._costs()} Age is that of the oldest read that counts.",
            ),
            parts.table(
                self.rows(queries.customers(self._filters)),
                "customers",
                hidden=("unassigned_seats", "customer_id", "read_at"),
                empty="No customer fits these filters.",
            ),
        )

    def skus(self) -> mo.Html:
        """A row per SKU."""
        hidden = ("unassigned_seats", "sku_id", *(() if self._filters.kind == "all" else ("is_free",)))
        return parts.stack(
            parts.heading("SKUs", f"Most reclaimable seats first.{self._costs()}"),
            parts.table(
                self.rows(queries.skus(self._filters)), "skus", hidden=hidden, empty="No SKU fits these filters."
            ),
        )

    def resellers(self) -> mo.Html:
        """A row per reseller."""
        return parts.stack(
            parts.heading("Resellers", "A customer that is read with and without a reseller counts once."),
            parts.table(
                self.rows(queries.resellers(self._filters)),
                "resellers",
                hidden=("unassigned_seats", "reseller_id"),
                empty="No reseller fits these filters.",
            ),
        )

    # ---- changes

    def changes(self, from_date: date | None, to_date: date | None) -> mo.Html:
        """What changed between two days, by kind and row by row."""
        if from_date is None or to_date is None or from_date >= to_date:
            return parts.notice("Choose two days", ["The first day has to be before the second."])
        rows = self.rows(queries.change_rows(self._filters, from_date, to_date))
        kinds = parts.sums_by_kind(rows, "seat_change")
        total = sum(row["seat_change_sum"] or 0 for row in kinds.values())
        figures = [Card("change_total", "All together", words.change(total), plural(rows.num_rows, "row"))]
        for name in queries.CHANGE_KINDS:
            row = kinds.get(name, {"seat_change_sum": 0, "kind_count": 0})
            number = plural(row["kind_count"], "row")
            figures.append(Card(f"change_{name}", words.kind(name), words.change(row["seat_change_sum"]), number))
        moves = {name: row["seat_change_sum"] or 0 for name, row in kinds.items()}
        return parts.stack(
            parts.heading(
                f"Seats from {from_date} to {to_date}", "At the end of these days. The kinds sum up to the change."
            ),
            parts.cards(figures),
            charts.changes(moves, queries.CHANGE_KINDS) if moves else None,
            parts.heading("Row by row", "The largest changes first."),
            parts.table(
                rows,
                f"changes_{from_date}_{to_date}",
                hidden=("customer_id", "provider_instance_id", "reseller_id", "sku_id"),
                empty="Nothing changed between these days.",
            ),
        )

    # ---- attention, scope health

    def _always_newest(self) -> str:
        return "" if self._filters.day is None else " The chosen day does not apply here."

    def attention(self, kind: str | None) -> mo.Html:
        """What somebody should look at."""
        rows = self.rows(queries.attention_rows(self._filters))
        kinds = parts.sums_by_kind(rows)
        figures = [
            Card(
                f"attention_{name}",
                words.kind(name),
                words.count(row["kind_count"]),
                plural(row["customer_id_count_distinct"], "customer"),
            )
            for name, row in sorted(kinds.items(), key=lambda item: (-item[1]["kind_count"], item[0]))
        ]
        return parts.stack(
            parts.heading(
                "Attention",
                "What the newest inventory shows that somebody should look at, paid or free; a free SKU never "
                f"as full, unassigned or changed.{self._always_newest()}",
            ),
            parts.cards(figures) if figures else None,
            parts.table(
                rows if kind is None else parts.of_kind(rows, kind),
                "attention",
                hidden=("customer_id", "provider_instance_id", "sku_id", "read_at"),
                empty="Nothing needs attention here.",
            ),
        )

    def scope_health(self, *, only_bad: bool) -> mo.Html:
        """Which scopes were read, and why others were not."""
        states = {row["state"]: row["scopes"] for row in self.rows(queries.scope_states(self._filters)).to_pylist()}
        figures = [
            Card(f"scopes_{name.replace(' ', '_')}", name.capitalize(), words.count(states.get(name, 0)))
            for name in ("good", "stale", "never read", "delisted")
        ]
        return parts.stack(
            parts.heading(
                "Scope health",
                "A scope is a customer in a provider instance, with or without a reseller: one call of the API. One "
                f"that was not read keeps the figures of its last good read.{self._always_newest()}",
            ),
            parts.cards(figures),
            parts.table(
                self.rows(queries.scope_rows(self._filters, only_bad=only_bad)),
                "scope_health",
                hidden=("scope_key",),
                empty="Every scope was read well.",
            ),
        )

    # ---- deletions

    def deletions(self) -> mo.Html:
        """The ledger of the deletions as it is now; the filters do not apply."""
        return ledger_page(ledger_path(self._database.database))
