"""Reads scopes concurrently, a bounded number in flight, and yields exactly one result for each."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import wait
from datetime import UTC, datetime

from cockpit_source.client import CockpitClient
from cockpit_source.errors import ApiError, RunStopped, SignInError
from cockpit_source.outcomes import ScopeResult, judge_answer, judge_error, skip
from cockpit_source.pacing import Pace
from cockpit_source.scopes import ListedScope
from cockpit_source.stopping import StopRequest

MAX_FAILURES_IN_A_ROW = 50
# what calls in flight still get when the run ends early
GRACE_SECONDS = 3.0

_FAILURES = frozenset({"failed", "deferred"})
# results that wait for the consumer; more would only be memory
QUEUED_RESULTS = 64
_POLL_SECONDS = 0.01

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Fetcher:
    """Reads the scopes of one run.

    The run ends early when the sign-in fails, after 50 failures in a row, at the deadline, on `stop()`, or when
    `stop_request` asks for it; scopes that are left then come out as skipped, and so do those whose call does not
    end within `GRACE_SECONDS`. `sign_in_error` and `stop_reason` say why, when it did.
    """

    def __init__(
        self,
        client: CockpitClient,
        pacer: Pace,
        *,
        max_concurrency: int,
        deadline_seconds: float | None = None,
        stop_request: StopRequest | None = None,
        now: Clock = utc_now,
    ) -> None:
        self.sign_in_error: SignInError | None = None
        self.stop_reason: str | None = None
        self._client = client
        self._pacer = pacer
        self._max_concurrency = max_concurrency
        self._deadline = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        self._stop_request = stop_request or StopRequest()
        self._cut_at: float | None = None
        self._in_flight: set[asyncio.Timeout] = set()
        self._now = now
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._crash: BaseException | None = None

    def stop(self, reason: str) -> None:
        """Start no further call; the first reason counts."""
        with self._lock:
            self.stop_reason = self.stop_reason or reason
            self._cut_at = self._cut_at or time.monotonic() + GRACE_SECONDS
        self._pacer.stop.set()

    def fetch(self, scopes: Iterable[ListedScope]) -> Generator[ScopeResult, None, None]:
        """One result per scope, in the order in which they finish."""
        # polled, because to wake the reader for every result takes a tenth of the time of a call
        results: deque[ScopeResult] = deque()
        source = iter(scopes)

        async def work() -> None:
            try:
                while not self._pacer.stop.is_set():
                    if len(results) >= QUEUED_RESULTS:
                        await asyncio.sleep(_POLL_SECONDS)
                        continue
                    listed = next(source, None)
                    if listed is None:
                        break
                    results.append(await self._fetch_one(listed))
            except BaseException as error:  # noqa: BLE001 - raised again where the results are read
                self._crash = self._crash or error
                self.stop(f"an unexpected error: {error}")

        workers = [self._client.submit(work()) for _ in range(self._max_concurrency)]
        is_running = True
        try:
            while is_running:
                self._end_early()
                # asked before the results are taken, so that none comes after
                is_running = not all(worker.done() for worker in workers)
                while results:
                    yield results.popleft()
                time.sleep(_POLL_SECONDS if is_running else 0)
            if self._crash is None:
                yield from map(self._skip, source)
        finally:
            if is_running:
                self.stop("the reader of the results stopped")
                self._client.submit(self._cut_off())
            wait(workers)
        if self._crash is not None:
            raise self._crash

    def _end_early(self) -> None:
        """Stop when asked to, and cut off the calls that do not end within the grace."""
        if self._stop_request.reason is not None:
            self.stop(self._stop_request.reason)
        if self._cut_at is not None and time.monotonic() >= self._cut_at:
            self._client.submit(self._cut_off())

    async def _cut_off(self) -> None:
        while self._in_flight:
            self._in_flight.pop().reschedule(0)

    async def _fetch_one(self, listed: ListedScope) -> ScopeResult:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.stop("run_deadline_minutes was reached")
        if self._pacer.stop.is_set():
            return self._skip(listed)
        try:
            async with asyncio.timeout(None) as limit:
                self._in_flight.add(limit)
                try:
                    answer = await self._client.fetch_licenses(listed.scope)
                finally:
                    self._in_flight.discard(limit)
            result = judge_answer(listed, answer, self._now())
        except ApiError as error:
            if self._pacer.stop.is_set() and error.transient:
                # its retries were cut short, so nothing was found out about the scope
                return self._skip(listed)
            result = judge_error(listed, error, self._now())
        except SignInError as error:
            self.sign_in_error = self.sign_in_error or error
            self.stop("the sign-in failed")
            return self._skip(listed)
        except (RunStopped, TimeoutError):
            return self._skip(listed)
        self._watch_for_outage(result)
        return result

    def _skip(self, listed: ListedScope) -> ScopeResult:
        return skip(listed, self.stop_reason or "the run was stopped", self._now())

    def _watch_for_outage(self, result: ScopeResult) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if result.outcome in _FAILURES else 0
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self.stop(
                f"{MAX_FAILURES_IN_A_ROW} scopes in a row failed, the last with {result.error_type}: "
                f"{result.error_description}"
            )
