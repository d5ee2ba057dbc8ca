"""`cockpit marts` as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from cockpit_source.marts.price_reach import PriceReach
from cockpit_source.marts.refresh import MartsResult
from cockpit_source.marts.views import CreatedMarts
from cockpit_source.reference_data import ReferenceResult
from cockpit_source.report import create_table


def print_marts(result: MartsResult, console: Console) -> None:
    """The reference tables and the views, what was noted about the lists, and how far the prices reach."""
    print_lists(result.reference, result.prices, result.warnings, console)
    print_views(result.marts, result.seconds, console)


def print_lists(
    reference: ReferenceResult, prices: PriceReach | None, warnings: Sequence[str], console: Console
) -> None:
    """The reference tables of a tenant, what was noted about its lists, and how far its prices reach."""
    table = create_table("reference table", "rows", "", right=("rows",))
    for one in reference.tables:
        # of a table without rows nothing was loaded that could stay
        state = "created" if one.state == "kept" and not one.rows else one.state
        table.add_row(one.name, f"{one.rows:,}", _STATES[state])
    console.print(table)
    console.print()
    for note in reference.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    for warning in warnings:
        console.print(f"Warning: {warning}", markup=False, soft_wrap=True)
    if prices and not prices.warning:
        console.print(prices.describe(), soft_wrap=True)


def print_views(marts: CreatedMarts, seconds: float, console: Console) -> None:
    """The views that were created, and where."""
    console.print(f"Views: {', '.join(marts.public)}", soft_wrap=True)
    console.print(
        f"{len(marts.names)} views created in {seconds:.1f} s, in dataset {escape(marts.dataset)} of "
        f"{escape(marts.location)}. Those whose names begin with int_ serve the others.",
        soft_wrap=True,
    )


_STATES = {
    "loaded": "loaded",
    "unchanged": "loaded earlier, the list has not changed",
    "kept": "what was loaded earlier stays",
    "created": "no list given",
}
