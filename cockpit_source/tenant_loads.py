"""`load_tenants`: the load of every tenant of the configuration, one after another, into one dataset.

Each is a `run_load` of its own, with its own settings, pipeline and run. What is of the dataset is done once at the
end: the marts and the read copy, after which the hooks of each tenant are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import dlt

from cockpit_source.busy_tries import BusyTries
from cockpit_source.configuration import check_common_keys, pick_tenants, resolve_settings
from cockpit_source.errors import (
    AnotherRun,
    CockpitError,
    ConfigurationError,
    NothingToRetry,
    RunStopped,
    WarehouseBusy,
)
from cockpit_source.failed_attempt import keep_failure
from cockpit_source.hooks import tell_after_run
from cockpit_source.load import LoadProgress, run_load
from cockpit_source.load_result import LoadResult
from cockpit_source.pipeline import DEFAULT_DATASET, create_pipeline
from cockpit_source.publish import publish_pipeline
from cockpit_source.reading import FanOut
from cockpit_source.redaction import describe_defect
from cockpit_source.runner_lock import one_runner
from cockpit_source.settings import TENANTS_SECTION, Settings
from cockpit_source.stopping import StopRequest
from cockpit_source.tenant_marts import MartTenant, refresh_tenants
from cockpit_source.tenants import SCOPE_KEYS


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """What the load of one tenant came to: its `result`, or the `error` that ended it.

    `name` is that of the configuration; `tenant_key`, as in the tables, is None where its settings do not work.
    """

    name: str
    tenant_key: str | None = None
    result: LoadResult | None = None
    error: CockpitError | None = None

    @property
    def exit_code(self) -> int:
        """As of `cockpit load` with this tenant alone."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.result is None else self.result.exit_code

    @property
    def status(self) -> str:
        """That of the run, as in the table `runs`; else failed, or nothing to retry."""
        if self.result is not None:
            return self.result.status
        return "nothing to retry" if isinstance(self.error, NothingToRetry) else "failed"

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {
            "name": self.name,
            "tenant": self.tenant_key,
            "status": self.status,
            "exit_code": self.exit_code,
            "error": None if self.error is None else str(self.error),
            "result": None if self.result is None else self.result.to_dict(),
        }


# around the load of a tenant: its name and what can be watched
Watch = Callable[[str, LoadProgress], AbstractContextManager[object]]


def load_tenants(
    names: Sequence[str] | None = None,
    *,
    destination: str = "duckdb",
    database: str | os.PathLike[str] | None = None,
    dataset: str = DEFAULT_DATASET,
    pipelines_dir: str | os.PathLike[str] | None = None,
    full_list: bool = True,
    retry_failed: bool = False,
    accept_drop: int = 0,
    as_of: datetime | None = None,
    fresh: bool = False,
    stop_request: StopRequest | None = None,
    fan_out: FanOut | None = None,
    busy: BusyTries | None = None,
    watch: Watch | None = None,
    loaded: Callable[[TenantLoad], None] | None = None,
    note: Callable[[str], None] | None = None,
    **overrides: Any,
) -> list[TenantLoad]:
    """Load the tenants `names`, or all that are configured, one after another; one `TenantLoad` each, in that order.

    Whatever ends the load of one tenant, the others are loaded: only a DuckDB file that another program holds counts
    for all that come after. The options are those of `create_pipeline` and `run_load`, `overrides` those of
    `resolve_settings`, for every tenant; a scope list and `accept_drop` are for one tenant only. `watch` is entered
    around each load, `loaded` is called after it, `note` gets sentences about what follows the last. Join the exit
    codes with `join_exit_codes`. With a `fan_out` the scopes of all tenants are read at once, while packages load one
    after another; `watch` and `loaded` are then called in a thread for each. `busy`: tenants that another run or a
    reader held are tried again when all others are done, with marts; `loaded` is called after each try.

    Raises:
        ConfigurationError: no tenants are configured, or not all of `names`; `[sources.cockpit]` itself does not
            work; or what is for one tenant was given for several.
    """
    picked = pick_tenants(names)
    if not picked:
        raise ConfigurationError(
            f"No tenants are configured: none has a table [{TENANTS_SECTION}.NAME]. For the one tenant of "
            "[sources.cockpit] call run_load."
        )
    check_common_keys()
    _require_one(picked, accept_drop, {name for name, value in overrides.items() if value is not None})
    request = stop_request or StopRequest()
    watched = watch or _watch_nothing

    def load(tenant: _Prepared, progress: LoadProgress) -> LoadResult:
        return run_load(
            tenant.pipeline,
            # what follows a run is done once for all
            replace(
                tenant.settings,
                refresh_marts=False,
                publish_read_copy=False,
                after_run_command=None,
                after_run_webhook=None,
            ),
            full_list=full_list,
            retry_failed=retry_failed,
            accept_drop=accept_drop,
            as_of=as_of,
            fresh=fresh,
            progress=progress,
            stop_request=request,
            fan_out=fan_out,
            carry_on=begun.get(tenant.settings.tenant_key),
        )

    def prepare(name: str) -> _Prepared:
        settings = resolve_settings(name, **overrides)
        pipeline = create_pipeline(
            settings.tenant_key,
            destination=destination,
            database=database,
            dataset=dataset,
            pipelines_dir=pipelines_dir,
        )
        return _Prepared(settings, pipeline)

    # runs by tenant that began before they met another in their way
    begun: dict[str, str] = {}

    def load_in_turn(some: Sequence[str]) -> list[_Ended]:
        done: list[_Ended] = []

        def load_and_tell(name: str) -> _Ended:
            one = _load_one(name, prepare, load, watched, request, _find_busy(done))
            done.append(one)
            if one.begun is not None and one.load.tenant_key is not None:
                begun[one.load.tenant_key] = one.begun
            if loaded is not None:
                loaded(one.load)
            return one

        jobs = [partial(load_and_tell, name) for name in some]
        return [job() for job in jobs] if fan_out is None else fan_out.run_at_once(jobs)

    return _load_until_free(picked, load_in_turn, busy or BusyTries(), request, note or _ignore)


