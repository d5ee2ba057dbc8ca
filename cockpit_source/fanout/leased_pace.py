"""The pace of one task: the calls that the desk gives it, each not before its moment.

Endings and wishes go to the desk in one exchange after another, as long as there is something to tell. A call whose
moment has passed by too far is given back, so that a process that was stopped for a while does not catch up.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from cockpit_source.limiter import Ending
from cockpit_source.pacing import sleep_unless
from cockpit_source.stopping import StopRequest

Exchange = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a report to the desk and gives its answer; raises OSError where the desk cannot be reached."""

LATE_SECONDS = 0.25
_CATCHING_UP = 0.97
_KEEP_IN_TOUCH_SECONDS = 0.5
_SHORTEST_PAUSE_SECONDS = 0.005
_POLL_SECONDS = 0.05


class LeasedPace:
    """A `Pace`. `problem` says why the desk was lost, when it was; `stop_request` is asked when it ends the run.

    `is_run_over`: nobody waits for what is read.
    """

    def __init__(self, exchange: Exchange, stop_request: StopRequest) -> None:
        self.stop = threading.Event()
        self._stop_request = stop_request
        self.problem: str | None = None
        self.is_run_over = False
        self.serial = 0
        self.in_flight = 0
        self._allowed = 1
        self._most = 1
        self._was_full = False
        self._exchange = exchange
        self._starts: deque[float] = deque()
        self._hold_until = 0.0
        self._clocks_differ = math.inf
        # the moment and the real start of the last call
        self._last = (0.0, 0.0)
        self._endings: list[tuple[float, float, str, float | None]] = []
        self._unused = 0
        self._waiting = 0
        self._started = 0
        self._asked_hold = 0.0
        self._closed = False
        self._news = asyncio.Event()
        self._given = asyncio.Event()
        self._freed = asyncio.Event()
        # whoever has it waits for the next start, the others for their turn
        self._turn = asyncio.Lock()

    @property
    def allowed(self) -> int:
        return self._allowed

    async def start_call(self) -> float | None:
        self._waiting += 1
        self._news.set()
        try:
            async with self._turn:
                while not self.stop.is_set():
                    now = time.monotonic()
                    self._give_back_late(now)
                    if not self._starts:
                        await self._wait_for_more()
                    elif (wait := self._next_start() - now) > 0:
                        await sleep_unless(self.stop, wait)
                    elif self.in_flight >= self._most:
                        self._was_full = True
                        self._freed.clear()
                        await _wait(self._freed, _POLL_SECONDS)
                    else:
                        self._last = (self._starts.popleft(), now)
                        self.in_flight += 1
                        self._started += 1
                        return now
        finally:
            self._waiting -= 1
        return None

    def end_call(self, started_at: float, ending: Ending, asked_seconds: float | None = None) -> None:
        self.in_flight -= 1
        self._freed.set()
        self._endings.append((started_at, time.monotonic(), ending.name, asked_seconds))
        self._news.set()

    def hold(self, seconds: float) -> None:
        self._hold_until = max(self._hold_until, time.monotonic() + seconds)
        self._asked_hold = max(self._asked_hold, seconds)
        self._news.set()

    async def sleep(self, seconds: float) -> bool:
        return await sleep_unless(self.stop, seconds)

    async def keep_in_touch(self) -> None:
        """Exchange with the desk until `close`."""
        try:
            while not self._closed:
                answer = await self._exchange(self._report())
                self._take_in(answer)
                is_wanting = self._waiting > len(self._starts)
                pause = answer.get("ask_again", 0.0) if is_wanting else 0.0
                await asyncio.sleep(max(_SHORTEST_PAUSE_SECONDS, pause))
                if not is_wanting:
                    await self._wait_for_news()
        except (OSError, asyncio.CancelledError) as error:
            self.problem = f"the Dask scheduler was lost: {error}"
            self._end(self.problem)

    def close(self) -> None:
        """End `keep_in_touch`; on the event loop."""
        self._closed = True
        self._news.set()

    async def leave(self) -> None:
        """Tell the rest, and give back what was not used; after `keep_in_touch` has ended."""
        self._unused += len(self._starts)
        self._starts.clear()
        try:
            await self._exchange(self._report() | {"leaves": True})
        except (OSError, asyncio.CancelledError) as error:
            self.problem = self.problem or f"the Dask scheduler was lost: {error}"

    def _report(self) -> dict[str, Any]:
        now = time.monotonic()
        report = {
            "endings": [(now - start, now - end, name, asked) for start, end, name, asked in self._endings],
            "unused": self._unused,
            "waiting": max(0, self._waiting - len(self._starts)),
            "hold_seconds": self._asked_hold,
            "was_full": self._was_full,
            "started": self._started,
            "in_flight": self.in_flight,
        }
        self._endings, self._unused, self._started, self._asked_hold = [], 0, 0, 0.0
        self._was_full = False
        self._news.clear()
        return report

    def _take_in(self, answer: dict[str, Any]) -> None:
        if reason := answer.get("stop_reason"):
            self._end(reason)
        self.is_run_over = bool(answer.get("is_over"))
        now = time.monotonic()
        if "now" in answer:
            # the quickest answer tells best how the clocks differ; by a slow one its calls would run into the next
            self._clocks_differ = min(self._clocks_differ, now - answer["now"])
            self._starts.extend(answer["now"] + self._clocks_differ + start for start in answer["starts"])
        self._hold_until = max(self._hold_until, now + answer.get("hold", 0.0)) if answer.get("hold") else 0.0
        self._allowed = answer.get("allowed", self._allowed)
        self._most = answer.get("most", self._most)
        self.serial = answer.get("serial", self.serial)
        if self._starts:
            self._given.set()

    def _end(self, reason: str) -> None:
        self._stop_request.ask(reason)
        self.stop.set()

    def _next_start(self) -> float:
        """When the next call may start: at its moment, and after a late one at nearly the distance that they have."""
        moment = self._starts[0]
        last_moment, last_start = self._last
        return max(moment, self._hold_until, last_start + (moment - last_moment) * _CATCHING_UP)

    def _give_back_late(self, now: float) -> None:
        while self._starts and self._starts[0] < now - LATE_SECONDS:
            self._starts.popleft()
            self._unused += 1
            self._last = (0.0, 0.0)
            self._news.set()

    async def _wait_for_more(self) -> None:
        self._given.clear()
        self._news.set()
        await _wait(self._given, _POLL_SECONDS)

    async def _wait_for_news(self) -> None:
        await _wait(self._news, _KEEP_IN_TOUCH_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
