"""How a move goes and what it did, for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cockpit_source.move.copying import MoveResult, Step
from cockpit_source.report import create_table

# where the deletions of an inventory keep their ledger, which has a command of its own
_LEDGER = "{stem}.deletions.duckdb"


@contextmanager
def shown_steps(console: Console) -> Iterator[Step]:
    """A bar on a terminal, a plain line for each step elsewhere."""
    if not console.is_terminal:
        yield lambda what, _done, _total: console.print(what, markup=False, soft_wrap=True)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("opening", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or 1)


def print_moved(result: MoveResult, console: Console, *, destination: str, options: str) -> None:
    """The tables, the time, and what comes next; `options`: what a command needs to go on in the target."""
    table = create_table("table", "rows", right=("rows",))
    for moved in result.tables:
        table.add_row(moved.name, f"{moved.rows:,}")
    console.print(table)
    console.print(
        f"Moved {result.rows:,} rows in {len(result.tables)} tables from {result.source} to dataset {result.dataset} "
        f"in {result.location}: {result.copy_seconds:.1f} s to copy, {result.compare_seconds:.1f} s to compare. "
        "Every table equals the file's, row by row.",
        markup=False,
        soft_wrap=True,
    )
    if result.left_out:
        names = ", ".join(result.left_out)
        console.print(f"Not moved, since no load made them: {names}.", markup=False, soft_wrap=True)
    console.print(
        f"Next: `cockpit marts {options}` makes the views there, and every load, also the line in a "
        f"crontab, needs --destination {destination} from now on. A load without it would go on in the file.",
        markup=False,
        soft_wrap=True,
    )
    ledger = Path(result.source).with_name(_LEDGER.format(stem=Path(result.source).stem))
    if ledger.exists():
        console.print(_describe_ledger(ledger, destination, options), markup=False, soft_wrap=True)


def _describe_ledger(ledger: Path, destination: str, options: str) -> str:
    if destination == "postgres":
        return (
            f"The ledger of the deletions, {ledger}, was not moved: `cockpit deletions move {options}` does "
            "that. Without it their history and limits would begin anew there."
        )
    return (
        f"The ledger of the deletions, {ledger}, was not moved: deletions do not work on {destination}. Keep it and "
        "its file in the project folder: they are the record of what was deleted."
    )
