"""`cockpit maintain`: what a warehouse needs now and then, beside loads and readers.

Of a DuckLake, small files are merged, old snapshots forgotten and files that no snapshot needs deleted. PostgreSQL
and DuckDB see to themselves; of the one the statistics are made anew, of the other the log is written into the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt

from cockpit_source.dlt_options import loading
from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.lake import one_committer
from cockpit_source.runner_lock import one_runner
from cockpit_source.warehouse import DatasetClient, Warehouse, database_file

KEEP_DAYS = 7
# a write that goes on has not told the catalogue of its files yet
ORPHANED_AFTER = timedelta(days=1)
# a file that lost so large a part of its rows is written anew
DELETED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class LakeSize:
    """Files and bytes of what the tables hold now, files of all snapshots that are kept, and how many these are."""

    files: int
    bytes: int
    files_kept: int
    snapshots: int


@dataclass(frozen=True, slots=True)
class TableSize:
    """Rows and bytes of a table in PostgreSQL, by its own estimate; `dead_rows` wait for autovacuum."""

    name: str
    rows: int
    dead_rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What was done. `kind` is the destination; the other fields are those of its kind, else None or empty.

    A lake: `before` and `after`; `done`, how many files or snapshots each step replaced or removed; `waiting`, files
    that are to be deleted once nobody can read them any more; `orphans`, files that the catalogue does not know.
    PostgreSQL: `tables`; `done`, how many of them were analyzed. DuckDB: `bytes_before` and `bytes_after` of file and
    log.
    """

    kind: str
    location: str
    before: LakeSize | None = None
    after: LakeSize | None = None
    done: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    orphans: int = 0
    tables: tuple[TableSize, ...] = ()
    bytes_before: int | None = None
    bytes_after: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return asdict(self)


def maintain(
    pipeline: dlt.Pipeline,
    *,
    keep_days: float = KEEP_DAYS,
    delete_orphans: bool = False,
    orphaned_after: timedelta = ORPHANED_AFTER,
) -> Maintenance:
    """Maintain the warehouse of `pipeline`.

    Of a lake, snapshots older than `keep_days` are forgotten, and files deleted that were replaced or forgotten so
    long ago: whoever began to read since then is not disturbed. `delete_orphans` deletes also files older than
    `orphaned_after` that the catalogue does not know. Each step is whole or not done, and takes its turn with loads;
    a run that was killed is made good by the next.

    Raises:
        ConfigurationError: there is nothing to maintain in such a destination.
        WarehouseError: nothing was ever loaded, or the warehouse cannot be used.
        WarehouseBusy: on DuckDB, a load is running, or another program holds the file.
    """
    kind = str(pipeline.destination.destination_name)
    if kind == "ducklake":
        with loading(pipeline):
            lake = _Lake(pipeline, timedelta(days=keep_days), orphaned_after)
            return lake.maintain(delete_orphans=delete_orphans)
    if kind == "postgres":
        return _analyze(pipeline)
    if kind == "duckdb":
        return _checkpoint(pipeline)
    raise ConfigurationError(
        f"`cockpit maintain` knows ducklake, postgres and duckdb, not {kind!r}: see the manual of your warehouse."
    )


