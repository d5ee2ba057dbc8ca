"""The queries of `cockpit status`, in SQL that DuckDB and PostgreSQL both take.

`{name}` stands for a table, `%s` for a value. Numbers that are summed come out as floating point: sums of 64-bit
counts may be larger than 64 bits.
"""

from __future__ import annotations

from cockpit_source.scopes import GOOD_OUTCOMES
from cockpit_source.shards import FINISH

# free and viral products come with 10,000 seats and more, which nobody bought
FREE_SEATS = 10_000

_GOOD = ", ".join(f"'{outcome}'" for outcome in GOOD_OUTCOMES)
_COMMITTED = "(SELECT load_id FROM {_dlt_loads} WHERE status = 0)"

# Shards are no runs of their own here: they belong to the run that ended them, or are together one that goes on,
# whose id is `shards`. `begins_at` is the start of the first of them.
# values: tenant
SHARDS = "shards"
_LISTED_RUNS = f"""
WITH mine AS (
    SELECT *, CASE WHEN shard IS NULL OR shard = '{FINISH}' THEN 1 ELSE 0 END AS is_listed
    FROM {{runs}} WHERE tenant = %s
), listed_runs AS (
    SELECT run_id, _dlt_load_id AS load_id, COALESCE(list_begun_at, started_at) AS begins_at
    FROM mine WHERE is_listed = 1
    UNION ALL
    SELECT '{SHARDS}', NULL, MIN(started_at) FROM mine WHERE is_listed = 0 AND started_at > (
        SELECT COALESCE(MAX(started_at), TIMESTAMP WITH TIME ZONE '1970-01-01 00:00:00+00')
        FROM mine WHERE is_listed = 1
    ) HAVING COUNT(*) > 0
)"""

# no two customers of a tenant have the same label, as in the mart dim_customers; null without a name
_CUSTOMERS = """(
    SELECT tenant, id, company_name,
        CASE WHEN COUNT(*) OVER (PARTITION BY tenant, name) = 1 THEN name
             ELSE name || ' (' || SUBSTRING(id, 1, 8) || ')' END AS label
    FROM (SELECT tenant, id, company_name, NULLIF(TRIM(company_name), '') AS name FROM {customers}) AS named
)"""

# A run changes things from its start to the start of the next run: its last package is dated a little after
# `finished_at`, and a run that was dated has the same moment for start, end and changes.
# values: tenant, number of runs
_RECENT = (
    _LISTED_RUNS
    + """, spans AS (
    SELECT run_id, load_id, begins_at, LEAD(begins_at) OVER (ORDER BY begins_at, run_id) AS ends_at FROM listed_runs
), recent AS (
    SELECT * FROM spans ORDER BY begins_at DESC, run_id DESC LIMIT %s
)"""
)

# a row of license_history counts while it is valid and its scope is listed; a scope that came back counts throughout.
# Rows are not held against _dlt_loads: after a kill the next load finds them there, and leaves them as they are.
# values: those of _RECENT, tenant
_MOVED = (
    _RECENT
    + f""", held AS (
    SELECT r.run_id, h.customer_id, h.scope_key, h.sku_id, h.occurrence, COALESCE(h.total_licenses, 0) AS seats,
        CASE WHEN h.valid_from < r.begins_at AND (h.valid_to IS NULL OR h.valid_to >= r.begins_at)
              AND (s.delisted_at IS NULL OR s.delisted_at >= r.begins_at) THEN 1 ELSE 0 END AS held_before,
        CASE WHEN (r.ends_at IS NULL OR h.valid_from < r.ends_at)
              AND (h.valid_to IS NULL OR h.valid_to >= r.ends_at)
              AND (s.delisted_at IS NULL OR s.delisted_at >= r.ends_at) THEN 1 ELSE 0 END AS held_after
    FROM recent r CROSS JOIN {{license_history}} h LEFT JOIN {{scopes}} s ON s.scope_key = h.scope_key
    WHERE h.tenant = %s
), moved AS (
    SELECT run_id, customer_id, SUM(held_after) - SUM(held_before) AS row_change,
        CASE WHEN MAX(seats) >= {FREE_SEATS} THEN 0
             ELSE SUM(held_after * seats) - SUM(held_before * seats) END AS seat_change
    FROM held WHERE held_before <> held_after
    GROUP BY run_id, customer_id, scope_key, sku_id, occurrence
)"""
)

CHANGES = (
    _MOVED
    + """
SELECT run_id, CAST(SUM(row_change) AS DOUBLE PRECISION) AS row_change,
    CAST(SUM(seat_change) AS DOUBLE PRECISION) AS seat_change
FROM moved GROUP BY run_id"""
)

