"""Queries from their text to candidates, on a real DuckDB file and a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bare_inventory import TENANT, BareInventory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import INSTANCE, Inventory, day, new_id
from test_deletion_sql_allow_list import COLUMNS, HOSTILE
from test_discovery import load as load_discovered

from cockpit_source.deletions.locked_run import run_locked
from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Candidate
from cockpit_source.deletions.selection import (
    DeletionQuery,
    named_queries,
    named_query,
    read_query,
    select_candidates,
)
from cockpit_source.deletions.sql_allow_list import to_checked_sql
from cockpit_source.deletions.sql_text import MAX_BYTES
from cockpit_source.errors import ConfigurationError, DeletionRefused
from cockpit_source.sandbox import Sandbox

NOW = datetime(2026, 6, 1, 6, tzinfo=UTC)
A, B, C, R, OTHER = new_id(1), new_id(2), new_id(3), new_id(9), new_id(8)


@pytest.fixture(params=["duckdb", "postgres"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> BareInventory:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return BareInventory(tmp_path, url)


def select(inventory: BareInventory | Inventory, sql: str) -> list[Candidate]:
    return select_candidates(DeletionQuery("test.sql", sql), inventory.pipeline())


def refused_code(inventory: BareInventory, sql: str, match: str = "") -> str:
    with pytest.raises(DeletionRefused, match=match) as refused:
        select(inventory, sql)
    return refused.value.code


def row(action: str, customer: str | None, instance: str | None, reason: str | None = "why") -> str:
    values = [
        "NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in (customer, instance, reason)
    ]
    typed = [f"CAST({value} AS VARCHAR) AS {name}" for value, name in zip(values, _NAMES, strict=True)]
    return f"SELECT {action} AS action, {', '.join(typed)}"


_NAMES = ("customer_id", "provider_instance_id", "reason")
_DELETE, _REMOVE = f"'{DELETE_CUSTOMER}'", f"'{REMOVE_RELATIONSHIP}'"


def test_nothing_hostile_reaches_the_tables(bare: BareInventory) -> None:
    bare.insert("customers", id=A)
    before = bare.every_row()
    pipeline = bare.pipeline()
    for sql in HOSTILE:
        with pytest.raises(DeletionRefused):
            select_candidates(DeletionQuery("hostile.sql", sql), pipeline)
    assert bare.every_row() == before


_PIECES = st.sampled_from(
    f"""SELECT|{COLUMNS}|FROM|customers|WHERE|id|=|'x'|UNION ALL|;|DROP TABLE customers|DELETE FROM|--|/*|*/|'|"|(|)|*
    |,|NULL|count(*)|GROUP BY|ORDER BY|1|cockpit.|CAST(|AS DATE)|INTERVAL '1 day'|COPY
    |TO 'x.csv'|lower(|%|%s""".split("|")
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sql=st.text(max_size=80)
    | st.lists(_PIECES, max_size=15).map(" ".join)
    | st.lists(_PIECES, max_size=8).map(lambda pieces: f"SELECT {COLUMNS} FROM customers " + " ".join(pieces))
)
def test_any_text_is_refused_or_selects_and_changes_nothing(bare: BareInventory, sql: str) -> None:
    before = bare.content_hash if bare.url is None else bare.every_row()
    try:
        candidates = select_candidates(DeletionQuery("any.sql", sql), bare.cached_pipeline)
    except (DeletionRefused, ConfigurationError):
        candidates = []
    assert candidates == []
    assert (bare.content_hash if bare.url is None else bare.every_row()) == before
    assert not list(bare.folder.glob("*.csv"))


def test_rows_become_candidates(bare: BareInventory) -> None:
    bare.insert("customers", id=A.upper())
    sql = (
        f"SELECT ' why\n\tmail to a@example.com, ' || 'x' AS Reason, {_DELETE} AS ACTION, id AS \"customer_id\" "
        "FROM customers"
    )
    expected = "why mail to [redacted], x"
    assert select(bare, sql) == [Candidate(DELETE_CUSTOMER, A, None, expected)]
    both = row(_REMOVE, A, INSTANCE.upper()) + " UNION ALL " + row(_DELETE, A, None, "x" * 900)
    candidates = select(bare, f"SELECT * FROM ({both}) x ORDER BY action DESC")
    assert candidates == [
        Candidate(REMOVE_RELATIONSHIP, A, INSTANCE, "why"),
        Candidate(DELETE_CUSTOMER, A, None, "x" * 500),
    ]
    assert select(bare, row(_DELETE, A, None) + " FROM customers WHERE 1 = 0") == []


@pytest.mark.parametrize(
    ("sql", "code", "match"),
    [
        (row("'delete'", A, None), "query_action", "none of"),
        (row("'DELETE_CUSTOMER'", A, None), "query_action", "row 1"),
        (row("''", A, None), "query_null", "action is NULL or blank"),
        (row("CAST(NULL AS VARCHAR)", A, None), "query_null", "action"),
        (row(_DELETE, None, None), "query_null", "customer_id"),
        (row(_DELETE, " ", None), "query_null", "customer_id"),
        (row(_DELETE, A, None, None), "query_null", "reason"),
        (row(_DELETE, A, None, " \n "), "query_null", "reason"),
        (row(_REMOVE, A, None), "query_null", "provider_instance_id"),
        (row(_REMOVE, A, ""), "query_null", "provider_instance_id"),
        (row(_DELETE, A, INSTANCE), "query_action", "does not take"),
        (row(_DELETE, "x", None), "query_not_uuid", "customer_id"),
        (row(_DELETE, f" {A}", None), "query_not_uuid", "customer_id"),
        (row(_DELETE, A.replace("-", ""), None), "query_not_uuid", "customer_id"),
        (row(_REMOVE, A, "x"), "query_not_uuid", "provider_instance_id"),
        (row(_DELETE, A, None) + " UNION ALL " + row(_DELETE, A.upper(), None, "else"), "query_duplicate", "2 rows"),
        (f"SELECT {_DELETE} AS action, '{A}' AS customer_id", "query_columns", "action, customer_id"),
        (f"SELECT '{A}' AS customer_id, 'why' AS reason", "query_columns", "columns"),
        (row(_DELETE, A, None) + ", 1 AS other", "query_columns", "other"),
        (f"SELECT {_DELETE}, '{A}', 'why'", "query_columns", "columns"),
        (f"SELECT x.*, 'again' AS reason FROM ({row(_DELETE, A, None)}) x", "query_columns", "columns"),
        ("SELECT * FROM customers", "query_columns", "columns"),
        ("SELECT nothing FROM customers", "query_failed", "nothing"),
        (f"SELECT {COLUMNS}, 1 / CAST('x' AS INT) AS provider_instance_id FROM customers", "query_failed", "failed"),
    ],
)
def test_rows_that_do_not_fit(bare: BareInventory, sql: str, code: str, match: str) -> None:
    bare.insert("customers", id=A)
    assert refused_code(bare, sql, match) == code


def test_one_bad_row_refuses_all_and_five_are_named(bare: BareInventory) -> None:
    rows = [row(_DELETE, A, None), *(row(_DELETE, f"no {number}", None) for number in range(7))]
    with pytest.raises(DeletionRefused, match=r"no 4.* and 2 more") as refused:
        select(bare, " UNION ALL ".join(rows))
    assert "no 5" not in str(refused.value)


def test_named_and_written_queries(tmp_path: Path) -> None:
    assert list(named_queries()) == ["customers_without_seats_90_days", "relationships_of_closed_resellers"]
    path = tmp_path / "gone.sql"
    path.write_bytes("\ufeffSELECT 1".encode())
    query = read_query(path)
    assert (query.name, query.text) == ("gone.sql", "SELECT 1")
    assert query.query_hash != named_query("customers_without_seats_90_days").query_hash
    with pytest.raises(ConfigurationError, match="customers_without_seats_90_days"):
        named_query("../selection")
    for content in (b"\xff", b"x" * (MAX_BYTES + 1), None):
        path.unlink(missing_ok=True)
        if content:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"gone\.sql"):
            read_query(path)


_EXPRESSIONS = """
count(DISTINCT sku_id)
string_agg(sku_id, ',' ORDER BY sku_id DESC)
bool_or(total_licenses > 3)
sum(total_licenses) FILTER (WHERE valid_to IS NULL)
sum(total_licenses) / count(*)
sum(-total_licenses % 4)
avg(total_licenses)
round(100.0 * sum(consumed_licenses) / nullif(sum(total_licenses), 0), 1)
max(valid_to)::date
max(valid_to)::date - min(valid_from)::date
max(valid_to) - INTERVAL '3 months' > min(valid_from)
max(valid_to) - INTERVAL '90' DAY
date_trunc('month', max(valid_to))
extract(year FROM max(valid_to)) * 100 + extract(month FROM max(valid_to))
max(CASE WHEN total_licenses > 1 AND NOT sku_id = 'b' OR reseller_id IS NULL THEN sku_name ELSE 'x' END)
max(CASE sku_id WHEN 'a' THEN 1 WHEN 'b' THEN 2 END)
max(coalesce(reseller_id, sku_name, 'none')) || ' ' || min(sku_id)
concat_ws('-', max(sku_id), NULL, min(sku_name))
max(length(sku_name)) + max(position('x' in sku_name)) + max(strpos(sku_name, 'u'))
max(substring(sku_name from 2 for 3)) || max(left(sku_name, 2)) || max(right(sku_name, 2))
max(split_part(scope_key, '|', 2)) || max(replace(upper(sku_id), 'A', '\\'))
max(trim(both 'x' from sku_name)) || max(ltrim(sku_name, 'x'))
count(*) FILTER (WHERE sku_name LIKE 'x\\_%' ESCAPE '\\' OR sku_name ILIKE 'X%')
count(*) FILTER (WHERE reseller_id IS DISTINCT FROM sku_id AND total_licenses BETWEEN 1 AND 5)
count(*) FILTER (WHERE sku_id NOT IN ('a', 'c') OR sku_id = ANY (SELECT sku_id FROM licenses))
count(*) FILTER (WHERE (sku_id, total_licenses) IN (SELECT sku_id, total_licenses FROM licenses))
count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM licenses l WHERE l.sku_id = h.sku_id))
greatest(max(total_licenses), 3, NULL) + least(1, max(occurrence))
cast(max(total_licenses) AS numeric(10,2)) / 3
max(total_licenses)::text || cast(max(valid_to) AS varchar(10))
max(sku_name) || 'it''s -- ; /* */ % %s {x}'
1 + 2 * 3 - -4 / 5.0
NOT true OR false AND NULL IS NULL
"""


def test_sql_written_anew_means_the_same(bare: BareInventory) -> None:
    """What was written and reviewed, and what runs, give the same."""
    for sku_id, total, name in (("a", 5, "x_unique"), ("b", 3, "xxl"), ("c", None, None)):
        counts = {"sku_id": sku_id, "total_licenses": total, "consumed_licenses": 1, "sku_name": name}
        add_seats(bare, A, NOW if sku_id == "b" else None, **counts)
    pipeline, dialect = bare.pipeline(), "postgres" if bare.url else "duckdb"
    before = "SET search_path = cockpit; SET TimeZone = 'UTC'; "
    for expression in _EXPRESSIONS.strip().split("\n"):
        written = f"SELECT {expression} AS x FROM license_history h HAVING count(*) > 0"
        expected = bare.execute(before + written)
        checked = to_checked_sql(written, dialect=dialect, dataset="cockpit")
        assert run_locked(checked, pipeline).rows == expected, expression


# --- the queries of the package


def add_customer(inventory: BareInventory, customer: str, *, instances: Any = (INSTANCE,), **values: Any) -> None:
    inventory.insert("customers", id=customer, **values)
    for instance in instances:
        add_scope(inventory, customer, instance)


def add_scope(inventory: BareInventory, customer: str, instance: str, **values: Any) -> None:
    usual = {"scope_key": f"{TENANT}|{customer}|{instance}|-", "last_outcome": "empty", "last_good_at": NOW}
    inventory.insert("scopes", customer_id=customer, provider_instance_id=instance, **(usual | values))


def add_seats(inventory: BareInventory, customer: str, until: datetime | None, **counts: Any) -> None:
    common = {
        "scope_key": f"{TENANT}|{customer}|{INSTANCE}|-",
        "customer_id": customer,
        "provider_instance_id": INSTANCE,
        **({"total_licenses": 5, "consumed_licenses": 5, "suspended_licenses": 0} | counts),
    }
    inventory.insert("license_history", **common, valid_from=NOW - timedelta(days=300), valid_to=until)
    if until is None:
        inventory.insert("licenses", **common)


ZERO = {"total_licenses": 0, "consumed_licenses": 0, "suspended_licenses": 0}


def test_customers_without_seats(bare: BareInventory) -> None:
    """Whoever holds, held lately, or may hold a seat is left out."""
    ids = [new_id(100 + number) for number in range(14)]
    bare.insert("runs", run_id="r1", started_at=NOW - timedelta(days=1))
    bare.insert("runs", run_id="r2", started_at=NOW)
    # chosen
    add_customer(bare, ids[0], instances=(INSTANCE, OTHER))
    add_customer(bare, ids[1])
    add_seats(bare, ids[1], NOW - timedelta(days=91))
    add_customer(bare, ids[2])
    add_seats(bare, ids[2], None, **ZERO)
    # not chosen: seats until lately, seats now, unknown seats, suspended ones
    for number, until, counts in (
        (3, NOW - timedelta(days=89), {}),
        (4, None, {}),
        (5, None, ZERO | {"total_licenses": None}),
        (6, None, ZERO | {"suspended_licenses": 1}),
        (7, None, ZERO | {"total_licenses": 1}),
    ):
        add_customer(bare, ids[number])
        add_seats(bare, ids[number], until, **counts)
    # removed, new, without a listed scope, with a scope that was not read, or is new
    add_customer(bare, ids[8], removed_at=NOW)
    add_customer(bare, ids[9], first_seen_at=NOW - timedelta(days=89))
    add_customer(bare, ids[10], instances=())
    add_scope(bare, ids[10], INSTANCE, delisted_at=NOW)
    add_customer(bare, ids[11])
    add_scope(bare, ids[11], OTHER, last_outcome="forbidden")
    add_customer(bare, ids[12])
    add_scope(bare, ids[12], OTHER, first_seen_at=NOW - timedelta(days=1))
    # a scope that left the list long ago held seats: chosen
    add_customer(bare, ids[13], instances=(OTHER,))
    add_scope(bare, ids[13], INSTANCE, delisted_at=NOW - timedelta(days=100))
    add_seats(bare, ids[13], None)
    candidates = select_candidates(named_query("customers_without_seats_90_days"), bare.pipeline())
    assert sorted(candidate.key for candidate in candidates) == sorted(
        [
            f"{REMOVE_RELATIONSHIP}|{ids[0]}|{INSTANCE}",
            f"{REMOVE_RELATIONSHIP}|{ids[0]}|{OTHER}",
            f"{REMOVE_RELATIONSHIP}|{ids[1]}|{INSTANCE}",
            f"{REMOVE_RELATIONSHIP}|{ids[2]}|{INSTANCE}",
            f"{REMOVE_RELATIONSHIP}|{ids[13]}|{OTHER}",
            *(f"{DELETE_CUSTOMER}|{ids[number]}|-" for number in (0, 1, 2, 13)),
        ]
    )
    reasons = {c.customer_id: c.reason for c in candidates}
    assert reasons[ids[0]] == "no seats in 2 listed scopes for at least 90 days, first seen 2025-01-01"
    assert reasons[ids[1]] == (
        "no seats in 1 listed scopes for at least 90 days, the last until 2026-03-02, first seen 2025-01-01"
    )


def test_relationships_of_closed_resellers(bare: BareInventory) -> None:
    bare.insert("resellers", id=R, company_name="Gone Ltd", removed_at=NOW)
    bare.insert("resellers", id=OTHER, company_name="Open Ltd")
    add_customer(bare, A, reseller_id=R, instances=(INSTANCE, OTHER))
    add_scope(bare, A, C, delisted_at=NOW)
    add_scope(bare, A, B, reseller_id=OTHER)
    add_customer(bare, B, reseller_id=OTHER)
    add_customer(bare, C, reseller_id=R, removed_at=NOW)
    candidates = select_candidates(named_query("relationships_of_closed_resellers"), bare.pipeline())
    assert {(c.action, c.customer_id, c.provider_instance_id) for c in candidates} == {
        (REMOVE_RELATIONSHIP, A, INSTANCE),
        (REMOVE_RELATIONSHIP, A, OTHER),
    }
    assert {c.reason for c in candidates} == {"reseller Gone Ltd is gone since 2026-06-01"}


@pytest.fixture(params=["duckdb", "postgres"])
def loaded(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Inventory:
    """The sandbox's tenant as discovered on days 0, 5 and 100; from day 5 on, 5 scopes are empty."""
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    inventory = Inventory(sandbox, tmp_path / "inventory.duckdb", destination=request.param, discover=True)
    load_discovered(inventory, 0)
    for row in inventory.rows("scopes")[:5]:
        inventory.answer(row["customer_id"], [])
    load_discovered(inventory, 5)
    load_discovered(inventory, 100)
    return inventory


