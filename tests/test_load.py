"""Loads into a temporary DuckDB, from the sandbox over HTTP; whole tables compared."""

from __future__ import annotations

import json

import pytest
from support import INSTANCE, Inventory, Model, ScopeIds, day, every_table, new_id, read_rows, sku

from cockpit_source.errors import ScopeListError
from cockpit_source.sandbox import Sandbox
from cockpit_source.scopes import OUTCOMES

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
C: ScopeIds = (new_id(3), INSTANCE, None)


@pytest.fixture
def two_scopes(inventory: Inventory) -> Inventory:
    """An inventory whose scopes A and B hold two and one SKUs, loaded on day 0."""
    inventory.answer(A[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    inventory.answer(B[0], [sku("e3", 7, 1)])
    assert inventory.load([A, B], day(0)).exit_code == 0
    return inventory


def test_first_load_equals_the_tenant(inventory: Inventory, sandbox: Sandbox) -> None:
    """Every row of every scope, and the outcome of each, as the tenant has them."""
    scopes = list(sandbox.tenant.scopes(0))
    result = inventory.load(scopes, day(0), settings={"max_attempts": 2})
    answers = {}
    for scope in scopes:
        customer = sandbox.tenant.customer(scope[0])
        assert customer is not None
        rows = sandbox.tenant.licenses(scope[0], scope[1], 0)
        answers[scope] = ("ok" if rows else "empty", rows) if customer.has_gdap_on(0) else ("forbidden", [])
    model = Model(inventory.tenant_key)
    model.run(result.run_id, day(0), answers)
    model.check(inventory.database)
    assert result.exit_code == 3
    assert result.outcomes == {"ok": 122, "forbidden": 4}


def test_unchanged_second_load_changes_nothing(two_scopes: Inventory) -> None:
    before = every_table(two_scopes.database)
    two_scopes.load([A, B], day(1))
    assert every_table(two_scopes.database) == before
    assert len(two_scopes.rows("runs")) == 2
    assert {row["observed_at"] for row in two_scopes.rows("licenses", per_run=True)} == {day(1)}


def test_seat_change_replaces_the_row_and_adds_a_version(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], [sku("e3", 30, 22), sku("e5", 5, 5)])
    two_scopes.load([A, B], day(1))
    assert _seats(two_scopes) == {(A[0], "e3"): 30, (A[0], "e5"): 5, (B[0], "e3"): 7}
    assert _versions(two_scopes, A[0], "e3") == [(25, day(0), day(1)), (30, day(1), None)]
    assert _versions(two_scopes, A[0], "e5") == [(5, day(0), None)]
    assert _versions(two_scopes, B[0], "e3") == [(7, day(0), None)]


def test_sku_gone_and_back_retires_and_reopens_its_version(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], [sku("e3", 25, 22)])
    two_scopes.load([A, B], day(1))
    assert (A[0], "e5") not in _seats(two_scopes)
    two_scopes.answer(A[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    two_scopes.load([A, B], day(2))
    assert _seats(two_scopes)[A[0], "e5"] == 5
    assert _versions(two_scopes, A[0], "e5") == [(5, day(0), day(1)), (5, day(2), None)]


def test_scope_that_empties_loses_its_rows_and_no_other(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], [])
    result = two_scopes.load([A, B], day(1))
    assert result.outcomes == {"empty": 1, "ok": 1}
    assert result.exit_code == 0
    assert _seats(two_scopes) == {(B[0], "e3"): 7}
    assert _versions(two_scopes, A[0], "e3") == [(25, day(0), day(1))]


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (400, {"statusCode": 400, "type": "BadRequest", "description": "no"}, "invalid"),
        (403, None, "forbidden"),
        (404, {"statusCode": 404}, "not_found"),
        (409, None, "failed"),
        (429, None, "deferred"),
        (500, {"statusCode": 500, "type": "ServerError", "correlationId": "abc"}, "failed"),
        (204, None, "failed"),
        (200, {"message": "an object"}, "failed"),
        (200, {"items": None}, "failed"),
        (200, {"items": [sku("e3")], "hasNextPage": True}, "failed"),
        (200, None, "failed"),
        (200, "text", "failed"),
        (200, [sku("e3", 1, 1), {"skuId": None}], "failed"),
    ],
)
def test_scope_that_is_not_read_keeps_its_rows(
    two_scopes: Inventory, status: int, body: object, outcome: str
) -> None:
    before = every_table(two_scopes.database)
    two_scopes.answer(A[0], body, status)
    result = two_scopes.load([A, B], day(1))
    assert result.outcomes == {outcome: 1, "ok": 1}
    assert result.exit_code == 3
    assert every_table(two_scopes.database) == before
    assert _scope(two_scopes, A)["last_outcome"] == outcome
    assert _scope(two_scopes, A)["failing_runs"] == 1
    assert _scope(two_scopes, A)["last_good_at"] == day(0)


