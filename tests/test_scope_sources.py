"""Scope lists from the configuration, from files and from a query, checked line by line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import INSTANCE, new_id

from cockpit_source.errors import ConfigurationError, ScopeListError
from cockpit_source.pipeline import create_pipeline
from cockpit_source.scope_sources import iter_scopes
from cockpit_source.scopes import Scope
from cockpit_source.settings import ScopeSettings
from cockpit_source.warehouse import Warehouse

A = Scope(new_id(1), INSTANCE, None)
B = Scope(new_id(2), INSTANCE, new_id(5))
RECORDS: list[dict[str, Any]] = [
    {"customer_id": A.customer_id, "provider_instance_id": INSTANCE, "reseller_id": None},
    {"customer_id": B.customer_id, "provider_instance_id": INSTANCE, "reseller_id": B.reseller_id},
]
HEADER = "customer_id,provider_instance_id,reseller_id\n"
NEEDS = "Each line needs customer_id and provider_instance_id as UUIDs, and reseller_id as a UUID or left empty."


def read(folder: Path, name: str, content: str | bytes) -> list[Scope]:
    """The scopes of a file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(iter_scopes(ScopeSettings("file", file=name), folder, no_query))


def refusal(folder: Path, name: str, content: str | bytes, kind: type[ConfigurationError] = ScopeListError) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, name, content)
    assert type(caught.value) is kind
    assert caught.value.exit_code == 2
    return str(caught.value)


def no_query(sql: str) -> Iterator[dict[str, Any]]:
    raise AssertionError(sql)


def row(scope: Scope, separator: str = ",") -> str:
    return separator.join((scope.customer_id, scope.provider_instance_id, scope.reseller_id or ""))


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}{row(A)}\n{row(B)}\n",
        f"{HEADER}{row(A)}\n{row(B)}",
        f"\ufeff{HEADER}{row(A)}\n{row(B)}\n",
        f"{HEADER}{row(A)}\n{row(B)}\n".replace("\n", "\r\n"),
        f"{HEADER}\n  \n{row(A)}\n,,\n{row(B)}\n\n\n",
        f"{HEADER}{row(A)}-\n{row(B)}\n",
        f"{HEADER}{A.customer_id},{INSTANCE}\n{row(B)}\n",
        HEADER.replace(",", ";") + f"{row(A, ';')}\n{row(B, ';')}\n",
        f"Customer_ID, PROVIDER_INSTANCE_ID ,Reseller_Id\n{row(A)}\n{row(B)}\n",
        f'"customer_id","provider_instance_id","reseller_id"\n"{A.customer_id}","{INSTANCE}",""\n{row(B)}\n',
        f"{HEADER}{row(A).upper()}\n {B.customer_id} , {{{INSTANCE}}} ,{{{str(B.reseller_id).upper()}}}\n",
        f"reseller_id,name,provider_instance_id,customer_id\n-,Ärger & Söhne,{INSTANCE},{A.customer_id}\n"
        f'{B.reseller_id},"a ""quoted"", name",{INSTANCE},{B.customer_id},more,cells\n',
    ],
    ids=[
        "plain",
        "no_newline_at_end",
        "byte_order_mark",
        "crlf",
        "blank_lines",
        "dash_for_no_reseller",
        "short_line",
        "semicolons",
        "header_in_any_case",
        "quoted",
        "upper_case_blanks_and_braces",
        "other_columns_and_order",
    ],
)
def test_csv_is_read(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, "scopes.csv", content) == [A, B]


def test_csv_without_resellers_is_read(tmp_path: Path) -> None:
    content = f"customer_id,provider_instance_id\n{A.customer_id},{INSTANCE}\n"
    assert read(tmp_path, "SCOPES.CSV", content) == [A]


