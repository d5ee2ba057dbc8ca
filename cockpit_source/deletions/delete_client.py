"""The only module that can delete. One call of `send` is one DELETE request, whatever comes of it.

Nothing is sent again, no redirect is followed, and every request has a connection of its own: on one that was kept
open, a request may get lost without anybody knowing. The paths: the pages operation-delete-v1-customers-parameter of
https://developer.cloudcockpit.com/operation/ and https://developer.cloudcockpit.com/group/endpoint-gdap (checked
2026-11-24 against the project's contract notes); neither is documented to be harmless when sent twice.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

import requests

from cockpit_source.answers import read_error, to_transport_error
from cockpit_source.auth import Token, create_tokens
from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Candidate
from cockpit_source.errors import ApiError, CallRecord
from cockpit_source.pacing import Backoff
from cockpit_source.settings import Settings
from cockpit_source.transforms import is_uuid
from cockpit_source.transport import Reply, Transport, was_never_connected

Result = Literal["accepted", "refused", "throttled", "unauthorized", "not_delivered", "unknown"]

_RESULTS: dict[int, Result] = {
    202: "accepted",
    400: "refused",
    401: "unauthorized",
    403: "refused",
    404: "refused",
    409: "refused",
    429: "throttled",
}
# the API says why in a body of its own
_DOCUMENTED_REFUSALS = (400, 404)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of one DELETE request.

    accepted (202): the API will carry it out. refused, throttled, unauthorized: the API answered that it does not.
    not_delivered: there was no connection, so the API got nothing. unknown: it may have been delivered, and only
    reading can tell. `is_outside_contract`: an answer that the contract does not know, so that the run must stop.
    """

    result: Result
    http_status: int | None
    description: str
    server_correlation_id: str | None
    retry_after_seconds: float | None
    duration_ms: int
    is_outside_contract: bool = False


class DeleteClient:
    """Sends deletions with the API access in `settings`. Use it as a context manager, from one thread.

    `prepare` before each `send`, so that nothing but the DELETE itself happens after its intent was recorded.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sign_in_transport = Transport(settings.timeout_seconds, 1)
        self._tokens = create_tokens(settings, self._sign_in_transport, Backoff(settings.max_attempts, _sleep))
        self._token: Token | None = None

    def __enter__(self) -> DeleteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._sign_in_transport.close()

    @staticmethod
    def path_of(candidate: Candidate) -> str:
        """The path of a deletion. Raises ValueError for a candidate that does not name exactly one."""
        customer_id, instance_id = candidate.customer_id, candidate.provider_instance_id
        if is_uuid(customer_id):
            if candidate.action == DELETE_CUSTOMER and instance_id is None:
                return f"/v1/Customers/{customer_id}"
            if candidate.action == REMOVE_RELATIONSHIP and instance_id is not None and is_uuid(instance_id):
                return f"/v1/Customers/{customer_id}/remove-reseller-relationship/{instance_id}"
        raise ValueError(f"{candidate.key!r} is no deletion that can be sent")

    def prepare(self) -> None:
        """Sign in, or renew a token that expires soon. Raises SignInError."""
        self._token = self._sign_in_transport.run(self._tokens.current())

    def renew(self) -> None:
        """Get a new token in place of one that the API did not take. Raises SignInError."""
        if self._token is None:
            raise RuntimeError("renew() without prepare()")
        self._token = self._sign_in_transport.run(self._tokens.renew(self._token))

    def send(self, candidate: Candidate, correlation_id: str) -> Delivery:
        """Send the DELETE of `candidate` exactly once, and say what came of it. Never raises for an answer."""
        path = self.path_of(candidate)
        if not is_uuid(correlation_id):
            raise ValueError(f"{correlation_id!r} is not a UUID")
        if self._token is None:
            raise RuntimeError("send() without prepare()")
        headers = {
            "Authorization": f"Bearer {self._token.value}",
            "X-Tenant": self._settings.tenant,
            "X-Correlation-Id": correlation_id,
        }
        transport = Transport(self._settings.timeout_seconds, 1)
        started = time.monotonic()
        try:
            reply = transport.run(transport.send("DELETE", self._settings.base_url + path, headers=headers))
            return _classify(reply, _elapsed_ms(started))
        except requests.RequestException as error:
            return _classify_failure(error, _elapsed_ms(started))
        finally:
            transport.close()


def _classify(reply: Reply, duration_ms: int) -> Delivery:
    said = read_error(reply, CallRecord(http_status=reply.status))
    result = _RESULTS.get(reply.status, "unknown")
    return Delivery(
        result,
        reply.status,
        _describe(reply.status, said),
        said.call.server_correlation_id,
        said.retry_after_seconds if result == "throttled" else None,
        duration_ms,
        is_outside_contract=_is_outside_contract(reply.status, said),
    )


def _is_outside_contract(status: int, said: ApiError) -> bool:
    if status in _DOCUMENTED_REFUSALS:
        return not said.is_documented
    return status not in _RESULTS and status < 500


def _describe(status: int, said: ApiError) -> str:
    if status == 202:
        return "HTTP 202: accepted"
    if status in _RESULTS or status >= 500:
        return said.summary
    if 300 <= status < 400:
        return f"HTTP {status}: a redirect, which was not followed"
    return f"HTTP {status}: an answer that the contract does not know"


def _classify_failure(error: requests.RequestException, duration_ms: int) -> Delivery:
    result: Result = "not_delivered" if was_never_connected(error) else "unknown"
    said = to_transport_error(error, CallRecord())
    return Delivery(result, None, said.summary, None, None, duration_ms)


def _elapsed_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


async def _sleep(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return True
