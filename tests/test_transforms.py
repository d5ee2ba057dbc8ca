"""Licence rows from answers: pure functions, examples and properties."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import sku

from cockpit_source.transforms import (
    MAX_RAW_CHARACTERS,
    LicenseRow,
    clean_text,
    find_items,
    is_uuid,
    row_hash,
    to_license_rows,
)

KEY = "portal.example|c0000000-0000-4000-8000-000000000001|a0000000-0000-4000-8000-000000000002|-"
GUID = "6fd2c87f-b296-42f0-b197-1e91e994b900"

# all that json.loads can give: lone surrogates, whole numbers beyond 64 bits, and the infinity of 1e999
texts = st.text(st.characters(exclude_categories=()), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
counts = st.none() | st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
good_rows = st.fixed_dictionaries(
    {"skuId": st.sampled_from(["a", "b", GUID, GUID.upper()]), "name": st.none() | texts},
    optional={
        "totalLicenses": counts,
        "consumedLicenses": counts,
        "availableLicenses": counts,
        "suspendedLicenses": counts,
        "isSelected": st.none() | st.booleans(),
        "new": json_values,
    },
)
row_names = st.sampled_from(["skuId", "name", "totalLicenses", "consumedLicenses", "isSelected", "new"]) | texts
any_rows = json_values | good_rows | st.dictionaries(row_names, json_values, max_size=5)


def test_row_of_the_contract_becomes_a_row() -> None:
    rows, rejected = to_license_rows(KEY, [sku(GUID, 25, 22, suspendedLicenses=3, isSelected=True)])
    assert rejected == []
    digest = row_hash(KEY, GUID, 0, f"Product {GUID}", (25, 22, 3, 3))
    assert rows == [LicenseRow(GUID, 0, f"Product {GUID}", 25, 22, 3, 3, True, None, digest)]


def test_row_hash_of_the_committed_vector_never_changes() -> None:
    """A change to these digests means that every version in `license_history` would be closed and opened again."""
    text = f'[1,"{KEY}","{GUID}",0,"Office 365 E3 — 企業",25,22,3,null]'
    digest = row_hash(KEY, GUID, 0, "Office 365 E3 — 企業", (25, 22, 3, None))
    assert digest == blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
    assert digest == "9516fa885daf643d8be4452d7a66f2cb"
    assert row_hash("t|c|p|r", "a", 1, None, (0, -1, 2**63 - 1, None)) == "6a0b0a1d908954dd9587ae55b34e9608"


def test_row_hash_is_over_the_json_of_every_character() -> None:
    """Whatever encodes it: the bytes under the hash are those of compact JSON in UTF-8."""
    storable = [chr(code) for code in range(1, 0x11000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(storable), 1_000):
        name = "".join(storable[start : start + 1_000])
        text = json.dumps([1, KEY, GUID, 0, name, 1, None, -3, 4], ensure_ascii=False, separators=(",", ":"))
        expected = blake2b(text.encode(), digest_size=16).hexdigest()
        assert row_hash(KEY, GUID, 0, name, (1, None, -3, 4)) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Product b"},
        {"name": None},
        {"totalLicenses": 11},
        {"totalLicenses": None},
        {"consumedLicenses": 5},
        {"availableLicenses": 5},
        {"suspendedLicenses": 1},
        {"skuId": "b"},
    ],
)
def test_row_hash_changes_with_every_value_that_history_keeps(changed: dict[str, Any]) -> None:
    assert _hashes([sku("a") | changed]) != _hashes([sku("a")])


@pytest.mark.parametrize("changed", [{"isSelected": True}, {"isSelected": "odd"}, {"new": 1}])
def test_row_hash_stays_for_values_that_history_does_not_keep(changed: dict[str, Any]) -> None:
    assert _hashes([sku("a") | changed]) == _hashes([sku("a")])


def test_row_hash_differs_between_scopes_and_occurrences() -> None:
    rows, _ = to_license_rows(KEY, [sku("a"), sku("a")])
    others, _ = to_license_rows(KEY + "x", [sku("a")])
    assert len({row.row_hash for row in (*rows, *others)}) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(good_rows, max_size=6), st.randoms(use_true_random=False))
def test_order_of_the_answer_does_not_matter(items: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    assert to_license_rows(KEY, shuffled) == to_license_rows(KEY, items)


@settings(max_examples=60, deadline=None)
@given(st.lists(good_rows, max_size=6))
def test_same_answer_gives_the_same_rows_with_unique_keys(items: list[dict[str, Any]]) -> None:
    rows, rejected = to_license_rows(KEY, items)
    assert (rows, rejected) == to_license_rows(KEY, json.loads(json.dumps(items)))
    assert rejected == []
    assert len(rows) == len(items) == len({(row.sku_id, row.occurrence) for row in rows})
    assert len({row.row_hash for row in rows}) == len(items)
    assert [row.sku_id for row in rows] == sorted(row.sku_id for row in rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(any_rows, max_size=4))
@example([{"skuId": "a", "new": float("inf")}])
@example([{"skuId": "\x00\ud800"}])
@example([{"skuId": "a", "\ud800": {"\x00": "\udfff"}}])
@example([{"skuId": "a", "totalLicenses": float("-inf")}])
@example([{"skuId": "a", "totalLicenses": 10**400}])
def test_any_json_lands_in_rows_or_rejected_and_is_storable(items: list[Any]) -> None:
    rows, rejected = to_license_rows(KEY, items)
    assert len(rows) + len(rejected) == len(items)
    assert len({reject.position for reject in rejected}) == len(rejected)
    for record in (*rows, *rejected):
        for value in record:
            if isinstance(value, str):
                value.encode("utf-8")
                assert "\x00" not in value
            elif value is not None:
                assert -(2**63) <= value < 2**63
    for row in rows:
        if row.extra is not None:
            assert isinstance(_parse_strictly(row.extra), dict)
    for reject in rejected:
        _parse_strictly(reject.raw)
        assert reject.reason


@pytest.mark.parametrize("where", ["beside", "instead"])
def test_row_nested_too_deeply_is_rejected(where: str) -> None:
    """The JSON parser follows deeper than we can, so such a row arrives here."""
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    item = {"skuId": "a", "new": deep} if where == "beside" else deep
    rows, rejected = to_license_rows(KEY, [sku("b"), item])
    assert [row.sku_id for row in rows] == ["b"]
    assert [(reject.position, json.loads(reject.raw)) for reject in rejected] == [(1, "the row is nested too deeply")]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (None, "the row is not an object"),
        ([], "the row is not an object"),
        ("text", "the row is not an object"),
        ({}, "skuId is missing"),
        ({"skuId": None}, "skuId is missing"),
        ({"skuId": 7}, "skuId is not text"),
        ({"skuId": " \t"}, "skuId is blank"),
        ({"SkuId": "a"}, "skuId is missing"),
        (sku("a", totalLicenses="12"), "totalLicenses is not a whole number"),
        (sku("a", consumedLicenses=1.5), "consumedLicenses is not a whole number"),
        (sku("a", availableLicenses=True), "availableLicenses is not a whole number"),
        (sku("a", suspendedLicenses=2**63), "suspendedLicenses does not fit into 64 bits"),
        (sku("a", totalLicenses=-(2**63) - 1), "totalLicenses does not fit into 64 bits"),
        (sku("a", totalLicenses=float(2**54)), "totalLicenses is not a whole number"),
    ],
)
def test_row_that_does_not_fit_is_rejected_with_reason_and_raw(item: Any, reason: str) -> None:
    rows, (rejected,) = to_license_rows(KEY, [sku("a"), item, sku("b")])
    assert [row.sku_id for row in rows] == ["a", "b"]
    assert (rejected.position, rejected.reason) == (1, reason)
    assert json.loads(rejected.raw) == item


def test_text_and_flag_of_another_type_go_to_extra() -> None:
    (row,), rejected = to_license_rows(KEY, [sku("a", name=7, isSelected="yes", extra_field=[1])])
    assert rejected == []
    assert (row.sku_name, row.is_selected) == (None, None)
    assert row.extra == '{"extra_field":[1],"isSelected":"yes","name":7}'


def test_unknown_fields_are_redacted_in_extra_and_raw() -> None:
    unknown = {"contact": "ada@example.com", "apiKey": {"value": "abc"}, "ada@example.com": 1, "seatTokens": 5}
    (row,), (rejected,) = to_license_rows(KEY, [sku("a", **unknown), unknown])
    expected = {"contact": "[redacted]", "apiKey": "[redacted]", "[redacted]": 1, "seatTokens": 5}
    assert json.loads(row.extra or "") == json.loads(rejected.raw) == expected


def test_raw_of_a_huge_row_is_cut_and_still_json() -> None:
    _, (rejected,) = to_license_rows(KEY, [{"name": '"' * 50_000}])
    assert isinstance(json.loads(rejected.raw), str)
    assert len(json.loads(rejected.raw)) == MAX_RAW_CHARACTERS


def test_guid_is_lower_case_and_other_sku_ids_keep_their_case() -> None:
    rows, _ = to_license_rows(KEY, [sku(f" {GUID.upper()}\n"), sku(" SPE_E3 ")])
    assert [row.sku_id for row in rows] == [GUID, "SPE_E3"]


def test_duplicates_are_numbered_by_their_values_with_null_last() -> None:
    items = [sku("a", None, 1, name="x"), sku("a", 3, 1, name="x"), sku("a", 3, 1, name=None), sku("b")]
    rows, _ = to_license_rows(KEY, items)
    assert [(row.sku_id, row.occurrence, row.sku_name, row.total_licenses) for row in rows] == [
        ("a", 0, "x", 3),
        ("a", 1, "x", None),
        ("a", 2, None, 3),
        ("b", 0, "Product b", 10),
    ]


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ([], []),
        ([1, None], [1, None]),
        ({"items": []}, []),
        ({"items": [1], "hasNextPage": False, "continuationToken": None}, [1]),
        ({"items": [1], "hasNextPage": True}, None),
        ({"items": [1], "continuationToken": "next"}, None),
        ({"items": None}, None),
        ({"items": {"0": 1}}, None),
        ({}, None),
        ({"message": "no"}, None),
        ("[]", None),
        (None, None),
        (0, None),
        (False, None),
    ],
)
def test_items_are_found_in_an_array_or_a_single_page_only(body: object, items: list[object] | None) -> None:
    assert find_items(body) == items


@given(texts)
def test_clean_text_is_storable_and_stays_as_it_is_the_second_time(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    assert "\x00" not in cleaned
    assert len(cleaned) == len(text)
    assert clean_text(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GUID, True),
        (GUID.upper(), True),
        (GUID + "\n", False),
        ("{" + GUID + "}", False),
        (GUID.replace("-", ""), False),
        ("../" + GUID, False),
        (GUID.replace("6", "٦"), False),
        ("", False),
    ],
)
def test_uuid_is_known_in_its_usual_form_only(text: str, expected: bool) -> None:
    assert is_uuid(text) is expected


def _hashes(items: list[Any]) -> list[str]:
    rows, rejected = to_license_rows(KEY, items)
    assert not rejected
    return [row.row_hash for row in rows]


def _parse_strictly(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)
