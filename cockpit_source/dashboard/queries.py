"""The SQL of every page: text and values.

Every query reads the marts only; `sql` needs no dataset, and `values` go beside it. Rates are ratios of sums, over
rows that tell both numbers. `unassigned_seats` is net, as in `metrics`: what is over-assigned is set off. Pages show
the two numbers that it is the difference of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from cockpit_source.dashboard.filters import Filters
from cockpit_source.marts import seat_changes_sql

HISTORY_SPAN_DAYS = 91
HISTORY_STEPS = 9
# with the names of their figures
COMPARED_DAYS = {1: "day", 7: "week", 30: "month"}
VIEWED_SPANS = (1, 7, 30)

# the order in which kinds of changes are shown
CHANGE_KINDS = ("new_customer", "new_sku", "expansion", "contraction", "lost_sku", "lost_customer")

# and of what needs attention
ATTENTION_KINDS = (
    "stale",
    "over_assigned",
    "suspended_but_assigned",
    "sudden_change",
    "unassigned_30_days",
    "full",
    "unknown_name",
)

_IDS = ("reseller_id", "provider_instance_id", "customer_id", "sku_id", "is_free")
_NAMED = (*_IDS, "customer_name")
_CUSTOMER = ("reseller_id", "provider_instance_id", "customer_id", "customer_name")
LABELS = "(SELECT tenant, customer_id, customer_label FROM dim_customers)"
_RECLAIMABLE = "sum(unassigned_seats) FILTER (unassigned_seats > 0 AND NOT is_free)::BIGINT AS reclaimable_seats"
_SUMS = """
       sum(total_seats)::BIGINT AS total_seats,
       sum(assigned_seats)::BIGINT AS assigned_seats,
       sum(unassigned_seats)::BIGINT AS unassigned_seats,
       sum(assigned_seats) FILTER (total_seats IS NOT NULL)
           / nullif(sum(total_seats) FILTER (assigned_seats IS NOT NULL), 0) AS assignment_rate,
       sum(-unassigned_seats) FILTER (unassigned_seats < 0)::BIGINT AS over_assigned_seats,
       sum(suspended_seats)::BIGINT AS suspended_seats"""

SUMS = (
    *("total_seats", "assigned_seats", "unassigned_seats", "assignment_rate"),
    *("reclaimable_seats", "over_assigned_seats", "suspended_seats"),
)

_COUNTED = f"""count(*) AS row_count, count(DISTINCT (tenant, customer_id)) AS customers,
       count(DISTINCT sku_id) AS skus, min(observed_at) AS oldest_read,
       {_RECLAIMABLE},{_SUMS}"""


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT and the values that it names. `lasting`: the answer is the same until the copy is replaced."""

    sql: str
    values: dict[str, Any] = field(default_factory=dict)
    lasting: bool = False


def _inventory(filters: Filters, *, all_kinds: bool = False) -> str:
    """The rows of the chosen day, in brackets."""
    chosen = replace(filters, kind="all") if all_kinds else filters
    if filters.day is None:
        return f"(SELECT * FROM fct_current_inventory {chosen.where(*_NAMED)})"
    return f"""(
    SELECT * FROM (
        SELECT i.* EXCLUDE reseller_id, coalesce(i.reseller_id, c.reseller_id) AS reseller_id, c.customer_name
        FROM fct_daily_inventory AS i
        LEFT JOIN (SELECT tenant, customer_id, customer_name, reseller_id FROM dim_customers) AS c
            USING (tenant, customer_id)
        WHERE i.snapshot_date = $day
    ) {chosen.where(*_NAMED)}
)"""


# ---- what can be chosen


def choices() -> dict[str, Query]:
    """Ids and names for the filters: tenants, resellers, provider instances, SKUs."""
    return {
        "tenant": Query("SELECT DISTINCT tenant AS id, tenant AS name FROM runs ORDER BY 1"),
        "reseller": Query(
            "SELECT DISTINCT reseller_id AS id, reseller_name AS name FROM dim_resellers ORDER BY 2, 1"
        ),
        "instance": Query(
            "SELECT provider_instance_id AS id, min(provider_instance_name) AS name FROM scope_health "
            "GROUP BY 1 ORDER BY 2, 1"
        ),
        "sku": Query("SELECT sku_id AS id, min(sku_name) AS name FROM dim_skus GROUP BY 1 ORDER BY 2, 1"),
    }


def days() -> Query:
    """The first and the last day of the history, which goes on to the day that the marts take as today."""
    return Query("SELECT min(compared_on) AS first_day, max(compared_on) AS last_day FROM int_days")


def last_run() -> Query:
    """The newest run."""
    return Query(
        "SELECT run_id, started_at, finished_at, status, base_url FROM runs ORDER BY started_at DESC LIMIT 1"
    )


