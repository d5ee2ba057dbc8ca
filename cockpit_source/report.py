"""Results as text for a terminal or a log."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cockpit_source.load_result import LoadResult
from cockpit_source.scopes import OUTCOMES

_PLAIN_WIDTH = 160


def create_console(*, stderr: bool = False) -> Console:
    """A console that keeps tables whole where the output is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False)


def create_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An aligned table without frame; the columns named in `right` hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def print_result(result: LoadResult, console: Console) -> None:
    """The outcome of a run: one line, the counts, and the scopes that were not read with the reason."""
    carried_on = ", carried on" if result.carried_on else ""
    console.print(
        f"[bold]{result.status}[/bold]: {result.good} of {result.scopes_total} scopes read, "
        f"{result.license_rows} licence rows, {result.requests} calls, {result.seconds:.1f} s "
        f"(run {result.run_id}{carried_on})"
    )
    if result.scopes_listed > result.scopes_total:
        console.print(f"{result.scopes_listed - result.scopes_total} duplicate lines of the scope list were merged.")
    if result.delisted:
        console.print(f"{result.delisted} scopes are no longer listed; their rows stay, see scopes.delisted_at.")
    if result.sign_in_error is not None:
        console.print(f"[bold red]{escape(str(result.sign_in_error))}[/bold red]")
    elif result.stop_reason:
        console.print(f"[bold red]The run ended early:[/bold red] {escape(result.stop_reason)}")
    _print_outcomes(result, console)
    _print_unread(result, console)
    console.print(f"Tables: dataset {escape(result.dataset)} in {escape(result.location)}", soft_wrap=True)


def _print_outcomes(result: LoadResult, console: Console) -> None:
    table = create_table("outcome", "scopes", right=("scopes",))
    for outcome in OUTCOMES:
        if count := result.outcomes.get(outcome):
            table.add_row(outcome, str(count))
    console.print(table)


def _print_unread(result: LoadResult, console: Console) -> None:
    unread = [scope for scope in result.unread_scopes if scope.outcome != "skipped"]
    if not unread:
        return
    table = create_table("not read: customer", "provider instance", "outcome", "why")
    for scope in unread[:20]:
        why = f"{scope.error_type}: {scope.error_description}"
        table.add_row(scope.customer_id, scope.provider_instance_id, scope.outcome, escape(why))
    console.print(table)
    others = result.scopes_total - result.good - result.outcomes.get("skipped", 0) - min(len(unread), 20)
    if others > 0:
        console.print(f"... and {others} more: SELECT * FROM scope_runs WHERE run_id = '{result.run_id}'")
    console.print("These keep the rows of their last good read.")
