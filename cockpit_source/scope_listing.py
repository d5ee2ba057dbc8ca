"""The scope list of a run made ready: from the configured lines, or from discovery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cockpit_source.client import CockpitClient
from cockpit_source.configuration import project_folder
from cockpit_source.discovery import Discoverer, Discovery
from cockpit_source.errors import ConfigurationError, DiscoveryFailed, EmptyScopeList, EmptyShard, NothingToRetry
from cockpit_source.listing_store import ListingStore
from cockpit_source.scope_list import ScopeList, write_scope_list
from cockpit_source.scope_sources import iter_scopes
from cockpit_source.scopes import GOOD_OUTCOMES, ID_COLUMNS, Scope, scope_key
from cockpit_source.settings import Settings
from cockpit_source.shards import Shard
from cockpit_source.warehouse import Warehouse

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PreparedList:
    """A written scope list. `discovery` is None unless it came from the API's listings."""

    scope_list: ScopeList
    discovery: Discovery | None = None

    @property
    def problem(self) -> str | None:
        """Why the list may lack scopes, or None."""
        return self.discovery.problem if self.discovery else None

    @property
    def customers_listed(self) -> int | None:
        """How many customers a complete listing held, deleted ones left out; None without one."""
        return self.discovery.customers if self.discovery and self.discovery.problem is None else None


class ScopeLister:
    """Prepares scope lists. `warehouse` may be None in a script without a pipeline.

    `only_scopes`: no GDAP relationships, which take a call a scope, also where they are asked for. `retry_failed`:
    the scopes that the last run that held them did not read, whatever is configured. `shard`: only the scopes of
    that, and of discovery only those.
    """

    def __init__(
        self,
        settings: Settings,
        client: CockpitClient,
        warehouse: Warehouse | None,
        *,
        only_scopes: bool = False,
        retry_failed: bool = False,
        shard: Shard | None = None,
        note: Say = lambda _: None,
        show_stage: Say = lambda _: None,
    ) -> None:
        self._settings = replace(settings, gdap_relationships=False) if only_scopes or shard else settings
        self._shard = shard
        self._client = client
        self._warehouse = warehouse
        self._retry_failed = retry_failed
        self._note = note
        self._show_stage = show_stage

    def prepare(self, folder: Path, moment: datetime) -> PreparedList:
        """Write the list into `folder`, joined with what the warehouse knows; `moment` dates what is discovered.

        Raises:
            ConfigurationError: the configured lines do not work.
            DiscoveryFailed: discovery found nothing to load.
            NothingToRetry: `retry_failed`, and there is none; EmptyShard: there is none in the shard.
            SignInError: discovery has no usable token.
        """
        if self._retry_failed:
            return self._list_failed(folder)
        scopes = self._settings.scopes
        if scopes.origin == "discover":
            return self._discover(folder, moment)
        query_rows = self._warehouse.query_rows if self._warehouse else _refuse_query
        lines = iter_scopes(scopes, project_folder(), query_rows)
        return PreparedList(self._write(folder, lines))

    def _list_failed(self, folder: Path) -> PreparedList:
        failed = (scope for table in self._prior_scopes() for scope in _iter_failed(table))
        try:
            return PreparedList(self._write(folder, failed))
        except EmptyScopeList:
            raise NothingToRetry(
                "Nothing to retry: the last run that held each listed scope has read it, or nothing was loaded yet."
            ) from None

    def _write(self, folder: Path, scopes: Iterable[Scope], **options: Any) -> ScopeList:
        tenant_key = self._settings.tenant_key
        given = scopes if self._shard is None else _Filter(self._shard, tenant_key, scopes)
        try:
            return write_scope_list(folder, tenant_key, given, self._prior_scopes(), self._held_licenses(), **options)
        except EmptyScopeList:
            if not (isinstance(given, _Filter) and given.has_left_out):
                raise
            raise EmptyShard(f"Shard {self._shard} of the list is empty: there is nothing to read.") from None

    def _discover(self, folder: Path, moment: datetime) -> PreparedList:
        with ListingStore(folder) as store:
            discoverer = Discoverer(self._client, self._settings, store, self._note, self._show_stage)
            found = discoverer.discover(folder, self._prior_rows, moment)
            self._note(found.describe())
            try:
                scope_list = self._write(
                    folder,
                    store.iter_scopes(),
                    keep_known=found.problem is not None,
                    gdap_pairs=found.gdap_pairs,
                )
            except EmptyScopeList:
                raise DiscoveryFailed(_describe_nothing(found, self._settings.tenant)) from None
        if found.problem:
            self._note(
                "The customer listing is not complete: scopes that the warehouse knows are read too, and nothing is "
                "delisted."
            )
        return PreparedList(scope_list, found)

    def _prior_scopes(self) -> Iterator[pa.Table]:
        if self._warehouse is not None:
            yield from self._of_shard(self._warehouse.prior_scopes(self._settings.tenant_key))

    def _held_licenses(self) -> Iterator[pa.Table]:
        if self._warehouse is not None:
            yield from self._of_shard(self._warehouse.held_licenses(self._settings.tenant_key))

    def _of_shard(self, tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
        return tables if self._shard is None else self._shard.select(tables)

    def _prior_rows(self, table_name: str, columns: Any) -> Iterator[pa.Table]:
        if self._warehouse is not None:
            yield from self._warehouse.tenant_rows(table_name, columns, self._settings.tenant_key)


class _Filter:
    """The scopes of a shard."""

    def __init__(self, shard: Shard, tenant_key: str, scopes: Iterable[Scope]) -> None:
        self._shard = shard
        self._tenant_key = tenant_key
        self._scopes = scopes
        self.has_left_out = False

    def __iter__(self) -> Iterator[Scope]:
        for scope in self._scopes:
            if self._shard.holds(scope_key(self._tenant_key, scope)):
                yield scope
            else:
                self.has_left_out = True


def _iter_failed(prior: pa.Table) -> Iterator[Scope]:
    """The scopes in `prior` that are listed and that the last run that held them did not read."""
    is_read = pc.is_in(prior["last_outcome"], pa.array(GOOD_OUTCOMES))
    failed = prior.filter(pc.and_(pc.is_null(prior["delisted_at"]), pc.invert(is_read)))
    for ids in failed.select(ID_COLUMNS).to_pylist():
        yield Scope(**ids)


def _describe_nothing(found: Discovery, tenant: str) -> str:
    if found.problem:
        return (
            f"No customer could be listed, and the warehouse knows none: {found.problem}. Check that tenant "
            f"({tenant}) is the domain of your portal, and the role of the API access; without discovery, give the "
            "scopes in a file."
        )
    return (
        f"Discovery found nothing to load. {found.describe()} "
        "Check that tenant is the right one, and that its customers exist at Microsoft."
    )


def _refuse_query(_: str) -> Iterator[Any]:
    raise ConfigurationError("scopes_query needs a pipeline: run the source with pipeline.run().")
