"""What runs on a worker: one task reads one shard and leaves its batches in the inbox.

It returns whatever happens, since Dask writes a task that raises into its logs, with its arguments.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

from distributed import Worker, get_worker

from cockpit_source.auth import Token
from cockpit_source.client import CockpitClient
from cockpit_source.errors import RunStopped, SignInError
from cockpit_source.fanout.inbox import Inbox, InboxError
from cockpit_source.fanout.leased_pace import LeasedPace
from cockpit_source.fanout.messages import Shard, ShardResult, TokenBox
from cockpit_source.fetch import Fetcher, utc_now
from cockpit_source.outcomes import ScopeResult
from cockpit_source.redaction import redact
from cockpit_source.scopes import ListedScope
from cockpit_source.spool import batch_results, to_batch
from cockpit_source.stopping import StopRequest
from cockpit_source.transport import Transport

_TOKEN_PATIENCE_SECONDS = 60.0
_TOKEN_POLL_SECONDS = 0.1
_FAILURES = frozenset({"failed", "deferred"})
_REMEMBERED_RUNS = 1_000


def dask_setup(worker: Worker) -> None:  # noqa: ARG001 - so Dask calls it
    """For the workers that a load starts itself: Ctrl+C reaches them too, and is for the load to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def read_shard(shard: Shard) -> ShardResult:
    """Read the scopes of a shard, without those that an attempt before this one has left in the inbox."""
    try:
        return _ShardReader(shard, get_worker()).read()
    except InboxError as error:
        return ShardResult(problem=str(error))
    except Exception as error:  # noqa: BLE001 - see above
        return ShardResult(problem=f"an unexpected error: {redact(f'{type(error).__name__}: {error}')}")


