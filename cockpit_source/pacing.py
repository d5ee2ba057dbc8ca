"""When a call may start and how long to wait before the next attempt."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0

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


class Pacer:
    """Shared by all workers of a run: spaces calls out, holds everyone after a Retry-After, ends waits at a stop.

    The one place for a limiter that adapts: every call passes `start_call`. All workers are on one event loop, which
    is why there is no lock; `stop` may be set from any thread.
    """

    def __init__(
        self,
        max_requests_per_second: float | None = None,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stop = stop or threading.Event()
        self._interval = 1.0 / max_requests_per_second if max_requests_per_second else 0.0
        self._clock = clock
        self._next_start = 0.0
        self._hold_until = 0.0

    async def start_call(self) -> bool:
        """Wait until a call may start; False when the run stopped meanwhile."""
        while not self.stop.is_set():
            now = self._clock()
            wait = max(self._next_start, self._hold_until) - now
            if wait <= 0:
                self._next_start = max(self._next_start, now - self._interval) + self._interval
                return True
            await self.sleep(wait)
        return False

    def hold(self, seconds: float) -> None:
        """Let no call of any worker start for `seconds` from now."""
        self._hold_until = max(self._hold_until, self._clock() + seconds)

    async def sleep(self, seconds: float) -> bool:
        """Wait `seconds`; False when the run stopped meanwhile."""
        end = time.monotonic() + seconds
        while not self.stop.is_set() and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _STOP_SECONDS))
        return not self.stop.is_set()


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
