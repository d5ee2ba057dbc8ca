"""What was asked of the sandbox."""

import re
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs

_LICENSES_PATH = re.compile(r"/v1/customers/([^/]+)/licenses")


@dataclass(slots=True)
class LoggedRequest:
    """One request; `tenant` is its X-Tenant. Times are monotonic seconds.

    `status` is None until, or unless, a status line was sent.
    """

    method: str
    path: str
    query: str
    correlation_id: str | None
    received_at_seconds: float
    tenant: str | None = None
    client_id: str | None = None
    status: int | None = None
    finished_at_seconds: float | None = None


class RequestLog:
    """The latest requests in order of arrival, without those that steer the sandbox."""

    def __init__(self, most: int) -> None:
        self.peak_in_flight = 0
        self._in_flight = 0
        self._came = 0
        self._requests: deque[LoggedRequest] = deque(maxlen=most)

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests that are still held."""
        return list(self._requests)

    def since(self, index: int) -> tuple[list[dict[str, Any]], int]:
        """Requests from this index on, as dictionaries with their `index`, and the index of the next to come.

        The first request ever has index 0. Those that were forgotten are missing.
        """
        first = self._came - len(self._requests)
        requests = [
            {"index": number, **asdict(request)}
            for number, request in enumerate(self._requests, first)
            if number >= index
        ]
        return requests, self._came

    def came(self, request: LoggedRequest) -> None:
        """Log a request on its arrival."""
        self._requests.append(request)
        self._came += 1
        self._in_flight += 1
        if self._in_flight > self.peak_in_flight:
            self.peak_in_flight = self._in_flight

    def finished(self, request: LoggedRequest) -> None:
        """Note that a request was answered or given up."""
        self._in_flight -= 1
        request.finished_at_seconds = time.monotonic()

    def clear(self) -> None:
        """Forget the requests so far and the peak."""
        self._requests.clear()
        self.peak_in_flight = 0

    def call_counts(self) -> Counter[tuple[str, str, str | None]]:
        """How often licences were asked for, per customer, provider instance ("" if none) and reseller id."""
        counts: Counter[tuple[str, str, str | None]] = Counter()
        for request in self.requests:
            match = _LICENSES_PATH.fullmatch(request.path.lower())
            if match:
                query = {name.lower(): values[-1].lower() for name, values in parse_qs(request.query).items()}
                counts[match[1], query.get("providerinstanceid", ""), query.get("resellerid")] += 1
        return counts
