"""What the shards of a list have read already, for the run that ends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from cockpit_source.scope_list import ScopeList
from cockpit_source.scopes import GOOD_OUTCOMES
from cockpit_source.scratch import connect_scratch, create_table, insert_rows, quote_path
from cockpit_source.shards import FINISH
from cockpit_source.warehouse import Warehouse

# a read that is older is made again
COVERED_WITHIN = timedelta(hours=12)

_COVERED_SCHEMA = pa.schema(
    [
        ("scope_key", pa.string()),
        ("outcome", pa.string()),
        ("license_count", pa.int64()),
        ("list_begun_at", pa.timestamp("us", tz="UTC")),
    ]
)
_GOOD = ", ".join(f"'{outcome}'" for outcome in GOOD_OUTCOMES)
_COMMITTED = "(SELECT load_id FROM {_dlt_loads} WHERE status = 0)"

# scopes that a shard has read well since, whose package is committed, and that no other run has tried after it
# values: tenant, oldest read that will do
_COVERED = f"""
SELECT s.scope_key, r.outcome, r.license_count, u.started_at AS list_begun_at
FROM {{scopes}} s
JOIN {{scope_runs}} r ON r.scope_key = s.scope_key AND r.run_id = s.last_run_id
JOIN {{runs}} u ON u.run_id = s.last_run_id
WHERE s.tenant = %s AND s.delisted_at IS NULL AND u.shard IS NOT NULL AND u.shard <> '{FINISH}'
    AND r.outcome IN ({_GOOD}) AND r.observed_at > %s
    AND s._dlt_load_id IN {_COMMITTED} AND r._dlt_load_id IN {_COMMITTED}"""


def write_covered(scope_list: ScopeList, warehouse: Warehouse, tenant_key: str, now: datetime) -> datetime | None:
    """Write which scopes of the list shards have read in the last 12 hours; when the first of these shards began.

    None where there is none; then the list is to be read as a whole.
    """
    with connect_scratch(scope_list.folder) as connection:
        create_table(connection, "covered", _COVERED_SCHEMA)
        for table in warehouse.select(_COVERED, tenant_key, now - COVERED_WITHIN):
            insert_rows(connection, "covered", table.cast(_COVERED_SCHEMA))
        connection.execute(
            f"""COPY (
                SELECT * FROM covered
                WHERE scope_key IN (SELECT scope_key FROM read_parquet({quote_path(scope_list.path)}))
            ) TO {quote_path(scope_list.covered_path)} (FORMAT parquet)"""
        )
    begun = pq.read_table(scope_list.covered_path, columns=["list_begun_at"])["list_begun_at"].to_pylist()
    return min((moment.astimezone(UTC) for moment in begun), default=None)
