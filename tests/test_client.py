"""The client: on cassettes recorded from the sandbox, and over real HTTP where a cassette cannot show it.

tests/cassettes/README.md says how the cassettes are recorded. vcrpy is not thread-safe, so everything on a
cassette happens in one thread.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import requests
from aiohttp import ClientSession, TCPConnector
from raw_server import head, raw_server
from support import new_id, sku

from cockpit_source.client import CockpitClient
from cockpit_source.errors import (
    ApiError,
    ConfigurationError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RunStopped,
    ServerFailed,
    SignInRefused,
    Throttled,
    TransportFailed,
    UnusableAnswer,
)
from cockpit_source.pacing import Pacer
from cockpit_source.redaction import REPLACEMENT, redact, redact_tree
from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.scopes import Scope
from cockpit_source.settings import DEFAULT_BASE_URL, DEFAULT_TOKEN_SCOPE, DEFAULT_TOKEN_URL, build_settings
from cockpit_source.transforms import find_items
from cockpit_source.transport import Transport, describe_failure

# where cassettes believe the API to be, whatever they were recorded from
CASSETTE_PORT = 8765
CASSETTE_URL = f"http://127.0.0.1:{CASSETTE_PORT}"
CASSETTE_TOKEN_URL = f"{CASSETTE_URL}/oauth2/v2.0/token"
RECORD = "COCKPIT_RECORD_"
KEPT_HEADERS = frozenset({"content-type", "content-length", "retry-after", "location"})

TENANT = SandboxTenant(customers=10, incidents=False)
SCOPES = [Scope(*ids) for ids in TENANT.scopes(0)]
PLAIN = SCOPES[0]._replace(reseller_id=None)
RESOLD = next(scope for scope in SCOPES if scope.reseller_id)
UNKNOWN = Scope(new_id(404), PLAIN.provider_instance_id, None)


class ClockedPacer(Pacer):
    """A pacer whose clock moves only while it sleeps, so that waits cost the test no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        super().__init__(clock=lambda: self.now)

    async def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now += seconds
        return not self.stop.is_set()


# --- cassettes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealTenant:
    """A tenant to record from instead of the sandbox, and what its cassettes hold in place of its names."""

    settings: dict[str, str]
    stand_ins: dict[str, str]


@pytest.fixture
def real_tenant(record_mode: str) -> RealTenant | None:
    """The tenant that the environment names, None while replaying or recording from the sandbox."""
    given = {
        name.removeprefix(RECORD).lower(): value for name, value in os.environ.items() if name.startswith(RECORD)
    }
    if record_mode == "none" or not given:
        return None
    given = {
        "base_url": DEFAULT_BASE_URL,
        "token_url": DEFAULT_TOKEN_URL,
        "token_scope": DEFAULT_TOKEN_SCOPE,
    } | given
    ids = {
        given.pop("customer_id").lower(): RESOLD.customer_id,
        given.pop("provider_instance_id").lower(): RESOLD.provider_instance_id,
        given.pop("reseller_id").lower(): str(RESOLD.reseller_id),
    }
    names = {
        given["token_url"]: CASSETTE_TOKEN_URL,
        given["base_url"]: CASSETTE_URL,
        given["tenant"]: TENANT.domain,
        given["client_id"]: REPLACEMENT,
    }
    return RealTenant(given, names | ids)


@pytest.fixture
def vcr_config(real_tenant: RealTenant | None) -> dict[str, Any]:
    """No token, secret, tenant name, cookie or mail address gets into a cassette."""
    stand_ins = real_tenant.stand_ins if real_tenant else {}

    def scrub_request(request: Any) -> Any:
        for name, stand_in in stand_ins.items():
            request.uri = request.uri.replace(name, stand_in)
        return request

    def scrub_response(response: dict[str, Any]) -> dict[str, Any]:
        body = response["body"]["string"]
        for name, stand_in in stand_ins.items():
            body = body.replace(name.encode(), stand_in.encode())
        response["body"]["string"] = body = _scrub_body(body)
        headers = {name: values for name, values in response["headers"].items() if name.lower() in KEPT_HEADERS}
        response["headers"] = {
            name: [str(len(body))] if name.lower() == "content-length" else values for name, values in headers.items()
        }
        return response

    return {
        "match_on": ("method", "scheme", "host", "port", "path", "query"),
        # the length of a form would tell that of the secret in it
        "filter_headers": [("Authorization", REPLACEMENT), ("X-Tenant", REPLACEMENT), "Cookie", "Content-Length"],
        "filter_post_data_parameters": [("client_id", REPLACEMENT), ("client_secret", REPLACEMENT)],
        "decode_compressed_response": True,
        "before_record_request": scrub_request,
        "before_record_response": scrub_response,
    }


