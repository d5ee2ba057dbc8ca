"""The scope list of one run, as Parquet files: merged, joined with what the warehouse knew, read in chunks.

DuckDB does the merging, joining and sorting and spills to disk, so that memory does not grow with the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from cockpit_source.errors import ScopeListError
from cockpit_source.scopes import ListedScope, PriorState, Scope, scope_key

_CHUNK_ROWS = 5_000
_MEMORY_LIMIT = "256MB"

_GIVEN_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("scope_key", "customer_id", "provider_instance_id", "reseller_id")]
)
PRIOR_SCHEMA = pa.schema(
    [
        ("scope_key", pa.string()),
        ("customer_id", pa.string()),
        ("provider_instance_id", pa.string()),
        ("reseller_id", pa.string()),
        ("first_seen_at", pa.timestamp("us", tz="UTC")),
        ("last_listed_run_id", pa.string()),
        ("last_run_id", pa.string()),
        ("last_outcome", pa.string()),
        ("last_good_run_id", pa.string()),
        ("last_good_at", pa.timestamp("us", tz="UTC")),
        ("failing_runs", pa.int64()),
        ("delisted_at", pa.timestamp("us", tz="UTC")),
    ]
)
_PRIOR_COLUMNS = PriorState._fields


@dataclass(frozen=True, slots=True)
class ScopeList:
    """A written scope list. `total` counts scopes after merging, `listed` the lines before.

    `scopes_hash` depends on the set of scopes only, not on their order.
    """

    folder: Path
    total: int
    listed: int
    scopes_hash: str

    @property
    def path(self) -> Path:
        return self.folder / "scopes.parquet"

    @property
    def unlisted_path(self) -> Path:
        """Scopes that the warehouse knows, that are not delisted yet and that are not in the list."""
        return self.folder / "unlisted.parquet"

    def iter_scopes(self, read_already: Sequence[Path] = ()) -> Iterator[ListedScope]:
        """The scopes in the order of the list, without those that the spool batches `read_already` hold."""
        with _connect(self.folder) as connection:
            condition = "true"
            if read_already:
                files = ", ".join(_quote(path) for path in read_already)
                condition = f"scope_key NOT IN (SELECT scope_key FROM read_parquet([{files}]))"
            cursor = connection.execute(
                f"SELECT scope_key, customer_id, provider_instance_id, reseller_id, {', '.join(_PRIOR_COLUMNS)} "
                f"FROM read_parquet({_quote(self.path)}) WHERE {condition} ORDER BY position"
            )
            for batch in cursor.to_arrow_reader(_CHUNK_ROWS):
                for key, customer, instance, reseller, *prior in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    yield ListedScope(key, Scope(customer, instance, reseller), PriorState(*prior))


def write_scope_list(
    folder: Path, tenant_key: str, scopes: Iterable[Scope], prior: Iterable[pa.Table] = ()
) -> ScopeList:
    """Merge `scopes`, join them with `prior` (tables of `PRIOR_SCHEMA`) and write both results into `folder`.

    Raises:
        ScopeListError: the list is empty, or `scopes` raised it for its wrong lines.
    """
    with _connect(folder) as connection:
        _create_table(connection, "given", _GIVEN_SCHEMA)
        listed = _insert_scopes(connection, tenant_key, scopes)
        if not listed:
            raise ScopeListError(
                "The scope list is empty; nothing was loaded and nothing was changed. "
                "Check the list, file or query that it comes from."
            )
        _create_table(connection, "prior", PRIOR_SCHEMA)
        for table in prior:
            _insert_table(connection, "prior", table.select(PRIOR_SCHEMA.names).cast(PRIOR_SCHEMA))
        prior_columns = ", ".join(
            "coalesce(failing_runs, 0) AS failing_runs" if name == "failing_runs" else name for name in _PRIOR_COLUMNS
        )
        scope_list = ScopeList(folder, 0, listed, "")
        connection.execute(
            f"""COPY (
                SELECT m.*, {prior_columns} FROM (
                    SELECT min(position) AS position, * EXCLUDE position FROM given GROUP BY ALL
                ) m LEFT JOIN prior USING (scope_key) ORDER BY position
            ) TO {_quote(scope_list.path)} (FORMAT parquet)"""
        )
        connection.execute(
            f"""COPY (
                SELECT * FROM prior WHERE delisted_at IS NULL AND scope_key NOT IN (SELECT scope_key FROM given)
                ORDER BY scope_key
            ) TO {_quote(scope_list.unlisted_path)} (FORMAT parquet)"""
        )
        total, digest = _hash_keys(connection, scope_list.path)
        return ScopeList(folder, total, listed, digest)


def _connect(folder: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "memory_limit": _MEMORY_LIMIT,
            "threads": 1,
            "temp_directory": str(folder / "sort"),
        }
    )


def _quote(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    connection.register("empty", schema.empty_table())
    position = "nextval('positions') AS position, " if name == "given" else ""
    if position:
        connection.execute("CREATE SEQUENCE positions")
    connection.execute(f"CREATE TABLE {name} AS SELECT {position}* FROM empty")
    connection.unregister("empty")


def _insert_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("chunk", table)
    position = "nextval('positions'), " if name == "given" else ""
    connection.execute(f"INSERT INTO {name} SELECT {position}* FROM chunk")
    connection.unregister("chunk")


def _insert_scopes(connection: duckdb.DuckDBPyConnection, tenant_key: str, scopes: Iterable[Scope]) -> int:
    listed = 0
    remaining = iter(scopes)
    while chunk := list(islice(remaining, _CHUNK_ROWS)):
        listed += len(chunk)
        columns = [[scope_key(tenant_key, scope) for scope in chunk], *map(list, zip(*chunk, strict=True))]
        _insert_table(connection, "given", pa.table(columns, schema=_GIVEN_SCHEMA))
    return listed


def _hash_keys(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    total = 0
    cursor = connection.execute(f"SELECT scope_key FROM read_parquet({_quote(path)}) ORDER BY scope_key")
    while rows := cursor.fetchmany(_CHUNK_ROWS):
        total += len(rows)
        for (key,) in rows:
            digest.update(f"{key}\n".encode())
    return total, digest.hexdigest()[:16]
