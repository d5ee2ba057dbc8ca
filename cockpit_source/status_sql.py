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

# Every run is listed on a line, the last run on line 1. Shards are no runs of their own here: all of them since the
# run before, those too that were repeated, are on the line of the run after them; on line 0 while there is none,
# whose id is `shards`. `begins_at` is the start of the first on a line. A plain load after shards that nothing ended
# takes over what they changed, so that no earlier line changes, but not their calls.
# values: tenant
SHARDS = "shards"
_LISTED_RUNS = f"""
WITH mine AS (
    SELECT *, SUM(is_listed) OVER (ORDER BY started_at DESC, is_listed DESC, run_id DESC) AS line
    FROM (
        SELECT *, CASE WHEN shard IS NULL OR shard = '{FINISH}' THEN 1 ELSE 0 END AS is_listed
        FROM {{runs}} WHERE tenant = %s
    ) AS marked
), listed_runs AS (
    SELECT line, COALESCE(MAX(CASE WHEN is_listed = 1 THEN run_id END), '{SHARDS}') AS run_id,
        MAX(CASE WHEN is_listed = 1 THEN _dlt_load_id END) AS load_id,
        MAX(CASE WHEN shard IS NULL THEN started_at END) AS plain_at, MIN(started_at) AS begins_at
    FROM mine GROUP BY line
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
    SELECT line, run_id, load_id, begins_at, LAG(begins_at) OVER (ORDER BY line) AS ends_at FROM listed_runs
), recent AS (
    SELECT * FROM spans ORDER BY line LIMIT %s
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

# Of shards that nothing ended a scope counts once, as it was read last; as many are to be read as the last runs of
# the shards of one layout hold, or more when the shards of several have read more.
# values: tenant, number of runs
RUNS = (
    _LISTED_RUNS
    + f""", told AS (
    SELECT l.line, l.run_id, COALESCE(l.plain_at, l.begins_at) AS started_at,
        MAX(CASE WHEN m.is_listed = 1 THEN m.finished_at END) AS finished_at,
        COALESCE(MAX(CASE WHEN m.is_listed = 1 AND m._dlt_load_id IN {_COMMITTED} THEN m.status END), 'running')
            AS status,
        COUNT(DISTINCT CASE WHEN l.line = 0 THEN m.shard END) AS shards_done,
        SUM(CASE WHEN m.is_listed = 1 THEN m.scopes_total END) AS scopes_total,
        SUM(CASE WHEN m.is_listed = 1 THEN m.scopes_ok + m.scopes_empty END) AS scopes_read,
        SUM(CASE WHEN m.is_listed = 1 THEN m.license_rows END) AS license_rows,
        SUM(CASE WHEN m.is_listed = 1 OR l.plain_at IS NULL THEN m.requests END) AS requests,
        SUM(CASE WHEN m.is_listed = 1 OR l.plain_at IS NULL THEN m.throttled END) AS throttled
    FROM listed_runs l JOIN mine m ON m.line = l.line
    GROUP BY l.line, l.run_id, l.plain_at, l.begins_at
), layouts AS (
    SELECT SUM(scopes_total) AS scopes FROM (
        SELECT shard, scopes_total,
            ROW_NUMBER() OVER (PARTITION BY shard ORDER BY started_at DESC, run_id DESC) AS place
        FROM mine WHERE line = 0
    ) AS repeated WHERE place = 1 GROUP BY SPLIT_PART(shard, '/', 2)
), not_ended AS (
    SELECT COUNT(*) AS scopes, COUNT(CASE WHEN o.outcome IN ({_GOOD}) THEN 1 END) AS scopes_read,
        COALESCE(SUM(o.license_count), 0) AS license_rows
    FROM mine m JOIN {{scopes}} s ON s.last_run_id = m.run_id
    JOIN {{scope_runs}} o ON o.scope_key = s.scope_key AND o.run_id = s.last_run_id
    WHERE m.line = 0 AND o._dlt_load_id IN {_COMMITTED}
)
SELECT t.run_id, t.started_at, t.finished_at, t.status, t.shards_done,
    CAST(COALESCE(t.scopes_total, GREATEST(n.scopes, (SELECT MAX(scopes) FROM layouts))) AS BIGINT) AS scopes_total,
    CAST(COALESCE(t.scopes_read, n.scopes_read) AS BIGINT) AS scopes_read,
    CAST(COALESCE(t.license_rows, n.license_rows) AS BIGINT) AS license_rows,
    CAST(t.requests AS BIGINT) AS requests, CAST(t.throttled AS BIGINT) AS throttled
FROM told t CROSS JOIN not_ended n
ORDER BY t.line LIMIT %s"""
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
