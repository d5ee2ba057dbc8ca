"""From an HTTP reply to an answer or a typed error; no other place judges replies of the API.

Error body of 400, 404 and 500 as documented: statusCode, type, description, correlationId, errors[]. 401 and 403
have no documented body, a 503 may be HTML, and a 200 may be a sign-in page: none of these is "zero licences".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import requests

from cockpit_source.errors import (
    ApiError,
    CallRecord,
    Forbidden,
    InvalidRequest,
    NotFound,
    ServerFailed,
    Throttled,
    TransportFailed,
    UnusableAnswer,
)
from cockpit_source.pacing import retry_after_seconds
from cockpit_source.redaction import redact
from cockpit_source.transforms import clean_text
from cockpit_source.transport import AnswerTooLarge, Reply, describe_failure

_MAX_TEXT = 1_000
_MAX_ERRORS = 20

_CLASSES: dict[int, type[ApiError]] = {400: InvalidRequest, 403: Forbidden, 404: NotFound, 429: Throttled}
_MEANINGS = {
    400: "the API does not accept the request",
    403: "these credentials may not read this",
    404: "this does not exist for these credentials",
    429: "the API asked to slow down, to the last attempt",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The JSON body of a 200, and the record of the call."""

    body: Any
    call: CallRecord


def read_answer(reply: Reply, call: CallRecord) -> Answer:
    """The answer that `reply` carries.

    Raises:
        ApiError: it carries none; the subclass follows the status.
    """
    if reply.status == 200:
        return Answer(_read_json(reply, call), call)
    raise read_error(reply, call)


def read_error(reply: Reply, call: CallRecord) -> ApiError:
    """The error that a reply of another status than 200 stands for, in the words of its body where it has any."""
    body = reply.json_or_none()
    said: Mapping[str, Any] = body if isinstance(body, dict) else {}
    server_correlation_id = _text(said.get("correlationId"), 100)
    return _CLASSES.get(reply.status, ServerFailed)(
        error_type=_text(said.get("type"), 200) or f"http_{reply.status}",
        description=_text(said.get("description")) or _describe_status(reply),
        call=replace(call, server_correlation_id=server_correlation_id),
        errors=_read_errors(said.get("errors")),
        transient=reply.status in (408, 429) or reply.status >= 500,
        retry_after_seconds=retry_after_seconds(reply.headers),
        is_documented=_is_documented(said, reply.status),
    )


def to_transport_error(error: requests.RequestException, call: CallRecord) -> ApiError:
    """The typed error of an exchange that brought no complete answer."""
    if isinstance(error, AnswerTooLarge):
        return UnusableAnswer("too_large", str(error), call)
    description = redact(clean_text(describe_failure(error)))[:_MAX_TEXT]
    if isinstance(error, requests.Timeout):
        return TransportFailed("timeout", description, call, transient=True)
    return TransportFailed(_name_transport_error(error), description, call, transient=True)


def to_throttled(error: ApiError, asked_seconds: float) -> Throttled:
    """The error of a call that the API asks to repeat later than we are willing to wait."""
    return Throttled(
        error.error_type,
        f"the API asked to wait {asked_seconds:.0f} s, longer than patience_seconds",
        error.call,
        error.errors,
    )


def _name_transport_error(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "tls_error"
    if isinstance(error, requests.exceptions.ProxyError):
        return "proxy_error"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "truncated"
    return "connection_error"


def _read_json(reply: Reply, call: CallRecord) -> Any:
    try:
        return reply.json()
    except ValueError:
        kind = reply.headers.get("Content-Type", "no content type").split(";")[0]
        start = reply.body[:64].lstrip()
        if start.startswith((b"<", b"\xef\xbb\xbf<")):
            description = f"the API answered 200 with a web page ({kind}), probably a sign-in page"
            raise UnusableAnswer("web_page", description, call) from None
        # broken JSON is most likely a body that was cut off, which another attempt may heal
        description = f"the API answered 200 with a body that is not JSON ({kind}, {len(reply.body)} bytes)"
        raise UnusableAnswer("not_json", description, call, transient=True) from None


def _is_documented(said: Mapping[str, Any], status: int) -> bool:
    """Whether this is the documented error body; gateways answer JSON too, but without `type` and `description`."""
    return said.get("statusCode") == status and bool(_text(said.get("type"))) and "description" in said


def _describe_status(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return "the API answered with a redirect, which is not followed since it could carry credentials away"
    if 200 <= reply.status < 300:
        return f"the API answered {reply.status}, but only a 200 carries licences"
    return _MEANINGS.get(reply.status, "the API could not answer" if reply.status >= 500 else "unexpected status")


def _text(value: object, limit: int = _MAX_TEXT) -> str | None:
    if not isinstance(value, str):
        return None
    # redaction needs whole words, so what is far beyond the limit is cut off before it and the rest after it
    return redact(clean_text(value[: 10 * limit].strip()))[:limit].strip() or None


def _read_errors(errors: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(errors, list):
        return ()
    return tuple(
        (
            _text(entry.get("propertyName"), 200) or "",
            tuple(filter(None, (_text(message) for message in _as_list(entry.get("description"))))),
        )
        for entry in errors[:_MAX_ERRORS]
        if isinstance(entry, dict)
    )


def _as_list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value[:_MAX_ERRORS]
    return [] if value is None else [value]