def _scrub_body(body: bytes) -> bytes:
    try:
        tree = json.loads(body)
    except ValueError:
        return redact(body.decode("utf-8", "replace")).encode()
    scrubbed = redact_tree(tree)
    return body if scrubbed == tree else json.dumps(scrubbed, ensure_ascii=False).encode()


@pytest.fixture
def while_recording(
    request: pytest.FixtureRequest, record_mode: str, real_tenant: RealTenant | None
) -> Iterator[Callable[[Callable[[Sandbox], object]], None]]:
    """Prepares the sandbox, which runs only while cassettes are recorded; does nothing on replay."""
    if record_mode == "none":
        yield lambda _: None
    elif real_tenant is not None:
        if not request.node.name.startswith("test_contract"):
            pytest.skip("needs answers that only the sandbox gives on request")
        yield lambda _: None
    else:
        with running_sandbox(TENANT, port=CASSETTE_PORT) as sandbox:
            yield lambda prepare: prepare(sandbox)


@pytest.fixture
def pacer() -> ClockedPacer:
    return ClockedPacer()


@pytest.fixture
def replayed(pacer: ClockedPacer, real_tenant: RealTenant | None, while_recording: object) -> Iterator[CockpitClient]:
    """A client of the API as the cassettes know it, or of what they are recorded from."""
    raw = settings_of(CASSETTE_URL, CASSETTE_TOKEN_URL) | {"max_attempts": 3}
    if real_tenant:
        raw |= real_tenant.settings
    with CockpitClient(build_settings(raw), pacer=pacer) as client:
        yield client


@dataclass(frozen=True)
class SentRequest:
    """A request as it leaves the client."""

    method: str
    url: str
    headers: Mapping[str, str]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[SentRequest]:
    """Every request as it leaves the client, on a cassette or not."""
    seen: list[SentRequest] = []
    send = ClientSession.request

    def note(self: ClientSession, method: str, url: Any, *, headers: Any, **options: Any) -> Any:
        seen.append(SentRequest(method, str(url), headers))
        return send(self, method, url, headers=headers, **options)

    monkeypatch.setattr(ClientSession, "request", note)
    return seen


def recorded_scope(scope: Scope, real_tenant: RealTenant | None) -> Scope:
    """`scope`, or the ids of the real tenant that stand for it while recording."""
    if real_tenant is None:
        return scope
    real = {stand_in: name for name, stand_in in real_tenant.stand_ins.items()}
    return Scope(*(part and real.get(part, part) for part in scope))


def settings_of(base_url: str, token_url: str) -> dict[str, Any]:
    return {
        "tenant": TENANT.domain,
        "base_url": base_url,
        "token_url": token_url,
        "token_scope": TOKEN_SCOPE,
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "customers": [PLAIN.customer_id],
        "provider_instances": [PLAIN.provider_instance_id],
        "timeout_seconds": 5,
    }


Prepare = Callable[[Callable[[Sandbox], object]], None]


@pytest.mark.vcr
def test_contract_of_a_scope_with_licences(
    replayed: CockpitClient, while_recording: Prepare, real_tenant: RealTenant | None
) -> None:
    """Holds for a recording from a real tenant as well."""
    answer = replayed.list_licenses(recorded_scope(RESOLD, real_tenant))
    rows = find_items(answer.body)
    assert rows
    types = {
        "skuId": str,
        "name": str,
        "totalLicenses": int,
        "consumedLicenses": int,
        "availableLicenses": int,
        "suspendedLicenses": int,
        "isSelected": bool,
    }
    for row in rows:
        assert types.keys() <= row.keys()
        assert all(row[name] is None or isinstance(row[name], kind) for name, kind in types.items())
    assert (answer.call.http_status, answer.call.attempts) == (200, 1)


@pytest.mark.vcr
def test_contract_of_an_unknown_customer(
    replayed: CockpitClient, while_recording: Prepare, real_tenant: RealTenant | None
) -> None:
    """Holds for a recording from a real tenant as well."""
    scope = recorded_scope(RESOLD._replace(reseller_id=None), real_tenant)
    with pytest.raises((NotFound, Forbidden, InvalidRequest)) as caught:
        replayed.list_licenses(scope._replace(customer_id=UNKNOWN.customer_id))
    assert caught.value.description
    assert caught.value.call.attempts == 1


