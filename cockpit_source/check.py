"""`cockpit check`: the steps of a load up to one call, each with what it found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import dlt
from rich.console import Console
from rich.markup import escape

from cockpit_source.client import CockpitClient
from cockpit_source.configuration import configuration_files
from cockpit_source.errors import (
    EXIT_ALL_READ,
    EXIT_FAILED,
    EXIT_SOME_NOT_READ,
    ApiError,
    CockpitError,
    ServerFailed,
    Throttled,
    TransportFailed,
    UnusableAnswer,
)
from cockpit_source.fetch import utc_now
from cockpit_source.outcomes import judge_answer
from cockpit_source.scope_list import ScopeList
from cockpit_source.scope_listing import PreparedList, ScopeLister
from cockpit_source.settings import Settings
from cockpit_source.warehouse import Warehouse

_NO_ANSWER = (TransportFailed, ServerFailed, UnusableAnswer, Throttled)


# what may follow the checks: it has the settings and the scope list, and gives the exit code
Probe = Callable[[Settings, ScopeList], int]


def run_checks(
    read_settings: Callable[[], Settings],
    open_pipeline: Callable[[str], dlt.Pipeline],
    console: Console,
    *,
    probe: Probe | None = None,
) -> int:
    """Run the checks one after another, print each, stop at the first that fails; the exit code.

    A `probe` follows whatever one call gave, and its exit code counts instead.
    """
    print_files(console)
    return run_steps(read_settings, open_pipeline, console, probe=probe)


def print_files(console: Console) -> None:
    """The files of the configuration, and whether they are there."""
    for path, exists in configuration_files():
        console.print(f"{'read     ' if exists else 'not there'}  {escape(str(path))}", soft_wrap=True)


def run_steps(
    read_settings: Callable[[], Settings],
    open_pipeline: Callable[[str], dlt.Pipeline],
    console: Console,
    *,
    probe: Probe | None = None,
) -> int:
    """`run_checks` without the files."""
    step = "configuration"
    try:
        settings = read_settings()
        _report(console, step, f"tenant {settings.tenant}, {settings.base_url}")
        step = "warehouse"
        warehouse = Warehouse(open_pipeline(settings.tenant_key))
        warehouse.check()
        _report(console, step, warehouse.location)
        with tempfile.TemporaryDirectory(prefix="cockpit-") as folder, CockpitClient(settings) as client:
            step = "sign-in"
            client.sign_in()
            way = "a ready token, not yet tried" if settings.credentials.access_token else "token received"
            _report(console, step, way)
            step = "scope list"
            prepared = ScopeLister(settings, client, warehouse, only_scopes=True).prepare(Path(folder), utc_now())
            _report(console, step, _describe_list(prepared))
            if prepared.problem:
                console.print(f"[bold red]failed[/bold red]     {step}: {escape(prepared.problem)}", soft_wrap=True)
            step = "one call"
            exit_code = _call_once(client, prepared.scope_list, console)
            if probe is not None:
                step = "probe"
                return probe(settings, prepared.scope_list)
            return exit_code or (EXIT_SOME_NOT_READ if prepared.problem else EXIT_ALL_READ)
    except CockpitError as error:
        console.print(f"[bold red]failed[/bold red]     {step}: {escape(str(error))}", soft_wrap=True)
        return error.exit_code


def _describe_list(prepared: PreparedList) -> str:
    if prepared.discovery is not None:
        return prepared.discovery.describe()
    return f"{prepared.scope_list.total} scopes from {prepared.scope_list.listed} lines"


def _call_once(client: CockpitClient, scope_list: ScopeList, console: Console) -> int:
    listed = next(scope_list.iter_scopes())
    where = f"customer {listed.scope.customer_id}"
    try:
        result = judge_answer(listed, client.list_licenses(listed.scope), utc_now())
    except ApiError as error:
        console.print(f"[bold red]failed[/bold red]     one call: {where}: {escape(str(error))}", soft_wrap=True)
        return EXIT_FAILED if isinstance(error, _NO_ANSWER) else EXIT_SOME_NOT_READ
    if result.error_type:
        reason = f"{where}: {escape(str(result.error_description))}"
        console.print(f"[bold red]failed[/bold red]     one call: {reason}", soft_wrap=True)
        return EXIT_SOME_NOT_READ
    _report(console, "one call", f"{where}: {len(result.rows)} licence rows in {result.call.duration_ms} ms")
    return EXIT_ALL_READ


def _report(console: Console, step: str, finding: str) -> None:
    console.print(f"[green]ok[/green]         {step}: {escape(finding)}", soft_wrap=True)
