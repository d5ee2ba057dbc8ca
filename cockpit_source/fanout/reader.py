"""One run read by the workers of a Dask cluster: shards given out, batches taken from the inbox into the spool.

Each worker has one shard of a run at a time. Whatever a shard's tasks leave in the inbox, each scope is taken once:
the first batch that holds it counts. What is left of a shard when its task returns, or is lost, is given out again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, Future
from distributed.protocol import to_serialize

from cockpit_source.auth import Token
from cockpit_source.configuration import project_folder
from cockpit_source.errors import CockpitError, SignInError
from cockpit_source.fanout.inbox import Inbox
from cockpit_source.fanout.messages import CallSettings, RunStatus, Shard, ShardResult, TokenBox
from cockpit_source.fanout.worker import forget_run, read_shard
from cockpit_source.fetch import MAX_FAILURES_IN_A_ROW
from cockpit_source.outcomes import skip
from cockpit_source.reading import ReadingJob, SpoolWriter
from cockpit_source.redaction import redact
from cockpit_source.scopes import ListedScope
from cockpit_source.spool import batch_results, to_batch

SHARD_SCOPES = (50, 500)
"""The least and the most scopes of a shard, which is what a worker that dies may cost a second time."""
_SHARDS_PER_WORKER = 4
_MAX_ATTEMPTS = 3
_WATCH_SECONDS = 0.2
# what open shards still get when the run ends early: the grace of their calls, and the way back
_STOP_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_FORGET_SECONDS = 1.0


@dataclass(slots=True)
class _ShardState:
    """A shard that was begun: the scopes without a result yet, by key."""

    left: dict[str, ListedScope]
    lost: int = 0


@dataclass(slots=True)
class _Attempt:
    shard: Shard
    worker: str
    future: Future


@dataclass(slots=True)
class _Stop:
    """Why and when a run was ended early."""

    reason: str
    at: float = field(default_factory=time.monotonic)


class DaskReading:
    """A `Reading`; `inbox` is where its workers leave their batches."""

    def __init__(self, client: Client, address: str, job: ReadingJob) -> None:
        self._client = client
        self._address = address
        self._job = job
        self._run_id = job.run.info.run_id
        self._works = Inbox(f"{_spool_url(job)}/{job.work.name}")
        self.inbox = Inbox(f"{self._works.url}/{self._run_id}")
        self._writer = SpoolWriter(job)
        self._abandoned = threading.Event()
        self._stop: _Stop | None = None
        self._sign_in_error: SignInError | None = None
        self._token: Token | None = None
        self._serial = 0
        self._own_requests = job.client.calls.requests
        self._returned: SimpleQueue[str] = SimpleQueue()
        self._open: dict[str, _Attempt] = {}
        self._states: dict[int, _ShardState] = {}
        self._again: deque[Shard] = deque()
        self._number = 0
        self._failures_in_a_row = 0
        self._workers: Sequence[str] = ()
        self._stale: frozenset[str] = frozenset()
        self._watched_at = 0.0
        self._useful_at = time.monotonic()

    @property
    def stop_reason(self) -> str | None:
        return None if self._stop is None else self._stop.reason

    @property
    def sign_in_error(self) -> SignInError | None:
        return self._sign_in_error

    def abandon(self, reason: str) -> None:  # noqa: ARG002
        self._abandoned.set()

    def read(self, already: Sequence[Path]) -> None:
        try:
            self._begin()
            try:
                self._take_left_behind(already)
                scopes = self._job.run.scope_list.iter_scopes(self._job.run.spool.batches())
                self._read_all(scopes)
                if not self._abandoned.is_set():
                    self._skip_rest(scopes)
            finally:
                self._end()
            if not self._abandoned.is_set():
                self.inbox.remove()
            self._job.queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the packages are loaded
            self._job.queue.put(self._explain(error))

    def _begin(self) -> None:
        settings = self._job.settings
        self._ask(
            "open",
            budget=_budget_name(settings.base_url, settings.tenant),
            client=self._client.id,
            max_concurrency=settings.max_concurrency,
            max_requests_per_second=settings.max_requests_per_second,
            silent_after=settings.shard_timeout_seconds,
        )
        for name in self._works.folders():
            if name != self._run_id:
                Inbox(f"{self._works.url}/{name}").remove()

    def _end(self) -> None:
        """Stop what still runs for this run, as far as the scheduler can be reached."""
        try:
            if self._client.status == "running":
                self._watch_calls()
                self._ask("close")
                self._client.cancel([attempt.future for attempt in self._open.values()], force=True)
                # a worker may be stopped and never answer
                self._client.sync(
                    self._client._run,
                    forget_run,
                    self._run_id,
                    on_error="ignore",
                    callback_timeout=_FORGET_SECONDS,
                )
        except (OSError, TimeoutError):
            pass

    def _take_left_behind(self, already: Sequence[Path]) -> None:
        """Take over batches that the workers of an interrupted process left, without scopes that are spooled."""
        found = {name: self.inbox.read(name) for name in self.inbox.names()}
        keys = {key for batch in found.values() if batch is not None for key in batch["scope_key"].to_pylist()}
        for path in already if keys else ():
            keys.difference_update(pq.read_table(path, columns=["scope_key"])["scope_key"].to_pylist())
        for name, batch in found.items():
            if batch is not None:
                self._write(batch, keys)
            self.inbox.discard(name)

    def _read_all(self, scopes: Iterator[ListedScope]) -> None:
        is_more = True
        while not self._abandoned.is_set():
            self._watch()
            if self._stop is None:
                is_more = self._give_out(scopes)
            elif time.monotonic() - self._stop.at > _STOP_SECONDS:
                return
            if not self._open and (self._stop is not None or not (is_more or self._again)):
                return
            try:
                key = self._returned.get(timeout=_WATCH_SECONDS / 4)
            except Empty:
                continue
            self._take(key)

    def _give_out(self, scopes: Iterator[ListedScope]) -> bool:
        """Give every worker that has none a shard; whether there may be more."""
        busy = {attempt.worker for attempt in self._open.values()}
        for worker in self._workers:
            if worker in busy or worker in self._stale:
                continue
            shard = self._again.popleft() if self._again else self._next_shard(scopes)
            if shard is None:
                return False
            self._submit(shard, worker)
        return True

    def _next_shard(self, scopes: Iterator[ListedScope]) -> Shard | None:
        least, most = SHARD_SCOPES
        size = self._job.run.info.total // max(1, len(self._workers) * _SHARDS_PER_WORKER)
        chunk = tuple(islice(scopes, min(most, max(least, size))))
        if not chunk:
            return None
        self._number += 1
        self._states[self._number] = _ShardState({listed.scope_key: listed for listed in chunk})
        settings = self._job.settings
        return Shard(
            self._run_id,
            self._number,
            1,
            CallSettings.of(settings),
            self.inbox.url,
            chunk,
            self._job.as_of,
        )

    def _submit(self, shard: Shard, worker: str) -> None:
        # to this worker, so that each has one of the run, and elsewhere only if it dies
        future = self._client.submit(
            read_shard, shard, key=shard.key, workers=[worker], allow_other_workers=True, pure=False
        )
        self._open[shard.key] = _Attempt(shard, worker, future)
        future.add_done_callback(lambda _, key=shard.key: self._returned.put(key))

    def _take(self, key: str) -> None:
        """Take over what a task has read, and give out again what it has not."""
        attempt = self._open.pop(key, None)
        if attempt is None:
            # given up before it returned
            return
        shard, state = attempt.shard, self._states.get(attempt.shard.number)
        error = attempt.future.exception() if attempt.future.status == "error" else None
        if attempt.future.status not in ("finished", "error"):
            self._check_connection()
            error = CockpitError(f"its task was {attempt.future.status}")
        if state is None:
            return
        if error is not None:
            self._lose(
                shard, f"its task failed: {type(error).__name__}", is_last=type(error).__name__ == "KilledWorker"
            )
            return
        result: ShardResult = attempt.future.result()
        for name in result.batches:
            batch = self.inbox.read(name)
            if batch is not None:
                self._write(batch, state.left)
            self.inbox.discard(name)
        self._judge(shard, state, result)

    def _judge(self, shard: Shard, state: _ShardState, result: ShardResult) -> None:
        """What a result means for the rest of its shard and for the run."""
        self._failures_in_a_row = result.failures_at_end + (0 if result.has_success else self._failures_in_a_row)
        if not state.left:
            del self._states[shard.number]
            if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                self._stop_run(f"{self._failures_in_a_row} scopes in a row failed")
        elif self._stop is None and result.sign_in_error is not None:
            self._sign_in_error = self._sign_in_error or SignInError(result.sign_in_error)
            self._stop_run("the sign-in failed")
        elif self._stop is None and result.problem is not None:
            self._check_connection()
            self._lose(shard, result.problem)
        elif self._stop is None and result.stop_reason is not None:
            self._stop_run(result.stop_reason)
        elif self._stop is None:
            self._lose(shard, "some of its batches were not found in the spool")

    def _lose(self, shard: Shard, reason: str, *, is_last: bool = False) -> None:
        """Give out again what is left of a shard; after some attempts its scopes are skipped."""
        state = self._states.get(shard.number)
        if state is None:
            return
        state.lost += 1
        if state.lost < _MAX_ATTEMPTS and not is_last:
            self._again.append(shard.again(tuple(state.left.values())))
            return
        self._job.note(
            f"{len(state.left)} scopes were skipped, since workers failed to read them again and again: {reason}"
        )
        self._skip(state.left.values(), f"no Dask worker could read it: {reason}")
        del self._states[shard.number]

    def _write(self, batch: pa.Table, left: dict[str, ListedScope] | set[str]) -> None:
        """Spool the rows of a batch whose scopes are in `left`, and take them out of it."""
        keys = batch["scope_key"].to_pylist()
        is_new = [key in left for key in keys]
        if any(is_new):
            self._writer.write(batch if all(is_new) else batch.filter(pa.array(is_new)))
        for key in keys:
            if isinstance(left, set):
                left.discard(key)
            else:
                left.pop(key, None)

    def _skip_rest(self, scopes: Iterator[ListedScope]) -> None:
        reason = self.stop_reason or "the run was stopped"
        for state in self._states.values():
            self._skip(state.left.values(), reason)
        self._skip(scopes, reason)

    def _skip(self, scopes: Iterable[ListedScope], reason: str) -> None:
        skipped = (skip(listed, reason, self._job.now()) for listed in scopes)
        for batch in batch_results(skipped):
            self._writer.write(to_batch(batch))

    def _watch(self) -> None:
        """Look after tokens, silent tasks and workers, and whether to end, every now and then."""
        now = time.monotonic()
        if now - self._watched_at < _WATCH_SECONDS:
            return
        self._watched_at = now
        self._check_connection()
        request = self._job.stop_request
        if request.reason is not None:
            self._stop_run(request.reason)
        elif self._job.deadline is not None and now >= self._job.deadline:
            self._stop_run("run_deadline_minutes was reached")
        status = self._watch_calls()
        self._watch_token(status.refused_serial)
        self._watch_workers(now, status)

    def _watch_calls(self) -> RunStatus:
        status = RunStatus.of(self._ask("status") or {})
        calls = self._job.client.calls
        calls.requests = self._own_requests + status.requests
        calls.throttled, calls.in_flight = status.throttled, status.in_flight
        calls.peak, calls.allowed = status.peak, status.allowed
        return status

    def _watch_token(self, refused_serial: int) -> None:
        if self._stop is not None:
            return
        try:
            token = self._job.client.sign_in()
            if self._token is not None and refused_serial >= self._serial:
                token = self._job.client.renew(self._token)
        except SignInError as error:
            self._sign_in_error = error
            self._stop_run("the sign-in failed")
            return
        if token is not self._token:
            self._token, self._serial = token, self._serial + 1
            box = to_serialize(TokenBox(token.value, self._serial))
            self._ask("put_token", token=box, serial=self._serial)

    def _watch_workers(self, now: float, status: RunStatus) -> None:
        seconds = self._job.settings.shard_timeout_seconds
        self._workers, self._stale = status.workers, frozenset(status.stale)
        for key, attempt in list(self._open.items()):
            if key in status.silent or attempt.worker in self._stale:
                del self._open[key]
                self._lose(attempt.shard, f"nothing was heard of it for {seconds:g} s")
        if set(self._workers) - self._stale:
            self._useful_at = now
        elif now - self._useful_at > seconds:
            raise CockpitError(
                f"The Dask cluster at {redact(self._address)} has no worker left that answers. What was read is in "
                "the spool. Start workers and run again; the load carries on."
            )

    def _stop_run(self, reason: str) -> None:
        if self._stop is None:
            self._stop = _Stop(reason)
            self._ask("stop", reason=reason)

    def _ask(self, what: str, **arguments: Any) -> Any:
        question = getattr(self._client.scheduler, f"cockpit_{what}")
        return self._client.sync(question, callback_timeout=_ANSWER_SECONDS, run=self._run_id, **arguments)

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise self._lost("its connection was closed")

    def _lost(self, reason: str) -> CockpitError:
        return CockpitError(
            f"The Dask scheduler at {redact(self._address)} was lost: {reason}. What was read is in the spool. Start "
            "it again, with its workers, and run again; the load carries on."
        )

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, OSError | TimeoutError) and not isinstance(error, CockpitError):
            lost = self._lost(redact(str(error).strip().split("\n")[0]).rstrip(".") or type(error).__name__)
            lost.__cause__ = error
            return lost
        return error


def _spool_url(job: ReadingJob) -> str:
    """The folder of all inboxes, without a slash at its end."""
    configured = job.settings.spool_url
    if configured is None:
        return str(job.work.parent.parent / "cockpit_inbox")
    return (configured if "://" in configured else str(project_folder() / configured)).rstrip("/")


def _budget_name(base_url: str, tenant: str) -> str:
    return hashlib.sha256(f"{base_url}|{tenant}".lower().encode()).hexdigest()[:12]
