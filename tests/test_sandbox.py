"""The API in front of the simulated tenant, as a client sees it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from cockpit_source.sandbox import (
    CSP_CLIENT,
    RESELLER_CLIENT,
    TOKEN_SCOPE,
    ApiClient,
    EventKind,
    Sandbox,
    SandboxTenant,
    running_sandbox,
)

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
TENANT = SandboxTenant()


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.clear_requests()
    running.day = 0
    return running


def sign_in(sandbox: Sandbox, **changes: str | None) -> requests.Response:
    form: dict[str, str | None] = {
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "scope": TOKEN_SCOPE,
        "grant_type": "client_credentials",
    }
    return requests.post(sandbox.token_url, data=form | changes, timeout=5)


def headers(sandbox: Sandbox, client: ApiClient = CSP_CLIENT) -> dict[str, str]:
    answer = sign_in(sandbox, client_id=client.id, client_secret=client.secret)
    return {"Authorization": f"Bearer {answer.json()['access_token']}", "X-Tenant": "sandbox.example"}


def ask(
    sandbox: Sandbox,
    customer_id: str,
    instance_id: str | None,
    reseller_id: str | None = None,
    client: ApiClient = CSP_CLIENT,
    more_headers: dict[str, str] | None = None,
) -> requests.Response:
    return requests.get(
        f"{sandbox.base_url}/v1/Customers/{customer_id}/licenses",
        params={"providerInstanceId": instance_id, "resellerId": reseller_id},
        headers=headers(sandbox, client) | (more_headers or {}),
        timeout=5,
    )


def ask_event(sandbox: Sandbox, kind: EventKind, day: int) -> requests.Response:
    event = sandbox.tenant.event(kind)
    sandbox.day = day
    return ask(sandbox, event.customer_id, event.provider_instance_id)


def row_of(rows: list[dict[str, Any]], sku_id: str | None) -> dict[str, Any] | None:
    return next((row for row in rows if row["skuId"] == sku_id), None)


def test_sign_in_with_good_credentials_gives_a_token(sandbox: Sandbox) -> None:
    answer = sign_in(sandbox)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["token_type"], body["expires_in"], body["ext_expires_in"]) == ("Bearer", 3599, 3599)
    assert body["access_token"] != sign_in(sandbox).json()["access_token"]


@pytest.mark.parametrize(
    ("changes", "status", "error", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", "AADSTS7000215: "),
        ({"client_id": "nobody"}, 400, "unauthorized_client", "AADSTS700016: "),
        ({"scope": "api://other/.default"}, 400, "invalid_scope", "AADSTS70011: "),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "AADSTS70003: "),
        ({"client_secret": None}, 400, "invalid_request", "AADSTS900144: "),
    ],
)
def test_sign_in_with_a_wrong_field_says_which(
    sandbox: Sandbox, changes: dict[str, str | None], status: int, error: str, code: str
) -> None:
    answer = sign_in(sandbox, **changes)
    assert answer.status_code == status
    assert answer.json()["error"] == error
    assert answer.json()["error_description"].startswith(code)


def test_licenses_of_every_scope_are_those_of_the_tenant(sandbox: Sandbox) -> None:
    session = requests.Session()
    session.headers.update(headers(sandbox))
    sandbox.day = 1
    for customer_id, instance_id, reseller_id in list(sandbox.tenant.scopes(1))[:40]:
        customer = sandbox.tenant.customer(customer_id)
        if customer is None or not customer.has_gdap or customer.is_flaky:
            continue
        answer = session.get(
            f"{sandbox.base_url}/v1/Customers/{customer_id}/licenses",
            params={"providerInstanceId": instance_id, "resellerId": reseller_id},
            timeout=5,
        )
        assert answer.json() == sandbox.tenant.licenses(customer_id, instance_id, 1)


def test_licenses_accept_ids_paths_and_domain_in_any_case(sandbox: Sandbox) -> None:
    customer_id, instance_id, reseller_id = next(s for s in quiet_scopes() if s[2])
    answer = requests.get(
        f"{sandbox.base_url}/V1/customers/{customer_id.upper()}/LICENSES",
        params={"providerInstanceId": instance_id.upper(), "resellerId": str(reseller_id).upper()},
        headers=headers(sandbox) | {"X-Tenant": "Sandbox.Example"},
        timeout=5,
    )
    assert answer.json() == sandbox.tenant.licenses(customer_id, instance_id, 0)
    assert sandbox.call_counts() == {(customer_id, instance_id, reseller_id): 1}


def quiet_scopes() -> list[tuple[str, str, str | None]]:
    quiet = {customer.id for customer in TENANT.customers if not customer.script}
    return [scope for scope in TENANT.scopes(0) if scope[0] in quiet]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer unknown", "Basic eDp5"])
def test_licenses_without_a_good_token_are_401_without_body(sandbox: Sandbox, authorization: str | None) -> None:
    customer_id, instance_id, _ = quiet_scopes()[0]
    answer = requests.get(
        f"{sandbox.base_url}/v1/Customers/{customer_id}/licenses",
        params={"providerInstanceId": instance_id},
        headers={"Authorization": authorization, "X-Tenant": "sandbox.example"},
        timeout=5,
    )
    assert (answer.status_code, answer.content) == (401, b"")


def test_licenses_with_a_token_too_old_are_401() -> None:
    with running_sandbox(TENANT, token_lifetime_seconds=0) as sandbox:
        assert ask(sandbox, *quiet_scopes()[0]).status_code == 401


def test_licenses_with_a_revoked_token_are_401_until_the_next_sign_in(sandbox: Sandbox) -> None:
    old = headers(sandbox)
    sandbox.tokens.revoke_all()
    scope = quiet_scopes()[0]
    assert ask(sandbox, *scope, more_headers=old).status_code == 401
    assert ask(sandbox, *scope).status_code == 200


@pytest.mark.parametrize("domain", ["", "other.example"])
def test_licenses_for_another_domain_are_403_without_body(sandbox: Sandbox, domain: str) -> None:
    answer = ask(sandbox, *quiet_scopes()[0], more_headers={"X-Tenant": domain})
    assert (answer.status_code, answer.content) == (403, b"")


@pytest.mark.parametrize(
    ("customer_id", "instance_id", "reseller_id", "names"),
    [
        ("abc", UNKNOWN_ID, None, ["customerId"]),
        (UNKNOWN_ID, None, None, ["providerInstanceId"]),
        (UNKNOWN_ID, "abc", "def", ["providerInstanceId", "resellerId"]),
    ],
)
def test_licenses_with_a_wrong_id_are_400_and_say_which(
    sandbox: Sandbox, customer_id: str, instance_id: str | None, reseller_id: str | None, names: list[str]
) -> None:
    answer = ask(sandbox, customer_id, instance_id, reseller_id, more_headers={"X-Correlation-Id": "my-call"})
    body = answer.json()
    assert answer.status_code == body["statusCode"] == 400
    assert body["correlationId"] == "my-call"
    assert [error["propertyName"] for error in body["errors"]] == names
    assert body.keys() == {"statusCode", "type", "description", "correlationId", "errors"}


def test_licenses_of_an_unknown_customer_or_instance_are_404(sandbox: Sandbox) -> None:
    customer_id, instance_id, _ = quiet_scopes()[0]
    for answer in (ask(sandbox, UNKNOWN_ID, instance_id), ask(sandbox, customer_id, UNKNOWN_ID)):
        assert answer.status_code == answer.json()["statusCode"] == 404


def test_licenses_for_an_unrelated_reseller_are_403_without_body(sandbox: Sandbox) -> None:
    customer_id, instance_id, _ = next(scope for scope in quiet_scopes() if scope[2] is None)
    answer = ask(sandbox, customer_id, instance_id, sandbox.tenant.resellers[0].id)
    assert (answer.status_code, answer.content) == (403, b"")


def test_reseller_client_sees_its_own_customers_only(sandbox: Sandbox) -> None:
    own_id, other_id = (reseller.id for reseller in sandbox.tenant.resellers[:2])
    own = next(scope for scope in quiet_scopes() if scope[2] == own_id)
    other = next(scope for scope in quiet_scopes() if scope[2] == other_id)
    direct = next(scope for scope in quiet_scopes() if scope[2] is None)
    statuses = [
        ask(sandbox, customer_id, instance_id, reseller_id, RESELLER_CLIENT).status_code
        for customer_id, instance_id, reseller_id in (own, (*own[:2], None), (*own[:2], other_id), other, direct)
    ]
    assert statuses == [200, 200, 403, 403, 403]


def test_unknown_path_or_method_is_answered_with_the_error_body(sandbox: Sandbox) -> None:
    assert requests.get(f"{sandbox.base_url}/v2/anything", timeout=5).json()["statusCode"] == 404
    assert requests.get(sandbox.token_url, timeout=5).json()["statusCode"] == 405


def test_customer_without_gdap_is_403_though_it_has_licences(sandbox: Sandbox) -> None:
    event = sandbox.tenant.event(EventKind.NO_GDAP)
    answer = ask_event(sandbox, EventKind.NO_GDAP, 0)
    assert (answer.status_code, answer.content) == (403, b"")
    assert sandbox.tenant.licenses(event.customer_id, event.provider_instance_id, 0)


def test_flaky_customer_fails_on_every_other_call(sandbox: Sandbox) -> None:
    assert [ask_event(sandbox, EventKind.FLAKY, 0).status_code for _ in range(4)] == [500, 200, 500, 200]


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (EventKind.CUSTOMER_JOINED, [404, 200, 200, 200, 200]),
        (EventKind.CUSTOMER_LEFT, [200, 200, 404, 404, 404]),
        (EventKind.GDAP_LOST, [200, 200, 403, 403, 200]),
        (EventKind.LICENCES_LOST, [200, 200, 200, 200, 200]),
    ],
)
def test_event_changes_the_status_on_its_day(sandbox: Sandbox, kind: EventKind, statuses: list[int]) -> None:
    assert [ask_event(sandbox, kind, day).status_code for day in range(5)] == statuses


def test_licences_lost_is_an_empty_array_from_its_day_on(sandbox: Sandbox) -> None:
    bodies = [ask_event(sandbox, EventKind.LICENCES_LOST, day).content for day in (2, 3, 4)]
    assert len(json.loads(bodies[0])) > 1
    assert bodies[1:] == [b"[]", b"[]"]


def test_sku_events_show_in_the_rows(sandbox: Sandbox) -> None:
    removed, added = sandbox.tenant.event(EventKind.SKU_REMOVED), sandbox.tenant.event(EventKind.SKU_ADDED)
    shown = [row_of(ask_event(sandbox, removed.kind, day).json(), removed.sku_id) for day in range(5)]
    assert [row is not None for row in shown] == [True, False, False, True, True]
    shown = [row_of(ask_event(sandbox, added.kind, day).json(), added.sku_id) for day in range(3)]
    assert [row is not None for row in shown] == [False, True, True]


def test_seat_events_show_in_the_rows(sandbox: Sandbox) -> None:
    over, suspended = (sandbox.tenant.event(kind) for kind in (EventKind.OVER_ASSIGNED, EventKind.SEATS_SUSPENDED))
    row = row_of(ask_event(sandbox, over.kind, over.day).json(), over.sku_id)
    assert row is not None
    assert row["availableLicenses"] < 0
    row = row_of(ask_event(sandbox, suspended.kind, suspended.day).json(), suspended.sku_id)
    assert row is not None
    assert row["suspendedLicenses"] >= row["totalLicenses"] > 0
