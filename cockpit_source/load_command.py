"""The command `cockpit load`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cockpit_source.command_options import (
    AsJson,
    Database,
    Dataset,
    Destination,
    Project,
    ScopesFile,
    Tenants,
    enter_project,
    list_of_one,
    pick_names,
    resolve_one,
)
from cockpit_source.errors import CockpitError, ConfigurationError

if TYPE_CHECKING:
    from cockpit_source.busy_tries import BusyTries


def add_load_command(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: cockpit load --project /etc/cockpit --database /srv/licences.duckdb")(load)


def load(
    project: Project = None,
    tenant: Tenants = None,
    scopes_file: ScopesFile = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Read only the scopes that the last run did not; delists nothing.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over where the last run was interrupted.")] = False,
    accept_drop: Annotated[
        int, typer.Option(min=0, help="Let so many scopes lose all licences or leave the list, past the drop guard.")
    ] = 0,
    dask: Annotated[
        str | None,
        typer.Option(help="Read on the workers of a Dask scheduler at this address, or local for two here."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N|finish", help="Read part I of N of the list beside others; finish: after all."),
    ] = None,
    busy_tries: Annotated[
        int,
        typer.Option(
            min=0, envvar="COCKPIT_BUSY_TRIES", help="How often to try while another run or a reader is in the way."
        ),
    ] = 1,
    busy_seconds: Annotated[
        float, typer.Option(min=0, envvar="COCKPIT_BUSY_SECONDS", help="The seconds between two of these tries.")
    ] = 600,
    as_json: AsJson = False,
    as_of: Annotated[datetime | None, typer.Option(hidden=True)] = None,
) -> None:
    """Read every scope and bring the tables up to date; of several tenants, one after another, with --dask at once.

    The first Ctrl+C or SIGTERM loads what is read by then and skips the rest; the second ends at once.

    Exit codes: 0 all scopes read, 1 none read or an unexpected error, 2 configuration or usage, 3 some not read,
    4 held back by the drop guard, 5 sign-in refused, 6 the database is in use. Of several tenants it is the first of
    2, 6, 5, 1, 4, 3 that one of them has.
    """
    if retry_failed and scopes_file is not None:
        raise ConfigurationError("--retry-failed takes its scopes from the warehouse: leave --scopes-file out.")
    enter_project(project)
    from cockpit_source.busy_tries import BusyTries

    one = "--shard is for" if shard else "--accept-drop is for" if accept_drop else list_of_one(scopes_file)
    names = pick_names(tenant, one)
    place: dict[str, Any] = {"destination": destination, "database": database, "dataset": dataset}
    order: dict[str, Any] = {
        "full_list": scopes_file is None,
        "retry_failed": retry_failed,
        "accept_drop": accept_drop,
        "as_of": None if as_of is None else as_of.replace(tzinfo=as_of.tzinfo or UTC),
        "fresh": fresh,
    }
    tries = BusyTries(busy_tries, busy_seconds)
    if names and shard is None:
        from cockpit_source.tenant_commands import load_all

        path = None if scopes_file is None else str(scopes_file.absolute())
        sys.exit(load_all(names, as_json=as_json, dask=dask, busy=tries, scopes_file=path, **place, **order))
    settings = resolve_one(scopes_file, *names)
    sys.exit(_load_one(settings, place, order, shard=shard, dask=dask, busy=tries, as_json=as_json))


def _load_one(
    settings: Any,
    place: dict[str, Any],
    order: dict[str, Any],
    *,
    shard: str | None,
    dask: str | None,
    busy: BusyTries,
    as_json: bool,
) -> int:
    """Load the tenant of `settings`, or a shard of it, and print what came of it; the exit code."""
    from cockpit_source.errors import NothingToRetry
    from cockpit_source.fanout.opening import fan_out_by_dask
    from cockpit_source.hooks import describe
    from cockpit_source.load import LoadProgress, run_load
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.progress import ProgressDisplay
    from cockpit_source.report import create_console, print_result
    from cockpit_source.shards import FINISH, parse_shard
    from cockpit_source.stopping import StopRequest, stopping_on_signals

    console = create_console()
    # any spelling of a shard is one pipeline
    part = "" if shard in (None, FINISH) else str(parse_shard(shard or ""))
    pipeline = create_pipeline(settings.tenant_key, shard=part, **place)
    progress = LoadProgress()
    request = StopRequest()
    with (
        fan_out_by_dask(dask) as fan_out,
        ProgressDisplay(progress, create_console(stderr=True)),
        stopping_on_signals(request, lambda: progress.record is not None, progress.notes.append),
    ):
        try:
            result = run_load(
                pipeline,
                settings,
                shard=part or shard,
                progress=progress,
                stop_request=request,
                fan_out=fan_out,
                busy=busy,
                **order,
            )
        except NothingToRetry as nothing:
            if as_json:
                console.print_json(data=describe(settings, nothing) | {"status": nothing.status})
            else:
                console.print(str(nothing), soft_wrap=True)
            return nothing.exit_code
        except KeyboardInterrupt:
            raise CockpitError(
                "Interrupted before the first scope was read. Nothing was changed; the next load begins anew."
                if progress.record is None
                else "Interrupted. What was read is in the spool; the next load carries on."
            ) from None
        except CockpitError as error:
            if as_json:
                console.print_json(data=describe(settings, error))
            raise
    if as_json:
        console.print_json(data=result.to_dict(), default=str)
    else:
        print_result(result, console)
    return result.exit_code