@pytest.mark.vcr
def test_licences_of_a_scope_are_answered_as_the_tenant_has_them(
    replayed: CockpitClient, while_recording: Prepare
) -> None:
    answer = replayed.list_licenses(PLAIN)
    assert answer.body == TENANT.licenses(PLAIN.customer_id, PLAIN.provider_instance_id, 0)
    assert len(answer.body) > 0
    assert (answer.call.http_status, answer.call.attempts, answer.call.server_correlation_id) == (200, 1, None)


@pytest.mark.vcr
def test_scope_without_licences_is_answered_with_an_empty_array(
    replayed: CockpitClient, while_recording: Prepare
) -> None:
    while_recording(lambda sandbox: sandbox.answer(PLAIN.customer_id, b"[]"))
    assert replayed.list_licenses(PLAIN).body == []


@pytest.mark.vcr
def test_object_with_items_is_answered_as_it_is(replayed: CockpitClient, while_recording: Prepare) -> None:
    page = {"items": [sku("e3", 25, 22)], "hasNextPage": False, "continuationToken": None}
    while_recording(lambda sandbox: sandbox.answer(PLAIN.customer_id, json.dumps(page).encode()))
    assert find_items(replayed.list_licenses(PLAIN).body) == [sku("e3", 25, 22)]


@pytest.mark.vcr
def test_400_is_an_invalid_request_with_its_details(replayed: CockpitClient, while_recording: Prepare) -> None:
    body = {
        "statusCode": 400,
        "type": "ValidationError",
        "description": "The request is not valid; ask ada@example.com.",
        "correlationId": new_id(400),
        "errors": [{"propertyName": "providerInstanceId", "description": ["not Microsoft", "not active"]}],
    }
    while_recording(lambda sandbox: sandbox.answer(PLAIN.customer_id, json.dumps(body).encode(), 400))
    with pytest.raises(InvalidRequest, match="HTTP 400, ValidationError: The request is not valid") as caught:
        replayed.list_licenses(PLAIN)
    assert caught.value.errors == (("providerInstanceId", ("not Microsoft", "not active")),)
    assert "ask [redacted]" in caught.value.description
    assert caught.value.call.server_correlation_id == new_id(400)
    assert caught.value.call.attempts == 1


@pytest.mark.vcr
def test_403_without_a_body_is_forbidden(replayed: CockpitClient, while_recording: Prepare) -> None:
    while_recording(lambda sandbox: sandbox.answer(PLAIN.customer_id, b"", 403))
    with pytest.raises(Forbidden, match="HTTP 403, http_403: these credentials may not read this") as caught:
        replayed.list_licenses(PLAIN)
    assert (caught.value.call.attempts, caught.value.outcome) == (1, "forbidden")


@pytest.mark.vcr
def test_404_is_not_found_with_what_the_api_says(
    replayed: CockpitClient, while_recording: Prepare, pacer: ClockedPacer
) -> None:
    with pytest.raises(NotFound, match="HTTP 404, NotFound: The customer does not exist") as caught:
        replayed.list_licenses(UNKNOWN)
    assert UUID(caught.value.call.server_correlation_id)
    assert caught.value.call.attempts == 1
    assert pacer.slept == []


@pytest.mark.vcr
def test_429_is_repeated_after_the_asked_wait(
    replayed: CockpitClient, while_recording: Prepare, pacer: ClockedPacer
) -> None:
    while_recording(lambda sandbox: sandbox.faults.configure(retry_after_seconds=20))
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "throttle", 1))
    answer = replayed.list_licenses(PLAIN)
    assert answer.body == TENANT.licenses(PLAIN.customer_id, PLAIN.provider_instance_id, 0)
    assert answer.call.attempts == 2
    assert pacer.slept == [20.0]
    assert (replayed.calls.throttled, replayed.calls.requests) == (1, 2)


@pytest.mark.vcr
def test_500_to_the_last_attempt_is_a_server_failure(
    replayed: CockpitClient, while_recording: Prepare, pacer: ClockedPacer
) -> None:
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "error_500"))
    with pytest.raises(ServerFailed, match="HTTP 500, InternalServerError: The sandbox was told to fail") as caught:
        replayed.list_licenses(PLAIN)
    assert caught.value.call.attempts == 3
    assert len(pacer.slept) == 2
    assert max(pacer.slept) <= 1.0


