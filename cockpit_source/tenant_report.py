"""What became of several tenants, as text: loads, status and marts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from cockpit_source.errors import CockpitError, join_exit_codes
from cockpit_source.marts_report import print_lists, print_views
from cockpit_source.report import create_table, print_result
from cockpit_source.status import Status
from cockpit_source.status_report import describe_age
from cockpit_source.tenant_loads import TenantLoad
from cockpit_source.tenant_marts import TenantMarts

_STATUS_NUMBERS = ("read", "of", "rows", "stale")
_NUMBERS = ("read", "of", "rows", "calls", "seconds", "exit code")


def print_heading(name: str, tenant_key: str | None, console: Console) -> None:
    """A line that begins what is told of a tenant."""
    told = "" if tenant_key is None else f" ({tenant_key})"
    console.print(f"[bold]tenant {escape(name)}[/bold]{escape(told)}", soft_wrap=True)


def print_failure(text: str, console: Console) -> None:
    """Why nothing came of a tenant."""
    console.print("[bold red]failed:[/bold red]", end=" ")
    console.print(text, markup=False, soft_wrap=True)


def print_load(load: TenantLoad, earlier: Sequence[TenantLoad], console: Console) -> None:
    """The load of one tenant, after those `earlier`; a reason that one of them had too is not told again."""
    print_heading(load.name, load.tenant_key, console)
    if load.result is not None:
        print_result(load.result, console)
    elif load.status != "failed":
        console.print(str(load.error), markup=False, soft_wrap=True)
    else:
        alike = next((one.name for one in earlier if str(one.error) == str(load.error)), None)
        print_failure(str(load.error) if alike is None else f"for the same reason as {alike}.", console)
    console.print()


def print_total(loads: Sequence[TenantLoad], console: Console) -> None:
    """A line for each tenant, and their total."""
    table = create_table("tenant", "status", *_NUMBERS, right=_NUMBERS)
    results = [load.result for load in loads if load.result is not None]
    for load in loads:
        result = load.result
        numbers = ["-"] * 5
        if result is not None:
            counts = (result.good, result.scopes_total, result.license_rows, result.requests)
            numbers = [*(f"{count:,}" for count in counts), f"{result.seconds:.1f}"]
        table.add_row(escape(load.name), load.status, *numbers, str(load.exit_code))
    totals = (
        sum(result.good for result in results),
        sum(result.scopes_total for result in results),
        sum(result.license_rows for result in results),
        sum(result.requests for result in results),
    )
    table.add_row(
        "total",
        f"{len(results)} of {len(loads)} loaded",
        *(f"{count:,}" for count in totals),
        f"{sum(result.seconds for result in results):.1f}",
        str(join_exit_codes(load.exit_code for load in loads)),
    )
    console.print(table)


def print_overview(shown: Sequence[tuple[str | None, Status | CockpitError]], console: Console) -> None:
    """A line for each tenant of `cockpit status`, by its name in the configuration."""
    table = create_table("tenant", "last run", "status", *_STATUS_NUMBERS, "since then", right=_STATUS_NUMBERS)
    for name, found in shown:
        if isinstance(found, CockpitError):
            table.add_row(escape(name or "?"), "?", "cannot be read", "-", "-", "-", "-", "")
            continue
        run = found.runs[0] if found.runs else None
        numbers = (run.scopes_read, run.scopes_total, run.license_rows, found.stale) if run else ()
        failed = found.failed_attempt
        table.add_row(
            escape(name or found.tenant),
            describe_age(run.started_at if run else None, found.read_at),
            run.status if run else "-",
            *([f"{number:,}" for number in numbers] or ["-"] * len(_STATUS_NUMBERS)),
            "" if failed is None else f"a load failed (exit code {failed.exit_code})",
        )
    console.print(table)


def print_tenant_marts(result: TenantMarts, console: Console) -> None:
    """The lists of each tenant, and the views of all."""
    for lists in result.tenants:
        print_heading(lists.name, lists.tenant_key, console)
        if lists.reference is not None:
            print_lists(lists.reference, lists.prices, lists.warnings, console)
        elif lists.error is not None:
            print_failure(str(lists.error), console)
        console.print()
    if result.marts is not None:
        print_views(result.marts, result.seconds, console)
    else:
        console.print("The views were not created anew.")
