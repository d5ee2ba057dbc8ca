"""What a running load shows on stderr: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from cockpit_source.load import LoadProgress
from cockpit_source.run_record import RunRecord

_POLL_SECONDS = 0.25
_PLAIN_LINE_SECONDS = 5.0
_RATE_WINDOW_SECONDS = 5.0


class CallRate:
    """Calls per second over the last few seconds."""

    def __init__(self, window_seconds: float = _RATE_WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._samples = [(time.monotonic(), 0)]

    def update(self, moment: float, calls: int) -> float:
        """Note the number of calls so far at `moment` (seconds) and return the rate."""
        self._samples.append((moment, calls))
        while len(self._samples) > 2 and moment - self._samples[0][0] > self._window_seconds:
            self._samples.pop(0)
        (first_moment, first_calls), elapsed = self._samples[0], moment - self._samples[0][0]
        return (calls - first_calls) / elapsed if elapsed > 0 and first_moment < moment else 0.0


class ProgressDisplay:
    """Shows a `LoadProgress` while the context lasts; `tenant` names it where there are several.

    `is_one_of_many`: others are shown at the same time, for which a live bar has no place.
    """

    def __init__(
        self, progress: LoadProgress, console: Console, *, tenant: str | None = None, is_one_of_many: bool = False
    ) -> None:
        self._progress = progress
        self._whose = "" if tenant is None else f"{tenant}: "
        self._console = console
        self._rate = CallRate()
        self._ended = threading.Event()
        self._notes_shown = 0
        show = self._show_live if console.is_terminal and not is_one_of_many else self._show_lines
        self._thread = threading.Thread(target=show, name="progress", daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._show_notes()

    def _show_live(self) -> None:
        # on a narrow terminal the details are cut off, and nothing else
        details = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        fixed = Column(no_wrap=True)
        with Progress(
            TextColumn(f"[bold]{self._whose}scopes[/bold]", table_column=fixed),
            BarColumn(bar_width=16, table_column=fixed.copy()),
            MofNCompleteColumn(table_column=fixed.copy()),
            TimeElapsedColumn(table_column=fixed.copy()),
            TextColumn("{task.fields[details]}", table_column=details),
            console=self._console,
            transient=True,
            expand=True,
        ) as bar:
            task = bar.add_task("load", total=None, details="preparing")
            while not self._ended.wait(_POLL_SECONDS):
                self._show_notes()
                if record := self._progress.record:
                    details_now = self._describe(record)
                    bar.update(task, total=record.total, completed=record.done, details=details_now)
                else:
                    bar.update(task, details=self._progress.stage)

    def _show_lines(self) -> None:
        shown = "preparing"
        next_line = time.monotonic() + _PLAIN_LINE_SECONDS
        while not self._ended.wait(_POLL_SECONDS):
            self._show_notes()
            if time.monotonic() < next_line:
                continue
            next_line += _PLAIN_LINE_SECONDS
            if record := self._progress.record:
                self._print(f"{record.done} of {record.total} scopes, {self._describe(record)}")
            elif self._progress.stage != shown:
                shown = self._progress.stage
                self._print(shown)

    def _show_notes(self) -> None:
        notes = self._progress.notes
        while self._notes_shown < len(notes):
            self._print(notes[self._notes_shown])
            self._notes_shown += 1

    def _print(self, text: str) -> None:
        self._console.print(f"{self._whose}{text}", highlight=False, markup=False, soft_wrap=True)

    def _describe(self, record: RunRecord) -> str:
        rate = self._rate.update(time.monotonic(), record.calls.requests)
        if record.total and record.done >= record.total:
            doing = "loading the tables"
        else:
            doing = f"{_describe_seconds_left(record)}{rate:.0f} calls/s"
        return (
            f"{doing}, {record.done - record.good} not read, {_describe_throttled(record)}"
            f"{_describe_in_flight(record)}, {record.license_rows} rows, {self._progress.packages} packages loaded"
        )


def _describe_throttled(record: RunRecord) -> str:
    return f"{record.calls.throttled} throttled, " if record.calls.throttled else ""


def _describe_in_flight(record: RunRecord) -> str:
    allowed = "" if record.calls.allowed is None else f" of {record.calls.allowed}"
    return f"{record.calls.in_flight}{allowed} in flight"


def _describe_seconds_left(record: RunRecord) -> str:
    elapsed = time.monotonic() - record.opened_at_monotonic
    done = record.done - record.done_at_opening
    if not done or elapsed <= 0:
        return ""
    return f"about {(record.total - record.done) * elapsed / done:.0f} s left, "
