"""One run at a time per pipeline and machine: a lock on its work folder that ends with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cockpit_source.errors import WarehouseBusy

_FILE_NAME = "run.lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` while the context lasts; the kernel releases it when the process dies.

    Raises:
        WarehouseBusy: another run holds it; the message names its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _FILE_NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise WarehouseBusy(
                f"Another load or prune of the same tenant and database is running (process {holder}). "
                "Wait until it ends, or stop it, then run again. Nothing was lost."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_holder(folder: Path) -> str | None:
    """The process that holds the lock of `folder`, or None; "unknown" where it has not said so yet.

    Holds the lock itself for an instant, so ask only where the answer matters.
    """
    try:
        with (folder / _FILE_NAME).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except FileNotFoundError:
        pass
    return None
