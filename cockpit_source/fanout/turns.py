"""Several loads of one process at once: while one waits for what the workers read, another has its turn.

dlt, and a DuckDB file, are for one at a time. So a load keeps its turn until it has nothing to do but wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class Turns:
    """The turn, which one thread has; see `FanOut`."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._own = threading.local()

    @contextmanager
    def taking_turns(self) -> Iterator[None]:
        """Have the turn; a thread that has it keeps it."""
        if getattr(self._own, "has_turn", False):
            yield
            return
        self._acquire()
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let others have it, while the context lasts."""
        self._release()
        try:
            yield
        finally:
            self._acquire()

    def run_at_once(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """What the jobs give, each run in a thread of its own and in its turn. Raises what the first one raised."""

        def run(job: Callable[[], Result]) -> Result:
            with self.taking_turns():
                return job()

        with ThreadPoolExecutor(max(1, len(jobs)), thread_name_prefix="load") as pool:
            return [future.result() for future in [pool.submit(run, job) for job in jobs]]

    def _acquire(self) -> None:
        self._turn.acquire()
        self._own.has_turn = True

    def _release(self) -> None:
        self._own.has_turn = False
        self._turn.release()
