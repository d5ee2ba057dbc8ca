"""What proves that a deletion was carried out, or that it failed. Reading only.

Three things prove it, asked for in this order: the API's own 404 for the customer; an audit log entry with the
correlation id of the DELETE and a status of success; absence from a listing of all customers that is whole and still
holds others that are known. A refused call, an error, an empty or incomplete list prove nothing, and neither does
anything while the API still shows what was to be deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from cockpit_source.answers import Answer
from cockpit_source.client import CockpitClient
from cockpit_source.deletions.customer_listing import PATH as CUSTOMERS_PATH
from cockpit_source.deletions.customer_listing import CustomerListing, IncompleteListing, read_whole_listing
from cockpit_source.deletions.records import REMOVE_RELATIONSHIP, Candidate
from cockpit_source.errors import ApiError, CallRecord, NotFound, ServerFailed, Throttled, TransportFailed
from cockpit_source.listing_rows import UnfitObject, is_deleted, iter_provider_instances, to_customer
from cockpit_source.pagination import iter_pages

AUDIT_PATH = "/v1/AuditLogs"
# clocks may differ by so much
_CLOCK_SKEW = timedelta(minutes=5)
# the second is how the API spells it
_SUCCEEDED = frozenset({"succeeded", "succeded"})
_FAILED = "failed"

Result = Literal["verified", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result` is None when nothing is proved. `proof` is what an auditor can follow up, `description` in words."""

    result: Result | None
    proof: Mapping[str, Any]
    description: str


class _Seen(NamedTuple):
    """What reading the customer showed: a verdict already, or why the listing cannot add anything, or neither."""

    verdict: Verdict | None
    blocks_listing: bool
    description: str


def _utc_now() -> datetime:
    return datetime.now(UTC)


def find_proof(
    client: CockpitClient,
    candidate: Candidate,
    correlation_ids: Sequence[str],
    sent_at: datetime | None,
    known_others: frozenset[str],
    *,
    now: Callable[[], datetime] = _utc_now,
    page_size: int = 2000,
) -> Verdict:
    """What the API proves now about a deletion that was sent at `sent_at` with `correlation_ids`, the latest last.

    `known_others` are ids of other customers that should still be listed.

    Raises:
        SignInError: no usable token.
    """
    search = _Search(client, candidate, known_others, now, page_size)
    seen = search.read_customer()
    if seen.verdict is not None:
        return seen.verdict
    said = [seen.description]
    if sent_at is not None and correlation_ids:
        verdict = search.read_audit_log(correlation_ids, sent_at)
        if verdict.result is not None:
            return verdict
        said.append(verdict.description)
    if not seen.blocks_listing:
        verdict = search.read_listing()
        if verdict.result is not None:
            return verdict
        said.append(verdict.description)
    return Verdict(None, {}, "; ".join(said))


