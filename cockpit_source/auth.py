"""Tokens for the API: fetched on first use, shared by all workers, renewed before they expire.

Entra client credentials as in https://developer.cloudcockpit.com/reseller/topic/topic-authentication-guide
(checked 2026-11-23 against the project's contract notes), or a ready token.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import requests

from cockpit_source.errors import SignInError, SignInRefused
from cockpit_source.pacing import Backoff, retry_after_seconds
from cockpit_source.redaction import REPLACEMENT, redact
from cockpit_source.settings import Credentials, Settings
from cockpit_source.transforms import clean_text
from cockpit_source.transport import Transport, describe_failure

_DEFAULT_LIFETIME_SECONDS = 3599.0
_MAX_MARGIN_SECONDS = 120.0
_MARGIN_SHARE = 0.1
_TRANSIENT_STATUS = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; `renew_at` is on the monotonic clock, seconds, None when it is not known."""

    value: str = field(repr=False)
    renew_at: float | None = None


class TokenProvider(Protocol):
    """Gives the current token, and a newer one after the API refused it. Both raise SignInError."""

    async def current(self) -> Token: ...

    async def renew(self, refused: Token) -> Token: ...


class ReadyToken:
    """A token that was given ready-made and cannot be renewed."""

    def __init__(self, value: str) -> None:
        self._token = Token(value)

    async def current(self) -> Token:
        return self._token

    async def renew(self, refused: Token) -> Token:  # noqa: ARG002
        raise SignInRefused(
            "The API refused the access token (401); it has probably expired, since tokens live a little under "
            "an hour. Get a new one, or configure client_id and client_secret so that it is renewed by itself."
        )


class ClientCredentialsTokens:
    """Tokens by client id and secret: one request however many workers wait.

    After a failure every later call raises the same error without another request. A service that asks to wait
    longer than `patience_seconds` has failed.
    """

    def __init__(
        self,
        credentials: Credentials,
        transport: Transport,
        *,
        backoff: Backoff,
        patience_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._transport = transport
        self._backoff = backoff
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: Token | None = None
        self._failure: SignInError | None = None

    async def current(self) -> Token:
        token = self._token
        if token is not None and not self._is_due(token):
            return token
        async with self._lock:
            if self._token is None or self._is_due(self._token):
                self._token = await self._request_token_once()
            return self._token

    async def renew(self, refused: Token) -> Token:
        async with self._lock:
            if self._token is None or self._token is refused or self._is_due(self._token):
                self._token = await self._request_token_once()
            return self._token

    def _is_due(self, token: Token) -> bool:
        return token.renew_at is not None and self._clock() >= token.renew_at

    async def _request_token_once(self) -> Token:
        if self._failure is not None:
            raise self._failure
        try:
            return await self._request_token()
        except SignInError as error:
            self._failure = error
            raise

    async def _request_token(self) -> Token:
        form = {
            "client_id": self._credentials.client_id,
            "client_secret": self._credentials.client_secret,
            "scope": self._credentials.token_scope,
            "grant_type": "client_credentials",
        }
        url = self._credentials.token_url
        problem = ""
        for wait in self._backoff.waits():
            asked: float | None = None
            try:
                reply = await self._transport.send("POST", url, form=form)
            except requests.RequestException as error:
                problem = redact(describe_failure(error))
            else:
                if reply.status == 200:
                    return self._read_token(reply.json_or_none())
                if 400 <= reply.status < 500 and reply.status not in _TRANSIENT_STATUS:
                    said = _read_reason(reply.json_or_none(), str(self._credentials.client_secret))
                    raise SignInRefused(_describe_refusal(url, reply.status, said))
                problem = f"HTTP {reply.status}"
                asked = retry_after_seconds(reply.headers)
            if asked is not None and asked > self._patience_seconds:
                problem += f", asked to wait {asked:.0f} s, longer than patience_seconds"
                break
            if not await wait(asked):
                break
        raise SignInError(
            f"Sign-in was not possible: {url} gave no answer that can be used ({problem}). "
            "Check the network, a proxy, and token_url; then run again."
        )

    def _read_token(self, body: Any) -> Token:
        value = body.get("access_token") if isinstance(body, dict) else None
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
            raise SignInError(
                f"Sign-in was not possible: {self._credentials.token_url} answered 200 without a usable "
                "access_token. Check token_url."
            )
        seconds = _read_lifetime(body.get("expires_in"))
        return Token(value, self._clock() + seconds - min(_MAX_MARGIN_SECONDS, seconds * _MARGIN_SHARE))


def create_tokens(settings: Settings, transport: Transport, backoff: Backoff) -> TokenProvider:
    """Tokens by the credentials in `settings`."""
    credentials = settings.credentials
    if credentials.access_token:
        return ReadyToken(credentials.access_token)
    return ClientCredentialsTokens(
        credentials, transport, backoff=backoff, patience_seconds=settings.patience_seconds
    )


def _read_lifetime(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return _DEFAULT_LIFETIME_SECONDS
    return seconds if 0 < seconds < math.inf else _DEFAULT_LIFETIME_SECONDS


def _read_reason(body: Any, secret: str) -> str:
    """What the sign-in service says about a refusal, as ": reason", or nothing."""
    if not isinstance(body, dict):
        return ""
    said = (body.get("error"), body.get("error_description"))
    parts = (part.strip().split("\n")[0].strip() for part in said if isinstance(part, str))
    text = " - ".join(part for part in parts if part).replace(secret, REPLACEMENT)[:5_000]
    return f": {redact(clean_text(text))[:500]}" if text else ""


def _describe_refusal(url: str, status: int, said: str) -> str:
    return (
        f"Sign-in was refused (HTTP {status} from {url}{said}). Check client_id and client_secret; the secret may "
        "have expired or been replaced; a CSP creates new ones in the portal settings."
    )