@pytest.mark.vcr
def test_html_503_is_repeated(replayed: CockpitClient, while_recording: Prepare) -> None:
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "html_503", 1))
    answer = replayed.list_licenses(PLAIN)
    assert answer.body == TENANT.licenses(PLAIN.customer_id, PLAIN.provider_instance_id, 0)
    assert answer.call.attempts == 2


@pytest.mark.vcr
def test_sign_in_page_with_200_is_unusable(replayed: CockpitClient, while_recording: Prepare) -> None:
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "sign_in_page"))
    with pytest.raises(UnusableAnswer, match=r"web page \(text/html\), probably a sign-in page") as caught:
        replayed.list_licenses(PLAIN)
    assert caught.value.call.attempts == 1


@pytest.mark.vcr
def test_reseller_of_a_scope_is_in_the_query_and_otherwise_absent(
    replayed: CockpitClient, while_recording: Prepare, sent: list[SentRequest]
) -> None:
    with_reseller = replayed.list_licenses(RESOLD)
    without = replayed.list_licenses(RESOLD._replace(reseller_id=None))
    assert with_reseller.body == without.body
    urls = [urlsplit(request.url or "") for request in sent if request.method == "GET"]
    assert [url.path for url in urls] == [f"/v1/Customers/{RESOLD.customer_id}/licenses"] * 2
    assert [parse_qs(url.query) for url in urls] == [
        {"providerInstanceId": [RESOLD.provider_instance_id], "resellerId": [RESOLD.reseller_id]},
        {"providerInstanceId": [RESOLD.provider_instance_id]},
    ]


@pytest.mark.vcr
def test_reseller_without_relation_is_forbidden(replayed: CockpitClient, while_recording: Prepare) -> None:
    other = next(reseller.id for reseller in TENANT.resellers if reseller.id != RESOLD.reseller_id)
    with pytest.raises(Forbidden):
        replayed.list_licenses(RESOLD._replace(reseller_id=other))


@pytest.mark.vcr
def test_headers_of_every_attempt_are_complete_and_the_correlation_id_fresh(
    replayed: CockpitClient, while_recording: Prepare, sent: list[SentRequest]
) -> None:
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "html_503", 2))
    answer = replayed.list_licenses(PLAIN)
    sign_in, *attempts = sent
    assert (sign_in.method, sign_in.url) == ("POST", CASSETTE_TOKEN_URL)
    assert "X-Tenant" not in sign_in.headers
    assert "Authorization" not in sign_in.headers
    token = replayed.sign_in().value
    for attempt in attempts:
        assert attempt.headers["X-Tenant"] == TENANT.domain
        assert attempt.headers["Authorization"] == f"Bearer {token}"
        assert attempt.headers["Accept"] == "application/json"
        assert "Cookie" not in attempt.headers
    correlation_ids = [UUID(attempt.headers["X-Correlation-Id"]) for attempt in attempts]
    assert len(set(correlation_ids)) == len(correlation_ids) == 3
    assert answer.call.correlation_id == str(correlation_ids[-1])


@pytest.mark.vcr
def test_401_is_repeated_once_with_a_new_token(
    replayed: CockpitClient, while_recording: Prepare, sent: list[SentRequest]
) -> None:
    replayed.list_licenses(PLAIN)
    first = replayed.sign_in()
    while_recording(lambda sandbox: sandbox.tokens.revoke_all())
    answer = replayed.list_licenses(PLAIN)
    assert answer.body == TENANT.licenses(PLAIN.customer_id, PLAIN.provider_instance_id, 0)
    assert [request.method for request in sent] == ["POST", "GET", "GET", "POST", "GET"]
    assert replayed.sign_in() is not first
    assert answer.call.attempts == 2


@pytest.mark.vcr
def test_401_with_a_new_token_too_is_a_refused_sign_in(
    replayed: CockpitClient, while_recording: Prepare, sent: list[SentRequest]
) -> None:
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "expired_token"))
    with pytest.raises(SignInRefused, match=r"a token that was just issued \(401\)\. Check that tenant") as caught:
        replayed.list_licenses(PLAIN)
    assert sent[-1].headers["X-Correlation-Id"] in str(caught.value)
    assert [request.method for request in sent] == ["POST", "GET", "POST", "GET"]


