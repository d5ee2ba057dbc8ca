"""One HTTP exchange: bounded in time and size, no redirects, cookies or netrc.

Connections, proxies and certificates are those of `requests`; the exchange itself goes straight to the `urllib3` pool
below it, which takes half of the time that a prepared request and a response object of `requests` take.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from cockpit_source.settings import CONNECT_TIMEOUT_SECONDS, MAX_ANSWER_BYTES

_CHUNK_BYTES = 64 * 1024


class AnswerTooLarge(requests.RequestException):
    """The body is larger than we read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer: status, headers (looked up in any case) and body.

    `http_version` is 11 for HTTP/1.1, None where it is not known.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    http_version: int | None = None

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


class _Route(NamedTuple):
    """How to reach a host: its connections, and what stands before the path in a request line."""

    pool: HTTPConnectionPool
    prefix: str


class Transport:
    """Sends requests over pooled connections; safe to share between threads."""

    def __init__(self, timeout_seconds: float, pool_size: int) -> None:
        self._timeout_seconds = timeout_seconds
        connect = min(CONNECT_TIMEOUT_SECONDS, timeout_seconds)
        self._timeout = Timeout(connect=connect, read=timeout_seconds)
        self._adapter = HTTPAdapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
        self._routes: dict[str, _Route] = {}
        self._routes_lock = threading.Lock()

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

        The read timeout also bounds the answer as a whole, so that a body that trickles in ends as well. Form fields
        that are None are left out.

        Raises:
            requests.RequestException: no complete answer arrived, or it was larger than 32 MiB.
        """
        host, path = _split(url)
        sent = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", **(headers or {})}
        body = None
        if form is not None:
            body = urlencode({name: value for name, value in form.items() if value is not None})
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        deadline = time.monotonic() + self._timeout_seconds
        try:
            route = self._route(host)
            response = route.pool.urlopen(
                method,
                f"{route.prefix}{path}?{urlencode(params)}" if params else route.prefix + path,
                body,
                sent,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=self._timeout,
                preload_content=False,
            )
        except requests.RequestException:
            # from looking for the route; also an OSError
            raise
        except (HTTPError, OSError) as error:
            raise _to_requests_error(error, requests.Request(method, url)) from error
        try:
            return Reply(response.status, response.headers, _read_body(response, deadline), response.version)
        except BaseException:
            # what is left of the body must not be read as the next answer
            response.close()
            raise
        finally:
            response.release_conn()

    def close(self) -> None:
        self._adapter.close()

    def _route(self, host: str) -> _Route:
        """The pool of a host, with the proxies and certificates that `requests` finds in the environment."""
        route = self._routes.get(host)
        if route is None:
            with self._routes_lock:
                route = self._routes.get(host) or self._find_route(host)
                self._routes[host] = route
        return route

    def _find_route(self, host: str) -> _Route:
        request = requests.PreparedRequest()
        request.prepare("GET", host + "/")
        found = requests.Session().merge_environment_settings(host, {}, None, None, None)
        proxies, verify, cert = found["proxies"], found["verify"], found["cert"]
        adapter: Any = self._adapter
        pool = adapter.get_connection_with_tls_context(request, verify, proxies, cert)
        adapter.cert_verify(pool, host, verify, cert)
        # a proxy for plain http wants the whole address
        return _Route(pool, adapter.request_url(request, proxies).removesuffix("/"))


def _split(url: str) -> tuple[str, str]:
    """`https://host/path` as `https://host` and `/path`."""
    end = url.find("/", url.index("://") + 3)
    return (url, "/") if end < 0 else (url[:end], url[end:])


def _to_requests_error(error: Exception, request: requests.Request) -> requests.RequestException:
    kinds: tuple[tuple[type[Exception], type[requests.RequestException]], ...] = (
        (NewConnectionError, requests.ConnectionError),
        (ConnectTimeoutError, requests.ConnectTimeout),
        (ReadTimeoutError, requests.ReadTimeout),
        (ProxyError, requests.exceptions.ProxyError),
        (SSLError, requests.exceptions.SSLError),
    )
    kind = next((ours for theirs, ours in kinds if isinstance(error, theirs)), requests.ConnectionError)
    return kind(error, request=request)


def _read_body(response: BaseHTTPResponse, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    # as an attribute and not as an argument of read1, which replayed answers do not take
    response.decode_content = True
    try:
        # read1 returns what has arrived; read would wait for a full chunk, however slowly it trickles
        while chunk := response.read1(_CHUNK_BYTES):
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


def _check_length(response: BaseHTTPResponse, received: int) -> None:
    announced = response.headers.get("Content-Length", "")
    expected = (
        float(announced) if announced.isdecimal() and not response.headers.get("Content-Encoding") else math.nan
    )
    if received < expected:
        raise requests.exceptions.ChunkedEncodingError(f"the answer broke off after {received} bytes")