# one run; more values: tenant, rows
CUSTOMER_CHANGES = (
    _MOVED
    + """, summed AS (
    SELECT customer_id, CAST(SUM(row_change) AS DOUBLE PRECISION) AS row_change,
        CAST(SUM(seat_change) AS DOUBLE PRECISION) AS seat_change
    FROM moved GROUP BY customer_id
)
SELECT m.customer_id, c.company_name AS customer_name, c.label AS customer_label, m.row_change, m.seat_change
FROM summed m LEFT JOIN """
    + _CUSTOMERS
    + """ c ON c.tenant = %s AND c.id = m.customer_id
WHERE m.row_change <> 0 OR m.seat_change <> 0
ORDER BY ABS(m.seat_change) DESC, ABS(m.row_change) DESC, m.customer_id LIMIT %s"""
)

# values: tenant, number of runs
RUNS = (
    _LISTED_RUNS
    + f""", told AS (
    SELECT m.*, l.begins_at,
        CASE WHEN m._dlt_load_id IN {_COMMITTED} THEN m.status ELSE 'running' END AS told_status
    FROM mine m JOIN listed_runs l ON l.run_id = m.run_id
    UNION ALL
    SELECT m.*, l.begins_at, 'running' AS told_status
    FROM mine m JOIN listed_runs l ON l.run_id = '{SHARDS}' AND m.started_at >= l.begins_at WHERE m.is_listed = 0
), parts AS (
    SELECT l.run_id, SUM(m.requests) AS requests, SUM(m.throttled) AS throttled
    FROM listed_runs l JOIN mine e ON e.run_id = l.run_id
    JOIN mine m ON m.is_listed = 0 AND m.started_at >= e.list_begun_at AND m.started_at <= e.started_at
    GROUP BY l.run_id
)
SELECT CASE WHEN t.is_listed = 1 THEN t.run_id ELSE '{SHARDS}' END AS run_id, t.begins_at AS started_at,
    CASE WHEN t.is_listed = 1 THEN MAX(t.finished_at) END AS finished_at,
    t.told_status AS status, CASE WHEN t.is_listed = 0 THEN COUNT(*) ELSE 0 END AS shards_done,
    CAST(SUM(t.scopes_total) AS BIGINT) AS scopes_total,
    CAST(SUM(t.scopes_ok + t.scopes_empty) AS BIGINT) AS scopes_read,
    CAST(SUM(t.license_rows) AS BIGINT) AS license_rows,
    CAST(SUM(t.requests + COALESCE(p.requests, 0)) AS BIGINT) AS requests,
    CAST(SUM(t.throttled + COALESCE(p.throttled, 0)) AS BIGINT) AS throttled
FROM told t LEFT JOIN parts p ON p.run_id = t.run_id
GROUP BY t.is_listed, CASE WHEN t.is_listed = 1 THEN t.run_id ELSE '{SHARDS}' END, t.begins_at, t.told_status
ORDER BY 2 DESC, 1 DESC LIMIT %s"""
)

# the last outcome of every scope of a run, with those of its shards
# values: tenant, run, start of the run or of its first shard
OUTCOMES = f"""
SELECT o.outcome, COUNT(*) AS scopes FROM {{scope_runs}} o
JOIN {{runs}} r ON r.run_id = o.run_id
LEFT JOIN {{scopes}} s ON s.scope_key = o.scope_key
WHERE o.tenant = %s AND o._dlt_load_id IN {_COMMITTED} AND (
    o.run_id = %s OR (r.shard <> '{FINISH}' AND r.started_at >= %s AND s.last_run_id = o.run_id)
) GROUP BY o.outcome"""

# scopes that read empty now and had licences when they were last read well before; of runs that `cockpit prune` went
# over it may be too few or too many, since rows in between are gone
# values: those of _RECENT, tenant
_EMPTIED = (
    _RECENT
    + f""", good AS (
    SELECT run_id, scope_key, outcome, license_count,
        LAG(license_count) OVER (PARTITION BY scope_key ORDER BY observed_at, run_id) AS rows_before
    FROM {{scope_runs}}
    WHERE tenant = %s AND outcome IN ({_GOOD}) AND _dlt_load_id IN {_COMMITTED}
      AND scope_key IN (SELECT e.scope_key FROM {{scope_runs}} e JOIN recent r ON r.run_id = e.run_id
                        WHERE e.outcome = 'empty')
), emptied AS (
    SELECT g.run_id, g.scope_key, g.rows_before FROM good g JOIN recent r ON r.run_id = g.run_id
    WHERE g.outcome = 'empty' AND g.rows_before > 0
)"""
)
EMPTIED_COUNTS = _EMPTIED + " SELECT run_id, COUNT(*) AS scopes FROM emptied GROUP BY run_id"

# a run writes its final row and the scopes that it delists in one package, which tells runs of one date apart
# values: those of _RECENT, tenant
_DELISTED = (
    _RECENT
    + """, delisted AS (
    SELECT r.run_id, s.scope_key, NULL AS rows_before FROM {scopes} s JOIN recent r ON s._dlt_load_id = r.load_id
    WHERE s.tenant = %s AND s.delisted_at IS NOT NULL
)"""
)
DELISTED_COUNTS = _DELISTED + " SELECT run_id, COUNT(*) AS scopes FROM delisted GROUP BY run_id"

