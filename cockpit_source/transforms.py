"""Pure functions from an API answer to licence rows: no clock, no network, no dlt.

The row and its field names: https://developer.cloudcockpit.com/operation/operation-get-v1-customers-parameter-licenses
(checked 2026-11-23 against the project's contract notes; nullability, SKU format and arithmetic are undocumented).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, cast

import orjson

from cockpit_source.redaction import redact_tree

ROW_HASH_VERSION = 1
MAX_RAW_CHARACTERS = 10_000

# of a row of an answer, as the API names them
COUNT_FIELDS = ("totalLicenses", "consumedLicenses", "availableLicenses", "suspendedLicenses")
KNOWN_FIELDS = frozenset({"skuId", "name", "isSelected", *COUNT_FIELDS})
_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1
_EXACT_FLOAT_LIMIT = 2**53
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_SKU_ID = itemgetter(0)


class LicenseRow(NamedTuple):
    """One SKU held in a scope. Counts are seats: whole, 64-bit, perhaps negative, None where the API sent null.

    `extra` is a JSON object of the fields that the contract does not know, or None. `row_hash` changes when,
    and only when, a value that history keeps changes.
    """

    sku_id: str
    occurrence: int
    sku_name: str | None
    total_licenses: int | None
    consumed_licenses: int | None
    available_licenses: int | None
    suspended_licenses: int | None
    is_selected: bool | None
    extra: str | None
    row_hash: str


class RejectedRow(NamedTuple):
    """A row of an answer that does not fit. `position` counts from 0 in the answer; `raw` is JSON, redacted."""

    position: int
    reason: str
    raw: str


class UnfitRow(ValueError):
    """A row of an answer does not fit; the message says why."""


def clean_text(text: str) -> str:
    """`text` with U+0000 and lone surrogates, which warehouses refuse, replaced by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _NOT_STORABLE.sub("\ufffd", text)


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its usual 36-character form, in either case."""
    return _UUID.match(text) is not None


def find_items(body: object) -> list[Any] | None:
    """The rows of a licence answer: a bare array, or the array `items` of an object that has no further page.

    None when the body is anything else; that is never the same as zero rows.
    """
    if isinstance(body, dict) and not body.get("hasNextPage") and not body.get("continuationToken"):
        body = body.get("items")
    return body if isinstance(body, list) else None


def to_license_rows(scope_key: str, items: Iterable[Any]) -> tuple[list[LicenseRow], list[RejectedRow]]:
    """Licence rows of one answer, sorted by SKU, and the rows that do not fit.

    A SKU that comes more than once is sorted by its values and numbered by `occurrence`, so that the order of
    the answer does not matter.
    """
    values: list[_RowValues] = []
    rejected: list[RejectedRow] = []
    for position, item in enumerate(items):
        try:
            values.append(_read_row(item))
        except UnfitRow as error:
            rejected.append(RejectedRow(position, str(error), _to_raw(item)))
    return _number_and_hash(scope_key, values), rejected


def row_hash(scope_key: str, sku_id: str, occurrence: int, sku_name: str | None, counts: Iterable[int | None]) -> str:
    """Hex BLAKE2b-16 over the values that history keeps. A change to it is a migration of `license_history`."""
    text = orjson.dumps([ROW_HASH_VERSION, scope_key, sku_id, occurrence, sku_name, *counts])
    return blake2b(text, digest_size=16).hexdigest()


_Counts = tuple[int | None, int | None, int | None, int | None]


class _RowValues(NamedTuple):
    sku_id: str
    sku_name: str | None
    counts: _Counts
    is_selected: bool | None
    extra: str | None


def _read_row(item: object) -> _RowValues:
    if not isinstance(item, dict):
        raise UnfitRow("the row is not an object")
    extra = {} if item.keys() <= KNOWN_FIELDS else {k: v for k, v in item.items() if k not in KNOWN_FIELDS}
    name = item.get("name")
    if isinstance(name, str):
        name = clean_text(name)
    elif name is not None:
        extra["name"], name = name, None
    is_selected = item.get("isSelected")
    if is_selected is not None and not isinstance(is_selected, bool):
        extra["isSelected"], is_selected = is_selected, None
    return _RowValues(
        sku_id=_to_sku_id(item.get("skuId")),
        sku_name=name,
        counts=cast(_Counts, tuple([_to_count(field, item.get(field)) for field in COUNT_FIELDS])),
        is_selected=is_selected,
        extra=_to_json(extra) if extra else None,
    )


def _to_sku_id(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitRow("skuId is missing" if value is None else "skuId is not text")
    sku_id = clean_text(value).strip()
    if not sku_id:
        raise UnfitRow("skuId is blank")
    return sku_id.lower() if is_uuid(sku_id) else sku_id


def _to_count(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT_LIMIT:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UnfitRow(f"{field} is not a whole number")
    if not _MIN_INT64 <= value <= _MAX_INT64:
        raise UnfitRow(f"{field} does not fit into 64 bits")
    return value


def _to_json(value: object) -> str:
    """Compact JSON, redacted, with text that every warehouse can store."""
    try:
        clean = _clean_tree(redact_tree(value))
        return json.dumps(clean, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise UnfitRow("the row is nested too deeply") from None


def _to_raw(item: object) -> str:
    try:
        raw = _to_json(item)
    except UnfitRow as error:
        return _to_json(str(error))
    return raw if len(raw) <= MAX_RAW_CHARACTERS else _to_json(raw[:MAX_RAW_CHARACTERS])


def _clean_tree(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean_tree(element) for element in value]
    if isinstance(value, dict):
        return {clean_text(name): _clean_tree(element) for name, element in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        # a number such as 1e999 is valid JSON, and becomes an infinity that is not
        return str(value)
    return value


def _sort_key(row: _RowValues) -> tuple[Any, ...]:
    known_first = tuple((count is None, count or 0) for count in row.counts)
    return (
        row.sku_id,
        row.sku_name is None,
        row.sku_name or "",
        known_first,
        str(row.is_selected),
        row.extra or "",
    )


def _number_and_hash(scope_key: str, values: list[_RowValues]) -> list[LicenseRow]:
    rows: list[LicenseRow] = []
    for sku_id, group in groupby(sorted(values, key=_SKU_ID), key=_SKU_ID):
        same_sku = list(group)
        if len(same_sku) > 1:
            same_sku.sort(key=_sort_key)
        for occurrence, row in enumerate(same_sku):
            digest = row_hash(scope_key, sku_id, occurrence, row.sku_name, row.counts)
            rows.append(LicenseRow(sku_id, occurrence, row.sku_name, *row.counts, row.is_selected, row.extra, digest))
    return rows
