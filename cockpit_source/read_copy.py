"""The read copy for commands: opened, or one message that says what is missing and which command comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.pipeline import locate_database


@contextmanager
def open_read_copy(destination: str, database: Path | None, dataset: str, *, what: str) -> Iterator[ShownDatabase]:
    """The published copy of the DuckDB file that a load with these options fills; `what` begins a message.

    Raises:
        ConfigurationError: the destination is not DuckDB.
        WarehouseError: there is no copy, nothing was loaded, or the marts are not built.
    """
    if destination != "duckdb":
        raise ConfigurationError(
            f"{what} reads DuckDB files, and the destination is {destination!r}. Connect Power BI, Superset or "
            "Metabase to the marts there: docs/bi.md says how."
        )
    shown = ShownDatabase(locate_database(database, dataset), dataset)
    try:
        _require_ready(shown, what)
        yield shown
    finally:
        shown.close()


def _require_ready(shown: ShownDatabase, what: str) -> None:
    condition = shown.condition()
    if condition.state == "ready":
        return
    if condition.state == "missing" and shown.database.exists():
        raise WarehouseError(
            f"{shown.database} is there, but not its copy {shown.path.name}, which is all that {what.lower()} opens, "
            "so that no load waits for it. Every load publishes it, unless publish_read_copy is false; so does "
            "`cockpit marts`."
        )
    if condition.state == "missing":
        raise WarehouseError(
            f"There is no database {shown.database}. Run `cockpit load` first, or name another with --project or "
            "--database."
        )
    if condition.state == "empty":
        raise WarehouseError(
            f"{shown.path} holds no run of a load in the dataset {shown.dataset}. Run `cockpit load` first, or name "
            "another with --dataset."
        )
    if condition.state == "unbuilt":
        raise WarehouseError(
            f"{shown.path} holds what was loaded, but not the views that {what.lower()} reads ({condition.detail}). "
            "Run `cockpit marts` first, with the same --project and --database."
        )
    raise WarehouseError(f"{shown.path} cannot be read: {condition.detail}. `cockpit load` publishes a new copy.")
