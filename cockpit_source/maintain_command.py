"""The command `cockpit maintain`."""

from __future__ import annotations

from typing import Annotated

import typer

from cockpit_source.command_options import AsJson, Database, Dataset, Destination, Project, enter_project


def add_maintain_command(app: typer.Typer) -> None:
    """Add it to `app`."""
    app.command(epilog="Example: cockpit maintain --destination ducklake --keep-days 30")(maintain)


def maintain(
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    keep_days: Annotated[
        float,
        typer.Option(
            min=0, max=36_500, help="Of a lake, keep what was read in these last days; 0 disturbs whoever reads now."
        ),
    ] = 7,
    delete_orphans: Annotated[
        bool,
        typer.Option(
            "--delete-orphans",
            help="Of a lake, also delete files over a day old below its data path that its catalogue does not know.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tidy the warehouse: small files and old snapshots of a DuckLake, statistics of PostgreSQL, a DuckDB file's log.

    On a lake it merges small files, forgets old snapshots, and deletes files that no snapshot needs. PostgreSQL and
    DuckDB look after themselves otherwise. Loads and readers may go on meanwhile. No row of a table is changed.

    Exit codes: 0 done, 2 configuration or usage, 6 on DuckDB, a load is running or the database is in use.
    """
    enter_project(project)
    from cockpit_source import maintain as maintenance
    from cockpit_source.configuration import pick_tenants, resolve_tenant_key
    from cockpit_source.maintain_report import print_maintenance
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.report import create_console

    # the pipeline of any tenant: all of them are in the dataset
    tenant_key = resolve_tenant_key(*pick_tenants(None)[:1])
    pipeline = create_pipeline(tenant_key, destination=destination, database=database, dataset=dataset)
    result = maintenance.maintain(pipeline, keep_days=keep_days, delete_orphans=delete_orphans)
    if as_json:
        create_console().print_json(data=result.to_dict())
    else:
        print_maintenance(result, create_console())
