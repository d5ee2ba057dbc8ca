"""The command line `cockpit`. Results go to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cockpit_source.command_options import AsJson, Database, Dataset, Destination, Project, Tenants, enter_project
from cockpit_source.deletions.commands import deletions_app
from cockpit_source.errors import CockpitError, ConfigurationError, DeletionRefused
from cockpit_source.maintain_command import add_maintain_command
from cockpit_source.mart_commands import add_mart_commands
from cockpit_source.move_command import add_move_command
from cockpit_source.redaction import describe_defect
from cockpit_source.upkeep_commands import add_upkeep_commands

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(deletions_app, name="deletions")

ScopesFile = Annotated[
    Path | None,
    typer.Option(help="CSV, Parquet or JSON file to load instead of the configured scopes; delists nothing."),
]
# as in cockpit_source.sandbox, an extra that need not be installed to read the help
_FAULT_KINDS = (
    "throttle, throttle_date, throttle_bare, error_500, html_503, reset, truncated, hang, wrong_shape, sign_in_page, "
    "redirect, expired_token, oversized"
)


def main() -> None:
    """Run the command line; errors a user can cause are one message and an exit code, without a stack trace."""
    try:
        app()
    except CockpitError as error:
        code = f" ({error.code})" if isinstance(error, DeletionRefused) else ""
        _fail(str(error), error.exit_code, title=f"Error{code}:")
    except Exception:  # noqa: BLE001 - the last place where anything unexpected can be told
        _fail(describe_defect(), 1)


def run() -> None:
    """`main` for the console script, without the sixth of a second that Python takes to clean up its modules."""
    try:
        main()
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    else:
        exit_code = 0
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(exit_code)


def _fail(message: str, exit_code: int, *, title: str = "Error:") -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]{title}[/bold red]", end=" ")
    console.print(message, markup=False, soft_wrap=True)
    sys.exit(exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cockpit_source.version import __version__

        Console(highlight=False).print(f"cockpit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Load the Microsoft licence inventory of a CSP from the CloudCockpit CSP API into a warehouse."""


def _resolve(scopes_file: Path | None, tenant_name: str | None = None) -> Any:
    from cockpit_source.configuration import resolve_settings

    return resolve_settings(tenant_name, scopes_file=None if scopes_file is None else str(scopes_file.absolute()))


def _pick(tenants: list[str] | None, one: str | None = None) -> list[str]:
    """The names of the tenants that a command is about, none where there are no several.

    `one` begins a sentence about what is for one tenant only, where that was asked for.
    """
    from cockpit_source.configuration import pick_tenants

    names = pick_tenants(tenants)
    if one is not None and len(names) > 1:
        raise ConfigurationError(f"{one} one tenant. Name it: --tenant NAME.")
    return names


def _list_of_one(scopes_file: Path | None) -> str | None:
    return None if scopes_file is None else "--scopes-file is the list of"


@app.command(epilog="Example: cockpit check --project /etc/cockpit")
def check(
    project: Project = None,
    tenant: Tenants = None,
    scopes_file: ScopesFile = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Also read up to 20 scopes and print what they prove about the API, without ids or names.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of --probe as JSON.")] = False,
) -> None:
    """Check configuration, warehouse, scope list, sign-in and one call, and say which of them is wrong.

    With --probe, what the checks say goes to stderr, and only the report, which is meant to be sent, to stdout.
    """
    if as_json and not probe:
        raise ConfigurationError("--json goes with --probe: cockpit check --probe --json")
    enter_project(project)
    from cockpit_source.check import run_checks
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.report import create_console

    def open_pipeline(tenant_key: str) -> Any:
        return create_pipeline(tenant_key, destination=destination, database=database, dataset=dataset)

    names = _pick(tenant, "--probe is about" if probe else _list_of_one(scopes_file))
    if names and not probe:
        from cockpit_source.tenant_commands import check_all

        sys.exit(check_all(names, lambda name: _resolve(scopes_file, name), open_pipeline))
    follow = _create_probe(as_json) if probe else None
    console = create_console(stderr=probe)
    sys.exit(run_checks(lambda: _resolve(scopes_file, *names), open_pipeline, console, probe=follow))


def _create_probe(as_json: bool) -> Callable[[Any, Any], int]:
    """What follows the checks: a probe whose report goes to stdout."""
    from cockpit_source.probe.report import print_report
    from cockpit_source.probe.run import run_probe
    from cockpit_source.report import create_console

    def follow(settings: Any, scope_list: Any) -> int:
        progress = create_console(stderr=True)
        report = run_probe(settings, scope_list, note=lambda text: progress.print(f"probe: {text}", soft_wrap=True))
        print_report(report, create_console(), as_json=as_json)
        return report.exit_code

    return follow


