"""`cockpit export`: every mart as a Parquet file, streamed by DuckDB from the published copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from rich.console import Console

from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.marts import MartOptions, is_public, render_marts
from cockpit_source.read_copy import open_read_copy
from cockpit_source.redaction import redact
from cockpit_source.report import create_table
from cockpit_source.scratch import quote_path
from cockpit_source.whole_file import replacing

# marts that grow with the history, and their column for --since
DAYS = {"fct_daily_inventory": "snapshot_date", "fct_daily_totals": "snapshot_date", "fct_seat_changes": "to_date"}

_SPILL_FOLDER = ".spill"
_MEMORY_LIMIT = "1GB"
_BATCH_ROWS = 100_000
_ROWS_AT_A_TIME = 250_000


@dataclass(frozen=True, slots=True)
class ExportedMart:
    """One file."""

    mart: str
    file: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and where."""

    folder: Path
    marts: tuple[ExportedMart, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {"folder": str(self.folder), "marts": [asdict(mart) for mart in self.marts]}


def export_marts(
    out: Path, *, destination: str, database: Path | None, dataset: str, since: date | None = None
) -> Exported:
    """Write every mart into the folder `out`, all of one state of the read copy, each file whole or not at all.

    `since` leaves earlier days out of the marts that grow with the history.

    Raises:
        ConfigurationError: the destination has no read copy, `since` lies after all days, or `out` cannot be written.
        WarehouseError: there is no read copy, nothing was loaded, or the marts are not built.
    """
    with open_read_copy(destination, database, dataset, what="The export") as shown:
        try:
            if since:
                _require_days(shown, since)
            _make_folder(out)
            with _connect(shown.path, dataset, out) as connection:
                found = tuple(_export(connection, name, out, since) for name in _mart_names())
        except duckdb.Error as error:
            raise WarehouseError(
                f"{shown.path} could not be exported: {redact(str(error).splitlines()[0])}. Run `cockpit marts` to "
                "build the marts anew, and see that the disk has room; then run again."
            ) from None
    return Exported(out, found)


def print_exported(exported: Exported, console: Console) -> None:
    """Rows and sizes, a line per mart."""
    table = create_table("mart", "file", "rows", "KiB", right=("rows", "KiB"))
    for mart in exported.marts:
        table.add_row(mart.mart, mart.file, f"{mart.rows:,}", f"{mart.size / 1024:,.1f}")
    console.print(table)
    size = sum(mart.size for mart in exported.marts)
    console.print(
        f"{len(exported.marts)} files, {size / 1024**2:,.1f} MiB, in {exported.folder}. Times are UTC.",
        markup=False,
        soft_wrap=True,
    )


def _mart_names() -> list[str]:
    return sorted(mart.name for mart in render_marts(MartOptions(), str) if is_public(mart.name))


def _require_days(shown: ShownDatabase, since: date) -> None:
    (found,) = shown.query("SELECT max(compared_on) AS last_day FROM int_days").to_pylist()
    today = datetime.now(UTC).date()
    last: date = max(found["last_day"] or today, today)
    if since > last:
        raise ConfigurationError(
            f"--since {since} is after the last day of the data, {last}, so that the marts of days would be empty. "
            "Give that day or an earlier one. Nothing was written."
        )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {out} cannot be made: {error.strerror}. Name another with --out."
        ) from None


def _connect(copy: Path, dataset: str, out: Path) -> duckdb.DuckDBPyConnection:
    """An own DuckDB in memory that has the copy attached, so that all files are of one state of it.

    What does not fit into memory spills into `out`, which has room for the result anyway.
    """
    connection = duckdb.connect(
        config={
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": str(out / _SPILL_FOLDER),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
        }
    )
    connection.execute(f"ATTACH {quote_path(copy)} AS shown (READ_ONLY)")
    connection.execute(f'USE shown."{dataset}"')
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _export(connection: duckdb.DuckDBPyConnection, name: str, out: Path, since: date | None) -> ExportedMart:
    select = f'SELECT {_plain_columns(connection, name)} FROM "{name}"'
    target = out / f"{name}.parquet"
    rows = 0
    with replacing(target) as unfinished:
        schema = connection.execute(f"{select} LIMIT 0").to_arrow_table().schema
        with pq.ParquetWriter(unfinished, schema) as writer:
            for condition in _conditions(connection, name, since):
                for batch in connection.execute(f"{select} {condition}").to_arrow_reader(_BATCH_ROWS):
                    writer.write_batch(batch)
                    rows += batch.num_rows
    return ExportedMart(name, target.name, rows, target.stat().st_size)


def _conditions(connection: duckdb.DuckDBPyConnection, name: str, since: date | None) -> Iterator[str]:
    """The mart in parts, each with the rows of so many days that memory holds it; those not of days in one."""
    if name not in DAYS:
        yield ""
        return
    first, last = _one_row(connection, "SELECT min(compared_on), max(compared_on) FROM int_days")
    if first is None:
        return
    (held,) = _one_row(connection, "SELECT count(*) FROM licenses")
    step = timedelta(days=max(1, _ROWS_AT_A_TIME // max(1, held)))
    day = max(first, since or first)
    while day <= last:
        end = day + step
        yield f"WHERE {DAYS[name]} >= DATE '{day.isoformat()}' AND {DAYS[name]} < DATE '{end.isoformat()}'"
        day = end


def _one_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always answers with one row
    return row


def _plain_columns(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The columns with types that every reader of Parquet knows: times as UTC without a zone, decimals as doubles."""
    columns = connection.execute(f'DESCRIBE "{name}"').fetchall()
    return ", ".join(_plain(str(column), str(kind)) for column, kind, *_ in columns)


def _plain(column: str, kind: str) -> str:
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f'"{column}" AT TIME ZONE \'UTC\' AS "{column}"'
    if kind.startswith("DECIMAL"):
        return f'"{column}"::DOUBLE AS "{column}"'
    return f'"{column}"'
