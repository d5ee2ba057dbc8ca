"""The list of Microsoft Customer Agreements: every customer in every Microsoft instance."""

from typing import Any

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

Agreement = tuple[Customer, str, str]
"""Customer, provider instance id and status."""


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
    rows: list[Agreement] = [
        (customer, pair_instance_id, _status(customer.id, pair_instance_id))
        for customer, pair_instance_id in microsoft_pairs(call)
        if customer_id in (None, customer.id)
        and instance_id in (None, pair_instance_id)
        and searched in customer.company_name.casefold()
    ]
    rows = [
        row for row in rows if status in ("", row[2].casefold()) and not (excludes_compliant and row[2] == _CREATED)
    ]
    first = 0 if order == "CompanyName" else 2
    rows.sort(
        key=lambda row: (row[2] if first else row[0].company_name.casefold(), row[0].id, row[1]),
        reverse=not ascending,
    )
    return page_answer(page, rows, lambda row: _item(call, row))


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
