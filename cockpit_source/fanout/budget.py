"""One request budget for calls that several processes make: how many at a time, and how many a second.

Members ask for calls and get them one by one, each with the moment from which it may start. What a member was given
counts until it says how the call ended, or until nothing was heard of it for a while. Moments that were given out and
not used are never given out again, so that a member that dies costs a little pace and never exceeds it.

The rules are those of `limiter`, as in one process. Told the time, never waiting: for an event loop or a test.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cockpit_source.limiter import ConcurrencyLimit, Ending, RateCeiling
from cockpit_source.pacing import BARE_HOLD_SECONDS

HORIZON_SECONDS = 0.2
"""How far ahead moments are given out: what a dead member may waste, and how long news of a 429 may take."""

SILENT_SECONDS = 3.0
"""A member of which nothing was heard for so long holds no calls any more."""

_ASK_AGAIN_SECONDS = (0.01, 0.25)

EndingRecord = tuple[float, float, str, float | None]
"""How a call ended: seconds since its start and since its end, the name of its `Ending`, the wait it asked for."""


@dataclass(slots=True)
class _Member:
    held: int = 0
    waiting: int = 0
    seen_at: float = 0.0
    served_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a member may do. Seconds from now: `starts` of calls, `hold` until which none may start, `ask_again`.

    `most` is its share of the calls at a time.
    """

    starts: tuple[float, ...]
    most: int
    hold: float
    ask_again: float


class SharedBudget:
    """The budget of one tenant."""

    def __init__(
        self,
        max_concurrency: int,
        max_requests_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bounds = (max_concurrency, max_requests_per_second)
        self._max_rate = max_requests_per_second or math.inf
        self._clock = clock
        self._concurrency = ConcurrencyLimit(max_concurrency)
        self._ceiling = RateCeiling()
        self._members: dict[str, _Member] = {}
        self._next_start = 0.0
        self._hold_until = 0.0
        self._is_short = False

    @property
    def allowed(self) -> int:
        """Calls that may be in flight now."""
        return self._concurrency.allowed

    @property
    def is_idle(self) -> bool:
        """Whether no member is left."""
        return not self._members

    def exchange(
        self,
        name: str,
        endings: Sequence[EndingRecord] = (),
        *,
        unused: int = 0,
        waiting: int = 0,
        hold_seconds: float = 0.0,
        was_full: bool = False,
    ) -> Grant:
        """Take in what a member tells, and give it what it may do.

        `unused` calls were given and are not made; `waiting` ones are wanted; `hold_seconds` is a wait that the API
        asked for, of everyone; `was_full`: calls had to wait since its share of the calls at a time was in flight.
        """
        now = self._clock()
        member = self._members.setdefault(name, _Member())
        member.held = max(0, member.held - len(endings) - unused)
        member.seen_at, member.waiting = now, waiting
        self._forget_silent(now)
        self._is_short = self._is_short or was_full
        for ending in endings:
            self._end_call(now, *ending)
        if hold_seconds > 0:
            self._hold(now, hold_seconds)
        rate = min(self._max_rate, self._ceiling.rate(now) or math.inf)
        active = sum(1 for other in self._members.values() if other.held or other.waiting)
        # the rate says how many, and each keeps to its share of the calls at a time itself: counted here, they would
        # also wait for the news that others have ended
        is_paced = rate < math.inf and self.allowed >= active
        starts = self._give(member, now, rate, is_paced=is_paced)
        most = self.allowed // max(1, active) if is_paced else self.allowed
        return Grant(starts, most, max(0.0, self._hold_until - now), self._next_moment(now))

    def leave(self, name: str) -> None:
        """Forget a member and what it holds."""
        self._members.pop(name, None)

    def _forget_silent(self, now: float) -> None:
        for name in [n for n, member in self._members.items() if now - member.seen_at > SILENT_SECONDS]:
            del self._members[name]

    def _end_call(
        self, now: float, since_start: float, since_end: float, ending: str, asked_seconds: float | None
    ) -> None:
        started_at, ended_at, kind = now - since_start, now - since_end, Ending[ending]
        # a limit counts as reached where it kept somebody waiting
        in_flight = self.allowed if self._is_short else 0
        self._concurrency.end_call(started_at, ended_at, kind, in_flight)
        if kind is Ending.FINE:
            self._ceiling.accept(started_at)
        elif kind is Ending.THROTTLED:
            is_news = self._ceiling.throttle(started_at, ended_at, asked_seconds)
            if is_news and asked_seconds is None:
                self._hold(now, BARE_HOLD_SECONDS)

    def _hold(self, now: float, seconds: float) -> None:
        self._hold_until = max(self._hold_until, now + seconds)

    def _give(self, member: _Member, now: float, rate: float, *, is_paced: bool) -> tuple[float, ...]:
        if is_paced:
            wanted = member.waiting
        else:
            free = self.allowed - sum(other.held for other in self._members.values())
            wanted = min(member.waiting, free, self._share(member))
        starts: list[float] = []
        while len(starts) < wanted:
            moment = max(self._next_start, self._hold_until, now)
            if moment > now + HORIZON_SECONDS:
                break
            starts.append(moment - now)
            self._next_start = moment + 1.0 / rate
        is_rate_free = max(self._next_start, self._hold_until) <= now + HORIZON_SECONDS
        self._is_short = not is_paced and is_rate_free and member.waiting > len(starts)
        member.held += len(starts)
        if starts:
            member.served_at = now
        return tuple(starts)

    def _share(self, member: _Member) -> int:
        """Calls that a member may be given now, so that all that wait get some."""
        hungry = [other for other in self._members.values() if other is not member and other.waiting > other.held]
        if not hungry:
            return self.allowed
        if self.allowed <= len(hungry):
            # in turn, since there is not one for each
            is_its_turn = all(member.served_at <= other.served_at for other in hungry if not other.held)
            return 1 if not member.held and is_its_turn else 0
        return max(0, math.ceil(self.allowed / (len(hungry) + 1)) - member.held)

    def _next_moment(self, now: float) -> float:
        """When asking again may give more, in seconds."""
        shortest, longest = _ASK_AGAIN_SECONDS
        due = max(self._next_start, self._hold_until) - now - HORIZON_SECONDS / 2
        return min(longest, max(shortest, due))
