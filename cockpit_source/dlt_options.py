"""How this package loads with dlt: small, quiet, and with nothing left lying about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt
import pyarrow as pa

from cockpit_source.configuration import configured_value
from cockpit_source.lake_connections import reusing_connections


@contextmanager
def loading(pipeline: dlt.Pipeline) -> Iterator[None]:
    """The options of dlt and Arrow that every run of `pipeline` is made with."""
    with dlt.config.values(_dlt_options(pipeline)), _frugal_arrow(), _quiet_dlt(), reusing_connections(pipeline):
        yield


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
