"""The licence call."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.responses import Response

from cockpit_source.sandbox.answers import Refused, problem
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.tenant import Customer


def list_licenses(call: Call) -> Response:
    """The licences of one customer in one provider instance, as a bare array."""
    customer_id = call.request.path_params["customer_id"]
    query = _read_query(call.request.scope["query_string"])
    instance_id = query.get("providerInstanceId", "").lower()
    reseller_id = query.get("resellerId", "").lower() or None
    scripted = call.sandbox.scripted_answer(customer_id)
    if scripted:
        return Response(scripted.body, scripted.status, headers={"Content-Type": scripted.content_type})
    customer = _find_customer(call, customer_id, instance_id, reseller_id)
    _check_access(call, customer, reseller_id)
    if instance_id not in customer.provider_instance_ids:
        raise Refused(problem(call.request, 404, "The customer does not exist in this provider instance."))
    if not customer.has_gdap_on(call.day):
        raise Refused(Response(status_code=403))
    if customer.is_flaky and call.sandbox.stumbles(customer.id, instance_id):
        raise Refused(problem(call.request, 500, "The provider did not answer."))
    return call.sandbox.licenses_answer(customer.id, instance_id, call.day)


@lru_cache(maxsize=1024)
def _read_query(query: bytes) -> Mapping[str, str]:
    return MappingProxyType(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))


def _find_customer(call: Call, customer_id: str, instance_id: str, reseller_id: str | None) -> Customer:
    """The customer; refuses with 400 what is not a UUID and with 404 what is not listed."""
    customer = call.sandbox.tenant.customer(customer_id)
    wrong = {
        name: "The value is not a valid UUID." if text else "The value is required."
        for name, text in (
            ("customerId", customer_id),
            ("providerInstanceId", instance_id),
            ("resellerId", reseller_id),
        )
        if text is not None and not _is_uuid(text)
    }
    if wrong:
        raise Refused(problem(call.request, 400, "The request is not valid.", **wrong))
    if customer is None or not customer.is_listed(call.day):
        raise Refused(problem(call.request, 404, "The customer does not exist."))
    return customer


def _check_access(call: Call, customer: Customer, reseller_id: str | None) -> None:
    """Refuses with 403 a reseller that the customer has no relation with, be it asked for or asking.

    Whoever names no reseller gets the same rows as with the customer's own one.
    """
    allowed = {None, customer.reseller_id}
    if call.client.role == "reseller":
        allowed &= {None, call.own_reseller_id}
        if customer.reseller_id != call.own_reseller_id:
            allowed = set()
    if reseller_id not in allowed:
        raise Refused(Response(status_code=403))


def _is_uuid(text: str) -> bool:
    try:
        return len(text) == 36 and bool(UUID(text))
    except ValueError:
        return False