def test_all_scopes_fail_leaves_everything_and_records_the_run(two_scopes: Inventory) -> None:
    before = every_table(two_scopes.database)
    for scope in (A, B):
        two_scopes.answer(scope[0], {"type": "Down"}, 500)
    result = two_scopes.load([A, B], day(1))
    assert (result.status, result.exit_code) == ("failed", 1)
    assert every_table(two_scopes.database) == before
    latest = two_scopes.rows("runs", per_run=True)[-1]
    assert (latest["status"], latest["scopes_failed"], latest["scopes_ok"]) == ("failed", 2, 0)


def test_first_run_in_which_all_scopes_fail_still_makes_every_table(inventory: Inventory) -> None:
    inventory.answer(A[0], None, 403)
    assert inventory.load([A], day(0)).exit_code == 1
    assert inventory.rows("licenses") == inventory.rows("license_history") == inventory.rows("rejected_rows") == []
    assert len(inventory.rows("scopes")) == len(inventory.rows("scope_runs")) == len(inventory.rows("runs")) == 1


def test_all_scopes_empty_retires_everything(two_scopes: Inventory) -> None:
    for scope in (A, B):
        two_scopes.answer(scope[0], [])
    assert two_scopes.load([A, B], day(1)).outcomes == {"empty": 2}
    assert two_scopes.rows("licenses") == []
    assert {row["valid_to"] for row in two_scopes.rows("license_history")} == {day(1)}


def test_scope_delisted_keeps_its_rows_and_comes_back(two_scopes: Inventory) -> None:
    before = every_table(two_scopes.database)
    result = two_scopes.load([A], day(1))
    assert result.delisted == 1
    assert _scope(two_scopes, B)["delisted_at"] == day(1)
    assert _scope(two_scopes, A)["delisted_at"] is None
    assert every_table(two_scopes.database) == before
    assert two_scopes.load([A], day(2)).delisted == 0
    assert _scope(two_scopes, B)["delisted_at"] == day(1)
    two_scopes.load([A, B], day(3))
    assert _scope(two_scopes, B)["delisted_at"] is None
    assert _scope(two_scopes, B)["first_seen_at"] == day(0)


def test_partial_list_delists_nothing(two_scopes: Inventory) -> None:
    result = two_scopes.load([A], day(1), full_list=False)
    assert result.delisted == 0
    assert _scope(two_scopes, B)["delisted_at"] is None
    assert [row["listing_complete"] for row in two_scopes.rows("runs", per_run=True)] == [True, False]


def test_duplicate_sku_in_one_answer_is_numbered_whatever_its_order(inventory: Inventory) -> None:
    twice = [sku("e3", 5, 1), sku("e3", 3, 1), sku("e3", 3, 1)]
    inventory.answer(A[0], twice)
    inventory.load([A], day(0))
    first = every_table(inventory.database)
    assert [(row["occurrence"], row["total_licenses"]) for row in first["licenses"]] == [(0, 3), (1, 3), (2, 5)]
    inventory.answer(A[0], twice[::-1])
    inventory.load([A], day(1))
    assert every_table(inventory.database) == first


def test_unknown_fields_go_to_extra_and_make_no_version(two_scopes: Inventory) -> None:
    two_scopes.answer(A[0], [sku("e3", 25, 22, colour="blue", nested={"b": [1, None]}), sku("e5", 5, 5)])
    two_scopes.load([A, B], day(1))
    extra = {row["sku_id"]: row["extra"] for row in two_scopes.rows("licenses") if row["customer_id"] == A[0]}
    assert extra["e5"] is None
    assert json.loads(extra["e3"]) == {"colour": "blue", "nested": {"b": [1, None]}}
    assert len(two_scopes.rows("license_history")) == 3


@pytest.mark.parametrize("count", ["12", 1.5, True, [], 2**63, 1e300])
def test_count_that_is_not_a_whole_number_fails_the_scope(two_scopes: Inventory, count: object) -> None:
    before = every_table(two_scopes.database)
    two_scopes.answer(A[0], [sku("e5", 5, 5), sku("e3", totalLicenses=count)])
    assert two_scopes.load([A, B], day(1)).outcomes == {"failed": 1, "ok": 1}
    assert every_table(two_scopes.database) == before
    (rejected,) = two_scopes.rows("rejected_rows")
    assert (rejected["customer_id"], rejected["position"]) == (A[0], 1)
    assert "totalLicenses" in rejected["reason"]
    assert json.loads(rejected["raw"])["totalLicenses"] == count


