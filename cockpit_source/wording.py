"""Numbers in sentences."""

from __future__ import annotations


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 seat, 1,234 seats."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