@app.command(epilog="Example: cockpit scopes --json > scopes.jsonl")
def scopes(
    project: Project = None,
    tenant: Tenants = None,
    scopes_file: ScopesFile = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Print the scopes that a load would read, duplicates merged; as JSON one object per line."""
    enter_project(project)
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.report import create_console
    from cockpit_source.scope_report import print_scopes

    def open_pipeline(tenant_key: str) -> Any:
        return create_pipeline(tenant_key, destination=destination, database=database, dataset=dataset)

    if names := _pick(tenant, _list_of_one(scopes_file)):
        from cockpit_source.tenant_commands import print_all_scopes

        def resolve(name: str) -> Any:
            return _resolve(scopes_file, name)

        sys.exit(print_all_scopes(names, resolve, open_pipeline, as_json=as_json))
    settings = _resolve(scopes_file)
    print_scopes(settings, open_pipeline(settings.tenant_key), create_console(), as_json=as_json)


@app.command(epilog="Example: cockpit load --project /etc/cockpit --database /srv/licences.duckdb")
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
    from cockpit_source.errors import NothingToRetry
    from cockpit_source.fanout.opening import fan_out_by_dask
    from cockpit_source.hooks import describe
    from cockpit_source.load import LoadProgress, run_load
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.progress import ProgressDisplay
    from cockpit_source.report import create_console, print_result
    from cockpit_source.shards import FINISH, parse_shard
    from cockpit_source.stopping import StopRequest, stopping_on_signals

    moment = None if as_of is None else as_of.replace(tzinfo=as_of.tzinfo or UTC)
    one = "--shard is for" if shard else "--accept-drop is for" if accept_drop else _list_of_one(scopes_file)
    names = _pick(tenant, one)
    if names and shard is None:
        from cockpit_source.tenant_commands import load_all

        code = load_all(
            names,
            as_json=as_json,
            dask=dask,
            destination=destination,
            database=database,
            dataset=dataset,
            full_list=scopes_file is None,
            retry_failed=retry_failed,
            accept_drop=accept_drop,
            as_of=moment,
            fresh=fresh,
            scopes_file=None if scopes_file is None else str(scopes_file.absolute()),
        )
        sys.exit(code)
    settings = _resolve(scopes_file, *names)
    # any spelling of a shard is one pipeline
    part = "" if shard in (None, FINISH) else str(parse_shard(shard or ""))
    pipeline = create_pipeline(
        settings.tenant_key, destination=destination, database=database, dataset=dataset, shard=part
    )
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
                full_list=scopes_file is None,
                retry_failed=retry_failed,
                accept_drop=accept_drop,
                as_of=moment,
                fresh=fresh,
                shard=part or shard,
                progress=progress,
                stop_request=request,
                fan_out=fan_out,
            )
        except NothingToRetry as nothing:
            if as_json:
                create_console().print_json(data=describe(settings, nothing) | {"status": nothing.status})
            else:
                create_console().print(str(nothing), soft_wrap=True)
            sys.exit(nothing.exit_code)
        except KeyboardInterrupt:
            raise CockpitError(
                "Interrupted before the first scope was read. Nothing was changed; the next load begins anew."
                if progress.record is None
                else "Interrupted. What was read is in the spool; the next load carries on."
            ) from None
        except CockpitError as error:
            if as_json:
                create_console().print_json(data=describe(settings, error))
            raise
    if as_json:
        create_console().print_json(data=result.to_dict(), default=str)
    else:
        print_result(result, create_console())
    sys.exit(result.exit_code)


# here, for the order in --help
add_upkeep_commands(app)
add_mart_commands(app)
add_maintain_command(app)
add_move_command(app)


@app.command(epilog="Example: cockpit sandbox --latency-ms 20 --fault throttle=0.1")
def sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on the loopback interface; 0 takes a free one.")
    ] = 8765,
    seed: Annotated[int, typer.Option(help="Same seed, same tenant.")] = 7,
    customers: Annotated[int, typer.Option(min=1, help="Customers of the simulated tenant.")] = 120,
    day: Annotated[int, typer.Option(min=0, help="Simulated day, from 0.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="Delay of every answer.")] = 0,
    fault: Annotated[
        list[str] | None, typer.Option(help=f"KIND=RATE, rate from 0 to 1; repeatable. Kinds: {_FAULT_KINDS}.")
    ] = None,
    project: Annotated[
        Path | None, typer.Option(help="Write a project for this sandbox (its .dlt) into this folder.")
    ] = None,
) -> None:
    """Serve a simulated tenant on this machine: no credentials, no network, no real data."""
    run = _require_sandbox("cockpit_source.sandbox_command", "serve_sandbox")
    run(port=port, seed=seed, customers=customers, day=day, latency_ms=latency_ms, faults=fault or [], folder=project)


@app.command(epilog="Example: cockpit demo --folder /tmp/cockpit_demo")
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its database and configuration.")] = Path(
        "cockpit_demo"
    ),
    days: Annotated[int, typer.Option(min=1, max=30, help="Simulated days to load.")] = 5,
) -> None:
    """Load several days of a simulated tenant into DuckDB, show what changed, and write a report. No credentials."""
    enter_project(None)
    run = _require_sandbox("cockpit_source.demo", "run_demo")
    sys.exit(run(folder, days))


def _require_sandbox(module: str, function: str) -> Callable[..., Any]:
    """A function of a module that needs the extra `sandbox`."""
    import importlib

    try:
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn", "httptools", "uvloop"):
            raise
        raise ConfigurationError(
            f"The sandbox is an extra, and {error.name} is not installed. "
            'Install it from the clone: pip install -c constraints.txt ".[sandbox]"'
        ) from None


if __name__ == "__main__":
    main()
