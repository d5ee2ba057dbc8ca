"""The sandbox itself: what it simulates, on which day, how it fails and what was asked of it."""

import json
import re
import time
from collections import Counter, deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from urllib.parse import parse_qs

from starlette.responses import Response

from cockpit_source.sandbox.credentials import TOKEN_PATH, Tokens
from cockpit_source.sandbox.faults import Faults
from cockpit_source.sandbox.tenant import SandboxTenant

_LICENSES_PATH = re.compile(r"/v1/customers/([^/]+)/licenses")


@dataclass(slots=True)
class LoggedRequest:
    """One request. Times are monotonic seconds; status is None until, or unless, a status line was sent."""

    method: str
    path: str
    query: str
    correlation_id: str | None
    received_at_seconds: float
    client_id: str | None = None
    status: int | None = None
    finished_at_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """The licence answer that a test put in place of the simulated one."""

    body: bytes
    status: int
    content_type: str


class Sandbox:
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
    ) -> None:
        self.tenant = tenant or SandboxTenant()
        self.faults = faults or Faults()
        self.tokens = Tokens(token_lifetime_seconds)
        self.day = day
        self.peak_in_flight = 0
        self._in_flight = 0
        self._base_url: str | None = None
        self._answers: dict[str, ScriptedAnswer] = {}
        self._flaky_calls: Counter[tuple[str, str]] = Counter()
        self._log: deque[LoggedRequest] = deque(maxlen=logged_requests)
        self._cached_answers = cached_answers
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
        return list(self._log)

    def call_counts(self) -> Counter[tuple[str, str, str | None]]:
        """How often licences were asked for, per customer, provider instance ("" if none) and reseller id."""
        counts: Counter[tuple[str, str, str | None]] = Counter()
        for request in self.requests:
            match = _LICENSES_PATH.fullmatch(request.path.lower())
            if match:
                query = {name.lower(): values[-1].lower() for name, values in parse_qs(request.query).items()}
                counts[match[1], query.get("providerinstanceid", ""), query.get("resellerid")] += 1
        return counts

    def clear_requests(self) -> None:
        """Forget the requests so far and the peak."""
        self._log.clear()
        self.peak_in_flight = 0

    def answer(
        self, customer_id: str, body: bytes, status: int = 200, content_type: str = "application/json"
    ) -> None:
        """Answer every licence call for this customer so, until `clear()`; the customer need not exist."""
        self._answers[customer_id.lower()] = ScriptedAnswer(body, status, content_type)

    def scripted_answer(self, customer_id: str) -> ScriptedAnswer | None:
        """The answer set for this customer (id in lower case), if any."""
        return self._answers.get(customer_id)

    def clear(self) -> None:
        """Switch off all faults and scripted answers. Day, tokens and logged requests stay."""
        self.faults.clear()
        self._answers.clear()
        self._flaky_calls.clear()

    def licenses_answer(self, customer_id: str, provider_instance_id: str, day: int) -> Response:
        """The licence answer of a scope on a day on which it is listed."""
        return self._licenses(customer_id, provider_instance_id, day)

    def warm_up(self) -> None:
        """Make the licence answers of the current day in advance, as many as are kept (8192 unless told)."""
        for customer_id, instance_id, _reseller_id in islice(self.tenant.scopes(self.day), self._cached_answers):
            self.licenses_answer(customer_id, instance_id, self.day)

    def stumbles(self, customer_id: str, provider_instance_id: str) -> bool:
        """Whether a flaky customer fails this time; it does on every other call, the first included."""
        self._flaky_calls[customer_id, provider_instance_id] += 1
        return self._flaky_calls[customer_id, provider_instance_id] % 2 == 1

    def request_came(self, request: LoggedRequest) -> None:
        """Log a request on its arrival."""
        self._log.append(request)
        self._in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self._in_flight)

    def request_finished(self, request: LoggedRequest) -> None:
        """Note that a request was answered or given up."""
        self._in_flight -= 1
        request.finished_at_seconds = time.monotonic()

    def _make_licenses_answer(self, customer_id: str, provider_instance_id: str, day: int) -> Response:
        rows = self.tenant.licenses(customer_id, provider_instance_id, day)
        body = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
        return Response(body, headers={"Content-Type": "application/json; charset=utf-8"})
