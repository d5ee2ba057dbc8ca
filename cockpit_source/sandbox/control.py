"""Routes that steer a running sandbox from outside. They need no sign-in and are not logged."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cockpit_source.sandbox.answers import Refused, json_answer, problem
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.state import Sandbox


async def read_state(request: Request) -> Response:
    """Day, size, settings, faults, and how many deletions were accepted and requests logged."""
    return _state(request)


async def read_requests(request: Request) -> Response:
    """The logged requests from index `since` on, and the index to ask for next time."""
    query = Query(request)
    since = query.integer("since", default=0, low=0, high=999_999_999)
    query.check()
    requests, next_index = _sandbox(request).log.since(since)
    return json_answer({"requests": requests, "next": next_index})


async def set_day(request: Request) -> Response:
    """Move to another day: {"day": 3}. Answers the new state, or 400."""
    body = await _read_object(request)
    try:
        _sandbox(request).day = body.get("day", -1)
    except ValueError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


async def set_faults(request: Request) -> Response:
    """Change rates and values: {"throttle": 0.1, "latency_ms": 50}. Answers the new state, or 400."""
    body = await _read_object(request)
    try:
        _sandbox(request).faults.configure(**body)
    except ValueError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


async def aim_fault(request: Request) -> Response:
    """Aim a fault at paths: {"path": "pageNumber=3", "kind": "error_500", "times": 2}, `times` left out: always.

    Answers the new state, or 400.
    """
    body = await _read_object(request)
    path, kind, times = body.get("path"), body.get("kind"), body.get("times")
    if not isinstance(path, str) or not isinstance(times, int | None):
        raise Refused(problem(request, 400, "path must be a text, and times a whole number or left out."))
    try:
        _sandbox(request).faults.for_path(path, str(kind), times)
    except ValueError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


async def offboard(request: Request) -> Response:
    """Take all licences and subscriptions of customers away: {"customer_ids": [...]}. Answers the state, or 400."""
    body = await _read_object(request)
    ids = body.get("customer_ids")
    if not isinstance(ids, list) or not all(isinstance(customer_id, str) for customer_id in ids):
        raise Refused(problem(request, 400, "customer_ids must be a list of texts."))
    try:
        _sandbox(request).offboard(*ids)
    except LookupError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


async def undo_deletions(request: Request) -> Response:
    """Bring back whatever was deleted. Answers the new state."""
    _sandbox(request).deletions.undo()
    return _state(request)


async def change_settings(request: Request) -> Response:
    """Change settings: {"deletion_delay_seconds": 0, "page_churn": 2}. Answers the new state, or 400."""
    body = await _read_object(request)
    try:
        _sandbox(request).configure(**body)
    except ValueError as error:
        raise Refused(problem(request, 400, str(error))) from error
    return _state(request)


def _sandbox(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


def _state(request: Request) -> Response:
    sandbox = _sandbox(request)
    return json_answer(
        {
            "day": sandbox.day,
            "domain": sandbox.tenant.domain,
            "seed": sandbox.tenant.seed,
            "customers": len(sandbox.tenant.customers),
            "settings": sandbox.settings(),
            "faults": sandbox.faults.as_dict(),
            "deletions": len(sandbox.deletions.all()),
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
