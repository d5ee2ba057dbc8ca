"""The marts of several tenants in one dataset: the lists of each, and the views once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import dlt

from cockpit_source.errors import CockpitError, join_exit_codes
from cockpit_source.marts.price_reach import PriceReach
from cockpit_source.marts.refresh import RefreshSettings, count_prices
from cockpit_source.marts.rendering import MartOptions
from cockpit_source.marts.views import CreatedMarts, create_marts, mart_dialect, require_tables
from cockpit_source.publish import publish_pipeline
from cockpit_source.reference_data import ReferenceResult, load_reference_data
from cockpit_source.runner_lock import one_runner
from cockpit_source.warehouse import waiting_for_readers


@dataclass(frozen=True, slots=True)
class MartTenant:
    """A tenant whose lists are loaded: its name in the configuration, its pipeline, and its settings."""

    name: str
    pipeline: dlt.Pipeline
    settings: RefreshSettings


@dataclass(frozen=True, slots=True)
class TenantLists:
    """What became of the lists of a tenant, or the `error` that kept them from being loaded.

    `prices` tell how far a price list reaches, where the tenant has one.
    """

    name: str
    tenant_key: str | None = None
    reference: ReferenceResult | None = None
    prices: PriceReach | None = None
    warnings: tuple[str, ...] = ()
    error: CockpitError | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that somebody should read."""
        notes = self.reference.notes if self.reference else ()
        failed = (f"The lists were not loaded. {self.error}",) if self.error else ()
        return (*failed, *notes, *self.warnings)

    @property
    def exit_code(self) -> int:
        """That of `cockpit marts` for this tenant."""
        return self.error.exit_code if self.error else 0

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {
            "name": self.name,
            "tenant": self.tenant_key,
            "exit_code": self.exit_code,
            "error": None if self.error is None else str(self.error),
            "reference": self.reference.to_dict() if self.reference else None,
            "prices": self.prices.to_dict() if self.prices else None,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class TenantMarts:
    """The views, None where no tenant's lists could be loaded, and what became of the lists of each tenant."""

    marts: CreatedMarts | None
    tenants: tuple[TenantLists, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """That of `cockpit marts`: the first that a tenant has, in the order of `cockpit load`."""
        return join_exit_codes(lists.exit_code for lists in self.tenants)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        views = asdict(self.marts) if self.marts else {"names": [], "location": None, "dataset": None}
        return views | {"tenants": [lists.to_dict() for lists in self.tenants], "seconds": self.seconds}


def refresh_tenants(
    tenants: Sequence[MartTenant],
    *,
    as_of: datetime | None = None,
    with_paid: bool = False,
    publish: bool = True,
    note: Callable[[str], None],
) -> TenantMarts:
    """Load the lists of each tenant, create the views anew, and publish the read copy of a DuckDB file.

    There is at least one tenant, and all are in one dataset. A list that does not fit, or a load that runs, costs
    only its tenant. `as_of` and `with_paid` as in `refresh_marts`.

    Raises:
        ConfigurationError: the marts are not written for the destination.
        WarehouseError: nothing was ever loaded, or the warehouse refuses the views.
        WarehouseBusy: another program holds the database.
    """
    began = time.monotonic()
    first = tenants[0]
    options = MartOptions(mart_dialect(first.pipeline), first.settings.reseller_scopes, as_of)
    marts = None
    with waiting_for_readers(first.settings.lock_wait_seconds, note):
        require_tables(first.pipeline)
        lists = [_load_lists(tenant) for tenant in tenants]
        usable = [tenant for tenant, loaded in zip(tenants, lists, strict=True) if loaded.error is None]
        if usable:
            with one_runner(usable[0].pipeline):
                marts = create_marts(usable[0].pipeline, options)
                lists = [
                    _count_prices(tenant, loaded, with_paid) for tenant, loaded in zip(tenants, lists, strict=True)
                ]
                if publish and first.settings.publish_read_copy:
                    publish_pipeline(usable[0].pipeline, wait_seconds=first.settings.lock_wait_seconds, note=note)
    return TenantMarts(marts, tuple(lists), round(time.monotonic() - began, 3))


def _load_lists(tenant: MartTenant) -> TenantLists:
    tenant_key = tenant.settings.tenant_key
    try:
        return TenantLists(tenant.name, tenant_key, load_reference_data(tenant.pipeline, tenant.settings))
    except CockpitError as error:
        return TenantLists(tenant.name, tenant_key, error=error)


def _count_prices(tenant: MartTenant, lists: TenantLists, with_paid: bool) -> TenantLists:
    if lists.reference is None:
        return lists
    prices, warnings = count_prices(tenant.pipeline, tenant.settings.tenant_key, lists.reference, with_paid=with_paid)
    return replace(lists, prices=prices, warnings=warnings)
