"""How many calls at a time, and how many a second, the API takes: learned from how the calls end.

Both are told the time and never wait, so that they say the same on a clock of a test's own.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

FIRST_CONCURRENCY = 8
"""Calls at a time of a run that has just begun."""

_FIRST_GROWTH = 0.25
"""Calls at a time gained by a success before the first setback; more would be a burst where few calls are allowed."""
_GROWTH_SHARE = 1 / 32
"""Share of the most calls at a time that a whole round of successes gains afterwards."""
_SLOWER_SECONDS = 0.25
_TIMES_SLOWER = 3.0
_SMOOTHING = 1 / 16

MIN_RATE = 2.0
"""Calls a second to which throttling alone lowers the pace; below, the waits that the API asks for do the rest."""

# where the rate turns out not to matter, though it was never seen higher
_UNSURE_RATE = 20.0

_WINDOW_SECONDS = 1.0
_SHORTEST_WINDOW_SECONDS = 0.05
_BELOW_THE_LIMIT = 0.97
_TOO_FAST_AGAIN = 0.85
_SOON_SECONDS = 10.0
_MOST_IN_A_ROW = 8
# the more calls were accepted, the surer the limit
_PLATEAU_SECONDS_PER_CALL = 0.3
_PLATEAU_SECONDS = (2.0, 30.0)
_MAX_PLATEAU_SECONDS = 60.0


class Ending(Enum):
    """How a call ended, as far as it tells about the load on the API."""

    FINE = "an answer"
    OVERLOADED = "503, or no answer in time"
    THROTTLED = "429"
    OTHER = "another failure, which tells nothing"


class ConcurrencyLimit:
    """Calls at a time: grows while they succeed and do not get much slower, halves when the API is overloaded.

    The calls that were in flight at a setback count as one with it.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = float(min(FIRST_CONCURRENCY, most))
        self._had_setback = False
        self._lowered_at = float("-inf")
        self._latency = 0.0
        self._usual_latency = float("inf")

    @property
    def allowed(self) -> int:
        """Calls that may be in flight, at least 1."""
        return int(self._limit)

    def end_call(self, started_at: float, now: float, ending: Ending, in_flight: int) -> None:
        """Take in how a call ended; `in_flight` includes it."""
        if ending is Ending.FINE:
            self._note_latency(now - started_at)
            # a limit that is not reached has not been tried
            if in_flight >= self.allowed and not self._is_slow():
                self._grow()
        elif ending is not Ending.OTHER and started_at >= self._lowered_at:
            self._limit = max(1.0, self._limit / 2)
            self._had_setback = True
            self._lowered_at = now

    def _grow(self) -> None:
        by = max(1.0, self._most * _GROWTH_SHARE) / self._limit if self._had_setback else _FIRST_GROWTH
        self._limit = min(self._most, self._limit + by)

    def _note_latency(self, seconds: float) -> None:
        self._latency += (seconds - self._latency) * (_SMOOTHING if self._latency else 1.0)
        self._usual_latency = min(self._usual_latency, self._latency)

    def _is_slow(self) -> bool:
        return self._latency > max(self._usual_latency * _TIMES_SLOWER, self._usual_latency + _SLOWER_SECONDS)


