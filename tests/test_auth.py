"""Tokens: one request however many wait, renewed in time, refusals remembered, secrets never shown."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests

from cockpit_source.auth import ClientCredentialsTokens, ReadyToken, Token, TokenProvider
from cockpit_source.client import CockpitClient
from cockpit_source.errors import SignInError, SignInRefused
from cockpit_source.pacing import Backoff
from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.scopes import Scope
from cockpit_source.settings import Credentials, build_settings
from cockpit_source.transport import Reply, Transport

TENANT = SandboxTenant(customers=10, incidents=False)
SCOPE = Scope(*next(TENANT.scopes(0)))
WRONG_SECRET = "not-the-secret-of-anybody"


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    lifetime = running.tokens.lifetime_seconds
    running.clear()
    running.clear_requests()
    yield running
    running.tokens.lifetime_seconds = lifetime


def credentials_for(sandbox: Sandbox, **changed: Any) -> Credentials:
    good = Credentials(
        client_id=CSP_CLIENT.id,
        client_secret=CSP_CLIENT.secret,
        token_url=sandbox.token_url,
        token_scope=TOKEN_SCOPE,
    )
    return replace(good, **changed)


@dataclass(frozen=True)
class AwaitedTokens:
    """Tokens for a thread that waits; `run` gives what a coroutine gives."""

    tokens: TokenProvider
    run: Callable[[Coroutine[Any, Any, Token]], Token]

    def current(self) -> Token:
        return self.run(self.tokens.current())

    def renew(self, refused: Token) -> Token:
        return self.run(self.tokens.renew(refused))


async def no_wait(_seconds: float) -> bool:
    return True


def tokens_for(
    sandbox: Sandbox, *, attempts: int = 3, clock: Callable[[], float] = time.monotonic, **changed: Any
) -> AwaitedTokens:
    """Tokens from the sandbox over HTTP, without waits between attempts."""
    transport = Transport(2, 8)
    tokens = ClientCredentialsTokens(
        credentials_for(sandbox, **changed), transport, backoff=Backoff(attempts, no_wait), clock=clock
    )
    return AwaitedTokens(tokens, transport.run)


def client_for(sandbox: Sandbox, **changed: Any) -> CockpitClient:
    raw = {
        "tenant": sandbox.tenant.domain,
        "base_url": sandbox.base_url,
        "token_url": sandbox.token_url,
        "token_scope": TOKEN_SCOPE,
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "customers": [SCOPE.customer_id],
        "provider_instances": [SCOPE.provider_instance_id],
        "timeout_seconds": 5,
        "max_attempts": 1,
    }
    return CockpitClient(build_settings(raw | changed))


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    """What `count` threads get that call at the same moment: results, or the errors they met."""
    barrier = threading.Barrier(count)

    def work(_: int) -> Any:
        barrier.wait(timeout=10)
        try:
            return call()
        except SignInError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def statuses(sandbox: Sandbox) -> list[int | None]:
    """Statuses of the requests for a token, in order."""
    return [request.status for request in sandbox.requests if request.method == "POST"]


class Clock:
    """Seconds that move only when told."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class FakeService:
    """A transport whose sign-in service answers with what it is given, the last for ever."""

    def __init__(self, *replies: Reply | Exception) -> None:
        self.replies = list(replies)
        self.forms: list[Mapping[str, Any]] = []

    async def send(self, _method: str, _url: str, *, form: Mapping[str, Any]) -> Reply:
        self.forms.append(form)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def tokens(
        self, clock: Callable[[], float] = time.monotonic, *, backoff: Backoff | None = None, **options: Any
    ) -> AwaitedTokens:
        credentials = Credentials("id", WRONG_SECRET, token_url="http://127.0.0.1:1/token", token_scope="scope")
        tokens = ClientCredentialsTokens(
            credentials,
            self,  # type: ignore[arg-type]
            backoff=backoff or Backoff(3, no_wait),
            clock=clock,
            **options,
        )
        return AwaitedTokens(tokens, asyncio.run)


def reply(body: object, status: int = 200, **headers: str) -> Reply:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, encoded)


