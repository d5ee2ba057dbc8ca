"""One HTTP exchange: bounded in time and size, no redirects, cookies or netrc.

The exchange is that of `aiohttp`: with many calls at a time it takes less than half of the CPU of `urllib3` on
threads. Proxies and certificates are those that `requests` finds in the environment, and failures are its errors.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import requests
from aiohttp.http import HttpProcessingError
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from cockpit_source.settings import CONNECT_TIMEOUT_SECONDS, MAX_ANSWER_BYTES
from cockpit_source.transforms import clean_text

_MAX_HEADER_BYTES = 64 * 1024

Result = TypeVar("Result")


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
    text = _name_reason(reason)
    return f"{host}: {text}" if host else text


def _name_reason(reason: BaseException) -> str:
    if isinstance(reason, HttpProcessingError):
        # below an empty line stands what was received
        said, _, _ = reason.message.partition("\n\n")
        return "not HTTP: " + " ".join(said.split()).rstrip(":")
    if not isinstance(reason, OSError):
        return str(reason)
    if reason.errno is not None and reason.errno in errno.errorcode and not isinstance(reason, ssl.SSLError):
        # asyncio says "Connect call failed" of any number
        return os.strerror(reason.errno)
    return reason.strerror or str(reason) or type(reason).__name__


def _find_inner(error: BaseException) -> BaseException | None:
    candidates = (getattr(error, "reason", None), error.__cause__, *error.args)
    return next((inner for inner in candidates if isinstance(inner, BaseException)), None)


def was_never_connected(error: requests.RequestException) -> bool:
    """Whether a failed exchange ended before there was a connection: the server got no byte of the request."""
    cause = error.__cause__
    if cause is None:
        # no usable proxy or certificates were found
        return isinstance(error, requests.exceptions.ProxyError | requests.exceptions.SSLError)
    # a proxy that refuses the tunnel has not passed on anything either
    kinds = aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError
    return isinstance(cause, kinds)


class _Route(NamedTuple):
    """How to reach a host: the proxy and the certificates, None where there is none to use."""

    proxy: str | None
    ssl_context: ssl.SSLContext | None


class Transport:
    """Sends requests over pooled connections, on an event loop in a thread of its own.

    `send` is to be awaited on that loop; `run` and `submit` bring coroutines there, from any other thread.
    """

    def __init__(self, timeout_seconds: float, pool_size: int) -> None:
        connect = min(CONNECT_TIMEOUT_SECONDS, timeout_seconds)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=connect)
        self._pool_size = pool_size
        self._session: aiohttp.ClientSession | None = None
        self._routes: dict[str, _Route] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="transport", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """What a coroutine gives on the loop; waits for it."""
        return self.submit(coroutine).result()

    async def send(
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
        sent = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", **(headers or {})}
        body = None
        if form is not None:
            body = urlencode({name: value for name, value in form.items() if value is not None})
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        route = self._route(url)
        try:
            response = await self._open_session().request(
                method,
                f"{url}?{urlencode(params)}" if params else url,
                data=body,
                headers=sent,
                allow_redirects=False,
                proxy=route.proxy,
                ssl=route.ssl_context or True,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _to_requests_error(error, requests.Request(method, url)) from error
        # after a body that was not read to its end this closes the connection
        async with response:
            return Reply(
                response.status, _read_headers(response), await _read_body(response), _read_version(response)
            )

    def close(self) -> None:
        """End what is still running, and the connections."""
        if not self._loop.is_closed():
            self.run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # looks names up as the rest of the machine does, also where aiodns is installed
                connector=aiohttp.TCPConnector(limit=self._pool_size, resolver=aiohttp.ThreadedResolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
            )
            # attempts are counted and paced by the client; aiohttp would make another unseen
            self._session._retry_connection = False
        return self._session

    def _route(self, url: str) -> _Route:
        """The proxy and certificates that `requests` finds in the environment for the host of `url`."""
        host = "/".join(url.split("/", 3)[:3])
        if host not in self._routes:
            self._routes[host] = _find_route(host)
        return self._routes[host]


def _find_route(host: str) -> _Route:
    found = requests.Session().merge_environment_settings(host, {}, None, None, None)
    proxy = select_proxy(host, found["proxies"])
    if proxy:
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        if urlsplit(proxy).scheme not in ("http", "https"):
            raise requests.exceptions.ProxyError("only proxies by http and https are supported")
    return _Route(proxy or None, _create_ssl_context(found["verify"]) if host.startswith("https:") else None)


def _create_ssl_context(verify: bool | str | None) -> ssl.SSLContext:
    """A context that trusts `verify`, a file or folder of certificates, or what `requests` trusts."""
    trusted = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    try:
        if Path(trusted).is_dir():
            return ssl.create_default_context(capath=trusted)
        return ssl.create_default_context(cafile=trusted)
    except OSError as error:
        reason = f"the certificates in {trusted} cannot be read: {_name_reason(error)}"
        raise requests.exceptions.SSLError(reason) from None


def _to_requests_error(error: Exception, request: requests.Request) -> requests.RequestException:
    kinds: tuple[tuple[type[Exception], type[requests.RequestException]], ...] = (
        (aiohttp.ConnectionTimeoutError, requests.ConnectTimeout),
        (TimeoutError, requests.ReadTimeout),
        (aiohttp.ClientProxyConnectionError, requests.exceptions.ProxyError),
        (aiohttp.ClientHttpProxyError, requests.exceptions.ProxyError),
        (aiohttp.ClientSSLError, requests.exceptions.SSLError),
    )
    kind = next((ours for theirs, ours in kinds if isinstance(error, theirs)), requests.ConnectionError)
    if kind is requests.ReadTimeout:
        return kind("no answer came in time", request=request)
    return kind(error, request=request)


def _read_headers(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    headers = response.headers
    if all(map(str.isascii, headers.values())):
        return headers
    # bytes that are not UTF-8 came as lone surrogates
    return CaseInsensitiveDict((name, clean_text(value)) for name, value in headers.items())


def _read_version(response: aiohttp.ClientResponse) -> int | None:
    version = response.version
    return None if version is None else 10 * version.major + version.minor


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise AnswerTooLarge(f"the answer is larger than {MAX_ANSWER_BYTES // 1024**2} MiB")
            chunks.append(chunk)
    except requests.RequestException:
        # ours from above, which is also an OSError
        raise
    except TimeoutError as error:
        raise requests.ReadTimeout("the answer did not end in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise requests.exceptions.ChunkedEncodingError(f"the answer broke off: {error}") from error
    return b"".join(chunks)
