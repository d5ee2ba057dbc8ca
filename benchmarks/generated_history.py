"""A warehouse of a year, generated: what the tables hold after a load a day, without making the calls.

Everything is invented, and the same arguments give the same rows. About one row in thirty changes from day to day,
and one scope in a hundred cannot be read.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from cockpit_source.tables import LOAD_ID, TABLES

TENANT = "generated.example"
RESELLERS = 25

# what the tables have in common; $skus is the number of SKUs a customer holds
_WORLD = f"""
CREATE MACRO uid(kind, number) AS CAST(CAST(md5(kind || number) AS UUID) AS VARCHAR);
CREATE TEMP TABLE days AS
    SELECT d, 'run' || d AS run_id, date_trunc('day', now()) - (getvariable('days') - 1 - d) * INTERVAL 1 DAY
        + INTERVAL 6 HOUR AS began
    FROM range(getvariable('days')) t(d);
CREATE TEMP TABLE scope_list AS
    SELECT i, '{TENANT}' AS tenant, uid('customer', i) AS customer_id, uid('instance', i % 2) AS provider_instance_id,
        CAST(NULL AS VARCHAR) AS reseller_id,
        '{TENANT}|' || customer_id || '|' || provider_instance_id || '|-' AS scope_key
    FROM range(getvariable('customers')) t(i);
CREATE TEMP TABLE held AS
    SELECT s.*, k, uid('sku', (i * 7 + k * 5) % (4 * getvariable('skus'))) AS sku_id,
        'Product ' || (i * 7 + k * 5) % (4 * getvariable('skus')) AS sku_name
    FROM scope_list s, range(getvariable('skus')) t(k);
CREATE TEMP TABLE versions AS
    SELECT i, k, d, lead(d) OVER (PARTITION BY i, k ORDER BY d) AS next_d
    FROM held, range(getvariable('days')) t(d)
    WHERE d = 0 OR hash(i, k, d) % 30 = 0;
"""

_ROWS = {
    "customers": f"""
        SELECT tenant, customer_id AS id, 'Customer ' || i AS company_name, 'DE' AS country,
            CASE WHEN i % 3 > 0 THEN uid('reseller', i % {RESELLERS}) END AS reseller_id,
            first.began AS first_seen_at, last.run_id
        FROM scope_list, (FROM days WHERE d = 0) first, (FROM days ORDER BY d DESC LIMIT 1) last""",
    "resellers": f"""
        SELECT '{TENANT}' AS tenant, uid('reseller', i) AS id, 'Reseller ' || i AS company_name, 'DE' AS country,
            began AS first_seen_at, run_id
        FROM range({RESELLERS}) t(i), (FROM days WHERE d = 0)""",
    "provider_instances": f"""
        SELECT '{TENANT}' AS tenant, uid('instance', i) AS id, 'Instance ' || i AS alias, true AS is_microsoft,
            began AS first_seen_at, run_id
        FROM range(2) t(i), (FROM days WHERE d = 0)""",
    "scope_runs": """
        SELECT run_id, scope_list.* EXCLUDE i, CASE WHEN fails THEN 'failed' ELSE 'ok' END AS outcome,
            CASE WHEN fails THEN 503 ELSE 200 END AS http_status,
            CASE WHEN fails THEN 'the service is busy' END AS error_description, 1 AS attempts, 20 AS duration_ms,
            CASE WHEN NOT fails THEN getvariable('skus') END AS license_count,
            began + INTERVAL 1 MINUTE AS observed_at
        FROM days, scope_list, LATERAL (SELECT hash(i, d) % 100 = 0 AS fails)""",
    "runs": f"""
        SELECT run_id, '{TENANT}' AS tenant, began AS started_at, began + INTERVAL 5 MINUTE AS finished_at,
            CASE WHEN max(outcome) = min(outcome) THEN 'complete' ELSE 'partial' END AS status,
            'http://127.0.0.1' AS base_url, 'generated' AS scopes_hash, true AS listing_complete,
            count(*) AS customers_listed, count(*) AS scopes_total, count(*) FILTER (outcome = 'ok') AS scopes_ok,
            count(*) FILTER (outcome = 'failed') AS scopes_failed, 0 AS scopes_empty, 0 AS scopes_forbidden,
            0 AS scopes_not_found, 0 AS scopes_invalid, 0 AS scopes_deferred, 0 AS scopes_skipped,
            0 AS scopes_quarantined, sum(license_count) AS license_rows, count(*) AS requests, 0 AS throttled,
            'generated' AS version
        FROM days JOIN cockpit.scope_runs USING (run_id) GROUP BY ALL""",
    "scopes": """
        SELECT tenant, scope_key, customer_id, provider_instance_id, reseller_id, min(began) AS first_seen_at,
            max_by(run_id, d) AS last_listed_run_id, max_by(run_id, d) AS last_run_id,
            max_by(outcome, d) AS last_outcome, max_by(run_id, d) FILTER (outcome = 'ok') AS last_good_run_id,
            max(observed_at) FILTER (outcome = 'ok') AS last_good_at,
            max(d) - coalesce(max(d) FILTER (outcome = 'ok'), -1) AS failing_runs
        FROM cockpit.scope_runs JOIN days USING (run_id) GROUP BY ALL""",
    "license_history": """
        SELECT tenant, scope_key, customer_id, provider_instance_id, reseller_id, sku_id, 0 AS occurrence, sku_name,
            total_licenses, consumed_licenses, total_licenses - consumed_licenses AS available_licenses,
            0 AS suspended_licenses, md5(scope_key || k || d) AS row_hash, start.began AS valid_from,
            stop.began AS valid_to
        FROM versions JOIN held USING (i, k) JOIN days start USING (d) LEFT JOIN days stop ON stop.d = next_d,
            LATERAL (SELECT CAST(50 + hash(i, k, d, 1) % 50 AS BIGINT) AS total_licenses,
                CAST(30 + hash(i, k, d, 2) % 40 AS BIGINT) AS consumed_licenses)""",
    "licenses": """
        SELECT * EXCLUDE (valid_from, valid_to, _dlt_load_id), false AS is_selected, 'run' AS run_id,
            valid_from AS observed_at
        FROM cockpit.license_history WHERE valid_to IS NULL""",
}


def generate_history(database: Path, *, customers: int, skus: int, days: int) -> None:
    """Write a new DuckDB file with the dataset `cockpit`: `customers` with one scope and `skus` SKUs each.

    The last of the `days` is today. All tables of `TABLES` are there.
    """
    with duckdb.connect(str(database)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, value in (("customers", customers), ("skus", skus), ("days", days)):
            connection.execute(f"SET VARIABLE {name} = {value}")
        connection.execute(_WORLD)
        connection.execute("CREATE SCHEMA cockpit")
        for table in TABLES.values():
            connection.register("empty", table.arrow_schema.empty_table())
            validity = "".join(f", CAST(NULL AS TIMESTAMPTZ) AS {column.name}" for column in table.versioned_columns)
            connection.execute(f"CREATE TABLE cockpit.{table.name} AS SELECT *{validity} FROM empty")
        for name, rows in _ROWS.items():
            connection.execute(
                f"INSERT INTO cockpit.{name} BY NAME SELECT *, 'generated' AS {LOAD_ID} FROM ({rows}) made"
            )
