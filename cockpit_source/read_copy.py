"""The read copy for commands: opened, or one message that says what is missing and which command comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cockpit_source.dashboard.database import ShownDatabase, locate_shown
from cockpit_source.dashboard.problems import find_problem
from cockpit_source.errors import WarehouseError


@contextmanager
def open_read_copy(destination: str, database: Path | None, dataset: str, *, what: str) -> Iterator[ShownDatabase]:
    """The published copy of the DuckDB file that a load with these options fills; `what` begins a message.

    Raises:
        ConfigurationError: the destination is not DuckDB.
        WarehouseError: there is no copy, nothing was loaded, or the marts are not built.
    """
    shown = locate_shown(destination, database, dataset, what=what)
    try:
        if problem := find_problem(shown, what.lower()):
            raise WarehouseError(problem.message)
        yield shown
    finally:
        shown.close()
