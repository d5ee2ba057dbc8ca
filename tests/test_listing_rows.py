"""Objects of the API's listings to rows and scopes, and pages: pure functions on every shape that is thinkable."""

from __future__ import annotations

from typing import Any

import pytest
from support import INSTANCE, new_id

from cockpit_source.answers import Answer
from cockpit_source.errors import CallRecord, UnusableAnswer
from cockpit_source.listing_rows import (
    UnfitObject,
    has_active_gdap,
    is_deleted,
    is_microsoft,
    iter_scopes,
    to_customer,
    to_gdap_relationship,
    to_provider_instance,
    to_reseller,
)
from cockpit_source.pagination import Page, iter_pages, read_page
from cockpit_source.scopes import Scope
from cockpit_source.tables import CONTACT_COLUMNS

CUSTOMER = new_id(1)
OTHER = new_id(2)
RESELLER = new_id(3)


def entry(**members: Any) -> dict[str, Any]:
    return {"providerCustomerId": new_id(9)} | members


@pytest.mark.parametrize(
    ("provider_customers", "expected"),
    [
        (None, []),
        ({}, []),
        ("not a map", []),
        ({INSTANCE: entry(providerInstanceId=OTHER)}, [OTHER]),
        ({INSTANCE: entry()}, [INSTANCE]),
        ({INSTANCE.upper(): entry(providerInstanceId="not an id")}, [INSTANCE]),
        ({"microsoft": entry(providerInstanceId=OTHER.upper())}, [OTHER]),
        ({INSTANCE: entry(), OTHER: entry()}, [INSTANCE, OTHER]),
        ({INSTANCE: entry(providerCustomerId=12345)}, [INSTANCE]),
        ([entry(providerInstanceId=OTHER)], [OTHER]),
        ({INSTANCE: None, OTHER: entry(providerCustomerId=None)}, [None, None]),
        ({INSTANCE: entry(providerCustomerId=" "), OTHER: {"providerInstanceId": OTHER}}, [None, None]),
    ],
)
def test_scopes_come_from_the_entries_with_a_customer_at_the_provider(
    provider_customers: Any, expected: list[str | None]
) -> None:
    customer = {"id": CUSTOMER.upper(), "resellerId": RESELLER.upper(), "providerCustomers": provider_customers}
    assert list(iter_scopes(customer)) == [instance and Scope(CUSTOMER, instance, RESELLER) for instance in expected]


@pytest.mark.parametrize("reseller", [None, ""])
def test_customer_without_reseller_has_scopes_without(reseller: str | None) -> None:
    customer = {"id": CUSTOMER, "resellerId": reseller, "providerCustomers": {INSTANCE: entry()}}
    assert list(iter_scopes(customer)) == [Scope(CUSTOMER, INSTANCE, None)]


@pytest.mark.parametrize(
    ("customer", "reason"),
    [
        ({"id": "x", "providerCustomers": {INSTANCE: entry()}}, "a customer has no id, or one that is not a UUID"),
        ({"id": CUSTOMER, "resellerId": "x"}, "resellerId of a customer is not a UUID"),
        ({"id": CUSTOMER, "providerCustomers": {"x": entry()}}, "an entry of providerCustomers names no provider"),
    ],
)
def test_customer_whose_scopes_cannot_be_known_is_unfit(customer: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnfitObject, match=reason):
        list(iter_scopes(customer))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, False),
        ({"isDeleted": True}, True),
        ({"isDeleted": False}, False),
        ({"deleted": True}, True),
        ({"isDeleted": "yes"}, False),
        ({"deletedAt": "2026-01-01T00:00:00Z"}, True),
        ({"deletedAt": None}, False),
        ({"deletedDate": "0001-01-01T00:00:00"}, False),
        ({"status": {"name": "Deleted"}}, True),
        ({"status": "deleted"}, True),
        ({"lifecycleStatus": {"name": "Active"}}, False),
        ({"state": "Deleted"}, False),
        ({"status": {"name": "NotDeleted"}}, False),
        ({"status": None}, False),
    ],
)
def test_customer_is_deleted_only_where_a_member_says_so(members: dict[str, Any], expected: bool) -> None:
    assert is_deleted(members) is expected


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"name": "Microsoft"}, True),
        ({"displayName": "MICROSOFT CSP"}, True),
        ({"type": {"name": "Microsoft"}}, True),
        ("Microsoft", True),
        ({"name": "Acronis"}, False),
        ({"type": {"name": "Backup"}, "id": new_id(5)}, False),
        ({"id": new_id(5)}, None),
        ({}, None),
        (None, None),
        (7, None),
    ],
)
def test_instance_is_microsofts_only_where_a_name_says_so(provider: Any, expected: bool | None) -> None:
    assert is_microsoft({"provider": provider}) is expected
    assert to_provider_instance({"id": INSTANCE, "provider": provider})["is_microsoft"] is expected


