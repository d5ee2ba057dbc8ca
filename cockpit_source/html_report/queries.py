"""The SQL of what the report shows and the dashboard does not; its other figures are the dashboard's own SELECTs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from cockpit_source.dashboard.queries import VIEWED_SPANS, Query
from cockpit_source.marts import MartOptions, seat_changes_sql


def last_runs() -> Query:
    """The newest run of each tenant, which is what the figures are of."""
    return Query(
        """
SELECT tenant, run_id, started_at, finished_at, status, base_url, version,
       (started_at AT TIME ZONE 'UTC')::DATE AS run_date
FROM runs
QUALIFY row_number() OVER (PARTITION BY tenant ORDER BY started_at DESC, run_id DESC) = 1
ORDER BY tenant"""
    )


def seats_by_day(days: Sequence[date]) -> Query:
    """Paid seats at the end of chosen days, a row each; whole histories take long, chosen days do not."""
    listed = ", ".join(f"DATE '{day.isoformat()}'" for day in days)
    return Query(
        f"""
SELECT snapshot_date, sum(total_seats)::BIGINT AS total_seats, sum(assigned_seats)::BIGINT AS assigned_seats,
       sum(unassigned_seats)::BIGINT AS unassigned_seats
FROM fct_daily_totals
WHERE snapshot_date IN ({listed}) AND NOT is_free
GROUP BY snapshot_date ORDER BY snapshot_date"""
    )


def changes_by_kind(from_date: date, to_date: date) -> Query:
    """Changes of paid seats between the ends of two days, a row per kind."""
    span = (to_date - from_date).days
    if span in VIEWED_SPANS:
        source = f"fct_seat_changes WHERE to_date = DATE '{to_date.isoformat()}' AND span_days = {span} AND"
    else:
        source = f"({seat_changes_sql(from_date, to_date, MartOptions(), str)}) WHERE"
    return Query(
        f"""
SELECT kind, count(DISTINCT (tenant, customer_id)) AS customers, count(*) AS row_count,
       sum(seat_change)::BIGINT AS seat_change
FROM {source} NOT is_free
GROUP BY kind"""
    )


def left_out() -> Query:
    """The free and viral SKUs that no total counts."""
    return Query(
        """
SELECT coalesce(min(sku_name), sku_id) AS product, min(free_reason) AS reason,
       count(DISTINCT (tenant, customer_id)) AS customers, sum(total_seats)::BIGINT AS total_seats,
       sum(assigned_seats)::BIGINT AS assigned_seats, sku_id
FROM fct_current_inventory WHERE is_free
GROUP BY sku_id ORDER BY total_seats DESC NULLS LAST, product, sku_id"""
    )


def unread_scopes() -> Query:
    """Listed scopes that the last run did not read well, the oldest first."""
    return Query(
        """
SELECT state, coalesce(customer_name, customer_id) AS customer, provider_instance_name AS provider_instance,
       reseller_name AS reseller, http_status, coalesce(reason, last_outcome) AS reason, failing_runs, last_good_at,
       age_hours
FROM scope_health WHERE is_listed AND state <> 'good'
ORDER BY age_hours DESC NULLS FIRST, customer, scope_key"""
    )
