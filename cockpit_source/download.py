"""Fetches a public file, bounded in time and size."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import requests

from cockpit_source.errors import ConfigurationError, ListUnavailable
from cockpit_source.reference_csv import describe_limit
from cockpit_source.settings import CONNECT_TIMEOUT_SECONDS, MAX_ANSWER_BYTES, is_loopback
from cockpit_source.transport import describe_failure

READ_TIMEOUT_SECONDS = 30.0
TOTAL_SECONDS = 120.0
_CHUNK_BYTES = 64 * 1024
_TOO_MANY_REQUESTS = 429


def describe_address(address: str) -> str:
    """`address` without its query, which may hold a key."""
    return urlsplit(address)._replace(query="", fragment="").geturl()


def fetch_file(address: str, what: str) -> bytes:
    """The file at an address; redirects are followed. `what` begins the messages, such as "The SKU catalogue".

    Raises:
        ConfigurationError: the address is wrong, leads to plain http, or to a file larger than any such list.
        ListUnavailable: nothing answered, or not to the end, or the server failed; it may work later.
    """
    where = f"{what} at {describe_address(address)}"
    try:
        with requests.Session() as session:
            # says so that no password of ~/.netrc is sent
            session.auth = _send_nothing
            timeouts = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
            with session.get(address, stream=True, timeout=timeouts) as response:
                _check_status(response, where)
                return _read_body(response, where)
    except requests.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.Timeout) else describe_failure(error)
        raise _unavailable(where, reason) from error


def _send_nothing(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _check_status(response: requests.Response, where: str) -> None:
    for hop in (*response.history, response):
        if urlsplit(hop.url).scheme != "https" and not is_loopback(hop.url):
            raise ConfigurationError(
                f"{where} leads to {describe_address(hop.url)}, which is not https: what comes from there could be "
                "changed on its way. Correct the address; nothing was changed."
            )
    if response.status_code >= 500 or response.status_code == _TOO_MANY_REQUESTS:
        raise _unavailable(where, f"the server answered {response.status_code}")
    if not response.ok:
        raise ConfigurationError(
            f"{where} cannot be had: the server answered {response.status_code}. Correct the address, or download "
            "the file and give its path; nothing was changed."
        )


def _read_body(response: requests.Response, where: str) -> bytes:
    give_up_at = time.monotonic() + TOTAL_SECONDS
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ConfigurationError(
                f"{where} is larger than {describe_limit()}. Correct the address; nothing was changed."
            )
        if time.monotonic() > give_up_at:
            raise _unavailable(where, f"it was not complete after {TOTAL_SECONDS:g} s")
    return bytes(body)


def _unavailable(where: str, reason: str) -> ListUnavailable:
    return ListUnavailable(
        f"{where} cannot be fetched: {reason.rstrip('.')}. Run again later, or download the file and give its path; "
        "nothing was changed."
    )
