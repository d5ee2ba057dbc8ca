"""The read copy of a DuckDB file: `<name>.read.duckdb` beside it, replaced as a whole after every run.

Readers open the copy, so they never keep a load waiting; one that is open keeps the older copy until it closes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import dlt

from cockpit_source.warehouse import database_file

# of linux/fs.h: share the blocks, where the file system can
_FICLONE = 0x40049409
_POLL_SECONDS = 0.1


def read_copy_path(database: Path) -> Path:
    """Where the read copy of `database` lies."""
    return database.with_name(f"{database.stem}.read.duckdb")


def publish_pipeline(pipeline: dlt.Pipeline, *, wait_seconds: float, note: Callable[[str], None]) -> bool:
    """Publish the read copy of the pipeline's DuckDB file; False where it has none."""
    database = database_file(pipeline)
    if database is None or pipeline.destination.destination_name != "duckdb":
        return False
    return publish_read_copy(database, pipeline.pipeline_name, wait_seconds=wait_seconds, note=note)


def publish_read_copy(database: Path, suffix: str, *, wait_seconds: float, note: Callable[[str], None]) -> bool:
    """Replace the read copy by the state of `database`, which this process has closed; whether it was.

    A reader sees the older copy or the new one, whole, also when the process is killed. `suffix` names the unfinished
    copy, so that only one run may write it. What goes wrong is noted, and never fails a load.
    """
    target = read_copy_path(database)
    unfinished = target.with_name(f"{target.name}.{suffix}.tmp")
    try:
        with database.open("rb") as source:
            _lock_against_writers(source, wait_seconds)
            if database.with_name(f"{database.name}.wal").exists():
                raise OSError("the database holds changes that are not in its file yet")
            _copy(source, unfinished)
            # while writers are kept out, so that no older state replaces a newer one
            unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        note(
            f"The read copy {target} was not published: {error.strerror or error}. "
            "Readers keep the one before; the load is not affected."
        )
        return False
    return True


def _lock_against_writers(source: BinaryIO, wait_seconds: float) -> None:
    """The lock that DuckDB's own readers take; it goes when the file is closed."""
    give_up_at = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.lockf(source, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= give_up_at:
                raise OSError("another process writes the database") from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        try:
            fcntl.ioctl(target, _FICLONE, source.fileno())
        except OSError:
            shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