def test_wrong_lines_of_a_csv_are_all_named(tmp_path: Path) -> None:
    """By the numbers that an editor shows: blank lines and line breaks inside quotes count."""
    lines = [
        row(A) + ",x",
        f'{A.customer_id},{INSTANCE},,"a name',
        'over two lines"',
        f"not-a-uuid,{INSTANCE},",
        "",
        f'{A.customer_id},,,"again',
        "",
        'over three"',
        f",{INSTANCE},",
        f"also,{INSTANCE},",
        f"as well,{INSTANCE},",
        f"{A.customer_id},{INSTANCE},nobody",
    ]
    message = refusal(tmp_path, "scopes.csv", HEADER.strip() + ",name\n" + "\n".join(lines) + "\n")
    assert message.splitlines() == [
        f"The scopes file {tmp_path / 'scopes.csv'} has 6 wrong lines; nothing was loaded:",
        "  - line 5, 11-12: customer_id is not a UUID",
        "  - line 7: provider_instance_id is missing",
        "  - line 10: customer_id is missing",
        "  - line 13: reseller_id is not a UUID",
        NEEDS,
    ]


def test_wrong_line_after_crlf_keeps_its_number(tmp_path: Path) -> None:
    message = refusal(tmp_path, "scopes.csv", f"{HEADER}{row(A)}\n\nx,y\n".replace("\n", "\r\n"))
    assert "has 1 wrong line; nothing was loaded:\n  - line 4: customer_id is not a UUID\n" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("scopes.csv", "", "has no column customer_id and no column provider_instance_id (it has: none)"),
        ("scopes.csv", f"{row(A)}\n", "has no column customer_id and no column provider_instance_id (it has: "),
        ("scopes.csv", "customer_id,name\n", "has no column provider_instance_id (it has: customer_id, name)"),
        ("scopes.csv", f"{HEADER}\xff\n".encode("latin-1"), "is not UTF-8 text. Save it as UTF-8."),
        ("scopes.csv", HEADER + "x" * 200_000, "is not valid CSV at line 2: field larger than field limit"),
        ("scopes.csv", "x" * 200_000, "is not valid CSV at line 1: field larger than field limit"),
        ("scopes.json", "", "is not valid JSON: Expecting value: line 1 column 1"),
        ("scopes.json", "[{]", "is not valid JSON: Expecting property name"),
        ("scopes.json", "[" * 100_000, "is not valid JSON: maximum recursion depth exceeded"),
        ("scopes.json", '{"customer_id": "x"}', "holds no JSON array. Make it an array of objects with customer_id,"),
        ("scopes.json", b"[\xff]", "is not UTF-8 text. Save it as UTF-8."),
        ("scopes.jsonl", b"\xff", "is not UTF-8 text. Save it as UTF-8."),
        (
            "scopes.parquet",
            "",
            "is not valid Parquet: Parquet file size is 0 bytes. Write the file anew, or use CSV.",
        ),
        ("scopes.parquet", HEADER, "is not valid Parquet: "),
        ("scopes.xlsx", "", "is of an unknown type. Valid endings: .csv, .parquet, .json, .jsonl, .ndjson."),
        ("scopes", "", "is of an unknown type. Valid endings: .csv, .parquet, .json, .jsonl, .ndjson."),
    ],
)
def test_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    message = refusal(tmp_path, name, content, ConfigurationError)
    assert message.startswith(f"The scopes file {tmp_path / name} {expected}")
    assert len(message) < 600


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl", ".ndjson", ".parquet"])
def test_missing_file_or_folder_instead_is_told(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(ConfigurationError, match=rf"missing{ending} does not exist. Correct the path; relative ones"):
        list(iter_scopes(ScopeSettings("file", file=f"missing{ending}"), tmp_path, no_query))
    with pytest.raises(ConfigurationError, match=rf"folder{ending} cannot be read: .*[Dd]irectory"):
        list(iter_scopes(ScopeSettings("file", file=f"folder{ending}"), tmp_path, no_query))


def test_path_starts_at_the_folder_unless_absolute_or_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder, scope in (("project", A), ("home", B)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.csv").write_text(f"{HEADER}{row(scope)}\n")
    project = tmp_path / "project"
    for file, expected in (("s.csv", A), ("../home/s.csv", B), ("~/s.csv", B), (str(tmp_path / "home/s.csv"), B)):
        assert list(iter_scopes(ScopeSettings("file", file=file), project, no_query)) == [expected]


@pytest.mark.parametrize("upper", [False, True])
def test_parquet_is_read(tmp_path: Path, upper: bool) -> None:
    table = pa.Table.from_pylist([{"name": "x", **record} for record in RECORDS])
    if upper:
        table = table.rename_columns([name.upper() for name in table.column_names])
    pq.write_table(table, tmp_path / "s.parquet")
    assert list(iter_scopes(ScopeSettings("file", file="s.parquet"), tmp_path, no_query)) == [A, B]


def test_parquet_with_uuid_columns_is_read(tmp_path: Path) -> None:
    """As DuckDB writes them."""
    duckdb.execute(
        f"COPY (SELECT '{A.customer_id}'::UUID AS customer_id, '{INSTANCE}'::UUID AS provider_instance_id, "
        f"NULL::UUID AS reseller_id) TO '{tmp_path / 's.parquet'}'"
    )
    assert list(iter_scopes(ScopeSettings("file", file="s.parquet"), tmp_path, no_query)) == [A]


def test_wrong_rows_of_parquet_are_named_over_chunks(tmp_path: Path) -> None:
    records = [RECORDS[0]] * 25_000
    for position in (1, 10_000, 10_001, 24_999):
        records[position - 1] = {**RECORDS[0], "provider_instance_id": "x"}
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "s.parquet")
    with pytest.raises(ScopeListError, match=r"row 1, 10000-10001, 24999: provider_instance_id is not a UUID"):
        list(iter_scopes(ScopeSettings("file", file="s.parquet"), tmp_path, no_query))


def test_parquet_without_a_column_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"customer_id": ["x"], "other": [1]}), tmp_path / "s.parquet")
    with pytest.raises(
        ConfigurationError, match=r"has no column provider_instance_id \(it has: customer_id, other\)"
    ):
        list(iter_scopes(ScopeSettings("file", file="s.parquet"), tmp_path, no_query))


