"""A sandbox in a process of its own, for benchmarks and for tests that kill the client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import urlsplit

from cockpit_source.sandbox.credentials import TOKEN_PATH
from cockpit_source.sandbox.settings import SettingValues

_SOURCE_FOLDER = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class SpawnedSandbox:
    """A sandbox in a child process; steered over HTTP."""

    base_url: str
    pid: int

    @property
    def token_url(self) -> str:
        """Where tokens are given out."""
        return self.base_url + TOKEN_PATH

    def state(self) -> dict[str, Any]:
        """Day, size, settings, faults, numbers of deletions and logged requests, most requests at a time."""
        return self._ask("GET", "state")

    def set_day(self, day: int) -> dict[str, Any]:
        """Move to another day; gives the new state."""
        return self._ask("POST", "day", {"day": day})

    def set_faults(self, **settings: float) -> dict[str, Any]:
        """Change fault rates and values, as `Faults.configure` takes them; gives the new state."""
        return self._ask("POST", "faults", settings)

    def configure(self, **settings: Unpack[SettingValues]) -> dict[str, Any]:
        """Change settings, as `Sandbox.configure` takes them; gives the new state."""
        return self._ask("POST", "settings", dict(settings))

    def offboard(self, *customer_ids: str) -> dict[str, Any]:
        """Take all licences and subscriptions of these customers away; gives the new state."""
        return self._ask("POST", "offboard", {"customer_ids": list(customer_ids)})

    def undo_deletions(self) -> dict[str, Any]:
        """Bring back whatever was deleted; gives the new state."""
        return self._ask("POST", "undo-deletions")

    def aim_fault(self, path: str, kind: str, times: int | None = None) -> dict[str, Any]:
        """Aim a fault at paths, as `Faults.for_path` does; gives the new state."""
        return self._ask("POST", "aimed-faults", {"path": path, "kind": kind, "times": times})

    def requests(self, since: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The logged requests from this index on, and the index to ask for next time."""
        answer = self._ask("GET", f"requests?since={since}")
        return answer["requests"], answer["next"]

    def _ask(self, method: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = HTTPConnection(urlsplit(self.base_url).netloc, timeout=10)
        try:
            connection.request(method, f"/_sandbox/{name}", json.dumps(body) if body else None)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["description"])
        return answer


@contextmanager
def spawned_sandbox(
    *,
    seed: int = 7,
    customers: int = 120,
    mean_skus: float | None = None,
    incidents: bool = True,
    moving_share: float = 1,
    warm_up: bool = False,
    day: int = 0,
    port: int = 0,
    latency_ms: float = 0,
    latency_jitter_ms: float = 0,
    token_lifetime_seconds: float = 3599,
    **settings: Unpack[SettingValues],
) -> Iterator[SpawnedSandbox]:
    """A sandbox in a child process that ends with the context, and also when this process dies.

    `warm_up=True` makes the answers of the day in advance, so that a benchmark does not wait for them.
    """
    options: dict[str, object] = {
        "seed": seed,
        "customers": customers,
        "mean-skus": mean_skus,
        "moving-share": moving_share,
        "day": day,
        "port": port,
        "latency-ms": latency_ms,
        "latency-jitter-ms": latency_jitter_ms,
        "token-lifetime-seconds": token_lifetime_seconds,
    }
    command = [sys.executable, "-m", __package__, "--until-stdin-closes"]
    options |= {name.replace("_", "-"): value for name, value in settings.items() if not isinstance(value, bool)}
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    command += ["--blocks-active-deletions"] if settings.get("blocks_active_deletions") else []
    command += [] if incidents else ["--no-incidents"]
    command += ["--warm-up"] if warm_up else []
    path = os.pathsep.join(filter(None, (_SOURCE_FOLDER, os.environ.get("PYTHONPATH"))))
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        base_url = child.stdout.readline().strip() if child.stdout else ""
        if not base_url:
            raise RuntimeError("the sandbox process ended before it was ready; its error output says why")
        yield SpawnedSandbox(base_url, child.pid)
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[str]) -> None:
    for stream in (child.stdin, child.stdout):
        if stream:
            stream.close()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
