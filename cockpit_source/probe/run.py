"""`cockpit check --probe`: reads a few real scopes and collects what they prove about the API. Changes nothing.

The calls are those of a load, with its pacing and retries, one after another, and at most 60 in all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cockpit_source.answers import Answer
from cockpit_source.client import CockpitClient
from cockpit_source.errors import EXIT_ALL_READ, ApiError, RunStopped, SignInError, SignInRefused, UnusableAnswer
from cockpit_source.fetch import utc_now
from cockpit_source.outcomes import judge_answer
from cockpit_source.pacing import Pacer
from cockpit_source.probe.choice import choose_scopes, find_siblings
from cockpit_source.probe.findings import collect_findings
from cockpit_source.probe.listings import CUSTOMERS, INSTANCES, RESELLERS
from cockpit_source.probe.observations import Listing, Observations, ObservedTransport, Reading
from cockpit_source.probe.replies import INVALID_TOKEN, LICENSES, UNKNOWN_RESELLER
from cockpit_source.probe.words import Finding
from cockpit_source.scope_list import ScopeList
from cockpit_source.scopes import ListedScope, Scope, scope_key
from cockpit_source.settings import Credentials, Settings

MAX_CALLS = 60

Say = Callable[[str], None]

_SMALL_PAGE = 5
_INVALID = Credentials(access_token="probe-invalid-token")  # noqa: S106 - not one


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe came to, free of anything private. `made_at` is UTC, `calls` counts calls of the API."""

    made_at: datetime
    host: str
    calls: int
    max_calls: int
    findings: tuple[Finding, ...]
    exit_code: int


def run_probe(
    settings: Settings, scope_list: ScopeList, *, max_calls: int = MAX_CALLS, note: Say = lambda _: None
) -> ProbeReport:
    """Read up to 20 scopes of the list, what they are compared with, and two refusals; then the findings.

    Ends early, with what it saw until then, at a refused sign-in and after `max_calls` calls. `note` is told what
    begins.
    """
    seen = Observations(max_calls)
    chosen = choose_scopes(scope_list.iter_scopes(), scope_list.total)
    note(f"reading {len(chosen)} of {scope_list.total} scopes with at most {max_calls} calls; none changes anything")
    prober = _Prober(settings, seen)
    exit_code = EXIT_ALL_READ
    try:
        prober.read_all(chosen, find_siblings(scope_list.iter_scopes(), chosen))
    except SignInError as error:
        exit_code = error.exit_code
        seen.stopped = "sign-in was refused" if isinstance(error, SignInRefused) else "sign-in was not possible"
    except RunStopped:
        seen.stopped = f"it had made {max_calls} calls"
    finally:
        prober.close()
    host = urlsplit(settings.base_url).netloc
    findings = tuple(collect_findings(seen, settings))
    return ProbeReport(utc_now(), host, seen.calls, max_calls, findings, exit_code)


class _Prober:
    """Makes the calls of a probe and notes in `seen` what came."""

    def __init__(self, settings: Settings, seen: Observations) -> None:
        self._settings = settings
        self._seen = seen
        self._pacer = Pacer(settings.max_requests_per_second, settings.max_concurrency)
        self._transport = ObservedTransport(settings.timeout_seconds, seen, self._pacer.stop)
        self._client = CockpitClient(settings, pacer=self._pacer, transport=self._transport)
        self._read: set[Scope] = set()

    def close(self) -> None:
        self._transport.close()

    def read_all(self, chosen: list[ListedScope], siblings: list[ListedScope]) -> None:
        for number, listed in enumerate(chosen, start=1):
            self._read_scope(listed, number)
        numbers = {listed.scope[:2]: number for number, listed in enumerate(chosen, start=1)}
        for listed in chosen:
            if listed.scope.reseller_id:
                self._read_twin(listed.scope._replace(reseller_id=None), numbers[listed.scope[:2]])
        for listed in siblings:
            self._read_twin(listed.scope, numbers[listed.scope[:2]])
        if self._settings.scopes.origin == "discover":
            self._read_listings()
        self._provoke_refusals(chosen)

    def _read_twin(self, scope: Scope, number: int) -> None:
        if scope not in self._read:
            self._read_scope(ListedScope(scope_key(self._settings.tenant_key, scope), scope), number, is_twin=True)

    def _read_scope(self, listed: ListedScope, number: int, *, is_twin: bool = False) -> None:
        self._read.add(listed.scope)
        self._transport.label = LICENSES
        answer: Answer | None = None
        try:
            answer = self._client.list_licenses(listed.scope)
            outcome, call = judge_answer(listed, answer, utc_now()).outcome, answer.call
        except ApiError as error:
            outcome, call = error.outcome, error.call
        body: Any = answer.body if answer else None
        self._seen.readings.append(
            Reading(number, listed.scope, outcome, call.http_status, call.attempts, answer is not None, body, is_twin)
        )

    def _read_listings(self) -> None:
        size = self._settings.page_size
        self._read_listing(CUSTOMERS, self._client.list_customers, size)
        self._read_listing(CUSTOMERS, self._client.list_customers, _SMALL_PAGE)
        self._read_listing(INSTANCES, self._client.list_provider_instances, size)
        self._read_listing(RESELLERS, self._client.list_resellers, size)

    def _read_listing(self, name: str, list_page: Callable[[int, int], Answer], size: int) -> None:
        self._transport.label = name
        try:
            listing = Listing(name, size, list_page(1, size).body)
        except ApiError as error:
            listing = Listing(name, size, failure=_describe_failure(error))
        self._seen.listings.append(listing)

    def _provoke_refusals(self, chosen: list[ListedScope]) -> None:
        """One 403, unless one was seen, and one 401, last of all: a gateway may take offence."""
        good = next((one.scope for one in self._seen.readings if one.has_body), chosen[0].scope)
        if not any(exchange.status == 403 for exchange in self._seen.exchanges):
            self._transport.label = UNKNOWN_RESELLER
            # what the reply was like is noted by the transport
            with suppress(ApiError):
                self._client.list_licenses(good._replace(reseller_id=str(uuid.uuid4())))
        self._transport.label = INVALID_TOKEN
        settings = replace(self._settings, credentials=_INVALID, max_attempts=1)
        stranger = CockpitClient(settings, pacer=self._pacer, transport=self._transport)
        with suppress(ApiError, SignInRefused):
            stranger.list_licenses(good)


def _describe_failure(error: ApiError) -> str:
    """Without the words of the API."""
    if error.call.http_status is None:
        return "no reply"
    what = " with an answer outside the contract" if isinstance(error, UnusableAnswer) else ""
    return f"HTTP {error.call.http_status}{what}"
