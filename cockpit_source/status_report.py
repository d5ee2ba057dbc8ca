"""`cockpit status` as text for people, or as JSON for programs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from cockpit_source.recovery import CARRY_ON_WITHIN
from cockpit_source.status import ChangedScope, NamedScope, RunLine, SpooledRun, StaleScope, Status
from cockpit_source.status_sql import FREE_SEATS
from cockpit_source.wording import plural

# scopes by name, of each kind, in the text and in JSON
MAX_SHOWN = 20
MAX_NAMED = 1_000

_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def to_json(status: Status) -> dict[str, Any]:
    """The status as plain values; times are ISO 8601 in UTC, what is not known is null.

    Keys: `tenant`, `read_at`, `destination`, `dataset`, `dlt_folder`, `spool_folder`, `max_age_hours`, `exit_code`;
    `spooled_run` (run_id, started_at, done, total, process) or null; `failed_attempt`, the last load on this machine
    where it ended before it had a run (ended_at, exit_code, message), else null; `copied_at` when the database was
    in use and its read copy was read instead, else null;
    `runs`, the last first (run_id, started_at, finished_at, status, scopes_total, scopes_read, license_rows,
    requests, throttled, emptied, delisted, row_change, seat_change, shards_done; the status of shards that no run has
    ended is running);
    of the last run `outcomes` (scopes by outcome), `emptied` and `delisted` (scopes, with rows_before) and
    `customer_changes` (customer_id, customer_name, customer_label, row_change, seat_change);
    of the list `listed`, `stale`, `too_old` (numbers of scopes), `stale_sql` and `stale_scopes` (scopes, with
    outcome, reason, correlation_id, server_correlation_id, last_good_at, failing_runs).
    A scope has scope_key, customer_id, customer_name, customer_label, provider_instance_id, provider_instance_alias,
    reseller_id and reseller_name. No two customers of the tenant have the same label.
    """
    record = asdict(status) | {"exit_code": status.exit_code}
    plain: dict[str, Any] = _to_plain(record)
    return plain


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_plain(element) for name, element in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(element) for element in value]
    return value.isoformat() if isinstance(value, datetime) else value


def print_status(status: Status, console: Console, *, options: str = "") -> None:
    """The status as text, aligned; ids stay whole, so lines may be long.

    `options`: what a load of this tenant into this dataset has to be given, such as `--destination postgres`.
    """
    _Printer(status, console, options).print_all()


def describe_age(moment: datetime | None, now: datetime) -> str:
    """How long ago `moment` was, in words; "never" for None."""
    if moment is None:
        return "never"
    seconds = (now - moment).total_seconds()
    if seconds < -60:
        return "in the future"
    if seconds < 60:
        return "just now"
    return f"{_in_words(seconds)} ago"


def describe_duration(duration: timedelta) -> str:
    """How long something took, in words."""
    seconds = duration.total_seconds()
    return f"{seconds:.0f} s" if seconds < 60 else _in_words(seconds)


def _in_words(seconds: float) -> str:
    if seconds < 3_600:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // 3_600:.0f} h" if seconds < 48 * 3_600 else f"{seconds // 86_400:.0f} days"


class _Printer:
    def __init__(self, status: Status, console: Console, options: str) -> None:
        self._status = status
        self._console = console
        self._options = options

    def print_all(self) -> None:
        self._print_place()
        if not self._status.runs:
            tenant = self._status.tenant
            self._say(f"\nNothing was ever loaded for tenant {tenant}. Try `{self._command('check')}`, then load.")
            return
        self._print_runs()
        self._print_changes()
        self._print_stale()

    def _command(self, name: str, *more: str) -> str:
        """Another command on the same project and dataset."""
        return " ".join(filter(None, ("cockpit", name, self._options, *more)))

    def _print_place(self) -> None:
        status = self._status
        lines = [
            ("tenant", status.tenant),
            ("destination", f"{status.destination}, dataset {status.dataset}"),
            ("folder of dlt", status.dlt_folder),
            ("spool", status.spool_folder),
        ]
        if status.spooled_run is not None:
            lines.append(self._describe_spooled(status.spooled_run))
        if status.failed_attempt is not None:
            failed = status.failed_attempt
            age = describe_age(failed.ended_at, status.read_at)
            lines.append(("last load", f"failed {age} (exit code {failed.exit_code}): {_one_line(failed.message)}"))
        if status.copied_at is not None:
            age = describe_age(status.copied_at, status.read_at)
            lines.append(("read copy", f"the database is in use; what follows is its copy, published {age}"))
        self._print_table(lines)

    def _describe_spooled(self, run: SpooledRun) -> tuple[str, str]:
        age = describe_age(run.started_at, self._status.read_at)
        text = f"run {run.run_id}, begun {age}: {run.done} of {run.total} scopes are done"
        if run.process is not None:
            return "loading now", f"{text} (process {run.process})"
        hours = f"{CARRY_ON_WITHIN.total_seconds() / 3_600:.0f} h"
        return "interrupted", f"{text}; the next load carries it on, or closes it when it began over {hours} ago"

    def _print_runs(self) -> None:
        head = (
            "started (UTC)",
            "",
            "took",
            "status",
            "read",
            "of",
            "rows",
            "calls",
            "throttled",
            "emptied",
            "delisted",
        )
        lines = [(*head, "rows +/-", "seats +/-"), *map(self._describe_run, self._status.runs)]
        self._say("")
        self._print_table(lines, right=range(4, 13))
        self._say(
            f"(+/-: change against the run before; a delisted scope counts as gone; of the seats, free products with "
            f"{FREE_SEATS:,} and more are left out)"
        )
        last = self._status.runs[0]
        if last.shards_done:
            command = self._command("load", "--shard finish")
            self._say(
                f"The first line is that of {plural(last.shards_done, 'shard')} since "
                f"{last.started_at:%Y-%m-%d %H:%M} UTC, each counted once. "
                f"Once all have ended, run `{command}`: no scope is delisted or emptied before."
            )
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self._status.outcomes.items())
        self._say(f"last run {last.run_id}: {outcomes or 'no scope has an outcome yet'}")

    def _describe_run(self, run: RunLine) -> tuple[str, ...]:
        numbers = run.scopes_read, run.scopes_total, run.license_rows, run.requests, run.throttled
        return (
            f"{run.started_at:%Y-%m-%d %H:%M}",
            describe_age(run.started_at, self._status.read_at),
            "-" if run.finished_at is None else describe_duration(run.finished_at - run.started_at),
            "not ended" if run.shards_done else run.status,
            *(str(number) for number in (*numbers, run.emptied, run.delisted)),
            f"{run.row_change:+,d}",
            f"{run.seat_change:+,d}",
        )

    def _print_changes(self) -> None:
        status, last = self._status, self._status.runs[0]
        self._print_changed("read empty that held licences before", status.emptied, last.emptied)
        self._print_changed("left the list; the rows stay", status.delisted, last.delisted)
        if status.customer_changes:
            self._say("\nlargest changes by customer in the last run:", bold=True)
            lines = [
                (_name(c.customer_label, c.customer_id), f"{c.seat_change:+,d}", f"{c.row_change:+,d}")
                for c in status.customer_changes
            ]
            self._print_table([("customer", "seats +/-", "rows +/-"), *lines], right=(1, 2), indent="  ")

    def _print_changed(self, title: str, scopes: Sequence[ChangedScope], total: int) -> None:
        if not scopes:
            return
        self._say(f"\nIn the last run {plural(total, 'scope')} {title}:", bold=True)
        has_rows = any(scope.rows_before is not None for scope in scopes)
        lines = [
            (*self._describe_names(scope), f"{plural(scope.rows_before or 0, 'row')} before" if has_rows else "")
            for scope in scopes
        ]
        self._print_table(lines, indent="  ")
        self._print_more(total - len(scopes), self._command("status", "--json"))

    def _print_stale(self) -> None:
        status = self._status
        limit = "" if status.max_age_hours is None else f", or not in the last {status.max_age_hours:g} h"
        self._say(f"\n{status.stale} of {status.listed} listed scopes were not read last{limit}", bold=True)
        if status.max_age_hours is not None:
            self._say(f"{status.too_old} of them have no good read in the last {status.max_age_hours:g} h")
        for alike in _group_by_reason(status.stale_scopes):
            self._say(f"{alike[0].outcome}, {_one_line(alike[0].reason)}")
            self._print_table([_STALE_HEAD, *map(self._describe_stale, alike)], right=(3,), indent="  ")
        self._print_more(status.stale - len(status.stale_scopes), status.stale_sql)
        if status.stale:
            self._say("A scope that is not read keeps the rows of its last good read, if it had one.")

    def _describe_stale(self, scope: StaleScope) -> tuple[str, ...]:
        return (
            *self._describe_names(scope),
            str(scope.failing_runs),
            describe_age(scope.last_good_at, self._status.read_at),
            scope.correlation_id or "-",
            scope.server_correlation_id or "-",
        )

    def _describe_names(self, scope: NamedScope) -> tuple[str, str, str]:
        """Customer, provider instance and reseller: names where they are known, else ids."""
        return (
            _name(scope.customer_label, scope.customer_id),
            _name(scope.provider_instance_alias, scope.provider_instance_id),
            _name(scope.reseller_name, scope.reseller_id or "-"),
        )

    def _print_more(self, number: int, where: str) -> None:
        if number > 0:
            self._say(f"... and {number} more: {where}")

    def _print_table(self, lines: Sequence[tuple[str, ...]], right: Iterable[int] = (), indent: str = "") -> None:
        """Aligned columns, never folded: ids are for copying."""
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        aligned = set(right)
        for line in lines:
            cells = []
            for index, (text, width) in enumerate(zip(line, widths, strict=True)):
                blank = " " * (width - cell_len(text))
                cells.append(blank + text if index in aligned else text + blank)
            self._say(indent + "  ".join(cells).rstrip())

    def _say(self, text: str, *, bold: bool = False) -> None:
        self._console.print(text, style="bold" if bold else None, markup=False, soft_wrap=True)


_STALE_HEAD = (
    "customer",
    "provider instance",
    "reseller",
    "failing runs",
    "last good read",
    "correlation id",
    "of the server",
)


def _name(name: str | None, instead: str) -> str:
    return _one_line(name or "") or instead


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _group_by_reason(scopes: Sequence[StaleScope]) -> Iterable[Sequence[StaleScope]]:
    """Scopes with the same outcome and reason together, whatever ids the reason names."""
    groups: dict[tuple[str, str], list[StaleScope]] = defaultdict(list)
    for scope in scopes:
        groups[scope.outcome, _ID.sub("", scope.reason)].append(scope)
    return groups.values()
