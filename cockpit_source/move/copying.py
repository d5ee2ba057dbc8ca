"""The move itself: every table copied and compared with its source, in one transaction of the target."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.common.destination.exceptions import DestinationException
from dlt.common.versioned_state import compress_state, decompress_state
from dlt.pipeline.state_sync import generate_pipeline_state_version_hash

from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.move import source_file
from cockpit_source.move.source_file import ALIAS, STATE_TABLE, SourceDataset, SourceTable
from cockpit_source.move.sql_text import quote
from cockpit_source.move.target import Target, open_target, table_definitions
from cockpit_source.redaction import redact
from cockpit_source.runner_lock import one_runner
from cockpit_source.warehouse import describe_location, describe_reason

OpenPipeline = Callable[[str], dlt.Pipeline]
# what is being done, and with which share of the rows of everything done before it
Step = Callable[[str, int, int], None]

_SERVER_ERROR = re.compile(r"ERROR: +(.+)")
# each may be a session of PostgreSQL; they say early that a load is running, and the transaction keeps the rest apart
_MOST_LOCKS = 20
_MOVED_STATE = "moved_pipeline_state"


@dataclass(frozen=True, slots=True)
class MovedTable:
    """A table and its rows, the same number in source and target."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What was moved, where to, and how many seconds copying and comparing took.

    `left_out` are tables of the file that no load made. `tenants` are those whose loads go on in the target.
    """

    source: str
    location: str
    dataset: str
    tenants: tuple[str, ...]
    tables: tuple[MovedTable, ...]
    left_out: tuple[str, ...]
    copy_seconds: float
    compare_seconds: float

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return asdict(self) | {"rows": self.rows, "equal": True}


def move_dataset(
    database: Path, dataset: str, *, open_source: OpenPipeline, open_target_of: OpenPipeline, step: Step
) -> MoveResult:
    """Move `dataset` of a DuckDB file into the destination of the pipelines that `open_target_of` gives per tenant.

    `open_source` gives the pipeline that loads a tenant into the file. All of it is committed at once, after every
    table was compared with its source, whole rows, or nothing is; the file is only read.

    Raises:
        ConfigurationError: the file is not one, was written by another version, or its last run has not ended; the
            target holds a dataset of this name.
        WarehouseBusy: a load of the file or into the target is running, or a program has the file open to write.
        WarehouseError: file or target cannot be used, or a table came out different; nothing was changed.
    """
    source_file.require_source(database)
    with ExitStack() as stack:
        stack.enter_context(source_file.held_against_loads(database))
        tenants = source_file.read_tenants(database, dataset)
        pipelines = {tenant: open_target_of(tenant) for tenant in tenants}
        for pipeline in list(pipelines.values())[:_MOST_LOCKS]:
            stack.enter_context(one_runner(pipeline))
        names = {open_source(tenant).pipeline_name: pipeline for tenant, pipeline in pipelines.items()}
        pipeline = pipelines[tenants[0]]
        location = describe_location(pipeline)
        with _explained(location) as known, open_target(pipeline) as target:
            known.append(target.secret)
            source_file.attach(target.connection, database)
            held = source_file.read_dataset(target.connection, dataset)
            _rename_state(target.connection, dataset, names)
            mover = _Mover(target, held, dataset, location, step)
            copied, compared = mover.move(table_definitions(pipeline, held.schema, [t.name for t in held.tables]))
    return MoveResult(
        str(database),
        location,
        dataset,
        tuple(tenants),
        tuple(MovedTable(table.name, table.rows) for table in held.tables),
        held.left_out,
        round(copied, 3),
        round(compared, 3),
    )


class _Mover:
    """One transaction on the target."""

    def __init__(self, target: Target, held: SourceDataset, dataset: str, location: str, step: Step) -> None:
        self._target = target
        self._connection = target.connection
        self._held = held
        self._dataset = dataset
        self._location = location
        self._step = step
        # every row is copied and then compared
        self._total = 2 * sum(table.rows for table in held.tables)
        self._done = 0

    def move(self, definitions: Sequence[str]) -> tuple[float, float]:
        """Create, copy, compare and commit; the seconds of copying and of comparing."""
        self._connection.begin()
        try:
            self._create(definitions)
            began = time.monotonic()
            self._each("copying", self._copy)
            copied = time.monotonic()
            self._each("comparing", self._compare)
            compared = time.monotonic()
            self._step("committing", self._done, self._total)
            self._commit()
        except BaseException:
            self._roll_back()
            raise
        return copied - began, compared - copied

    def _create(self, definitions: Sequence[str]) -> None:
        there = self._target.find_objects()
        if there and self._holds_every_run():
            raise ConfigurationError(
                f"The dataset {self._dataset!r} in {self._location} holds every run of the file already: "
                "it was moved before, and loads go on there. Nothing was changed."
            )
        if there:
            raise ConfigurationError(
                f"The dataset {self._dataset!r} in {self._location} is not empty: it holds {_name_some(there)}. A "
                "move only fills an empty one, so that nothing is mixed or lost. Remove that one if nobody needs "
                "it, or configure another database, then run again. Nothing was changed."
            )
        if there is None:
            self._target.define(f"CREATE SCHEMA {quote(self._dataset)}")
        for statement in definitions:
            self._target.define(statement)

    def _holds_every_run(self) -> bool:
        """Whether the dataset that is there has all tables and all runs of the file, and there are any runs."""
        if not {table.name for table in self._held.tables} <= set(self._target.find_objects() or ()):
            return False
        runs = SourceTable("runs", ("run_id",), 0)
        try:
            counted = self._connection.execute(
                f"SELECT count(*), count(there.run_id) FROM {self._origin(runs)} AS here "
                f"LEFT JOIN {self._target.table('runs')} AS there ON there.run_id = here.run_id"
            ).fetchone()
        except duckdb.BinderException:
            return False
        held, found = counted or (0, 0)
        return bool(0 < held == found)

    def _each(self, doing: str, do: Callable[[SourceTable], None]) -> None:
        for table in self._held.tables:
            self._step(f"{doing} {table.name}", self._done, self._total)
            do(table)
            self._done += table.rows

    def _copy(self, table: SourceTable) -> None:
        columns = ", ".join(map(quote, table.columns))
        self._connection.execute(
            f"INSERT INTO {self._target.table(table.name)} ({columns}) SELECT {columns} FROM {self._origin(table)}"
        )

    def _compare(self, table: SourceTable) -> None:
        """Raises WarehouseError unless both hold the same rows, each as often; the order does not count."""
        expected, found = (
            self._summarize(where, table) for where in (self._origin(table), self._target.table(table.name))
        )
        if expected != found:
            raise WarehouseError(
                f"The table {table.name} came out different in {self._location}: {expected[0]:,} rows in the file, "
                f"{found[0]:,} there, or other values. A trigger or a rule of the database may change rows. Nothing "
                "was changed there, and the file is as it was."
            )

    def _summarize(self, where: str, table: SourceTable) -> tuple[int, int, int]:
        """The number of rows, and two sums of hashes over whole rows, which take no memory."""
        columns = [quote(name) for name in table.columns]
        rows = self._connection.execute(
            f"SELECT count(*), coalesce(sum(hash({', '.join(columns)})), 0), "
            f"coalesce(sum(hash({', '.join(reversed(columns))})), 0) FROM {where}"
        ).fetchall()
        [(count, forwards, backwards)] = rows
        return count, forwards, backwards

    def _origin(self, table: SourceTable) -> str:
        if table.name == STATE_TABLE:
            return f"temp.{_MOVED_STATE}"
        return f"{ALIAS}.{quote(self._dataset)}.{quote(table.name)}"

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except duckdb.Error as error:
            raise WarehouseError(
                f"The commit in {self._location} was not confirmed: {redact(describe_reason(error))}. Either all of "
                "the dataset is there or nothing. Run again: a move into a dataset that is there is refused. The "
                "file is as it was."
            ) from error

    def _roll_back(self) -> None:
        try:
            self._connection.rollback()
        except duckdb.Error:
            # the connection is lost, and with it the transaction
            return


def _rename_state(connection: duckdb.DuckDBPyConnection, dataset: str, pipelines: dict[str, dlt.Pipeline]) -> None:
    """dlt's state of each pipeline, as it is under the name that the pipeline has in the target.

    That is how the next load there finds the schema; states of other pipelines stay as they are.
    """
    connection.execute(f"CREATE TEMP TABLE {_MOVED_STATE} AS SELECT * FROM {ALIAS}.{quote(dataset)}.{STATE_TABLE}")
    for name, pipeline in pipelines.items():
        rows = connection.execute(
            f"SELECT _dlt_id, state FROM temp.{_MOVED_STATE} WHERE pipeline_name = ?", [name]
        ).fetchall()
        for id_, text in rows:
            state: Any = decompress_state(text)
            state |= {
                "pipeline_name": pipeline.pipeline_name,
                "destination_type": pipeline.destination.destination_type,
            }
            state["_version_hash"] = generate_pipeline_state_version_hash(state)
            connection.execute(
                f"UPDATE temp.{_MOVED_STATE} SET pipeline_name = ?, state = ?, version_hash = ? WHERE _dlt_id = ?",
                [pipeline.pipeline_name, compress_state(state), state["_version_hash"], id_],
            )


@contextmanager
def _explained(location: str) -> Iterator[list[str | None]]:
    """What the databases raise, in our words. Secrets that are put into the list are not shown."""
    secrets: list[str | None] = []
    try:
        yield secrets
    except (duckdb.Error, DestinationException) as error:
        # DuckDB puts the statement first
        said = _SERVER_ERROR.search(str(error))
        reason = said[1] if said else describe_reason(error)
        for secret in secrets:
            reason = reason.replace(secret, "...") if secret else reason
        raise WarehouseError(
            f"The move to {location} did not work: {redact(reason)}. Nothing was changed there, and the file is as "
            "it was. Correct what it names, such as the permissions of the user, then run again."
        ) from error


def _name_some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
