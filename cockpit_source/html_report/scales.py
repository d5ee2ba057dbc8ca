"""Where the marks of a chart lie, in per cent, so that a chart fits any width without its text being scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_STEPS = (1, 2, 2.5, 5, 10)


def nice_ticks(highest: float, count: int = 5) -> list[float]:
    """Round numbers from 0 to at least `highest`, about `count` steps."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / count
    size = 10 ** math.floor(math.log10(rough))
    step = max(1.0, next(factor * size for factor in _STEPS if factor * size >= rough * 0.999))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def short_number(value: float) -> str:
    """12k, 1.5M: for axes."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def place_trend(rows: Sequence[dict[str, Any]], labels: int = 5) -> dict[str, Any]:
    """The points of seats and assigned seats by day, ticks of both axes; x and y in per cent from the upper left."""
    ticks = nice_ticks(max((max(row["total_seats"] or 0, row["assigned_seats"] or 0) for row in rows), default=0))
    top = ticks[-1]
    last = max(1, len(rows) - 1)
    every = max(1, math.ceil(len(rows) / labels))
    points = []
    for number, row in enumerate(rows):
        points.append(
            {
                "x": round(100 * number / last, 3) if len(rows) > 1 else 50.0,
                "total_y": round(100 - 100 * (row["total_seats"] or 0) / top, 3),
                "assigned_y": round(100 - 100 * (row["assigned_seats"] or 0) / top, 3),
                # counted from the last day, which always has a label
                "is_labelled": (len(rows) - 1 - number) % every == 0,
                "row": row,
            }
        )
    return {
        "points": points,
        "ticks": [{"y": round(100 - 100 * tick / top, 3), "text": short_number(tick)} for tick in ticks],
    }


def place_bars(values: Sequence[float]) -> list[float]:
    """The lengths of bars as a share of the longest, in per cent; signs are left out."""
    longest = max((abs(value) for value in values), default=0) or 1
    return [round(100 * abs(value) / longest, 3) for value in values]
