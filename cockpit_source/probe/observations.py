"""What a probe saw: replies without their content, answers of scopes, and pages of listings. Kept in memory only."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from cockpit_source.scopes import Scope
from cockpit_source.transport import Reply, Transport


@dataclass(frozen=True, slots=True)
class Exchange:
    """One reply without its content. `label` says which kind of call it was, `duration_ms` how long it took.

    `body_type` is "empty", "not JSON" or the JSON type of the body; `members` are the names and JSON types of an
    object. Both are None with a 200, whose body is looked at elsewhere. `echoed_in` names where our correlation id
    came back: "body" or a header. `skew_seconds` is the Date header minus our clock, None without a usable one.
    """

    label: str
    status: int
    headers: Mapping[str, str]
    http_version: int | None
    duration_ms: int
    skew_seconds: float | None
    length: int
    body_type: str | None
    members: Mapping[str, str] | None
    echoed_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A scope that was asked for. `body` is the JSON of a 200, None without one; `has_body` tells null from none.

    `number` is the scope's number in the report; the same pair under another reseller, or under none, carries the
    number of the scope that it is compared with and `is_twin`.
    """

    number: int
    scope: Scope
    outcome: str
    http_status: int | None
    attempts: int
    has_body: bool = False
    body: Any = None
    is_twin: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A first page of a listing. `body` is the JSON of a 200, `failure` why there is none, such as "HTTP 403"."""

    name: str
    page_size: int
    body: Any = None
    failure: str | None = None


@dataclass(slots=True)
class Observations:
    """Everything that the findings are made from. `stopped` says why the probe ended early, None when it did not."""

    max_calls: int
    calls: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    stopped: str | None = None


class ObservedTransport(Transport):
    """Notes every reading call and its reply, and ends the run through `stop` when `max_calls` were made.

    Set `label` before a call. Requests for a token pass unseen.
    """

    def __init__(self, timeout_seconds: float, seen: Observations, stop: threading.Event) -> None:
        super().__init__(timeout_seconds, 1)
        self._seen = seen
        self._stop = stop
        self.label = ""

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str | None] | None = None,
    ) -> Reply:
        if method != "GET":
            return await super().send(method, url, headers=headers, params=params, form=form)
        self._seen.calls += 1
        if self._seen.calls >= self._seen.max_calls:
            self._stop.set()
        started = time.monotonic()
        reply = await super().send(method, url, headers=headers, params=params)
        duration_ms = round((time.monotonic() - started) * 1000)
        sent_id = (headers or {}).get("X-Correlation-Id", "")
        self._seen.exchanges.append(observe_reply(self.label, reply, sent_id, duration_ms, datetime.now(UTC)))
        return reply


def observe_reply(label: str, reply: Reply, sent_id: str, duration_ms: int, now: datetime) -> Exchange:
    """What is kept of a reply to a call that carried the correlation id `sent_id`; `now` is UTC."""
    body_type, body = (None, None) if reply.status == 200 else _read_body(reply)
    echoed = [f"header {name}" for name, value in reply.headers.items() if _is_same(value, sent_id)]
    if isinstance(body, dict) and _is_same(body.get("correlationId"), sent_id):
        echoed.append("body")
    return Exchange(
        label=label,
        status=reply.status,
        headers=reply.headers,
        http_version=reply.http_version,
        duration_ms=duration_ms,
        skew_seconds=_find_skew(reply.headers.get("Date", ""), now),
        length=len(reply.body),
        body_type=body_type,
        members={name: json_type(value) for name, value in body.items()} if isinstance(body, dict) else None,
        echoed_in=tuple(echoed),
    )


def json_type(value: object) -> str:
    """The JSON type of a value, with whole numbers apart from others."""
    names = {bool: "boolean", int: "integer", float: "number", str: "text", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _read_body(reply: Reply) -> tuple[str, Any]:
    if not reply.body.strip():
        return "empty", None
    try:
        body = reply.json()
    except ValueError:
        return "not JSON", None
    return json_type(body), body


def _is_same(value: object, sent_id: str) -> bool:
    return bool(sent_id) and isinstance(value, str) and value.strip().casefold() == sent_id.casefold()


def _find_skew(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (TypeError, ValueError, OverflowError):
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
