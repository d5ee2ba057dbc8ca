"""What the API says of customers now. Reading only.

What cannot be read is never taken for empty: whatever does not fit the contract refuses. Only the API's own 404
says that a customer does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from cockpit_source.answers import Answer
from cockpit_source.client import CockpitClient
from cockpit_source.deletions.customer_listing import IncompleteListing, read_whole_listing
from cockpit_source.deletions.records import LiveEvidence, LiveScope, Subscription, to_canonical
from cockpit_source.errors import ApiError, DeletionRefused, Forbidden, NotFound
from cockpit_source.listing_rows import (
    UnfitObject,
    is_deleted,
    iter_provider_instances,
    to_customer,
    to_provider_instance,
    to_subscription,
)
from cockpit_source.pagination import iter_pages
from cockpit_source.scopes import Scope
from cockpit_source.transforms import find_items, to_license_rows

T = TypeVar("T")


class LiveReader:
    """Reads customers as they are now. `page_size` is in rows.

    All methods raise DeletionRefused where something cannot be read (code `unreadable`), and SignInError without a
    usable token.
    """

    def __init__(self, client: CockpitClient, *, page_size: int = 2000) -> None:
        self._client = client
        self._page_size = page_size
        self._other_instances: frozenset[str] | None = None

    def count_customers(self) -> int:
        """How many customers the API lists, to the end; those that it says are deleted are left out."""
        try:
            listing = read_whole_listing(self._client, self._page_size)
        except (ApiError, IncompleteListing) as error:
            raise _unreadable("The customer listing", error) from error
        return sum(not customer.is_deleted for customer in listing.customers.values())

    def read(self, customer_id: str, scopes: Iterable[tuple[str, str | None]]) -> LiveEvidence:
        """A customer with the seats of `scopes` (provider instance, reseller) and of all where it is now.

        A scope that the API says does not exist, in an instance that the customer does not name any more, is left
        out. So are instances of other providers than Microsoft: they have neither seats nor such a relationship.

        Raises:
            DeletionRefused: also with code `flagged_deleted`, for a customer that is shown, but as deleted.
        """
        customer = self._read_customer(customer_id)
        if customer is None:
            return LiveEvidence(exists=False)
        row, named = customer
        left_out = self._find_other_instances() if named else frozenset()
        relationships = sorted({instance for instance, exists in named if exists} - left_out)
        wanted = {*scopes, *((instance, row["reseller_id"]) for instance in relationships)}
        names = {instance for instance, _ in named}
        read = (
            self._read_scope(Scope(customer_id, instance, reseller), may_be_gone=instance not in names)
            for instance, reseller in sorted(wanted, key=lambda scope: (scope[0], scope[1] or ""))
        )
        return LiveEvidence(
            exists=True,
            company_name=row["company_name"],
            reseller_id=row["reseller_id"],
            relationships=tuple(relationships),
            scopes=tuple(scope for scope in read if scope is not None),
            subscriptions=self._read_subscriptions(customer_id),
        )

    def _read_customer(self, customer_id: str) -> tuple[Mapping[str, Any], list[tuple[str, bool]]] | None:
        """The customer and the provider instances that it names; None when the API says that there is none."""
        what = f"Customer {customer_id}"
        try:
            item = self._client.get_customer(customer_id).body
            row = to_customer(item, contact_data=False)
            named = list(iter_provider_instances(item))
        except NotFound as error:
            if error.is_documented:
                return None
            raise _unreadable(what, error) from error
        except (ApiError, UnfitObject) as error:
            raise _unreadable(what, error) from error
        if row["id"] != customer_id.lower():
            raise _unreadable(what, f"the API answered with customer {row['id']} instead")
        if is_deleted(item):
            raise DeletionRefused(
                "flagged_deleted",
                f"{what} is marked as deleted by the API, but still shown by it, so it is not certain what there is "
                "left to delete. Nothing was sent for it. Look at it in CloudCockpit; if it is deleted there, run "
                "`cockpit load` and leave it out of the query.",
            )
        return row, named

    def _read_scope(self, scope: Scope, *, may_be_gone: bool) -> LiveScope | None:
        """The seats of a scope; None when the API says that it does not exist, where that may be."""
        what = f"The licences of customer {scope.customer_id} in instance {scope.provider_instance_id}"
        try:
            items = find_items(self._client.list_licenses(scope).body)
        except NotFound as error:
            if may_be_gone and error.is_documented:
                return None
            raise _unreadable(what, error) from error
        except ApiError as error:
            raise _unreadable(what, error) from error
        if items is None:
            raise _unreadable(what, "the answer is not an array of licences")
        rows, rejected = to_license_rows("", items)
        if rejected:
            raise _unreadable(what, f"{len(rejected)} of {len(items)} rows do not fit: {rejected[0].reason}")
        return LiveScope(
            scope.provider_instance_id,
            scope.reseller_id,
            _add_up(row.total_licenses for row in rows),
            _add_up(row.consumed_licenses for row in rows),
        )

    def _read_subscriptions(self, customer_id: str) -> tuple[Subscription, ...]:
        what = f"The subscriptions of customer {customer_id}"

        def get_page(number: int) -> Answer:
            return self._client.list_customer_subscriptions(customer_id, number, self._page_size)

        found = [Subscription(**row) for row in _read_pages(what, get_page, to_subscription)]
        return tuple(sorted(found, key=_sort_key))

    def _find_other_instances(self) -> frozenset[str]:
        """The provider instances that are certainly not Microsoft's; read once."""
        if self._other_instances is None:

            def get_page(number: int) -> Answer:
                return self._client.list_provider_instances(number, self._page_size)

            rows = _read_pages("The provider instances", get_page, to_provider_instance)
            self._other_instances = frozenset(row["id"] for row in rows if row["is_microsoft"] is False)
        return self._other_instances


def _read_pages(what: str, get_page: Callable[[int], Answer], to_row: Callable[[object], T]) -> list[T]:
    """The rows of all pages, as many as the API says there are, no entry twice."""
    items: list[Any] = []
    totals: set[int | None] = set()
    try:
        for page in iter_pages(get_page):
            items += page.items
            totals.add(page.total_count)
        rows = [to_row(item) for item in items]
    except (ApiError, UnfitObject) as error:
        raise _unreadable(what, error) from error
    if totals != {len(rows)} or len({to_canonical(item) for item in items}) < len(items):
        counted = " or ".join("no total" if total is None else str(total) for total in totals)
        raise _unreadable(what, f"{len(rows)} are listed, some perhaps twice, but the API counts {counted}")
    return rows


def _add_up(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one is not told, or is less than nothing and would hide others."""
    total = 0
    for count in counts:
        if count is None or count < 0:
            return None
        total += count
    return total


def _sort_key(subscription: Subscription) -> tuple[str, ...]:
    return tuple(str(getattr(subscription, field.name)) for field in fields(Subscription))


def _unreadable(what: str, reason: ApiError | Exception | str) -> DeletionRefused:
    said = reason.summary if isinstance(reason, ApiError) else str(reason)
    if isinstance(reason, Forbidden):
        next_step = "Check the role of the API access (csp) and the customer's GDAP relationship, then try again."
    else:
        next_step = "Try again later; if it stays, look at the customer in CloudCockpit, or ask its support."
    return DeletionRefused(
        "unreadable",
        f"{what} could not be read, and what cannot be read is never taken for empty, so nothing is deleted: "
        f"{said}. {next_step}",
    )
