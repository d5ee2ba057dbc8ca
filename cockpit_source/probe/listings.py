"""What first pages of the API's listings prove about the envelope and about members nobody documented. Pure.

Values are shown of members that are enumerations by their names, and of those only single words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cockpit_source.listing_rows import is_deleted, is_microsoft
from cockpit_source.probe.observations import Listing, json_type
from cockpit_source.probe.words import MAX_NAMES, NOT_SEEN, Evidence, Finding, count_unknown, judge, show_enum_value

CUSTOMERS, INSTANCES, RESELLERS = "customers", "provider instances", "resellers"

# what the reference names
_PAGE = (
    *("items", "paginationParameters", "totalPages", "totalCount", "hasPreviousPage", "hasNextPage"),
    "continuationToken",
)
_COMPANY = (
    *("id", "companyName", "country", "addressLine1", "addressLine2", "city", "state", "zip", "zipCode"),
    *("firstName", "middleName", "lastName", "email", "phone", "taxId", "internalIdentifier"),
)
_CUSTOMER = (*_COMPANY, "resellerId", "providerCustomers", "customerAssociations")
_INSTANCE = (
    *("id", "alias", "instanceProviderId", "imageUrl", "providerData", "offerTypes", "supportedCountries"),
    "provider",
)
_ENTRY = ("providerInstanceId", "providerCustomerId", "providerCustomerData", "margin")
_PRIVATE = (*_COMPANY, "resellerId", "alias", "instanceProviderId")
# `state` is part of an address, and not of these
_CUSTOMER_ENUMS = ("status", "type", "customerStatus", "lifecycleStatus", "customerType")
_PROVIDER_ENUMS = ("status", "type", "name", "providerType", "kind")
_TELLS_DELETED = re.compile(r"(?i)delet|remov|archiv|status|lifecycle|(?:is)?(?:active|enabled|disabled)\Z")

Item = Mapping[str, Any]


def find_in_listings(listings: Sequence[Listing]) -> Iterator[Finding]:
    """Findings on the listings; none where none was asked for."""
    if not listings:
        return
    for listing in listings:
        yield from _find_envelope(listing)
    yield from _find_in_customers(_longest(listings, CUSTOMERS))
    yield from _find_in_instances(_longest(listings, INSTANCES))


def private_texts(listings: Sequence[Listing]) -> Iterator[str]:
    """Names, addresses and ids of everybody in the listings, for the redactor."""
    for item in (item for listing in listings for item in _items(listing)):
        yield from (value for name in _PRIVATE if isinstance(value := item.get(name), str))
        for key, entry in _entries(item):
            ids = (key, entry.get("providerInstanceId"), entry.get("providerCustomerId"))
            yield from (value for value in ids if isinstance(value, str))


def _longest(listings: Sequence[Listing], name: str) -> list[Item]:
    """The items of the longest page, so that none counts twice."""
    return max((_items(listing) for listing in listings if listing.name == name), key=len, default=[])


def _items(listing: Listing) -> list[Item]:
    body = listing.body.get("items") if isinstance(listing.body, dict) else listing.body
    return [item for item in body if isinstance(item, dict)] if isinstance(body, list) else []


def _find_envelope(listing: Listing) -> Iterator[Finding]:
    topic = f"listing of {listing.name}"
    if listing.failure:
        yield Finding(topic, f"page of {listing.page_size}", listing.failure, {"pages": 0})
        return
    body, items = listing.body, _items(listing)
    page = body if isinstance(body, dict) else {}
    evidence: Evidence = {
        "items": len(items),
        "members": {name: json_type(page[name]) for name in _PAGE if name in page},
        "missing": [name for name in _PAGE if name not in page],
        "unknown": count_unknown([page], _PAGE),
    }
    verdict = "page" if "hasNextPage" in page else f"JSON {json_type(body)}"
    yield Finding(topic, f"page of {listing.page_size}", verdict, evidence)
    yield _find_page_size(topic, listing.page_size, page, len(items))


def _find_page_size(topic: str, asked: int, page: Item, count: int) -> Finding:
    """Provable only where there is more than one page holds, or where more came than was asked for."""
    has_next, parameters = page.get("hasNextPage"), page.get("paginationParameters")
    said = parameters.get("pageSize") if isinstance(parameters, dict) else None
    verdict = judge(count == asked, 1) if has_next is True or count > asked else NOT_SEEN
    evidence = {
        "asked": asked,
        "items": count,
        "said_by_the_page": said if isinstance(said, int) else json_type(said),
        "has_next_page": has_next if isinstance(has_next, bool) else json_type(has_next),
    }
    return Finding(topic, f"page size {asked} is honoured", verdict, evidence)


def _find_in_customers(customers: Sequence[Item]) -> Iterator[Finding]:
    seen: Evidence = {"customers": len(customers)}
    yield _find_unknown("customers", "customers", customers, _CUSTOMER)
    telling = [{name: item[name] for name in item if _TELLS_DELETED.search(name)} for item in customers]
    deleted = sum(map(is_deleted, customers))
    evidence = seen | {
        "deleted_by_what_the_load_looks_at": deleted,
        "members": count_unknown(telling, ()),
        "values": _count_values(customers, _CUSTOMER_ENUMS),
    }
    verdict = NOT_SEEN if not customers else "perhaps" if any(telling) else "nothing does"
    yield Finding("customers", "something tells deleted ones", "yes" if deleted else verdict, evidence)
    kinds = Counter(json_type(item.get("providerCustomers")) for item in customers)
    pairs = [pair for item in customers for pair in _entries(item)]
    with_id = [(key, entry["providerInstanceId"]) for key, entry in pairs if key and entry.get("providerInstanceId")]
    same = sum(str(key).lower() == str(value).lower() for key, value in with_id)
    evidence = seen | {"types": dict(kinds), "entries": len(pairs), "with_an_id_inside": len(with_id), "same": same}
    yield Finding(
        "customers", "key of providerCustomers is its providerInstanceId", judge(same, len(with_id)), evidence
    )
    unfinished = sum(not entry.get("providerCustomerId") for _, entry in pairs)
    evidence = {"entries": len(pairs), "without": unfinished}
    yield Finding("customers", "entry lacks a providerCustomerId", judge(unfinished, len(pairs)), evidence)
    yield _find_unknown("customers", "entries of providerCustomers", [entry for _, entry in pairs], _ENTRY)


def _find_in_instances(instances: Sequence[Item]) -> Iterator[Finding]:
    yield _find_unknown("provider instances", "provider instances", instances, _INSTANCE)
    providers = [item.get("provider") for item in instances]
    objects = [provider for provider in providers if isinstance(provider, dict)]
    told = [is_microsoft(item) for item in instances]
    evidence: Evidence = {
        "instances": len(instances),
        "microsoft": told.count(True),
        "others": told.count(False),
        "not_told": told.count(None),
        "provider_types": dict(Counter(map(json_type, providers))),
        "members": count_unknown(objects, ()),
        "values": _count_values(objects, _PROVIDER_ENUMS),
    }
    hits = len(told) - told.count(None)
    yield Finding("provider instances", "provider tells Microsoft from others", judge(hits, len(told)), evidence)


def _find_unknown(topic: str, what: str, objects: Sequence[Item], known: Sequence[str]) -> Finding:
    hits = sum(not item.keys() <= set(known) for item in objects)
    evidence = {"objects": len(objects), "names": count_unknown(objects, known)}
    return Finding(topic, f"{what} have members that nobody documented", judge(hits, len(objects)), evidence)


def _count_values(objects: Sequence[Item], names: Sequence[str]) -> dict[str, dict[str, int]]:
    counted = {name: Counter(show_enum_value(item[name]) for item in objects if name in item) for name in names}
    return {name: dict(values.most_common(MAX_NAMES)) for name, values in counted.items() if values}


def _entries(customer: Item) -> list[tuple[str, Item]]:
    entries = customer.get("providerCustomers")
    pairs: Iterable[tuple[str, Any]] = entries.items() if isinstance(entries, dict) else ()
    if isinstance(entries, list):
        # by the reference it is a map; an array would have no keys to compare
        pairs = (("", entry) for entry in entries)
    return [(key, entry) for key, entry in pairs if isinstance(entry, dict)]