def test_contact_data_is_kept_only_when_asked_for() -> None:
    item = {
        "id": CUSTOMER.upper(),
        "companyName": " Nebelfuchs\x00GmbH ",
        "country": "DE",
        "email": "ada@firm.example",
        "zip": "1010",
        "taxId": "",
        "resellerId": RESELLER,
        "providerCustomers": {INSTANCE: entry()},
    }
    kept = to_customer(item, contact_data=True)
    assert (kept["id"], kept["company_name"]) == (CUSTOMER, "Nebelfuchs\ufffdGmbH")
    assert (kept["email"], kept["zip"], kept["tax_id"], kept["phone"]) == ("ada@firm.example", "1010", None, None)
    assert kept["provider_customers"] == f'{{"{INSTANCE}":"{new_id(9)}"}}'
    left = to_customer(item, contact_data=False)
    assert left == kept | dict.fromkeys(CONTACT_COLUMNS)


def test_zip_code_of_a_reseller_is_called_zip_too() -> None:
    row = to_reseller({"id": RESELLER, "companyName": "Nordlicht", "zipCode": "8000"}, contact_data=True)
    assert (row["company_name"], row["zip"], row["is_deleted"]) == ("Nordlicht", "8000", False)


def test_relationship_is_read_in_its_newer_and_its_older_form() -> None:
    newer = {"relationshipId": "r-1", "displayName": "GDAP", "status": {"name": "active"}, "duration": "P730D"}
    older = {"id": "r-1", "displayName": "GDAP", "duration": "P730D"}
    row = to_gdap_relationship(newer, CUSTOMER, INSTANCE)
    assert (row["relationship_id"], row["status"], row["duration"]) == ("r-1", "active", "P730D")
    assert to_gdap_relationship(older, CUSTOMER, INSTANCE) == row | {"status": None}
    with pytest.raises(UnfitObject, match="has no id"):
        to_gdap_relationship({"status": {"name": "active"}}, CUSTOMER, INSTANCE)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [([], False), (["terminated"], False), (["expired", "Active"], True), ([None], None), ([None, "active"], True)],
)
def test_gdap_is_active_where_one_relationship_is(statuses: list[str | None], expected: bool | None) -> None:
    assert has_active_gdap([{"status": status} for status in statuses]) is expected


def answer(body: Any) -> Answer:
    return Answer(body, CallRecord(200, "id"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"items": [1], "hasNextPage": False, "totalCount": 1}, Page([1], False, 1)),
        ({"items": None, "hasNextPage": False, "totalCount": 0}, Page([], False, 0)),
        ({"items": [1], "hasNextPage": True}, Page([1], True, None)),
        ({"items": [1], "hasNextPage": True, "totalCount": True}, Page([1], True, None)),
        ([1, 2], Page([1, 2], False, None)),
    ],
)
def test_page_is_read(body: Any, expected: Page) -> None:
    assert read_page(answer(body)) == expected


@pytest.mark.parametrize(
    "body", [None, "x", {}, {"items": [1]}, {"items": {}, "hasNextPage": False}, {"items": [], "hasNextPage": None}]
)
def test_what_is_no_page_is_unusable_and_not_empty(body: Any) -> None:
    with pytest.raises(UnusableAnswer, match="not a page"):
        read_page(answer(body))


def test_pages_are_walked_until_none_follows() -> None:
    asked = []

    def get_page(number: int) -> Answer:
        asked.append(number)
        return answer({"items": [number], "hasNextPage": number < 3, "totalCount": 3})

    assert [page.items for page in iter_pages(get_page)] == [[1], [2], [3]]
    assert asked == [1, 2, 3]


@pytest.mark.parametrize(("items", "reason"), [([1], "repeats the one before it"), ([], "is empty, but another")])
def test_listing_without_an_end_is_unusable(items: list[int], reason: str) -> None:
    with pytest.raises(UnusableAnswer, match=reason):
        list(iter_pages(lambda _: answer({"items": items, "hasNextPage": True})))
