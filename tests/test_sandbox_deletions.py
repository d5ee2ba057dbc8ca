"""The two deletions: accepted first, done later, and told by the audit log."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sandbox_api import TENANT, UNKNOWN_ID, Api, Row

from cockpit_source.sandbox import RESELLER_CLIENT, Customer, EventKind, Sandbox, running_sandbox


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.deletions.undo()
    running.configure(deletion_delay_seconds=3600, deletion_outcome="Succeded", blocks_active_deletions=False)
    running.day = 0
    return running


@pytest.fixture
def api(sandbox: Sandbox) -> Api:
    return Api(sandbox)


def find_customer(matches: Callable[[Customer], bool]) -> Customer:
    return next(customer for customer in TENANT.customers if not customer.script and matches(customer))


BOTH = find_customer(lambda customer: len(customer.provider_instance_ids) == 2 and customer.reseller_id is None)
OWN = find_customer(lambda customer: customer.reseller_id == TENANT.resellers[0].id)


def licence_statuses(api: Api, customer: Customer) -> list[int]:
    path = f"Customers/{customer.id}/licenses"
    return [api.status(path, providerInstanceId=i)[0] for i in customer.provider_instance_ids]


def listed(api: Api, customer: Customer) -> Row:
    return next(row for row in api.rows("Customers") if row["id"] == customer.id)


def removal(customer: Customer, number: int = 0) -> str:
    return f"Customers/{customer.id}/remove-reseller-relationship/{customer.provider_instance_ids[number]}"


def audit_entry(api: Api) -> Row:
    (entry,) = api.rows("AuditLogs")
    return entry


def test_deleted_customer_is_there_until_the_delay_has_passed(sandbox: Sandbox, api: Api) -> None:
    assert api.status(f"Customers/{BOTH.id}", "DELETE") == (202, False)
    assert listed(api, BOTH)["isDeleted"] is False
    assert api.status(f"Customers/{BOTH.id}")[0] == 200
    assert licence_statuses(api, BOTH) == [200, 200]
    sandbox.deletion_delay_seconds = 0
    assert listed(api, BOTH)["isDeleted"] is True
    assert api.status(f"Customers/{BOTH.id}") == (404, True)
    assert api.status(f"customers/{BOTH.id}/subscriptions") == (404, True)
    assert licence_statuses(api, BOTH) == [404, 404]
    for path in ("subscriptions", "Customers/mca"):
        assert BOTH.id not in {row["customerId"] for row in api.rows(path)}
    assert api.status(f"Customers/{BOTH.id}", "DELETE") == (404, True)


def test_deletion_comes_due_by_the_clock(sandbox: Sandbox, api: Api) -> None:
    sandbox.deletion_delay_seconds = 0.3
    api.call(f"Customers/{BOTH.id}", "DELETE")
    assert api.status(f"Customers/{BOTH.id}")[0] == 200
    time.sleep(0.35)
    assert api.status(f"Customers/{BOTH.id}")[0] == 404


def test_deleted_customer_stays_deleted_when_the_delay_or_the_day_changes(sandbox: Sandbox, api: Api) -> None:
    sandbox.deletion_delay_seconds = 0
    api.call(f"Customers/{BOTH.id}", "DELETE")
    assert api.status(f"Customers/{BOTH.id}")[0] == 404
    sandbox.deletion_delay_seconds = 3600
    sandbox.day = 3
    assert api.status(f"Customers/{BOTH.id}")[0] == 404
    assert listed(api, BOTH)["isDeleted"] is True


def test_removed_relationship_takes_one_instance_away(sandbox: Sandbox, api: Api) -> None:
    before = listed(api, BOTH)
    gone_id, kept_id = BOTH.provider_instance_ids
    assert api.status(removal(BOTH), "DELETE") == (202, False)
    assert listed(api, BOTH) == before
    assert licence_statuses(api, BOTH) == [200, 200]
    sandbox.deletion_delay_seconds = 0
    entries = {key: entry for key, entry in before["providerCustomers"].items() if key != gone_id}
    assert listed(api, BOTH) == api.json(f"Customers/{BOTH.id}") == before | {"providerCustomers": entries}
    assert licence_statuses(api, BOTH) == [404, 200]
    gdap = f"Customers/{BOTH.id}/delegated-admin-relationships"
    assert [api.status(gdap, providerInstanceId=i)[0] for i in (gone_id, kept_id)] == [404, 200]
    own = [row for row in api.rows("subscriptions") if row["customerId"] == BOTH.id]
    assert {row["providerInstanceId"] for row in own} == {kept_id}
    assert api.status(removal(BOTH), "DELETE") == (404, True)


@pytest.mark.parametrize(("outcome", "status_after"), [("Succeded", 404), ("Failed", 200)])
def test_audit_log_tells_how_a_deletion_ended(sandbox: Sandbox, api: Api, outcome: str, status_after: int) -> None:
    sandbox.deletion_outcome = outcome
    before = datetime.now(UTC)
    api.call(f"Customers/{OWN.id}", "DELETE", correlation_id="my-deletion")
    entry = audit_entry(api)
    expected: dict[str, Any] = {
        "id": entry["id"],
        "operation": {"name": "DeleteCustomer"},
        "status": {"name": "Processing"},
        "correlationId": "my-deletion",
        "customerId": OWN.id,
        "customerName": OWN.company_name,
        "providerInstanceId": None,
        "resellerId": OWN.reseller_id,
        "resellerName": TENANT.resellers[0].company_name,
        "userName": "sandbox-csp",
        "createdAt": entry["createdAt"],
        "finishedAt": None,
    }
    assert entry == expected
    assert abs(datetime.fromisoformat(entry["createdAt"]) - before) < timedelta(seconds=5)
    sandbox.deletion_delay_seconds = 0
    entry = audit_entry(api)
    assert entry == expected | {"status": {"name": outcome}, "finishedAt": entry["finishedAt"]}
    assert entry["finishedAt"] >= entry["createdAt"]
    assert api.status(f"Customers/{OWN.id}")[0] == status_after


def test_audit_log_without_a_correlation_id_has_one_of_its_own(sandbox: Sandbox, api: Api) -> None:
    api.call(removal(BOTH, 1), "DELETE")
    entry = audit_entry(api)
    assert entry["operation"] == {"name": "RemoveResellerRelationship"}
    assert entry["providerInstanceId"] == BOTH.provider_instance_ids[1]
    assert len(entry["correlationId"]) == 36


def test_audit_log_is_newest_first_and_can_be_narrowed(sandbox: Sandbox, api: Api) -> None:
    for path in (removal(BOTH), f"Customers/{OWN.id}", removal(BOTH, 1)):
        api.call(path, "DELETE")
    newest, deleted, oldest = everything = api.rows("AuditLogs", size=2)
    assert [row["customerId"] for row in everything] == [BOTH.id, OWN.id, BOTH.id]
    assert api.rows("AuditLogs", Operations="DeleteCustomer|CreateOrder") == [deleted]
    assert api.rows("AuditLogs", Operations="removeresellerrelationship") == [newest, oldest]
    assert api.rows("AuditLogs", Status="Processing") == everything
    assert api.rows("AuditLogs", Status="Failed") == []
    assert api.rows("AuditLogs", Customer=OWN.company_name.upper()[2:]) == [deleted]
    assert api.rows("AuditLogs", Reseller="kaffee", resellerId=OWN.reseller_id) == [deleted]
    assert api.rows("AuditLogs", EndDate="2026-01-01T00:00:00Z") == []
    assert api.rows("AuditLogs", StartDate="2026-01-01T00:00:00+01:00") == everything
    assert api.rows("AuditLogs", StartDate="2100-01-01") == []


def test_audit_log_pages_by_its_own_parameter_names(sandbox: Sandbox, api: Api) -> None:
    for number in (0, 1):
        api.call(removal(BOTH, number), "DELETE")
    page = api.json("AuditLogs", PageNumber=2, PageSize=1)
    assert page["paginationParameters"] == {"pageNumber": 2, "pageSize": 1}
    assert [row["providerInstanceId"] for row in page["items"]] == [BOTH.provider_instance_ids[0]]
    wrong = api.wrong_parameters("AuditLogs", PageSize=0, StartDate="soon", Status="Succeeded", resellerId="x")
    assert wrong == ["pageSize", "StartDate", "Status", "resellerId"]


def test_reseller_client_sees_its_own_entries_and_deletes_nothing(sandbox: Sandbox, api: Api) -> None:
    as_reseller = Api(sandbox, RESELLER_CLIENT)
    assert as_reseller.status(f"Customers/{OWN.id}", "DELETE") == (403, False)
    assert as_reseller.status(removal(OWN), "DELETE") == (403, False)
    other = find_customer(lambda customer: customer.reseller_id == TENANT.resellers[1].id)
    for customer in (OWN, other):
        api.call(f"Customers/{customer.id}", "DELETE")
    assert [row["customerId"] for row in as_reseller.rows("AuditLogs")] == [OWN.id]
    assert as_reseller.status("AuditLogs", resellerId=other.reseller_id) == (403, False)


def test_deletion_of_what_is_not_there_is_refused_and_not_logged(sandbox: Sandbox, api: Api) -> None:
    left = TENANT.customer(TENANT.event(EventKind.CUSTOMER_LEFT).customer_id)
    assert left is not None
    sandbox.day = 2
    removed_from = f"Customers/{BOTH.id}/remove-reseller-relationship"
    for path in (
        f"Customers/{UNKNOWN_ID}",
        f"Customers/{left.id}",
        f"Customers/{sandbox.directory.deleted_customers[0].id}",
        removal(left),
        f"{removed_from}/{UNKNOWN_ID}",
    ):
        assert api.status(path, "DELETE") == (404, True)
    assert api.wrong_parameters("Customers/x", "DELETE") == ["customerId"]
    assert api.wrong_parameters(f"{removed_from}/x", "DELETE") == ["providerInstanceId"]
    other_id = sandbox.directory.other_instance.id
    assert api.wrong_parameters(f"{removed_from}/{other_id}", "DELETE") == ["providerInstanceId"]
    assert api.rows("AuditLogs") == []


def test_active_subscriptions_block_a_deletion_where_the_setting_says_so(sandbox: Sandbox, api: Api) -> None:
    sandbox.blocks_active_deletions = True
    answer = api.call(f"Customers/{BOTH.id}", "DELETE")
    assert (answer.status_code, answer.json()["description"]) == (400, "The customer has active subscriptions.")
    lost = TENANT.event(EventKind.LICENCES_LOST)
    sandbox.day = lost.day
    assert api.rows(f"customers/{lost.customer_id}/subscriptions") == []
    assert api.status(f"Customers/{lost.customer_id}", "DELETE") == (202, False)


def test_undone_deletions_bring_everything_back(sandbox: Sandbox, api: Api) -> None:
    sandbox.deletion_delay_seconds = 0
    before = api.rows("Customers")
    api.call(removal(OWN), "DELETE")
    api.call(f"Customers/{BOTH.id}", "DELETE")
    assert api.rows("Customers") != before
    sandbox.deletions.undo()
    assert api.rows("Customers") == before
    assert api.rows("AuditLogs") == []