def _load_until_free(
    names: Sequence[str],
    load_in_turn: Callable[[Sequence[str]], list[_Ended]],
    busy: BusyTries,
    request: StopRequest,
    note: Callable[[str], None],
) -> list[TenantLoad]:
    """Load all of `names`, and those again that were held, until none is or there were enough tries."""
    ended: dict[str, TenantLoad] = {}
    left, tried = names, 1
    while True:
        results = load_in_turn(left)
        ended |= {one.load.name: one.load for one in results}
        held = [one for one in results if isinstance(one.load.error, WarehouseBusy)]
        _finish([one for one in results if one not in held], note)
        left = [one.load.name for one in held]
        if not left or not busy.wait(tried, f"Held by others: {', '.join(left)}.", request, note):
            _finish(held, note)
            return [ended[name] for name in names]
        tried += 1


@dataclass(frozen=True, slots=True)
class _Prepared:
    settings: Settings
    pipeline: dlt.Pipeline


@dataclass(frozen=True, slots=True)
class _Ended:
    """A tenant that is done; `prepared` is None where its settings do not work.

    `begun`: the id of the run that an error ended.
    """

    load: TenantLoad
    prepared: _Prepared | None = None
    begun: str | None = None


def _require_one(names: Sequence[str], accept_drop: int, overridden: set[str]) -> None:
    if len(names) < 2:
        return
    if accept_drop:
        raise ConfigurationError("accept_drop is for one tenant. Give the name of one.")
    if overridden & SCOPE_KEYS:
        raise ConfigurationError("A list of scopes is that of one tenant. Give the name of one.")


def _load_one(
    name: str,
    prepare: Callable[[str], _Prepared],
    load: Callable[[_Prepared, LoadProgress], LoadResult],
    watch: Watch,
    request: StopRequest,
    busy: WarehouseBusy | None,
) -> _Ended:
    prepared: _Prepared | None = None
    tenant_key: str | None = None
    progress = LoadProgress()
    try:
        prepared = prepare(name)
        tenant_key = prepared.settings.tenant_key
        if busy is not None:
            keep_failure(prepared.pipeline, busy)
            raise busy
        if request.reason is not None:
            raise RunStopped(f"Not begun: {request.reason}. Nothing was changed; the next load begins anew.")
        with watch(name, progress):
            result = load(prepared, progress)
    except CockpitError as error:
        run_id = progress.record.run_id if progress.record else None
        return _Ended(TenantLoad(name, tenant_key, error=error), prepared, run_id)
    except KeyboardInterrupt:
        if request.reason is None:
            raise
        stopped = RunStopped(
            "Interrupted before the first scope was read. Nothing was changed; the next load begins anew."
        )
        return _Ended(TenantLoad(name, tenant_key, error=stopped), prepared)
    except Exception:  # noqa: BLE001 - whatever happened to this tenant, the others are loaded
        return _Ended(TenantLoad(name, tenant_key, error=CockpitError(describe_defect())), prepared)
    return _Ended(TenantLoad(name, tenant_key, result=result), prepared)


def _find_busy(ended: Sequence[_Ended]) -> WarehouseBusy | None:
    """The error about a file that another program held for as long as the load was willing to wait."""
    errors = (one.load.error for one in ended)
    return next((e for e in errors if isinstance(e, WarehouseBusy) and not isinstance(e, AnotherRun)), None)


def _finish(ended: Sequence[_Ended], note: Callable[[str], None]) -> None:
    """Refresh the marts and publish the read copy, where anything was loaded; then tell the hooks of each tenant."""
    fresh = [(one.load.name, one.prepared) for one in ended if one.load.result and one.prepared]
    if fresh:
        settings, pipeline = fresh[0][1].settings, fresh[0][1].pipeline
        if settings.refresh_marts:
            _refresh_marts([MartTenant(name, one.pipeline, one.settings) for name, one in fresh], note)
        if settings.publish_read_copy:
            try:
                with one_runner(pipeline):
                    publish_pipeline(pipeline, wait_seconds=settings.lock_wait_seconds, note=note)
            except CockpitError as error:
                note(f"The read copy was not published; the loads are not affected. {error}")
    for one in ended:
        outcome = one.load.result or one.load.error
        if one.prepared is not None and outcome is not None and not isinstance(outcome, NothingToRetry):
            tell_after_run(one.prepared.settings, outcome, note)


def _refresh_marts(tenants: Sequence[MartTenant], note: Callable[[str], None]) -> None:
    """Refresh the marts; what goes wrong is noted, since the loads themselves are done."""
    try:
        refreshed = refresh_tenants(tenants, publish=False, note=note)
    except CockpitError as error:
        note(f"The marts were not refreshed; the loads are not affected. {error}")
        return
    for lists in refreshed.tenants:
        for text in lists.notes:
            note(f"{lists.name}: {text}")


def _watch_nothing(name: str, progress: LoadProgress) -> AbstractContextManager[object]:  # noqa: ARG001 - a Watch
    return nullcontext()


def _ignore(text: str) -> None:
    """Takes notes where nobody wants any."""