@pytest.mark.vcr
def test_redirect_is_not_followed(replayed: CockpitClient, while_recording: Prepare, sent: list[SentRequest]) -> None:
    while_recording(lambda sandbox: sandbox.faults.for_customer(PLAIN.customer_id, "redirect"))
    with pytest.raises(ServerFailed, match="HTTP 302, http_302: the API answered with a redirect") as caught:
        replayed.list_licenses(PLAIN)
    assert caught.value.call.attempts == 1
    assert [request.method for request in sent] == ["POST", "GET"]


# --- real HTTP, against the sandbox -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox on a free port; waits between attempts are short."""
    monkeypatch.setattr("cockpit_source.pacing.BACKOFF_BASE_SECONDS", 0.01)
    running.clear()
    running.clear_requests()
    return running


def client_of(sandbox: Sandbox, *, pacer: Pacer | None = None, **changed: Any) -> CockpitClient:
    raw = settings_of(sandbox.base_url, sandbox.token_url) | {"max_attempts": 1} | changed
    return CockpitClient(build_settings(raw), pacer=pacer)


def failure_of(client: CockpitClient, scope: Scope = PLAIN) -> ApiError:
    """The error of a call that must fail; also checks that nothing stays counted as in flight."""
    with client, pytest.raises(ApiError) as caught:
        client.list_licenses(scope)
    assert client.calls.in_flight == 0
    return caught.value


@pytest.mark.parametrize(
    ("fault", "error_type"), [("truncated", "truncated"), ("reset", "connection_error"), ("hang", "timeout")]
)
def test_connection_that_fails_is_a_transport_failure(sandbox: Sandbox, fault: str, error_type: str) -> None:
    sandbox.faults.for_customer(PLAIN.customer_id, fault)
    started = time.monotonic()
    error = failure_of(client_of(sandbox, timeout_seconds=0.3 if fault == "hang" else 5, max_attempts=2))
    assert (type(error), error.error_type, error.transient) == (TransportFailed, error_type, True)
    assert (error.call.http_status, error.call.attempts) == (None, 2)
    assert error.call.correlation_id == sandbox.requests[-1].correlation_id
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", ["truncated", "reset", "hang"])
def test_connection_that_fails_once_is_tried_again(sandbox: Sandbox, fault: str) -> None:
    sandbox.faults.for_customer(PLAIN.customer_id, fault, 1)
    with client_of(sandbox, timeout_seconds=1 if fault == "hang" else 5, max_attempts=2) as client:
        answer = client.list_licenses(PLAIN)
    assert answer.body == TENANT.licenses(PLAIN.customer_id, PLAIN.provider_instance_id, 0)
    assert answer.call.attempts == 2


def test_nobody_listening_is_a_transport_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = failure_of(raw_client(f"http://127.0.0.1:{port}"))
    assert (type(error), error.error_type) == (TransportFailed, "connection_error")


def test_answer_over_32_mib_is_refused_without_another_attempt(sandbox: Sandbox) -> None:
    sandbox.faults.configure(oversized_bytes=32 * 1024 * 1024)
    sandbox.faults.for_customer(PLAIN.customer_id, "oversized")
    error = failure_of(client_of(sandbox, max_attempts=3, timeout_seconds=20))
    assert (type(error), error.error_type) == (UnusableAnswer, "too_large")
    assert error.description == "the answer is larger than 32 MiB"
    assert error.call.attempts == 1


def test_answer_just_under_32_mib_is_read(sandbox: Sandbox) -> None:
    sandbox.faults.configure(oversized_bytes=32 * 1024 * 1024 - 2)
    sandbox.faults.for_customer(PLAIN.customer_id, "oversized")
    with client_of(sandbox, timeout_seconds=20) as client:
        assert client.list_licenses(PLAIN).body == []


def test_credentials_are_not_sent_along_a_redirect(sandbox: Sandbox) -> None:
    sandbox.faults.for_customer(PLAIN.customer_id, "redirect")
    assert failure_of(client_of(sandbox)).error_type == "http_302"
    assert [request.path for request in sandbox.requests] == [
        "/oauth2/v2.0/token",
        f"/v1/Customers/{PLAIN.customer_id}/licenses",
    ]


def test_wait_beyond_patience_defers_at_once(sandbox: Sandbox) -> None:
    sandbox.faults.configure(retry_after_seconds=3600)
    sandbox.faults.for_customer(PLAIN.customer_id, "throttle")
    started = time.monotonic()
    error = failure_of(client_of(sandbox, max_attempts=5, patience_seconds=60))
    assert (type(error), error.outcome, error.call.attempts) == (Throttled, "deferred", 1)
    assert "asked to wait 3600 s, longer than patience_seconds" in str(error)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", ["throttle", "throttle_date"])
