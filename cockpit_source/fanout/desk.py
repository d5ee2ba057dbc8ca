"""The desk on the scheduler, which every worker reaches: budgets, tokens and the state of runs.

Everything here is called on the event loop of the scheduler, and nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol import to_serialize

from cockpit_source.fanout.budget import EndingRecord, SharedBudget
from cockpit_source.fanout.messages import PACKAGE, TokenBox

DESK_NAME = f"cockpit-desk {PACKAGE}"
# a budget is kept after its last run, with what it has learned
_FORGET_AFTER_SECONDS = 3600.0
# a run whose process is gone, for tasks that still ask
_GONE_SECONDS = 600.0


@dataclass(slots=True)
class _Run:
    budget: str
    client: str
    silent_after: float
    stop_reason: str | None = None
    gone_at: float | None = None
    # of Dask's own type: opaque here
    token: Any = None
    serial: int = 0
    refused_serial: int = -1
    requests: int = 0
    throttled: int = 0
    peak: int = 0
    in_flight: dict[str, int] = field(default_factory=dict)
    # by the key of its task: where it runs, and when it was heard of
    heard: dict[str, tuple[str, float]] = field(default_factory=dict)


class Desk(SchedulerPlugin):  # type: ignore[misc]
    """A plugin of the scheduler; its methods that begin with `cockpit_` are what may be asked."""

    name = DESK_NAME
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Scheduler | None = None
        self._budgets: dict[str, SharedBudget] = {}
        self._used_at: dict[str, float] = {}
        self._runs: dict[str, _Run] = {}

    async def start(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        names = [name for name in dir(self) if name.startswith("cockpit_")]
        scheduler.handlers.update({name: getattr(self, name) for name in names})

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002
        """Stop the runs of a process that is gone."""
        for run in self._runs.values():
            if run.client == client:
                # what was read is written all the same, for the next process
                run.stop_reason = run.stop_reason or "the process that loads is gone"
                run.token, run.gone_at = None, time.monotonic()

    def cockpit_open(
        self,
        run: str,
        budget: str,
        client: str,
        max_concurrency: int,
        max_requests_per_second: float | None,
        silent_after: float,
    ) -> None:
        """Begin a run, with the budget of its tenant; one that is there goes on with what it has learned."""
        now = time.monotonic()
        for name, used_at in list(self._used_at.items()):
            if now - used_at > _FORGET_AFTER_SECONDS:
                self._budgets.pop(name, None)
                del self._used_at[name]
        self._runs = {
            name: known
            for name, known in self._runs.items()
            if known.gone_at is None or now - known.gone_at < _GONE_SECONDS
        }
        bounds = (max_concurrency, max_requests_per_second)
        known = self._budgets.get(budget)
        # of two runs of a tenant at a time, the bounds of the first count
        if known is None or (known.bounds != bounds and known.is_idle):
            self._budgets[budget] = SharedBudget(*bounds)
        self._used_at[budget] = now
        self._runs[run] = _Run(budget, client, silent_after)

    def cockpit_close(self, run: str) -> None:
        """End a run: what is still read for it stops."""
        self._runs.pop(run, None)

    def cockpit_stop(self, run: str, reason: str) -> None:
        """Let no further call of a run start."""
        if run in self._runs:
            self._runs[run].stop_reason = self._runs[run].stop_reason or reason

    def cockpit_put_token(self, run: str, token: Any, serial: int) -> None:
        """Keep a token for the workers of a run."""
        if run in self._runs:
            self._runs[run].token, self._runs[run].serial = token, serial

    def cockpit_get_token(self, run: str, refused: int = -1) -> Any:
        """The token of a run as it was put; `refused` is the serial of one that the API turned down."""
        found = self._runs.get(run)
        if found is None:
            return None
        found.refused_serial = max(found.refused_serial, refused)
        if found.serial <= refused:
            return None
        return to_serialize(found.token) if isinstance(found.token, TokenBox) else found.token

    def cockpit_exchange(
        self,
        run: str,
        key: str,
        member: str,
        worker: str,
        endings: Sequence[EndingRecord] = (),
        unused: int = 0,
        waiting: int = 0,
        hold_seconds: float = 0.0,
        was_full: bool = False,
        started: int = 0,
        in_flight: int = 0,
        leaves: bool = False,
    ) -> dict[str, Any]:
        """What a task tells of its calls, and what it may do next."""
        found = self._runs.get(run)
        if found is None:
            return {"stop_reason": "the run has ended", "is_over": True}
        found.heard[key] = (worker, time.monotonic())
        found.requests += started
        found.throttled += sum(ending[2] == "THROTTLED" for ending in endings)
        found.in_flight[member] = in_flight
        found.peak = max(found.peak, sum(found.in_flight.values()))
        budget = self._budgets[found.budget]
        grant = budget.exchange(
            member,
            [(since_start, since_end, name, asked) for since_start, since_end, name, asked in endings],
            unused=unused,
            waiting=0 if leaves or found.stop_reason else waiting,
            hold_seconds=hold_seconds,
            was_full=was_full,
        )
        if leaves:
            budget.leave(member)
            found.in_flight.pop(member, None)
        return {
            "stop_reason": found.stop_reason,
            "now": time.monotonic(),
            "starts": grant.starts,
            "most": grant.most,
            "hold": grant.hold,
            "ask_again": grant.ask_again,
            "allowed": budget.allowed,
            "serial": found.serial,
        }

    def cockpit_status(self, run: str) -> dict[str, Any] | None:
        """The fields of `RunStatus`; None for a run that is not known."""
        found = self._runs.get(run)
        if found is None:
            return None
        assert self._scheduler is not None  # noqa: S101 - it has started
        now = time.time()
        workers = self._scheduler.workers.values()
        self._used_at[found.budget] = time.monotonic()
        return {
            "requests": found.requests,
            "throttled": found.throttled,
            "in_flight": sum(found.in_flight.values()),
            "peak": found.peak,
            "allowed": self._budgets[found.budget].allowed,
            "refused_serial": found.refused_serial,
            "silent": [key for key, heard in found.heard.items() if self._is_silent(key, heard, found.silent_after)],
            "workers": sorted(state.address for state in workers),
            "stale": [state.address for state in workers if now - state.last_seen > found.silent_after],
        }

    def _is_silent(self, key: str, heard: tuple[str, float], seconds: float) -> bool:
        """Whether a task still runs where it was heard of, too long ago."""
        assert self._scheduler is not None  # noqa: S101 - it has started
        task = self._scheduler.tasks.get(key)
        worker, moment = heard
        runs_there = task is not None and task.processing_on is not None and task.processing_on.address == worker
        return runs_there and time.monotonic() - moment > seconds
