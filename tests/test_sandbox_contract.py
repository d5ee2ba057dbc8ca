"""The running sandbox against sandbox.openapi.yaml, with generated requests: good ones, wrong ones, both roles."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from sandbox_api import UNKNOWN_ID
from schemathesis.core.failures import FailureGroup

from cockpit_source.sandbox import CSP_CLIENT, RESELLER_CLIENT, ApiClient, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.sandbox.routes import make_routes

TENANT = SandboxTenant(customers=40)
DOCUMENT = yaml.safe_load((Path(__file__).parent / "sandbox.openapi.yaml").read_text(encoding="utf-8"))
# the flaky one answers 500 on purpose
SCOPES = [scope for scope in TENANT.scopes(0) if scope[0] != TENANT.event("flaky").customer_id]
KNOWN_IDS = {
    "customerId": [scope[0] for scope in SCOPES],
    "providerInstanceId": [instance.id for instance in TENANT.provider_instances],
    "resellerId": [reseller.id for reseller in TENANT.resellers],
}
CONFIG = schemathesis.Config.from_dict(
    {
        "generation": {"deterministic": True, "database": "none", "with-security-parameters": False},
        # without known ids, nearly every call would be a 404
        "dictionaries": {name: {"values": [*ids, UNKNOWN_ID]} for name, ids in KNOWN_IDS.items()},
        "parameters": {name: {"dictionary": name, "probability": 0.8} for name in KNOWN_IDS},
        # not DELETE: /v1/Customers/mca would be a customer with a wrong id
        "phases": {"coverage": {"unexpected-methods": ["POST", "PUT", "PATCH", "TRACE"]}},
        # a schema cannot say that one parameter needs another
        "operations": [
            {"include-name": name, "checks": {"positive_data_acceptance": {"enabled": False}}}
            for name in ("GET /v1/Customers", "GET /v1/Resellers")
        ],
    }
)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Deletions are accepted and never come due, so that the order of the calls does not matter."""
    with running_sandbox(TENANT, deletion_delay_seconds=3600, reseller_answers="parts") as running:
        yield running


@schemathesis.check
def no_body_where_none_is_described(_context: Any, response: Any, _case: Any) -> None:
    if response.status_code in (202, 401, 403):
        assert response.content == b""


def call(case: Any, sandbox: Sandbox, client: ApiClient = CSP_CLIENT) -> Any:
    headers = {"Authorization": f"Bearer {sandbox.tokens.issue(client)}"}
    return case.call_and_validate(base_url=sandbox.base_url, headers=headers)


@pytest.mark.parametrize("client", [CSP_CLIENT, RESELLER_CLIENT], ids=["csp", "reseller"])
@SCHEMA.parametrize()
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_sandbox_answers_as_its_description_says(case: Any, client: ApiClient, sandbox: Sandbox) -> None:
    call(case, sandbox, client)


def make_case(path: str, method: str = "GET", query: dict[str, Any] | None = None, **path_parameters: str) -> Any:
    headers = {"X-Tenant": TENANT.domain}
    return SCHEMA[path][method].Case(path_parameters=path_parameters, query=query or {}, headers=headers)


@pytest.mark.parametrize("client", [CSP_CLIENT, RESELLER_CLIENT], ids=["csp", "reseller"])
@pytest.mark.parametrize("call_name", ["", "/licenses", "/subscriptions", "/delegated-admin-relationships"])
def test_answers_for_known_scopes_are_described(sandbox: Sandbox, call_name: str, client: ApiClient) -> None:
    """Generated requests seldom hit a customer, one of its instances and one of its resellers together."""
    path = f"/v1/{'customers' if call_name == '/subscriptions' else 'Customers'}/{{customerId}}{call_name}"
    takes_instance = call_name in ("/licenses", "/delegated-admin-relationships")
    statuses = set()
    for customer_id, instance_id, reseller_id in SCOPES:
        query = {"providerInstanceId": instance_id} if takes_instance else {"resellerId": reseller_id or ""}
        statuses.add(call(make_case(path, query=query, customerId=customer_id), sandbox, client).status_code)
    assert statuses <= {200, 403}
    assert 200 in statuses


@pytest.mark.parametrize("styles", [("is_deleted", "name"), ("status", "type"), ("none", "none")])
def test_lists_are_described_in_every_style(styles: tuple[str, str]) -> None:
    deleted_style, provider_style = styles
    with running_sandbox(TENANT, deletion_delay_seconds=0, day=2) as sandbox:
        sandbox.configure(deleted_style=deleted_style, provider_style=provider_style)
        customer_id, instance_id, _ = quiet_scope()
        removal = "/v1/Customers/{customerId}/remove-reseller-relationship/{providerInstanceId}"
        ids = {"customerId": customer_id, "providerInstanceId": instance_id}
        assert call(make_case(removal, "DELETE", **ids), sandbox).status_code == 202
        assert (
            call(make_case("/v1/Customers/{customerId}", "DELETE", customerId=customer_id), sandbox).status_code
            == 202
        )
        paths = ("Customers", "Customers/mca", "Providers/Instances", "Resellers", "subscriptions", "AuditLogs")
        for path in paths:
            page = call(make_case(f"/v1/{path}", query={"pageSize": 2000}), sandbox).json()
            assert len(page["items"]) == page["totalCount"] > 0


def quiet_scope() -> tuple[str, str, str | None]:
    quiet = {customer.id for customer in TENANT.customers if not customer.script}
    return next(scope for scope in TENANT.scopes(0) if scope[0] in quiet)


@pytest.mark.parametrize(
    ("body", "status", "content_type", "message"),
    [
        (b'{"items": []}', 200, "application/json", 'not of type "array"'),
        (b'[{"skuId": "a"}]', 200, "application/json", "required"),
        (b"[]", 200, "text/html", "Content-Type"),
        (b"[]", 418, "application/json", "418"),
        (b"no", 403, "text/plain", "assert b'no' == b''"),
        (b'{"statusCode": 404}', 404, "application/json", "required"),
    ],
)
def test_answer_that_is_not_described_is_reported(
    sandbox: Sandbox, body: bytes, status: int, content_type: str, message: str
) -> None:
    """The checks above can fail; otherwise they would prove nothing."""
    customer_id, instance_id, _ = quiet_scope()
    path = "/v1/Customers/{customerId}/licenses"
    case = make_case(path, query={"providerInstanceId": instance_id}, customerId=customer_id)
    call(case, sandbox)
    sandbox.answer(customer_id, body, status, content_type)
    try:
        with pytest.raises((FailureGroup, AssertionError)) as reported:
            call(case, sandbox)
    finally:
        sandbox.clear()
    assert message in str(reported.value)


def test_description_names_every_path_of_the_sandbox() -> None:
    described = {
        (re.sub(r"{\w+}", "{}", path.lower()), method.upper())
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    served = {
        (re.sub(r"{\w+}", "{}", route.path), method)
        for route in make_routes()
        for method in (route.methods or set()) - {"HEAD"}
        if route.path.startswith("/v1/")
    }
    assert described == served
