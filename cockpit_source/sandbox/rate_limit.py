"""A limit of API calls per second, as gateways set it."""

import math
import time
from collections import deque
from collections.abc import Callable

STYLES = (
    "window",  # at most so many in any second
    "bucket",  # a bucket of a second's calls that fills evenly
    "minute",  # at most sixty times as many in each minute from the first call on
)
_MINUTE_SECONDS = 60


class RateLimit:
    """Counts accepted calls of all clients together. Rate and style are given with each call, so they may change."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accepted: deque[float] = deque()
        self._tokens = math.inf
        self._filled_at = clock()
        self._minute_began_at = -math.inf
        self._in_minute = 0

    def refuse(self, calls_per_second: float, style: str) -> int | None:
        """None for a call that is accepted, else the whole seconds to wait."""
        now = self._clock()
        match style:
            case "window":
                return self._refuse_by_window(now, calls_per_second)
            case "bucket":
                return self._refuse_by_bucket(now, calls_per_second)
        return self._refuse_by_minute(now, calls_per_second)

    def _refuse_by_window(self, now: float, calls_per_second: float) -> int | None:
        # fewer than one a second is one in a longer window
        seconds = max(1.0, 1.0 / calls_per_second)
        while self._accepted and self._accepted[0] <= now - seconds:
            self._accepted.popleft()
        if len(self._accepted) + 1 > calls_per_second * seconds:
            return max(1, math.ceil(self._accepted[0] + seconds - now)) if self._accepted else 1
        self._accepted.append(now)
        return None

    def _refuse_by_bucket(self, now: float, calls_per_second: float) -> int | None:
        filled = self._tokens + (now - self._filled_at) * calls_per_second
        self._tokens, self._filled_at = min(filled, max(1.0, calls_per_second)), now
        if self._tokens < 1:
            return max(1, math.ceil((1 - self._tokens) / calls_per_second))
        self._tokens -= 1
        return None

    def _refuse_by_minute(self, now: float, calls_per_second: float) -> int | None:
        if now >= self._minute_began_at + _MINUTE_SECONDS:
            self._minute_began_at, self._in_minute = now, 0
        if self._in_minute + 1 > calls_per_second * _MINUTE_SECONDS:
            return math.ceil(self._minute_began_at + _MINUTE_SECONDS - now)
        self._in_minute += 1
        return None
