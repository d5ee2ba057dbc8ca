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
    read_requests,
    read_state,
    set_day,
    set_faults,
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
        _api("GET", "/v1/customers", list_customers),
        _api("GET", "/v1/customers/mca", list_agreements),
        _api("GET", _CUSTOMER, get_customer),
        _api("DELETE", _CUSTOMER, delete_customer),
        _api("GET", f"{_CUSTOMER}/licenses", list_licenses),
        _api("GET", f"{_CUSTOMER}/subscriptions", list_customer_subscriptions),
        _api("GET", f"{_CUSTOMER}/delegated-admin-relationships", list_relationships),
        _api("DELETE", f"{_CUSTOMER}/remove-reseller-relationship/{{provider_instance_id}}", remove_relationship),
        _api("GET", "/v1/providers/instances", list_provider_instances),
        _api("GET", "/v1/resellers", list_resellers),
        _api("GET", "/v1/subscriptions", list_subscriptions),
        _api("GET", "/v1/auditlogs", list_audit_logs),
        Route(TOKEN_PATH, give_token, methods=["POST"]),
        Route(CONTROL_PREFIX + "state", read_state, methods=["GET"]),
        Route(CONTROL_PREFIX + "requests", read_requests, methods=["GET"]),
        Route(CONTROL_PREFIX + "day", set_day, methods=["POST"]),
        Route(CONTROL_PREFIX + "faults", set_faults, methods=["POST"]),
        Route(CONTROL_PREFIX + "aimed-faults", aim_fault, methods=["POST"]),
        Route(CONTROL_PREFIX + "settings", change_settings, methods=["POST"]),
        Route(ELSEWHERE_PATH, _elsewhere),
    ]


def _api(method: str, path: str, handler: Callable[[Call], Response]) -> Route:
    return Route(path, api_call(handler), methods=[method])


async def _elsewhere(_request: Request) -> Response:
    """Where the redirect fault points to."""
    return html_answer("You followed a redirect")
