"""A load that is tried again while another run or a reader holds the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cockpit_source.stopping import StopRequest

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class BusyTries:
    """How often a load is tried while the database is in use, and the seconds between two tries."""

    tries: int = 1
    seconds: float = 600.0

    def wait(self, tried: int, why: str, request: StopRequest, note: Callable[[str], None]) -> bool:
        """Wait for the next try after `tried` of them; False, at once, where there were enough or the load shall end.

        `why` is a sentence that the note about it begins with.
        """
        left = self.tries - tried
        if left < 1 or request.reason is not None:
            return False
        more = "for the last time" if left == 1 else f"up to {left} times"
        note(f"{why} Tried again in {self.seconds:g} s, {more}.")
        ends_at = time.monotonic() + self.seconds
        try:
            while request.reason is None and (rest := ends_at - time.monotonic()) > 0:
                time.sleep(min(rest, _LOOK_SECONDS))
        except KeyboardInterrupt:
            if request.reason is None:
                raise
        return request.reason is None
