"""The licence call."""

from starlette.responses import Response

from cockpit_source.sandbox.access import check_microsoft_instance, check_relation, find_customer, forbidden
from cockpit_source.sandbox.answers import Refused, problem
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.query import NOT_UUID, REQUIRED, is_uuid, parse_query


def list_licenses(call: Call) -> Response:
    """The licences of one customer in one provider instance, as a bare array."""
    sandbox = call.sandbox
    customer_id = call.request.path_params["customer_id"]
    query = parse_query(call.request.scope["query_string"])
    instance_id = query.get("providerinstanceid", "").lower()
    reseller_id = query.get("resellerid", "").lower() or None
    scripted = sandbox.scripted_answer(customer_id)
    if scripted:
        return Response(scripted.body, scripted.status, headers={"Content-Type": scripted.content_type})
    _check_ids(call, customerId=customer_id, providerInstanceId=instance_id, resellerId=reseller_id)
    customer = find_customer(call, customer_id)
    check_relation(call, customer, reseller_id)
    check_microsoft_instance(call, customer, instance_id)
    if not customer.has_gdap_on(call.day):
        raise forbidden()
    if customer.is_flaky and sandbox.stumbles(customer.id, instance_id):
        raise Refused(problem(call.request, 500, "The provider did not answer."))
    return sandbox.licenses_answer(customer, instance_id, call.day, _asked_part(call, reseller_id))


def _asked_part(call: Call, reseller_id: str | None) -> str | None:
    """The reseller whose part is wanted; None for the whole. Reseller clients get their own part."""
    if call.sandbox.reseller_answers == "same":
        return None
    return call.own_reseller_id if call.client.role == "reseller" else reseller_id


def _check_ids(call: Call, **ids: str | None) -> None:
    """Refuses with 400 what is not a UUID."""
    wrong = {
        name: NOT_UUID if text else REQUIRED for name, text in ids.items() if text is not None and not is_uuid(text)
    }
    if wrong:
        raise Refused(problem(call.request, 400, "The request is not valid.", **wrong))
