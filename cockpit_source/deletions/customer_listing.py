"""The listing of all customers, whole or not at all.

Rows can move from page to page while a listing is read, so one of several pages counts only when two walks in a row
saw the same, and every walk has to bring as many customers as the API says there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from cockpit_source.answers import Answer
from cockpit_source.client import CockpitClient
from cockpit_source.errors import CallRecord
from cockpit_source.listing_rows import UnfitObject, is_deleted, iter_provider_instances, to_customer
from cockpit_source.pagination import iter_pages

PATH = "/v1/Customers"
MAX_WALKS = 6


class IncompleteListing(Exception):
    """The listing cannot be shown to be whole; the message says why."""


@dataclass(frozen=True, slots=True)
class ListedCustomer:
    """A customer as it is listed. `provider_instances` are all that it names, unfinished ones among them."""

    is_deleted: bool
    provider_instances: frozenset[str]


@dataclass(frozen=True, slots=True)
class CustomerListing:
    """Every customer by its id, deleted ones among them, and the call that read the last page."""

    customers: dict[str, ListedCustomer]
    call: CallRecord


def read_whole_listing(client: CockpitClient, page_size: int) -> CustomerListing:
    """All customers that the API lists.

    Raises:
        IncompleteListing: customers may be missing.
        ApiError: a page could not be read.
        SignInError: no usable token.
    """
    problem: str | None = None
    before: CustomerListing | None = None
    for _ in range(MAX_WALKS):
        listing, pages, problem = _walk(client, page_size)
        if problem is None and (pages == 1 or (before is not None and before.customers == listing.customers)):
            return listing
        before = listing if problem is None else None
    raise IncompleteListing(problem or "it kept changing while it was read")


def _walk(client: CockpitClient, page_size: int) -> tuple[CustomerListing, int, str | None]:
    """One walk: what it saw, how many pages there were, and why it is not whole."""
    calls: list[CallRecord] = []
    totals: set[int | None] = set()
    found: dict[str, ListedCustomer] = {}

    def get_page(number: int) -> Answer:
        answer = client.list_customers(number, page_size)
        calls.append(answer.call)
        return answer

    for page in iter_pages(get_page):
        totals.add(page.total_count)
        try:
            found |= dict(_to_listed(item) for item in page.items)
        except UnfitObject as error:
            raise IncompleteListing(str(error)) from None
    listing = CustomerListing(found, calls[-1])
    return listing, len(calls), _judge(len(found), totals)


def _judge(seen: int, totals: set[int | None]) -> str | None:
    if totals == {seen}:
        return None
    if None in totals:
        return "the API does not say how many customers there are"
    counted = " or ".join(str(total) for total in sorted(total for total in totals if total is not None))
    return f"the API counts {counted} customers, but lists {seen}"


def _to_listed(item: object) -> tuple[str, ListedCustomer]:
    row = to_customer(item, contact_data=False)
    assert isinstance(item, dict)  # noqa: S101 - to_customer takes nothing else
    instances = frozenset(instance_id for instance_id, _ in iter_provider_instances(item))
    return row["id"], ListedCustomer(is_deleted(item), instances)