@pytest.mark.parametrize(
    ("count", "stored"), [(None, None), (-3, -3), (2**40, 2**40), (10.0, 10), (-(2**63), -(2**63)), (0, 0)]
)
def test_count_of_any_64_bit_whole_number_is_kept(inventory: Inventory, count: object, stored: int | None) -> None:
    inventory.answer(A[0], [sku("e3", availableLicenses=count)])
    assert inventory.load([A], day(0)).exit_code == 0
    assert [row["available_licenses"] for row in inventory.rows("licenses")] == [stored]
    assert [row["available_licenses"] for row in inventory.rows("license_history")] == [stored]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("Офис 365 — 企業版 🚀 مكتب", "Офис 365 — 企業版 🚀 مكتب"),
        ("nul\x00byte", "nul\ufffdbyte"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("quote ' \" \\ ; -- \n tab\t", "quote ' \" \\ ; -- \n tab\t"),
        (None, None),
        ("", ""),
    ],
)
def test_name_in_any_script_is_kept(inventory: Inventory, name: str | None, stored: str | None) -> None:
    inventory.answer(A[0], [sku("e3", name=name)])
    for moment in (day(0), day(1)):
        assert inventory.load([A], moment).exit_code == 0
    assert [row["sku_name"] for row in inventory.rows("licenses")] == [stored]
    assert [row["sku_name"] for row in inventory.rows("license_history")] == [stored]


def test_ids_in_upper_case_are_the_same_scope_and_sku(inventory: Inventory) -> None:
    guid = "6fd2c87f-b296-42f0-b197-1e91e994b900"
    inventory.answer(A[0], [sku(guid)])
    inventory.load([A], day(0))
    before = every_table(inventory.database)
    inventory.answer(A[0], [sku(f"  {guid.upper()} ", name=f"Product {guid}")])
    result = inventory.load([(A[0].upper(), A[1].upper(), None), A], day(1))
    assert (result.scopes_listed, result.scopes_total) == (2, 1)
    assert every_table(inventory.database) == before


def test_one_bad_scope_among_a_thousand_costs_no_other(inventory: Inventory, sandbox: Sandbox) -> None:
    scopes: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(1000, 2000)]
    for number, (customer, _, _) in enumerate(scopes):
        inventory.answer(customer, [sku("e3", number, 0)])
    sandbox.faults.for_customer(scopes[500][0], "truncated")
    result = inventory.load(scopes, day(0))
    assert result.outcomes == {"ok": 999, "failed": 1}
    expected = {(scope[0], "e3"): number for number, scope in enumerate(scopes) if number != 500}
    assert _seats(inventory) == expected


def test_reseller_scopes_of_one_customer_are_kept_apart(inventory: Inventory, sandbox: Sandbox) -> None:
    """The same customer with and without its reseller, and with one that it does not have."""
    customer = next(c for c in sandbox.tenant.customers if c.reseller_id and c.has_gdap and c.is_listed(0))
    instance = customer.provider_instance_ids[0]
    other = next(r.id for r in sandbox.tenant.resellers if r.id != customer.reseller_id)
    plain: ScopeIds = (customer.id, instance, None)
    scoped: ScopeIds = (customer.id, instance, customer.reseller_id)
    result = inventory.load([plain, scoped, (customer.id, instance, other)], day(0))
    assert result.outcomes == {"ok": 2, "forbidden": 1}
    answered = sandbox.tenant.licenses(customer.id, instance, 0)
    model = Model(inventory.tenant_key)
    model.run(
        result.run_id,
        day(0),
        {
            plain: ("ok", answered),
            scoped: ("ok", answered),
            (customer.id, instance, other): ("forbidden", []),
        },
    )
    model.check(inventory.database)


def test_two_databases_from_one_folder_do_not_meet(two_scopes: Inventory) -> None:
    other = Inventory(two_scopes.sandbox, two_scopes.database.with_name("other.duckdb"))
    before = every_table(two_scopes.database)
    other.load([B], day(1))
    assert every_table(two_scopes.database) == before
    assert _seats(other) == {(B[0], "e3"): 7}


