"""What the licence rows of a probe prove about their counts: nulls, types, signs, and which sums hold. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from cockpit_source.probe.observations import json_type
from cockpit_source.probe.words import Finding, judge
from cockpit_source.transforms import COUNT_FIELDS


class _Counts(NamedTuple):
    """The seats of a row whose four counts are whole numbers."""

    total: int
    consumed: int
    available: int
    suspended: int


# what total means shows only in rows with suspended seats
_IDENTITIES: tuple[tuple[str, Callable[[_Counts], bool]], ...] = (
    ("available = total - consumed", lambda row: row.available == row.total - row.consumed),
    ("consumed <= total", lambda row: row.consumed <= row.total),
)
_IDENTITIES_IF_SUSPENDED: tuple[tuple[str, Callable[[_Counts], bool]], ...] = (
    ("total = consumed + available", lambda row: row.total == row.consumed + row.available),
    (
        "total = consumed + available + suspended",
        lambda row: row.total == row.consumed + row.available + row.suspended,
    ),
    ("suspended > total, so total leaves them out", lambda row: row.suspended > row.total),
)


def find_in_counts(rows: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Findings on the count fields of all rows together."""
    for field in COUNT_FIELDS:
        nulls = sum(row.get(field) is None for row in rows)
        missing = sum(field not in row for row in rows)
        evidence = {"rows": len(rows), "null": nulls - missing, "missing": missing}
        yield Finding("counts", f"{field} is null or missing", judge(nulls, len(rows)), evidence)
    types = Counter(json_type(row[field]) for row in rows for field in COUNT_FIELDS if row.get(field) is not None)
    given = types.total()
    whole = types.pop("integer", 0)
    yield Finding("counts", "not whole", judge(given - whole, given), {"counts": given, "types": dict(types)})
    negative = Counter(field for row in rows for field in COUNT_FIELDS if (_whole(row, field) or 0) < 0)
    told = {"counts": whole, "fields": dict(negative)}
    yield Finding("counts", "negative", judge(negative.total(), whole), told)
    yield from _find_identities(rows)


def _find_identities(rows: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    counted = [[_whole(row, field) for field in COUNT_FIELDS] for row in rows]
    whole = [_Counts(*(count for count in row if count is not None)) for row in counted if None not in row]
    for question, holds in _IDENTITIES:
        yield _test_identity(question, holds, whole)
    suspended = [row for row in whole if row.suspended > 0]
    for question, holds in _IDENTITIES_IF_SUSPENDED:
        yield _test_identity(f"where suspended > 0: {question}", holds, suspended)


def _test_identity(question: str, holds: Callable[[_Counts], bool], rows: Sequence[_Counts]) -> Finding:
    hits = sum(map(holds, rows))
    return Finding("totals", question, judge(hits, len(rows)), {"rows": len(rows), "holds": hits})


def _whole(row: dict[str, Any], field: str) -> int | None:
    value = row.get(field)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
