"""How this package loads with dlt: small, quiet, and with nothing left lying about."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dlt
import pyarrow as pa

from cockpit_source.configuration import configured_value
from cockpit_source.lake_connections import reusing_connections

_lock = threading.Lock()
_options = ExitStack()
_runs = 0


@contextmanager
def loading(pipeline: dlt.Pipeline) -> Iterator[None]:
    """The options of dlt and Arrow that every run of `pipeline` is made with.

    They are of the whole process: runs at the same time share those of the first, until the last has ended.
    """
    global _runs
    with _lock:
        if not _runs:
            _options.enter_context(dlt.config.values(_dlt_options(pipeline)))
            _options.enter_context(_frugal_arrow())
            _options.enter_context(_quiet_dlt())
            _options.enter_context(reusing_connections(pipeline))
        _runs += 1
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if not _runs:
                _options.close()


@contextmanager
def _quiet_dlt() -> Iterator[None]:
    """What a destination refuses is said in our words; dlt logs a stack trace of each try, unless a level is set."""
    logger = logging.getLogger("dlt")
    usual = logger.level
    if configured_value("runtime.log_level") is None:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(usual)


@contextmanager
def _frugal_arrow() -> Iterator[None]:
    """Arrow's own allocator keeps what it once had, some 70 MiB in a long load; the system's gives it back."""
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)


def _dlt_options(pipeline: dlt.Pipeline) -> dict[str, Any]:
    options: dict[str, Any] = {
        # completed jobs would pile up in the working directory
        "load.delete_completed_jobs": True,
        "normalize.workers": 1,
    }
    if pipeline.destination.destination_name == "duckdb":
        # one writer at a time is as fast on DuckDB, and takes 100 MiB less
        options["load.workers"] = 1
        # or every checkpoint writes the staged rows too
        options["load.truncate_staging_dataset"] = True
    return options
