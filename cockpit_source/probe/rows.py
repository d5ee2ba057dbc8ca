"""What the licence rows of a probe prove about the row: SKU ids, names, unknown fields. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from cockpit_source.probe.counts import find_in_counts
from cockpit_source.probe.observations import Reading, json_type
from cockpit_source.probe.words import (
    MAX_NAMES,
    NOT_SEEN,
    Evidence,
    Finding,
    count_unknown,
    judge,
    judge_kinds,
    show_shape,
)
from cockpit_source.transforms import KNOWN_FIELDS, is_uuid

Row = dict[str, Any]


def find_rows(reading: Reading) -> list[Any] | None:
    """The rows of an answer in any of its shapes, one that says that more follow included; None if it has none."""
    body = reading.body.get("items") if isinstance(reading.body, dict) else reading.body
    return body if isinstance(body, list) else None


def find_in_rows(readings: Sequence[Reading]) -> Iterator[Finding]:
    """Findings on the rows of all answers together."""
    answers = [
        [row for row in rows if isinstance(row, dict)] for rows in map(find_rows, readings) if rows is not None
    ]
    rows = [row for answer in answers for row in answer]
    seen: Evidence = {"answers": len(answers), "rows": len(rows)}
    yield _find_sku_format(rows, seen)
    yield _find_duplicates(answers, seen)
    yield from _find_names(answers, rows, seen)
    yield from find_in_counts(rows)
    yield _find_selected(rows, seen)
    unknown = count_unknown(rows, KNOWN_FIELDS)
    hits = sum(not row.keys() <= KNOWN_FIELDS for row in rows)
    yield Finding(
        "row", "has fields that the contract does not know", judge(hits, len(rows)), seen | {"names": unknown}
    )
    lacking = Counter(name for row in rows for name in KNOWN_FIELDS - row.keys())
    evidence = seen | {"missing": dict(sorted(lacking.items()))}
    yield Finding("row", "lacks fields that the contract names", judge(_count_lacking(rows), len(rows)), evidence)


def _count_lacking(rows: Sequence[Row]) -> int:
    return sum(not row.keys() >= KNOWN_FIELDS for row in rows)


def _find_sku_format(rows: Sequence[Row], seen: Evidence) -> Finding:
    kinds = Counter(_name_format(row.get("skuId")) for row in rows)
    texts = (value for row in rows if isinstance(value := row.get("skuId"), str))
    shapes = Counter(show_shape(text) for text in texts if _name_format(text) == "other text")
    padded = sum(isinstance(value := row.get("skuId"), str) and value != value.strip() for row in rows)
    evidence = seen | {
        "formats": dict(kinds),
        "with_blanks_around": padded,
        "shapes_of_other_text": dict(shapes.most_common(MAX_NAMES)),
    }
    return Finding("SKU id", "format", judge_kinds(kinds), evidence)


def _name_format(value: object) -> str:
    if not isinstance(value, str):
        return "null or missing" if value is None else json_type(value)
    text = value.strip()
    if not is_uuid(text):
        return "other text" if text else "blank"
    if text == text.lower():
        return "lower-case UUID"
    return "upper-case UUID" if text == text.upper() else "mixed-case UUID"


def _find_duplicates(answers: Sequence[Sequence[Row]], seen: Evidence) -> Finding:
    repeated = equal = hits = 0
    for answer in answers:
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in answer:
            groups[sku_of(row)].append(row)
        several = [group for sku, group in groups.items() if sku and len(group) > 1]
        hits += bool(several)
        repeated += len(several)
        equal += sum(all(row == group[0] for row in group) for group in several)
    filled = sum(len(answer) > 1 for answer in answers)
    evidence = seen | {"answers_with_one": hits, "skus_repeated": repeated, "of_these_with_equal_rows": equal}
    return Finding("SKU id", "comes twice in an answer", judge(hits, filled), evidence)


def sku_of(row: Row) -> str:
    """The SKU id of a row as the load compares it; "" where it has none."""
    value = row.get("skuId")
    text = value.strip() if isinstance(value, str) else ""
    return text.lower() if is_uuid(text) else text


def _find_names(answers: Sequence[Sequence[Row]], rows: Sequence[Row], seen: Evidence) -> Iterator[Finding]:
    kinds = Counter(_name_content(row.get("name")) for row in rows)
    unnamed = len(rows) - kinds["text"]
    yield Finding("SKU name", "null, blank or missing", judge(unnamed, len(rows)), seen | {"values": dict(kinds)})
    names: dict[str, set[str]] = defaultdict(set)
    held_in: Counter[str] = Counter()
    for answer in answers:
        held_in.update({sku_of(row) for row in answer} - {""})
        for row in answer:
            names[sku_of(row)].add(repr(row.get("name")))
    shared = [sku for sku, count in held_in.items() if count > 1]
    differing = sum(len(names[sku]) > 1 for sku in shared)
    evidence = {"skus": len(held_in), "skus_in_several_answers": len(shared), "with_several_names": differing}
    yield Finding("SKU name", "differs between answers for one SKU", judge(differing, len(shared)), evidence)


def _name_content(value: object) -> str:
    if not isinstance(value, str):
        return json_type(value)
    return "text" if value.strip() else "blank"


def _find_selected(rows: Sequence[Row], seen: Evidence) -> Finding:
    kinds = Counter(
        str(value).lower() if isinstance(value := row.get("isSelected"), bool) else json_type(value) for row in rows
    )
    verdict = judge_kinds(kinds)
    return Finding(
        "row",
        "isSelected",
        verdict if verdict in ("mixed", NOT_SEEN) else f"always {verdict}",
        seen | {"values": dict(kinds)},
    )
