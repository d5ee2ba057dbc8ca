"""What the replies to a probe prove whatever they carry: statuses, error bodies, headers, times. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from cockpit_source.probe.observations import Exchange
from cockpit_source.probe.words import MAX_NAMES, NOT_SEEN, Evidence, Finding, judge, judge_kinds, show_name

INVALID_TOKEN = "call with an invalid token"  # noqa: S105 - a label
UNKNOWN_RESELLER = "call with an unknown reseller"
LICENSES = "licences"
PROVOKED = (INVALID_TOKEN, UNKNOWN_RESELLER)

_ERROR_MEMBERS = ("statusCode", "type", "description", "correlationId", "errors")
_LIMIT_WORDS = ("ratelimit", "rate-limit", "retry-after", "throttl", "quota", "x-ms-")
_ERROR_STATUSES = (400, 401, 403, 404)
_SERVER_PRODUCT = 40


def find_in_replies(exchanges: Sequence[Exchange], unanswered: int) -> Iterator[Finding]:
    """Findings on all replies; `unanswered` is the number of calls that got none."""
    usual = [exchange for exchange in exchanges if exchange.label not in PROVOKED]
    statuses = Counter(str(exchange.status) for exchange in usual)
    evidence: Evidence = {"replies": len(usual), "no_reply": unanswered, "statuses": dict(sorted(statuses.items()))}
    yield Finding("replies", "HTTP status", judge_kinds(statuses), evidence)
    throttled = statuses["429"]
    yield Finding("replies", "429", judge(throttled, len(usual)), {"replies": len(usual), "throttled": throttled})
    for label in PROVOKED:
        answers = Counter(f"HTTP {exchange.status}" for exchange in exchanges if exchange.label == label)
        yield Finding("replies", label, judge_kinds(answers), {"replies": answers.total()})
    yield _find_latency([exchange.duration_ms for exchange in usual if exchange.label == LICENSES])
    yield from _find_errors(exchanges)
    yield from _find_echoes(exchanges)
    yield _find_limits(exchanges)
    yield from _find_headers(exchanges)


def _find_latency(times: Sequence[int]) -> Finding:
    if not times:
        return Finding("replies", "time of a licence call", NOT_SEEN, {"replies": 0})
    evidence = {"replies": len(times), "median_ms": round(median(times)), "max_ms": max(times)}
    return Finding("replies", "time of a licence call", f"{evidence['median_ms']} ms", evidence)


def _find_errors(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    others = {exchange.status for exchange in exchanges if exchange.status != 200}
    for status in sorted(others.union(_ERROR_STATUSES)):
        seen = [exchange for exchange in exchanges if exchange.status == status]
        kinds = Counter(str(exchange.body_type) for exchange in seen)
        members = Counter(name for exchange in seen for name in exchange.members or ())
        evidence: Evidence = {
            "replies": len(seen),
            "provoked_by": sorted({exchange.label for exchange in seen if exchange.label in PROVOKED}),
            "bodies": dict(kinds),
            "content_types": dict(Counter(_content_type(exchange) for exchange in seen)),
            "bytes": sorted({exchange.length for exchange in seen})[:MAX_NAMES],
            "members": {name: members[name] for name in _ERROR_MEMBERS if members[name]},
            "other_members": sorted({show_name(name) for name in members.keys() - set(_ERROR_MEMBERS)})[:MAX_NAMES],
        }
        yield Finding("error bodies", f"body of {status}", judge_kinds(kinds), evidence if seen else {"replies": 0})


def _find_echoes(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    with_object = [exchange for exchange in exchanges if exchange.members is not None]
    hits = sum("body" in exchange.echoed_in for exchange in with_object)
    evidence: Evidence = {"error_objects": len(with_object), "echoed": hits}
    yield Finding("correlation id", "ours comes back in the error body", judge(hits, len(with_object)), evidence)
    headers = Counter(
        _show_header(place) for exchange in exchanges for place in exchange.echoed_in if place != "body"
    )
    hits = sum(any(place != "body" for place in exchange.echoed_in) for exchange in exchanges)
    evidence = {"replies": len(exchanges), "headers": dict(headers)}
    yield Finding("correlation id", "ours comes back in a header", judge(hits, len(exchanges)), evidence)


def _show_header(place: str) -> str:
    return show_name(place.removeprefix("header "))


def _find_limits(exchanges: Sequence[Exchange]) -> Finding:
    """Headers about limits: how often each came, and the smallest and largest value of those that are numbers."""
    found: dict[str, dict[str, Any]] = {}
    hits = 0
    for exchange in exchanges:
        named = {name: value for name, value in exchange.headers.items() if _is_about_limits(name)}
        hits += bool(named)
        for name, value in named.items():
            told = found.setdefault(show_name(name.lower()), {"replies": 0})
            told["replies"] += 1
            number = _to_number(value)
            if number is not None:
                told["min"], told["max"] = min(number, told.get("min", number)), max(number, told.get("max", number))
    evidence = {"replies": len(exchanges), "headers": dict(list(found.items())[:MAX_NAMES])}
    return Finding("headers", "throttling and limits", judge(hits, len(exchanges)), evidence)


def _is_about_limits(name: str) -> bool:
    return any(word in name.lower() for word in _LIMIT_WORDS)


def _to_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and len(text) <= 12 else None


def _find_headers(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    good = [exchange for exchange in exchanges if exchange.status == 200]
    for question, values, seen in (
        ("content type of a 200", (_content_type(exchange) for exchange in good), len(good)),
        (
            "content encoding of a 200",
            (exchange.headers.get("Content-Encoding") or "none" for exchange in good),
            len(good),
        ),
        ("server", (_server_product(exchange) for exchange in exchanges), len(exchanges)),
        ("HTTP version", (_http_version(exchange) for exchange in exchanges), len(exchanges)),
    ):
        kinds = Counter(value[:_SERVER_PRODUCT] for value in values)
        yield Finding("headers", question, judge_kinds(kinds), {"replies": seen, "values": dict(kinds)})
    skews = [exchange.skew_seconds for exchange in exchanges if exchange.skew_seconds is not None]
    if not skews:
        yield Finding("headers", "server clock against this one", NOT_SEEN, {"replies": 0})
        return
    seconds = round(median(skews))
    evidence = {"replies": len(skews), "median_seconds": seconds}
    yield Finding("headers", "server clock against this one", f"{seconds:+d} s", evidence)


def _content_type(exchange: Exchange) -> str:
    return (exchange.headers.get("Content-Type") or "none").lower()[:80]


def _server_product(exchange: Exchange) -> str:
    return (exchange.headers.get("Server") or "none").replace("/", " ").split(" ")[0]


def _http_version(exchange: Exchange) -> str:
    version = exchange.http_version
    return f"HTTP/{version / 10:g}" if version else "unknown"