def test_json_is_read(tmp_path: Path) -> None:
    content = json.dumps([RECORDS[0], {name.upper(): value for name, value in RECORDS[1].items()}])
    assert read(tmp_path, "scopes.json", content) == [A, B]
    assert read(tmp_path, "scopes.json", "\ufeff" + content) == [A, B]


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson"])
def test_json_lines_are_read(tmp_path: Path, ending: str) -> None:
    content = f"\ufeff{json.dumps(RECORDS[0])}\r\n\n{json.dumps(RECORDS[1])}"
    assert read(tmp_path, f"scopes{ending}", content) == [A, B]


def test_wrong_elements_of_json_are_named(tmp_path: Path) -> None:
    elements = [RECORDS[0], 5, {}, {**RECORDS[0], "customer_id": 5}, {**RECORDS[0], "reseller_id": ["x"]}, "x", None]
    assert refusal(tmp_path, "scopes.json", json.dumps(elements)).splitlines()[1:-1] == [
        "  - element 2, 6-7: it is not a JSON object",
        "  - element 3: customer_id is missing",
        "  - element 4: customer_id is not a UUID",
        "  - element 5: reseller_id is not a UUID",
    ]


def test_wrong_json_lines_are_named(tmp_path: Path) -> None:
    lines = [json.dumps(RECORDS[0]), "", "{broken", "[]", json.dumps({"customer_id": A.customer_id})]
    assert refusal(tmp_path, "scopes.jsonl", "\n".join(lines)).splitlines()[1:-1] == [
        "  - line 3: it is not valid JSON",
        "  - line 4: it is not a JSON object",
        "  - line 5: provider_instance_id is missing",
    ]


def test_configured_tables_are_checked(tmp_path: Path) -> None:
    rows = ({"customer_id": A.customer_id.upper(), "provider_instance_id": INSTANCE}, {"customer_id": 5})
    assert list(iter_scopes(ScopeSettings("tables", rows=rows[:1]), tmp_path, no_query)) == [A]
    with pytest.raises(ScopeListError, match=r"The scopes list has 1 wrong line.*\n  - entry 2: customer_id is not"):
        list(iter_scopes(ScopeSettings("tables", rows=rows), tmp_path, no_query))


