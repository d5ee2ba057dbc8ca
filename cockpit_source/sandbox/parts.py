"""Licence rows split among the resellers of a customer."""

from typing import Any


def part_of_rows(rows: list[dict[str, Any]], number: int, parts: int) -> list[dict[str, Any]]:
    """Part `number` (from 0) of `parts`: all parts of a count add up to it. Rows without any seat are left out.

    The first part is the larger one where there are two.
    """
    split = [_part_of_row(row, number, parts) for row in rows]
    return [row for row in split if row["totalLicenses"] or row["consumedLicenses"] or row["suspendedLicenses"]]


def _part_of_row(row: dict[str, Any], number: int, parts: int) -> dict[str, Any]:
    names = ("totalLicenses", "consumedLicenses", "suspendedLicenses")
    counts = {name: _part(row[name], number, parts) for name in names}
    return row | counts | {"availableLicenses": counts["totalLicenses"] - counts["consumedLicenses"]}


def _part(count: int, number: int, parts: int) -> int:
    """Everybody but the first gets about one in `parts` + 1; the first gets the rest."""
    small = (count + 1) // (parts + 1)
    return small if number else count - small * (parts - 1)
