"""The lines of a scope list, from the configuration, a file or a warehouse query, checked line by line."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cockpit_source.errors import ConfigurationError, ScopeListError
from cockpit_source.scopes import ID_COLUMNS, Scope, parse_scope
from cockpit_source.settings import ScopeSettings

FILE_TYPES = (".csv", ".parquet", ".json", ".jsonl", ".ndjson")
_REQUIRED_COLUMNS = ID_COLUMNS[:2]
_CHUNK_ROWS = 10_000

Record = Mapping[str, Any]
QueryRows = Callable[[str], Iterator[Record]]


def iter_scopes(settings: ScopeSettings, folder: Path, query_rows: QueryRows) -> Iterator[Scope]:
    """The scopes as listed, duplicates included, in the order of the list.

    A relative path of a file starts at `folder`. `query_rows` runs a SELECT on the warehouse. Wrong lines do not
    end the iteration at once: all of them are collected and raised together at its end.

    Raises:
        ConfigurationError: the file cannot be read.
        ScopeListError: lines that do not fit, each named by its number.
    """
    if settings.file:
        path = folder / Path(settings.file).expanduser()
        return _check_lines(_read_file(path), f"The scopes file {path}")
    if settings.query:
        return _check_lines(_number("row", query_rows(settings.query)), "The answer of scopes_query")
    where = "The scopes list" if settings.origin == "tables" else "The product of the id lists"
    unit = "entry" if settings.origin == "tables" else "combination"
    return _check_lines(_number(unit, settings.rows), where)


def _number(unit: str, records: Iterable[Record]) -> Iterator[tuple[str, int, Record]]:
    for position, record in enumerate(records, start=1):
        yield unit, position, record


def _check_lines(lines: Iterable[tuple[str, int, Record]], where: str) -> Iterator[Scope]:
    wrong: dict[tuple[str, str], list[int]] = defaultdict(list)
    for unit, position, record in lines:
        try:
            yield parse_scope(record)
        except ValueError as error:
            wrong[unit, str(error)].append(position)
    if wrong:
        raise ScopeListError(_describe_wrong_lines(where, wrong))


def _describe_wrong_lines(where: str, wrong: Mapping[tuple[str, str], list[int]]) -> str:
    count = len({position for positions in wrong.values() for position in positions})
    details = "\n".join(
        f"  - {unit} {_to_ranges(positions)}: {reason}" for (unit, reason), positions in wrong.items()
    )
    return (
        f"{where} has {count} wrong line{'s' * (count > 1)}; nothing was loaded:\n{details}\n"
        f"Each line needs {' and '.join(_REQUIRED_COLUMNS)} as UUIDs, and reseller_id as a UUID or left empty."
    )


def _to_ranges(numbers: list[int]) -> str:
    """`[3, 7, 8, 9]` as "3, 7-9"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, bounds)) for bounds in ranges)


def _read_file(path: Path) -> Iterator[tuple[str, int, Record]]:
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".json": _read_json}
    reader = readers.get(path.suffix.lower(), _read_json_lines)
    if path.suffix.lower() not in FILE_TYPES:
        raise ConfigurationError(
            f"The scopes file {path} is of an unknown type. Valid endings: {', '.join(FILE_TYPES)}."
        )
    try:
        yield from reader(path)
    except FileNotFoundError:
        raise ConfigurationError(
            f"The scopes file {path} does not exist. Correct the path; relative ones start at the project folder "
            "for scopes_file and at the current folder for --scopes-file."
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"The scopes file {path} is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigurationError(f"The scopes file {path} cannot be read: {error.strerror or error}.") from error


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    missing = [name for name in _REQUIRED_COLUMNS if name not in set(columns)]
    if missing:
        raise ConfigurationError(
            f"The scopes file {path} has no column {' and no column '.join(missing)} (it has: "
            f"{', '.join(columns) or 'none'}). The columns are {', '.join(ID_COLUMNS)}; the last may be left out."
        )


def _read_csv(path: Path) -> Iterator[tuple[str, int, Record]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        separator = ";" if header.count(";") > header.count(",") else ","
        columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
        _check_columns(path, columns)
        reader = csv.reader(file, delimiter=separator)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield "line", reader.line_num + 1, dict(zip(columns, cells, strict=False))
        except csv.Error as error:
            raise ConfigurationError(
                f"The scopes file {path} is not valid CSV at line {reader.line_num + 1}: {error}."
            ) from None


def _read_parquet(path: Path) -> Iterator[tuple[str, int, Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.stat()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            position = 0
            columns = [name for name in ID_COLUMNS if name in names]
            for batch in file.iter_batches(_CHUNK_ROWS, columns=columns):
                for record in batch.to_pylist():
                    position += 1
                    yield "row", position, record
    except pa.ArrowException as error:
        raise ConfigurationError(f"The scopes file {path} is not valid Parquet: {error}.") from None


def _read_json(path: Path) -> Iterator[tuple[str, int, Record]]:
    try:
        elements = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"The scopes file {path} is not valid JSON: {error}.") from None
    if not isinstance(elements, list):
        raise ConfigurationError(f"The scopes file {path} holds no JSON array of objects.")
    for position, element in enumerate(elements, start=1):
        yield "element", position, element if isinstance(element, dict) else {}


def _read_json_lines(path: Path) -> Iterator[tuple[str, int, Record]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                element = json.loads(line)
            except json.JSONDecodeError:
                element = {}
            yield "line", number, element if isinstance(element, dict) else {}
