"""The sandbox itself: what it simulates, on which day, how it fails and what was asked of it."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Unpack

from starlette.responses import Response

from cockpit_source.sandbox.credentials import API_CLIENTS, TOKEN_PATH, Tokens
from cockpit_source.sandbox.deletions import Deletions
from cockpit_source.sandbox.directory import Directory
from cockpit_source.sandbox.faults import Faults
from cockpit_source.sandbox.parts import part_of_rows
from cockpit_source.sandbox.rate_limit import RateLimit
from cockpit_source.sandbox.request_log import LoggedRequest, RequestLog
from cockpit_source.sandbox.settings import Settings, SettingValues
from cockpit_source.sandbox.subscription_index import Subscription, all_subscriptions
from cockpit_source.sandbox.tenant import Customer, SandboxTenant


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """The licence answer that a test put in place of the simulated one."""

    body: bytes
    status: int
    content_type: str


class Sandbox(Settings):
    """A sandbox, running or not. Everything here may be read and set while it runs."""

    def __init__(
        self,
        tenant: SandboxTenant | None = None,
        *,
        day: int = 0,
        faults: Faults | None = None,
        token_lifetime_seconds: float = 3599,
        cached_answers: int = 8192,
        logged_requests: int = 100_000,
        **settings: Unpack[SettingValues],
    ) -> None:
        super().__init__(**settings)
        self.tenant = tenant or SandboxTenant()
        self.directory = Directory(self.tenant)
        self.deletions = Deletions(lambda: self.deletion_delay_seconds)
        self.faults = faults or Faults()
        # those that may sign in, by their id
        self.api_clients = dict(API_CLIENTS)
        self.tokens = Tokens(token_lifetime_seconds)
        self.log = RequestLog(logged_requests)
        self.rate_limit = RateLimit()
        self.day = day
        self.moved_rows = 0
        self._base_url: str | None = None
        self._answers: dict[str, ScriptedAnswer] = {}
        self._flaky_calls: Counter[tuple[str, str]] = Counter()
        self._cached_answers = cached_answers
        self._subscriptions = lru_cache(maxsize=1)(self._find_subscriptions)
        self._licenses = lru_cache(maxsize=cached_answers)(self._make_licenses_answer)

    @property
    def day(self) -> int:
        """The simulated day, from 0."""
        return self._day

    @day.setter
    def day(self, day: int) -> None:
        if isinstance(day, bool) or not isinstance(day, int) or day < 0:
            raise ValueError(f"day is {day!r}; it must be a whole number, 0 or more")
        self._day = day

    @property
    def base_url(self) -> str:
        """Where the sandbox listens, without a slash at the end. Raises RuntimeError before it runs."""
        if self._base_url is None:
            raise RuntimeError("the sandbox is not running; use running_sandbox() or serve()")
        return self._base_url

    @base_url.setter
    def base_url(self, base_url: str) -> None:
        self._base_url = base_url

    @property
    def token_url(self) -> str:
        """Where tokens are given out."""
        return self.base_url + TOKEN_PATH

    @property
    def requests(self) -> list[LoggedRequest]:
        """The latest requests in order of arrival, without those that steer the sandbox."""
        return self.log.requests

    @property
    def peak_in_flight(self) -> int:
        """The most requests at a time."""
        return self.log.peak_in_flight

    def call_counts(self) -> Counter[tuple[str, str, str | None]]:
        """How often licences were asked for, per customer, provider instance ("" if none) and reseller id."""
        return self.log.call_counts()

    def clear_requests(self) -> None:
        """Forget the requests so far and the peak."""
        self.log.clear()

    def answer(
        self, customer_id: str, body: bytes, status: int = 200, content_type: str = "application/json"
    ) -> None:
        """Answer every licence call for this customer so, until `clear()`; the customer need not exist."""
        self._answers[customer_id.lower()] = ScriptedAnswer(body, status, content_type)

    def scripted_answer(self, customer_id: str) -> ScriptedAnswer | None:
        """The answer set for this customer (id in lower case), if any."""
        return self._answers.get(customer_id)

    def offboard(self, *customer_ids: str) -> None:
        """Take all licences and subscriptions of these customers away. Raises LookupError for an unknown one."""
        for customer_id in customer_ids:
            self.tenant.offboard(customer_id.lower())
        self._licenses.cache_clear()
        self._subscriptions.cache_clear()

    def restore(self, *customer_ids: str) -> None:
        """Give customers back what `offboard` took away; without ids, all of them."""
        self.tenant.restore(*customer_ids)
        self._licenses.cache_clear()
        self._subscriptions.cache_clear()

    def clear(self) -> None:
        """Switch off all faults and scripted answers. Day, settings, deletions, tokens and logged requests stay."""
        self.faults.clear()
        self._answers.clear()
        self._flaky_calls.clear()

    def is_listed(self, customer: Customer, day: int) -> bool:
        """Whether the customer exists on that day and was not deleted."""
        return customer.is_listed(day) and not self.deletions.has_customer(customer.id)

    def has_instance(self, customer: Customer, provider_instance_id: str) -> bool:
        """Whether the customer has licences in this instance, its relationship there not removed."""
        return provider_instance_id in customer.provider_instance_ids and not self.deletions.has_relationship(
            customer.id, provider_instance_id
        )

    def licenses_answer(
        self, customer: Customer, provider_instance_id: str, day: int, reseller_id: str | None = None
    ) -> Response:
        """The licence answer of a scope on a day on which it is listed; the part of a reseller, if one is given."""
        return self._licenses(customer.id, provider_instance_id, day, reseller_id)

    def subscriptions(self, day: int) -> tuple[Subscription, ...]:
        """Every subscription of that day, deletions left aside; kept until another day is asked for."""
        return self._subscriptions(day)

    def warm_up(self) -> None:
        """Make the licence answers of the current day in advance, as many as are kept (8192 unless told)."""
        for customer_id, instance_id, _reseller_id in islice(self.tenant.scopes(self.day), self._cached_answers):
            self._licenses(customer_id, instance_id, self.day, None)

    def stumbles(self, customer_id: str, provider_instance_id: str) -> bool:
        """Whether a flaky customer fails this time; it does on every other call, the first included."""
        self._flaky_calls[customer_id, provider_instance_id] += 1
        return self._flaky_calls[customer_id, provider_instance_id] % 2 == 1

    def _find_subscriptions(self, day: int) -> tuple[Subscription, ...]:
        return tuple(all_subscriptions(self.tenant, day))

    def _make_licenses_answer(
        self, customer_id: str, provider_instance_id: str, day: int, reseller_id: str | None
    ) -> Response:
        rows = self.tenant.licenses(customer_id, provider_instance_id, day)
        customer = self.tenant.customer(customer_id)
        if reseller_id is not None and customer is not None:
            reseller_ids = self.directory.reseller_ids(customer)
            rows = part_of_rows(rows, reseller_ids.index(reseller_id), len(reseller_ids))
        body = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
        return Response(body, headers={"Content-Type": "application/json; charset=utf-8"})