_NAMED = """s.scope_key, s.customer_id, c.company_name AS customer_name, c.label AS customer_label,
    s.provider_instance_id, p.alias AS provider_instance_alias, s.reseller_id, q.company_name AS reseller_name"""
_NAMES = f"""
LEFT JOIN {_CUSTOMERS} c ON c.tenant = s.tenant AND c.id = s.customer_id
LEFT JOIN {{provider_instances}} p ON p.tenant = s.tenant AND p.id = s.provider_instance_id
LEFT JOIN {{resellers}} q ON q.tenant = s.tenant AND q.id = s.reseller_id"""


def _with_names(common_tables: str, name: str) -> str:
    return (
        f"{common_tables} SELECT {_NAMED}, x.rows_before FROM {name} x JOIN {{scopes}} s ON s.scope_key = x.scope_key"
        f"{_NAMES} ORDER BY c.company_name, s.scope_key LIMIT %s"
    )


# one run; more values: rows
EMPTIED = _with_names(_EMPTIED, "emptied")
DELISTED = _with_names(_DELISTED, "delisted")

# every listed scope; what was not committed does not count: then the last good read is looked up
# values: tenant
_LISTED = f"""
WITH judged AS (
    SELECT s.*, CASE WHEN s._dlt_load_id IN {_COMMITTED} THEN 1 ELSE 0 END AS is_committed
    FROM {{scopes}} s WHERE s.tenant = %s AND s.delisted_at IS NULL
), listed AS (
    SELECT j.tenant, j.scope_key, j.customer_id, j.provider_instance_id, j.reseller_id, j.last_run_id, j.failing_runs,
        j.has_active_gdap, CASE WHEN j.is_committed = 1 THEN j.last_outcome ELSE 'uncommitted' END AS outcome,
        CASE WHEN j.is_committed = 1 THEN j.last_good_at ELSE (
            SELECT MAX(g.observed_at) FROM {{scope_runs}} g
            WHERE g.scope_key = j.scope_key AND g.outcome IN ({_GOOD}) AND g._dlt_load_id IN {_COMMITTED}
        ) END AS last_good_at
    FROM judged j
)"""

# more values: oldest good read that will do, twice
LISTED_COUNTS = (
    _LISTED
    + f"""
SELECT COUNT(*) AS scopes,
    COUNT(CASE WHEN last_good_at IS NULL OR last_good_at < %s THEN 1 END) AS too_old,
    COUNT(CASE WHEN outcome NOT IN ({_GOOD}) OR last_good_at < %s THEN 1 END) AS stale
FROM listed"""
)

# of every reason the scopes that fail the longest first; more values: oldest good read that will do, rows
STALE = (
    _LISTED
    + f""", stale AS (
    SELECT s.*, r.error_type, r.error_description, r.correlation_id, r.server_correlation_id,
        ROW_NUMBER() OVER (PARTITION BY s.outcome, r.error_type ORDER BY s.failing_runs DESC, s.scope_key) AS place
    FROM listed s LEFT JOIN {{scope_runs}} r ON r.scope_key = s.scope_key AND r.run_id = s.last_run_id
    WHERE s.outcome NOT IN ({_GOOD}) OR s.last_good_at < %s
)
SELECT {_NAMED}, s.outcome, s.error_type, s.error_description, s.correlation_id, s.server_correlation_id,
    s.last_good_at, s.failing_runs, s.has_active_gdap, (
        SELECT STRING_AGG(DISTINCT g.status, ', ') FROM {{gdap_relationships}} g
        WHERE g.tenant = s.tenant AND g.customer_id = s.customer_id AND g.removed_at IS NULL
          AND g.provider_instance_id = s.provider_instance_id
    ) AS gdap_statuses
FROM stale s {_NAMES}
ORDER BY s.place, s.outcome, s.error_type, s.scope_key LIMIT %s"""
)

# what the report names for the rest; {dataset}, {tenant} and {oldest} are filled in as text
ALL_STALE = f"""SELECT s.customer_id, s.provider_instance_id, s.reseller_id, s.last_outcome, s.last_good_at, \
s.failing_runs, r.error_type, r.error_description, r.correlation_id FROM {{dataset}}.scopes s \
LEFT JOIN {{dataset}}.scope_runs r ON r.scope_key = s.scope_key AND r.run_id = s.last_run_id \
WHERE s.tenant = '{{tenant}}' AND s.delisted_at IS NULL AND (s.last_outcome NOT IN ({_GOOD}){{oldest}} \
OR s._dlt_load_id NOT IN (SELECT load_id FROM {{dataset}}._dlt_loads WHERE status = 0))"""
