"""What `cockpit marts` does: reference data, views, and the read copy that readers open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import dlt

from cockpit_source.errors import WarehouseError
from cockpit_source.marts.price_reach import PriceReach, read_price_reach
from cockpit_source.marts.rendering import MartOptions
from cockpit_source.marts.views import CreatedMarts, create_marts, mart_dialect, require_tables
from cockpit_source.publish import publish_pipeline
from cockpit_source.reference_data import ReferenceResult, ReferenceSettings, load_reference_data
from cockpit_source.runner_lock import RunnerLock, one_runner
from cockpit_source.warehouse import waiting_for_readers


class RefreshSettings(ReferenceSettings, Protocol):
    """What is read of the settings."""

    @property
    def reseller_scopes(self) -> Literal["same", "parts"]: ...
    @property
    def lock_wait_seconds(self) -> float: ...
    @property
    def publish_read_copy(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class MartsResult:
    """What became of the reference tables and the views, and how many seconds it took.

    `prices` tell how far a price list reaches, where the tenant has one.
    """

    reference: ReferenceResult
    marts: CreatedMarts
    prices: PriceReach | None
    warnings: tuple[str, ...]
    seconds: float

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that somebody should read: about the lists, and the warnings."""
        return (*self.reference.notes, *self.warnings)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return asdict(self.marts) | {
            "reference": self.reference.to_dict(),
            "prices": self.prices.to_dict() if self.prices else None,
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


def refresh_marts(
    pipeline: dlt.Pipeline,
    settings: RefreshSettings,
    *,
    as_of: datetime | None = None,
    note: Callable[[str], None],
) -> MartsResult:
    """Load the lists that `settings` name, create the views anew, and publish the read copy of a DuckDB file.

    `as_of` (with a time zone) is what the views take as now, for simulated days; None: the clock of the database.

    Raises:
        ConfigurationError: a list does not fit, or the marts are not written for the destination.
        WarehouseError: nothing was ever loaded, or the warehouse refuses something.
        WarehouseBusy: a load of the same pipeline is running, or another program holds the database.
    """
    with one_runner(pipeline) as lock, waiting_for_readers(settings.lock_wait_seconds, note):
        result = refresh_locked(pipeline, settings, lock, as_of=as_of, with_paid=True)
        if settings.publish_read_copy:
            publish_pipeline(pipeline, wait_seconds=settings.lock_wait_seconds, note=note)
    return result


def refresh_locked(
    pipeline: dlt.Pipeline,
    settings: RefreshSettings,
    lock: RunnerLock,
    *,
    as_of: datetime | None = None,
    with_paid: bool = False,
) -> MartsResult:
    """The same within a run that has begun, whose end publishes the read copy.

    `with_paid` also counts which paid seats have a price, for which a load has no memory.
    """
    began = time.monotonic()
    options = MartOptions(mart_dialect(pipeline), settings.reseller_scopes, as_of)
    require_tables(pipeline)
    reference = load_reference_data(pipeline, settings, lock=lock)
    marts = create_marts(pipeline, options)
    prices, warnings = count_prices(pipeline, settings.tenant_key, reference, with_paid=with_paid)
    return MartsResult(reference, marts, prices, warnings, round(time.monotonic() - began, 3))


def count_prices(
    pipeline: dlt.Pipeline, tenant_key: str, reference: ReferenceResult, *, with_paid: bool
) -> tuple[PriceReach | None, tuple[str, ...]]:
    """How far the prices of the tenant reach, None where it has none, and what somebody should read about it."""
    if not any(table.rows for table in reference.tables if table.name == "sku_prices"):
        return None, ()
    try:
        prices = read_price_reach(pipeline, tenant_key, with_paid=with_paid)
    except WarehouseError as error:
        # the marts are there all the same
        return None, (f"How far the prices reach was not counted. {error}",)
    return prices, (prices.warning,) if prices and prices.warning else ()
