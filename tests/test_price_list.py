"""Price lists: what is taken, and every problem named with its line, so that one correction is enough."""

from __future__ import annotations

import csv
import io
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cockpit_source.errors import ConfigurationError
from cockpit_source.price_list import COLUMNS, parse_price_list, read_price_list

E3 = "05e9a617-0261-4cee-bb44-138d3ef5d965"
HEADER = "sku_id,unit_price,currency,valid_from\n"
GERMAN_HEADER = HEADER.replace(",", ";")


def row(sku_id: str = E3, price: str = "36", currency: str = "EUR", day: date = date(2026, 1, 1)) -> dict[str, Any]:
    return {"sku_id": sku_id, "unit_price": Decimal(price), "currency": currency, "valid_from": day}


def problems(text: str) -> list[str]:
    return parse_price_list(text)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEADER + f"{E3},36,EUR,2026-01-01\n", [row()]),
        (HEADER + f"{E3.upper()},36.00000,eur,2026-01-01", [row()]),
        (HEADER.upper() + f' "{E3}",\u00a036 , EUR\u200b,2026-01-01\r\n\r\n,,,\r\n', [row()]),
        ("currency,valid_from,sku_id,unit_price\nEUR,2026-01-01," + E3 + ",36\n", [row()]),
        (HEADER + "CFQ7TTC0LF8R:0001,0,USD,2026-01-01\n", [row("CFQ7TTC0LF8R:0001", "0", "USD")]),
        (HEADER + f"{E3},1.234,EUR,2026-01-01\n", [row(price="1.234")]),
        (HEADER + f"{E3},99999999999999.9999,EUR,2026-01-01\n", [row(price="99999999999999.9999")]),
        (GERMAN_HEADER + f"{E3};36,50;EUR;2026-01-01\n", [row(price="36.5")]),
        (GERMAN_HEADER + f"{E3};36.50;EUR;2026-01-01\n", [row(price="36.5")]),
        (GERMAN_HEADER + f"{E3};0,125;EUR;2026-01-01\n", [row(price="0.125")]),
        (GERMAN_HEADER + f"{E3};1,2340;EUR;2026-01-01\n", [row(price="1.234")]),
        (
            HEADER + f"{E3},38,EUR,2026-07-01\nA,1,USD,2026-01-01\n{E3},36,EUR,2026-01-01\n",
            [row(), row(price="38", day=date(2026, 7, 1)), row("A", "1", "USD")],
        ),
        (HEADER, []),
    ],
)
def test_list_that_fits_is_taken(text: str, expected: list[dict[str, Any]]) -> None:
    rows, found = parse_price_list(text)
    assert (rows, found) == (sorted(expected, key=lambda r: (r["sku_id"], r["valid_from"])), [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"{E3},,EUR,2026-01-01", "unit_price is empty"),
        (f"{E3},-1,EUR,2026-01-01", 'unit_price "-1" is negative'),
        (f"{E3},+1,EUR,2026-01-01", 'unit_price "+1" is not a number without signs'),
        (f"{E3},1e3,EUR,2026-01-01", 'unit_price "1e3" is not a number'),
        (f"{E3},NaN,EUR,2026-01-01", 'unit_price "NaN" is not a number'),
        (f"{E3},36 EUR,EUR,2026-01-01", 'unit_price "36 EUR" is not a number'),
        (f"{E3},\u0663\u0666,EUR,2026-01-01", "is not a number"),
        (f'{E3},"1,234.50",EUR,2026-01-01', 'unit_price "1,234.50" is not a number without signs, blanks and thou'),
        (f'{E3},"36,50",EUR,2026-01-01', "unit_price \"36,50\" has a decimal comma, which goes with ';'"),
        (f"{E3},1.00001,EUR,2026-01-01", 'unit_price "1.00001" has more than 4 decimals'),
        (f"{E3},{'9' * 15},EUR,2026-01-01", "is too large"),
        (",36,EUR,2026-01-01", "sku_id is empty"),
        (f'\u00a0"{E3}",36,EUR,2026-01-01', "holds a quote"),
        (f"{E3},36,,2026-01-01", 'currency "" is not three letters, such as EUR'),
        (f"{E3},36,\u20ac,2026-01-01", "is not three letters"),
        (f"{E3},36,EURO,2026-01-01", 'currency "EURO" is not three letters'),
        (f"{E3},36,EUR,", 'valid_from "" is not a date such as 2026-01-31'),
        (f"{E3},36,EUR,01.02.2026", 'valid_from "01.02.2026" is not a date'),
        (f"{E3},36,EUR,2026-02-30", 'valid_from "2026-02-30" is not a day of the calendar'),
        (f"{E3},36,EUR,20260101", "is not a date"),
        (f"{E3},36,EUR,2026-01-01T00:00", "is not a date"),
        (f"{E3},36,50,EUR,2026-01-01", "5 values, where the header has 4"),
        (f"{E3},36,EUR", "3 values, where the header has 4"),
    ],
)
def test_line_that_does_not_fit_is_named(line: str, problem: str) -> None:
    (found,) = problems(HEADER + f"A,1,EUR,2026-01-01\n\n{line}\n")
    assert found.startswith("line 4: ")
    assert problem in found


