"""What a contender reads from the project folder of a sandbox: where the API is, how to sign in, which scopes."""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Scope:
    """One call of the licence endpoint. `reseller_id` is None where the customer buys direct."""

    customer_id: str
    provider_instance_id: str
    reseller_id: str | None

    @property
    def key(self) -> str:
        """One column that tells scopes apart: dlt joins compound merge keys without a separator."""
        return f"{self.customer_id}|{self.provider_instance_id}|{self.reseller_id or '-'}"

    def query(self) -> dict[str, str]:
        """Query parameters of the call."""
        query = {"providerInstanceId": self.provider_instance_id}
        return query | {"resellerId": self.reseller_id} if self.reseller_id else query


@dataclass(frozen=True, slots=True)
class SandboxProject:
    """Address, sign-in and scopes of a sandbox."""

    base_url: str
    tenant: str
    token_url: str
    token_scope: str
    client_id: str
    client_secret: str
    scopes: tuple[Scope, ...]

    def token_form(self) -> dict[str, str]:
        """The form that gets a token by client credentials."""
        return {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": self.token_scope,
        }


def read_project(folder: Path) -> SandboxProject:
    """The project that `cockpit sandbox --project` writes into a folder."""
    settings: dict[str, Any] = {}
    for name in ("config.toml", "secrets.toml"):
        settings |= tomllib.loads((folder / ".dlt" / name).read_text(encoding="utf-8"))["sources"]["cockpit"]
    with (folder / settings.pop("scopes_file")).open(encoding="utf-8", newline="") as file:
        scopes = tuple(
            Scope(row["customer_id"], row["provider_instance_id"], row["reseller_id"] or None)
            for row in csv.DictReader(file)
        )
    return SandboxProject(scopes=scopes, **settings)
