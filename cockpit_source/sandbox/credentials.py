"""The API accesses of the sandbox and the tokens it gave out. Every secret here is fake and public."""

import secrets
import time
from dataclasses import dataclass
from threading import Lock

TOKEN_PATH = "/oauth2/v2.0/token"  # noqa: S105 - an address
TOKEN_SCOPE = "api://b92a36a4-feb8-4f47-a69c-29a180aa6d0a/.default"  # noqa: S105 - a name, the same for everybody


@dataclass(frozen=True, slots=True)
class ApiClient:
    """An API access. One with role csp sees everything, one with role reseller its own customers."""

    id: str
    secret: str
    role: str


CSP_CLIENT = ApiClient("sandbox-csp", "sandbox-csp-secret", "csp")
RESELLER_CLIENT = ApiClient("sandbox-reseller", "sandbox-reseller-secret", "reseller")
API_CLIENTS = {client.id: client for client in (CSP_CLIENT, RESELLER_CLIENT)}


class Tokens:
    """Tokens given out and still known; an opaque text each."""

    def __init__(self, lifetime_seconds: float) -> None:
        self.lifetime_seconds = lifetime_seconds
        self._issued: dict[str, tuple[ApiClient, float]] = {}
        self._lock = Lock()

    def issue(self, client: ApiClient) -> str:
        """A new token for this client; forgets those that are too old."""
        token = secrets.token_urlsafe(96)
        now = time.monotonic()
        with self._lock:
            self._issued = {
                known: entry for known, entry in self._issued.items() if now - entry[1] < self.lifetime_seconds
            }
            self._issued[token] = (client, now)
        return token

    def client_of(self, token: str) -> ApiClient | None:
        """The client that holds this token; None when it is unknown, revoked or too old."""
        client, issued_at = self._issued.get(token, (None, 0.0))
        return client if time.monotonic() - issued_at < self.lifetime_seconds else None

    def revoke_all(self) -> None:
        """Let every token given out so far be refused."""
        with self._lock:
            self._issued = {}
