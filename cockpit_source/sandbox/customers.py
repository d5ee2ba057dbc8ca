"""The customer list and the single customer."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from starlette.responses import Response

from cockpit_source.sandbox.access import check_relation, find_customer, forbidden, may_see
from cockpit_source.sandbox.answers import json_answer
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.company_search import NAME_FIELD, CompanySearch
from cockpit_source.sandbox.contacts import draw_contact, mail_domain
from cockpit_source.sandbox.directory import ProviderEntry
from cockpit_source.sandbox.draws import Draws
from cockpit_source.sandbox.pages import page_answer, read_page
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.tenant import Customer

T = TypeVar("T")
_SEARCH_FIELDS = (NAME_FIELD, "Domain", "InternalIdentifier", "ProviderCustomerId")


def list_customers(call: Call) -> Response:
    """A page of the customers that the caller may see, deleted ones among them."""
    query = Query(call.request)
    page = read_page(query)
    search = CompanySearch(query, _SEARCH_FIELDS)
    reseller_id = query.uuid("resellerId")
    query.check()
    customers = [customer for customer in call.sandbox.directory.customers(call.day) if may_see(call, customer)]
    if reseller_id is not None:
        customers = _of_reseller(call, customers, reseller_id)
    found = search.arrange(customers, lambda customer, field: _searched_texts(call, customer, field))
    answer = page_answer(page, _churned(call, found), lambda customer: _row(call, customer))
    if call.sandbox.page_churn:
        call.sandbox.page_churn -= 1
        call.sandbox.moved_rows += 1
    return answer


def get_customer(call: Call) -> Response:
    """One customer that is not deleted."""
    query = Query(call.request)
    customer_id = query.path_uuid("customerId", "customer_id")
    reseller_id = query.uuid("resellerId")
    query.check()
    customer = find_customer(call, customer_id)
    check_relation(call, customer, reseller_id)
    return json_answer(_row(call, customer))


def _of_reseller(call: Call, customers: list[Customer], reseller_id: str) -> list[Customer]:
    if call.client.role == "reseller" and reseller_id != call.own_reseller_id:
        raise forbidden()
    return [customer for customer in customers if reseller_id in call.sandbox.directory.reseller_ids(customer)]


def _searched_texts(call: Call, customer: Customer, field: str) -> list[str]:
    if field == "Domain":
        return [mail_domain(customer.id)]
    if field == "InternalIdentifier":
        return [_identifiers(call, customer)["internalIdentifier"] or ""]
    return [entry.provider_customer_id or "" for entry in call.sandbox.directory.entries(customer)]


def _churned(call: Call, rows: Sequence[T]) -> Sequence[T]:
    """The rows in an order in which as many have moved from the front to the end as page churn asked for."""
    first = call.sandbox.moved_rows % len(rows) if rows else 0
    return [*rows[first:], *rows[:first]] if first else rows


def _row(call: Call, customer: Customer) -> dict[str, Any]:
    directory = call.sandbox.directory
    partners = [
        {"resellerId": reseller_id, "companyName": directory.resellers[reseller_id].company_name}
        for reseller_id in directory.reseller_ids(customer)
    ]
    return {
        "id": customer.id,
        "companyName": customer.company_name,
        "country": customer.country,
        **draw_contact(Draws(call.sandbox.tenant.seed, "contact", customer.id), customer.id),
        **_identifiers(call, customer),
        "resellerId": customer.reseller_id,
        "providerCustomers": {
            entry.provider_instance_id: _provider_customer(customer, entry)
            for entry in directory.entries(customer)
            if not call.sandbox.deletions.has_relationship(customer.id, entry.provider_instance_id)
        },
        "customerAssociations": partners or None,
        **_deleted_marker(call, customer),
    }


def _identifiers(call: Call, customer: Customer) -> dict[str, str | None]:
    draws = Draws(call.sandbox.tenant.seed, "identifiers", customer.id)
    tax_id = f"{customer.country}{draws.between(100_000_000, 999_999_999)}" if draws.chance(0.8) else None
    return {
        "taxId": tax_id,
        "internalIdentifier": f"C-{draws.between(10_000, 99_999)}" if draws.chance(0.7) else None,
    }


def _provider_customer(customer: Customer, entry: ProviderEntry) -> dict[str, Any]:
    values: dict[str, Any] = {
        "providerCustomerId": entry.provider_customer_id,
        "providerCustomerData": json.dumps({"domain": mail_domain(customer.id)}),
        "margin": {"marginRule": {"name": "Markup"}},
    }
    return {"providerInstanceId": entry.provider_instance_id, **values} if entry.names_instance else values


def _deleted_marker(call: Call, customer: Customer) -> dict[str, Any]:
    is_deleted = not call.sandbox.is_listed(customer, call.day)
    match call.sandbox.deleted_style:
        case "is_deleted":
            return {"isDeleted": is_deleted}
        case "status":
            return {"status": {"name": "Deleted" if is_deleted else "Active"}}
    return {}
