"""Calls of the CloudCockpit CSP API: one method per endpoint, answers or typed errors out.

Endpoints and error model: https://developer.cloudcockpit.com/operation/operation-get-v1-customers-parameter-licenses
(checked 2026-11-23 against the project's contract notes). Only reading calls are here; none of them changes anything.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import requests

from cockpit_source.answers import Answer, read_answer, to_throttled, to_transport_error
from cockpit_source.auth import Token, TokenProvider, create_tokens
from cockpit_source.errors import ApiError, CallRecord, RunStopped, SignInRefused
from cockpit_source.limiter import Ending
from cockpit_source.pacing import Backoff, Pace, Pacer, retry_after_seconds
from cockpit_source.scopes import Scope
from cockpit_source.settings import Settings
from cockpit_source.transforms import is_uuid
from cockpit_source.transport import Reply, Result, Transport

_ENDINGS = {429: Ending.THROTTLED, 503: Ending.OVERLOADED}


class CallCounter:
    """Counts over all calls of a client, for progress and for `runs`; `in_flight` is the current number.

    `peak` is the most that were in flight, `allowed` how many the pacer lets be in flight now.

    Counted on the event loop of the client only, and read from anywhere.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.throttled = 0
        self.in_flight = 0
        self.peak = 0
        self.allowed: int | None = None

    def __enter__(self) -> CallCounter:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        return self

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1

    def count_throttled(self) -> None:
        self.throttled += 1