def test_form_holds_the_four_fields_of_client_credentials() -> None:
    service = FakeService(reply({"access_token": "abc", "expires_in": 3599}))
    assert service.tokens().current().value == "abc"
    assert service.forms == [
        {
            "client_id": "id",
            "client_secret": WRONG_SECRET,
            "scope": "scope",
            "grant_type": "client_credentials",
        }
    ]


def test_nothing_is_requested_before_the_first_use(sandbox: Sandbox) -> None:
    with client_for(sandbox):
        assert sandbox.requests == []


def test_32_threads_that_wait_make_one_request_and_share_its_token(sandbox: Sandbox) -> None:
    tokens = tokens_for(sandbox)
    got = at_once(32, tokens.current)
    assert all(token is got[0] for token in got)
    assert isinstance(got[0], Token)
    assert sandbox.tokens.client_of(got[0].value) == CSP_CLIENT
    assert statuses(sandbox) == [200]


def test_32_threads_whose_token_is_refused_make_one_request_for_the_next(sandbox: Sandbox) -> None:
    tokens = tokens_for(sandbox)
    refused = tokens.current()
    got = at_once(32, lambda: tokens.renew(refused))
    assert all(token is got[0] for token in got)
    assert got[0].value != refused.value
    assert statuses(sandbox) == [200, 200]


def test_refusal_of_an_older_token_gives_the_current_one_without_request(sandbox: Sandbox) -> None:
    tokens = tokens_for(sandbox)
    oldest = tokens.current()
    current = tokens.renew(oldest)
    assert tokens.renew(oldest) is tokens.current() is current
    assert statuses(sandbox) == [200, 200]


@pytest.mark.parametrize(("lifetime", "kept_for"), [(3599, 3479), (600, 540), (10, 9)])
def test_token_is_renewed_a_tenth_but_at_most_two_minutes_before_its_end(
    sandbox: Sandbox, lifetime: int, kept_for: int
) -> None:
    sandbox.tokens.lifetime_seconds = lifetime
    clock = Clock()
    tokens = tokens_for(sandbox, clock=clock)
    first = tokens.current()
    clock.now += kept_for - 0.5
    assert tokens.current() is first
    clock.now += 0.5
    assert tokens.current() is not first
    assert statuses(sandbox) == [200, 200]


def test_32_threads_at_the_moment_of_renewal_make_one_request(sandbox: Sandbox) -> None:
    clock = Clock()
    tokens = tokens_for(sandbox, clock=clock)
    first = tokens.current()
    clock.now += 3500
    got = at_once(32, tokens.current)
    assert all(token is got[0] and token is not first for token in got)
    assert statuses(sandbox) == [200, 200]


def test_token_of_a_short_life_is_renewed_before_the_api_refuses_it(sandbox: Sandbox) -> None:
    # announced as 2 s, so that a slow machine has the rest to make a call that it began in time
    sandbox.tokens.lifetime_seconds = 2.9
    with client_for(sandbox) as client:
        started = time.monotonic()
        while time.monotonic() - started < 2.3:
            assert isinstance(client.list_licenses(SCOPE).body, list)
            time.sleep(0.02)
    assert statuses(sandbox) == [200, 200]
    assert {request.status for request in sandbox.requests} == {200}


def test_call_after_401_has_a_new_token(sandbox: Sandbox) -> None:
    with client_for(sandbox) as client:
        client.list_licenses(SCOPE)
        sandbox.tokens.revoke_all()
        client.list_licenses(SCOPE)
    assert [(request.method, request.status) for request in sandbox.requests] == [
        ("POST", 200),
        ("GET", 200),
        ("GET", 401),
        ("POST", 200),
        ("GET", 200),
    ]


def test_ready_token_is_used_without_sign_in(sandbox: Sandbox) -> None:
    token = sandbox.tokens.issue(CSP_CLIENT)
    with client_for(sandbox, access_token=token, client_id=None, client_secret=None) as client:
        assert isinstance(client.list_licenses(SCOPE).body, list)
    assert statuses(sandbox) == []


