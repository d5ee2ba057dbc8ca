"""Locks between processes of one machine: files whose lock the kernel releases when their process dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cockpit_source.errors import AnotherRun

_FILE_NAME = "run.lock"
_LOAD_IS_RUNNING = "Another load or prune of the same tenant and database is running"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` while the context lasts; the kernel releases it when the process dies.

    Raises:
        AnotherRun: another run holds it; the message names its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / _FILE_NAME):
        yield


@contextmanager
def file_lock(path: Path, what: str = _LOAD_IS_RUNNING) -> Iterator[None]:
    """As `run_lock`, with a file of any name in a folder that is there. The file stays. `what` begins the message.

    Raises:
        AnotherRun: another run holds it.
        OSError: the file cannot be written.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise busy(f"process {file.read().strip() or 'unknown'}", what) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def busy(holder: str, what: str = _LOAD_IS_RUNNING) -> AnotherRun:
    """The error of a run that may not begin beside `holder`."""
    return AnotherRun(f"{what} ({holder}). Wait until it ends, or stop it, then run again. Nothing was lost.")


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
