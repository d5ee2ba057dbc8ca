"""What the limiter learns from how calls end, against simulated gateways on a clock of the test's own."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cockpit_source.limiter import MIN_RATE, ConcurrencyLimit, Ending
from cockpit_source.pacing import Pacer

STEPS = st.lists(
    st.tuples(
        st.sampled_from([*Ending]),
        st.floats(0, 3),
        st.none() | st.floats(0, 100),
        st.booleans(),
    ),
    max_size=200,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gateway:
    """Accepts so many calls in a sliding window, a fixed window, or from a bucket that fills evenly."""

    def __init__(self, calls: float, seconds: float = 1.0, style: str = "sliding") -> None:
        self.calls, self.seconds, self.style = calls, seconds, style
        self.accepted: list[float] = []
        self._tokens, self._filled_at = calls, 1000.0

    def asked_wait(self, now: float) -> float | None:
        """None for an accepted call, else the Retry-After in whole seconds."""
        if self.style == "bucket":
            self._tokens = min(self.calls, self._tokens + (now - self._filled_at) * self.calls / self.seconds)
            self._filled_at = now
            is_free, wait = self._tokens >= 1, 1.0
            self._tokens -= is_free
        else:
            start = now - self.seconds if self.style == "sliding" else now - now % self.seconds
            recent = [moment for moment in self.accepted[-int(self.calls) - 1 :] if moment > start]
            is_free = len(recent) < self.calls
            wait = self.seconds - now % self.seconds if self.style == "fixed" else self.seconds
        if is_free:
            self.accepted.append(now)
            return None
        return math.ceil(wait)


@dataclass
class Simulation:
    """A pacer whose calls a gateway answers after a latency; retries are left out, since a call is like another."""

    gateway: Gateway
    latency: float = 0.02
    most: int = 96
    throttled: list[float] = field(default_factory=list)
    peak: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.pacer = Pacer(max_concurrency=self.most, clock=self.clock)
        self._ends: list[tuple[float, float, float | None]] = []

    def run(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            started_at = self.pacer._try_start()
            if started_at is not None:
                asked = self.gateway.asked_wait(started_at)
                heapq.heappush(self._ends, (started_at + self.latency, started_at, asked if asked else -1.0))
                self.peak = max(self.peak, self.pacer.in_flight)
                continue
            start = max(self.pacer._next_start, self.pacer._hold_until)
            if self._ends and (self.pacer.in_flight >= self.pacer.allowed or self._ends[0][0] <= start):
                self._end_call()
            else:
                self.clock.now = max(self.clock.now, start)

    def _end_call(self) -> None:
        moment, started_at, asked = heapq.heappop(self._ends)
        self.clock.now = max(self.clock.now, moment)
        if asked is None or asked < 0:
            self.pacer.end_call(started_at, Ending.FINE)
            return
        self.throttled.append(self.clock.now)
        self.pacer.end_call(started_at, Ending.THROTTLED, asked)
        self.pacer.hold(asked)

    def rate(self, seconds: float) -> float:
        """Calls accepted a second over the last `seconds`."""
        return sum(moment > self.clock.now - seconds for moment in self.gateway.accepted) / seconds


@pytest.mark.parametrize("latency", [0.001, 0.02, 0.2])
@pytest.mark.parametrize("style", ["sliding", "bucket", "fixed"])
@pytest.mark.parametrize("calls", [20, 100, 400])
def test_rate_settles_just_below_that_of_the_gateway(style: str, calls: int, latency: float) -> None:
    simulation = Simulation(Gateway(calls, style=style), latency)
    simulation.run(300)
    assert simulation.rate(300) >= 0.8 * min(calls, 96 / latency)
    assert len(simulation.throttled) <= 0.01 * len(simulation.gateway.accepted)


def test_load_of_2000_calls_at_a_limit_of_100_a_second_takes_hardly_longer_than_it_must() -> None:
    simulation = Simulation(Gateway(100))
    simulation.run(20.5)
    assert simulation.rate(20.5) >= 0.95 * 100
    assert len(simulation.throttled) <= 0.02 * 2000


@pytest.mark.parametrize("style", ["sliding", "bucket"])
@pytest.mark.parametrize("halved_after", [3, 10, 45])
def test_rate_follows_a_limit_that_is_halved(style: str, halved_after: int) -> None:
    simulation = Simulation(Gateway(100, style=style))
    simulation.run(halved_after)
    before = len(simulation.throttled)
    simulation.gateway.calls = 50
    simulation.run(30)
    assert simulation.rate(15) >= 0.84 * 50
    assert len(simulation.throttled) - before <= 40


def test_rate_follows_a_limit_that_is_raised_within_two_minutes() -> None:
    simulation = Simulation(Gateway(50))
    simulation.run(20)
    simulation.gateway.calls = 200
    simulation.run(120)
    assert simulation.rate(10) >= 0.9 * 200


def test_gateway_with_a_window_of_a_minute_is_used_up_and_not_tried_much() -> None:
    simulation = Simulation(Gateway(300, 60, "fixed"))
    simulation.run(1200)
    assert simulation.rate(900) >= 0.9 * 5
    assert len(simulation.throttled) <= 0.04 * len(simulation.gateway.accepted)


def test_gateway_that_allows_next_to_nothing_is_not_starved_of_calls() -> None:
    simulation = Simulation(Gateway(1, 5))
    simulation.run(300)
    assert len(simulation.gateway.accepted) >= 0.9 * 300 / 6


def test_without_throttling_concurrency_reaches_the_most_within_a_second() -> None:
    simulation = Simulation(Gateway(10**9))
    simulation.run(1)
    assert simulation.pacer.allowed == simulation.peak == 96


def _play(pacer: Pacer, clock: Clock, steps: Sequence[tuple[Ending, float, float | None, bool]], most: int) -> None:
    """Any series of starts and ends; checks what has to hold at each moment."""
    open_calls: list[float] = []
    held_until = 0.0
    for ending, seconds, asked, is_start in steps:
        clock.now += seconds
        if is_start:
            started_at = pacer._try_start()
            if started_at is not None:
                assert clock.now >= held_until
                open_calls.append(started_at)
        elif open_calls:
            pacer.end_call(open_calls.pop(0), ending, asked)
            if asked is not None and ending is Ending.THROTTLED:
                pacer.hold(asked)
                held_until = max(held_until, clock.now + asked)
        assert pacer.in_flight == len(open_calls) <= most
        assert 1 <= pacer.allowed <= most
        rate = pacer._ceiling.rate(clock.now)
        assert rate is None or rate >= MIN_RATE
    for started_at in open_calls:
        pacer.end_call(started_at, Ending.OTHER)


@settings(deadline=None, max_examples=50)
@given(STEPS, st.integers(1, 256))
def test_after_anything_calls_stay_within_bounds_and_grow_back(
    steps: list[tuple[Ending, float, float | None, bool]], most: int
) -> None:
    clock = Clock()
    pacer = Pacer(max_concurrency=most, clock=clock)
    _play(pacer, clock, steps, most)
    clock.now += 1000
    assert pacer._try_start() is not None
    pacer.end_call(clock.now, Ending.FINE)
    for _ in range(200):
        clock.now += 1
        started = [moment for _ in range(most) if (moment := pacer._try_start()) is not None]
        for started_at in started:
            pacer.end_call(started_at, Ending.FINE)
    limit = ConcurrencyLimit(most)
    for _ in range(most * most):
        limit.end_call(0.0, 0.1, Ending.FINE, limit.allowed)
    assert limit.allowed == most


@settings(deadline=None)
@given(st.lists(st.sampled_from([*Ending]), max_size=50), st.integers(1, 256))
def test_concurrency_after_any_endings_grows_back_to_the_most_by_successes(endings: list[Ending], most: int) -> None:
    limit = ConcurrencyLimit(most)
    for moment, ending in enumerate(endings):
        limit.end_call(moment, moment + 0.1, ending, limit.allowed)
        assert 1 <= limit.allowed <= most
    for _ in range(64 * most):
        limit.end_call(1000.0, 1000.1, Ending.FINE, limit.allowed)
    assert limit.allowed == most


@settings(deadline=None)
@given(st.lists(st.floats(0, 0.2), min_size=30, max_size=200), st.floats(0.5, 200))
def test_starts_are_never_above_max_requests_per_second(pauses: list[float], most: float) -> None:
    clock = Clock()
    pacer = Pacer(most, clock=clock)
    starts = []
    for pause in pauses:
        clock.now += pause
        started_at = pacer._try_start()
        if started_at is not None:
            starts.append(started_at)
            pacer.end_call(started_at, Ending.FINE)
    for first, start in enumerate(starts):
        inside = sum(start <= moment <= start + 1 for moment in starts[first:])
        # one may follow early
        assert inside <= most + 2


def test_calls_that_get_much_slower_let_concurrency_be() -> None:
    limit = ConcurrencyLimit(96)
    for _ in range(20):
        limit.end_call(0, 0.1, Ending.FINE, limit.allowed)
    for _ in range(50):
        limit.end_call(0, 3, Ending.FINE, limit.allowed)
    assert limit.allowed < 20


def test_setbacks_of_calls_in_flight_together_count_once() -> None:
    limit = ConcurrencyLimit(64)
    for _ in range(300):
        limit.end_call(0, 0.1, Ending.FINE, limit.allowed)
    for _ in range(40):
        limit.end_call(10, 11, Ending.OVERLOADED, 40)
    assert limit.allowed == 32
    limit.end_call(11, 12, Ending.THROTTLED, 1)
    assert limit.allowed == 16
