"""Pages for a database that cannot be shown: what is so, why, and which command comes next."""

from __future__ import annotations

import marimo as mo

from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.dashboard.parts import notice


def describe(database: ShownDatabase) -> mo.Html | None:
    """The page to show instead of the figures; None where the figures can be shown."""
    condition = database.condition()
    if condition.state == "ready":
        return None
    if condition.state == "missing":
        return _missing(database)
    if condition.state == "empty":
        return notice(
            "Nothing was loaded yet",
            [f"{database.path} holds no run of a load in the dataset {database.dataset}.", _RETURNS],
            "cockpit load",
        )
    if condition.state == "unbuilt":
        return notice(
            "The marts are not built",
            [
                f"{database.path} holds what was loaded, but not the views that these pages read. Missing: "
                f"{condition.detail}.",
                "Build them, with the same --project and --database. " + _RETURNS,
            ],
            "cockpit marts",
        )
    return notice(
        "The database cannot be read",
        [f"{database.path}: {condition.detail}", "The next load publishes a new copy. " + _RETURNS],
        "cockpit load",
    )


def _missing(database: ShownDatabase) -> mo.Html:
    if database.database.exists():
        return notice(
            "No copy to read was published yet",
            [
                f"{database.database} is there, but not its copy {database.path.name}, which is all that the "
                "dashboard opens, so that it never keeps a load waiting.",
                "Every load publishes it, unless publish_read_copy is false. " + _RETURNS,
            ],
            "cockpit load",
        )
    return notice(
        "There is no database",
        [
            f"{database.database} does not exist. Load it, or start the dashboard with the --project or --database "
            "of another.",
            _RETURNS,
        ],
        "cockpit load",
    )


_RETURNS = "This page looks for it every ten seconds."
