"""Why a database cannot be shown, in the words of pages, terminal and commands: what is so, and what to run."""

from __future__ import annotations

from dataclasses import dataclass

from cockpit_source.dashboard.database import ShownDatabase


@dataclass(frozen=True, slots=True)
class Problem:
    """A title, what is so, the command that mends it and how to run it, and what is only for looking things up."""

    title: str
    reason: str
    command: str
    how: str = ""
    detail: str = ""

    @property
    def message(self) -> str:
        """All of it as one text."""
        return f"{self.title}. {self.reason} Run `{self.command}`{self.how}. {self.detail}".rstrip()


def find_problem(database: ShownDatabase, reader: str) -> Problem | None:
    """Why `reader`, such as "the report", cannot show the database; None where it can."""
    condition = database.condition()
    if condition.state == "ready":
        return None
    if condition.state == "missing":
        return _not_published(database, reader) if database.database.exists() else _missing(database)
    if condition.state == "empty":
        return Problem(
            "Nothing was loaded yet",
            f"{database.path} holds no run of a load in the dataset {database.dataset}.",
            "cockpit load",
            ", or name another dataset with --dataset",
        )
    if condition.state == "unbuilt":
        return Problem(
            "The marts are not built",
            f"{database.path} holds what was loaded, but not the views that {reader} reads.",
            "cockpit marts",
            ", with the same --project and --database",
            f"Missing: {condition.detail}.",
        )
    return Problem(
        "The database cannot be read",
        f"{database.path}: {condition.detail.rstrip('.')}.",
        "cockpit load",
        ", which publishes a new copy",
    )


def _missing(database: ShownDatabase) -> Problem:
    return Problem(
        "There is no database",
        f"{database.database} does not exist.",
        "cockpit load",
        ", or name another database with --project or --database",
    )


def _not_published(database: ShownDatabase, reader: str) -> Problem:
    return Problem(
        "No copy to read was published yet",
        f"{database.database} is there, but not its copy {database.path.name}, which is all that {reader} opens, so "
        "that it never keeps a load waiting. Every load publishes it, and so does cockpit marts, unless "
        "publish_read_copy is false.",
        "cockpit marts",
        ", or wait for the next load",
    )
