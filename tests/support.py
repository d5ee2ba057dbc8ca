"""What the tests share: an inventory to load into, tables as plain rows, and the model that they must equal."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import dlt
import duckdb

from cockpit_source.configuration import resolve_settings
from cockpit_source.load import run_load
from cockpit_source.load_result import LoadResult
from cockpit_source.pipeline import create_pipeline
from cockpit_source.sandbox import CSP_CLIENT, TOKEN_SCOPE, Sandbox
from cockpit_source.warehouse import Warehouse

FIRST_DAY = datetime(2026, 1, 1, 6, tzinfo=UTC)

ScopeIds = tuple[str, str, str | None]
Row = dict[str, Any]

# columns that differ between two runs with the same answers
_PER_RUN = {"run_id", "observed_at", "_dlt_load_id", "last_run_id", "last_listed_run_id", "last_good_run_id"}


def day(number: int) -> datetime:
    """The moment of simulated day `number`."""
    return FIRST_DAY + timedelta(days=number)


def new_id(number: int) -> str:
    """A UUID that is the same in every test."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"test {number}"))


INSTANCE = new_id(0)


def sku(sku_id: str, total: Any = 10, consumed: Any = 4, **others: Any) -> Row:
    """A row as the API answers it."""
    row = {
        "skuId": sku_id,
        "name": f"Product {sku_id}",
        "totalLicenses": total,
        "consumedLicenses": consumed,
        "availableLicenses": total - consumed if isinstance(total, int) and isinstance(consumed, int) else 0,
        "suspendedLicenses": 0,
        "isSelected": False,
    }
    return row | others


class Inventory:
    """A warehouse and the pipeline that loads it from a sandbox: a DuckDB file, or what dlt's configuration names.

    `database` is the DuckDB file; for other destinations only its folder counts, where the working files lie.
    """

    def __init__(self, sandbox: Sandbox, database: Path, *, destination: str = "duckdb", **settings: Any) -> None:
        self.sandbox = sandbox
        self.database = database
        self.destination = destination
        self.settings: dict[str, Any] = {"max_attempts": 1, "timeout_seconds": 5, "max_concurrency": 8} | settings

    @property
    def tenant_key(self) -> str:
        return str(self.settings.get("tenant_key", self.sandbox.tenant.domain))

    def pipeline(self) -> dlt.Pipeline:
        return create_pipeline(
            self.tenant_key,
            destination=self.destination,
            database=self.database if self.destination == "duckdb" else None,
            pipelines_dir=self.database.parent / "work" / "pipelines",
        )

    def resolve(self, listed: Iterable[ScopeIds], **settings: Any) -> Any:
        tables = [
            {"customer_id": customer, "provider_instance_id": instance, "reseller_id": reseller}
            for customer, instance, reseller in listed
        ]
        return resolve_settings(**(self.connection() | self.settings | {"scopes": tables} | settings))

    def connection(self) -> dict[str, Any]:
        return {
            "tenant": self.sandbox.tenant.domain,
            "base_url": self.sandbox.base_url,
            "token_url": self.sandbox.token_url,
            "token_scope": TOKEN_SCOPE,
            "client_id": CSP_CLIENT.id,
            "client_secret": CSP_CLIENT.secret,
        }

    def load(self, scopes: Iterable[ScopeIds], moment: datetime | None = None, **options: Any) -> LoadResult:
        """Load `scopes`; `moment` dates the run."""
        settings = options.pop("settings", {})
        return run_load(self.pipeline(), self.resolve(scopes, **settings), as_of=moment, **options)

    def answer(self, customer: str, rows: Sequence[Any] | Any, status: int = 200) -> None:
        """Let the sandbox answer licence calls for `customer` so."""
        # a 204 has no body, and a server that sends one breaks the connection that the next call may use
        self.sandbox.answer(customer, b"" if status == 204 else json.dumps(rows).encode(), status=status)

    def rows(self, table: str, *, per_run: bool = False) -> list[Row]:
        """All rows of a table, sorted, without the columns that differ from run to run unless `per_run`."""
        return read_rows(self, table, per_run=per_run)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database)) as connection:
            return connection.execute(sql).fetchall()


def read_rows(where: Path | Inventory, table: str, *, per_run: bool = False) -> list[Row]:
    """All rows of a table of dataset `cockpit`, sorted."""
    left_out = set() if per_run else _PER_RUN
    rows = [{name: value for name, value in row.items() if name not in left_out} for row in _read_table(where, table)]
    return sorted(rows, key=lambda row: json.dumps(row, default=str, sort_keys=True))


def _read_table(where: Path | Inventory, table: str) -> list[Row]:
    if isinstance(where, Inventory) and where.destination != "duckdb":
        with Warehouse(where.pipeline()).opened(read_only=True) as client:
            assert client is not None
            return client.rows(f"SELECT * FROM {{{table}}}")
    database = where.database if isinstance(where, Inventory) else where
    with duckdb.connect(str(database)) as connection:
        return connection.execute(f"SELECT * FROM cockpit.{table}").to_arrow_table().to_pylist()


def every_table(database: Path | Inventory) -> dict[str, list[Row]]:
    """Whole tables whose content must not change when answers do not; times and ids of runs left out."""
    return {
        "licenses": read_rows(database, "licenses"),
        "license_history": read_rows(database, "license_history"),
    }


