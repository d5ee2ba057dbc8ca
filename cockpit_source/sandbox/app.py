"""The sandbox as a web application."""

import re
import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cockpit_source.sandbox.answers import Refused, header, problem
from cockpit_source.sandbox.calls import api_call
from cockpit_source.sandbox.licenses import list_licenses
from cockpit_source.sandbox.request_log import LoggedRequest
from cockpit_source.sandbox.routes import CONTROL_PREFIX, make_routes
from cockpit_source.sandbox.state import Sandbox

_LICENSES = re.compile(r"/v1/customers/([^/]+)/licenses")
_list_licenses = api_call(list_licenses)


def create_app(sandbox: Sandbox) -> ASGIApp:
    """The application."""
    handlers: dict[Any, Any] = {Refused: _answer_refused, HTTPException: _answer_http_error}
    app = Starlette(routes=make_routes(), exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.sandbox = sandbox
    return _Front(app, sandbox)


class _Front:
    """Logs requests, except steering ones, and lets paths match in any case.

    The licence call does not go through the routes: a benchmark makes thousands, and what the sandbox
    spends on one is missing to the client on the same machine.
    """

    def __init__(self, app: Starlette, sandbox: Sandbox) -> None:
        self.app = app
        self.sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        scope["path"] = path.lower()
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self.app(scope, receive, send)
            return
        logged = LoggedRequest(
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            correlation_id=header(scope, b"x-correlation-id"),
            received_at_seconds=time.monotonic(),
            tenant=header(scope, b"x-tenant"),
        )
        scope.setdefault("state", {})["logged"] = logged

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                logged.status = message["status"]
            await send(message)

        self.sandbox.log.came(logged)
        try:
            licenses = _LICENSES.fullmatch(scope["path"])
            if licenses and scope["method"] == "GET":
                await self._answer_licenses(licenses[1], scope, receive, note_status)
            else:
                await self.app(scope, receive, note_status)
        finally:
            self.sandbox.log.finished(logged)

    async def _answer_licenses(self, customer_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self.app
        scope["path_params"] = {"customer_id": customer_id}
        try:
            response = await _list_licenses(Request(scope, receive))
        except Refused as refused:
            response = refused.response
        await response(scope, receive, send)


async def _answer_refused(_request: Request, error: Refused) -> Response:
    return error.response


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    answer = problem(request, error.status_code, "There is nothing at this path, or not with this method.")
    answer.headers.update(error.headers or {})
    return answer