def test_combinations_of_the_id_lists_are_checked(tmp_path: Path) -> None:
    rows = tuple({**RECORDS[0], "reseller_id": reseller} for reseller in ("-", "x", B.reseller_id))
    with pytest.raises(
        ScopeListError, match=r"The product of the id lists has 1 wrong line.*\n  - combination 2: res"
    ):
        list(iter_scopes(ScopeSettings("lists", rows=rows), tmp_path, no_query))


_IDS = st.integers(0, 20).map(new_id)
_NOBODY = st.sampled_from(["", " ", "-", " - "])
_SPOILT = st.sampled_from(["x", "5", "Ä", "{}}", "null", new_id(1)[:-1], new_id(1) + "0", "a\nb", 'quo"te', "a,b;c"])


@st.composite
def _lines(draw: st.DrawFn) -> tuple[tuple[str, str, str], Scope | None]:
    """Cells of a line, and its scope unless it is wrong."""
    customer, instance = draw(_IDS), draw(_IDS)
    reseller = draw(st.one_of(st.none(), _IDS))
    written = [_write(draw, customer), _write(draw, instance), _write(draw, reseller) if reseller else draw(_NOBODY)]
    if draw(st.booleans()):
        return (written[0], written[1], written[2]), Scope(customer, instance, reseller)
    spoilt = draw(st.integers(0, 2))
    written[spoilt] = draw(_SPOILT if spoilt == 2 else st.one_of(_SPOILT, st.just(""), st.just("  ")))
    return (written[0], written[1], written[2]), None


