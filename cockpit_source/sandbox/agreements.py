"""The list of Microsoft Customer Agreements: every customer in every Microsoft instance."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from starlette.responses import Response

from cockpit_source.sandbox.access import microsoft_pairs
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.contacts import draw_contact
from cockpit_source.sandbox.draws import Draws
from cockpit_source.sandbox.pages import page_answer, read_page
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.tenant import Customer

_CREATED = "AgreementCreated"
_STATUSES = ("Required", "LinkGenerated", "CustomerAccepted", "LinkExpired", _CREATED)
_CONTACT_FIELDS = ("firstName", "lastName", "email", "phone")


class Agreement(NamedTuple):
    """The agreement of a customer in one instance."""

    customer: Customer
    provider_instance_id: str
    status: str


def list_agreements(call: Call) -> Response:
    """A page of agreements; case does not matter in `status`."""
    query = Query(call.request)
    page = read_page(query)
    customer_id, instance_id = query.uuid("customerId"), query.uuid("providerInstanceId")
    status = query.text("status").casefold()
    if status and status not in {known.casefold() for known in _STATUSES}:
        query.refuse("status", f"The value is not one of {', '.join(_STATUSES)}.")
    searched = query.text("searchValue").casefold()
    order = query.choice("sortPropertyName", ("CompanyName", "Status"), default="Status")
    excludes_compliant = query.flag("excludeCompliant", default=False)
    ascending = query.flag("ascendingOrder", default=False)
    query.check()
    rows = [
        agreement
        for agreement in _agreements(call)
        if customer_id in (None, agreement.customer.id)
        and instance_id in (None, agreement.provider_instance_id)
        and searched in agreement.customer.company_name.casefold()
        and status in ("", agreement.status.casefold())
        and not (excludes_compliant and agreement.status == _CREATED)
    ]
    rows.sort(key=_by_company_name if order == "CompanyName" else _by_status, reverse=not ascending)
    return page_answer(page, rows, lambda agreement: _item(call, agreement))


def _agreements(call: Call) -> Iterator[Agreement]:
    for customer, instance_id in microsoft_pairs(call):
        yield Agreement(customer, instance_id, _status(customer.id, instance_id))


def _by_company_name(row: Agreement) -> tuple[str, str, str]:
    return row.customer.company_name.casefold(), row.customer.id, row.provider_instance_id


def _by_status(row: Agreement) -> tuple[str, str, str]:
    return row.status, row.customer.id, row.provider_instance_id


def _status(customer_id: str, instance_id: str) -> str:
    """Mostly created; one in about seven is at an earlier step. Taken from the ids, as every page asks for all."""
    number = (int(customer_id[-6:], 16) + int(instance_id[-6:], 16)) % 100
    return _CREATED if number < 85 else _STATUSES[number % 4]


def _item(call: Call, row: Agreement) -> dict[str, Any]:
    customer, instance_id, status = row
    contact = draw_contact(Draws(call.sandbox.tenant.seed, "contact", customer.id), customer.id)
    names = {instance.id: instance.alias for instance in call.sandbox.tenant.provider_instances}
    return {
        "customerId": customer.id,
        "providerCustomerId": call.sandbox.directory.microsoft_id(customer.id, instance_id),
        "companyName": customer.company_name,
        "providerInstanceId": instance_id,
        "providerInstanceName": names[instance_id],
        **{field: contact[field] for field in _CONTACT_FIELDS},
        "status": {"name": status},
    }