def test_on_a_loaded_inventory(loaded: Inventory) -> None:
    """The queries of the package fit the tables as a load leaves them, and select what the tables say."""
    held = {row["customer_id"] for row in loaded.rows("license_history") if _held_lately(row)}
    scopes = [row for row in loaded.rows("scopes") if row["delisted_at"] is None]
    unfit = {
        row["customer_id"]
        for row in scopes
        if row["first_seen_at"] > day(10) or row["last_outcome"] not in ("ok", "empty")
    }
    listed = {row["customer_id"] for row in scopes}
    present = {row["id"]: row for row in loaded.rows("customers") if row["removed_at"] is None}
    idle = {i for i, row in present.items() if row["first_seen_at"] <= day(10)} & listed - unfit - held
    assert idle
    candidates = select_candidates(named_query("customers_without_seats_90_days"), loaded.pipeline())
    assert {c.customer_id for c in candidates if c.action == DELETE_CUSTOMER} == idle
    assert {(c.customer_id, c.provider_instance_id) for c in candidates if c.action == REMOVE_RELATIONSHIP} == {
        (row["customer_id"], row["provider_instance_id"]) for row in scopes if row["customer_id"] in idle
    }
    closed = {row["id"] for row in loaded.rows("resellers") if row["removed_at"] is not None}
    candidates = select_candidates(named_query("relationships_of_closed_resellers"), loaded.pipeline())
    assert {(c.customer_id, c.provider_instance_id) for c in candidates} == {
        (row["customer_id"], row["provider_instance_id"])
        for row in scopes
        if row["customer_id"] in present and present[row["customer_id"]]["reseller_id"] in closed
    }


def _held_lately(row: dict[str, Any]) -> bool:
    counts = (row["total_licenses"], row["consumed_licenses"], row["suspended_licenses"] or 0)
    return counts != (0, 0, 0) and (row["valid_to"] is None or row["valid_to"] >= day(10))
