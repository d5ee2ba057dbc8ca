"""The scope list of one run, as Parquet files: merged, joined with what the warehouse knew, read in chunks.

DuckDB does the merging, joining and sorting and spills to disk, so that memory does not grow with the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cockpit_source.errors import EmptyScopeList
from cockpit_source.scopes import ListedScope, PriorState, Scope, scope_key
from cockpit_source.scratch import connect_scratch, create_table, insert_rows, quote_path

_CHUNK_ROWS = 5_000

_GIVEN_SCHEMA = pa.schema(
    [
        ("scope_key", pa.string()),
        ("customer_id", pa.string()),
        ("provider_instance_id", pa.string()),
        ("reseller_id", pa.string()),
        ("position", pa.int64()),
    ]
)
GDAP_SCHEMA = pa.schema(
    [("customer_id", pa.string()), ("provider_instance_id", pa.string()), ("is_active", pa.bool_())]
)
# rows of `licenses` by scope
HELD_SCHEMA = pa.schema([("scope_key", pa.string()), ("held_licenses", pa.int64())])
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

    @property
    def covered_path(self) -> Path:
        """Scopes of the list that shards have read already; there only for the run that ends shards."""
        return self.folder / "covered.parquet"

    def count_holding(self) -> int:
        """Scopes of the list that held licences when the run began."""
        return _count_holding(self.path)

    def count_unlisted_holding(self) -> int:
        """The same of the scopes in `unlisted_path`."""
        return _count_holding(self.unlisted_path)

    def iter_scopes(self, read_already: Sequence[Path] = ()) -> Iterator[ListedScope]:
        """The scopes in the order of the list, without those that `read_already` or shards have read.

        `read_already` are batches of the spool.
        """
        with connect_scratch(self.folder) as connection:
            condition = "true"
            left_out = [*read_already, *([self.covered_path] if self.covered_path.exists() else [])]
            if left_out:
                files = ", ".join(quote_path(path) for path in left_out)
                condition = f"scope_key NOT IN (SELECT scope_key FROM read_parquet([{files}]))"
            cursor = connection.execute(
                f"SELECT scope_key, customer_id, provider_instance_id, reseller_id, {', '.join(_PRIOR_COLUMNS)} "
                f"FROM read_parquet({quote_path(self.path)}) WHERE {condition} ORDER BY position"
            )
            for batch in cursor.to_arrow_reader(_CHUNK_ROWS):
                for key, customer, instance, reseller, *prior in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    yield ListedScope(key, Scope(customer, instance, reseller), PriorState(*prior))


def write_scope_list(
    folder: Path,
    tenant_key: str,
    scopes: Iterable[Scope],
    prior: Iterable[pa.Table] = (),
    held: Iterable[pa.Table] = (),
    *,
    keep_known: bool = False,
    gdap_pairs: Path | None = None,
) -> ScopeList:
    """Merge `scopes`, join them with what the warehouse knows of them, and write both results into `folder`.

    `prior` and `held` are tables of `PRIOR_SCHEMA` and `HELD_SCHEMA`. `keep_known` adds the scopes that are in
    `prior` and not delisted, for a listing that is not complete. `gdap_pairs` is a Parquet file of `GDAP_SCHEMA`.

    Raises:
        EmptyScopeList: there is not one.
        ScopeListError: `scopes` raised it for its wrong lines.
    """
    with connect_scratch(folder) as connection:
        create_table(connection, "given", _GIVEN_SCHEMA)
        listed = _insert_scopes(connection, tenant_key, scopes)
        create_table(connection, "prior", PRIOR_SCHEMA)
        for table in prior:
            insert_rows(connection, "prior", table.select(PRIOR_SCHEMA.names).cast(PRIOR_SCHEMA))
        create_table(connection, "held", HELD_SCHEMA)
        for table in held:
            insert_rows(connection, "held", table.select(HELD_SCHEMA.names).cast(HELD_SCHEMA))
        if keep_known:
            listed += _insert_known(connection, listed)
        if not listed:
            raise EmptyScopeList(
                "The scope list is empty; nothing was loaded and nothing was changed. "
                "Check the list, file or query that it comes from."
            )
        create_table(connection, "gdap", GDAP_SCHEMA)
        if gdap_pairs is not None:
            connection.execute(f"INSERT INTO gdap BY NAME SELECT * FROM read_parquet({quote_path(gdap_pairs)})")
        return _write_files(connection, ScopeList(folder, 0, listed, ""))


def _write_files(connection: duckdb.DuckDBPyConnection, scope_list: ScopeList) -> ScopeList:
    known = {
        "failing_runs": "coalesce(failing_runs, 0) AS failing_runs",
        "has_active_gdap": "gdap.is_active AS has_active_gdap",
        "held_licenses": "coalesce(held_licenses, 0) AS held_licenses",
    }
    connection.execute(
        f"""COPY (
            SELECT m.*, {", ".join(known.get(name, name) for name in _PRIOR_COLUMNS)} FROM (
                SELECT min(position) AS position, * EXCLUDE position FROM given GROUP BY ALL
            ) m LEFT JOIN prior USING (scope_key) LEFT JOIN held USING (scope_key)
            LEFT JOIN gdap ON gdap.customer_id = m.customer_id
                AND gdap.provider_instance_id = m.provider_instance_id
            ORDER BY position
        ) TO {quote_path(scope_list.path)} (FORMAT parquet)"""
    )
    connection.execute(
        f"""COPY (
            SELECT prior.*, {known["held_licenses"]} FROM prior LEFT JOIN held USING (scope_key)
            WHERE delisted_at IS NULL AND scope_key NOT IN (SELECT scope_key FROM given)
            ORDER BY scope_key
        ) TO {quote_path(scope_list.unlisted_path)} (FORMAT parquet)"""
    )
    total, digest = _hash_keys(connection, scope_list.path)
    return replace(scope_list, total=total, scopes_hash=digest)


def _count_holding(path: Path) -> int:
    held = pq.read_table(path, columns=["held_licenses"])["held_licenses"]
    return int(pc.sum(pc.greater(held, 0)).as_py() or 0)


def _insert_known(connection: duckdb.DuckDBPyConnection, listed: int) -> int:
    connection.execute(
        f"""INSERT INTO given BY NAME
            SELECT scope_key, customer_id, provider_instance_id, reseller_id,
                {listed} + row_number() OVER (ORDER BY scope_key) AS position
            FROM prior WHERE delisted_at IS NULL AND scope_key NOT IN (SELECT scope_key FROM given)"""
    )
    row = connection.execute(f"SELECT count(*) FROM given WHERE position > {listed}").fetchone()
    return int(row[0]) if row else 0


def _insert_scopes(connection: duckdb.DuckDBPyConnection, tenant_key: str, scopes: Iterable[Scope]) -> int:
    listed = 0
    remaining = iter(scopes)
    while chunk := list(islice(remaining, _CHUNK_ROWS)):
        listed += len(chunk)
        columns = [[scope_key(tenant_key, scope) for scope in chunk], *map(list, zip(*chunk, strict=True))]
        positions = pa.array(range(listed - len(chunk), listed), pa.int64())
        insert_rows(connection, "given", pa.table([*columns, positions], schema=_GIVEN_SCHEMA))
    return listed


def _hash_keys(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    total = 0
    cursor = connection.execute(f"SELECT scope_key FROM read_parquet({quote_path(path)}) ORDER BY scope_key")
    while rows := cursor.fetchmany(_CHUNK_ROWS):
        total += len(rows)
        for (key,) in rows:
            digest.update(f"{key}\n".encode())
    return total, digest.hexdigest()[:16]
