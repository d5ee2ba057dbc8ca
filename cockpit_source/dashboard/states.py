"""The page for a database that cannot be shown: what is so, why, and which command comes next."""

from __future__ import annotations

import marimo as mo

from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.dashboard.parts import notice
from cockpit_source.dashboard.problems import find_problem


def describe(database: ShownDatabase) -> mo.Html | None:
    """The page to show instead of the figures; None where the figures can be shown."""
    problem = find_problem(database, "the dashboard")
    if problem is None:
        return None
    told = [
        f"{problem.reason} {problem.detail}".rstrip(),
        f"Run the command below{problem.how}. This page looks every ten seconds whether that is done.",
    ]
    return notice(problem.title, told, problem.command)
