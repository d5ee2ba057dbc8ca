"""The way in: a fan-out by its address, without importing Dask where none is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cockpit_source.errors import ConfigurationError
from cockpit_source.reading import FanOut


@contextmanager
def fan_out_by_dask(address: str | None) -> Iterator[FanOut | None]:
    """A fan-out for `run_load` on the Dask scheduler at `address`; None without an address.

    `local` starts two worker processes on this machine, which end with the context. A program that does that has to
    be importable, with its own calls under `if __name__ == "__main__":`.

    Raises:
        ConfigurationError: the extra is not installed, nothing answers at the address, there is no worker, or
            scheduler and workers have other versions than this process.
    """
    if address is None:
        yield None
        return
    try:
        from cockpit_source.fanout.cluster import connect
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("dask", "distributed"):
            raise
        raise ConfigurationError(
            f"--dask needs an extra, and {error.name} is not installed. Install it from the clone, here and on every "
            'worker: pip install -c constraints.txt ".[dask]"'
        ) from None
    with connect(address) as fan_out:
        yield fan_out
