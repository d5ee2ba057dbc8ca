"""`cockpit report`: reads the published copy, writes the file, says what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from cockpit_source.dashboard import words
from cockpit_source.html_report.figures import Figures
from cockpit_source.html_report.page import render_page
from cockpit_source.read_copy import open_read_copy
from cockpit_source.whole_file import write_whole

MAX_ROWS = 25


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Where the report lies, how large it is, and the newest run that it tells of."""

    path: Path
    size: int
    run_id: str
    started_at: datetime


def write_report(
    out: Path, *, destination: str, database: Path | None, dataset: str, rows: int = MAX_ROWS
) -> WrittenReport:
    """Write the report of the published read copy to `out`, whole or not at all.

    Raises:
        ConfigurationError: the destination has no read copy, or `out` cannot be written.
        WarehouseError: there is no read copy, nothing was loaded, or the marts are not built.
    """
    with open_read_copy(destination, database, dataset, what="The report") as shown:
        figures = Figures(shown, rows=rows).gather()
    text = render_page(figures).encode("utf-8")
    write_whole(out, text)
    newest = max(figures["runs"], key=lambda run: run["started_at"])
    return WrittenReport(out, len(text), newest["run_id"], newest["started_at"])


def print_written(written: WrittenReport, console: Console) -> None:
    """One line."""
    console.print(
        f"Report written to {written.path} ({max(1, round(written.size / 1024)):,} KiB): figures of run "
        f"{written.run_id} of {words.moment(written.started_at)}.",
        markup=False,
        soft_wrap=True,
    )
