"""What every API call goes through before its handler: sign-in, the rate limit, latency and faults."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from cockpit_source.sandbox.breakage import fault_answer
from cockpit_source.sandbox.credentials import ApiClient
from cockpit_source.sandbox.sign_in import authenticate
from cockpit_source.sandbox.state import Sandbox


@dataclass(frozen=True, slots=True)
class Call:
    """An API call that has passed the sign-in."""

    request: Request
    sandbox: Sandbox
    client: ApiClient
    day: int

    @property
    def own_reseller_id(self) -> str:
        """The reseller that reseller clients belong to: the first one."""
        return self.sandbox.tenant.resellers[0].id


def api_call(handler: Callable[[Call], Response]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that runs the handler for signed-in callers, late or not at all where faults say so."""

    async def endpoint(request: Request) -> Response:
        sandbox: Sandbox = request.app.state.sandbox
        client = authenticate(request, sandbox)
        if sandbox.calls_per_second:
            seconds = sandbox.rate_limit.refuse(sandbox.calls_per_second, sandbox.limit_style)
            if seconds is not None:
                return Response(status_code=429, headers={"Retry-After": str(seconds)})
        if sandbox.faults.are_on:
            key = f"{request.scope['path']}?{request.scope['query_string'].decode('latin-1').lower()}"
            latency = sandbox.faults.latency_seconds(key)
            if latency:
                await asyncio.sleep(latency)
            fault = sandbox.faults.next_fault(request.path_params.get("customer_id", ""), key)
            if fault:
                return fault_answer(fault, request, sandbox)
        return handler(Call(request, sandbox, client, sandbox.day))

    return endpoint
