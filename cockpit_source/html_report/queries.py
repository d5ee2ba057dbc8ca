"""The SQL of what the report shows and the dashboard does not; its other figures are the dashboard's own SELECTs."""

from __future__ import annotations

from datetime import date

from cockpit_source.dashboard.filters import Filters
from cockpit_source.dashboard.queries import LABELS, Query, changes_between


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


def changes_by_kind(filters: Filters, from_date: date, to_date: date) -> Query:
    """Changes of seats between the ends of two days, a row per kind."""
    source, values = changes_between(filters, from_date, to_date)
    sql = f"""
SELECT kind, count(DISTINCT (tenant, customer_id)) AS customers, count(*) AS row_count,
       sum(seat_change)::BIGINT AS seat_change
FROM {source}
GROUP BY kind"""
    return Query(sql, values)


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
        f"""
SELECT state, coalesce(d.customer_label, customer_id) AS customer, provider_instance_name AS provider_instance,
       reseller_name AS reseller, http_status, coalesce(reason, last_outcome) AS reason, failing_runs, last_good_at,
       age_hours, tenant
FROM (SELECT * FROM scope_health WHERE is_listed AND state <> 'good')
LEFT JOIN {LABELS} AS d USING (tenant, customer_id)
ORDER BY age_hours DESC NULLS FIRST, customer, scope_key"""
    )
