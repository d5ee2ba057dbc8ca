"""`cockpit marts` as text."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from cockpit_source.marts.refresh import MartsResult
from cockpit_source.report import create_table


def print_marts(result: MartsResult, console: Console) -> None:
    """The reference tables and the views, what was noted about the lists, and how far the prices reach."""
    table = create_table("reference table", "rows", "", right=("rows",))
    for reference in result.reference.tables:
        table.add_row(reference.name, f"{reference.rows:,}", _STATES[reference.state])
    console.print(table)
    console.print()
    for note in result.reference.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    for warning in result.warnings:
        console.print(f"Warning: {warning}", markup=False, soft_wrap=True)
    if result.prices and not result.prices.warning:
        console.print(result.prices.describe(), soft_wrap=True)
    marts = result.marts
    console.print(f"Views: {', '.join(marts.public)}", soft_wrap=True)
    console.print(
        f"{len(marts.names)} views created in {result.seconds:.1f} s, in dataset {escape(marts.dataset)} of "
        f"{escape(marts.location)}. Those whose names begin with int_ serve the others.",
        soft_wrap=True,
    )


_STATES = {
    "loaded": "loaded",
    "unchanged": "loaded earlier, the list has not changed",
    "kept": "what was loaded earlier stays",
    "created": "no list given",
}
