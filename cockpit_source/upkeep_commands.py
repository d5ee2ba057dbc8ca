"""The commands that look after an inventory: `cockpit status` shows its state, `prune` deletes old rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cockpit_source.command_options import (
    AsJson,
    Database,
    Dataset,
    Destination,
    Project,
    Tenants,
    enter_project,
    options_given,
)


def add_upkeep_commands(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command(epilog="Example: cockpit status --project /etc/cockpit --max-age-hours 36")(status)
    app.command(epilog="Example: cockpit prune --project /etc/cockpit --keep-days 90 --dry-run")(prune)


def _opener(destination: str, database: Path | None, dataset: str) -> Callable[[str], Any]:
    """Opens the pipeline of a tenant key."""
    from cockpit_source.pipeline import create_pipeline

    return lambda tenant_key: create_pipeline(tenant_key, destination=destination, database=database, dataset=dataset)


def status(
    project: Project = None,
    tenant: Tenants = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    max_age_hours: Annotated[
        float | None,
        typer.Option(help="Exit 3 when a listed scope was not read well within these hours, for monitors."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="How many of the last runs to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the last runs, what they changed, and which scopes are stale. Calls no API and changes nothing.

    Of several tenants it shows each that is configured, and each that only the dataset knows.

    Exit codes: 0 shown, 2 configuration or usage, 3 with --max-age-hours when a listed scope has no good read in that
    time or nothing was ever loaded, 6 the database is in use.
    """
    enter_project(project)
    from cockpit_source.configuration import pick_tenants, resolve_tenant_key
    from cockpit_source.report import create_console
    from cockpit_source.status import read_status
    from cockpit_source.status_report import MAX_NAMED, MAX_SHOWN, print_status, to_json

    open_pipeline = _opener(destination, database, dataset)
    options = options_given(project, destination, database, dataset)
    if names := pick_tenants(tenant):
        from cockpit_source.tenant_commands import show_all_status

        code = show_all_status(
            names,
            open_pipeline,
            with_others=not tenant,
            runs=runs,
            max_age_hours=max_age_hours,
            as_json=as_json,
            options=options,
        )
        sys.exit(code)
    tenant_key = resolve_tenant_key()
    limit = MAX_NAMED if as_json else MAX_SHOWN
    found = read_status(open_pipeline(tenant_key), tenant_key, runs=runs, max_age_hours=max_age_hours, limit=limit)
    if as_json:
        create_console().print_json(data=to_json(found))
    else:
        print_status(found, create_console(), options=options)
    sys.exit(found.exit_code)


def prune(
    keep_days: Annotated[int, typer.Option(min=0, max=36_500, help="Keep every row of these last days.")],
    project: Project = None,
    tenant: Tenants = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old rows of scope_runs and rejected_rows, and rests of runs in the spool. Licence tables stay.

    Of scope_runs, every scope keeps one row per older day (the last good read, else the last row) and the rows that
    scopes points to. Older rejected_rows all go. A run in the spool that is not loaded yet stays, unless it is older
    and a later run has loaded.

    Exit codes: 0 done, 2 configuration or usage, 6 a load is running or the database is in use.
    """
    enter_project(project)
    from cockpit_source import prune as pruning
    from cockpit_source.configuration import pick_tenants, resolve_tenant_key
    from cockpit_source.report import create_console

    open_pipeline = _opener(destination, database, dataset)
    if names := pick_tenants(tenant):
        from cockpit_source.tenant_commands import prune_all

        sys.exit(prune_all(names, open_pipeline, keep_days=keep_days, dry_run=dry_run, as_json=as_json))
    tenant_key = resolve_tenant_key()
    result = pruning.prune(open_pipeline(tenant_key), tenant_key, keep_days=keep_days, dry_run=dry_run)
    if as_json:
        create_console().print_json(data=result.to_dict())
    else:
        pruning.print_pruned(result, create_console())
