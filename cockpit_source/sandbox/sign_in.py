"""Sign-in: the token endpoint in the manner of Microsoft Entra, and the check of tokens at the API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from cockpit_source.sandbox.answers import Refused, header, json_answer
from cockpit_source.sandbox.breakage import fault_answer
from cockpit_source.sandbox.credentials import TOKEN_SCOPE, ApiClient
from cockpit_source.sandbox.state import Sandbox


async def give_token(request: Request) -> Response:
    """A token for a good client id, secret, scope and grant type; otherwise an error as Entra words it."""
    sandbox: Sandbox = request.app.state.sandbox
    fault = sandbox.faults.next_sign_in_fault()
    if fault:
        return fault_answer(fault, request, sandbox)
    form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
    client = _check_form(form, sandbox.api_clients)
    request.state.logged.client_id = client.id
    seconds = int(sandbox.tokens.lifetime_seconds)
    return json_answer(
        {
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "access_token": sandbox.tokens.issue(client),
        }
    )


def authenticate(request: Request, sandbox: Sandbox) -> ApiClient:
    """The client behind the request's token.

    Refuses with 401 without a good token, and with 403 without the tenant's domain in X-Tenant.
    That the latter is a 403 is the sandbox's own choice.
    """
    kind, _, token = (header(request.scope, b"authorization") or "").partition(" ")
    client = sandbox.tokens.client_of(token) if kind.lower() == "bearer" else None
    if client is None:
        raise Refused(Response(status_code=401))
    request.scope["state"]["logged"].client_id = client.id
    if (header(request.scope, b"x-tenant") or "").lower() != sandbox.tenant.domain:
        raise Refused(Response(status_code=403))
    return client


def _check_form(form: dict[str, str], clients: Mapping[str, ApiClient]) -> ApiClient:
    for name in ("grant_type", "client_id", "client_secret", "scope"):
        if not form.get(name):
            text = f"AADSTS900144: The request body must contain the following parameter: '{name}'."
            raise Refused(_entra_error(400, "invalid_request", 900144, text))
    if form["grant_type"] != "client_credentials":
        text = f"AADSTS70003: The app requested an unsupported grant type '{form['grant_type']}'."
        raise Refused(_entra_error(400, "unsupported_grant_type", 70003, text))
    client = clients.get(form["client_id"])
    if client is None:
        text = f"AADSTS700016: Application with identifier '{form['client_id']}' was not found in the directory."
        raise Refused(_entra_error(400, "unauthorized_client", 700016, text))
    if form["client_secret"] != client.secret:
        text = f"AADSTS7000215: Invalid client secret provided for app '{client.id}'."
        raise Refused(_entra_error(401, "invalid_client", 7000215, text))
    if form["scope"] != TOKEN_SCOPE:
        text = f"AADSTS70011: The provided value for the input parameter 'scope' is not valid: {form['scope']}."
        raise Refused(_entra_error(400, "invalid_scope", 70011, text))
    return client


def _entra_error(status: int, error: str, code: int, description: str) -> Response:
    return json_answer(
        {
            "error": error,
            "error_description": description,
            "error_codes": [code],
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
            "trace_id": str(uuid4()),
            "correlation_id": str(uuid4()),
        },
        status,
    )
