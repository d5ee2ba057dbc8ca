"""The command `cockpit move`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cockpit_source.command_options import AsJson, Dataset, Project, enter_project, options_given


def add_move_command(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: cockpit move --from license_inventory.duckdb --destination postgres")(move)


def move(
    destination: Annotated[
        str, typer.Option(help="Where to: postgres or ducklake, configured as dlt wants it.", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="DuckDB file to move; by default license_inventory.duckdb in the project folder."
        ),
    ] = None,
    project: Project = None,
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Copy the dataset of a DuckDB file into PostgreSQL or DuckLake, with all of its history. Calls no API.

    The next load with that --destination goes on where the file ends. The dataset must not be there yet. All of it is
    committed at once, after every table was compared with the file, row by row; until then, and after a kill, there
    is nothing. The file is only read, and stays.

    Exit codes: 0 moved, 2 configuration or usage, or nothing could be moved, 6 a load is running or the file is in
    use.
    """
    enter_project(project)
    from cockpit_source.move.copying import move_dataset
    from cockpit_source.move.report import print_moved, shown_steps
    from cockpit_source.move.target import require_destination
    from cockpit_source.pipeline import create_pipeline, locate_database
    from cockpit_source.report import create_console

    require_destination(destination)
    database = locate_database(source, dataset)

    def open_source(tenant_key: str) -> Any:
        return create_pipeline(tenant_key, database=database, dataset=dataset)

    def open_target_of(tenant_key: str) -> Any:
        return create_pipeline(tenant_key, destination=destination, dataset=dataset)

    with shown_steps(create_console(stderr=True)) as step:
        result = move_dataset(database, dataset, open_source=open_source, open_target_of=open_target_of, step=step)
    if as_json:
        create_console().print_json(data=result.to_dict())
    else:
        print_moved(
            result,
            create_console(),
            destination=destination,
            options=options_given(project, destination, None, dataset),
        )
