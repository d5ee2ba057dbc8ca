"""Results as text for a terminal or a log."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cockpit_source.load_result import LoadResult, UnreadScope
from cockpit_source.scopes import OUTCOMES, Scope
from cockpit_source.wording import plural

_PLAIN_WIDTH = 160
_MAX_SHOWN = 20
_ID_SHOWN = 8
# what differs between scopes with the same reason: ids and counts
_DIFFERENT = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|held \d+ licence")


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


def tell_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Names by id, with the beginning of the id beside those that several have."""
    counts = Counter(names.values())
    return {id_: f"{name} ({id_[:_ID_SHOWN]})" if counts[name] > 1 else name for id_, name in names.items()}


def describe_scope(scope: Scope) -> str:
    """A scope as one line: ids are for copying, so no column may fold them."""
    reseller = f", reseller {scope.reseller_id}" if scope.reseller_id else ""
    return f"customer {scope.customer_id}, provider instance {scope.provider_instance_id}{reseller}"


def print_result(result: LoadResult, console: Console) -> None:
    """The outcome of a run: one line, the counts, and the scopes that were not read with the reason."""
    carried_on = ", carried on" if result.carried_on else ""
    console.print(
        f"[bold]{result.status}[/bold]: {result.good} of {result.scopes_total} scopes read, "
        f"{result.license_rows} licence rows, {result.requests} calls, {result.seconds:.1f} s "
        f"(run {result.run_id}{carried_on})",
        soft_wrap=True,
    )
    if result.throttled:
        console.print(
            f"{result.throttled} calls were throttled (429) and made again; the load kept to the pace allowed."
        )
    if result.scopes_listed > result.scopes_total:
        console.print(f"{result.scopes_listed - result.scopes_total} duplicate lines of the scope list were merged.")
    if result.delisted:
        console.print(f"{result.delisted} scopes are no longer listed; their rows stay, see scopes.delisted_at.")
    if result.sign_in_error is not None:
        console.print(f"[bold red]{escape(str(result.sign_in_error))}[/bold red]", soft_wrap=True)
    elif result.stop_reason:
        console.print(f"[bold red]The run ended early:[/bold red] {escape(result.stop_reason)}", soft_wrap=True)
    if result.waiting:
        console.print(
            f"{plural(result.waiting, 'scope')} that held licences now "
            f"{'reads' if result.waiting == 1 else 'read'} empty. The rows stay until the end (--shard finish, with "
            "the other options of this load) has seen all shards and decides.",
            soft_wrap=True,
        )
    if result.guard_message:
        console.print(f"[bold red]{escape(result.guard_message)}[/bold red]", soft_wrap=True)
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
    unread = result.unread_scopes[:_MAX_SHOWN]
    if not unread:
        return
    for alike in _group_by_reason(unread):
        first = alike[0]
        why = f"{first.error_type}: {first.error_description}"
        console.print(f"[bold]{first.outcome}[/bold], {escape(why)}", soft_wrap=True)
        for scope in alike:
            ids = Scope(scope.customer_id, scope.provider_instance_id, scope.reseller_id)
            console.print(f"  {describe_scope(ids)}", soft_wrap=True)
    others = result.scopes_total - result.good - result.outcomes.get("skipped", 0) - len(unread)
    if others > 0:
        query = f"SELECT * FROM {result.dataset}.scope_runs WHERE run_id = '{result.run_id}'"
        console.print(f"... and {others} more: {query}", soft_wrap=True)
    refused = result.outcomes.get("forbidden", 0) + result.outcomes.get("not_found", 0)
    if refused == result.scopes_total and result.is_full_list:
        console.print("Every scope was refused: check that tenant is the domain of your portal, and the role.")
    console.print("A scope that was not read keeps the rows of its last good read, if it had one.")


def _group_by_reason(scopes: Sequence[UnreadScope]) -> Iterable[Sequence[UnreadScope]]:
    """Scopes with the same outcome and reason together, whatever ids the reason names."""
    groups: dict[tuple[str, str], list[UnreadScope]] = defaultdict(list)
    for scope in scopes:
        reason = _DIFFERENT.sub("", f"{scope.error_type} {scope.error_description}")
        groups[scope.outcome, reason].append(scope)
    return groups.values()
