"""The query that says what is to be deleted: where its text comes from, and what it selects.

It passes two locks, the allow-list of `sql_allow_list` and the read-only connection of `locked_run`, and its rows a
third, `candidate_rows`. What cannot be read is never taken for an empty selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import dlt

from cockpit_source.deletions.candidate_rows import to_candidates
from cockpit_source.deletions.locked_run import dialect_of, run_locked
from cockpit_source.deletions.records import Candidate, hash_text
from cockpit_source.deletions.sql_allow_list import to_checked_sql
from cockpit_source.deletions.sql_text import MAX_BYTES
from cockpit_source.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class DeletionQuery:
    """A query as it was written; `name` is that of its file or of a query shipped with the package."""

    name: str
    text: str

    @property
    def query_hash(self) -> str:
        """SHA-256 of the text."""
        return hash_text(self.text)


def read_query(path: Path) -> DeletionQuery:
    """The query in a UTF-8 file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(f"The query {path} is longer than {MAX_BYTES} bytes. Write it shorter.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"The query {path} cannot be read: {reason}. Give the path of a file with one SELECT, or the name of a "
            f"query of the package: {', '.join(named_queries())}."
        ) from None
    return DeletionQuery(path.name, text)


def named_query(name: str) -> DeletionQuery:
    """The query `name` of the package.

    Raises:
        ConfigurationError: there is none.
    """
    names = named_queries()
    if name not in names:
        raise ConfigurationError(f"There is no query {name!r} in this package. Valid: {', '.join(names)}.")
    return DeletionQuery(name, _query_file(name).read_text(encoding="utf-8"))


def named_queries() -> dict[str, str]:
    """The names of the queries of the package, each with the first line of its comment."""
    found = sorted(
        entry.name.removesuffix(".sql") for entry in _query_folder().iterdir() if entry.name.endswith(".sql")
    )
    return {name: _first_line(_query_file(name).read_text(encoding="utf-8")) for name in found}


def select_candidates(query: DeletionQuery, pipeline: dlt.Pipeline) -> list[Candidate]:
    """What `query` selects on the inventory of `pipeline`, in its order; an empty list when it selects nothing.

    No connection of this process may have the DuckDB file open meanwhile.

    Raises:
        ConfigurationError: deletions do not work with this destination.
        WarehouseBusy: another process has the DuckDB file open, such as a load.
        DeletionRefused: the query is not allowed, fails, or a row does not fit; `code` says which.
    """
    dialect = dialect_of(pipeline)
    sql = to_checked_sql(query.text, dialect=dialect, dataset=str(pipeline.dataset_name))
    return to_candidates(run_locked(sql, pipeline))


def _query_folder() -> Traversable:
    return files("cockpit_source.deletions") / "queries"


def _query_file(name: str) -> Traversable:
    return _query_folder() / f"{name}.sql"


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].removeprefix("--").strip()
