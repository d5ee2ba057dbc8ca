"""The GDAP relationships of a customer: what allows the tenant to act for it at Microsoft."""

from typing import Any

from starlette.responses import Response

from cockpit_source.sandbox.access import check_microsoft_instance, check_relation, find_customer
from cockpit_source.sandbox.answers import json_answer
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.draws import derived_id
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.tenant import Customer

_ROLES = (
    "88d8e3e3-8f55-4a1e-953a-9b9898b8876b",  # Directory Reader
    "4d6ac14f-3453-41d0-bef9-a3e0c569773a",  # License Administrator
)


def list_relationships(call: Call) -> Response:
    """The relationships in one instance, as a bare array; one is active where licence calls are allowed."""
    query = Query(call.request)
    customer_id = query.path_uuid("customerId", "customer_id")
    instance_id = query.uuid("providerInstanceId", required=True)
    query.check()
    customer = find_customer(call, customer_id)
    check_relation(call, customer, None)
    instance_id = instance_id or ""
    check_microsoft_instance(call, customer, instance_id)
    statuses = _statuses(customer, call.day)
    return json_answer([_item(call, customer, instance_id, status) for status in statuses])


def _statuses(customer: Customer, day: int) -> list[str]:
    """The statuses of the customer's relationships; nothing is left of an old one of every second customer."""
    was_renewed = int(customer.id[0], 16) % 2 == 0
    old = ["expired"] if was_renewed else []
    if customer.has_gdap_on(day):
        return ["active", *old]
    return ["terminated", *old] if customer.has_gdap else old


def _item(call: Call, customer: Customer, instance_id: str, status: str) -> dict[str, Any]:
    directory = call.sandbox.directory
    # one relationship that ended stays the same one
    kind = "old" if status == "expired" else "current"
    relationship_id = derived_id(call.sandbox.tenant.seed, "gdap", kind, customer.id, instance_id)
    return {
        "relationshipId": relationship_id,
        "displayName": f"GDAP_{kind}_{customer.id[:8]}",
        "duration": "P730D",
        "autoExtendDuration": "PT0S" if status == "expired" else "P180D",
        "customer": {"tenantId": directory.microsoft_id(customer.id, instance_id)},
        "status": {"name": status},
        "accessDetails": {"unifiedRoles": [{"roleDefinitionId": role} for role in _ROLES]},
    }
