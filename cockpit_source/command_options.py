"""Options that several commands share, and the project that they name."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cockpit_source.errors import ConfigurationError

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
ScopesFile = Annotated[
    Path | None,
    typer.Option(help="CSV, Parquet or JSON file to load instead of the configured scopes; delists nothing."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def enter_project(project: Path | None) -> None:
    """Make `project` the folder whose `.dlt` is read, after the defaults that dlt reads only once."""
    from cockpit_source.configuration import open_project
    from cockpit_source.pipeline import set_runtime_defaults

    set_runtime_defaults()
    open_project(project)


def resolve_one(scopes_file: Path | None, tenant_name: str | None = None) -> Any:
    """The settings of the tenant `tenant_name`, or of the only one, with that list of scopes where there is one."""
    from cockpit_source.configuration import resolve_settings

    return resolve_settings(tenant_name, scopes_file=None if scopes_file is None else str(scopes_file.absolute()))


def pick_names(tenants: list[str] | None, one: str | None = None) -> list[str]:
    """The names of the tenants that a command is about, none where there are no several.

    `one` begins a sentence about what is for one tenant only, where that was asked for.
    """
    from cockpit_source.configuration import pick_tenants

    names = pick_tenants(tenants)
    if one is not None and len(names) > 1:
        raise ConfigurationError(f"{one} one tenant. Name it: --tenant NAME.")
    return names


def list_of_one(scopes_file: Path | None) -> str | None:
    """What `pick_names` wants as `one` where there is a list of scopes."""
    return None if scopes_file is None else "--scopes-file is the list of"


def options_given(project: Path | None, destination: str, database: Path | None, dataset: str) -> str:
    """What another command has to be given to use the same project and dataset, without the defaults."""
    given = {
        "--project": None if project is None else str(project),
        "--destination": _unless_usual(destination, "COCKPIT_DESTINATION", "duckdb"),
        "--database": None if database is None else str(database),
        "--dataset": _unless_usual(dataset, "COCKPIT_DATASET", "cockpit"),
    }
    return " ".join(f"{name} {shlex.quote(value)}" for name, value in given.items() if value is not None)


def _unless_usual(value: str, variable: str, usual: str) -> str | None:
    """The value, unless a command without the option and without the variable would have it too."""
    return None if value == usual and os.environ.get(variable, usual) == usual else value