def test_ready_token_that_is_refused_ends_the_sign_in(sandbox: Sandbox) -> None:
    client = client_for(sandbox, access_token="stale-token", client_id=None, client_secret=None)
    with client, pytest.raises(SignInRefused, match="has probably expired") as caught:
        client.list_licenses(SCOPE)
    assert "stale-token" not in str(caught.value)
    assert [request.status for request in sandbox.requests] == [401]
    assert asyncio.run(ReadyToken("stale-token").current()).renew_at is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"client_secret": WRONG_SECRET}, "HTTP 401 .*invalid_client - AADSTS7000215"),
        ({"client_id": "nobody"}, "HTTP 400 .*unauthorized_client - AADSTS700016"),
        ({"token_scope": "api://other/.default"}, "HTTP 400 .*invalid_scope - AADSTS70011"),
    ],
)
def test_wrong_credentials_are_refused_with_one_request_for_32_threads(
    sandbox: Sandbox, changed: dict[str, str], said: str
) -> None:
    tokens = tokens_for(sandbox, **changed)
    errors = at_once(32, tokens.current)
    assert all(error is errors[0] for error in errors)
    with pytest.raises(SignInRefused, match=said) as caught:
        tokens.current()
    assert "Check client_id and client_secret" in str(caught.value)
    assert WRONG_SECRET not in str(caught.value)
    assert len(statuses(sandbox)) == 1


@pytest.mark.parametrize(
    ("kind", "status"),
    [("error_500", 500), ("html_503", 503), ("throttle_bare", 429), ("reset", None), ("truncated", 200)],
)
def test_sign_in_that_fails_for_a_moment_is_tried_again(sandbox: Sandbox, kind: str, status: int | None) -> None:
    sandbox.faults.for_sign_in(kind, 2)
    assert sandbox.tokens.client_of(tokens_for(sandbox).current().value) == CSP_CLIENT
    assert statuses(sandbox) == [status, status, 200]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("error_500", "HTTP 500"),
        ("reset", r"127\.0\.0\.1:\d+: (Connection reset|Remote end closed)"),
        ("redirect", "HTTP 302"),
    ],
)
def test_sign_in_that_fails_to_the_last_attempt_is_remembered(sandbox: Sandbox, kind: str, problem: str) -> None:
    sandbox.faults.for_sign_in(kind)
    tokens = tokens_for(sandbox)
    errors = at_once(8, tokens.current)
    assert all(error is errors[0] for error in errors)
    sandbox.faults.clear()
    with pytest.raises(SignInError, match=f"gave no answer that can be used .{problem}") as caught:
        tokens.current()
    assert type(caught.value) is SignInError
    assert len(statuses(sandbox)) == 3


def test_failure_to_renew_is_remembered_too(sandbox: Sandbox) -> None:
    tokens = tokens_for(sandbox, attempts=1)
    refused = tokens.current()
    sandbox.faults.for_sign_in("error_500", 1)
    for _ in range(3):
        with pytest.raises(SignInError, match="HTTP 500"):
            tokens.renew(refused)
    assert statuses(sandbox) == [200, 500]


@pytest.mark.parametrize(("kind", "status"), [("expired_token", 401), ("redirect", 302)])
def test_sign_in_answered_without_a_body_says_the_status(sandbox: Sandbox, kind: str, status: int) -> None:
    sandbox.faults.for_sign_in(kind)
    with pytest.raises(SignInError, match=f"HTTP {status}"):
        tokens_for(sandbox, attempts=1).current()
    assert statuses(sandbox) == [status]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_4xx_of_the_sign_in_is_not_tried_again(status: int) -> None:
    service = FakeService(reply(b"<html>", status))
    with pytest.raises(SignInRefused, match=f"Sign-in was refused .HTTP {status} from http"):
        service.tokens().current()
    assert len(service.forms) == 1


@pytest.mark.parametrize("kind", ["sign_in_page", "wrong_shape"])
def test_sign_in_answered_with_something_else_fails_without_another_attempt(sandbox: Sandbox, kind: str) -> None:
    sandbox.faults.for_sign_in(kind)
    with pytest.raises(SignInError, match="200 without a usable access_token"):
        tokens_for(sandbox).current()
    assert statuses(sandbox) == [200]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"abc",
        b'{"access_token": "abc"',
        [],
        None,
        {},
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": ["abc"]},
        {"access_token": "abc\r\nX-Injected: 1"},
        {"access_token": "abc\x00"},
        {"access_token": "tökén"},
        {"access_token": "\ud800"},
    ],
)
def test_token_that_no_header_can_carry_is_an_error(body: object) -> None:
    service = FakeService(reply(body))
    with pytest.raises(SignInError, match=r"200 without a usable access_token\. Check token_url\."):
        service.tokens().current()
    assert len(service.forms) == 1


