"""The read copy that the dashboard shows: opened read-only, and opened anew when a load has replaced it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from cockpit_source.errors import ConfigurationError
from cockpit_source.pipeline import locate_database
from cockpit_source.publish import read_copy_path
from cockpit_source.redaction import redact

State = Literal["missing", "unreadable", "empty", "unbuilt", "ready"]

# every view that a page reads; where one is missing, the marts were not built by this version
REQUIRED_VIEWS = (
    "attention",
    "checks",
    "dim_customers",
    "dim_resellers",
    "dim_skus",
    "fct_current_inventory",
    "fct_daily_inventory",
    "fct_daily_totals",
    "fct_reclaimable_seats",
    "fct_seat_changes",
    "int_days",
    "metrics",
    "scope_health",
)

_CATALOG = "shown"
_NAMES = "SELECT table_name FROM information_schema.tables WHERE table_catalog = ? AND table_schema = ?"
_KEPT_RESULTS = 200
_KEPT_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether the database can be shown; `detail` is what DuckDB said, or the views that are missing."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Version:
    """One state of the file: a replaced copy has another inode."""

    inode: int
    modified_ns: int
    size: int


class ShownDatabase:
    """The read copy of `database`, for the queries of all sessions; safe to use from several threads.

    It holds no lock that a load waits for: a load replaces the copy by renaming, and a copy that is open stays as it
    is until the next query opens the new one.
    """

    def __init__(self, database: Path, dataset: str) -> None:
        self.database = database
        self.dataset = dataset
        self.path = read_copy_path(database)
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._results: OrderedDict[tuple[Any, ...], pa.Table] = OrderedDict()

    @property
    def version(self) -> str:
        """Changes when a newer copy lies there, or what is missing changes."""
        found = self._find()
        if found is None:
            return "not published" if self.database.exists() else "missing"
        return f"{found.inode}-{found.modified_ns}-{found.size}"

    def condition(self) -> Condition:
        """Whether the database can be shown, and if not, why."""
        if self._find() is None:
            return Condition("missing")
        try:
            with self._cursor() as cursor:
                names = {str(name) for (name,) in cursor.execute(_NAMES, [_CATALOG, self.dataset]).fetchall()}
                if "runs" not in names or not cursor.execute("SELECT 1 FROM runs LIMIT 1").fetchall():
                    return Condition("empty")
        except duckdb.CatalogException:
            # not even the dataset is there
            return Condition("empty")
        except (duckdb.Error, OSError) as error:
            return Condition("unreadable", redact(str(error).splitlines()[0]))
        missing = [name for name in REQUIRED_VIEWS if name not in names]
        return Condition("unbuilt", ", ".join(missing)) if missing else Condition("ready")

    def query(self, sql: str, values: Mapping[str, Any] | None = None, *, lasting: bool = False) -> pa.Table:
        """The result of a SELECT; table names need no dataset.

        Small results are kept: `lasting` ones until the copy is replaced, others, whose ages count from now, for a
        minute at most.
        """
        wanted = {name: value for name, value in (values or {}).items() if f"${name}" in sql}
        minute = 0 if lasting else int(time.time() // 60)
        key = (minute, self.version, sql, tuple(sorted(wanted.items())))
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        with self._cursor() as cursor:
            result: pa.Table = cursor.execute(sql, wanted).to_arrow_table()
        if result.nbytes <= _KEPT_BYTES // 4:
            self._keep(key, result)
        return result

    def close(self) -> None:
        """Let go of the copy."""
        with self._lock:
            self._close()

    def _keep(self, key: tuple[Any, ...], result: pa.Table) -> None:
        with self._lock:
            self._results[key] = result
            while len(self._results) > _KEPT_RESULTS or self._kept_bytes() > _KEPT_BYTES:
                self._results.popitem(last=False)

    def _kept_bytes(self) -> int:
        return sum(table.nbytes for table in self._results.values())

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._lock:
            found = self._find()
            if found is None:
                self._close()
                raise FileNotFoundError(f"{self.path} is gone")
            if self._connection is None or found != self._version:
                self._close()
                self._connection = self._open()
                self._version = found
            cursor = self._connection.cursor()
        try:
            cursor.execute(f'USE "{_CATALOG}"."{self.dataset}"')
            yield cursor
        finally:
            cursor.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        """An own DuckDB in memory that has the file attached: one opened by its path would be shared with the copy
        of before for as long as a query on that runs."""
        path = str(self.path).replace("'", "''")
        connection = duckdb.connect(":memory:")
        try:
            connection.execute("SET autoinstall_known_extensions = false")
            connection.execute(f"ATTACH '{path}' AS {_CATALOG} (READ_ONLY)")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET TimeZone = 'UTC'")
        except duckdb.Error:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        self._results.clear()
        self._version = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _find(self) -> _Version | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return _Version(found.st_ino, found.st_mtime_ns, found.st_size)


def locate_shown(destination: str, database: Path | None, dataset: str, *, what: str) -> ShownDatabase:
    """The copy of the DuckDB file that a load with these options fills; `what`, such as "The report", reads it.

    Raises:
        ConfigurationError: the destination is not DuckDB, or its file is named like its dataset.
    """
    if destination != "duckdb":
        raise ConfigurationError(
            f"{what} reads DuckDB files, and the destination is {destination!r}. Connect Power BI, Superset or "
            "Metabase to the marts there: docs/bi.md says how."
        )
    return ShownDatabase(locate_database(database, dataset), dataset)


class _Shown:
    database: ShownDatabase | None = None


def show(database: ShownDatabase) -> None:
    """Make `database` the one that the app of this process shows."""
    _Shown.database = database


def shown_database() -> ShownDatabase:
    """The database that the app of this process shows."""
    if _Shown.database is None:
        raise RuntimeError("the app is served by `cockpit dashboard`, which says what it shows")
    return _Shown.database
