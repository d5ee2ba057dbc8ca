"""Small worlds for the marts: runs over a few scopes, and the tables that loads of them leave behind.

The rows of licences, history and scopes are those of `support.Model`, which real loads are held against.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import dlt
import duckdb
from support import Model, Row, ScopeIds

from cockpit_source.marts import MartOptions
from cockpit_source.marts.views import create_marts, mart_dialect
from cockpit_source.scopes import OUTCOMES
from cockpit_source.tables import COUNT, DAY, FLAG, PRICE, REFERENCE_TABLES, TABLES, TEXT, TIME, Table
from cockpit_source.warehouse import DatasetClient, Warehouse, database_file

# of a scope in a run: the rows that were read, or an outcome that is none
Answer = Sequence[Row] | str

HTTP_STATUSES = {"forbidden": 403, "not_found": 404, "invalid": 400, "failed": 500, "deferred": 429}


def at(day: int, hour: float = 6) -> datetime:
    """A moment of January 2026; days go on beyond its end."""
    return datetime.fromtimestamp(datetime(2026, 1, 1, tzinfo=UTC).timestamp() + ((day - 1) * 24 + hour) * 3600, UTC)


def on(day: int) -> date:
    """A day of January 2026; days go on beyond its end."""
    return at(day).date()


@dataclass
class World:
    """What loads of one tenant left in the tables."""

    tenant: str = "t"
    runs: list[Row] = field(default_factory=list)
    scope_runs: list[Row] = field(default_factory=list)
    # rows of the other tables, as they are
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = Model(self.tenant)

    def run(
        self,
        started_at: datetime,
        answers: Mapping[ScopeIds, Answer],
        *,
        full_list: bool = True,
        ends: datetime | None = None,
        status: str | None = None,
        read_at: Mapping[ScopeIds, datetime] | None = None,
    ) -> None:
        """A run that tells `answers`, with rows of `support.sku`; it ends at once unless it `ends` later.

        A run that is `running` has taken no scope off the list yet.
        """
        run_id = f"{self.tenant}-{len(self.runs):03}"
        told = {ids: (answer, []) if isinstance(answer, str) else _read(answer) for ids, answer in answers.items()}
        has_ended = status != "running"
        listed = [key for key, scope in self.model.scopes.items() if scope["delisted_at"] is None]
        self.model.run(run_id, started_at, told, full_list=full_list, read_at=read_at)
        if not has_ended:
            for key in listed:
                self.model.scopes[key]["delisted_at"] = None
        good = sum(outcome in ("ok", "empty") for outcome, _ in told.values())
        self.runs.append(
            {
                "run_id": run_id,
                "tenant": self.tenant,
                "started_at": started_at,
                "finished_at": (ends or started_at) if has_ended else None,
                "status": status or ("complete" if good == len(told) else "partial" if good else "failed"),
                "listing_complete": full_list,
                "scopes_total": len(told),
                **{f"scopes_{name}": sum(name == o for o, _ in told.values()) for name in OUTCOMES},
            }
        )
        for ids, (outcome, rows) in told.items():
            self.scope_runs.append(
                {
                    "run_id": run_id,
                    **_ids(self.model, ids),
                    "outcome": outcome,
                    "http_status": HTTP_STATUSES.get(outcome, 200),
                    "error_type": outcome.title() if outcome in HTTP_STATUSES else None,
                    "error_description": f"it was {outcome}" if outcome in HTTP_STATUSES else None,
                    "attempts": 1,
                    "duration_ms": 1,
                    "license_count": len(rows) if outcome in ("ok", "empty") else None,
                    "observed_at": (read_at or {}).get(ids, started_at),
                }
            )

    def add(self, table: str, **values: Any) -> None:
        """A row of a table that no run fills."""
        self.rows.setdefault(table, []).append({"tenant": self.tenant, **values})

    def price(self, sku_id: str, unit_price: str, currency: str, valid_from: date) -> None:
        self.add(
            "sku_prices", sku_id=sku_id, unit_price=Decimal(unit_price), currency=currency, valid_from=valid_from
        )

    def prune(self) -> None:
        """Leave of `scope_runs` one row a scope and UTC day, as `cockpit prune` does."""
        kept: dict[tuple[str, date], Row] = {}
        for row in sorted(self.scope_runs, key=lambda r: (r["outcome"] in ("ok", "empty"), r["observed_at"])):
            kept[row["scope_key"], row["observed_at"].date()] = row
        pointed_at = {
            (scope[name], key)
            for key, scope in self.model.scopes.items()
            for name in ("last_run_id", "last_good_run_id")
        }
        self.scope_runs = [
            row
            for row in self.scope_runs
            if (row["run_id"], row["scope_key"]) in pointed_at
            or kept[row["scope_key"], row["observed_at"].date()] is row
        ]

    def table(self, name: str) -> list[Row]:
        held: dict[str, Iterable[Row]] = {
            "runs": self.runs,
            "scope_runs": self.scope_runs,
            "scopes": self.model.scopes.values(),
            "licenses": (row for rows in self.model.licenses.values() for row in rows),
            "license_history": self.model.history,
        }
        return [*held.get(name, ()), *self.rows.get(name, ())]


def _read(rows: Sequence[Row]) -> tuple[str, Sequence[Row]]:
    return ("ok" if rows else "empty"), rows


def _ids(model: Model, ids: ScopeIds) -> Row:
    return {
        "tenant": model.tenant_key,
        "scope_key": model.scope_key(ids),
        "customer_id": ids[0],
        "provider_instance_id": ids[1],
        "reseller_id": ids[2],
    }


class Marts:
    """The marts over worlds, in the warehouse of a pipeline."""

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self.pipeline = pipeline
        self.names: tuple[str, ...] = ()

    def build(self, *worlds: World, now: datetime, **options: Any) -> Marts:
        """Fill the tables with the worlds, whatever they held, and create the marts as of `now`."""
        fill(self.pipeline, worlds)
        return self.create(now, **options)

    def create(self, now: datetime, **options: Any) -> Marts:
        options |= {"dialect": mart_dialect(self.pipeline), "as_of": now}
        self.names = create_marts(self.pipeline, MartOptions(**options)).public
        return self

    def query(self, sql: str) -> list[Row]:
        with Warehouse(self.pipeline).opened(read_only=True) as client:
            assert client is not None
            return client.rows(sql)

    def rows(self, mart: str, *columns: str, where: str = "1 = 1") -> list[Any]:
        """Rows of a mart, sorted: as tuples of `columns`, a single one by itself, or as dictionaries without any."""
        found = self.query(f"SELECT * FROM {{{mart}}} WHERE {where}")
        if not columns:
            return in_order(found)
        chosen = [tuple(row[name] for name in columns) for row in found]
        return in_order(row[0] for row in chosen) if len(columns) == 1 else in_order(chosen)


def in_order(rows: Iterable[Any]) -> list[Any]:
    """Sorted, whatever is in the rows."""
    return sorted(rows, key=lambda row: json.dumps(row, default=_to_text, sort_keys=True))


def _to_text(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def fill(pipeline: dlt.Pipeline, worlds: Iterable[World]) -> None:
    """Write every table anew, with the types that loads give them."""
    worlds = list(worlds)
    database = database_file(pipeline)
    if database is not None and not database.exists():
        duckdb.connect(str(database)).close()
    with Warehouse(pipeline).opened(read_only=False) as client:
        assert client is not None
        with client.transaction(keep=True):
            client.execute(f"DROP SCHEMA IF EXISTS {pipeline.dataset_name} CASCADE")
            client.execute(f"CREATE SCHEMA {pipeline.dataset_name}")
            for table in [*TABLES.values(), *REFERENCE_TABLES.values()]:
                _write(client, table, [row for world in worlds for row in world.table(table.name)])


def _write(client: DatasetClient, table: Table, rows: Sequence[Row]) -> None:
    """The rows with every column of the table; what they lack is null, or the plainest value."""
    columns = [*table.columns, *table.versioned_columns]
    typed = ", ".join(f"{column.name} {_SQL_TYPES[column.type]}" for column in columns)
    client.execute(f"CREATE TABLE {{{table.name}}} ({typed})")
    defaults = {column.name: None if column.nullable else _PLAINEST.get(column.type) for column in columns}
    assert all(set(row) <= set(defaults) for row in rows), table.name
    if rows:
        values = [(defaults | row)[column.name] for row in rows for column in columns]
        places = ", ".join([f"({', '.join(['%s'] * len(columns))})"] * len(rows))
        client.execute(f"INSERT INTO {{{table.name}}} VALUES {places}", *values)


_SQL_TYPES = {
    TEXT: "text",
    COUNT: "bigint",
    FLAG: "boolean",
    TIME: "timestamptz",
    DAY: "date",
    PRICE: "decimal(18, 4)",
}
_PLAINEST = {TEXT: "x", COUNT: 0, FLAG: False}
