"""The commands around the marts: `cockpit marts` builds them, `dashboard`, `report` and `export` show them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from cockpit_source.command_options import AsJson, Database, Dataset, Destination, Project, Tenants, enter_project
from cockpit_source.errors import ConfigurationError
from cockpit_source.values import abbreviate, read_date


def _read_day(text: str) -> date:
    try:
        return read_date(text)
    except ValueError as error:
        raise typer.BadParameter(f"{abbreviate(text)} {error}") from None


def add_mart_commands(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command(epilog="Example: cockpit marts --project /etc/cockpit --price-list prices.csv")(marts)
    app.command(epilog="Example: cockpit dashboard --project /etc/cockpit")(dashboard)
    app.command(epilog="Example: cockpit report --project /etc/cockpit --out report.html")(report)
    app.command(epilog="Example: cockpit export --project /etc/cockpit --out parquet --since 2026-01-01")(export)


def marts(
    project: Project = None,
    tenant: Tenants = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    price_list: Annotated[
        Path | None,
        typer.Option(
            help="CSV with sku_id, unit_price, currency, valid_from; for this once where one is configured."
        ),
    ] = None,
    sku_catalog: Annotated[
        str | None, typer.Option(help="Path or https address of Microsoft's table of product names, as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the marts: views that answer questions, in the dataset of the tables. Calls no API.

    The views always show what was last loaded. Run this once, and again after an update of cockpit or with new lists;
    a load does it too where refresh_marts is set. The views are of all tenants; --tenant says whose lists are loaded.

    Exit codes: 0 done, 1 the address of the SKU catalogue gives nothing, 2 configuration or usage, or nothing was
    loaded yet, 6 a load is running or the database is in use.
    """
    enter_project(project)
    from cockpit_source.configuration import pick_tenants, resolve_mart_settings
    from cockpit_source.marts.refresh import refresh_marts
    from cockpit_source.marts_report import print_marts
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.reference_data import describe_overridden
    from cockpit_source.report import create_console

    lists = {
        "price_list": None if price_list is None else str(price_list.absolute()),
        # of the configuration it would start at the project folder
        "sku_catalog": str(Path(sku_catalog).absolute()) if sku_catalog and "://" not in sku_catalog else sku_catalog,
    }

    def open_pipeline(tenant_key: str) -> Any:
        return create_pipeline(tenant_key, destination=destination, database=database, dataset=dataset)

    if names := pick_tenants(tenant):
        from cockpit_source.tenant_commands import refresh_all_marts

        sys.exit(refresh_all_marts(names, open_pipeline, as_json=as_json, **lists))
    settings = resolve_mart_settings(**lists)
    pipeline = open_pipeline(settings.tenant_key)
    notes = create_console(stderr=True)

    def note(text: str) -> None:
        notes.print(text, markup=False, soft_wrap=True)

    result = refresh_marts(pipeline, settings, note=note)
    for told in describe_overridden(settings):
        note(told)
    if as_json:
        create_console().print_json(data=result.to_dict())
    else:
        print_marts(result, create_console())


def dashboard(
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback one needs the token that is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 2718,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="COCKPIT_DASHBOARD_TOKEN",
            show_envvar=False,
            help="Token that a browser must give; better in COCKPIT_DASHBOARD_TOKEN, where nobody else sees it.",
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> None:
    """Serve the dashboard on this machine: seats, changes, what needs attention. Reads the published copy only.

    It never keeps a load waiting, shows what a later load brought without a restart, and asks nothing of other
    machines. Ctrl+C stops it.
    """
    enter_project(project)
    _require_packages("dashboard", "dashboard", ("altair", "marimo"))
    from cockpit_source.dashboard.command import run_dashboard

    run_dashboard(
        destination=destination,
        database=database,
        dataset=dataset,
        host=host,
        port=port,
        token=token,
        open_browser=not no_browser,
    )


def report(
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
) -> None:
    """Write the overview as one HTML file to mail or print. Reads the published copy only; calls no API.

    Without --out it is report.html in the current folder, and replaces the one that is there.

    The file opens anywhere without a network: seats, changes, customers, SKUs, resellers, what needs attention, what
    was not read, and what each figure means.

    Exit codes: 0 written, 2 nothing to report on yet, configuration or usage.
    """
    enter_project(project)
    from cockpit_source.html_report.command import print_written, write_report
    from cockpit_source.report import create_console

    written = write_report(out.absolute(), destination=destination, database=database, dataset=dataset)
    print_written(written, create_console())


def export(
    out: Annotated[Path, typer.Option(help="The folder to write to; files of an earlier export are replaced.")],
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    since: Annotated[
        date | None,
        typer.Option(
            parser=_read_day,
            metavar="YYYY-MM-DD",
            help="First day of fct_daily_inventory, fct_daily_totals and fct_seat_changes.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write every mart as a Parquet file, for Power BI and others. Reads the published copy only; calls no API.

    Each file appears whole or not at all. Times are UTC. How to connect is in docs/bi.md.

    Exit codes: 0 written, 2 nothing to export yet, configuration or usage.
    """
    enter_project(project)
    from cockpit_source.export import export_marts, print_exported
    from cockpit_source.report import create_console

    exported = export_marts(out.absolute(), destination=destination, database=database, dataset=dataset, since=since)
    if as_json:
        create_console().print_json(data=exported.to_dict())
    else:
        print_exported(exported, create_console())


def _require_packages(part: str, extra: str, packages: Sequence[str]) -> None:
    """Say how to install the extra that a part of the program needs, where it is missing."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"The {part} is an extra, and {' and '.join(missing)} is not installed. "
            f"Install it: pip install 'cockpit-source[{extra}]', or from the clone: "
            f'pip install -c constraints.txt ".[{extra}]"'
        )
