"""The subscription lists. A customer has one subscription per paid product."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from starlette.responses import Response

from cockpit_source.sandbox.access import check_is_csp, check_relation, find_customer, microsoft_pairs
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.draws import derived_id
from cockpit_source.sandbox.pages import page_answer, read_page
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.subscription_index import ACTIVE, Subscription, subscriptions_of
from cockpit_source.sandbox.tenant import Customer

_ORDERS = ("Offer.Name", "Status", "StartDate", "EndDate")
_FIRST_START = date(2025, 1, 1)


def list_subscriptions(call: Call) -> Response:
    """A page of all subscriptions of the tenant, for CSP clients."""
    check_is_csp(call)
    query = Query(call.request)
    arrangement = _Arrangement(query)
    query.check()
    shown = {(customer.id, instance_id) for customer, instance_id in microsoft_pairs(call)}
    rows = [
        row for row in call.sandbox.subscriptions(call.day) if (row.customer.id, row.provider_instance_id) in shown
    ]
    return arrangement.answer(call, rows)


def list_customer_subscriptions(call: Call) -> Response:
    """A page of the subscriptions of one customer; those of one reseller or one offer, where asked for."""
    query = Query(call.request)
    arrangement = _Arrangement(query)
    customer_id = query.path_uuid("customerId", "customer_id")
    reseller_id, offer_id = query.uuid("resellerId"), query.uuid("offerId")
    query.check()
    customer = find_customer(call, customer_id)
    check_relation(call, customer, reseller_id)
    rows = [
        row
        for row in _of_customer(call, customer)
        if reseller_id in (None, customer.reseller_id) and offer_id in (None, _offer_id(call, row))
    ]
    return arrangement.answer(call, rows)


def has_active_subscription(call: Call, customer: Customer) -> bool:
    """Whether anything that this customer bought is active."""
    return any(row.status == ACTIVE for row in _of_customer(call, customer))


def _of_customer(call: Call, customer: Customer) -> list[Subscription]:
    return [
        row
        for instance_id in customer.provider_instance_ids
        if call.sandbox.has_instance(customer, instance_id)
        for row in subscriptions_of(call.sandbox.tenant, customer, instance_id, call.day)
    ]


class _Arrangement:
    """Which page of which rows in which order; the parameters that both lists share."""

    def __init__(self, query: Query) -> None:
        self.page = read_page(query)
        self.searched = query.text("searchValue").casefold()
        self.order = query.choice("sortPropertyName", _ORDERS)
        self.ascending = query.flag("ascendingOrder", default=True)

    def answer(self, call: Call, rows: Iterable[Subscription]) -> Response:
        """The page; the search is for a part of the product name."""
        kept = [row for row in rows if self.searched in row.product.name.casefold()]
        if self.order:
            kept.sort(key=lambda row: (_sort_value(row, self.order), row.id))
        return page_answer(self.page, kept if self.ascending else kept[::-1], lambda row: _item(call, row))


def _sort_value(row: Subscription, order: str) -> str:
    if order == "Offer.Name":
        return row.product.name.casefold()
    return row.status if order == "Status" else _start(row).isoformat()


def _start(row: Subscription) -> date:
    """The first day; every subscription lasts a year, so the last days have the same order."""
    return _FIRST_START + timedelta(days=int(row.id[:4], 16) % 365)


def _offer_id(call: Call, row: Subscription) -> str:
    return derived_id(call.sandbox.tenant.seed, "offer", row.product.sku_id)


def _item(call: Call, row: Subscription) -> dict[str, Any]:
    start = _start(row)
    return {
        "id": row.id,
        "orderId": derived_id(call.sandbox.tenant.seed, "order", row.id),
        "offerId": _offer_id(call, row),
        "customerId": row.customer.id,
        "providerInstanceId": row.provider_instance_id,
        "resellerId": row.customer.reseller_id,
        "subscriptionName": row.product.name,
        "offerName": row.product.name,
        "offerType": {"name": "License"},
        "isAddonOffer": False,
        "isTrialOffer": False,
        "providerOfferId": row.product.part_number,
        "subscriptionStatus": {"name": row.status},
        "startDate": f"{start}T00:00:00Z",
        "endDate": f"{start.replace(year=start.year + 1)}T00:00:00Z",
        "cancellationAllowedUntil": None,
        "quantity": row.quantity,
        "assignedLicenses": row.assigned,
        "termDuration": {"name": "OneYear"},
        "billingFrequency": {"name": "Monthly"},
        "autoRenewal": True,
    }