class _Lake:
    """A DuckLake. Every step has its own connection and its own turn among those that commit."""

    def __init__(self, pipeline: dlt.Pipeline, keep: timedelta, orphaned_after: timedelta) -> None:
        self._pipeline = pipeline
        self._warehouse = Warehouse(pipeline)
        credentials: Any = pipeline.destination_client().config.credentials
        self._name = str(credentials.ducklake_name)
        is_file = credentials.catalog.drivername in ("sqlite", "duckdb")
        self._metadata_schema = "main" if is_file else credentials.metadata_schema or self._name
        self._quoted = "'" + self._name.replace("'", "''") + "'"
        self._keep = keep
        self._orphaned_after = orphaned_after

    def maintain(self, *, delete_orphans: bool) -> Maintenance:
        before = self._measure()
        done = {
            "rows flushed": sum(int(row["rows_flushed"]) for row in self._call("ducklake_flush_inlined_data")),
            "files rewritten": self._for_each_table(
                "ducklake_rewrite_data_files", f"delete_threshold => {DELETED_SHARE}"
            ),
            "files merged": self._for_each_table("ducklake_merge_adjacent_files"),
            "snapshots expired": len(self._call("ducklake_expire_snapshots", _older_than(self._keep))),
            "files deleted": len(self._call("ducklake_cleanup_old_files", _older_than(self._keep))),
        }
        dry_run = f"dry_run => {not delete_orphans}"
        orphans = len(self._call("ducklake_delete_orphaned_files", dry_run, _older_than(self._orphaned_after)))
        if delete_orphans:
            done["orphans deleted"], orphans = orphans, 0
        waiting = len(self._call("ducklake_cleanup_old_files", "dry_run => true", "cleanup_all => true"))
        return Maintenance(
            "ducklake", self._warehouse.location, before, self._measure(), done, waiting=waiting, orphans=orphans
        )

    def _for_each_table(self, function: str, *options: str) -> int:
        """Call it for every table of several files, so that loads get their turn in between; the files replaced."""
        total = 0
        for schema, table in self._tables():
            names = f"'{table}'", f"schema => '{schema}'"
            total += sum(int(row["files_processed"]) for row in self._call(function, *names, *options))
        return total

    def _tables(self) -> list[tuple[str, str]]:
        """Schema and name of the tables of the lake that have more than one file, also in the schemas of dlt."""
        sql = f"""SELECT schema_name, table_name FROM duckdb_tables()
            WHERE database_name = %s AND table_name IN (
                SELECT table_name FROM ducklake_table_info({self._quoted}) WHERE file_count + delete_file_count > 1
            ) ORDER BY ALL"""
        with self._opened() as client:
            return [(row["schema_name"], row["table_name"]) for row in client.rows(sql, self._name)]

    def _call(self, function: str, *options: str) -> list[dict[str, Any]]:
        with one_committer(self._pipeline), self._opened() as client:
            return client.rows(f"CALL {function}({', '.join((self._quoted, *options))})")

    def _measure(self) -> LakeSize:
        place = f'"__ducklake_metadata_{self._name}"."{self._metadata_schema}"'
        with self._opened() as client:
            (now,) = client.rows(
                f"""SELECT coalesce(sum(file_count + delete_file_count), 0)::BIGINT AS files,
                    coalesce(sum(file_size_bytes + delete_file_size_bytes), 0)::BIGINT AS bytes
                FROM ducklake_table_info({self._quoted})"""
            )
            (kept,) = client.rows(f"SELECT count(*) AS snapshots FROM ducklake_snapshots({self._quoted})")
            (files,) = client.rows(
                f"SELECT (SELECT count(*) FROM {place}.ducklake_data_file) "
                f"+ (SELECT count(*) FROM {place}.ducklake_delete_file) AS files_kept"
            )
        return LakeSize(int(now["files"]), int(now["bytes"]), int(files["files_kept"]), int(kept["snapshots"]))

    @contextmanager
    def _opened(self) -> Iterator[DatasetClient]:
        with _opened(self._warehouse) as client:
            yield client


def _older_than(age: timedelta) -> str:
    return f"older_than => TIMESTAMPTZ '{(datetime.now(UTC) - age).isoformat()}'"


def _analyze(pipeline: dlt.Pipeline) -> Maintenance:
    warehouse = Warehouse(pipeline)
    with _opened(warehouse) as client:
        # of a table that belongs to another role PostgreSQL only warns
        foreign = client.rows(
            """SELECT tablename AS name, tableowner AS owner FROM pg_tables
            WHERE schemaname = %s AND NOT pg_has_role(tableowner, 'USAGE') ORDER BY 1""",
            warehouse.dataset,
        )
        if foreign:
            owner = foreign[0]["owner"]
            raise WarehouseError(
                f"ANALYZE is for the role that owns the tables: {foreign[0]['name']} in {warehouse.location} belongs "
                f"to {owner}. Run `cockpit maintain` as {owner}. Nothing was done."
            )
        rows = client.rows(
            """SELECT relname AS name, n_live_tup AS rows, n_dead_tup AS dead_rows,
                pg_total_relation_size(relid) AS bytes
            FROM pg_stat_user_tables WHERE schemaname = %s ORDER BY relname""",
            warehouse.dataset,
        )
        sizes = tuple(TableSize(**row) for row in rows)
        for size in sizes:
            client.execute(f"ANALYZE {{{size.name}}}")
    return Maintenance("postgres", warehouse.location, done={"tables analyzed": len(sizes)}, tables=sizes)


def _checkpoint(pipeline: dlt.Pipeline) -> Maintenance:
    warehouse = Warehouse(pipeline)
    database = database_file(pipeline)
    with one_runner(pipeline):
        before = _size_of(database)
        with _opened(warehouse) as client:
            client.execute("CHECKPOINT")
        return Maintenance("duckdb", warehouse.location, bytes_before=before, bytes_after=_size_of(database))


def _size_of(database: Path | None) -> int:
    """Bytes of the file and of the log beside it."""
    paths = [] if database is None else [database, database.with_name(f"{database.name}.wal")]
    return sum(path.stat().st_size for path in paths if path.exists())


@contextmanager
def _opened(warehouse: Warehouse) -> Iterator[DatasetClient]:
    with warehouse.opened(read_only=False) as client:
        if client is None or not client.has_table("runs"):
            raise WarehouseError(
                f"There are no tables yet in dataset {warehouse.dataset} of {warehouse.location}: there is nothing "
                "to maintain. Run `cockpit load` first."
            )
        yield client
