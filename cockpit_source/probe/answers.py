"""What the licence answers of a probe prove as wholes: their shape and order, and rows under a reseller. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from cockpit_source.probe.observations import Reading, json_type
from cockpit_source.probe.rows import find_rows, sku_of
from cockpit_source.probe.words import Finding, count_unknown, judge, judge_kinds
from cockpit_source.transforms import COUNT_FIELDS

_PAGE_MEMBERS = ("items", "hasNextPage", "continuationToken")
_READ = ("ok", "empty")
_PROOF = ("equal", "equal totals, other counts differ", "part", "empty under the reseller", "other")

# customer and provider instance -> readings of that pair
_Pairs = dict[tuple[str, str], list[Reading]]


def find_in_answers(readings: Sequence[Reading]) -> Iterator[Finding]:
    """Findings on every answer that was JSON."""
    given = [reading for reading in readings if reading.has_body]
    shapes = Counter(_name_shape(reading.body) for reading in given)
    objects = [reading.body for reading in given if isinstance(reading.body, dict)]
    evidence = {
        "answers": len(given),
        "shapes": dict(shapes),
        "saying_that_a_page_follows": sum(bool(body.get("hasNextPage")) for body in objects),
        "other_members": count_unknown(objects, _PAGE_MEMBERS),
    }
    yield Finding("answer", "shape of the body", judge_kinds(shapes), evidence)
    answers = [rows for reading in given if (rows := find_rows(reading)) is not None]
    empty = sum(not rows for rows in answers)
    yield Finding("answer", "empty", judge(empty, len(answers)), {"answers": len(answers), "empty": empty})
    odd = sum(not isinstance(row, dict) for rows in answers for row in rows)
    count = sum(map(len, answers))
    yield Finding("answer", "has rows that are no objects", judge(odd, count), {"rows": count, "no_objects": odd})
    yield _find_order([[row for row in rows if isinstance(row, dict)] for rows in answers])


def find_in_resellers(readings: Sequence[Reading]) -> Iterator[Finding]:
    """Whether rows under a reseller equal the rows without one, or are parts of them."""
    pairs: _Pairs = {}
    for reading in readings:
        pairs.setdefault((reading.scope.customer_id, reading.scope.provider_instance_id), []).append(reading)
    plain = {pair: one for pair, group in pairs.items() for one in group if one.scope.reseller_id is None}
    kinds = Counter(
        _compare(reading, plain[pair])
        for pair, group in pairs.items()
        for reading in group
        if reading.scope.reseller_id and pair in plain
    )
    verdict = judge_kinds({kind: count for kind, count in kinds.items() if kind in _PROOF})
    evidence = {"pairs_tried": kinds.total(), "results": dict(sorted(kinds.items()))}
    yield Finding("reseller", "rows under a reseller, against the rows without", verdict, evidence)
    yield _find_sums(pairs, plain)


def _find_sums(pairs: _Pairs, plain: Mapping[tuple[str, str], Reading]) -> Finding:
    several = [
        (plain[pair], resold)
        for pair, group in pairs.items()
        if pair in plain and len(resold := [one for one in group if one.scope.reseller_id]) > 1
    ]
    added = [
        _adds_up(whole, parts) for whole, parts in several if all(one.outcome in _READ for one in (whole, *parts))
    ]
    evidence = {"pairs_with_several_resellers": len(several), "compared": len(added), "equal": sum(added)}
    question = "rows of several resellers add up to the rows without"
    return Finding("reseller", question, judge(sum(added), len(added)), evidence)


def _name_shape(body: Any) -> str:
    if isinstance(body, list):
        return "bare array"
    if isinstance(body, dict):
        return "object with items" if isinstance(body.get("items"), list) else "object without items"
    return json_type(body)


def _find_order(answers: Sequence[Sequence[dict[str, Any]]]) -> Finding:
    long = [rows for rows in answers if len(rows) > 2]
    by_sku = sum(_is_sorted([sku_of(row) for row in rows]) for rows in long)
    by_name = sum(_is_sorted([str(row.get("name") or "").casefold() for row in rows]) for rows in long)
    if long and by_sku == len(long):
        verdict = "always by SKU id"
    elif long and by_name == len(long):
        verdict = "always by name"
    else:
        verdict = judge(max(by_sku, by_name), len(long))
    evidence = {"answers_of_three_rows_or_more": len(long), "by_sku_id": by_sku, "by_name": by_name}
    return Finding("answer", "rows are sorted", verdict, evidence)


def _is_sorted(values: Sequence[str]) -> bool:
    return all(one <= next_one for one, next_one in pairwise(values))


def _compare(resold: Reading, plain: Reading) -> str:
    """How the totals per SKU under a reseller relate to those without; or why there is nothing to compare."""
    if resold.outcome not in _READ or plain.outcome not in _READ:
        return f"reseller {resold.outcome}, without {plain.outcome}"
    part, whole = _sum_by_sku(resold), _sum_by_sku(plain)
    if not part:
        return "empty under the reseller" if whole else "both empty"
    if part == whole:
        same = all(_sum_by_sku(resold, field) == _sum_by_sku(plain, field) for field in COUNT_FIELDS)
        return "equal" if same else "equal totals, other counts differ"
    return "part" if all(sku in whole and total <= whole[sku] for sku, total in part.items()) else "other"


def _sum_by_sku(reading: Reading, field: str = COUNT_FIELDS[0]) -> Counter[str]:
    """The seats of every SKU of an answer, 0 where there is no number."""
    sums: Counter[str] = Counter()
    for row in find_rows(reading) or ():
        if isinstance(row, dict):
            value = row.get(field)
            sums[sku_of(row)] += value if isinstance(value, int) else 0
    return sums


def _adds_up(plain: Reading, resold: Sequence[Reading]) -> bool:
    summed: Counter[str] = Counter()
    for reading in resold:
        summed.update(_sum_by_sku(reading))
    return summed == _sum_by_sku(plain)
