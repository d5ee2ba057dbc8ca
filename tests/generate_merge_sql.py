"""Prints, as JSON, the SQL that dlt would send to databases of which there is neither a server nor a driver here.

Run in a process of its own: it puts dummies in the place of the drivers. dlt's own code writes the SQL.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any
from unittest.mock import MagicMock

_DRIVERS = (
    "clickhouse_connect",
    "clickhouse_connect.driver",
    "clickhouse_connect.driver.summary",
    "clickhouse_connect.driver.tools",
    "clickhouse_driver",
    "clickhouse_driver.dbapi",
    "clickhouse_driver.dbapi.extras",
    "clickhouse_driver.errors",
    "google",
    "google.api_core",
    "google.api_core.exceptions",
    "google.api_core.retry",
    "google.auth",
    "google.auth.credentials",
    "google.cloud",
    "google.cloud.bigquery",
    "google.cloud.bigquery.dbapi",
    "google.cloud.bigquery.dbapi.exceptions",
    "google.cloud.bigquery.retry",
    "google.cloud.exceptions",
    "google.oauth2",
    "google.oauth2.credentials",
    "google.oauth2.service_account",
    "pyodbc",
    "snowflake",
    "snowflake.connector",
)
CREDENTIALS: dict[str, Any] = {
    "motherduck": "md:db?motherduck_token=secret",
    "snowflake": "snowflake://me:secret@account/db?warehouse=w",
    "bigquery": {"project_id": "p", "private_key": "secret", "client_email": "me@p.example"},
    "mssql": "mssql://me:secret@host/db?driver=ODBC+Driver+18+for+SQL+Server",
    "clickhouse": "clickhouse://me:secret@host/db",
}


def _replace_drivers() -> None:
    for name in _DRIVERS:
        sys.modules[name] = MagicMock(name=name)
    # dlt asks whether a value is one of these
    for module in ("google.oauth2.service_account", "google.oauth2.credentials"):
        sys.modules[module].Credentials = type("Credentials", (), {})  # type: ignore[attr-defined]


def _create_schema() -> Any:
    """The schema of our tables, as dlt makes it from the source."""
    import dlt
    from support import day

    from cockpit_source.reference_data import reference_source
    from cockpit_source.source import PackagePart, RunFacts, package_source
    from cockpit_source.spool import to_batch
    from cockpit_source.tables import COUNT, FLAG, REFERENCE_TABLES, RUNS, TEXT, TIME

    pipeline = dlt.pipeline("merge_sql", destination="duckdb", dataset_name="cockpit")
    values = {TEXT: "", COUNT: 0, FLAG: False, TIME: day(0)}
    run = {column.name: values[column.type] for column in RUNS.columns}
    parts = [PackagePart(results=to_batch([]), listed={}, run=run)]
    pipeline.extract(package_source(parts, RunFacts("run", "tenant", boundary_timestamp=day(0))))
    pipeline.extract(reference_source("tenant", {name: [] for name in REFERENCE_TABLES}))
    return pipeline.default_schema


def _describe(destination: str, schema: Any) -> dict[str, Any]:
    from dlt.common.destination import Destination
    from dlt.destinations.sql_jobs import SqlMergeFollowupJob

    factory: Any = Destination.from_reference(destination, credentials=CREDENTIALS[destination])
    client = factory.client(schema, factory.spec()._bind_dataset_name("cockpit"))
    merges: dict[str, list[str]] = {}

    def note(job: Any, tables: Any, sql_client: Any) -> None:
        merges[tables[0]["name"]] = job.generate_sql(tables, sql_client)

    SqlMergeFollowupJob.from_table_chain = classmethod(note)  # type: ignore[method-assign, assignment]
    creates = {}
    for name in schema.data_table_names(include_incomplete=True):
        client._create_merge_followup_jobs([client.prepare_load_table(name)])
        creates[name] = client._get_table_update_sql(name, client._create_table_update(name, {}), False)
    return {"dialect": factory.capabilities().sqlglot_dialect, "merges": merges, "creates": creates}


def main() -> None:
    _replace_drivers()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLT_DATA_DIR"] = folder
        schema = _create_schema()
        sys.stdout.write(json.dumps({name: _describe(name, schema) for name in CREDENTIALS}))


if __name__ == "__main__":
    main()
