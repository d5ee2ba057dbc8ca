"""The rows of a deletion query as candidates: all of them, or none.

One row that does not fit refuses the whole selection, since a query with one wrong row is a wrong query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from cockpit_source.deletions.locked_run import Selected
from cockpit_source.deletions.records import ACTIONS, DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Action, Candidate
from cockpit_source.deletions.refusals import Refusal, refuse
from cockpit_source.redaction import redact
from cockpit_source.transforms import clean_text, is_uuid
from cockpit_source.values import abbreviate

MAX_REASON_CHARACTERS = 500

_ROWS_NAMED = 5
_REQUIRED_COLUMNS = frozenset({"action", "customer_id", "reason"})
_ALL_COLUMNS = _REQUIRED_COLUMNS | {"provider_instance_id"}


class _Row(NamedTuple):
    """A row as it came, as text; None for NULL."""

    action: str | None
    customer_id: str | None
    provider_instance_id: str | None
    reason: str | None


# code, and what is wrong
_Problem = tuple[str, str]


def to_candidates(selected: Selected) -> list[Candidate]:
    """The rows as candidates, in their order; ids become lower case, and a reason one clean line.

    Raises:
        DeletionRefused: `query_columns`, `query_null`, `query_action`, `query_not_uuid` or `query_duplicate`. Every
            reason is given, with the first rows of each.
    """
    rows = list(_read_rows(selected))
    refuse(_find_refusals(rows))
    candidates = [_to_candidate(row) for row in rows]
    refuse(_find_duplicates(candidates))
    return candidates


def _read_rows(selected: Selected) -> Iterator[_Row]:
    names = [name.lower() for name in selected.columns]
    if len(names) != len(set(names)) or not _REQUIRED_COLUMNS <= set(names) <= _ALL_COLUMNS:
        refuse(
            [
                Refusal(
                    "query_columns",
                    f"The columns of the query are {abbreviate(redact(', '.join(names)))}. Give exactly action, "
                    "customer_id and reason, and provider_instance_id where relationships are removed.",
                )
            ]
        )
    for values in selected.rows:
        texts = {name: None if value is None else str(value) for name, value in zip(names, values, strict=True)}
        yield _Row(texts["action"], texts["customer_id"], texts.get("provider_instance_id"), texts["reason"])


def _find_refusals(rows: Sequence[_Row]) -> list[Refusal]:
    found: dict[_Problem, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        for problem in _find_problems(row):
            found.setdefault(problem, []).append(_describe(number, row))
    return [Refusal(code, f"{text}: {_name_first(named)}. Correct the SQL.") for (code, text), named in found.items()]


def _find_problems(row: _Row) -> Iterator[_Problem]:
    for name in ("action", "customer_id", "reason"):
        if _is_blank(getattr(row, name)):
            yield "query_null", f"{name} is NULL or blank"
    if row.action in ACTIONS or _is_blank(row.action):
        yield from _find_instance_problems(row)
    else:
        yield "query_action", f"The action is none of {', '.join(ACTIONS)}"
    for name in ("customer_id", "provider_instance_id"):
        value = getattr(row, name)
        if not _is_blank(value) and not is_uuid(value):
            yield "query_not_uuid", f"{name} is not a UUID"


def _find_instance_problems(row: _Row) -> Iterator[_Problem]:
    if row.action == REMOVE_RELATIONSHIP and _is_blank(row.provider_instance_id):
        yield "query_null", f"provider_instance_id is NULL or blank, which {REMOVE_RELATIONSHIP} needs"
    if row.action == DELETE_CUSTOMER and row.provider_instance_id is not None:
        yield "query_action", f"provider_instance_id is set, which {DELETE_CUSTOMER} does not take; give NULL"


def _is_blank(value: str | None) -> bool:
    return value is None or not _clean(value)


def _clean(text: str) -> str:
    """One line, as it may be stored and shown."""
    return redact(clean_text(" ".join("".join(c if c.isprintable() else " " for c in text).split())))


def _to_candidate(row: _Row) -> Candidate:
    instance = row.provider_instance_id
    return Candidate(
        cast(Action, row.action),
        str(row.customer_id).lower(),
        None if instance is None else instance.lower(),
        _clean(str(row.reason))[:MAX_REASON_CHARACTERS].rstrip(),
    )


def _find_duplicates(candidates: Sequence[Candidate]) -> list[Refusal]:
    counts = Counter(candidate.key for candidate in candidates)
    repeated = [f"{key} ({count} rows)" for key, count in counts.items() if count > 1]
    if not repeated:
        return []
    text = f"The same deletion is selected more than once: {_name_first(repeated)}. Correct the SQL, or use DISTINCT."
    return [Refusal("query_duplicate", text)]


def _describe(number: int, row: _Row) -> str:
    shown = [abbreviate(_clean(value)) if value is not None else "NULL" for value in row[:3]]
    return f"row {number} ({', '.join(shown)})"


def _name_first(named: Sequence[str]) -> str:
    more = f" and {len(named) - _ROWS_NAMED} more" if len(named) > _ROWS_NAMED else ""
    return ", ".join(named[:_ROWS_NAMED]) + more