# ---- overview


def totals(filters: Filters) -> Query:
    """Sums over the chosen rows, one row for paid and one for free SKUs, whichever are wanted."""
    sql = f"""
SELECT is_free, {_COUNTED}
FROM {_inventory(filters, all_kinds=True)}
GROUP BY is_free ORDER BY is_free"""
    return Query(sql, filters.values)


def totals_of_all(filters: Filters) -> Query:
    """Sums over the chosen rows, paid and free together."""
    return Query(f"SELECT {_COUNTED}\nFROM {_inventory(filters, all_kinds=True)}", filters.values)


def reclaimable(filters: Filters) -> Query:
    """Reclaimable seats now: of all, and of each currency with their cost. `is_all` marks the row of all.

    Seats without a price are in the row of all only, as the difference to `priced_seats`.
    """
    where = filters.where(*_CUSTOMER, "sku_id")
    sql = f"""
SELECT grouping(currency) = 1 AS is_all, currency,
       coalesce(sum(reclaimable_seats), 0)::BIGINT AS reclaimable_seats,
       coalesce(sum(reclaimable_seats) FILTER (unit_price IS NOT NULL), 0)::BIGINT AS priced_seats,
       sum(reclaimable_cost)::DOUBLE AS cost, count(DISTINCT (tenant, customer_id)) AS customers
FROM fct_reclaimable_seats {where}
GROUP BY GROUPING SETS ((), (currency))
ORDER BY is_all DESC, cost DESC NULLS LAST, currency"""
    return Query(sql, filters.values)


def coverage(filters: Filters) -> Query:
    """How many listed scopes were read well, and how old the data are."""
    where = filters.where(*_CUSTOMER, extra=["is_listed"])
    sql = f"""
SELECT count(*) AS listed, count(*) FILTER (state = 'good') AS good, count(*) FILTER (state = 'stale') AS stale,
       count(*) FILTER (state = 'never read') AS never_read,
       median(age_hours) AS median_age_hours, max(age_hours) AS oldest_age_hours
FROM scope_health {where}"""
    return Query(sql, filters.values)


