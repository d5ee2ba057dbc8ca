"""The lines of a scope list, from the configuration, a file or a warehouse query, checked line by line."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
# what a line is called, its number, and its values or the reason why it has none
Line = tuple[str, int, Record | str]


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
        where = "The answer of scopes_query"
        return _check_lines(_number("row", _check_first(query_rows(settings.query), where)), where)
    where = "The scopes list" if settings.origin == "tables" else "The product of the id lists"
    unit = "entry" if settings.origin == "tables" else "combination"
    return _check_lines(_number(unit, settings.rows), where)


def _number(unit: str, records: Iterable[Record]) -> Iterator[Line]:
    for position, record in enumerate(records, start=1):
        yield unit, position, record


def _check_first(rows: Iterator[Record], where: str) -> Iterator[Record]:
    for number, row in enumerate(rows):
        if number == 0:
            _check_columns(where, row)
        yield row


def _check_lines(lines: Iterable[Line], where: str) -> Iterator[Scope]:
    wrong: dict[tuple[str, str], list[int]] = defaultdict(list)
    for unit, position, record in lines:
        try:
            if isinstance(record, str):
                raise ValueError(record)
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


def _read_file(path: Path) -> Iterator[Line]:
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


def _check_columns(where: str, columns: Collection[str]) -> None:
    missing = [name for name in _REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise ConfigurationError(
            f"{where} has no column {' and no column '.join(missing)} (it has: {', '.join(columns) or 'none'}). "
            f"The columns are {', '.join(ID_COLUMNS)}; the last may be left out."
        )


def _read_csv(path: Path) -> Iterator[Line]:
    line_number = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            header = file.readline()
            separator = ";" if header.count(";") > header.count(",") else ","
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
            _check_columns(f"The scopes file {path}", columns)
            reader = csv.reader(file, delimiter=separator)
            line_number = 2
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield "line", line_number, dict(zip(columns, cells, strict=False))
                line_number = reader.line_num + 2
        except csv.Error as error:
            raise ConfigurationError(
                f"The scopes file {path} is not valid CSV at line {line_number}: {error}. Correct the line."
            ) from None


def _read_parquet(path: Path) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.stat()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(f"The scopes file {path}", [name.lower() for name in names])
            position = 0
            columns = [name for name in names if name.lower() in ID_COLUMNS]
            for batch in file.iter_batches(_CHUNK_ROWS, columns=columns):
                for record in batch.to_pylist():
                    position += 1
                    yield "row", position, _lower_names(record)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigurationError(
            f"The scopes file {path} is not valid Parquet: {reason}. Write the file anew, or use CSV."
        ) from None


def _read_json(path: Path) -> Iterator[Line]:
    try:
        elements = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"The scopes file {path} is not valid JSON: {error}. Correct it there.") from None
    if not isinstance(elements, list):
        raise ConfigurationError(
            f"The scopes file {path} holds no JSON array. Make it an array of objects with "
            f"{', '.join(ID_COLUMNS)}; a file of one object per line ends in .jsonl."
        )
    for position, element in enumerate(elements, start=1):
        yield "element", position, _read_element(element)


def _read_json_lines(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield "line", number, _parse_json_line(line)


def _parse_json_line(line: str) -> Record | str:
    try:
        return _read_element(json.loads(line))
    except (json.JSONDecodeError, RecursionError):
        return "it is not valid JSON"


def _read_element(element: object) -> Record | str:
    return _lower_names(element) if isinstance(element, dict) else "it is not a JSON object"


def _lower_names(record: Record) -> Record:
    return {name.lower(): value for name, value in record.items()}
