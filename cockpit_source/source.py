"""The dlt source `cockpit`: the tables of one load package, and the bare source for any dlt script."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineNotActive

from cockpit_source.client import CockpitClient
from cockpit_source.configuration import resolve_settings
from cockpit_source.errors import CockpitError
from cockpit_source.expand import Expansion
from cockpit_source.fetch import Fetcher, utc_now
from cockpit_source.listing_store import read_listed
from cockpit_source.pacing import Pacer
from cockpit_source.run_record import RunRecord, new_run_id
from cockpit_source.scope_listing import ScopeLister
from cockpit_source.settings import Settings
from cockpit_source.spool import batch_results, to_batch
from cockpit_source.tables import LISTED_TABLES, TABLES, Table
from cockpit_source.warehouse import Warehouse

SOURCE_NAME = "cockpit"
_BARE_BATCH_SCOPES = 1_000


@dataclass(frozen=True, slots=True)
class PackagePart:
    """A part of a load package: results of scopes, delisted scopes, the row of the run, or what discovery listed.

    `held_back` are scopes that left the list and were not delisted; `delisted_at` dates them too. `listed` holds rows
    by table; the listed tables that it lacks get none, but exist from then on.
    """

    results: pa.Table | None = None
    delisted: pa.Table | None = None
    held_back: pa.Table | None = None
    delisted_at: datetime | None = None
    run: Mapping[str, Any] | None = None
    listed: Mapping[str, pa.Table] | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What all packages of a run share; see `Expansion`. `boundary_timestamp` dates new versions in the history.

    `is_part`: the run reads a shard of the list, so that it delists nothing and fills no table of the listings.
    """

    run_id: str
    tenant_key: str
    full_list: bool = True
    allow_drops: bool = True
    boundary_timestamp: datetime | None = None
    is_part: bool = False

    @property
    def delists(self) -> bool:
        """Whether known scopes that the list lacks have left it."""
        return self.full_list and not self.is_part


def package_source(parts: Iterable[PackagePart], facts: RunFacts, known: frozenset[str] = frozenset()) -> DltSource:
    """A dlt source that turns `parts` into the rows of every table, reading each part once.

    Of the `known` tables only those get a job that have rows; every other one is made, rows or not.
    """
    return _package_source(parts, facts, known)


def known_tables(pipeline: dlt.Pipeline) -> frozenset[str]:
    """The tables that the pipeline has loaded before, with all their columns."""
    if pipeline.default_schema_name is None:
        return frozenset()
    loaded = {table["name"]: table["columns"] for table in pipeline.default_schema.data_tables(seen_data_only=True)}
    return frozenset(
        name
        for name, table in TABLES.items()
        if {column.name for column in table.columns} <= set(loaded.get(name, ()))
    )


@dlt.source(name=SOURCE_NAME, section=SOURCE_NAME)
def _package_source(parts: Any, facts: Any, known: Any) -> Iterator[DltResource]:
    @dlt.resource(name="package_parts", selected=False)
    def package_parts() -> Iterator[PackagePart]:
        yield from parts

    yield package_parts
    for table in TABLES.values():
        yield _create_transformer(package_parts, table, facts, is_known=table.name in known)


def _create_transformer(parts: Any, table: Table, facts: RunFacts, *, is_known: bool) -> DltResource:
    def expand(part: PackagePart) -> Iterator[pa.Table]:
        load_id = dlt.current.load_package_state()["load_id"]
        expansion = Expansion(facts.run_id, facts.tenant_key, load_id, facts.full_list, facts.allow_drops)
        for rows in _expand_part(expansion, part, table):
            if rows.num_rows or not is_known:
                yield rows

    hints: dict[str, Any] = {
        # scd2 tells versions apart by their hash; a primary key would be one that versions break
        "primary_key": None if table.versioned_columns else list(table.key),
        "columns": table.column_hints(),
        "write_disposition": table.write_disposition(facts.boundary_timestamp),
    }
    transformer: DltResource = dlt.transformer(expand, data_from=parts, name=table.name, **hints)
    return transformer


def _expand_part(expansion: Expansion, part: PackagePart, table: Table) -> Iterator[pa.Table]:
    if table in LISTED_TABLES:
        if part.listed is not None:
            rows = part.listed.get(table.name)
            yield table.arrow_schema.empty_table() if rows is None else expansion.to_listed(table, rows)
        return
    if part.run is not None and table.name == "runs":
        yield expansion.to_runs(part.run)
    if part.delisted is not None and table.name == "scopes":
        yield expansion.to_delisted_scopes(part.delisted, part.delisted_at)
    if part.held_back is not None and table.name == "scopes":
        yield expansion.to_held_back_scopes(part.held_back)
    if part.held_back is not None and table.name == "scope_runs":
        yield expansion.to_held_back_scope_runs(part.held_back, part.delisted_at)
    if part.results is not None and table.name != "runs":
        yield getattr(expansion, f"to_{table.name}")(part.results)


def cockpit_source(*, allow_drops: bool = False, as_of: datetime | None = None, **settings: Any) -> DltSource:
    """The licence inventory as a dlt source, for `pipeline.run(cockpit_source(...))` in any dlt script.

    Keyword arguments are settings, such as `tenant` or `customers`; the others come from `[sources.cockpit]`.
    Reading begins when the pipeline extracts. One package holds everything, so memory grows with the tenant, and
    nothing is restarted or guarded: for scheduled loads use `run_load`. A scope that reads empty keeps its rows
    unless `allow_drops`.

    Raises:
        ConfigurationError: settings are missing or wrong. While extracting, dlt wraps our errors in its own.
    """
    resolved = resolve_settings(**settings)
    run_id = new_run_id(utc_now())
    facts = RunFacts(run_id, resolved.tenant_key, allow_drops=allow_drops, boundary_timestamp=as_of)
    return package_source(_read_all(resolved, run_id, as_of), facts)


def _read_all(settings: Settings, run_id: str, as_of: datetime | None) -> Iterator[PackagePart]:
    warehouse = _current_warehouse()
    clock = utc_now if as_of is None else lambda: as_of
    record = RunRecord(run_id, settings, clock())
    pacer = Pacer(settings.max_requests_per_second, settings.max_concurrency)
    with (
        tempfile.TemporaryDirectory(prefix="cockpit-") as folder,
        CockpitClient(settings, pacer=pacer) as client,
    ):
        record.calls = client.calls
        prepared = ScopeLister(settings, client, warehouse).prepare(Path(folder), clock())
        record.start(
            prepared.scope_list,
            full_list=prepared.problem is None,
            listing_problem=prepared.problem,
            customers_listed=prepared.customers_listed,
        )
        fetcher = Fetcher(
            client,
            pacer,
            max_concurrency=settings.max_concurrency,
            deadline_seconds=settings.run_deadline_minutes and settings.run_deadline_minutes * 60,
            now=clock,
        )
        yield PackagePart(listed=read_listed(Path(folder)))
        with closing(fetcher.fetch(prepared.scope_list.iter_scopes())) as results:
            for batch in batch_results(results, _BARE_BATCH_SCOPES):
                record.count(batch)
                yield PackagePart(results=to_batch(batch))
        if not record.good and fetcher.sign_in_error:
            raise fetcher.sign_in_error
        if not record.good:
            raise CockpitError(f"No scope could be read ({fetcher.stop_reason or 'every call failed'}).")
        yield PackagePart(run=record.to_row(clock()))


def _current_warehouse() -> Warehouse | None:
    try:
        return Warehouse(dlt.current.pipeline())
    except (PipelineNotActive, ConfigurationException):
        return None