@pytest.mark.parametrize(
    "lifetime", [None, "soon", [], {}, 0, -5, "0", "nan", "inf", 1e400, 10**400, "1e400", "9" * 400]
)
def test_lifetime_that_makes_no_sense_counts_as_an_hour(lifetime: object) -> None:
    """A token that looked expired at once would cost a sign-in before every call."""
    body = '{"access_token": "abc", "expires_in": ' + json.dumps(lifetime).replace("Infinity", "1e400") + "}"
    clock = Clock()
    service = FakeService(reply(body.encode()))
    tokens = service.tokens(clock)
    assert tokens.current().renew_at == 50.0 + 3599 - 120
    tokens.current()
    assert len(service.forms) == 1


@pytest.mark.parametrize("lifetime", [600, "600", 600.0])
def test_lifetime_as_number_or_text_is_read(lifetime: object) -> None:
    service = FakeService(reply({"access_token": "abc", "expires_in": lifetime}))
    assert service.tokens(Clock()).current().renew_at == 50.0 + 540


def test_sign_in_service_that_asks_to_wait_is_obeyed() -> None:
    slept: list[float] = []
    service = FakeService(reply(b"", 429, Retry_After="7"), reply(b"", 503), reply({"access_token": "abc"}))

    async def sleep(seconds: float) -> bool:
        slept.append(seconds)
        return True

    tokens = service.tokens(backoff=Backoff(3, sleep, jitter=lambda _, high: high), patience_seconds=10)
    assert tokens.current().value == "abc"
    assert slept == [7.0, 1.0]


@pytest.mark.parametrize("asked", ["11", "1000000000000000"])
def test_sign_in_service_that_asks_for_more_than_our_patience_has_failed(asked: str) -> None:
    service = FakeService(reply(b"", 429, Retry_After=asked))
    with pytest.raises(SignInError, match=f"asked to wait {asked} s, longer than patience_seconds"):
        service.tokens(patience_seconds=10).current()
    assert len(service.forms) == 1


def test_refusal_that_repeats_the_secret_does_not_show_it() -> None:
    said = {"error": ["odd"], "error_description": f"secret {WRONG_SECRET} of ada@example.com \ud800\nTrace ID"}
    with pytest.raises(SignInRefused) as caught:
        FakeService(reply(said, 401)).tokens().current()
    assert "token: secret [redacted] of [redacted] \ufffd). Check" in str(caught.value)
    assert "Trace ID" not in str(caught.value)


def test_secrets_and_tokens_are_in_no_message_repr_log_or_trace(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    with client_for(sandbox) as client:
        client.list_licenses(SCOPE)
        token = client.sign_in()
        shown += [repr(client), repr(client.tokens), repr(token), repr(client._settings), str(client._settings)]
    for kind in ("error_500", "reset", "truncated", "sign_in_page", "expired_token", "redirect"):
        sandbox.faults.for_sign_in(kind, 1)
        try:
            tokens_for(sandbox, attempts=1).current()
        except SignInError as error:
            shown += [str(error), repr(error), traceback.format_exc()]
    ready = client_for(sandbox, access_token=token.value, client_id=None, client_secret=None)
    sandbox.tokens.revoke_all()
    with pytest.raises(SignInRefused) as caught, ready:
        ready.list_licenses(SCOPE)
    shown += [repr(ready._settings), repr(ready.tokens), repr(caught.value), caplog.text]
    assert len(shown) == 27
    # records of that level were kept
    assert "DEBUG" in caplog.text
    for text in shown:
        assert CSP_CLIENT.secret not in text
        assert token.value not in text


def test_transport_errors_of_the_sign_in_are_told_without_secrets() -> None:
    service = FakeService(requests.ConnectionError(f"at ?client_secret={WRONG_SECRET}"))
    with pytest.raises(SignInError) as caught:
        service.tokens().current()
    assert "(at ?[redacted])" in str(caught.value)
    assert len(service.forms) == 3
