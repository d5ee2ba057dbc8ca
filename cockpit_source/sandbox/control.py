"""Routes that steer a running sandbox from outside. They need no sign-in and are not logged."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cockpit_source.sandbox.answers import Refused, json_answer, problem
from cockpit_source.sandbox.state import Sandbox


async def read_state(request: Request) -> Response:
    """Day, size, faults and number of logged requests."""
    return _state(request)


async def set_day(request: Request) -> Response:
    """Move to another day: {"day": 3}. Answers the new state, or 400."""
    body = await _read_object(request)
    try:
        request.app.state.sandbox.day = body.get("day")
    except ValueError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


async def set_faults(request: Request) -> Response:
    """Change rates and values: {"throttle": 0.1, "latency_ms": 50}. Answers the new state, or 400."""
    body = await _read_object(request)
    try:
        request.app.state.sandbox.faults.configure(**body)
    except ValueError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


def _state(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    return json_answer(
        {
            "day": sandbox.day,
            "domain": sandbox.tenant.domain,
            "seed": sandbox.tenant.seed,
            "customers": len(sandbox.tenant.customers),
            "faults": sandbox.faults.as_dict(),
            "requests": len(sandbox.requests),
            "peak_in_flight": sandbox.peak_in_flight,
        }
    )


async def _read_object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise Refused(problem(request, 400, "The body is not JSON.")) from error
    if not isinstance(body, dict):
        raise Refused(problem(request, 400, "The body is not a JSON object."))
    return body