def _write(draw: st.DrawFn, text: str) -> str:
    return draw(st.sampled_from([text, text.upper(), f" {text} ", f"{{{text}}}"]))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(_lines(), max_size=12),
    separator=st.sampled_from([",", ";"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_any_list_gives_its_scopes_or_exactly_its_wrong_lines(
    tmp_path: Path, lines: list[tuple[tuple[str, str, str], Scope | None]], separator: str, newline: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=newline)
    writer.writerow(HEADER.strip().split(","))
    wrong, scopes = [], []
    for cells, scope in lines:
        number = len(re.findall(r"\r\n|\n", text.getvalue())) + 1
        writer.writerow(cells)
        if scope is not None:
            scopes.append(scope)
        elif any(cell.strip() for cell in cells):
            wrong.append(number)
    if wrong:
        assert _numbers(refusal(tmp_path, "any.csv", text.getvalue())) == wrong
    else:
        assert read(tmp_path, "any.csv", text.getvalue()) == scopes


def _numbers(message: str) -> list[int]:
    """The line numbers that a message names."""
    numbers: list[int] = []
    for part in ", ".join(re.findall(r"^  - line ([\d, -]+):", message, re.MULTILINE)).split(", "):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return sorted(numbers)


IDS = "SELECT customer AS customer_id, instance AS provider_instance_id, reseller AS reseller_id"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """A warehouse in which another program keeps a table of contracts; nothing of ours is there yet."""
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CREATE SCHEMA crm")
        connection.execute(
            "CREATE TABLE crm.contracts AS SELECT ?::UUID AS Customer, ?::UUID AS instance, ?::VARCHAR AS reseller, "
            "'50%' AS discount",
            [A.customer_id, INSTANCE, None],
        )
        connection.execute("INSERT INTO crm.contracts VALUES (?, ?, ?, '')", list(B))
    return Warehouse(create_pipeline("t", database=tmp_path / "w.duckdb", pipelines_dir=tmp_path / "pipelines"))


def query(warehouse: Warehouse, folder: Path, sql: str) -> list[Scope]:
    return list(iter_scopes(ScopeSettings("query", query=sql), folder, warehouse.query_rows))


@pytest.mark.parametrize(
    "sql",
    [
        f"{IDS} FROM crm.contracts ORDER BY reseller NULLS FIRST",
        "select CUSTOMER as CUSTOMER_ID, instance as Provider_Instance_Id, reseller as RESELLER_ID, discount "
        "from crm.contracts order by reseller nulls first; -- a comment;",
        "WITH c AS (SELECT * FROM crm.contracts) SELECT reseller AS reseller_id, instance AS provider_instance_id, "
        "customer AS customer_id FROM c WHERE discount LIKE '%' ORDER BY reseller NULLS FIRST",
        f"({IDS} FROM crm.contracts "
        "WHERE reseller IS NULL) UNION ALL SELECT customer, instance, reseller FROM crm.contracts "
        "WHERE reseller IS NOT NULL",
        f"FROM crm.contracts {IDS} ORDER BY reseller NULLS FIRST",
    ],
)
def test_query_is_read(warehouse: Warehouse, tmp_path: Path, sql: str) -> None:
    assert query(warehouse, tmp_path, sql) == [A, B]


def test_wrong_rows_of_a_query_are_named(warehouse: Warehouse, tmp_path: Path) -> None:
    sql = "SELECT customer AS customer_id, discount AS provider_instance_id FROM crm.contracts ORDER BY discount"
    with pytest.raises(ScopeListError) as caught:
        query(warehouse, tmp_path, sql)
    assert str(caught.value).splitlines() == [
        "The answer of scopes_query has 2 wrong lines; nothing was loaded:",
        "  - row 1: provider_instance_id is missing",
        "  - row 2: provider_instance_id is not a UUID",
        NEEDS,
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELEC 1",
            "scopes_query is not valid SQL: Invalid expression / Unexpected token at line 1, column 7. Correct",
        ),
        ("SELECT (1", "scopes_query is not valid SQL: "),
        ("SELECT 'a", "scopes_query is not valid SQL: "),
        ("SELECT 1; SELECT 2", "scopes_query is not one SELECT. Make it one, with the columns customer_id,"),
        ("-- nothing", "scopes_query is not one SELECT."),
        ("DROP TABLE crm.contracts", "scopes_query is not one SELECT."),
        ("DELETE FROM crm.contracts", "scopes_query is not one SELECT."),
        ("UPDATE crm.contracts SET discount = ''", "scopes_query is not one SELECT."),
        ("COPY crm.contracts TO 'x.csv'", "scopes_query is not one SELECT."),
        ("PRAGMA database_list", "scopes_query is not one SELECT."),
        ("WITH x AS (DELETE FROM crm.contracts RETURNING *) SELECT * FROM x", "scopes_query is not one SELECT."),
        ("SELECT * INTO crm.copy FROM crm.contracts", "scopes_query is not one SELECT."),
        ("SELECT x FROM crm.contracts", 'scopes_query failed: Binder Error: Referenced column "x" not found'),
        ("SELECT * FROM crm.nothing", "scopes_query failed: Catalog Error: Table with name nothing does not exist"),
        ("SELECT customer_id FROM cockpit.scopes", "scopes_query failed: Catalog Error: Table with name "),
        (
            "SELECT customer FROM crm.contracts",
            "The answer of scopes_query has no column customer_id and no column provider_instance_id "
            "(it has: customer)",
        ),
        ("SELECT 'x'::INTEGER AS customer_id, '' AS provider_instance_id", "scopes_query failed: Conversion Error: "),
    ],
)
def test_query_that_does_not_work_is_told_and_changes_nothing(
    warehouse: Warehouse, tmp_path: Path, sql: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        query(warehouse, tmp_path, sql)
    message = str(caught.value)
    assert message.startswith(expected)
    assert "\n" not in message
    assert "\x1b" not in message
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        assert connection.execute("SELECT count(*) FROM crm.contracts").fetchall() == [(2,)]


def test_query_without_rows_gives_no_scopes(warehouse: Warehouse, tmp_path: Path) -> None:
    assert query(warehouse, tmp_path, "SELECT customer FROM crm.contracts WHERE false") == []