def test_wait_that_one_call_is_asked_for_holds_every_other(sandbox: Sandbox, fault: str) -> None:
    pacer = ClockedPacer()
    sandbox.faults.configure(retry_after_seconds=20)
    sandbox.faults.for_customer(PLAIN.customer_id, fault, 1)
    with client_of(sandbox, pacer=pacer) as client:
        with pytest.raises(Throttled):
            client.list_licenses(PLAIN)
        assert pacer.slept == []
        client.list_licenses(SCOPES[1])
    (held,) = pacer.slept
    assert 19 < held < 22


def test_429_without_retry_after_is_repeated_with_backoff(sandbox: Sandbox) -> None:
    sandbox.faults.for_customer(PLAIN.customer_id, "throttle_bare", 2)
    with client_of(sandbox, max_attempts=3) as client:
        assert client.list_licenses(PLAIN).call.attempts == 3
        assert client.calls.throttled == 2


def test_429_to_the_last_attempt_is_deferred(sandbox: Sandbox) -> None:
    sandbox.faults.for_customer(PLAIN.customer_id, "throttle_bare")
    error = failure_of(client_of(sandbox, max_attempts=3))
    assert (type(error), error.outcome, error.call.attempts) == (Throttled, "deferred", 3)


@pytest.mark.parametrize(
    "changed",
    [
        {member: bad}
        for member in Scope._fields
        for bad in ("..", "%2e%2e", "all", PLAIN.customer_id + "/../x", "7?a=b", "{" + new_id(1) + "}")
    ]
    + [{"customer_id": ""}, {"provider_instance_id": ""}],
)
def test_id_that_is_not_a_uuid_is_refused_before_any_request(sandbox: Sandbox, changed: dict[str, str]) -> None:
    with (
        client_of(sandbox) as client,
        pytest.raises(ValueError, match="is not a UUID and cannot be part of an address"),
    ):
        client.list_licenses(PLAIN._replace(**changed))
    assert sandbox.requests == []


@pytest.mark.parametrize("name", ["base_url", "token_url"])
@pytest.mark.parametrize("url", ["http://api.example.com", "http://10.0.0.1", "http://127.0.0.1.example.com"])
def test_http_to_another_machine_is_refused(name: str, url: str) -> None:
    raw = settings_of(CASSETTE_URL, CASSETTE_TOKEN_URL) | {name: url}
    with pytest.raises(ConfigurationError, match=f"{name} would send credentials unencrypted"):
        build_settings(raw)


def test_run_that_stopped_makes_no_call(sandbox: Sandbox) -> None:
    pacer = Pacer()
    with client_of(sandbox, pacer=pacer) as client:
        client.sign_in()
        sandbox.clear_requests()
        pacer.stop.set()
        with pytest.raises(RunStopped):
            client.list_licenses(PLAIN)
    assert sandbox.requests == []


def test_run_that_stops_ends_the_wait_for_another_attempt(sandbox: Sandbox) -> None:
    pacer = Pacer()
    sandbox.faults.configure(retry_after_seconds=100)
    sandbox.faults.for_customer(PLAIN.customer_id, "throttle")
    threading.Timer(0.3, pacer.stop.set).start()
    started = time.monotonic()
    error = failure_of(client_of(sandbox, pacer=pacer, max_attempts=5))
    assert (error.error_type, error.call.attempts) == ("http_429", 1)
    assert time.monotonic() - started < 5


