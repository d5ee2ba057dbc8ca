"""The commands for several tenants: each does for one after another what the command does for one, and goes on.

With `--json` each prints a list with an object per tenant, that has its `name` in the configuration, its `exit_code`
and, where nothing came of it, the `error`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dlt

from cockpit_source import prune as pruning
from cockpit_source.check import print_files, run_steps
from cockpit_source.configuration import check_common_keys, resolve_mart_settings, resolve_tenant_key
from cockpit_source.errors import EXIT_ALL_READ, CockpitError, ConfigurationError, join_exit_codes
from cockpit_source.fanout.opening import fan_out_by_dask
from cockpit_source.load import LoadProgress
from cockpit_source.progress import ProgressDisplay
from cockpit_source.reference_data import describe_overridden
from cockpit_source.report import create_console
from cockpit_source.scope_report import print_scopes
from cockpit_source.settings import Settings
from cockpit_source.status import Status, read_status, read_tenants
from cockpit_source.status_report import MAX_NAMED, MAX_SHOWN, print_status, to_json
from cockpit_source.stopping import StopRequest, stopping_on_signals
from cockpit_source.tenant_loads import TenantLoad, load_tenants
from cockpit_source.tenant_marts import MartTenant, TenantLists, TenantMarts, refresh_tenants
from cockpit_source.tenant_report import (
    print_failure,
    print_heading,
    print_load,
    print_overview,
    print_tenant_marts,
    print_total,
)

# opens the pipeline of a tenant key
OpenPipeline = Callable[[str], dlt.Pipeline]


def check_all(names: Sequence[str], read_settings: Callable[[str], Settings], open_pipeline: OpenPipeline) -> int:
    """`cockpit check`: every step for each tenant; the exit code of all."""
    console = create_console()
    print_files(console)
    try:
        check_common_keys()
    except ConfigurationError as error:
        print_failure(str(error), console)
        return error.exit_code
    codes = []
    for name in names:
        console.print()
        print_heading(name, None, console)
        codes.append(run_steps(lambda name=name: read_settings(name), open_pipeline, console))  # type: ignore[misc]
    return join_exit_codes(codes)


def print_all_scopes(
    names: Sequence[str],
    read_settings: Callable[[str], Settings],
    open_pipeline: OpenPipeline,
    *,
    as_json: bool,
) -> int:
    """`cockpit scopes`: the scopes of each tenant; as JSON one object per line, whose scope_key tells the tenant."""
    console, notes = create_console(), create_console(stderr=True)
    codes = []
    for name in names:
        if not as_json:
            print_heading(name, None, console)
        try:
            settings = read_settings(name)
            print_scopes(settings, open_pipeline(settings.tenant_key), console, as_json=as_json)
            codes.append(EXIT_ALL_READ)
        except CockpitError as error:
            if as_json:
                print_heading(name, None, notes)
            print_failure(str(error), notes)
            codes.append(error.exit_code)
    return join_exit_codes(codes)


class _Watcher:
    """Shows the load that runs, and says whether a signal may end it well; `at_once`: many run."""

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._console = create_console(stderr=True)
        self._progress: LoadProgress | None = None

    @contextmanager
    def watch(self, name: str, progress: LoadProgress) -> Iterator[None]:
        with ProgressDisplay(progress, self._console, tenant=name, is_one_of_many=self._at_once):
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None

    def can_stop(self) -> bool:
        """Not while a load prepares, which only an exception ends; of many at once there is always one to end."""
        return self._at_once or self._progress is None or self._progress.record is not None

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def load_all(names: Sequence[str], *, as_json: bool, dask: str | None = None, **options: Any) -> int:
    """`cockpit load`: one tenant after another, each reported when it is done, and the total; the exit code of all.

    With the address of a Dask scheduler all are read at once.

    As JSON a list of `TenantLoad.to_dict`: name, tenant, status, exit_code, error, and as result what the load of one
    tenant prints.
    """
    console, watcher, request = create_console(), _Watcher(at_once=dask is not None), StopRequest()
    earlier: list[TenantLoad] = []

    def tell(load: TenantLoad) -> None:
        if any(one.name == load.name for one in earlier):
            # those that were held are tried again
            earlier.clear()
        if not as_json:
            print_load(load, earlier, console)
            sys.stdout.flush()
        earlier.append(load)

    with fan_out_by_dask(dask) as fan_out, stopping_on_signals(request, watcher.can_stop, watcher.note):
        loads = load_tenants(
            names,
            stop_request=request,
            fan_out=fan_out,
            watch=watcher.watch,
            loaded=tell,
            note=watcher.note,
            **options,
        )
    if as_json:
        console.print_json(data=[load.to_dict() for load in loads], default=str)
    else:
        print_total(loads, console)
    return join_exit_codes(load.exit_code for load in loads)


def show_all_status(
    names: Sequence[str],
    open_pipeline: OpenPipeline,
    *,
    with_others: bool,
    runs: int,
    max_age_hours: float | None,
    as_json: bool,
    options: str,
) -> int:
    """`cockpit status`: that of each tenant, and `with_others` of those that only the dataset knows.

    As JSON a list of what is printed for one tenant, with its `name`, null for one that is not configured. `options`
    as for `print_status`, without the tenant.
    """
    keys: dict[str, str] = {}
    shown: list[tuple[str | None, Status | CockpitError]] = []

    def read(tenant_key: str) -> Status:
        limit = MAX_NAMED if as_json else MAX_SHOWN
        pipeline = open_pipeline(tenant_key)
        return read_status(pipeline, tenant_key, runs=runs, max_age_hours=max_age_hours, limit=limit)

    for name in names:
        try:
            keys[name] = resolve_tenant_key(name)
            shown.append((name, read(keys[name])))
        except CockpitError as error:
            shown.append((name, error))
    # where no tenant could be read, nothing else can be
    if with_others and any(isinstance(found, Status) for _, found in shown):
        known = read_tenants(open_pipeline(next(iter(keys.values()))))
        shown += [(None, read(tenant_key)) for tenant_key in known if tenant_key not in keys.values()]
    console = create_console()
    if as_json:
        console.print_json(data=[_status_to_json(name, found) for name, found in shown])
    else:
        for shown_name, found in shown:
            print_heading(shown_name or "not configured here", None, console)
            if isinstance(found, Status):
                picked = f"--tenant {shown_name}" if shown_name else ""
                print_status(found, console, options=" ".join(filter(None, (options, picked))))
            else:
                print_failure(str(found), console)
            console.print()
        if len(shown) > 1:
            print_overview(shown, console)
    # what is not configured any more is not waited for
    return join_exit_codes(found.exit_code for name, found in shown if name is not None)


def _status_to_json(name: str | None, found: Status | CockpitError) -> dict[str, Any]:
    if isinstance(found, Status):
        return {"name": name, "error": None} | to_json(found)
    return {"name": name, "tenant": None, "exit_code": found.exit_code, "error": str(found)}


def prune_all(
    names: Sequence[str], open_pipeline: OpenPipeline, *, keep_days: int, dry_run: bool, as_json: bool
) -> int:
    """`cockpit prune`: that of each tenant. As JSON a list of what is printed for one, with its `name`."""
    console = create_console()
    codes, printed = [], []
    for name in names:
        if not as_json:
            print_heading(name, None, console)
        try:
            tenant_key = resolve_tenant_key(name)
            result = pruning.prune(open_pipeline(tenant_key), tenant_key, keep_days=keep_days, dry_run=dry_run)
            codes.append(EXIT_ALL_READ)
            printed.append({"name": name, "exit_code": EXIT_ALL_READ, "error": None} | result.to_dict())
            if not as_json:
                pruning.print_pruned(result, console)
        except CockpitError as error:
            codes.append(error.exit_code)
            printed.append({"name": name, "exit_code": error.exit_code, "error": str(error)})
            if not as_json:
                print_failure(str(error), console)
        if not as_json:
            console.print()
    if as_json:
        console.print_json(data=printed)
    return join_exit_codes(codes)


def refresh_all_marts(
    names: Sequence[str],
    open_pipeline: OpenPipeline,
    *,
    price_list: str | None,
    sku_catalog: str | None,
    as_json: bool,
) -> int:
    """`cockpit marts`: the lists of each tenant, and the views once for all.

    As JSON an object: names, location and dataset of the views, seconds, and `tenants`, a list with name, tenant,
    exit_code, error, reference, prices and warnings.
    """
    if price_list is not None and len(names) > 1:
        raise ConfigurationError("--price-list holds the prices of one tenant. Name it too: --tenant NAME.")
    notes = create_console(stderr=True)

    def note(text: str) -> None:
        notes.print(text, markup=False, soft_wrap=True)

    usable, failed = [], []
    for name in names:
        try:
            settings = resolve_mart_settings(name, price_list=price_list, sku_catalog=sku_catalog)
            usable.append(MartTenant(name, open_pipeline(settings.tenant_key), settings))
        except CockpitError as error:
            failed.append(TenantLists(name, error=error))
    refreshed = refresh_tenants(usable, with_paid=True, note=note) if usable else TenantMarts(None, (), 0.0)
    lists = {one.name: one for one in (*refreshed.tenants, *failed)}
    result = TenantMarts(refreshed.marts, tuple(lists[name] for name in names), refreshed.seconds)
    for tenant in usable:
        for text in describe_overridden(tenant.settings, tenant.name):
            note(f"{tenant.name}: {text}")
    if as_json:
        create_console().print_json(data=result.to_dict())
    else:
        print_tenant_marts(result, create_console())
    return result.exit_code
