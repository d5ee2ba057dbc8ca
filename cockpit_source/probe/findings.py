"""From what a probe saw to its findings, looked over for anything private. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cockpit_source.probe.answers import find_in_answers, find_in_resellers
from cockpit_source.probe.listings import find_in_listings, private_texts
from cockpit_source.probe.observations import Observations, Reading
from cockpit_source.probe.replies import find_in_replies
from cockpit_source.probe.rows import find_in_rows, find_rows, sku_of
from cockpit_source.probe.words import Evidence, Finding, Redactor
from cockpit_source.settings import Settings


def collect_findings(seen: Observations, settings: Settings) -> list[Finding]:
    """All findings of a probe, topic by topic, without ids, names, domains, secrets or what a customer holds."""
    redactor = Redactor(_private_texts(seen, settings))
    return [redactor.redact_finding(finding) for finding in _find_all(seen)]


def _find_all(seen: Observations) -> Iterator[Finding]:
    yield _find_end(seen)
    yield from _find_scopes(seen.readings)
    # what was read for comparison only would count the same rows twice
    own = [reading for reading in seen.readings if not reading.is_twin]
    yield from find_in_rows(own)
    yield from find_in_answers(own)
    yield from find_in_resellers(seen.readings)
    yield from find_in_replies(seen.exchanges, seen.calls - len(seen.exchanges))
    yield from find_in_listings(seen.listings)


def _find_end(seen: Observations) -> Finding:
    read = [reading for reading in seen.readings if not reading.is_twin]
    evidence = {
        "calls": seen.calls,
        "at_most": seen.max_calls,
        "scopes": len(read),
        "customers": len({reading.scope.customer_id for reading in read}),
        "with_reseller": sum(reading.scope.reseller_id is not None for reading in read),
        "read_for_comparison": len(seen.readings) - len(read),
    }
    return Finding("probe", "ran to its end", f"no: {seen.stopped}" if seen.stopped else "yes", evidence)


def _find_scopes(readings: list[Reading]) -> Iterator[Finding]:
    """One line a scope, under its number in this report; how many rows it had is nobody else's business."""
    for reading in readings:
        if reading.is_twin:
            continue
        twins = [twin for twin in readings if twin.is_twin and twin.number == reading.number]
        others = Counter(twin.outcome for twin in twins if twin.scope.reseller_id)
        evidence: Evidence = {
            "http_status": reading.http_status,
            "attempts": reading.attempts,
            "has_reseller": reading.scope.reseller_id is not None,
            "without_reseller": [twin.outcome for twin in twins if not twin.scope.reseller_id],
            "under_other_resellers": dict(others),
        }
        yield Finding("scopes", f"scope {reading.number}", reading.outcome, evidence)


def _private_texts(seen: Observations, settings: Settings) -> Iterator[str | None]:
    given = settings.credentials
    yield from (settings.tenant, settings.tenant_key, given.client_id, given.client_secret, given.access_token)
    for reading in seen.readings:
        yield from reading.scope
        yield from (sku_of(row) for row in find_rows(reading) or () if isinstance(row, dict))
    yield from private_texts(seen.listings)
