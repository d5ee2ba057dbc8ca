"""Who may see what: checks that several calls share."""

from collections.abc import Iterator

from starlette.responses import Response

from cockpit_source.sandbox.answers import Refused, problem
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.tenant import Customer


def forbidden() -> Refused:
    """The refusal of a caller: 403 without a body."""
    return Refused(Response(status_code=403))


def check_is_csp(call: Call) -> None:
    """Refuses reseller clients."""
    if call.client.role != "csp":
        raise forbidden()


def find_customer(call: Call, customer_id: str) -> Customer:
    """The customer; refuses with 404 what is not there or was deleted."""
    customer = call.sandbox.tenant.customer(customer_id)
    if customer is None or not call.sandbox.is_listed(customer, call.day):
        raise Refused(problem(call.request, 404, "The customer does not exist."))
    return customer


def check_relation(call: Call, customer: Customer, reseller_id: str | None) -> None:
    """Refuses with 403 a reseller that the customer has no relation with, be it asked for or asking."""
    if not may_see(call, customer):
        raise forbidden()
    if reseller_id is None or reseller_id == customer.reseller_id:
        return
    if call.client.role == "reseller" or reseller_id not in call.sandbox.directory.reseller_ids(customer):
        raise forbidden()


def may_see(call: Call, customer: Customer) -> bool:
    """Whether the caller may see this customer: a CSP all, a reseller its own."""
    return call.client.role == "csp" or customer.reseller_id == call.own_reseller_id


def check_microsoft_instance(call: Call, customer: Customer, provider_instance_id: str) -> None:
    """Refuses with 400 the instance of another provider and with 404 one that the customer is not in."""
    if provider_instance_id == call.sandbox.directory.other_instance.id:
        text = "The call is specific to the Microsoft provider."
        raise Refused(problem(call.request, 400, text, providerInstanceId="The provider is not Microsoft."))
    if not call.sandbox.has_instance(customer, provider_instance_id):
        raise Refused(problem(call.request, 404, "The customer does not exist in this provider instance."))


def microsoft_pairs(call: Call) -> Iterator[tuple[Customer, str]]:
    """Customers that the caller may see, not deleted, with each Microsoft instance they are in."""
    for customer in call.sandbox.tenant.customers:
        if may_see(call, customer) and call.sandbox.is_listed(customer, call.day):
            for instance_id in customer.provider_instance_ids:
                if call.sandbox.has_instance(customer, instance_id):
                    yield customer, instance_id
