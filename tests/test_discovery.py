"""Discovery over real HTTP: which scopes are loaded, what the listed tables hold, and what a bad listing may cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support import Inventory, Row, ScopeIds, day, read_rows

from cockpit_source.errors import CockpitError, DiscoveryFailed, SignInRefused
from cockpit_source.load import LoadProgress
from cockpit_source.load_result import LoadResult
from cockpit_source.sandbox import RESELLER_CLIENT, Sandbox
from cockpit_source.tables import CONTACT_COLUMNS

PAGE_SIZE = 25


@pytest.fixture
def discovering(inventory: Inventory) -> Inventory:
    """An inventory that discovers its scopes in several pages."""
    inventory.settings |= {"discover": True, "page_size": PAGE_SIZE, "max_attempts": 3}
    return inventory


def load(inventory: Inventory, number: int, **settings: Any) -> tuple[LoadResult, list[str]]:
    """A load of simulated day `number`, and what was noted."""
    from cockpit_source.configuration import resolve_settings
    from cockpit_source.load import run_load

    inventory.sandbox.day = number
    progress = LoadProgress()
    resolved = resolve_settings(**(inventory.connection() | inventory.settings | settings))
    return run_load(inventory.pipeline(), resolved, as_of=day(number), progress=progress), progress.notes


def listed_scopes(inventory: Inventory) -> set[ScopeIds]:
    """The scopes that the last full list held."""
    return {
        (row["customer_id"], row["provider_instance_id"], row["reseller_id"])
        for row in inventory.rows("scopes")
        if row["delisted_at"] is None
    }


def held(inventory: Inventory) -> list[tuple[Any, ...]]:
    return sorted((r["scope_key"], r["sku_id"], r["total_licenses"]) for r in inventory.rows("licenses"))


def expected_customers(sandbox: Sandbox, days: int) -> list[Row]:
    """Rows of `customers` after loads of days 0 to `days` - 1, from the simulated tenant."""
    directory, rows = sandbox.directory, []
    for customer in directory.customers(days - 1):
        seen = next(number for number in range(days) if customer.joined_day <= number)
        left = customer.left_day
        gone = left is not None and left < days
        rows.append(
            {
                "tenant": sandbox.tenant.domain,
                "id": customer.id,
                "company_name": customer.company_name,
                "country": customer.country,
                "reseller_id": customer.reseller_id,
                **dict.fromkeys(CONTACT_COLUMNS),
                "first_seen_at": day(seen),
                "removed_at": day(max(seen, left)) if gone and left is not None else None,
            }
        )
    return sorted(rows, key=lambda row: row["id"])


def stored_customers(inventory: Inventory) -> list[Row]:
    left_out = ("internal_identifier", "provider_customers")
    rows = [{n: v for n, v in row.items() if n not in left_out} for row in inventory.rows("customers")]
    return sorted(rows, key=lambda row: row["id"])


@pytest.mark.parametrize(("deleted_style", "provider_style"), [("is_deleted", "name"), ("status", "type")])
def test_discovered_scopes_and_tables_are_those_of_the_tenant(
    discovering: Inventory, sandbox: Sandbox, deleted_style: str, provider_style: str
) -> None:
    """Over days in which customers join and leave."""
    sandbox.configure(deleted_style=deleted_style, provider_style=provider_style)
    for number in range(4):
        result, notes = load(discovering, number)
        assert listed_scopes(discovering) == set(sandbox.tenant.scopes(number))
        assert (result.scopes_total, result.listing_problem) == (len(set(sandbox.tenant.scopes(number))), None)
        assert any(note.startswith("Discovered ") and "Tresor Backup" in note for note in notes)
        assert stored_customers(discovering) == expected_customers(sandbox, number + 1)
    assert {(r["id"], r["company_name"], r["removed_at"]) for r in discovering.rows("resellers")} == {
        (reseller.id, reseller.company_name, None) for reseller in sandbox.tenant.resellers
    }
    assert {(r["id"], r["alias"], r["is_microsoft"]) for r in discovering.rows("provider_instances")} == {
        *((instance.id, instance.alias, True) for instance in sandbox.tenant.provider_instances),
        (sandbox.directory.other_instance.id, "Tresor Backup", False),
    }
    assert all(row["listing_complete"] for row in discovering.rows("runs"))


def test_discovered_load_equals_a_load_of_the_same_list(
    discovering: Inventory, sandbox: Sandbox, tmp_path: Path
) -> None:
    by_list = Inventory(sandbox, tmp_path / "by_list.duckdb", max_attempts=3)
    for number in range(3):
        load(discovering, number)
        by_list.load(list(sandbox.tenant.scopes(number)), day(number))
        for table in ("licenses", "license_history", "scopes"):
            assert discovering.rows(table) == by_list.rows(table)


def test_nothing_is_left_out_where_the_answers_do_not_tell(discovering: Inventory, sandbox: Sandbox) -> None:
    """Instances of other providers and deleted customers are then asked for, and fail alone."""
    sandbox.configure(deleted_style="none", provider_style="none")
    result, _ = load(discovering, 0)
    known = set(sandbox.tenant.scopes(0))
    assert listed_scopes(discovering) > known
    others = {
        row["outcome"]
        for row in discovering.rows("scope_runs")
        if (row["customer_id"], row["provider_instance_id"], row["reseller_id"]) not in known
    }
    assert others == {"invalid", "not_found"}
    assert result.outcomes["ok"] == sum(
        row["outcome"] == "ok"
        for row in discovering.rows("scope_runs")
        if (row["customer_id"], row["provider_instance_id"], row["reseller_id"]) in known
    )


def test_rows_that_move_between_pages_cost_nothing_and_double_nothing(
    discovering: Inventory, sandbox: Sandbox
) -> None:
    sandbox.configure(page_churn=7)
    result, _ = load(discovering, 0)
    assert listed_scopes(discovering) == set(sandbox.tenant.scopes(0))
    assert (result.scopes_listed, result.scopes_total) == (126, 126)
    assert result.listing_problem is None
    assert stored_customers(discovering) == expected_customers(sandbox, 1)


def test_listing_that_never_rests_delists_nothing(discovering: Inventory, sandbox: Sandbox) -> None:
    load(discovering, 1)
    before = listed_scopes(discovering)
    sandbox.configure(page_churn=10_000)
    result, notes = load(discovering, 2)
    assert result.exit_code == 3
    assert result.status == "partial"
    assert any("nothing is delisted" in note for note in notes)
    assert listed_scopes(discovering) == before | set(sandbox.tenant.scopes(2))
    left = {customer.id for customer in sandbox.tenant.customers if customer.left_day == 2}
    assert {row["customer_id"] for row in discovering.rows("scopes")} >= left


def test_listing_that_breaks_off_reads_the_known_scopes_and_delists_nothing(
    discovering: Inventory, sandbox: Sandbox
) -> None:
    load(discovering, 1)
    known, customers = listed_scopes(discovering), stored_customers(discovering)
    sandbox.faults.for_path(f"/v1/customers?pageNumber=3&pageSize={PAGE_SIZE}", "error_500")
    result, notes = load(discovering, 2)
    assert result.exit_code == 3
    assert "500" in str(result.listing_problem)
    assert any("could not be listed to the end" in note for note in notes)
    assert listed_scopes(discovering) == known
    assert [row["removed_at"] for row in stored_customers(discovering) if row["id"] in _ids(customers)] == [
        row["removed_at"] if row["id"] not in _deleted_on_first_pages(sandbox) else day(2) for row in customers
    ]
    (last,) = (row for row in discovering.rows("runs") if row["started_at"] == day(2))
    assert (last["listing_complete"], last["scopes_total"]) == (False, len(known))
    sandbox.faults.clear()
    result, _ = load(discovering, 3)
    assert result.listing_problem is None
    assert listed_scopes(discovering) == set(sandbox.tenant.scopes(3))


def _ids(rows: list[Row]) -> set[str]:
    return {row["id"] for row in rows}


def _deleted_on_first_pages(sandbox: Sandbox) -> set[str]:
    """Customers that left on day 2 and stand on the two pages that were read."""
    first = list(sandbox.directory.customers(2))[: 2 * PAGE_SIZE]
    return {customer.id for customer in first if customer.left_day == 2}


def test_listing_that_is_refused_reads_the_known_scopes(discovering: Inventory, sandbox: Sandbox) -> None:
    load(discovering, 0)
    known = listed_scopes(discovering)
    sandbox.faults.for_path("/v1/customers?pageNumber", "forbidden")
    result, _ = load(discovering, 1)
    assert (result.exit_code, result.scopes_total) == (3, len(known))
    assert listed_scopes(discovering) == known


def test_listing_that_is_refused_at_first_is_one_message(discovering: Inventory, sandbox: Sandbox) -> None:
    sandbox.faults.for_path("/v1/customers?pageNumber", "forbidden")
    with pytest.raises(DiscoveryFailed, match="No customer could be listed, and the warehouse knows none: HTTP 403"):
        load(discovering, 0)
    sandbox.faults.clear()
    with pytest.raises(DiscoveryFailed, match=r"Check that tenant \(other\.example\) is the domain of your portal"):
        load(discovering, 0, tenant="other.example")
    assert load(discovering, 0)[0].listing_problem is None


def test_refused_sign_in_ends_discovery_at_once(discovering: Inventory, sandbox: Sandbox) -> None:
    with pytest.raises(SignInRefused):
        load(discovering, 0, client_secret="wrong")
    assert len(sandbox.requests) == 1


def test_reseller_access_loads_its_own_customers(discovering: Inventory, sandbox: Sandbox) -> None:
    """It may not list resellers, which costs nothing else."""
    own = sandbox.tenant.resellers[0].id
    result, notes = load(discovering, 0, client_id=RESELLER_CLIENT.id, client_secret=RESELLER_CLIENT.secret)
    assert listed_scopes(discovering) == {scope for scope in sandbox.tenant.scopes(0) if scope[2] == own}
    assert any(note.startswith("The resellers could not be listed to the end: HTTP 403") for note in notes)
    assert (discovering.rows("resellers"), result.listing_problem) == ([], None)


def test_contact_data_comes_and_goes_with_the_setting(discovering: Inventory) -> None:
    def known() -> set[str]:
        rows = [*discovering.rows("customers"), *discovering.rows("resellers")]
        return {column for row in rows for column in CONTACT_COLUMNS if row[column] is not None}

    load(discovering, 0)
    assert known() == set()
    load(discovering, 1, contact_data=True)
    assert known() == set(CONTACT_COLUMNS)
    load(discovering, 2)
    assert known() == set()


def test_customer_that_vanishes_is_removed_and_comes_back(discovering: Inventory, sandbox: Sandbox) -> None:
    """An API access that sees less from one day on, and more again later."""
    own = sandbox.tenant.resellers[0].id
    reseller = {"client_id": RESELLER_CLIENT.id, "client_secret": RESELLER_CLIENT.secret}
    load(discovering, 0)
    load(discovering, 1, **reseller)
    gone = {row["id"]: row["removed_at"] for row in stored_customers(discovering) if row["reseller_id"] != own}
    assert set(gone.values()) == {day(0), day(1)}
    load(discovering, 2)
    there = {row["id"] for row in stored_customers(discovering) if row["removed_at"] is None}
    assert there == {row["id"] for row in expected_customers(sandbox, 3) if row["removed_at"] is None}


def test_gdap_relationships_follow_the_tenant(discovering: Inventory, sandbox: Sandbox) -> None:
    for number in (1, 2, 4):
        load(discovering, number, gdap_relationships=True)
        active = {
            (row["customer_id"], row["provider_instance_id"])
            for row in discovering.rows("gdap_relationships")
            if row["status"] == "active" and row["removed_at"] is None
        }
        expected = {
            scope[:2]
            for scope in sandbox.tenant.scopes(number)
            if (found := sandbox.tenant.customer(scope[0])) and found.has_gdap_on(number)
        }
        assert active & {scope[:2] for scope in sandbox.tenant.scopes(number)} == expected
        assert {
            (row["customer_id"], row["provider_instance_id"]): row["has_active_gdap"]
            for row in discovering.rows("scopes")
            if row["delisted_at"] is None
        } == {scope[:2]: scope[:2] in expected for scope in sandbox.tenant.scopes(number)}
    assert all(row["has_active_gdap"] is not None for row in discovering.rows("scopes") if not row["delisted_at"])
    load(discovering, 5)
    assert {row["has_active_gdap"] for row in discovering.rows("scopes")} == {None}


def test_gdap_relationships_that_cannot_be_read_stay(discovering: Inventory, sandbox: Sandbox) -> None:
    load(discovering, 1, gdap_relationships=True)
    before = read_rows(discovering.database, "gdap_relationships")
    customer, instance, _ = next(iter(sandbox.tenant.scopes(1)))
    sandbox.faults.for_path(f"{customer}/delegated-admin-relationships", "error_500")
    result, notes = load(discovering, 2, gdap_relationships=True)
    assert any("GDAP relationships of 1 scopes could not be read" in note for note in notes)
    assert [r for r in discovering.rows("gdap_relationships") if r["customer_id"] == customer] == [
        r for r in before if r["customer_id"] == customer
    ]
    assert result.outcomes["ok"] > 100
    (scope,) = (
        row
        for row in discovering.rows("scopes")
        if (row["customer_id"], row["provider_instance_id"]) == (customer, instance)
    )
    assert (scope["last_outcome"], scope["has_active_gdap"]) == ("ok", None)


_CHILD = """
import os, sys
from datetime import datetime
from cockpit_source import create_pipeline, resolve_settings, run_load
pipeline = create_pipeline(sys.argv[1], database=sys.argv[2], pipelines_dir=sys.argv[3])
run_load(pipeline, resolve_settings(), as_of=datetime.fromisoformat(sys.argv[4]))
"""


def test_killed_load_is_carried_on_without_discovering_again(discovering: Inventory, sandbox: Sandbox) -> None:
    load(discovering, 0)
    sandbox.day = 1
    sandbox.faults.configure(latency_ms=60)
    _start_and_kill(discovering, day(1))
    sandbox.faults.configure(latency_ms=0)
    sandbox.clear_requests()
    result, notes = load(discovering, 1)
    assert result.carried_on
    assert any("Carrying on run" in note for note in notes)
    assert not [request for request in sandbox.requests if request.path.lower() == "/v1/customers"]
    assert listed_scopes(discovering) == set(sandbox.tenant.scopes(1))
    assert stored_customers(discovering) == expected_customers(sandbox, 2)


def _start_and_kill(inventory: Inventory, moment: datetime) -> None:
    """A load in a process of its own, killed with SIGKILL once it asks for licences."""
    settings = inventory.connection() | inventory.settings
    environment = {f"SOURCES__COCKPIT__{name.upper()}": str(value) for name, value in settings.items()}
    arguments = [inventory.tenant_key, str(inventory.database), str(inventory.database.parent / "work" / "pipelines")]
    inventory.sandbox.clear_requests()
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *arguments, moment.isoformat()], env=os.environ | environment
    )
    give_up_at = time.monotonic() + 60
    while not any("licenses" in request.path for request in inventory.sandbox.requests):
        assert child.poll() is None, "the load ended before the moment came"
        assert time.monotonic() < give_up_at, "the moment never came"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_tenant_without_anything_to_load_is_one_message(discovering: Inventory, sandbox: Sandbox) -> None:
    """Every instance another provider's: nothing is changed, and the message says what was left out."""
    load(discovering, 0)
    before = held(discovering)
    with pytest.raises(CockpitError, match=r"Discovery found nothing to load\. Discovered 0 customers in 0 scopes"):
        load(discovering, 1, **_access_without_customers(sandbox))
    assert held(discovering) == before


def _access_without_customers(sandbox: Sandbox) -> dict[str, str]:
    """A listing that is complete and empty: a tenant of its own would be another database."""
    sandbox.tenant.customers = ()
    sandbox.directory.deleted_customers = ()
    return {}
