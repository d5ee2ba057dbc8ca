"""What proves that a deletion was carried out, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from overriding_server import OverridingServer, overriding_server

from cockpit_source.client import CockpitClient
from cockpit_source.deletions.proof import Verdict, find_proof
from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Candidate, to_canonical
from cockpit_source.errors import SignInRefused
from cockpit_source.sandbox import (
    CSP_CLIENT,
    RESELLER_CLIENT,
    TOKEN_SCOPE,
    ApiClient,
    Sandbox,
    SandboxTenant,
    running_sandbox,
)
from cockpit_source.settings import build_settings

TENANT = SandboxTenant(customers=30, incidents=False)
CUSTOMER = next(c for c in TENANT.customers if len(c.provider_instance_ids) == 2)
INSTANCE = CUSTOMER.provider_instance_ids[0]
OTHERS = frozenset(customer.id for customer in TENANT.customers if customer is not CUSTOMER)
DELETION = Candidate(DELETE_CUSTOMER, CUSTOMER.id, None, "test")
REMOVAL = Candidate(REMOVE_RELATIONSHIP, CUSTOMER.id, INSTANCE, "test")
BOTH = pytest.mark.parametrize("candidate", [DELETION, REMOVAL], ids=["customer", "relationship"])
CUSTOMER_PATH = f"/v1/customers/{CUSTOMER.id}"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNREADABLE = ("error_500", "html_503", "reset", "truncated", "wrong_shape", "forbidden", "throttle", "sign_in_page")


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.deletions.undo()
    running.configure(
        deletion_delay_seconds=3600,
        deletion_outcome="Succeded",
        deleted_style="is_deleted",
        provider_style="name",
        page_churn=0,
    )
    running.clear_requests()
    return running


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[OverridingServer]:
    with overriding_server(sandbox.base_url) as running:
        yield running


def prove(
    sandbox: Sandbox,
    candidate: Candidate,
    correlation_ids: list[str],
    *,
    base_url: str | None = None,
    client: ApiClient = CSP_CLIENT,
    sent_at: datetime | None = None,
    known_others: frozenset[str] = OTHERS,
    **options: Any,
) -> Verdict:
    settings = build_settings(
        {
            "tenant": TENANT.domain,
            "base_url": base_url or sandbox.base_url,
            "token_url": sandbox.token_url,
            "token_scope": TOKEN_SCOPE,
            "client_id": client.id,
            "client_secret": client.secret,
            "discover": True,
            "max_attempts": 1,
            "timeout_seconds": 5,
        }
    )
    with CockpitClient(settings) as reader:
        verdict = find_proof(
            reader, candidate, correlation_ids, sent_at or datetime.now(UTC), known_others, **options
        )
    to_canonical(verdict.proof)
    assert verdict.description
    return verdict


def delete(sandbox: Sandbox, candidate: Candidate) -> str:
    """The correlation id of a deletion that the sandbox accepted."""
    correlation_id = str(uuid4())
    operation = "DeleteCustomer" if candidate.action == DELETE_CUSTOMER else "RemoveResellerRelationship"
    sandbox.deletions.accept(
        operation, CUSTOMER, candidate.provider_instance_id, correlation_id, "x", sandbox.deletion_outcome
    )
    return correlation_id


def paths(sandbox: Sandbox) -> list[str]:
    return [request.path.lower() for request in sandbox.requests if request.method == "GET"]


@BOTH
def test_nothing_is_proved_until_the_delay_has_passed(sandbox: Sandbox, candidate: Candidate) -> None:
    correlation_id = delete(sandbox, candidate)
    verdict = prove(sandbox, candidate, [correlation_id])
    assert (verdict.result, verdict.proof) == (None, {})
    assert "the audit log says Processing" in verdict.description
    # what still shows it needs no listing
    assert paths(sandbox) == [CUSTOMER_PATH, "/v1/auditlogs"]
    sandbox.deletion_delay_seconds = 0
    assert prove(sandbox, candidate, [correlation_id]).result == "verified"


@BOTH
def test_own_404_of_the_api_verifies(sandbox: Sandbox, candidate: Candidate) -> None:
    delete(sandbox, DELETION)
    sandbox.deletion_delay_seconds = 0
    verdict = prove(sandbox, candidate, [], now=lambda: NOW)
    (request,) = [request for request in sandbox.requests if request.method == "GET"]
    assert verdict.result == "verified"
    assert verdict.proof == {
        "kind": "not_found",
        "method": "GET",
        "path": f"/v1/Customers/{CUSTOMER.id}",
        "http_status": 404,
        "correlation_id": request.correlation_id,
        "read_at": "2026-03-01T12:00:00.000+00:00",
    }


@BOTH
def test_audit_entry_of_success_verifies(sandbox: Sandbox, candidate: Candidate) -> None:
    correlation_id = delete(sandbox, candidate)
    sandbox.deletion_delay_seconds = 0
    sandbox.faults.for_path(f"{CUSTOMER_PATH}?", "error_500")
    verdict = prove(sandbox, candidate, [str(uuid4()), correlation_id.upper()])
    assert verdict.result == "verified"
    assert verdict.proof["kind"] == "audit_log"
    assert verdict.proof["path"] == "/v1/AuditLogs"
    assert verdict.proof["http_status"] == 200
    assert verdict.proof["matched_correlation_id"] == correlation_id
    assert verdict.proof["entry_status"] == "Succeded"
    assert len(verdict.proof["entry_ids"]) == 1


@BOTH
def test_audit_entry_of_failure_fails(sandbox: Sandbox, candidate: Candidate) -> None:
    sandbox.configure(deletion_outcome="Failed", deletion_delay_seconds=0)
    verdict = prove(sandbox, candidate, [delete(sandbox, candidate)])
    assert verdict.result == "failed"
    assert verdict.proof["entry_status"] == "Failed"
    assert prove(sandbox, candidate, [str(uuid4())]).result is None


def test_audit_log_is_read_to_its_end_around_the_time_of_sending(sandbox: Sandbox) -> None:
    sandbox.configure(deletion_outcome="Failed", deletion_delay_seconds=0)
    correlation_id = delete(sandbox, REMOVAL)
    for _ in range(5):
        delete(sandbox, REMOVAL)
    assert prove(sandbox, REMOVAL, [correlation_id], page_size=2).result == "failed"
    now = datetime.now(UTC)
    skewed = prove(sandbox, REMOVAL, [correlation_id], sent_at=now + timedelta(minutes=4), now=lambda: now)
    assert skewed.result == "failed"
    later = prove(sandbox, REMOVAL, [correlation_id], sent_at=now + timedelta(minutes=6), now=lambda: now)
    assert later.result is None


def entry(correlation_id: str, status: Any = "Failed", **members: Any) -> dict[str, Any]:
    return {"id": str(uuid4()), "status": {"name": status}, "correlationId": correlation_id} | members


ONE, TWO = str(uuid4()), str(uuid4())


@pytest.mark.parametrize(
    ("entries", "result"),
    [
        ([entry(ONE, "Succeeded")], "verified"),
        ([entry(ONE, "SUCCEDED")], "verified"),
        ([entry(ONE, status="Succeded") | {"status": "Succeded"}], "verified"),
        ([{"details": [{"request": {"id": f" {ONE.upper()} "}}], "Status": {"name": "Succeded"}}], "verified"),
        ([{"details": {"status": {"name": "Succeded"}, "about": ONE}}], "verified"),
        ([{"status": {"name": "Failed"}, "customer": {"status": "Succeded"}, "x": ONE}], "failed"),
        ([entry(ONE, "Failed")], "failed"),
        ([entry(ONE, "Failed"), entry(ONE, "Failed")], "failed"),
        ([entry(ONE, "Processing")], None),
        ([entry(ONE, "Cancelled")], None),
        ([entry(ONE, None)], None),
        ([{"correlationId": ONE}], None),
        ([{"correlationId": ONE, "outcome": "Succeded"}], None),
        ([entry(ONE, "Succeded"), entry(ONE, "Failed")], None),
        ([entry(ONE, "Succeded"), entry(ONE, "Processing")], None),
        ([entry(TWO, "Succeded")], None),
        ([entry(f"{ONE} and more", "Succeded")], None),
        ([ONE, None, 7], None),
        ([], None),
    ],
)
def test_audit_entries_are_matched_by_any_member_and_judged_by_their_status(
    sandbox: Sandbox, server: OverridingServer, entries: list[Any], result: str | None
) -> None:
    server.answer("/v1/AuditLogs", {"items": entries, "hasNextPage": False})
    assert prove(sandbox, DELETION, [ONE], base_url=server.base_url).result == result


@pytest.mark.parametrize(
    ("statuses", "result"),
    [
        (("Failed", "Succeded"), "verified"),
        (("Succeded", "Failed"), "verified"),
        (("Failed", "Failed"), "failed"),
        ((None, "Failed"), "failed"),
        (("Failed", None), None),
        (("Processing", "Failed"), None),
        (("Failed", "Processing"), None),
    ],
)
def test_latest_of_several_requests_decides_that_it_failed(
    sandbox: Sandbox, server: OverridingServer, statuses: tuple[str | None, str | None], result: str | None
) -> None:
    """One that succeeded is enough; one that is under way may still succeed."""
    entries = [entry(ids, status) for ids, status in zip((ONE, TWO), statuses, strict=True) if status]
    server.answer("/v1/AuditLogs", {"items": entries, "hasNextPage": False})
    assert prove(sandbox, DELETION, [ONE, TWO], base_url=server.base_url).result == result


def listing(server: OverridingServer, sandbox: Sandbox) -> list[dict[str, Any]]:
    body = server.original("/v1/Customers?pageSize=2000", sandbox.tokens.issue(CSP_CLIENT), TENANT.domain)
    return list(body["items"])


def page(items: list[Any], **changed: Any) -> dict[str, Any]:
    return {"items": items, "totalCount": len(items), "hasNextPage": False} | changed


def without_instance(item: dict[str, Any]) -> dict[str, Any]:
    entries = {key: value for key, value in item["providerCustomers"].items() if key != INSTANCE}
    return item | {"providerCustomers": entries}


@BOTH
@pytest.mark.parametrize("broken", ["error_500", "404 of a gateway"])
def test_absence_from_a_whole_listing_verifies(
    sandbox: Sandbox, server: OverridingServer, candidate: Candidate, broken: str
) -> None:
    if broken == "error_500":
        sandbox.faults.for_path(f"{CUSTOMER_PATH}?", broken)
    else:
        server.answer(CUSTOMER_PATH, b"<html>no such page</html>", 404, "text/html")
    rest = [item for item in listing(server, sandbox) if item["id"] != CUSTOMER.id]
    server.answer("/v1/Customers", page(rest))
    verdict = prove(sandbox, candidate, [ONE], base_url=server.base_url)
    assert verdict.result == "verified"
    assert verdict.proof["kind"] == "absent_from_listing"
    assert (verdict.proof["path"], verdict.proof["http_status"]) == ("/v1/Customers", 200)
    assert (verdict.proof["customers_listed"], verdict.proof["known_others_listed"]) == (29, 29)
    assert verdict.proof["known_other"] in OTHERS


@pytest.mark.parametrize("page_size", [2000, 7])
@pytest.mark.parametrize("provider_style", ["name", "type", "none"])
def test_removed_relationship_shows_in_a_whole_listing(sandbox: Sandbox, page_size: int, provider_style: str) -> None:
    """Also where the audit log is not to be read."""
    correlation_id = delete(sandbox, REMOVAL)
    sandbox.provider_style = provider_style
    sandbox.deletion_delay_seconds = 0
    sandbox.faults.for_path("/v1/auditlogs", "forbidden")
    verdict = prove(sandbox, REMOVAL, [correlation_id], page_size=page_size)
    assert (verdict.result, verdict.proof["kind"]) == ("verified", "relationship_absent_from_listing")
    other = Candidate(REMOVE_RELATIONSHIP, CUSTOMER.id, CUSTOMER.provider_instance_ids[1], "test")
    assert prove(sandbox, other, [correlation_id], page_size=page_size).result is None


@BOTH
def test_listing_proves_nothing_while_the_customer_shows_it(
    sandbox: Sandbox, server: OverridingServer, candidate: Candidate
) -> None:
    rest = [item for item in listing(server, sandbox) if item["id"] != CUSTOMER.id]
    server.answer("/v1/Customers", page(rest))
    verdict = prove(sandbox, candidate, [ONE], base_url=server.base_url)
    assert verdict.result is None
    assert "still" in verdict.description


@BOTH
@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "null",
        "bare",
        "no total",
        "short",
        "twice",
        "unfit",
        "no others",
        "endless",
        "unreadable",
        "deleted others",
    ],
)
def test_listing_that_is_not_whole_proves_nothing(
    sandbox: Sandbox, server: OverridingServer, candidate: Candidate, damage: str
) -> None:
    sandbox.faults.for_path(f"{CUSTOMER_PATH}?", "error_500")
    rest = [item for item in listing(server, sandbox) if item["id"] != CUSTOMER.id]
    body: Any = {
        "empty": page([]),
        "null": page([]) | {"items": None},
        "bare": rest,
        "no total": page(rest, totalCount=None),
        "short": page(rest, totalCount=30),
        "twice": page([*rest, rest[0]]),
        "unfit": page([*rest, {"id": "x"}]),
        "no others": page(rest[:1]),
        "endless": page(rest, hasNextPage=True),
        "unreadable": None,
        "deleted others": page([item | {"isDeleted": True} for item in rest]),
    }[damage]
    server.answer("/v1/Customers", body)
    known = OTHERS - {rest[0]["id"]}
    verdict = prove(sandbox, candidate, [ONE], base_url=server.base_url, known_others=known)
    assert (verdict.result, verdict.proof) == (None, {})


@BOTH
def test_listing_without_anything_in_it_proves_nothing(
    sandbox: Sandbox, server: OverridingServer, candidate: Candidate
) -> None:
    """Others that are in no instance do not show that the listing shows instances."""
    sandbox.faults.for_path(f"{CUSTOMER_PATH}?", "error_500")
    server.answer("/v1/Customers", page([item | {"providerCustomers": None} for item in listing(server, sandbox)]))
    assert prove(sandbox, candidate, [ONE], base_url=server.base_url).result is None


@pytest.mark.parametrize("style", ["is_deleted", "status", "none"])
def test_deleted_customer_that_is_listed_is_not_absent(sandbox: Sandbox, style: str) -> None:
    sandbox.configure(deleted_style=style, deletion_delay_seconds=0)
    delete(sandbox, DELETION)
    sandbox.faults.for_path(f"{CUSTOMER_PATH}?", "error_500")
    verdict = prove(sandbox, DELETION, [ONE])
    assert verdict.result is None
    assert "the customer is still listed" in verdict.description


@pytest.mark.parametrize("style", ["isDeleted", "status"])
def test_customer_that_is_shown_as_deleted_is_not_proved(
    sandbox: Sandbox, server: OverridingServer, style: str
) -> None:
    item = next(item for item in listing(server, sandbox) if item["id"] == CUSTOMER.id)
    server.answer(CUSTOMER_PATH, item | ({"isDeleted": True} if style == "isDeleted" else {"status": "Deleted"}))
    verdict = prove(sandbox, DELETION, [ONE], base_url=server.base_url)
    assert verdict.result is None
    assert "marked as deleted, but still shown" in verdict.description


def test_rows_that_move_between_pages_are_read_until_they_stay(sandbox: Sandbox) -> None:
    sandbox.deletion_delay_seconds = 0
    delete(sandbox, REMOVAL)
    sandbox.page_churn = 3
    assert prove(sandbox, REMOVAL, [], page_size=7).result == "verified"
    sandbox.page_churn = 1000
    verdict = prove(sandbox, REMOVAL, [], page_size=7)
    assert verdict.result is None
    assert "could not be listed to the end" in verdict.description


@BOTH
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_proves_nothing(sandbox: Sandbox, candidate: Candidate, kind: str) -> None:
    delete(sandbox, candidate)
    sandbox.deletion_delay_seconds = 0
    sandbox.faults.for_path("/v1", kind)
    verdict = prove(sandbox, candidate, [ONE])
    assert (verdict.result, verdict.proof) == (None, {})


@pytest.mark.parametrize("body", [b"", b"<html></html>", b'{"statusCode": 404, "message": "Resource not found"}'])
def test_404_of_somebody_else_proves_nothing(sandbox: Sandbox, server: OverridingServer, body: bytes) -> None:
    server.answer(CUSTOMER_PATH, body, 404, "application/json")
    assert prove(sandbox, DELETION, [ONE], base_url=server.base_url).result is None


@BOTH
@pytest.mark.parametrize("answer", [{"providerCustomers": "x"}, {"id": "x"}, b"<html></html>", "forbidden", [], 400])
def test_strange_answer_about_the_customer_keeps_the_listing_from_proving(
    sandbox: Sandbox, server: OverridingServer, candidate: Candidate, answer: Any
) -> None:
    """Something answers for it, so its absence elsewhere shows no deletion."""
    items = listing(server, sandbox)
    server.answer("/v1/Customers", page([item for item in items if item["id"] != CUSTOMER.id]))
    if isinstance(answer, dict):
        answer = next(item for item in items if item["id"] == CUSTOMER.id) | answer
    if answer == "forbidden":
        sandbox.faults.for_path(f"{CUSTOMER_PATH}?", answer)
    else:
        server.answer(CUSTOMER_PATH, answer, *([400] if answer == 400 else []))
    assert prove(sandbox, candidate, [ONE], base_url=server.base_url).result is None


def test_answer_about_another_customer_proves_nothing(sandbox: Sandbox, server: OverridingServer) -> None:
    item = next(item for item in listing(server, sandbox) if item["id"] != CUSTOMER.id)
    server.answer(CUSTOMER_PATH, without_instance(item))
    assert prove(sandbox, REMOVAL, [ONE], base_url=server.base_url).result is None


def test_token_that_is_refused_is_a_sign_in_error(sandbox: Sandbox) -> None:
    sandbox.faults.for_path("/v1", "expired_token")
    with pytest.raises(SignInRefused):
        prove(sandbox, DELETION, [ONE])


@BOTH
def test_access_of_a_reseller_proves_nothing_of_the_customers_of_others(
    sandbox: Sandbox, candidate: Candidate
) -> None:
    """Its listing is whole, holds known customers and not this one: it may not see this one."""
    assert CUSTOMER.reseller_id != TENANT.resellers[0].id
    correlation_id = delete(sandbox, candidate)
    verdict = prove(sandbox, candidate, [correlation_id], client=RESELLER_CLIENT)
    assert verdict.result is None
    assert "HTTP 403" in verdict.description
    assert "/v1/customers" not in paths(sandbox)


def test_without_a_request_the_audit_log_is_not_asked(sandbox: Sandbox) -> None:
    assert prove(sandbox, DELETION, []).result is None
    assert paths(sandbox) == [CUSTOMER_PATH]