def test_two_tenants_in_one_dataset_do_not_meet(two_scopes: Inventory) -> None:
    other = Inventory(two_scopes.sandbox, two_scopes.database, tenant_key="other")
    first = {name: read_rows(two_scopes.database, name, per_run=True) for name in ("licenses", "scopes", "runs")}
    two_scopes.answer(A[0], [])
    other.load([A], day(1))
    two_scopes.answer(A[0], [sku("e9", 1, 1)])
    other.load([A], day(2))
    for name, rows in first.items():
        kept = [row for row in read_rows(two_scopes.database, name, per_run=True) if row["tenant"] != "other"]
        assert kept == rows
    assert [(r["sku_id"], r["tenant"]) for r in other.rows("licenses") if r["tenant"] == "other"] == [("e9", "other")]


def test_database_that_was_removed_is_filled_anew(two_scopes: Inventory) -> None:
    """dlt then wipes its working directory; what we keep lies elsewhere."""
    before = every_table(two_scopes.database)
    two_scopes.database.unlink()
    two_scopes.load([A, B], day(0))
    assert every_table(two_scopes.database) == before


def test_working_directory_that_was_removed_costs_nothing(two_scopes: Inventory) -> None:
    import shutil

    before = every_table(two_scopes.database)
    shutil.rmtree(two_scopes.database.parent / "work")
    two_scopes.load([A, B], day(1))
    assert every_table(two_scopes.database) == before
    assert _scope(two_scopes, A)["first_seen_at"] == day(0)


def test_empty_scope_list_is_refused_and_nothing_delisted(two_scopes: Inventory) -> None:
    (two_scopes.database.parent / "none.csv").write_text("customer_id,provider_instance_id\n")
    with pytest.raises(ScopeListError, match="empty"):
        two_scopes.load([], day(1), settings={"scopes": None, "scopes_file": "none.csv"})
    assert _scope(two_scopes, A)["delisted_at"] is None


def test_every_outcome_counts_and_every_load_is_committed(two_scopes: Inventory) -> None:
    """`runs` adds up, each scope has one row a run, and every row stands in a committed package."""
    two_scopes.answer(C[0], None, 403)
    two_scopes.load([A, B, C], day(1))
    for run in two_scopes.rows("runs", per_run=True):
        assert sum(run[f"scopes_{outcome}"] for outcome in OUTCOMES) == run["scopes_total"]
        assert run["finished_at"] == run["started_at"]
    assert two_scopes.query("SELECT run_id, count(*) FROM cockpit.scope_runs GROUP BY run_id ORDER BY 2") == [
        (run["run_id"], run["scopes_total"]) for run in two_scopes.rows("runs", per_run=True)
    ]
    for table in ("licenses", "license_history", "scopes", "scope_runs", "runs"):
        committed = "SELECT load_id FROM cockpit._dlt_loads WHERE status = 0"
        assert two_scopes.query(f"SELECT * FROM cockpit.{table} WHERE _dlt_load_id NOT IN ({committed})") == []


def test_error_details_are_kept_and_redacted(inventory: Inventory) -> None:
    inventory.answer(
        A[0],
        {
            "statusCode": 400,
            "type": "ValidationError",
            "description": "ask ada@example.com, not Bearer abcdefgh12345",
            "correlationId": "server-1",
            "errors": [{"propertyName": "providerInstanceId", "description": ["not Microsoft"]}],
        },
        400,
    )
    inventory.load([A], day(0))
    (row,) = inventory.rows("scope_runs", per_run=True)
    assert (row["outcome"], row["http_status"], row["error_type"]) == ("invalid", 400, "ValidationError")
    assert row["error_description"] == ("ask [redacted], not Bearer [redacted]; providerInstanceId: not Microsoft")
    assert row["server_correlation_id"] == "server-1"
    assert row["correlation_id"] == inventory.sandbox.requests[-1].correlation_id


def _seats(inventory: Inventory) -> dict[tuple[str, str], int]:
    return {(row["customer_id"], row["sku_id"]): row["total_licenses"] for row in inventory.rows("licenses")}


def _versions(inventory: Inventory, customer: str, sku_id: str) -> list[tuple[object, ...]]:
    rows = [
        row for row in inventory.rows("license_history") if (row["customer_id"], row["sku_id"]) == (customer, sku_id)
    ]
    rows.sort(key=lambda row: row["valid_from"])
    return [(row["total_licenses"], row["valid_from"], row["valid_to"]) for row in rows]


def _scope(inventory: Inventory, ids: ScopeIds) -> dict[str, object]:
    return next(row for row in inventory.rows("scopes", per_run=True) if row["customer_id"] == ids[0])
