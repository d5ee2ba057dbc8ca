"""What the API says of customers now: all of it, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from overriding_server import OverridingServer, overriding_server
from support import new_id, sku

from cockpit_source.client import CockpitClient
from cockpit_source.deletions.live import LiveReader
from cockpit_source.deletions.records import LiveEvidence, LiveScope, Subscription
from cockpit_source.errors import DeletionRefused, SignInRefused
from cockpit_source.sandbox import (
    CSP_CLIENT,
    RESELLER_CLIENT,
    TOKEN_SCOPE,
    ApiClient,
    Customer,
    EventKind,
    Sandbox,
    SandboxTenant,
    running_sandbox,
)
from cockpit_source.settings import build_settings

TENANT = SandboxTenant(customers=60)
DEFAULTS = {"deletion_delay_seconds": 0, "deleted_style": "is_deleted", "provider_style": "name", "page_churn": 0}


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.deletions.undo()
    running.configure(**DEFAULTS)
    running.day = 0
    running.clear_requests()
    return running


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[OverridingServer]:
    with overriding_server(sandbox.base_url) as running:
        yield running


OpenReader = Callable[..., LiveReader]


@pytest.fixture
def open_reader(sandbox: Sandbox) -> Iterator[OpenReader]:
    clients: list[CockpitClient] = []

    def open_one(base_url: str | None = None, client: ApiClient = CSP_CLIENT, page_size: int = 2000) -> LiveReader:
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
        clients.append(CockpitClient(settings))
        return LiveReader(clients[-1], page_size=page_size)

    yield open_one
    for client in clients:
        client.__exit__()


def find(matches: Callable[[Customer], bool]) -> Customer:
    return next(customer for customer in TENANT.customers if not customer.script and matches(customer))


def names_other_provider(customer: Customer, sandbox: Sandbox) -> bool:
    other = sandbox.directory.other_instance.id
    return any(entry.provider_instance_id == other for entry in sandbox.directory.entries(customer))


BOTH = find(lambda customer: len(customer.provider_instance_ids) == 2)
RESOLD = find(lambda customer: customer.reseller_id is not None)


def expected_evidence(sandbox: Sandbox, customer: Customer, instance_ids: tuple[str, ...]) -> LiveEvidence:
    rows = {instance: TENANT.licenses(customer.id, instance, sandbox.day) for instance in sorted(instance_ids)}
    return LiveEvidence(
        exists=True,
        company_name=customer.company_name,
        reseller_id=customer.reseller_id,
        relationships=tuple(rows),
        scopes=tuple(
            LiveScope(
                instance,
                customer.reseller_id,
                sum(row["totalLicenses"] for row in skus),
                sum(row["consumedLicenses"] for row in skus),
            )
            for instance, skus in rows.items()
        ),
        subscriptions=tuple(
            sorted(
                (
                    Subscription(row.id, row.provider_instance_id, row.product.name, row.status)
                    for row in sandbox.subscriptions(sandbox.day)
                    if row.customer.id == customer.id and row.provider_instance_id in instance_ids
                ),
                key=lambda found: (found.subscription_id or "",),
            )
        ),
    )


def refusal(reader: LiveReader, customer_id: str, *scopes: tuple[str, str | None], code: str = "unreadable") -> str:
    with pytest.raises(DeletionRefused) as caught:
        reader.read(customer_id, scopes)
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize("customer", [BOTH, RESOLD])
@pytest.mark.parametrize("page_size", [2000, 1])
def test_everything_of_a_customer_is_read(
    sandbox: Sandbox, open_reader: OpenReader, customer: Customer, page_size: int
) -> None:
    evidence = open_reader(page_size=page_size).read(customer.id, [])
    assert evidence == expected_evidence(sandbox, customer, customer.provider_instance_ids)
    assert evidence.scopes
    assert evidence.subscriptions


def test_given_scopes_are_read_beside_those_where_the_customer_is(sandbox: Sandbox, open_reader: OpenReader) -> None:
    instance = RESOLD.provider_instance_ids[0]
    evidence = open_reader().read(RESOLD.id, [(instance, None), (instance, RESOLD.reseller_id)])
    (whole, part) = evidence.scopes
    assert [(scope.provider_instance_id, scope.reseller_id) for scope in (whole, part)] == [
        (instance, None),
        (instance, RESOLD.reseller_id),
    ]
    assert whole.total_licenses == part.total_licenses


def test_deleted_customer_does_not_exist(sandbox: Sandbox, open_reader: OpenReader) -> None:
    reader = open_reader()
    sandbox.deletions.accept("DeleteCustomer", BOTH, None, "c", "x", "Succeded")
    assert reader.read(BOTH.id, [(BOTH.provider_instance_ids[0], None)]) == LiveEvidence(exists=False)


def test_removed_relationship_takes_its_scope_away(sandbox: Sandbox, open_reader: OpenReader) -> None:
    gone, kept = BOTH.provider_instance_ids
    reader = open_reader()
    sandbox.deletions.accept("RemoveResellerRelationship", BOTH, gone, "c", "x", "Succeded")
    evidence = reader.read(BOTH.id, [(gone, BOTH.reseller_id), (kept, BOTH.reseller_id)])
    assert evidence == expected_evidence(sandbox, BOTH, (kept,))
    sandbox.deletions.accept("RemoveResellerRelationship", BOTH, kept, "c", "x", "Succeded")
    evidence = reader.read(BOTH.id, [(gone, BOTH.reseller_id), (kept, BOTH.reseller_id)])
    assert evidence == expected_evidence(sandbox, BOTH, ())


def test_instances_of_other_providers_are_left_out(sandbox: Sandbox, open_reader: OpenReader) -> None:
    customer = find(lambda customer: names_other_provider(customer, sandbox))
    for style in ("name", "type"):
        sandbox.provider_style = style
        evidence = open_reader().read(customer.id, [])
        assert evidence == expected_evidence(sandbox, customer, customer.provider_instance_ids)
    sandbox.provider_style = "none"
    assert "The provider is not Microsoft" in refusal(open_reader(), customer.id)


@pytest.mark.parametrize(
    "kind", ["error_500", "html_503", "reset", "truncated", "wrong_shape", "forbidden", "throttle"]
)
@pytest.mark.parametrize(
    "path",
    ["/v1/customers/{}?", "/v1/customers/{}/licenses", "/v1/customers/{}/subscriptions", "/v1/providers/instances"],
)
def test_what_cannot_be_read_refuses(sandbox: Sandbox, open_reader: OpenReader, kind: str, path: str) -> None:
    sandbox.faults.for_path(path.format(BOTH.id), kind)
    text = refusal(open_reader(), BOTH.id)
    assert "could not be read" in text
    assert "never taken for empty" in text
    assert text.endswith(".")


def test_last_page_that_is_missing_refuses(sandbox: Sandbox, open_reader: OpenReader) -> None:
    count = len(open_reader().read(BOTH.id, []).subscriptions)
    assert count > 1
    sandbox.faults.for_path(f"/subscriptions?pageNumber={count}", "error_500")
    assert "The subscriptions of customer" in refusal(open_reader(page_size=1), BOTH.id)


def test_customer_without_gdap_refuses(open_reader: OpenReader) -> None:
    customer_id = TENANT.event(EventKind.NO_GDAP).customer_id
    assert "GDAP" in refusal(open_reader(), customer_id)


def test_reseller_access_cannot_read_the_customers_of_others(sandbox: Sandbox, open_reader: OpenReader) -> None:
    other = find(lambda customer: customer.reseller_id != TENANT.resellers[0].id)
    assert "HTTP 403" in refusal(open_reader(client=RESELLER_CLIENT), other.id)


def test_token_that_is_refused_is_a_sign_in_error(sandbox: Sandbox, open_reader: OpenReader) -> None:
    sandbox.faults.for_path(f"/v1/customers/{BOTH.id}?", "expired_token")
    with pytest.raises(SignInRefused):
        open_reader().read(BOTH.id, [])


def customer_body(server: OverridingServer, sandbox: Sandbox, **changed: Any) -> dict[str, Any]:
    body = server.original(f"/v1/Customers/{BOTH.id}", sandbox.tokens.issue(CSP_CLIENT), TENANT.domain)
    return {name: value for name, value in {**body, **changed}.items() if value != "left out"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>no such page</html>", "text/html"),
        (b"", "text/plain"),
        (b'{"statusCode": 404, "message": "Resource not found"}', "application/json"),
        (b'{"statusCode": 400, "type": "NotFound", "description": "x"}', "application/json"),
        (b'{"statusCode": 404, "type": null, "description": "x"}', "application/json"),
    ],
)
def test_404_of_somebody_else_proves_nothing(
    server: OverridingServer, open_reader: OpenReader, body: bytes, content_type: str
) -> None:
    server.answer(f"/v1/Customers/{BOTH.id}", body, 404, content_type)
    assert "HTTP 404" in refusal(open_reader(server.base_url), BOTH.id)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": new_id(1)},
        {"id": None},
        {"resellerId": "somebody"},
        {"providerCustomers": "left out"},
        {"providerCustomers": "none"},
        {"providerCustomers": {"first": {"providerCustomerId": "x"}}},
        {"providerCustomers": {BOTH.provider_instance_ids[0]: "x"}},
        {"providerCustomers": {BOTH.provider_instance_ids[0]: None}},
    ],
)
def test_customer_outside_the_contract_refuses(
    server: OverridingServer, sandbox: Sandbox, open_reader: OpenReader, changed: dict[str, Any]
) -> None:
    server.answer(f"/v1/Customers/{BOTH.id}", customer_body(server, sandbox, **changed))
    refusal(open_reader(server.base_url), BOTH.id)


@pytest.mark.parametrize(
    "changed", [{"isDeleted": True}, {"status": {"name": "Deleted"}}, {"deletedAt": "2026-01-01"}]
)
def test_customer_that_is_shown_as_deleted_is_refused_with_a_code_of_its_own(
    server: OverridingServer, sandbox: Sandbox, open_reader: OpenReader, changed: dict[str, Any]
) -> None:
    server.answer(f"/v1/Customers/{BOTH.id}", customer_body(server, sandbox, **changed))
    text = refusal(open_reader(server.base_url), BOTH.id, code="flagged_deleted")
    assert "marked as deleted" in text


def test_customer_in_no_instance_has_no_scope(
    server: OverridingServer, sandbox: Sandbox, open_reader: OpenReader
) -> None:
    server.answer(f"/v1/Customers/{BOTH.id}", customer_body(server, sandbox, providerCustomers=None))
    evidence = open_reader(server.base_url).read(BOTH.id, [])
    assert (evidence.relationships, evidence.scopes) == ((), ())
    assert not any("/instances" in path.lower() for _, path in server.requests)


@pytest.mark.parametrize(
    ("rows", "total", "consumed"),
    [
        ([sku("a", 10, 4), sku("b", 5, 0)], 15, 4),
        ([], 0, 0),
        ([sku("a", 10, 4), sku("b", 5, None)], 15, None),
        ([sku("a", None, 4)], None, 4),
        ([sku("a", 10, 4), sku("b", 5, -4)], 15, None),
    ],
)
def test_seats_of_a_scope_are_added_up_unless_a_row_does_not_tell(
    sandbox: Sandbox, server: OverridingServer, open_reader: OpenReader, rows: Any, total: int, consumed: int
) -> None:
    server.answer(f"/v1/Customers/{RESOLD.id}/licenses", rows)
    (scope,) = open_reader(server.base_url).read(RESOLD.id, []).scopes[:1]
    assert (scope.total_licenses, scope.consumed_licenses) == (total, consumed)


@pytest.mark.parametrize(
    "rows", [[sku("", 1, 1)], [sku("a", 1, "1")], ["a"], {"items": [], "hasNextPage": True}, None]
)
def test_licences_that_do_not_fit_refuse(server: OverridingServer, open_reader: OpenReader, rows: Any) -> None:
    server.answer(f"/v1/Customers/{RESOLD.id}/licenses", rows)
    assert "The licences of customer" in refusal(open_reader(server.base_url), RESOLD.id)


def page(*items: Any, total: int | None = None, **changed: Any) -> dict[str, Any]:
    return {
        "items": list(items),
        "totalCount": len(items) if total is None else total,
        "hasNextPage": False,
    } | changed


@pytest.mark.parametrize(
    "body",
    [
        page({"id": "1"}, total=2),
        page({"id": "1"}, {"id": "1"}),
        page("1"),
        page({"id": "1"}, totalCount=None),
        {"hasNextPage": False},
        [],
        {"items": []},
    ],
)
def test_subscriptions_outside_the_contract_refuse(
    server: OverridingServer, open_reader: OpenReader, body: Any
) -> None:
    server.answer(f"/v1/customers/{BOTH.id}/subscriptions", body)
    assert "The subscriptions of customer" in refusal(open_reader(server.base_url), BOTH.id)


def test_subscription_that_tells_little_is_kept(server: OverridingServer, open_reader: OpenReader) -> None:
    server.answer(f"/v1/customers/{BOTH.id}/subscriptions", page({"subscriptionStatus": 7}))
    assert open_reader(server.base_url).read(BOTH.id, []).subscriptions == (Subscription(None, None, None, None),)


@pytest.mark.parametrize("style", ["is_deleted", "status"])
@pytest.mark.parametrize("page_size", [2000, 7])
def test_customers_are_counted_without_deleted_ones(
    sandbox: Sandbox, open_reader: OpenReader, style: str, page_size: int
) -> None:
    sandbox.deleted_style = style
    there = sum(customer.is_listed(0) for customer in TENANT.customers)
    assert open_reader(page_size=page_size).count_customers() == there
    sandbox.deletions.accept("DeleteCustomer", BOTH, None, "c", "x", "Succeded")
    assert open_reader(page_size=page_size).count_customers() == there - 1


def test_listing_that_changes_is_read_again(sandbox: Sandbox, open_reader: OpenReader) -> None:
    sandbox.page_churn = 3
    there = sum(customer.is_listed(0) for customer in TENANT.customers)
    assert open_reader(page_size=20).count_customers() == there


@pytest.mark.parametrize("fault", [None, "error_500", "forbidden", "sign_in_page", "wrong_shape"])
def test_listing_that_is_not_whole_refuses(sandbox: Sandbox, open_reader: OpenReader, fault: str | None) -> None:
    if fault is None:
        sandbox.page_churn = 1000
    else:
        sandbox.faults.for_path("pageNumber=2", fault)
    with pytest.raises(DeletionRefused, match="The customer listing could not be read") as caught:
        open_reader(page_size=20).count_customers()
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize(
    "body", [page({"id": "x", "providerCustomers": None}), page(total=1), {"hasNextPage": False}, [], page("x")]
)
def test_listing_outside_the_contract_refuses(server: OverridingServer, open_reader: OpenReader, body: Any) -> None:
    server.answer("/v1/Customers", body)
    with pytest.raises(DeletionRefused) as caught:
        open_reader(server.base_url).count_customers()
    assert caught.value.code == "unreadable"