class RateCeiling:
    """Calls a second, once a 429 has shown that there is a limit: a little less than what was accepted until then.

    After a plateau it rises, slowly at first, to find a limit that was raised; where it was not, the next plateau is
    longer. The 429 of calls that were under way, or that come within a second, count as one with the first. Where
    lowering the rate again and again does not help, the rate is not the cause, and it goes back to where it was.
    """

    def __init__(self) -> None:
        self._learned: float | None = None
        self._accepted: deque[float] = deque()
        self._count = 0
        self._counted_from: float | None = None
        self._throttled_at = float("-inf")
        self._episode_until = float("-inf")
        self._rate_of_late_call = 0.0
        self._most_with_late_calls = float("inf")
        self._plateau = 0.0
        self._in_a_row = 0
        self._before_the_row = 0.0

    def rate(self, now: float) -> float | None:
        """Calls a second that may start now; None where no limit is known."""
        if self._learned is None:
            return None
        growing = max(0.0, (now - self._episode_until) / self._plateau - 1.0)
        return self._learned * (1.0 + growing**3)

    def accept(self, started_at: float) -> None:
        """Take in that a call started then was answered."""
        if self._learned is not None and started_at < self._throttled_at:
            # accepted before the 429, only its answer came later
            most = max(self._learned, self._most_with_late_calls)
            self._learned = min(most, self._learned + self._rate_of_late_call)
            return
        self._count += 1
        if self._counted_from is None:
            self._counted_from = started_at
        self._accepted.append(started_at)
        while self._accepted[0] <= started_at - 2 * _WINDOW_SECONDS:
            self._accepted.popleft()

    def throttle(self, started_at: float, now: float, asked_seconds: float | None) -> bool:
        """Take in that a call was throttled and asked to wait; whether it is the first to tell so."""
        if started_at < self._episode_until:
            return False
        # by starts, since answers come late and out of order
        while self._accepted and self._accepted[0] <= started_at - _WINDOW_SECONDS:
            self._accepted.popleft()
        known = self.rate(now)
        is_soon = now - self._episode_until < _SOON_SECONDS
        accepted = self._accepted_rate(now, asked_seconds or 0.0, is_first=known is None)
        if known is None:
            self._learned = max(MIN_RATE, accepted * _BELOW_THE_LIMIT)
            self._before_the_row = max(_UNSURE_RATE, self._learned)
        else:
            self._learned = self._lower(known, accepted, is_soon=is_soon)
        is_measured = self._learned == accepted * _BELOW_THE_LIMIT
        self._rate_of_late_call = self._learned / max(1, self._counted(asked_seconds)) if is_measured else 0.0
        self._most_with_late_calls = float("inf") if known is None else known * _BELOW_THE_LIMIT
        self._throttled_at = started_at
        self._lengthen_plateau(known, asked_seconds or 0.0)
        self._episode_until = now + max(asked_seconds or 0.0, _WINDOW_SECONDS)
        self._count, self._counted_from = 0, None
        return True

    def _lower(self, known: float, accepted: float, *, is_soon: bool) -> float:
        if not is_soon:
            self._in_a_row, self._before_the_row = 0, known
        self._in_a_row += 1
        if self._in_a_row > _MOST_IN_A_ROW:
            return max(known, self._before_the_row)
        if is_soon and accepted > 0.9 * known:
            # what was accepted is only what was sent: a bucket that was filled meanwhile hides how far it is too much
            return max(MIN_RATE, known * _TOO_FAST_AGAIN)
        return max(MIN_RATE, known / 2, min(known, accepted) * _BELOW_THE_LIMIT)

    def _lengthen_plateau(self, known: float | None, asked_seconds: float) -> None:
        assert self._learned is not None  # noqa: S101 - there was a 429
        shortest, longest = _PLATEAU_SECONDS
        surely = min(longest, max(shortest, self._count * _PLATEAU_SECONDS_PER_CALL, 4 * asked_seconds))
        is_confirmed = known is not None and self._learned > 0.8 * known
        self._plateau = min(_MAX_PLATEAU_SECONDS, max(surely, 2 * self._plateau if is_confirmed else 0.0))

    def _accepted_rate(self, now: float, asked_seconds: float, *, is_first: bool) -> float:
        """Calls accepted a second: over the last one, or over the window of which the wait is the rest."""
        since = now if self._counted_from is None else self._counted_from
        if asked_seconds > 2 * _WINDOW_SECONDS:
            # a wait in whole seconds is rounded up
            return self._count / (now - since + asked_seconds - _WINDOW_SECONDS)
        window = _WINDOW_SECONDS
        if is_first:
            window = min(window, max(now - since + asked_seconds, _SHORTEST_WINDOW_SECONDS))
        return len(self._accepted) / window

    def _counted(self, asked_seconds: float | None) -> int:
        return self._count if (asked_seconds or 0.0) > 2 * _WINDOW_SECONDS else len(self._accepted)
