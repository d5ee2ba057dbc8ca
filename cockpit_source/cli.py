"""The command line `cockpit`. Results go to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

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
from cockpit_source.deletions.commands import deletions_app
from cockpit_source.errors import CockpitError, ConfigurationError, DeletionRefused
from cockpit_source.load_command import add_load_command
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

    names = pick_names(tenant, "--probe is about" if probe else list_of_one(scopes_file))
    if names and not probe:
        from cockpit_source.tenant_commands import check_all

        sys.exit(check_all(names, lambda name: resolve_one(scopes_file, name), open_pipeline))
    follow = _create_probe(as_json) if probe else None
    console = create_console(stderr=probe)
    sys.exit(run_checks(lambda: resolve_one(scopes_file, *names), open_pipeline, console, probe=follow))


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

    if names := pick_names(tenant, list_of_one(scopes_file)):
        from cockpit_source.tenant_commands import print_all_scopes

        def resolve(name: str) -> Any:
            return resolve_one(scopes_file, name)

        sys.exit(print_all_scopes(names, resolve, open_pipeline, as_json=as_json))
    settings = resolve_one(scopes_file)
    print_scopes(settings, open_pipeline(settings.tenant_key), create_console(), as_json=as_json)


# here, for the order in --help
add_load_command(app)
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
    domain: Annotated[
        str, typer.Option(help="Name of the simulated tenant; two in one dataset need two.")
    ] = "sandbox.example",
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
    run(
        port=port,
        seed=seed,
        customers=customers,
        domain=domain,
        day=day,
        latency_ms=latency_ms,
        faults=fault or [],
        folder=project,
    )


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