@dataclass
class Model:
    """Promise 1 in plain Python: what `licenses`, `license_history` and `scopes` hold after any sequence of runs."""

    tenant_key: str
    licenses: dict[str, list[Row]] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    scopes: dict[str, Row] = field(default_factory=dict)

    def run(
        self,
        run_id: str,
        moment: datetime,
        answers: Mapping[ScopeIds, tuple[str, Sequence[Row]]],
        *,
        full_list: bool = True,
        read_at: Mapping[ScopeIds, datetime] | None = None,
        others: Iterable[ScopeIds] | None = (),
    ) -> None:
        """A run: an outcome and, for ok and empty, the answered rows of every scope of its list.

        `read_at`: when scopes were read, of those that were not read at `moment`, the start of the run. `others`:
        those of the list that it did not read, as shards had done so; None: it is a shard, and delists nothing.
        """
        listed = set(map(self.scope_key, others or ()))
        delists = full_list and others is not None
        for ids, (outcome, rows) in answers.items():
            key = self.scope_key(ids)
            listed.add(key)
            good = outcome in ("ok", "empty")
            observed_at = (read_at or {}).get(ids, moment)
            self._note_scope(key, ids, run_id, observed_at, outcome, good, full_list)
            if good:
                self._sync(key, ids, run_id, observed_at, rows)
        for key, scope in self.scopes.items():
            if delists and key not in listed and scope["delisted_at"] is None:
                scope["delisted_at"] = moment

    def scope_key(self, ids: ScopeIds) -> str:
        return "|".join((self.tenant_key, ids[0], ids[1], ids[2] or "-"))

    def _note_scope(
        self, key: str, ids: ScopeIds, run_id: str, moment: datetime, outcome: str, good: bool, full_list: bool
    ) -> None:
        old = self.scopes.get(key, {})
        self.scopes[key] = {
            **self._scope_columns(key, ids),
            "first_seen_at": old.get("first_seen_at", moment),
            "last_listed_run_id": run_id if full_list else old.get("last_listed_run_id"),
            "last_run_id": run_id,
            "last_outcome": outcome,
            "last_good_run_id": run_id if good else old.get("last_good_run_id"),
            "last_good_at": moment if good else old.get("last_good_at"),
            "failing_runs": 0 if good else old.get("failing_runs", 0) + 1,
            "delisted_at": None if full_list else old.get("delisted_at"),
            "has_active_gdap": None,
        }

    def _scope_columns(self, key: str, ids: ScopeIds) -> Row:
        customer, instance, reseller = ids
        return {
            "tenant": self.tenant_key,
            "scope_key": key,
            "customer_id": customer,
            "provider_instance_id": instance,
            "reseller_id": reseller,
        }

    def _sync(self, key: str, ids: ScopeIds, run_id: str, moment: datetime, rows: Sequence[Row]) -> None:
        columns = self._scope_columns(key, ids)
        versions = [columns | values for values in _number(key, rows)]
        self.licenses[key] = [
            version | {"is_selected": False, "extra": None, "run_id": run_id, "observed_at": moment}
            for version in versions
        ]
        wanted = {version["row_hash"]: version for version in versions}
        for version in self.history:
            if version["scope_key"] == key and version["valid_to"] is None and version["row_hash"] not in wanted:
                version["valid_to"] = moment
        held = {v["row_hash"] for v in self.history if v["scope_key"] == key and v["valid_to"] is None}
        self.history += [
            version | {"valid_from": moment, "valid_to": None}
            for row_hash, version in wanted.items()
            if row_hash not in held
        ]

    def check(self, database: Path | Inventory) -> None:
        """Compare whole tables, column by column."""
        assert _without_load_id(read_rows(database, "licenses", per_run=True)) == _sorted(
            row for rows in self.licenses.values() for row in rows
        )
        assert _without_load_id(read_rows(database, "license_history", per_run=True)) == _sorted(self.history)
        assert _without_load_id(read_rows(database, "scopes", per_run=True)) == _sorted(self.scopes.values())


def _number(key: str, rows: Sequence[Row]) -> list[Row]:
    """Rows of an answer as table columns, duplicates numbered in the order of their values."""
    seen: dict[str, int] = {}
    numbered = []
    for row in sorted(rows, key=lambda row: (row["skuId"], row["totalLicenses"] or 0, row["consumedLicenses"] or 0)):
        occurrence = seen.get(row["skuId"], 0)
        seen[row["skuId"]] = occurrence + 1
        counts = [row[f"{name}Licenses"] for name in ("total", "consumed", "available", "suspended")]
        text = json.dumps(
            [1, key, row["skuId"], occurrence, row["name"], *counts], ensure_ascii=False, separators=(",", ":")
        )
        numbered.append(
            {
                "sku_id": row["skuId"],
                "occurrence": occurrence,
                "sku_name": row["name"],
                "total_licenses": counts[0],
                "consumed_licenses": counts[1],
                "available_licenses": counts[2],
                "suspended_licenses": counts[3],
                "row_hash": blake2b(text.encode(), digest_size=16).hexdigest(),
            }
        )
    return numbered


def _without_load_id(rows: Iterable[Row]) -> list[Row]:
    return _sorted({name: value for name, value in row.items() if name != "_dlt_load_id"} for row in rows)


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(({**row} for row in rows), key=lambda row: json.dumps(row, default=_to_text, sort_keys=True))


def _to_text(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
