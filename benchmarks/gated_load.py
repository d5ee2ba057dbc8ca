"""`cockpit load` whose packages wait until every scope was read, so that loading can be timed apart from HTTP.

Writes the moment of the last answer, on the monotonic clock, as the first line of its output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cockpit_source import load
from cockpit_source.cli import run
from cockpit_source.packages import BatchQueue, collect_packages


def collect_when_read(queue: BatchQueue, *others: Any) -> Iterator[tuple[list[Path], bool]]:
    """The packages of `collect_packages`, the first of them after the last scope was read."""
    read: BatchQueue = SimpleQueue()
    while True:
        batch = queue.get()
        read.put(batch)
        if batch is None or isinstance(batch, BaseException):
            break
    print(time.monotonic(), flush=True)
    return collect_packages(read, *others)


if __name__ == "__main__":
    load.collect_packages = collect_when_read
    run()
