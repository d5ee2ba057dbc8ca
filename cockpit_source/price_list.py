"""The price list: a CSV with sku_id, unit_price, currency and valid_from. It is taken whole or not at all."""

from __future__ import annotations

import csv
import re
from datetime import date
from decimal import Decimal
from pathlib import Path

from cockpit_source.errors import ConfigurationError
from cockpit_source.reference_csv import Row, find_separator, read_file, read_lines
from cockpit_source.transforms import is_uuid
from cockpit_source.values import abbreviate, read_date

COLUMNS = ("sku_id", "unit_price", "currency", "valid_from")
MAX_PROBLEMS = 10

_NAME = "The price list"
_FORMAT = (
    "Columns: sku_id, unit_price (such as 12.50), currency (such as EUR), valid_from (such as 2026-01-31). "
    "docs/reference-data.md has an example."
)
_CURRENCY = re.compile(r"[A-Z]{3}\Z")
_PRICE = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]+)(?:(?P<mark>[.,])(?P<decimals>[0-9]+))?\Z")
_MAX_WHOLE_DIGITS = 14
_MAX_DECIMALS = 4
# three digits after a mark may also be thousands
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}\Z")


def read_price_list(path: Path) -> list[Row]:
    """The rows of `sku_prices` in a file, sorted by SKU and day.

    Raises:
        ConfigurationError: the file cannot be read, or lines do not fit; the first of them are named.
    """
    content = read_file(path, _NAME)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{_NAME} {path} is not UTF-8 text. Save it as CSV in UTF-8.") from None
    rows, problems = parse_price_list(text)
    if problems:
        raise ConfigurationError(_describe(path, problems))
    return rows


def parse_price_list(text: str) -> tuple[list[Row], list[str]]:
    """The rows of a price list, and what is wrong with it, line by line."""
    separator = find_separator(text)
    checker = _Checker(separator)
    columns: list[str] | None = None
    try:
        for number, cells in read_lines(text, separator):
            if columns is None:
                columns = [cell.lower() for cell in cells]
                if problem := _find_header_problem(columns):
                    return [], [f"line {number}: {problem}"]
            elif len(cells) != len(columns):
                checker.problems.append(f"line {number}: {len(cells)} values, where the header has {len(columns)}")
            else:
                checker.add(number, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        checker.problems.append(f"{error}")
    if columns is None and not checker.problems:
        checker.problems.append("the file is empty; its first line has to name the columns")
    return sorted(checker.rows, key=lambda row: (row["sku_id"], row["valid_from"])), checker.problems


def _find_header_problem(columns: list[str]) -> str | None:
    missing = [name for name in COLUMNS if name not in columns]
    unknown = [abbreviate(name) for name in columns if name not in COLUMNS]
    told = [f"no column {' and no column '.join(missing)}"] if missing else []
    told += [f"unknown column{'s' * (len(unknown) > 1)} {', '.join(unknown)}"] if unknown else []
    told += ["a column stands twice"] if not told and len(columns) > len(COLUMNS) else []
    return "; ".join(told) or None


class _Checker:
    """The rows of a list that fit so far, and the problems of the others."""

    def __init__(self, separator: str) -> None:
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self._separator = separator
        self._lines: dict[tuple[str, date], int] = {}
        self._currencies: dict[str, tuple[str, int]] = {}

    def add(self, number: int, values: dict[str, str]) -> None:
        row: Row = {}
        for name, read in (
            ("sku_id", _read_sku_id),
            ("unit_price", self._read_price),
            ("currency", _read_currency),
            ("valid_from", _read_date),
        ):
            try:
                row[name] = read(values[name])
            except ValueError as error:
                self.problems.append(f"line {number}: {name} {error}")
        if len(row) == len(COLUMNS):
            self._add_read(number, row)

    def _add_read(self, number: int, row: Row) -> None:
        sku_id, valid_from, currency = row["sku_id"], row["valid_from"], row["currency"]
        earlier = self._lines.setdefault((sku_id, valid_from), number)
        if earlier != number:
            self.problems.append(f"line {number}: {sku_id} has a price from {valid_from} already, in line {earlier}")
        known, line = self._currencies.setdefault(sku_id, (currency, number))
        if known != currency:
            self.problems.append(
                f"line {number}: {sku_id} is priced in {currency}, and in {known} in line {line}; one SKU has one "
                "currency"
            )
        self.rows.append(row)

    def _read_price(self, text: str) -> Decimal:
        found = _PRICE.match(text)
        if not text:
            raise ValueError("is empty")
        if found is None:
            raise ValueError(f"{abbreviate(text)} is not a number without signs, blanks and thousands separators")
        if found["sign"]:
            raise ValueError(f"{abbreviate(text)} is negative")
        if found["mark"] == "," and self._separator == ",":
            raise ValueError(f"{abbreviate(text)} has a decimal comma, which goes with ';' between the columns only")
        if self._separator == ";" and _THOUSANDS.match(text):
            raise ValueError(f"{abbreviate(text)} may be read in two ways; write all four decimals, or none")
        decimals = (found["decimals"] or "").rstrip("0")
        if len(decimals) > _MAX_DECIMALS:
            raise ValueError(f"{abbreviate(text)} has more than {_MAX_DECIMALS} decimals")
        if len(found["whole"].lstrip("0")) > _MAX_WHOLE_DIGITS:
            raise ValueError(f"{abbreviate(text)} is too large")
        return Decimal(f"{found['whole']}.{decimals or 0}")


def _read_sku_id(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    if '"' in text:
        raise ValueError(f"{abbreviate(text)} holds a quote")
    return text.lower() if is_uuid(text) else text


def _read_currency(text: str) -> str:
    if not _CURRENCY.match(text.upper()):
        raise ValueError(f"{abbreviate(text)} is not three letters, such as EUR")
    return text.upper()


def _read_date(text: str) -> date:
    try:
        return read_date(text)
    except ValueError as error:
        raise ValueError(f"{abbreviate(text)} {error}") from None


def _describe(path: Path, problems: list[str]) -> str:
    shown = "\n".join(f"  - {problem}" for problem in problems[:MAX_PROBLEMS])
    more = len(problems) - MAX_PROBLEMS
    rest = f"\n  - and {more} more" if more > 0 else ""
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return f"{_NAME} {path} has {count}; nothing was changed:\n{shown}{rest}\n{_FORMAT}"
