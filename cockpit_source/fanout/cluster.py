"""A connection to a Dask cluster that has been checked, for the loads of this process."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster

from cockpit_source.errors import ConfigurationError
from cockpit_source.fanout import worker
from cockpit_source.fanout.desk import Desk
from cockpit_source.fanout.inbox import Inbox
from cockpit_source.fanout.messages import PACKAGE
from cockpit_source.fanout.reader import DaskReading
from cockpit_source.fanout.turns import Turns
from cockpit_source.reading import Reading, ReadingJob
from cockpit_source.redaction import redact

LOCAL = "local"
LOCAL_WORKERS = 2
# tasks wait for the API most of the time; each tenant has one at a time on a worker
LOCAL_THREADS = 8
_CONNECT_SECONDS = 10.0
_WORKER_SECONDS = 10.0
_ANSWER_SECONDS = 60.0


class DaskFanOut(Turns):
    """Reads on the workers of a cluster, for one run or several at once; see `FanOut`."""

    def __init__(self, client: Client, address: str) -> None:
        super().__init__()
        self._client = client
        self._address = address

    def open_reading(self, job: ReadingJob) -> Reading:
        reading = DaskReading(self._client, self._address, job)
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        if told := describe_open_network([str(self._client.scheduler.address), *workers]):
            job.note(told)
        _check_inbox(self._client, reading.inbox)
        return reading


@contextmanager
def connect(address: str) -> Iterator[DaskFanOut]:
    """A checked cluster; see `fan_out_by_dask`."""
    with ExitStack() as stack:
        stack.enter_context(_quiet_dask())
        client = _open_client(address, stack)
        _check_workers(client, address)
        _check_versions(client, address)
        client.register_plugin(Desk())
        yield DaskFanOut(client, address)


def _open_client(address: str, stack: ExitStack) -> Client:
    try:
        if address == LOCAL:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cockpit-dask-"))
            cluster = LocalCluster(
                n_workers=LOCAL_WORKERS,
                threads_per_worker=LOCAL_THREADS,
                processes=True,
                host="127.0.0.1",
                # of its pages there is none, see `_quiet_dask`; any free port will do for that
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                memory_limit=0,
                local_directory=folder,
                silence_logs=logging.CRITICAL,
                preload=[worker.__name__],
            )
            stack.enter_context(cluster)
            return stack.enter_context(Client(cluster, set_as_default=False))
        return stack.enter_context(Client(address, timeout=_CONNECT_SECONDS, set_as_default=False))
    except (OSError, ValueError, TypeError) as error:
        reason = redact(str(error).strip().split("\n")[0]).rstrip(".")
        raise ConfigurationError(
            f"No Dask scheduler answers at {redact(address)}: {reason}. Start one with `dask scheduler`, or correct "
            "--dask: an address such as tcp://scheduler.example.com:8786, or local for two workers on this machine."
        ) from error


def describe_open_network(addresses: Iterable[str]) -> str | None:
    """What to say where access tokens leave this machine in clear text, to a cluster at `addresses`; else None."""
    for address in addresses:
        protocol, _, rest = address.partition("://")
        host = rest.rpartition(":")[0].strip("[]")
        if protocol not in ("inproc", "tls", "wss") and host not in ("127.0.0.1", "::1", "localhost"):
            return (
                f"Access tokens cross the network in clear text: a part of the cluster is at {redact(address)}. "
                "Where others share that network, use Dask's TLS (tls://)."
            )
    return None


def _check_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise ConfigurationError(
            f"The Dask scheduler at {redact(address)} has no workers. Start some, for example "
            f"`dask worker {redact(address)} --nthreads 8`, with the same version of this package; then run again."
        ) from None


def _check_versions(client: Client, address: str) -> None:
    """Whether all have the same Python, Dask and package; a task would fail in ways that nobody understands."""
    facts = client.get_versions()
    ours = _essential(facts["client"])
    theirs = {"the scheduler": facts["scheduler"]} | {f"worker {name}": w for name, w in facts["workers"].items()}
    different = [f"{who} has {_essential(record)}" for who, record in theirs.items() if _essential(record) != ours]
    if different:
        _refuse_versions(address, different, ours)
    question = _package_question()
    installed = {"the scheduler": client.run_on_scheduler(question)}
    installed |= {f"worker {name}": answer for name, answer in client.run(question).items()}
    different = [f"{who} has {answer}" for who, answer in installed.items() if answer != PACKAGE]
    if different:
        _refuse_versions(address, different, PACKAGE)


def _refuse_versions(address: str, different: list[str], ours: str) -> None:
    more = f", and {len(different) - 3} more" if len(different) > 3 else ""
    raise ConfigurationError(
        f"The Dask cluster at {redact(address)} does not fit: {'; '.join(different[:3])}{more}, and this process has "
        f'{ours}. Install the same versions everywhere (pip install -c constraints.txt ".[dask]"), restart '
        "scheduler and workers, and run again."
    )


def _essential(record: dict[str, Any]) -> str:
    python = ".".join(str(record["host"]["python"]).split(".")[:2])
    return f"Python {python} with distributed {record['packages']['distributed']}"


def _package_question() -> Callable[[], str]:
    def ask() -> str:
        # sent by value, since the other side may not have this module
        try:
            from cockpit_source.fanout import messages
        except ImportError as error:
            return f"no usable cockpit-source ({error})"
        return messages.PACKAGE

    return ask


def _check_inbox(client: Client, inbox: Inbox) -> None:
    """Whether every worker sees what this process writes, and this process what they write."""
    name = f"probe-{uuid.uuid4().hex}"
    inbox.put(name, b"probe")
    names = [name]
    problems: list[str] = []
    try:
        answers = client.sync(client._run, worker.probe_inbox, inbox.url, name, callback_timeout=_ANSWER_SECONDS)
        for address, (copy, problem) in answers.items():
            if copy is not None:
                names.append(copy)
            if problem is not None:
                problems.append(f"worker {address}: {problem}")
            elif copy is None:
                problems.append(f"worker {address} does not see what this process writes there")
            elif inbox.get(copy) is None:
                problems.append(f"what worker {address} writes there is not seen by this process")
    except TimeoutError:
        problems.append(f"a worker did not answer in {_ANSWER_SECONDS:g} s")
    finally:
        for written in names:
            inbox.discard(written)
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigurationError(
            f"The workers cannot leave what they read in {inbox.url}: {'; '.join(problems[:3])}{more}. Set spool_url "
            "to a folder that this process and all workers share, or to an object store such as s3://bucket/spool."
        )


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """What goes wrong is said in our words, once; a cluster of this process serves no page."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado.application")]
    usual = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with dask.config.set(
            {
                "distributed.logging": {"distributed": "critical"},
                "distributed.scheduler.http.routes": [],
                "distributed.worker.http.routes": [],
            }
        ):
            yield
    finally:
        for logger, level in zip(loggers, usual, strict=True):
            logger.setLevel(level)
