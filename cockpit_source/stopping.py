"""A load that is asked to end: by SIGINT or SIGTERM, or by the program that runs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cockpit_source.errors import EXIT_FAILED


class StopRequest:
    """Asks a load to start no further call; what is read by then is loaded, the rest is skipped.

    May be asked from any thread and from a signal handler. `reason` is None until then.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def ask(self, reason: str) -> None:
        """End the load for `reason`; the first one counts."""
        self.reason = self.reason or reason


@contextmanager
def stopping_on_signals(
    request: StopRequest, can_stop: Callable[[], bool], note: Callable[[str], None]
) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks for the end, the second ends the process at once.

    While `can_stop` says no, as before the first scope is read, the first ends the process too, by KeyboardInterrupt.
    For the main thread only.
    """

    def handle(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if request.reason is not None:
            _exit_at_once(name)
        request.ask(f"{name} asked the load to end")
        if not can_stop():
            raise KeyboardInterrupt
        note(
            f"{name}: what is read is loaded, the rest is skipped (once more ends at once; the next load carries on)."
        )

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_at_once(name: str) -> None:
    text = f"\n{name} again: ended at once. What was read is in the spool; the next load carries on.\n"
    # past buffers and locks that the interrupted code may hold
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
    os._exit(EXIT_FAILED)