def test_netrc_does_not_replace_our_token(
    sandbox: Sandbox, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`requests` would send the entry of a netrc file instead of the header it is given."""
    netrc = own_folder / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(sandbox.base_url) == ("somebody", "else")
    with client_of(sandbox) as client:
        assert client.list_licenses(PLAIN).call.http_status == 200


def test_proxy_of_the_environment_is_used_unless_no_proxy_names_the_host(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    token = sandbox.tokens.issue(CSP_CLIENT)
    ready = {"access_token": token, "client_id": None, "client_secret": None}
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert failure_of(client_of(sandbox, **ready)).error_type == "proxy_error"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with client_of(sandbox, **ready) as client:
        assert client.list_licenses(PLAIN).call.http_status == 200


def test_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    error = failure_of(raw_client("https://api.example.com"))
    assert error.error_type == "proxy_error"
    assert error.description == "only proxies by http and https are supported"


def test_certificates_that_are_not_there_are_told_by_their_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ours.pem")
    error = failure_of(raw_client("https://127.0.0.1:1"))
    assert error.error_type == "tls_error"
    assert error.description == "the certificates in /nowhere/ours.pem cannot be read: No such file or directory"


def test_client_that_is_closed_ends_the_calls_of_other_threads() -> None:
    ended: list[CancelledError] = []

    def call(client: CockpitClient) -> None:
        try:
            client.list_licenses(PLAIN)
        except CancelledError as error:
            ended.append(error)

    with raw_server(head("Content-Length: 9"), b"[", pause_seconds=60) as server:
        with raw_client(server.url, timeout_seconds=60) as client:
            caller = threading.Thread(target=call, args=[client], daemon=True)
            caller.start()
            while not server.received:
                time.sleep(0.01)
        caller.join(timeout=5)
    assert len(ended) == 1
    assert not client._transport._thread.is_alive()


def test_calls_one_after_the_other_share_a_connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after answers that carry no licences; a body that is not read to its end would cost the connection."""
    opened: list[object] = []
    connect = TCPConnector._create_connection

    async def note(self: TCPConnector, *arguments: Any) -> Any:
        opened.append(arguments)
        return await connect(self, *arguments)

    monkeypatch.setattr(TCPConnector, "_create_connection", note)
    sandbox.answer(SCOPES[1].customer_id, b"", 403)
    with client_of(sandbox, max_attempts=2) as client:
        for _ in range(3):
            client.list_licenses(PLAIN)
            with pytest.raises(Forbidden):
                client.list_licenses(SCOPES[1])
    assert len(opened) == 1


# --- real HTTP, against a server that says anything ---------------------------------------------------------------


def raw_client(url: str, **changed: Any) -> CockpitClient:
    raw = settings_of(url, url) | {"access_token": "ready-token", "client_id": None, "client_secret": None}
    return CockpitClient(build_settings(raw | {"max_attempts": 1, "timeout_seconds": 5} | changed))


def test_body_that_trickles_in_ends_at_the_timeout() -> None:
    """Each byte comes well within the read timeout; all of them together do not."""
    with raw_server(head("Content-Length: 1000"), *[b" "] * 100, pause_seconds=0.05) as server:
        started = time.monotonic()
        error = failure_of(raw_client(server.url, timeout_seconds=0.5))
        duration = time.monotonic() - started
    assert (type(error), error.error_type) == (TransportFailed, "timeout")
    assert error.description == "the answer did not end in time"
    assert 0.45 < duration < 3


def test_body_that_stalls_ends_at_the_timeout() -> None:
    with raw_server(head("Content-Length: 10"), b"[", b"]", pause_seconds=10) as server:
        started = time.monotonic()
        error = failure_of(raw_client(server.url, timeout_seconds=0.3))
        assert (type(error), error.error_type) == (TransportFailed, "timeout")
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([head("Content-Length: 100"), b"[]"], id="length"),
        pytest.param([head("Transfer-Encoding: chunked"), b"2\r\n[]\r\n"], id="no last chunk"),
        pytest.param([head("Transfer-Encoding: chunked"), b"10\r\n[]"], id="within a chunk"),
        pytest.param([head("Content-Encoding: gzip", "Content-Length: 5"), b"[   ]"], id="not gzip"),
        pytest.param([head("Content-Encoding: gzip", "Content-Length: 99"), gzip.compress(b"[]")], id="gzip cut"),
    ],
)
def test_body_that_breaks_off_is_truncated_never_a_short_answer(pieces: list[bytes]) -> None:
    with raw_server(*pieces) as server:
        error = failure_of(raw_client(server.url))
    assert (type(error), error.error_type, error.transient) == (TransportFailed, "truncated", True)
    assert error.description.startswith("the answer broke off")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        head("Content-Length: \u00b2") + b'["a",1]',
        head("Transfer-Encoding: chunked") + b"what\r\n",
    ],
)
def test_server_that_does_not_speak_http_is_a_transport_failure(garbage: bytes) -> None:
    with raw_server(garbage) as server:
        error = failure_of(raw_client(server.url))
    assert (type(error), error.error_type, error.transient) == (TransportFailed, "connection_error", True)
    assert re.search(r": (Server disconnected|not HTTP: [^\n]+)$", error.description)