class _ShardReader:
    def __init__(self, shard: Shard, worker: Worker) -> None:
        self._shard = shard
        self._worker = worker
        self._member = f"{shard.key}-{uuid.uuid4().hex[:8]}"
        self._inbox = Inbox(shard.inbox)
        self._prefix = f"{shard.number:06d}"
        self._tally = _Tally()

    def read(self) -> ShardResult:
        transport = _transports.take(self._shard)
        stop_request = StopRequest()
        pace = LeasedPace(self._exchange, stop_request)
        # the desk hears of the task before anything that may take long
        touch = transport.submit(pace.keep_in_touch())
        try:
            fetcher = self._create_fetcher(transport, pace, stop_request)
            names = self._inbox.names(f"{self._prefix}.")
            with closing(fetcher.fetch(self._without(names))) as results:
                for tried in batch_results(self._tried(results)):
                    if pace.is_run_over:
                        break
                    names.append(self._inbox.publish(self._prefix, to_batch(tried)))
        finally:
            transport.run(_call(pace.close))
            touch.result()
            transport.run(pace.leave())
            _transports.give_back(self._shard, transport)
        return ShardResult(
            tuple(names),
            self._tally.failures_at_end,
            self._tally.has_success,
            stop_reason=fetcher.stop_reason,
            sign_in_error=None if fetcher.sign_in_error is None else str(fetcher.sign_in_error),
            problem=pace.problem,
        )

    def _create_fetcher(self, transport: Transport, pace: LeasedPace, stop_request: StopRequest) -> Fetcher:
        settings = self._shard.settings.to_settings()
        tokens = _DeskTokens(self._shard, self._ask, pace)
        return Fetcher(
            CockpitClient(settings, pacer=pace, transport=transport, tokens=tokens),
            pace,
            max_concurrency=min(settings.max_concurrency, len(self._shard.scopes)),
            stop_request=stop_request,
            now=lambda: self._shard.as_of or utc_now(),
        )

    def _without(self, names: Iterable[str]) -> list[ListedScope]:
        done: set[str] = set()
        for name in names:
            batch = self._inbox.read(name)
            if batch is not None:
                done.update(batch["scope_key"].to_pylist())
        return [listed for listed in self._shard.scopes if listed.scope_key not in done]

    def _tried(self, results: Iterable[ScopeResult]) -> Iterator[ScopeResult]:
        """Without the skipped ones: who gave the shard out decides what becomes of them."""
        for result in results:
            if result.outcome != "skipped":
                self._tally.count(result)
                yield result

    async def _exchange(self, report: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self._ask(
            "exchange", key=self._shard.key, member=self._member, worker=self._worker.address, **report
        )
        return answer

    async def _ask(self, what: str, **arguments: Any) -> Any:
        """Ask the desk, from the loop of the calls; Dask's connections belong to the loop of the worker."""
        question = getattr(self._worker.scheduler, f"cockpit_{what}")(run=self._shard.run_id, **arguments)
        future = asyncio.run_coroutine_threadsafe(_await(question), self._worker.loop.asyncio_loop)
        return await asyncio.wrap_future(future)


async def _await(awaitable: Any) -> Any:
    return await awaitable


async def _call(function: Callable[[], None]) -> None:
    function()


class _Tally:
    """How many of the last results were failures."""

    def __init__(self) -> None:
        self.failures_at_end = 0
        self.has_success = False

    def count(self, result: ScopeResult) -> None:
        if result.outcome in _FAILURES:
            self.failures_at_end += 1
        else:
            self.failures_at_end, self.has_success = 0, True


class _DeskTokens:
    """Tokens that the process that loads puts on the desk; it alone signs in, and renews what is refused."""

    def __init__(self, shard: Shard, ask: Any, pace: LeasedPace) -> None:
        self._known = _tokens.setdefault(shard.run_id, _KnownToken())
        self._ask = ask
        self._pace = pace
        self._lock = asyncio.Lock()

    async def current(self) -> Token:
        known = self._known
        if known.token is None or known.serial < self._pace.serial:
            async with self._lock:
                if known.token is None or known.serial < self._pace.serial:
                    await self._fetch(refused=-1)
        assert self._known.token is not None  # noqa: S101 - fetched, or an error was raised
        return self._known.token

    async def renew(self, refused: Token) -> Token:
        async with self._lock:
            if self._known.token is refused:
                await self._fetch(refused=self._known.serial)
        return await self.current()

    async def _fetch(self, refused: int) -> None:
        """Wait until the desk has a token that is newer than the one refused."""
        give_up_at = time.monotonic() + _TOKEN_PATIENCE_SECONDS
        while time.monotonic() < give_up_at and not self._pace.stop.is_set():
            box = await self._ask("get_token", refused=refused)
            if isinstance(box, TokenBox):
                if box.serial > self._known.serial or self._known.token is None:
                    self._known.token, self._known.serial = Token(box.value), box.serial
                return
            await asyncio.sleep(_TOKEN_POLL_SECONDS)
        if self._pace.stop.is_set():
            raise RunStopped("The run ended before there was a token.")
        raise SignInError("The worker was given no access token that the API takes.")


class _KnownToken:
    def __init__(self) -> None:
        self.token: Token | None = None
        self.serial = 0


class _Transports:
    """Connections that one task leaves to the next of the same run, until that ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[str, list[Transport]] = {}
        self._ended: deque[str] = deque(maxlen=_REMEMBERED_RUNS)

    def take(self, shard: Shard) -> Transport:
        with self._lock:
            free = self._free.get(shard.run_id)
            if free:
                return free.pop()
        return Transport(shard.settings.timeout_seconds, shard.settings.max_concurrency)

    def give_back(self, shard: Shard, transport: Transport) -> None:
        with self._lock:
            if shard.run_id not in self._ended:
                self._free.setdefault(shard.run_id, []).append(transport)
                return
        # its run ended without it
        transport.close()

    def forget(self, run_id: str) -> None:
        """Close what is kept for a run."""
        with self._lock:
            self._ended.append(run_id)
            closing = self._free.pop(run_id, [])
        for old in closing:
            old.close()


_transports = _Transports()
_tokens: dict[str, _KnownToken] = {}


def forget_run(run_id: str) -> None:
    """Drop the connections and the token that this worker keeps for a run."""
    _tokens.pop(run_id, None)
    _transports.forget(run_id)


def probe_inbox(url: str, name: str) -> tuple[str | None, str | None]:
    """Look for a file of the caller in the inbox, and copy it to one of this worker.

    Gives the name of the copy, None where the file is not there, and why the inbox cannot be used, if it cannot.
    """
    try:
        inbox = Inbox(url)
        content = inbox.get(name)
        if content is None:
            return None, None
        copy = f"{name}-{uuid.uuid4().hex}"
        inbox.put(copy, content)
        return copy, None
    except Exception as error:  # noqa: BLE001 - told to the caller, whatever it is
        return None, redact(str(error))