class CockpitClient:
    """Reading calls, with retries. Safe to share between threads; use it as a context manager.

    Calls are made on the event loop of the transport: a coroutine such as `fetch_licenses` gets there by `submit`,
    and the plain methods wait for theirs. Another `transport` may be given, to see what passes or to share its
    connections; it is closed with the client. `tokens` may be given instead of the credentials in `settings`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pacer: Pace | None = None,
        transport: Transport | None = None,
        tokens: TokenProvider | None = None,
    ) -> None:
        self._settings = settings
        self._pacer: Pace = pacer or Pacer(settings.max_requests_per_second, settings.max_concurrency)
        self._transport = transport or Transport(settings.timeout_seconds, settings.max_concurrency)
        self._backoff = Backoff(settings.max_attempts, self._pacer.sleep)
        self.tokens = tokens or create_tokens(settings, self._transport, self._backoff)
        self.calls = CallCounter()

    def __enter__(self) -> CockpitClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine on the event loop of the calls."""
        return self._transport.submit(coroutine)

    def sign_in(self) -> Token:
        """The current token. Raises SignInError."""
        return self._transport.run(self.tokens.current())

    def renew(self, refused: Token) -> Token:
        """A newer token than one that the API refused. Raises SignInError."""
        return self._transport.run(self.tokens.renew(refused))

    def list_licenses(self, scope: Scope) -> Answer:
        """As `fetch_licenses`, for a thread that waits."""
        return self._transport.run(self.fetch_licenses(scope))

    async def fetch_licenses(self, scope: Scope) -> Answer:
        """GET /v1/Customers/{customerId}/licenses: by the contract a bare array of licence rows.

        Raises:
            ApiError: no answer that can be used; its subclass says why.
            SignInError: no usable token; the run has to stop.
            RunStopped: the run ended while the call waited for its turn.
        """
        params = {"providerInstanceId": _check_id(scope.provider_instance_id)}
        if scope.reseller_id:
            params["resellerId"] = _check_id(scope.reseller_id)
        return await self._get(f"/v1/Customers/{_check_id(scope.customer_id)}/licenses", params)

    def list_customers(self, page_number: int, page_size: int) -> Answer:
        """GET /v1/Customers: a page, deleted customers among the others. Raises as `list_licenses`."""
        return self._get_page("/v1/Customers", page_number, page_size)

    def get_customer(self, customer_id: str) -> Answer:
        """GET /v1/Customers/{customerId}: an object. Raises as `list_licenses`."""
        return self._transport.run(self._get(f"/v1/Customers/{_check_id(customer_id)}", {}))

    def list_customer_subscriptions(self, customer_id: str, page_number: int, page_size: int) -> Answer:
        """GET /v1/customers/{customerId}/subscriptions: a page. Raises as `list_licenses`."""
        return self._get_page(f"/v1/customers/{_check_id(customer_id)}/subscriptions", page_number, page_size)

    def list_audit_logs(self, page_number: int, page_size: int, start: datetime, end: datetime) -> Answer:
        """GET /v1/AuditLogs: a page of the entries from `start` to `end`, newest first. Raises as `list_licenses`."""
        params = {
            "PageNumber": str(page_number),
            "PageSize": str(page_size),
            "StartDate": _to_moment(start),
            "EndDate": _to_moment(end),
        }
        return self._transport.run(self._get("/v1/AuditLogs", params))

    def list_provider_instances(self, page_number: int, page_size: int) -> Answer:
        """GET /v1/Providers/Instances: a page. Raises as `list_licenses`."""
        return self._get_page("/v1/Providers/Instances", page_number, page_size)

    def list_resellers(self, page_number: int, page_size: int) -> Answer:
        """GET /v1/Resellers, for the role csp only: a page. Raises as `list_licenses`."""
        return self._get_page("/v1/Resellers", page_number, page_size)

    def list_delegated_admin_relationships(self, customer_id: str, provider_instance_id: str) -> Answer:
        """GET /v1/Customers/{customerId}/delegated-admin-relationships: an array. Raises as `list_licenses`."""
        params = {"providerInstanceId": _check_id(provider_instance_id)}
        path = f"/v1/Customers/{_check_id(customer_id)}/delegated-admin-relationships"
        return self._transport.run(self._get(path, params))

    def _get_page(self, path: str, page_number: int, page_size: int) -> Answer:
        params = {"pageNumber": str(page_number), "pageSize": str(page_size)}
        return self._transport.run(self._get(path, params))

    async def _get(self, path: str, params: Mapping[str, str]) -> Answer:
        call = _CallInProgress()
        failure: ApiError | None = None
        for wait in self._backoff.waits():
            try:
                return await self._attempt(path, params, call)
            except ApiError as error:
                failure = error
            if not failure.transient:
                break
            asked = failure.retry_after_seconds
            if asked is not None:
                if asked > self._settings.patience_seconds:
                    raise to_throttled(failure, asked) from failure
                self._pacer.hold(asked)
            if not await wait(asked):
                break
        assert failure is not None  # noqa: S101 - there is at least one attempt
        raise failure

    async def _attempt(self, path: str, params: Mapping[str, str], call: _CallInProgress) -> Answer:
        token = await self.tokens.current()
        reply = await self._send(path, params, token, call)
        if reply.status == 401:
            reply = await self._send(path, params, await self.tokens.renew(token), call)
        if reply.status == 401:
            raise SignInRefused(
                "The API refused a token that was just issued (401). Check that tenant is the domain of your portal "
                f"and that the API access is active (correlation id {call.correlation_id})."
            )
        if reply.status == 429:
            self.calls.count_throttled()
        return read_answer(reply, call.to_record(reply.status))

    async def _send(self, path: str, params: Mapping[str, str], token: Token, call: _CallInProgress) -> Reply:
        started_at = await self._pacer.start_call()
        if started_at is None:
            raise RunStopped("The run ended before this call.")
        ending, asked = Ending.OTHER, None
        headers = {
            "Authorization": f"Bearer {token.value}",
            "X-Tenant": self._settings.tenant,
            "X-Correlation-Id": call.start_attempt(),
        }
        try:
            with self.calls:
                url = self._settings.base_url + path
                reply = await self._transport.send("GET", url, headers=headers, params=params)
            ending = _ENDINGS.get(reply.status, Ending.FINE if reply.status < 500 else Ending.OTHER)
            asked = retry_after_seconds(reply.headers)
            return reply
        except requests.RequestException as error:
            if isinstance(error, requests.Timeout):
                ending = Ending.OVERLOADED
            raise to_transport_error(error, call.to_record(None)) from error
        finally:
            self._pacer.end_call(started_at, ending, asked)
            self.calls.allowed = self._pacer.allowed


class _CallInProgress:
    """Counts the attempts of one call and remembers the correlation id of the last."""

    def __init__(self) -> None:
        self.correlation_id = ""
        self._attempts = 0
        self._started = time.monotonic()

    def start_attempt(self) -> str:
        self._attempts += 1
        self.correlation_id = str(uuid.uuid4())
        return self.correlation_id

    def to_record(self, status: int | None) -> CallRecord:
        duration_ms = round((time.monotonic() - self._started) * 1000)
        return CallRecord(status, self.correlation_id, None, self._attempts, duration_ms)


def _check_id(text: str) -> str:
    if not is_uuid(text):
        raise ValueError(f"{text!r} is not a UUID and cannot be part of an address")
    return text


def _to_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