def test_chunks_that_become_garbage_end_at_the_timeout() -> None:
    """`aiohttp` does not tell the reader of a body that its framing is broken."""
    with raw_server(head("Transfer-Encoding: chunked"), b"2\r\n[]\r\n", b"what\r\n", pause_seconds=0.1) as server:
        error = failure_of(raw_client(server.url, timeout_seconds=0.5))
    assert (type(error), error.transient) == (TransportFailed, True)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([head("Content-Length: 7"), b'["a"', b",1]"], id="length"),
        pytest.param([head("Transfer-Encoding: chunked"), b"5\r\n", b'["a",\r\n2\r\n1]\r\n0\r\n\r\n'], id="chunked"),
        pytest.param([head("Connection: close"), b'["a",', b"1]"], id="until it closes"),
        pytest.param(
            [head("Content-Encoding: gzip"), *(gzip.compress(b'["a",1]')[n : n + 1] for n in range(28))], id="gzip"
        ),
    ],
)
def test_body_in_any_framing_and_pieces_is_read_whole(pieces: list[bytes]) -> None:
    with raw_server(*pieces, pause_seconds=0.01) as server, raw_client(server.url) as client:
        assert client.list_licenses(PLAIN).body == ["a", 1]


def test_body_that_unpacks_beyond_the_limit_is_refused() -> None:
    packed = gzip.compress(b"[" + b" " * 64 * 1024 * 1024 + b"]")
    assert len(packed) < 100_000
    with raw_server(head("Content-Encoding: gzip", f"Content-Length: {len(packed)}"), packed) as server:
        error = failure_of(raw_client(server.url, timeout_seconds=20))
    assert (type(error), error.error_type) == (UnusableAnswer, "too_large")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Location: https://elsewhere.example/", "Content-Length: 12"], b"Object moved"),
        (["Location: http://[", "Content-Length: 0"], b""),
        (["Location: //", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
        (["Content-Length: 0"], b""),
    ],
)
def test_redirect_to_anywhere_and_with_any_body_is_reported_as_one(headers: list[str], body: bytes) -> None:
    with raw_server(head(*headers, status="307 Temporary Redirect"), body) as server:
        error = failure_of(raw_client(server.url, max_attempts=3))
    assert (type(error), error.error_type, error.transient) == (ServerFailed, "http_307", False)
    assert len(server.received) == 1


def test_header_in_another_encoding_is_storable() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Type: caf\xe9\r\nContent-Length: 1\r\n\r\n", b"x") as server:
        error = failure_of(raw_client(server.url))
    assert error.description == "the API answered 200 with a body that is not JSON (caf\ufffd, 1 bytes)"


def test_cookies_are_not_kept() -> None:
    answer = head("Set-Cookie: session=abc; Path=/", "Connection: close", "Content-Length: 2")
    with raw_server(answer, b"[]") as server, raw_client(server.url) as client:
        client.list_licenses(PLAIN)
        client.list_licenses(PLAIN)
    assert len(server.received) == 2
    assert all(b"cookie" not in request.lower() for request in server.received)


def test_request_on_the_wire_is_one_get_with_our_headers() -> None:
    with raw_server(head("Content-Length: 2"), b"[]") as server, raw_client(server.url) as client:
        answer = client.list_licenses(RESOLD)
    (request,) = server.received
    line, *lines = request.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    assert line == (
        f"GET /v1/Customers/{RESOLD.customer_id}/licenses?providerInstanceId={RESOLD.provider_instance_id}"
        f"&resellerId={RESOLD.reseller_id} HTTP/1.1"
    )
    assert headers["Authorization"] == "Bearer ready-token"
    assert headers["X-Tenant"] == TENANT.domain
    assert headers["X-Correlation-Id"] == answer.call.correlation_id
    assert headers["Accept"] == "application/json"
    assert headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("url", "told"),
    [("http://127.0.0.1:9/x", "127.0.0.1:9: Connection refused"), ("http://localhost:9/x", "localhost:9: ")],
)
def test_unreachable_host_is_told_by_its_name_and_reason(url: str, told: str) -> None:
    """Not as a chain of the library's objects."""
    transport = Transport(1.0, 1)
    with closing(transport), pytest.raises(requests.ConnectionError) as caught:
        transport.run(transport.send("GET", url))
    assert describe_failure(caught.value).startswith(told)
    assert "Connection" not in describe_failure(caught.value).replace("Connection refused", "")
