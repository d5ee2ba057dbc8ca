"""Options that several commands share, and the project that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Project = Annotated[
    Path | None,
    typer.Option(help="Folder that holds .dlt; by default the current one.", show_default=False),
]
Database = Annotated[
    Path | None, typer.Option(help="DuckDB file; by default license_inventory.duckdb in the project folder.")
]
Destination = Annotated[
    str, typer.Option(envvar="COCKPIT_DESTINATION", help="dlt destination, configured as dlt wants it.")
]
Dataset = Annotated[str, typer.Option(envvar="COCKPIT_DATASET", help="Dataset (schema) that holds the tables.")]
Tenants = Annotated[
    list[str] | None,
    typer.Option("--tenant", help="Of several tenants only this one, by its NAME in the configuration; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def enter_project(project: Path | None) -> None:
    """Make `project` the folder whose `.dlt` is read, after the defaults that dlt reads only once."""
    from cockpit_source.configuration import open_project
    from cockpit_source.pipeline import set_runtime_defaults

    set_runtime_defaults()
    open_project(project)
