"""The reference tables: `sku_prices`, `sku_catalog` and `sku_service_plans`, from the lists that users supply.

They are loaded in a run of dlt of their own. A list replaces the tenant's earlier one as a whole; a table that is
loaded already as the list has it is left alone, and one without a list too, but it exists from then on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Protocol

import dlt
import pyarrow as pa
from dlt.common.exceptions import DltException
from dlt.extract import DltResource, DltSource

from cockpit_source.configuration import configured_list, project_folder
from cockpit_source.dlt_options import loading
from cockpit_source.download import describe_address, fetch_file
from cockpit_source.errors import ListUnavailable
from cockpit_source.lake import one_committer
from cockpit_source.packages import abort_unfinished_package
from cockpit_source.price_list import read_price_list
from cockpit_source.reference_csv import Row, read_file
from cockpit_source.runner_lock import RunnerLock, one_runner
from cockpit_source.settings import environment_name
from cockpit_source.sku_catalog_file import CatalogTable, parse_catalog
from cockpit_source.source import SOURCE_NAME
from cockpit_source.tables import LOAD_ID, MARKER_SKU_ID, REFERENCE_TABLES, Table
from cockpit_source.values import is_missing
from cockpit_source.warehouse import DatasetClient, Warehouse, describe_location, to_warehouse_error

# loaded: the list is new or changed; unchanged: it is loaded already; kept: there is no list, an earlier one stays
State = Literal["loaded", "unchanged", "kept", "created"]

# by type, for what may not be missing
_MARKER_VALUES: Mapping[str, Any] = {
    "string": "-",
    "int64": 0,
    "date32[day]": date(1970, 1, 1),
    "decimal128(18, 4)": Decimal(0),
}


class ReferenceSettings(Protocol):
    """What is read of the settings: `Settings` and `MartSettings` both have it."""

    @property
    def tenant_key(self) -> str: ...
    @property
    def price_list(self) -> str | None: ...
    @property
    def sku_catalog(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ReferenceTable:
    """A reference table after the call: `rows` of the tenant, and what was done."""

    name: str
    rows: int
    state: State


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """What became of the reference tables. `notes` are sentences about what was kept, and of a list that was loaded,
    about what was left out or merged, and why.
    """

    tables: tuple[ReferenceTable, ...]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return any(table.state in ("loaded", "created") for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return asdict(self)


def load_reference_data(
    pipeline: dlt.Pipeline, settings: ReferenceSettings, *, lock: RunnerLock | None = None
) -> ReferenceResult:
    """Bring the reference tables of the tenant up to date with the lists that `settings` name.

    Every list is read and checked before anything is written. `lock` is that of a run which the caller has begun;
    without one it is taken here. An address that gives nothing leaves the catalogue that was loaded from it earlier.

    Raises:
        ConfigurationError: a list cannot be read or does not fit; nothing was changed.
        ListUnavailable: an address gives nothing, and there is no earlier catalogue; nothing was changed.
        WarehouseBusy: a load of the same pipeline is running, or another program holds the database.
        WarehouseError: the warehouse cannot be used.
    """
    lists = _Lists.read(settings)
    with ExitStack() as stack:
        notes: list[str] = []
        held = lock or stack.enter_context(one_runner(pipeline))
        stored = _read_stored(pipeline, settings.tenant_key, lists.rows)
        if lists.unavailable is not None:
            if not stored["sku_catalog"].count:
                raise lists.unavailable
            notes.append(f"{lists.unavailable} The catalogue that was loaded earlier stays.")
        states = {name: _judge(table, stored[name], lists.rows.get(name)) for name, table in REFERENCE_TABLES.items()}
        wanted = {name: lists.rows.get(name) for name, state in states.items() if state in ("loaded", "created")}
        if wanted:
            held.verify()
            _load(pipeline, settings.tenant_key, wanted)
        for name in wanted:
            notes += lists.notes.get(name, ())
    tables = tuple(
        ReferenceTable(name, len(lists.rows[name]) if name in lists.rows else stored[name].count, states[name])
        for name in REFERENCE_TABLES
    )
    return ReferenceResult(tables, tuple(dict.fromkeys(notes)))


def describe_overridden(settings: ReferenceSettings, tenant_name: str | None = None) -> Iterator[str]:
    """A sentence for each list of `settings` where the configuration names another, which will replace it again.

    `tenant_name` is that of one tenant of several.
    """
    for name, used in (("price_list", settings.price_list), ("sku_catalog", settings.sku_catalog)):
        configured = configured_list(name, tenant_name)
        if not used or not isinstance(configured, str) or is_missing(configured) or _is_same(used, configured):
            continue
        own = environment_name(name, tenant_name)
        variable = own if own in os.environ else environment_name(name)
        yield (
            f"The configuration names another list than --{name.replace('_', '-')}: {_show(configured)}. The next "
            f"`cockpit marts`, or load with refresh_marts, loads it again in place of {_show(used)}. To keep this "
            f"one, name it as {name} in {variable if variable in os.environ else '.dlt/config.toml'}."
        )


def _is_same(place: str, other: str) -> bool:
    if "://" in place or "://" in other:
        return place.strip() == other.strip()
    return _to_path(place).resolve() == _to_path(other).resolve()


def _show(place: str) -> str:
    return describe_address(place) if "://" in place else str(_to_path(place))


@dataclass(slots=True)
class _Lists:
    """The lists that were supplied: rows and notes by table, and why the catalogue could not be fetched, if so."""

    rows: dict[str, list[Row]]
    notes: dict[str, list[str]]
    unavailable: ListUnavailable | None = None

    @classmethod
    def read(cls, settings: ReferenceSettings) -> _Lists:
        lists = cls({}, {})
        if settings.price_list:
            lists.rows["sku_prices"] = read_price_list(_to_path(settings.price_list))
        if settings.sku_catalog:
            try:
                catalog = _read_catalog(settings.sku_catalog)
            except ListUnavailable as error:
                lists.unavailable = error
            else:
                lists.rows |= {"sku_catalog": catalog.products, "sku_service_plans": catalog.plans}
                lists.notes |= dict.fromkeys(("sku_catalog", "sku_service_plans"), catalog.notes())
        return lists


def _to_path(place: str) -> Path:
    return project_folder() / Path(place.strip()).expanduser()


def _read_catalog(place: str) -> CatalogTable:
    what = "The SKU catalogue"
    if "://" in place:
        return parse_catalog(fetch_file(place, what), describe_address(place))
    path = _to_path(place)
    return parse_catalog(read_file(path, what), str(path))


@dataclass(frozen=True, slots=True)
class _Stored:
    """A table of the warehouse: rows of the tenant, with their values where a list may equal them."""

    exists: bool = False
    count: int = 0
    rows: frozenset[tuple[Any, ...]] | None = None


def _read_stored(pipeline: dlt.Pipeline, tenant_key: str, supplied: Mapping[str, Any]) -> dict[str, _Stored]:
    with Warehouse(pipeline).opened(read_only=True) as client:
        return {
            name: _Stored() if client is None else _read_table(client, table, tenant_key, with_rows=name in supplied)
            for name, table in REFERENCE_TABLES.items()
        }


def _read_table(client: DatasetClient, table: Table, tenant_key: str, *, with_rows: bool) -> _Stored:
    if not client.has_table(table.name):
        return _Stored()
    (counted,) = client.rows(f"SELECT COUNT(*) AS number FROM {{{table.name}}} WHERE tenant = %s", tenant_key)
    count = int(counted["number"])
    if not with_rows:
        return _Stored(exists=True, count=count)
    names = _value_names(table)
    # a kill may have left rows whose load was never ended
    rows = client.rows(
        f"SELECT {', '.join(names)} FROM {{{table.name}}} WHERE tenant = %s "
        f"AND {LOAD_ID} IN (SELECT load_id FROM {{_dlt_loads}} WHERE status = 0)",
        tenant_key,
    )
    return _Stored(exists=True, count=count, rows=frozenset(_to_values(row, names) for row in rows))


def _value_names(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.name not in ("tenant", LOAD_ID)]


def _to_values(row: Mapping[str, Any], names: list[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _judge(table: Table, stored: _Stored, rows: list[Row] | None) -> State:
    if rows is None:
        return "kept" if stored.exists else "created"
    if not stored.exists or stored.rows is None or len(rows) != stored.count:
        return "loaded"
    return "unchanged" if stored.rows == {_to_values(row, _value_names(table)) for row in rows} else "loaded"


def _load(pipeline: dlt.Pipeline, tenant_key: str, wanted: Mapping[str, list[Row] | None]) -> None:
    """Load the lists in one package, and let the tables of those that are None exist."""
    try:
        # what a load left unfinished is in its spool, and is loaded anew by the next one
        with loading(pipeline), Warehouse(pipeline).held_open(), one_committer(pipeline):
            abort_unfinished_package(pipeline)
            pipeline.run(reference_source(tenant_key, wanted))
    except DltException as error:
        abort_unfinished_package(pipeline)
        raise to_warehouse_error(error, describe_location(pipeline)) from error


def reference_source(tenant_key: str, wanted: Mapping[str, list[Row] | None]) -> DltSource:
    """A dlt source of the schema that the loads of the inventory have, with these tables only.

    Rows by table; those of the tenant are replaced by them, and left alone where they are None.
    """
    resources = [_create_resource(REFERENCE_TABLES[name], tenant_key, rows) for name, rows in wanted.items()]
    return DltSource(dlt.Schema(SOURCE_NAME), SOURCE_NAME, resources)


def _create_resource(table: Table, tenant_key: str, rows: list[Row] | None) -> DltResource:
    def read() -> Iterator[pa.Table]:
        load_id = dlt.current.load_package_state()["load_id"]
        yield _to_arrow(table, tenant_key, load_id, rows)

    hints: dict[str, Any] = {
        "primary_key": list(table.key),
        "columns": table.column_hints(),
        "write_disposition": table.write_disposition(None),
    }
    resource: DltResource = dlt.resource(read, name=table.name, **hints)
    return resource


def _to_arrow(table: Table, tenant_key: str, load_id: str, rows: list[Row] | None) -> pa.Table:
    if rows is None:
        return table.arrow_schema.empty_table()
    # which says that the list was read, also when nothing is on it, and never reaches the table
    marker = {column.name: _MARKER_VALUES[str(column.type)] for column in table.columns if not column.nullable}
    constant = {"tenant": tenant_key, LOAD_ID: load_id}
    records = [{**row, **constant} for row in ({**marker, "sku_id": MARKER_SKU_ID}, *rows)]
    return pa.Table.from_pylist(records, schema=table.arrow_schema)
