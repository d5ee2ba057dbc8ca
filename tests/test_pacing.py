"""When calls start and how long they wait, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cockpit_source.limiter import Ending
from cockpit_source.pacing import BACKOFF_BASE_SECONDS, BACKOFF_CAP_SECONDS, Backoff, Pacer, Wait, retry_after_seconds

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class ClockedPacer(Pacer):
    """A pacer whose clock moves only while it sleeps."""

    def __init__(self, max_requests_per_second: float | None = None) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        super().__init__(max_requests_per_second, clock=lambda: self.now)

    async def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now += seconds
        return not self.stop.is_set()


def start_call(pacer: Pacer) -> bool:
    return asyncio.run(pacer.start_call()) is not None


def waited(wait: Wait, seconds: float | None = None) -> bool:
    async def work() -> bool:
        return await wait(seconds)

    return asyncio.run(work())


def noting(slept: list[float]) -> Callable[[float], Awaitable[bool]]:
    """A sleep that takes no time and notes in `slept` how long it should have been."""

    async def sleep(seconds: float) -> bool:
        slept.append(seconds)
        return True

    return sleep


def asked(text: str, now: datetime = NOW) -> float | None:
    return retry_after_seconds({"Retry-After": text}, now)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("86401", 86401.0),
        ("", None),
        ("   ", None),
        ("NaN", None),
        ("inf", None),
        ("-inf", 0.0),
        ("1e999", None),
        ("soon", None),
        ("7 seconds", None),
        ("0x10", None),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 14:01:30 +0200", 90.0),
        ("Sun, 01 Mar 2026 12:01:30 -0000", 90.0),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90.0),
        ("Sun Mar  1 12:01:30 2026", 90.0),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Sun, 31 Feb 2026 12:00:00 GMT", None),
        ("Sun, 01 Mar 99999999999999999999 12:00:00 GMT", None),
        ("Sun, 01 Mar 2026 12:00:00 +99999999999999999", None),
    ],
)
def test_retry_after_in_any_form_gives_seconds_or_nothing(text: str, seconds: float | None) -> None:
    assert asked(text) == seconds


def test_retry_after_that_is_missing_gives_nothing() -> None:
    assert retry_after_seconds({}) is None


@given(st.integers(0, 10**6))
def test_retry_after_date_gives_the_seconds_until_then(seconds: int) -> None:
    assert asked(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,30} [A-Z][a-z]{2} \d{1,30} \d\d:\d\d:\d\d [+-]?\w{1,30}"))
def test_retry_after_of_any_text_is_never_an_error_nor_negative(text: str) -> None:
    seconds = asked(text)
    assert seconds is None or 0 <= seconds < float("inf")


def test_pacer_without_a_limit_starts_calls_at_once() -> None:
    pacer = ClockedPacer()
    for _ in range(100):
        started_at = asyncio.run(pacer.start_call())
        assert started_at is not None
        pacer.end_call(started_at, Ending.FINE)
    assert pacer.slept == []


def test_pacer_with_a_limit_spaces_calls_out() -> None:
    """One call may follow early, so that sleeping a little too long does not cost throughput."""
    pacer = ClockedPacer(4)
    starts = []
    for _ in range(8):
        assert start_call(pacer)
        starts.append(pacer.now)
    assert [later - earlier for earlier, later in pairwise(starts)] == [0.0] + [0.25] * 6


def test_pacer_after_a_pause_does_not_make_up_for_it() -> None:
    pacer = ClockedPacer(4)
    start_call(pacer)
    pacer.now += 60
    starts = []
    for _ in range(6):
        start_call(pacer)
        starts.append(pacer.now)
    assert starts[-1] - starts[0] >= 4 * 0.25


def test_pacer_on_hold_starts_no_call_before_its_end() -> None:
    pacer = ClockedPacer()
    pacer.hold(5)
    pacer.hold(2)
    assert start_call(pacer)
    assert pacer.now == 1005.0
    assert start_call(pacer)
    assert pacer.now == 1005.0


def test_pacer_on_hold_for_longer_meanwhile_waits_on() -> None:
    pacer = ClockedPacer()
    pacer.hold(1)
    slept: list[float] = []

    async def sleep(seconds: float) -> bool:
        slept.append(seconds)
        pacer.now += seconds
        if len(slept) == 1:
            pacer.hold(3)
        return True

    pacer.sleep = sleep  # type: ignore[method-assign]
    assert start_call(pacer)
    assert slept == [1.0, 3.0]


def test_pacer_that_stopped_starts_nothing() -> None:
    pacer = ClockedPacer()
    pacer.stop.set()
    assert not start_call(pacer)


def test_pacer_that_stops_ends_waits_at_once() -> None:
    """Real time here: a worker on hold for an hour comes back when the run stops."""
    pacer = Pacer()
    pacer.hold(3600)
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(start_call(pacer)), daemon=True)
    waiting.start()
    pacer.stop.set()
    waiting.join(timeout=5)
    assert results == [False]
    assert asyncio.run(pacer.sleep(3600)) is False


def test_backoff_waits_with_full_jitter_up_to_a_doubling_ceiling() -> None:
    ceilings: list[tuple[float, float]] = []
    slept: list[float] = []

    def jitter(low: float, high: float) -> float:
        ceilings.append((low, high))
        return high / 2

    backoff = Backoff(10, noting(slept), jitter=jitter)
    assert [waited(wait) for wait in backoff.waits()] == [True] * 9 + [False]
    expected = [min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2**number) for number in range(9)]
    assert ceilings == [(0.0, ceiling) for ceiling in expected]
    assert slept == [ceiling / 2 for ceiling in expected]
    assert expected[-1] == BACKOFF_CAP_SECONDS


def test_backoff_with_its_own_jitter_stays_within_bounds() -> None:
    slept: list[float] = []
    for _ in range(50):
        for wait in Backoff(3, noting(slept)).waits():
            waited(wait)
    assert len(slept) == 100
    assert all(0 <= seconds <= 2 * BACKOFF_BASE_SECONDS for seconds in slept)
    assert len(set(slept)) > 90


@pytest.mark.parametrize(("wanted", "slept"), [(None, 0.25), (0.0, 0.25), (0.1, 0.25), (7.0, 7.0), (120.0, 120.0)])
def test_backoff_asked_to_wait_longer_does(wanted: float | None, slept: float) -> None:
    seen: list[float] = []
    first = next(Backoff(2, noting(seen), jitter=lambda _, high: high / 2).waits())
    assert waited(first, wanted) is True
    assert seen == [slept]


def test_backoff_after_the_last_attempt_does_not_wait() -> None:
    async def sleep(seconds: float) -> bool:
        raise AssertionError(f"slept {seconds} s for nothing")

    (only,) = Backoff(1, sleep).waits()
    assert waited(only) is False
    assert waited(only, 60.0) is False


def test_backoff_of_a_stopped_run_makes_no_further_attempt() -> None:
    pacer = ClockedPacer()
    pacer.stop.set()
    first = next(Backoff(5, pacer.sleep).waits())
    assert waited(first) is False