@pytest.mark.parametrize("price", ["1,234", "1.234", "12.000", "999,999"])
def test_three_digits_after_a_mark_are_refused_where_a_comma_may_be_decimal(price: str) -> None:
    (found,) = problems(GERMAN_HEADER + f"{E3};{price};EUR;2026-01-01\n")
    assert found == f'line 2: unit_price "{price}" may be read in two ways; write all four decimals, or none'


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("sku_id,unit_price,currency", "line 1: no column valid_from"),
        (
            "sku,price,currency,valid_from",
            'line 1: no column sku_id and no column unit_price; unknown columns "sku", ',
        ),
        ("sku_id,unit_price,currency,valid_from,name", 'line 1: unknown column "name"'),
        ("sku_id,unit_price,currency,valid_from,sku_id", "line 1: a column stands twice"),
        ("sku_id\tunit_price\tcurrency\tvalid_from", "line 1: no column sku_id and"),
        ("", "the file is empty; its first line has to name the columns"),
    ],
)
def test_header_that_does_not_fit_is_the_only_problem(header: str, problem: str) -> None:
    (found,) = problems(f"{header}\n{E3},,,\n" if header else "\n \n")
    assert found.startswith(problem)


def test_contradictions_name_both_lines() -> None:
    text = HEADER + (
        f"{E3},36,EUR,2026-01-01\n{E3.upper()},36,EUR,2026-01-01\n{E3},40,USD,2026-07-01\nA,1,USD,2026-01-01\n"
    )
    assert problems(text) == [
        f"line 3: {E3} has a price from 2026-01-01 already, in line 2",
        f"line 4: {E3} is priced in USD, and in EUR in line 2; one SKU has one currency",
    ]


def test_number_of_a_line_counts_what_quotes_hold() -> None:
    assert problems(HEADER + '"A\nB",1,EUR,2026-01-01\nC,,EUR,2026-01-01\n') == ["line 4: unit_price is empty"]


def test_quote_that_is_never_closed_swallows_nothing() -> None:
    (found,) = problems(HEADER + f'{E3},36,EUR,2026-01-01\n"A,1,EUR,2026-01-01\nB,2,EUR,2026-01-01\n')
    assert found.startswith("line 3: ")


def test_file_is_refused_with_the_first_ten_problems(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HEADER + f"{E3},,EUR,2026-01-01\n" * 13, encoding="utf-8-sig")
    with pytest.raises(ConfigurationError) as refused:
        read_price_list(path)
    lines = str(refused.value).splitlines()
    assert lines[0] == f"The price list {path} has 13 problems; nothing was changed:"
    assert lines[1:12] == [f"  - line {number}: unit_price is empty" for number in range(2, 12)] + ["  - and 3 more"]
    assert lines[12].startswith("Columns: sku_id, unit_price (such as 12.50)")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing, folder, western = tmp_path / "none.csv", tmp_path, tmp_path / "western.csv"
    western.write_bytes((HEADER + "Stück,1,EUR,2026-01-01\n").encode("cp1252"))
    for path, reason in ((missing, "does not exist"), (folder, "cannot be read"), (western, "is not UTF-8 text")):
        with pytest.raises(ConfigurationError) as refused:
            read_price_list(path)
        assert str(refused.value).startswith(f"The price list {path} {reason}")


_BLANKS = st.text(" \t\u00a0\u202f\u2007\u200b\ufeff", max_size=3)
_SKUS = st.one_of(st.uuids().map(str), st.from_regex(r"[A-Z0-9]{12}:[0-9]{4}", fullmatch=True))
_PRICES = st.decimals(0, 10**14 - 1, places=4)
_DAYS = st.dates(date(1000, 1, 1))
_TIMES = st.lists(st.tuples(_PRICES, _DAYS), min_size=1, max_size=3, unique_by=lambda pair: pair[1])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    prices=st.dictionaries(_SKUS, st.tuples(st.sampled_from(["EUR", "USD"]), _TIMES), max_size=5),
    data=st.data(),
    semicolons=st.booleans(),
    upper=st.booleans(),
)
def test_dirty_list_reads_as_the_clean_one(
    prices: dict[str, tuple[str, list[tuple[Decimal, date]]]], data: st.DataObject, semicolons: bool, upper: bool
) -> None:
    """Blanks of every kind, upper case, a BOM, decimal commas and any order of columns and lines change nothing."""
    expected = [
        row(sku_id, str(price), currency, valid_from)
        for sku_id, (currency, times) in prices.items()
        for price, valid_from in times
    ]
    columns = data.draw(st.permutations(COLUMNS))
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=";" if semicolons else ",")
    writer.writerow(columns)
    for record in data.draw(st.permutations(expected)):
        is_uuid = len(record["sku_id"]) == 36
        texts = {
            "sku_id": record["sku_id"].upper() if upper and is_uuid else record["sku_id"],
            "unit_price": f"{record['unit_price']:.4f}".replace(".", "," if semicolons and upper else "."),
            "currency": record["currency"].lower() if upper else record["currency"],
            "valid_from": record["valid_from"].isoformat(),
        }
        writer.writerow(data.draw(_BLANKS) + texts[name] + data.draw(_BLANKS) for name in columns)
    rows, found = parse_price_list(out.getvalue())
    assert found == []
    assert rows == sorted(expected, key=lambda r: (r["sku_id"], r["valid_from"]))
