"""Every path that the sandbox answers. They are in lower case here, because they match in any case."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cockpit_source.sandbox.agreements import list_agreements
from cockpit_source.sandbox.answers import html_answer
from cockpit_source.sandbox.audit import list_audit_logs
from cockpit_source.sandbox.breakage import ELSEWHERE_PATH
from cockpit_source.sandbox.calls import Call, api_call
from cockpit_source.sandbox.control import (
    aim_fault,
    change_settings,
    offboard,
    read_requests,
    read_state,
    set_day,
    set_faults,
    undo_deletions,
)
from cockpit_source.sandbox.credentials import TOKEN_PATH
from cockpit_source.sandbox.customers import get_customer, list_customers
from cockpit_source.sandbox.licenses import list_licenses
from cockpit_source.sandbox.offboarding import delete_customer, remove_relationship
from cockpit_source.sandbox.partners import list_provider_instances, list_resellers
from cockpit_source.sandbox.relationships import list_relationships
from cockpit_source.sandbox.sign_in import give_token
from cockpit_source.sandbox.subscriptions import list_customer_subscriptions, list_subscriptions

CONTROL_PREFIX = "/_sandbox/"
_CUSTOMER = "/v1/customers/{customer_id}"


def make_routes() -> list[Route]:
    """The API, the token endpoint and the steering of the sandbox."""
    return [
        _api("/v1/customers", GET=list_customers),
        _api("/v1/customers/mca", GET=list_agreements),
        _api(_CUSTOMER, GET=get_customer, DELETE=delete_customer),
        _api(f"{_CUSTOMER}/licenses", GET=list_licenses),
        _api(f"{_CUSTOMER}/subscriptions", GET=list_customer_subscriptions),
        _api(f"{_CUSTOMER}/delegated-admin-relationships", GET=list_relationships),
        _api(f"{_CUSTOMER}/remove-reseller-relationship/{{provider_instance_id}}", DELETE=remove_relationship),
        _api("/v1/providers/instances", GET=list_provider_instances),
        _api("/v1/resellers", GET=list_resellers),
        _api("/v1/subscriptions", GET=list_subscriptions),
        _api("/v1/auditlogs", GET=list_audit_logs),
        Route(TOKEN_PATH, give_token, methods=["POST"]),
        Route(CONTROL_PREFIX + "state", read_state, methods=["GET"]),
        Route(CONTROL_PREFIX + "requests", read_requests, methods=["GET"]),
        Route(CONTROL_PREFIX + "day", set_day, methods=["POST"]),
        Route(CONTROL_PREFIX + "faults", set_faults, methods=["POST"]),
        Route(CONTROL_PREFIX + "aimed-faults", aim_fault, methods=["POST"]),
        Route(CONTROL_PREFIX + "offboard", offboard, methods=["POST"]),
        Route(CONTROL_PREFIX + "undo-deletions", undo_deletions, methods=["POST"]),
        Route(CONTROL_PREFIX + "settings", change_settings, methods=["POST"]),
        Route(ELSEWHERE_PATH, _elsewhere),
    ]


def _api(path: str, **handlers: Callable[[Call], Response]) -> Route:
    """One path of the API and its handlers by method."""
    endpoints = {method: api_call(handler) for method, handler in handlers.items()}

    async def endpoint(request: Request) -> Response:
        # the web framework adds HEAD to GET
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=list(endpoints))


async def _elsewhere(_request: Request) -> Response:
    """Where the redirect fault points to."""
    return html_answer("You followed a redirect")
