"""What discovery has read so far, in DuckDB with a bounded memory that spills to disk, and the rows made of it.

A listing may be read several times, because rows can move from page to page meanwhile; each reading is a *walk*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cockpit_source.scope_list import GDAP_SCHEMA
from cockpit_source.scopes import Scope
from cockpit_source.scratch import connect_scratch, create_table, insert_rows, quote_path
from cockpit_source.tables import CONTACT_COLUMNS, LISTED_TABLES, LOAD_ID, Table

_CHUNK_ROWS = 5_000
_FROM_RUN = ("tenant", "run_id", LOAD_ID, "first_seen_at", "removed_at")
_FOUND_SCHEMA = pa.schema(
    [
        ("customer_id", pa.string()),
        ("provider_instance_id", pa.string()),
        ("reseller_id", pa.string()),
        ("walk", pa.int64()),
    ]
)


class ListingStore:
    """Rows of the listed tables by walk, and the scopes that the customers make; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._connection = connect_scratch(folder)
        for table in LISTED_TABLES:
            create_table(self._connection, table.name, _stored_schema(table))
        create_table(self._connection, "found_scopes", _FOUND_SCHEMA)
        create_table(self._connection, "gdap_pairs", GDAP_SCHEMA)

    def __enter__(self) -> ListingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, table: Table, rows: Sequence[Mapping[str, Any]], walk: int = 0) -> None:
        """Rows of one page."""
        schema = _stored_schema(table)
        insert_rows(
            self._connection, table.name, pa.Table.from_pylist([{**row, "walk": walk} for row in rows], schema)
        )

    def add_scopes(self, scopes: Iterable[Scope], walk: int) -> None:
        """The scopes of the customers of one page."""
        insert_rows(
            self._connection,
            "found_scopes",
            pa.Table.from_pylist([s._asdict() | {"walk": walk} for s in scopes], _FOUND_SCHEMA),
        )

    def add_gdap_pairs(self, pairs: Iterable[tuple[str, str, bool | None]]) -> None:
        """Customers and provider instances whose GDAP relationships were all read, and whether one is active."""
        columns = list(zip(*pairs, strict=True)) or [()] * len(GDAP_SCHEMA)
        insert_rows(self._connection, "gdap_pairs", pa.table(list(map(list, columns)), schema=GDAP_SCHEMA))

    def count(self, table: Table, walk: int) -> int:
        """Different ids of one walk."""
        return self._number(f"SELECT count(DISTINCT id) FROM {table.name} WHERE walk = {walk}")

    def is_same(self, table: Table, walk: int, other: int) -> bool:
        """Whether two walks saw the same ids."""
        first, second = (f"SELECT id FROM {table.name} WHERE walk = {number}" for number in (walk, other))
        return not self._number(
            f"SELECT count(*) FROM (({first} EXCEPT {second}) UNION ALL ({second} EXCEPT {first}))"
        )

    def forget_before(self, table: Table, walk: int) -> None:
        """Drop the walks before `walk`, because that one is known to be complete."""
        for name in (table.name, *(("found_scopes",) if table.name == "customers" else ())):
            self._connection.execute(f"DELETE FROM {name} WHERE walk < {walk}")

    def keep_latest(self, table: Table) -> None:
        """Keep one row per id, that of the last walk that saw it; of customers their scopes too."""
        key = ", ".join(table.key[1:])
        self._connection.execute(
            f"CREATE OR REPLACE TABLE {table.name} AS SELECT * FROM {table.name} "
            f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY walk DESC) = 1"
        )
        if table.name == "customers":
            self._connection.execute(
                "DELETE FROM found_scopes f WHERE NOT EXISTS "
                "(SELECT 1 FROM customers c WHERE c.id = f.customer_id AND c.walk = f.walk)"
            )

    def excluded_instances(self) -> list[tuple[str, str]]:
        """Id and alias of the provider instances that are told not to be Microsoft's, if one is told to be."""
        return self._connection.execute(
            "SELECT id, coalesce(alias, id) FROM provider_instances WHERE is_microsoft = false "
            "AND EXISTS (SELECT 1 FROM provider_instances WHERE is_microsoft) ORDER BY ALL"
        ).fetchall()

    def leave_out(self, excluded_instances: Sequence[str]) -> tuple[int, int]:
        """Drop the scopes of deleted customers and of these instances; how many customers and scopes that were."""
        deleted = self._number("SELECT count(*) FROM customers WHERE is_deleted")
        self._connection.execute(
            "DELETE FROM found_scopes WHERE customer_id IN (SELECT id FROM customers WHERE is_deleted)"
        )
        before = self.scope_count()
        self._connection.execute(
            "DELETE FROM found_scopes WHERE list_contains(?, provider_instance_id)", (list(excluded_instances),)
        )
        return deleted, before - self.scope_count()

    def scope_count(self) -> int:
        """Different scopes found so far."""
        return self._number("SELECT count(*) FROM (SELECT DISTINCT * EXCLUDE walk FROM found_scopes)")

    def customer_count(self) -> int:
        """Customers kept, deleted ones left out."""
        return self._number("SELECT count(*) FROM customers WHERE NOT is_deleted")

    def iter_scopes(self) -> Iterator[Scope]:
        """The scopes found, in the order of the listing."""
        for row in self._iter_rows(
            "SELECT customer_id, provider_instance_id, reseller_id FROM found_scopes GROUP BY ALL ORDER BY min(rowid)"
        ):
            yield Scope(*row)

    def iter_pairs(self) -> Iterator[tuple[str, str]]:
        """Customer and provider instance of every scope, each pair once."""
        yield from self._iter_rows("SELECT DISTINCT customer_id, provider_instance_id FROM found_scopes ORDER BY ALL")

    def write_gdap_pairs(self, path: Path) -> None:
        """Every pair whose relationships were read, with `is_active`, as Parquet."""
        self._copy("SELECT * FROM gdap_pairs", path)

    def write(
        self,
        table: Table,
        path: Path,
        prior: Iterable[pa.Table],
        moment: datetime,
        *,
        is_complete: bool,
        contact_data: bool,
    ) -> None:
        """Rows to merge into `table`, as Parquet: what was listed, and what vanished with `removed_at`.

        `prior` is what the warehouse holds. Nothing is taken as vanished unless the listing `is_complete`; GDAP
        relationships only of pairs that were read.
        """
        create_table(self._connection, "prior", _prior_schema(table))
        for chunk in prior:
            insert_rows(
                self._connection, "prior", chunk.select(_prior_schema(table).names).cast(_prior_schema(table))
            )
        key = table.key[1:]
        kept = {
            c.name: "NULL" if c.name in CONTACT_COLUMNS and not contact_data else f"p.{c.name}" for c in _own(table)
        }
        vanished = "EXISTS (SELECT 1 FROM gdap_pairs g WHERE g.customer_id = p.customer_id AND "
        vanished += "g.provider_instance_id = p.provider_instance_id)"
        if table.name != "gdap_relationships":
            vanished = str(is_complete).lower()
        listed = ", ".join(f"l.{column.name}" for column in _own(table))
        time = f"TIMESTAMPTZ '{moment.isoformat()}'"
        self._copy(
            f"SELECT {listed}, coalesce(p.first_seen_at, {time}) AS first_seen_at, "
            f"CASE WHEN l.is_deleted THEN coalesce(p.removed_at, {time}) END AS removed_at "
            f"FROM {table.name} l LEFT JOIN prior p USING ({', '.join(key)}) UNION ALL BY NAME "
            f"SELECT {', '.join(f'{value} AS {name}' for name, value in kept.items())}, p.first_seen_at, "
            f"{time} AS removed_at FROM prior p ANTI JOIN {table.name} l USING ({', '.join(key)}) "
            f"WHERE p.removed_at IS NULL AND {vanished}",
            path,
        )
        self._connection.execute("DROP TABLE prior")

    def _copy(self, sql: str, path: Path) -> None:
        self._connection.execute(f"COPY ({sql}) TO {quote_path(path)} (FORMAT parquet)")

    def _number(self, sql: str) -> int:
        row = self._connection.execute(sql).fetchone()
        return int(row[0]) if row else 0

    def _iter_rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        cursor = self._connection.cursor().execute(sql)
        while rows := cursor.fetchmany(_CHUNK_ROWS):
            yield from rows


def _own(table: Table) -> list[Any]:
    return [column for column in table.columns if column.name not in _FROM_RUN]


def _stored_schema(table: Table) -> pa.Schema:
    columns = [(column.name, column.type) for column in _own(table)]
    return pa.schema([*columns, ("is_deleted", pa.bool_()), ("walk", pa.int64())])


def _prior_schema(table: Table) -> pa.Schema:
    names = {column.name: column.type for column in table.columns if column.name not in ("tenant", "run_id", LOAD_ID)}
    return pa.schema(list(names.items()))


def prior_columns(table: Table) -> list[str]:
    """The columns of `table` that `ListingStore.write` wants of what the warehouse holds."""
    return [field.name for field in _prior_schema(table)]


def read_listed(folder: Path) -> dict[str, pa.Table]:
    """The rows to merge that discovery wrote into `folder`, by table; none of another scope list."""
    paths = {table.name: folder / f"{table.name}.parquet" for table in LISTED_TABLES}
    return {name: pq.read_table(path) for name, path in paths.items() if path.exists()}
