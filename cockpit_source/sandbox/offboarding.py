"""The two deletions. Accepted is not done: the effect shows after a delay, and the audit log tells how they ended."""

from uuid import uuid4

from starlette.responses import Response

from cockpit_source.sandbox.access import check_is_csp, check_microsoft_instance, find_customer
from cockpit_source.sandbox.answers import Refused, header, problem
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.deletions import DELETE_CUSTOMER, REMOVE_RELATIONSHIP
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.subscriptions import has_active_subscription
from cockpit_source.sandbox.tenant import Customer


def delete_customer(call: Call) -> Response:
    """Accept the deletion of a customer. While it is under way, another one is accepted too."""
    check_is_csp(call)
    query = Query(call.request)
    customer_id = query.path_uuid("customerId", "customer_id")
    query.check()
    customer = find_customer(call, customer_id)
    if call.sandbox.blocks_active_deletions and has_active_subscription(call, customer):
        raise Refused(problem(call.request, 400, "The customer has active subscriptions."))
    return _accept(call, DELETE_CUSTOMER, customer, None)


def remove_relationship(call: Call) -> Response:
    """Accept the end of the relationship with a customer in one Microsoft instance."""
    check_is_csp(call)
    query = Query(call.request)
    customer_id = query.path_uuid("customerId", "customer_id")
    instance_id = query.path_uuid("providerInstanceId", "provider_instance_id")
    query.check()
    customer = find_customer(call, customer_id)
    check_microsoft_instance(call, customer, instance_id)
    return _accept(call, REMOVE_RELATIONSHIP, customer, instance_id)


def _accept(call: Call, operation: str, customer: Customer, instance_id: str | None) -> Response:
    call.sandbox.deletions.accept(
        operation,
        customer,
        instance_id,
        correlation_id=header(call.request.scope, b"x-correlation-id") or str(uuid4()),
        client_id=call.client.id,
        outcome=call.sandbox.deletion_outcome,
    )
    return Response(status_code=202)
