"""The Microsoft licence inventory of a CSP, from the CloudCockpit CSP API into a warehouse, with dlt."""

from typing import TYPE_CHECKING, Any

from cockpit_source.errors import (
    ApiError,
    CockpitError,
    ConfigurationError,
    ScopeListError,
    SignInError,
    SignInRefused,
    WarehouseBusy,
    WarehouseError,
    join_exit_codes,
)
from cockpit_source.version import __version__

if TYPE_CHECKING:
    from cockpit_source.configuration import configured_tenants, resolve_mart_settings, resolve_settings
    from cockpit_source.load import LoadProgress, run_load
    from cockpit_source.load_result import LoadResult
    from cockpit_source.marts.refresh import MartsResult, refresh_marts
    from cockpit_source.pipeline import create_pipeline
    from cockpit_source.settings import Settings
    from cockpit_source.source import cockpit_source
    from cockpit_source.tenant_loads import TenantLoad, load_tenants

__all__ = [
    "ApiError",
    "CockpitError",
    "ConfigurationError",
    "LoadProgress",
    "LoadResult",
    "MartsResult",
    "ScopeListError",
    "Settings",
    "SignInError",
    "SignInRefused",
    "TenantLoad",
    "WarehouseBusy",
    "WarehouseError",
    "__version__",
    "cockpit_source",
    "configured_tenants",
    "create_pipeline",
    "join_exit_codes",
    "load_tenants",
    "refresh_marts",
    "resolve_mart_settings",
    "resolve_settings",
    "run_load",
]

# dlt takes a second to import, which `cockpit --help` and the sandbox need not wait for
_LAZY = {
    "LoadProgress": "load",
    "LoadResult": "load_result",
    "MartsResult": "marts.refresh",
    "Settings": "settings",
    "TenantLoad": "tenant_loads",
    "cockpit_source": "source",
    "configured_tenants": "configuration",
    "create_pipeline": "pipeline",
    "load_tenants": "tenant_loads",
    "refresh_marts": "marts.refresh",
    "resolve_mart_settings": "configuration",
    "resolve_settings": "configuration",
    "run_load": "load",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"cockpit_source.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
