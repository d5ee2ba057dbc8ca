"""One HTTP exchange over the adapter of `requests`: bounded in time and size, no redirects, cookies or netrc."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from cockpit_source.settings import CONNECT_TIMEOUT_SECONDS, MAX_ANSWER_BYTES

_CHUNK_BYTES = 64 * 1024


class AnswerTooLarge(requests.RequestException):
    """The body is larger than we read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer: status, headers (looked up in any case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not; NaN and Infinity are not JSON either."""
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def json_or_none(self) -> Any:
        """The body as JSON, or None when it is not."""
        try:
            return self.json()
        except ValueError:
            return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def describe_failure(error: requests.RequestException) -> str:
    """What went wrong in an exchange; of a connection its host and innermost reason: "host:9: Connection refused"."""
    if not isinstance(error, requests.ConnectionError):
        return str(error)
    host = urlsplit(error.request.url or "").netloc if error.request is not None else ""
    reason: BaseException = error
    while inner := _find_inner(reason):
        reason = inner
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return f"{host}: {text}" if host else text


def _find_inner(error: BaseException) -> BaseException | None:
    candidates = (getattr(error, "reason", None), error.__cause__, *error.args)
    return next((inner for inner in candidates if isinstance(inner, BaseException)), None)


class Transport:
    """Sends requests over pooled connections; safe to share between threads."""

    def __init__(self, timeout_seconds: float, pool_size: int) -> None:
        self._timeout_seconds = timeout_seconds
        # no Session: it reads redirects without limit, keeps cookies, and puts netrc entries in place of our token
        self._adapter = HTTPAdapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
        self._environment: dict[str, Any] = {}
        self._environment_lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """One request and its whole answer, of any status; redirects are answers too.

        The read timeout also bounds the answer as a whole, so that a body that trickles in ends as well.

        Raises:
            requests.RequestException: no complete answer arrived, or it was larger than 32 MiB.
        """
        request = requests.PreparedRequest()
        request.prepare(method, url, headers=dict(headers or {}), params=dict(params or {}), data=form)
        request.headers.setdefault("Accept", "application/json")
        request.headers.setdefault("Accept-Encoding", "gzip, deflate")
        deadline = time.monotonic() + self._timeout_seconds
        connect = min(CONNECT_TIMEOUT_SECONDS, self._timeout_seconds)
        with self._adapter.send(
            request,
            stream=True,
            timeout=(connect, self._timeout_seconds),
            **self._environment_settings(url),
        ) as response:
            return Reply(response.status_code, response.headers, _read_body(response, deadline))

    def close(self) -> None:
        self._adapter.close()

    def _environment_settings(self, url: str) -> dict[str, Any]:
        """Proxies and certificate settings of the environment, looked up once per host."""
        host = url.split("/", 3)[2]
        with self._environment_lock:
            if host not in self._environment:
                merged = requests.Session().merge_environment_settings(url, {}, None, None, None)
                self._environment[host] = {name: merged[name] for name in ("proxies", "verify", "cert")}
            settings: dict[str, Any] = self._environment[host]
            return settings


def _read_body(response: requests.Response, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    # as an attribute and not as an argument of read1, which replayed answers do not take
    response.raw.decode_content = True
    try:
        # read1 returns what has arrived; read would wait for a full chunk, however slowly it trickles
        while chunk := response.raw.read1(_CHUNK_BYTES):
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise AnswerTooLarge(f"the answer is larger than {MAX_ANSWER_BYTES // 1024**2} MiB")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout("the answer did not end in time")
            chunks.append(chunk)
    except requests.RequestException:
        # ours from above, which are also OSErrors
        raise
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(str(error)) from error
    except (HTTPError, OSError) as error:
        raise requests.exceptions.ChunkedEncodingError(f"the answer broke off: {error}") from error
    _check_length(response, sum(map(len, chunks)))
    return b"".join(chunks)


def _check_length(response: requests.Response, received: int) -> None:
    announced = response.headers.get("Content-Length", "")
    expected = (
        float(announced) if announced.isdecimal() and not response.headers.get("Content-Encoding") else math.nan
    )
    if received < expected:
        raise requests.exceptions.ChunkedEncodingError(f"the answer broke off after {received} bytes")
