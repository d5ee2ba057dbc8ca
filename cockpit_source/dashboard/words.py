"""Numbers, times and names as the pages show them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

NOT_TOLD = "\N{EN DASH}"

KINDS = {
    "new_customer": "New customer",
    "new_sku": "New SKU",
    "expansion": "Expansion",
    "contraction": "Contraction",
    "lost_sku": "Lost SKU",
    "lost_customer": "Lost customer",
    "over_assigned": "Over-assigned",
    "suspended_but_assigned": "Suspended but assigned",
    "full": "Full",
    "unassigned_30_days": "Unassigned for 30 days",
    "sudden_change": "Sudden change",
    "stale": "Stale or never read",
    "unknown_name": "Unknown name",
}


def count(number: int | None) -> str:
    """1,234, or a dash where it is not known."""
    return NOT_TOLD if number is None else f"{number:,}"


def change(number: int | None) -> str:
    """+1,234, with a true minus sign for less."""
    if number is None:
        return NOT_TOLD
    return "±0" if number == 0 else f"{number:+,}".replace("-", "\N{MINUS SIGN}")


def share(ratio: float | None) -> str:
    """45.6 %; may exceed 100."""
    return NOT_TOLD if ratio is None else f"{100 * ratio:,.1f} %"


def amount(value: float | None) -> str:
    """1,234.50, or a dash."""
    return NOT_TOLD if value is None else f"{value:,.2f}"


def money(value: float | None, currency: str) -> str:
    """EUR 1,234.50"""
    return NOT_TOLD if value is None else f"{currency} {amount(value)}"


def age(hours: float | None) -> str:
    """3 h, or 4 days, of a number of hours."""
    if hours is None:
        return NOT_TOLD
    if hours < 1:
        return f"{max(0, round(60 * hours))} min"
    if hours < 48:
        return f"{hours:.0f} h"
    return f"{hours / 24:,.0f} days"


def moment(time: datetime | None) -> str:
    """2026-01-31 06:00 UTC"""
    return NOT_TOLD if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def moment_and_age(time: datetime | None) -> str:
    """2026-01-31 06:00 UTC (3 h ago)"""
    if time is None:
        return NOT_TOLD
    return f"{moment(time.astimezone(UTC))} ({age((datetime.now(UTC) - time).total_seconds() / 3600)} ago)"


def kind(name: str) -> str:
    """The words for a kind of change or of attention."""
    return KINDS.get(name, name.replace("_", " ").capitalize())


def assignment(sums: Mapping[str, int | None]) -> str:
    """90 assigned, 12 unassigned, 2 over-assigned."""
    return f"{count(sums['assigned_seats'])} assigned, {not_assigned(sums)}"


def not_assigned(sums: Mapping[str, int | None]) -> str:
    """12 unassigned, 2 over-assigned: of sums whose unassigned seats are net of over-assigned ones."""
    net, over = sums["unassigned_seats"], sums["over_assigned_seats"] or 0
    told = f"{count(None if net is None else net + over)} unassigned"
    return f"{told}, {count(over)} over-assigned" if over else told


def yes_or_no(answer: bool | None) -> str:
    """Yes, no, or a dash where nobody can tell."""
    return NOT_TOLD if answer is None else "yes" if answer else "no"


def cell(value: Any) -> str:
    """A value of a table for which there is no form of its own."""
    return NOT_TOLD if value is None else str(value)


def text(value: Any) -> str:
    """A value of the data for HTML."""
    return escape(str(value))