class _Search:
    """The three reads, each judged for itself."""

    def __init__(
        self,
        client: CockpitClient,
        candidate: Candidate,
        known_others: frozenset[str],
        now: Callable[[], datetime],
        page_size: int,
    ) -> None:
        self._client = client
        self._candidate = candidate
        self._known_others = known_others
        self._now = now
        self._page_size = page_size

    def read_customer(self) -> _Seen:
        customer_id = self._candidate.customer_id
        try:
            item = self._client.get_customer(customer_id).body
            row = to_customer(item, contact_data=False)
            named = {instance_id for instance_id, _ in iter_provider_instances(item)}
        except NotFound as error:
            if not error.is_documented:
                return _Seen(None, False, f"the customer could not be read ({error.summary})")
            proof = self._note("not_found", f"{CUSTOMERS_PATH}/{customer_id}", error.call)
            description = f"the API says that the customer does not exist ({error.summary})"
            return _Seen(Verdict("verified", proof, description), True, description)
        except (ApiError, UnfitObject) as error:
            # who may not read a customer may not see it in a listing either, and a strange answer is one about it
            is_silent = isinstance(error, ServerFailed | TransportFailed | Throttled)
            return _Seen(None, not is_silent, f"the customer could not be read ({_say(error)})")
        if row["id"] != customer_id:
            return _Seen(None, True, f"the API answered with customer {row['id']} instead")
        if self._candidate.action == REMOVE_RELATIONSHIP:
            if self._candidate.provider_instance_id in named:
                return _Seen(None, True, "the customer still names the provider instance")
            return _Seen(None, False, "the customer does not name the provider instance any more")
        if is_deleted(item):
            return _Seen(None, True, "the customer is marked as deleted, but still shown")
        return _Seen(None, True, "the customer still exists")

    def read_audit_log(self, correlation_ids: Sequence[str], sent_at: datetime) -> Verdict:
        start, end = sent_at - _CLOCK_SKEW, self._now() + _CLOCK_SKEW
        wanted = [correlation_id.casefold() for correlation_id in correlation_ids]
        try:
            found, call = self._find_entries(set(wanted), start, end)
        except ApiError as error:
            return Verdict(None, {}, f"the audit log could not be read ({error.summary})")
        result, deciding = _decide(wanted, found)
        entries = found.get(deciding, [])
        statuses = ", ".join(sorted({status for entry in entries for status in _find_statuses(entry)}))
        if result is None:
            told = f"says {statuses or 'nothing of its status'}" if entries else "has no entry of it"
            return Verdict(None, {}, f"the audit log {told}")
        proof = self._note("audit_log", AUDIT_PATH, call) | {
            "matched_correlation_id": deciding,
            "entry_ids": [entry["id"] for entry in entries if isinstance(entry.get("id"), str)],
            "entry_status": statuses,
            "from": _to_text(start),
            "to": _to_text(end),
        }
        return Verdict(result, proof, f"the audit log says {statuses}")

    def _find_entries(
        self, wanted: set[str], start: datetime, end: datetime
    ) -> tuple[dict[str, list[Mapping[str, Any]]], CallRecord]:
        """The entries by the correlation id that they hold, and the call that read the last page."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        calls: list[CallRecord] = []

        def get_page(number: int) -> Answer:
            answer = self._client.list_audit_logs(number, self._page_size, start, end)
            calls.append(answer.call)
            return answer

        for page in iter_pages(get_page):
            for entry in page.items:
                if isinstance(entry, dict):
                    for correlation_id in wanted & set(_texts_of(entry)):
                        found.setdefault(correlation_id, []).append(entry)
        return found, calls[-1]

    def read_listing(self) -> Verdict:
        candidate = self._candidate
        try:
            listing = read_whole_listing(self._client, self._page_size)
        except (ApiError, IncompleteListing) as error:
            return Verdict(None, {}, f"the customers could not be listed to the end ({_say(error)})")
        others = self._find_others(listing)
        if not others:
            return Verdict(None, {}, "the listing holds none of the other customers that are known")
        listed = listing.customers.get(candidate.customer_id)
        if listed is None:
            kind, description = "absent_from_listing", "a whole listing does not hold the customer any more"
        elif candidate.action != REMOVE_RELATIONSHIP:
            return Verdict(None, {}, "the customer is still listed")
        elif candidate.provider_instance_id in listed.provider_instances:
            return Verdict(None, {}, "the customer is still listed in the provider instance")
        else:
            kind = "relationship_absent_from_listing"
            description = "a whole listing shows the customer without the provider instance"
        proof = self._note(kind, CUSTOMERS_PATH, listing.call) | {
            "customers_listed": len(listing.customers),
            "known_others_listed": len(others),
            "known_other": min(others),
        }
        return Verdict("verified", proof, description)

    def _find_others(self, listing: CustomerListing) -> set[str]:
        """The known others that are listed, not deleted, in a provider instance: so the listing shows such things."""
        return {
            other
            for other in self._known_others - {self._candidate.customer_id}
            if (listed := listing.customers.get(other)) is not None
            and not listed.is_deleted
            and listed.provider_instances
        }

    def _note(self, kind: str, path: str, call: CallRecord) -> dict[str, Any]:
        return {
            "kind": kind,
            "method": "GET",
            "path": path,
            "http_status": call.http_status,
            "correlation_id": call.correlation_id,
            "read_at": _to_text(self._now()),
        }


def _decide(wanted: Sequence[str], found: Mapping[str, list[Mapping[str, Any]]]) -> tuple[Result | None, str]:
    """What the entries say of the deletion, and the correlation id that decides it.

    One request that succeeded is enough. It failed when the latest request did and none of the others is under way.
    """
    results = {known: _judge_entries(found.get(known, ())) for known in wanted}
    for known, result in results.items():
        if result == "verified":
            return result, known
    latest = wanted[-1]
    is_under_way = any(results[known] is None for known in found)
    return (None if is_under_way else results[latest]), latest


def _judge_entries(entries: Iterable[Mapping[str, Any]]) -> Result | None:
    """What all audit log entries of one request agree on."""
    results: set[Result | None] = set()
    for entry in entries:
        statuses = {status.casefold() for status in _find_statuses(entry)}
        if statuses and statuses <= _SUCCEEDED:
            results.add("verified")
        elif statuses == {_FAILED}:
            results.add("failed")
        else:
            results.add(None)
    return results.pop() if len(results) == 1 else None


def _find_statuses(entry: Mapping[str, Any]) -> set[str]:
    """The names of an entry's status: of its own member, else of those further inside."""
    own = set(_names_of_status(entry))
    inner = (value for value in _walk(entry) if isinstance(value, dict))
    return own or {name for value in inner for name in _names_of_status(value)}


def _names_of_status(entry: Mapping[str, Any]) -> Iterator[str]:
    for member, value in entry.items():
        if member.casefold() == "status":
            name = value.get("name") if isinstance(value, dict) else value
            if isinstance(name, str) and name.strip():
                yield name.strip()


def _texts_of(entry: object) -> Iterator[str]:
    """All text in an entry, whatever its members are called: their names are not documented."""
    return (value.strip().casefold() for value in _walk(entry) if isinstance(value, str))


def _walk(tree: object) -> Iterator[object]:
    """`tree` and all that is in it."""
    left = [tree]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _say(error: Exception) -> str:
    return error.summary if isinstance(error, ApiError) else str(error)


def _to_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