def history_days(until: date, first_day: date) -> list[date]:
    """Days that tell of the last three months, or of all the history there is, the newest first: some evenly apart,
    and those of a week and of thirty days ago.

    Not every day: each is put together from the history, which takes long over a year of thousands of customers.
    """
    span = min((until - first_day).days, HISTORY_SPAN_DAYS)
    step = max(1, span // HISTORY_STEPS)
    ages = {*range(0, span + 1, step), *(age for age in COMPARED_DAYS if age <= span)}
    return [until - timedelta(days=age) for age in sorted(ages)]


def history(filters: Filters, wanted: Sequence[date]) -> Query:
    """Seats at the end of each of some days. One query for all, since most of the work is shared."""
    listed = ", ".join(f"DATE '{day.isoformat()}'" for day in wanted)
    sql = f"""
SELECT snapshot_date, sum(total_seats)::BIGINT AS total_seats, sum(assigned_seats)::BIGINT AS assigned_seats,
       sum(unassigned_seats)::BIGINT AS unassigned_seats
FROM {_daily(filters, f"snapshot_date IN ({listed})")}
GROUP BY snapshot_date ORDER BY snapshot_date"""
    return Query(sql, filters.values, lasting=True)


def _daily(filters: Filters, period: str) -> str:
    """The cheapest rows of the history that the filters leave."""
    if filters.is_narrow:
        return f"fct_daily_inventory {filters.where(*_IDS, extra=[period])}"
    return f"fct_daily_totals {filters.where('is_free', extra=[period])}"


def unassigned_by_sku(filters: Filters) -> Query:
    """The ten SKUs with most unassigned seats; what is over-assigned elsewhere is not set off."""
    sql = f"""
SELECT sku_id, coalesce(min(sku_name), sku_id) AS sku_name, sum(unassigned_seats)::BIGINT AS unassigned_seats,
       sum(assigned_seats)::BIGINT AS assigned_seats
FROM {_inventory(filters)} WHERE unassigned_seats > 0
GROUP BY sku_id ORDER BY unassigned_seats DESC, sku_name LIMIT 10"""
    return Query(sql, filters.values)


def definitions() -> Query:
    """What the measures mean."""
    return Query("SELECT metric, unit, definition FROM metrics")


def checks() -> Query:
    """What the data say where the API's reference leaves it open."""
    sql = """
SELECT question, definition, holds, rows_checked, rows_telling, rows_holding, share_holding, tenant
FROM checks ORDER BY tenant, check_name"""
    return Query(sql)


# ---- customers, SKUs, resellers

_MOST_FIRST = "reclaimable_seats DESC NULLS LAST, unassigned_seats DESC NULLS LAST"


def _costs(filters: Filters, *keys: str) -> str:
    """What the reclaimable seats cost now, by `keys`, in brackets.

    Costs of several currencies are not added: there is none then, and "several" in place of the currency. There is
    none either on an earlier day, since prices are those of today, nor where only free SKUs are shown.
    """
    is_known = filters.day is None and filters.kind != "free"
    where = filters.where(*_CUSTOMER, "sku_id", extra=[] if is_known else ["false"])
    return f"""(
    SELECT {", ".join(keys)}, CASE WHEN count(DISTINCT currency) = 1 THEN sum(reclaimable_cost)::DOUBLE END AS cost,
           CASE WHEN count(DISTINCT currency) > 1 THEN 'several' ELSE min(currency) END AS currency
    FROM fct_reclaimable_seats {where}
    GROUP BY {", ".join(keys)}
)"""


def customers(filters: Filters) -> Query:
    """A row per customer."""
    sql = f"""
SELECT coalesce(min(d.customer_label), i.customer_id) AS customer, {_RECLAIMABLE},
       min(p.cost) AS reclaimable_cost, min(p.currency) AS currency,{_SUMS},
       count(DISTINCT i.sku_id) AS skus, min(d.reseller_name) AS reseller, min(d.country) AS country,
       min(observed_at) AS read_at, max(age_hours) AS age_hours, i.customer_id, i.tenant
FROM {_inventory(filters)} AS i
LEFT JOIN (SELECT tenant, customer_id, customer_label, reseller_name, country FROM dim_customers) AS d
    ON d.tenant = i.tenant AND d.customer_id = i.customer_id
LEFT JOIN {_costs(filters, "tenant", "customer_id")} AS p
    ON p.tenant = i.tenant AND p.customer_id = i.customer_id
GROUP BY i.tenant, i.customer_id
ORDER BY {_MOST_FIRST}, customer, i.customer_id, i.tenant"""
    return Query(sql, filters.values)


def skus(filters: Filters) -> Query:
    """A row per SKU; without prices on an earlier day, since prices are those of today."""
    price = "min(d.currency) AS currency, min(d.unit_price) AS unit_price"
    if filters.day is not None:
        price = "NULL::VARCHAR AS currency, NULL::DOUBLE AS unit_price"
    sql = f"""
SELECT coalesce(min(d.sku_name), i.sku_id) AS product, i.is_free, {_RECLAIMABLE},
       min(p.cost) AS reclaimable_cost, {price},{_SUMS},
       count(DISTINCT (i.tenant, i.customer_id)) AS customers, min(d.part_number) AS part_number,
       min(d.first_seen_date) AS first_seen, max(d.last_seen_date) AS last_seen, i.sku_id
FROM {_inventory(filters)} AS i
LEFT JOIN (SELECT tenant, sku_id AS id, sku_name, part_number, unit_price, currency, first_seen_date, last_seen_date
           FROM dim_skus) AS d ON d.id = i.sku_id AND d.tenant = i.tenant
LEFT JOIN {_costs(filters, "sku_id")} AS p ON p.sku_id = i.sku_id AND NOT i.is_free
GROUP BY i.sku_id, i.is_free
ORDER BY {_MOST_FIRST}, product, i.sku_id"""
    return Query(sql, filters.values)


def resellers(filters: Filters) -> Query:
    """A row per reseller; customers without one are together in a row."""
    sql = f"""
SELECT coalesce(min(d.reseller_name), i.reseller_id, 'No reseller (direct)') AS reseller, {_RECLAIMABLE},
       min(p.cost) AS reclaimable_cost, min(p.currency) AS currency,{_SUMS},
       count(DISTINCT (i.tenant, i.customer_id)) AS customers, count(DISTINCT i.sku_id) AS skus,
       min(d.country) AS country, max(i.age_hours) AS age_hours, i.reseller_id, i.tenant
FROM {_inventory(filters)} AS i
LEFT JOIN (SELECT tenant, reseller_id, reseller_name, country FROM dim_resellers) AS d
    ON d.tenant = i.tenant AND d.reseller_id = i.reseller_id
LEFT JOIN {_costs(filters, "tenant", "reseller_id")} AS p
    ON p.tenant = i.tenant AND p.reseller_id IS NOT DISTINCT FROM i.reseller_id
GROUP BY i.tenant, i.reseller_id
ORDER BY total_seats DESC NULLS LAST, reseller, i.tenant"""
    return Query(sql, filters.values)


# ---- changes


def change_rows(filters: Filters, from_date: date, to_date: date) -> Query:
    """Changes between two days, a row per customer, provider instance and SKU, the largest first."""
    source, values = changes_between(filters, from_date, to_date)
    sql = f"""
SELECT c.kind, coalesce(d.customer_label, c.customer_id) AS customer, c.sku_name AS product,
       c.seats_before, c.seats_after, c.seat_change, c.assigned_before, c.assigned_after,
       c.customer_id, c.provider_instance_id, c.reseller_id, c.sku_id, tenant
FROM {source} AS c LEFT JOIN {LABELS} AS d USING (tenant, customer_id)
ORDER BY abs(c.seat_change) DESC, customer, product, c.provider_instance_id"""
    return Query(sql, values)


def changes_between(filters: Filters, from_date: date, to_date: date) -> tuple[str, dict[str, Any]]:
    """The rows of the changes between two days, in brackets, and the values that they name."""
    span = (to_date - from_date).days
    if span not in VIEWED_SPANS:
        between = seat_changes_sql(from_date, to_date)
        return f"(SELECT * FROM ({between}) {filters.where(*_IDS)})", filters.values
    where = filters.where(*_IDS, extra=["to_date = $to_date", "span_days = $span"])
    return f"(SELECT * FROM fct_seat_changes {where})", filters.values | {"to_date": to_date, "span": span}


# ---- attention, scope health


def attention_rows(filters: Filters) -> Query:
    """What needs attention, a row per customer, provider instance, SKU and kind; what matters most first."""
    kinds = ", ".join(f"'{kind}'" for kind in ATTENTION_KINDS)
    sql = f"""
SELECT kind, coalesce(d.customer_label, customer_id) AS customer, sku_name AS product, detail,
       total_seats, assigned_seats, suspended_seats, provider_instance_name AS provider_instance,
       observed_at AS read_at, age_hours,
       customer_id, provider_instance_id, sku_id, tenant
FROM (SELECT * FROM attention {filters.where(*_CUSTOMER, "sku_id")})
LEFT JOIN {LABELS} AS d USING (tenant, customer_id)
ORDER BY coalesce(list_position([{kinds}], kind), 99),
         CASE kind WHEN 'stale' THEN coalesce(age_hours, 'inf') WHEN 'over_assigned' THEN assigned_seats - total_seats
                   WHEN 'suspended_but_assigned' THEN suspended_seats ELSE total_seats END DESC NULLS LAST,
         customer, product, provider_instance_id"""
    return Query(sql, filters.values)


def scope_states(filters: Filters) -> Query:
    """Scopes, a row per state."""
    where = filters.where(*_CUSTOMER)
    sql = f"SELECT state, count(*) AS scopes FROM scope_health {where} GROUP BY state ORDER BY state"
    return Query(sql, filters.values)


def scope_rows(filters: Filters, *, only_bad: bool) -> Query:
    """Scopes, the longest not read first; without those that were read well, when `only_bad`."""
    where = filters.where(*_CUSTOMER, extra=["state <> 'good'"] if only_bad else [])
    sql = f"""
SELECT state, coalesce(d.customer_label, customer_id) AS customer, provider_instance_name AS provider_instance,
       reseller_name AS reseller, last_outcome, http_status, reason, failing_runs, last_good_at, age_hours,
       has_active_gdap, delisted_at, scope_key, tenant
FROM (SELECT * FROM scope_health {where}) LEFT JOIN {LABELS} AS d USING (tenant, customer_id)
ORDER BY age_hours DESC NULLS FIRST, customer, scope_key"""
    return Query(sql, filters.values)


# ---- deletions ledger, which is a database of its own

LEDGER_COUNTS = """
SELECT (SELECT count(*) FROM deletion_plans) AS plans, (SELECT count(*) FROM deletion_plan_items) AS deletions,
       (SELECT count(*) FROM deletion_events) AS events"""

# every planned deletion with what came of it: the last result on record, if any
LEDGER_ITEMS = """
SELECT i.plan_id, i.item, i.action, coalesce(i.customer_name, i.customer_id) AS customer, i.reason,
       e.result AS last_result, e.recorded_at AS result_at, p.recorded_at AS planned_at, p.created_by,
       p.query_name, i.customer_id, i.provider_instance_id
FROM deletion_plan_items AS i
JOIN deletion_plans AS p USING (plan_id)
LEFT JOIN (
    SELECT plan_id, item, arg_max(coalesce(result, kind), seq) AS result, arg_max(recorded_at, seq) AS recorded_at
    FROM deletion_events
    WHERE item IS NOT NULL
    GROUP BY plan_id, item
) AS e ON e.plan_id = i.plan_id AND e.item = i.item
ORDER BY p.recorded_at DESC, i.plan_id, i.item"""

LEDGER_EVENTS = """
SELECT seq, recorded_at, kind, plan_id, item, result, http_status, description, actor, correlation_id
FROM deletion_events ORDER BY seq DESC"""
