"""When a call may start and how long to wait before the next attempt."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from cockpit_source.limiter import ConcurrencyLimit, Ending, RateCeiling

BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0

BARE_HOLD_SECONDS = 0.5
"""How long everyone waits after a 429 that does not say how long."""

# a wait that is asked to stop goes on for this long at most
_STOP_SECONDS = 0.05

Wait = Callable[[float | None], Awaitable[bool]]


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait, in its seconds or its date form; None without a usable one."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (TypeError, ValueError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    # false for NaN too
    return max(seconds, 0.0) if seconds < float("inf") else None


class Pace(Protocol):
    """What tells calls when they may start: `Pacer` in one process, or a part of what several processes share.

    `stop` ends every wait, and may be set from any thread; the rest is for the event loop of the calls.
    """

    stop: threading.Event

    @property
    def allowed(self) -> int:
        """Calls that may be in flight now, of all processes together."""

    async def start_call(self) -> float | None:
        """Wait until a call may start and say when it did, for `end_call`; None when the run stopped meanwhile."""

    def end_call(self, started_at: float, ending: Ending, asked_seconds: float | None = None) -> None:
        """Take in how a call ended, and the wait that it was asked for."""

    def hold(self, seconds: float) -> None:
        """Let no call of any worker start for `seconds` from now."""

    async def sleep(self, seconds: float) -> bool:
        """Wait `seconds`; False when the run stopped meanwhile."""


class Pacer:
    """Shared by all workers of a run: says when a call may start, from how the calls before ended.

    No more than `max_concurrency` calls are in flight, and no more than `max_requests_per_second` start. Below these
    bounds the pace is what the API takes, see `limiter`. A Retry-After holds everyone; waits end at a stop.

    All workers are on one event loop, which is why there is no thread lock; `stop` may be set from any thread.
    """

    def __init__(
        self,
        max_requests_per_second: float | None = None,
        max_concurrency: int = 256,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stop = stop or threading.Event()
        self.in_flight = 0
        self._max_rate = max_requests_per_second or math.inf
        self._clock = clock
        self._concurrency = ConcurrencyLimit(max_concurrency)
        self._ceiling = RateCeiling()
        self._next_start = 0.0
        self._hold_until = 0.0
        # whoever has it waits for the next start, the others for their turn
        self._turn = asyncio.Lock()
        self._freed: asyncio.Future[None] | None = None

    @property
    def allowed(self) -> int:
        """Calls that may be in flight now."""
        return self._concurrency.allowed

    async def start_call(self) -> float | None:
        """Wait until a call may start and say when it did, for `end_call`; None when the run stopped meanwhile."""
        if not self._turn.locked() and (started_at := self._try_start()) is not None:
            return started_at
        async with self._turn:
            while not self.stop.is_set():
                started_at = self._try_start()
                if started_at is not None:
                    return started_at
                if self.in_flight >= self.allowed:
                    await self._wait_for_an_end()
                else:
                    await self.sleep(max(self._next_start, self._hold_until) - self._clock())
        return None

    def end_call(self, started_at: float, ending: Ending, asked_seconds: float | None = None) -> None:
        """Take in how a call ended, and the wait that it was asked for."""
        now = self._clock()
        # calls that end together leave places that a waiting one will take: the limit was reached all the same
        is_wanted = self._freed is not None
        in_flight = max(self.in_flight, self.allowed) if is_wanted else self.in_flight
        self._concurrency.end_call(started_at, now, ending, in_flight)
        self.in_flight -= 1
        if ending is Ending.FINE:
            self._ceiling.accept(started_at)
        elif ending is Ending.THROTTLED:
            is_news = self._ceiling.throttle(started_at, now, asked_seconds)
            if is_news and asked_seconds is None:
                self.hold(BARE_HOLD_SECONDS)
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)

    def _try_start(self) -> float | None:
        now = self._clock()
        if self.stop.is_set() or self.in_flight >= self.allowed or now < max(self._next_start, self._hold_until):
            return None
        interval = 1.0 / min(self._max_rate, self._ceiling.rate(now) or math.inf)
        # one call may follow early, so that a sleep that took too long costs nothing
        self._next_start = max(self._next_start, now - interval) + interval
        self.in_flight += 1
        return now

    async def _wait_for_an_end(self) -> None:
        loop = asyncio.get_running_loop()
        self._freed = loop.create_future()
        await asyncio.wait([self._freed], timeout=_STOP_SECONDS)
        self._freed = None

    def hold(self, seconds: float) -> None:
        """Let no call of any worker start for `seconds` from now."""
        self._hold_until = max(self._hold_until, self._clock() + seconds)

    async def sleep(self, seconds: float) -> bool:
        """Wait `seconds`; False when the run stopped meanwhile."""
        return await sleep_unless(self.stop, seconds)


async def sleep_unless(stop: threading.Event, seconds: float) -> bool:
    """Wait `seconds` on the event loop; False when `stop` was set meanwhile."""
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _STOP_SECONDS))
    return not stop.is_set()


class Backoff:
    """The waits between the attempts of one call: full jitter, or what the server asked for where that is longer."""

    def __init__(
        self,
        max_attempts: int,
        sleep: Callable[[float], Awaitable[bool]],
        *,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.max_attempts = max_attempts
        self._sleep = sleep
        self._jitter = jitter

    def waits(self) -> Iterator[Wait]:
        """One function per attempt; await it after a failure.

        It waits and returns True when another attempt follows, and False after the last or when the run stopped.
        """
        for attempt in range(self.max_attempts):
            is_last = attempt + 1 == self.max_attempts
            ceiling = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2**attempt)

            async def wait(asked: float | None = None, is_last: bool = is_last, ceiling: float = ceiling) -> bool:
                return not is_last and await self._sleep(max(self._jitter(0.0, ceiling), asked or 0.0))

            yield wait
