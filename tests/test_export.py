"""`cockpit export`: every file holds exactly what its view does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from report_world import build_priced
from test_html_report import run

from cockpit_source.export import DAYS
from cockpit_source.marts import MartOptions, is_public, render_marts
from cockpit_source.publish import read_copy_path

MARTS = sorted(mart.name for mart in render_marts(MartOptions(), str) if is_public(mart.name))
PLAIN = {"VARCHAR", "BIGINT", "INTEGER", "DOUBLE", "BOOLEAN", "DATE", "TIMESTAMP"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        build_priced(folder / "inventory.duckdb")
        yield folder / "inventory.duckdb"


def export(folder: Path, database: Path, *options: str) -> list[dict[str, Any]]:
    ran = run(folder, "export", "--database", database, "--out", "parquet", "--json", *options)
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)["marts"]
    return found


def read(connection: duckdb.DuckDBPyConnection, source: str) -> list[tuple[Any, ...]]:
    """All rows, sorted, times as UTC without a zone and decimals as doubles."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    columns = []
    for column, kind, *_ in described:
        plain = f"{column} AT TIME ZONE 'UTC'" if kind == "TIMESTAMP WITH TIME ZONE" else column
        columns.append(f"{plain}::DOUBLE" if kind.startswith("DECIMAL") else plain)
    return connection.execute(f"SELECT {', '.join(columns)} FROM {source} ORDER BY ALL").fetchall()


def connect(database: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(read_copy_path(database)), read_only=True)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("USE cockpit")
    return connection


def test_every_file_equals_its_view(database: Path, tmp_path: Path) -> None:
    written = export(tmp_path, database)
    assert [mart["mart"] for mart in written] == MARTS
    assert sorted(path.name for path in (tmp_path / "parquet").iterdir()) == [f"{name}.parquet" for name in MARTS]
    with connect(database) as connection:
        for mart in written:
            path = tmp_path / "parquet" / mart["file"]
            rows = read(connection, f"'{path}'")
            assert rows == read(connection, f'"{mart["mart"]}"'), mart["mart"]
            assert (mart["rows"], mart["size"]) == (len(rows), path.stat().st_size)
            assert rows
            kinds = connection.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
            assert {kind for _, kind, *_ in kinds} <= PLAIN, mart["mart"]
            names = [column for column, *_ in connection.execute(f'DESCRIBE "{mart["mart"]}"').fetchall()]
            assert pq.read_schema(path).names == names


def test_since_leaves_earlier_days_out(database: Path, tmp_path: Path) -> None:
    with connect(database) as connection:
        (day,) = connection.execute("SELECT max(snapshot_date) - 5 FROM fct_daily_totals").fetchall()[0]
        written = export(tmp_path, database, "--since", str(day))
        for mart in written:
            name = mart["mart"]
            condition = f"WHERE {DAYS[name]} >= DATE '{day}'" if name in DAYS else ""
            rows = read(connection, f"'{tmp_path / 'parquet' / mart['file']}'")
            assert rows == read(connection, f'(SELECT * FROM "{name}" {condition})'), name
        (all_days,) = connection.execute("SELECT count(*) FROM fct_daily_inventory").fetchall()[0]
    assert 0 < {mart["mart"]: mart["rows"] for mart in written}["fct_daily_inventory"] < all_days


def test_since_after_the_last_day_is_refused(database: Path, tmp_path: Path) -> None:
    with connect(database) as connection:
        last, first = connection.execute("SELECT max(compared_on), min(compared_on) FROM int_days").fetchall()[0]
    ran = run(tmp_path, "export", "--database", database, "--out", "parquet", "--since", last + timedelta(days=2))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--since {last + timedelta(days=2)} is after the last day of the data, " in ran.stderr
    assert not (tmp_path / "parquet").exists()
    today = datetime.now(UTC).date()
    rows = {mart["mart"]: mart["rows"] for mart in export(tmp_path, database, "--since", str(today))}
    assert rows["fct_daily_totals"] > 0
    # a day before all of them is no mistake
    early = {
        mart["mart"]: mart["rows"] for mart in export(tmp_path, database, "--since", str(first.replace(year=2001)))
    }
    assert early == {mart["mart"]: mart["rows"] for mart in export(tmp_path, database)}


@pytest.mark.parametrize("day", ["01.02.2026", "20260131", "yesterday", ""])
def test_since_that_is_no_date_says_the_form(tmp_path: Path, day: str) -> None:
    ran = run(tmp_path, "export", "--out", "parquet", "--since", day)
    assert ran.returncode == 2
    told = " ".join(ran.stderr.replace("│", " ").split())
    assert f"Invalid value for '--since': \"{day}\" is not a date such as 2026-01-31" in told


def test_since_that_no_calendar_has_is_told_as_that(tmp_path: Path) -> None:
    ran = run(tmp_path, "export", "--out", "parquet", "--since", "2026-02-30")
    assert ran.returncode == 2
    assert '"2026-02-30" is not a day of the calendar' in " ".join(ran.stderr.replace("│", " ").split())


def test_again_into_the_same_folder_replaces_the_files(database: Path, tmp_path: Path) -> None:
    first = export(tmp_path, database)
    (tmp_path / "parquet" / "mine.txt").write_text("keep")
    (tmp_path / "parquet" / "metrics.parquet").write_bytes(b"half")
    second = export(tmp_path, database)
    assert [(mart["mart"], mart["rows"]) for mart in second] == [(mart["mart"], mart["rows"]) for mart in first]
    assert (tmp_path / "parquet" / "mine.txt").read_text() == "keep"
    assert len(list((tmp_path / "parquet").iterdir())) == len(MARTS) + 1


def test_prints_rows_and_sizes(database: Path, tmp_path: Path) -> None:
    ran = run(tmp_path, "export", "--database", database, "--out", "parquet")
    assert ran.returncode == 0, ran.stderr
    for name in MARTS:
        assert f"{name}.parquet" in ran.stdout
    assert f"{len(MARTS)} files" in ran.stdout


def test_a_folder_that_cannot_be_made_is_refused(database: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    ran = run(tmp_path, "export", "--database", database, "--out", "file/parquet")
    assert ran.returncode == 2
    assert "cannot be made" in ran.stderr
