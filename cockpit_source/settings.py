"""The settings of the load: their names, defaults, valid values and where each may be set.

`KEYS` is the one list of them. Values arrive as strings from the environment and typed from TOML files; both are
checked here, all at once, and come out as one `Settings` record that is passed on as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from cockpit_source import values
from cockpit_source.errors import ConfigurationError

SECTION = "sources.cockpit"
# holds a table for each tenant, where there are several
TENANTS_SECTION = f"{SECTION}.tenants"

DEFAULT_BASE_URL = "https://app-cloudcockpitapi-prod-01.azurewebsites.net"
# https://developer.cloudcockpit.com/reseller/topic/topic-authentication-guide
DEFAULT_TOKEN_URL = "https://login.microsoftonline.com/4e806121-ff28-4286-ab4e-3be0a08f9ce0/oauth2/v2.0/token"  # noqa: S105
DEFAULT_TOKEN_SCOPE = "api://b92a36a4-feb8-4f47-a69c-29a180aa6d0a/.default"  # noqa: S105

CONNECT_TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024

ResellerScopes = Literal["same", "parts"]
ScopeOrigin = Literal["lists", "tables", "file", "query", "discover"]

# what is loaded is said in one of these ways, or by the product of the lists
SCOPE_WAYS = ("scopes", "scopes_file", "scopes_query", "discover")
SCOPE_LISTS = ("customers", "provider_instances", "resellers")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: how its value is read, what it is when missing, and the words for a message about it."""

    read: Callable[[Any], Any]
    valid: str
    default: Any = None
    secret: bool = False


KEYS: dict[str, Key] = {
    "base_url": Key(values.read_url, "an https address", DEFAULT_BASE_URL),
    "tenant": Key(values.read_domain, "the domain of your CloudCockpit portal, such as portal.example.com"),
    "tenant_key": Key(values.read_tenant_key, "a short name without '|' or blanks; by default the tenant"),
    "client_id": Key(values.read_text, "the client id of the API access"),
    "client_secret": Key(values.read_text, "the secret of the API access", secret=True),
    "token_url": Key(values.read_url, "an https address", DEFAULT_TOKEN_URL),
    "token_scope": Key(values.read_text, "text", DEFAULT_TOKEN_SCOPE),
    "access_token": Key(values.read_header_text, "a token, instead of client_id and client_secret", secret=True),
    "customers": Key(values.read_list, "a list of customer ids"),
    "provider_instances": Key(values.read_list, "a list of provider instance ids"),
    "resellers": Key(values.read_list, "a list of reseller ids, with '-' for no reseller"),
    "scopes": Key(values.read_tables, "a list of tables with customer_id, provider_instance_id, reseller_id"),
    "scopes_file": Key(values.read_text, "the path of a CSV, Parquet or JSON file"),
    "scopes_query": Key(values.read_text, "one SELECT on the warehouse"),
    "discover": Key(values.read_flag, "true, to load every customer that the API lists", False),
    "page_size": Key(values.whole_number(1, 2000), "a whole number from 1 to 2000, rows a page of a listing", 2000),
    "contact_data": Key(values.read_flag, "true or false: keep addresses and contacts of what is discovered", False),
    "gdap_relationships": Key(values.read_flag, "true or false: read them too, one more call a scope", False),
    "max_concurrency": Key(values.whole_number(1, 256), "a whole number from 1 to 256, the most calls at a time", 96),
    "max_requests_per_second": Key(values.number(0.01, 10_000), "a number from 0.01 to 10000, or left out"),
    "max_attempts": Key(values.whole_number(1, 20), "a whole number from 1 to 20", 5),
    "timeout_seconds": Key(values.number(0.1, 3600), "a number from 0.1 to 3600", 60.0),
    "patience_seconds": Key(values.number(0, 86_400), "a number from 0 to 86400", 300.0),
    "run_deadline_minutes": Key(values.number(0.01, 10_080), "a number from 0.01 to 10080, or left out"),
    "max_drop_scopes": Key(values.whole_number(0, 10_000_000), "a whole number from 0 to 10000000", 10),
    "max_drop_percent": Key(values.number(0, 100), "a number from 0 to 100", 5.0),
    "lock_wait_seconds": Key(
        values.number(0, 86_400), "a number from 0 to 86400: how long to wait for a reader of the DuckDB file", 120.0
    ),
    "publish_read_copy": Key(values.read_flag, "true or false: copy the DuckDB file for readers after a run", True),
    "after_run_command": Key(values.read_text, "a command that runs after every load"),
    "after_run_webhook": Key(values.read_webhook, "an https address, told of every load", secret=True),
    "price_list": Key(values.read_text, "the path of a CSV file with prices of SKUs"),
    "sku_catalog": Key(values.read_place, "the path or https address of Microsoft's table of product names, as CSV"),
    "reseller_scopes": Key(
        values.one_of("same", "parts"),
        '"same": a customer read with and without reseller has the same seats, counted once; "parts": each is a part',
        "same",
    ),
    "refresh_marts": Key(values.read_flag, "true or false: refresh the marts after every load", False),
}

_TENANT_MISSING = f"tenant is missing. Valid: {KEYS['tenant'].valid}."


@dataclass(frozen=True, slots=True)
class Credentials:
    """Either `client_id` and `client_secret`, or a ready `access_token`; the repr shows none of them."""

    client_id: str | None = field(default=None, repr=False)
    client_secret: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    token_url: str = DEFAULT_TOKEN_URL
    token_scope: str = DEFAULT_TOKEN_SCOPE


@dataclass(frozen=True, slots=True)
class ScopeSettings:
    """Where the scope list comes from, and exactly one of the ways filled in. Rows are as configured, unchecked.

    Of discovery there is nothing to fill in.
    """

    origin: ScopeOrigin
    rows: tuple[Mapping[str, Any], ...] = ()
    file: str | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a load, checked. Times are seconds unless the name says minutes.

    `page_size` (rows a page), `contact_data` and `gdap_relationships` (whether to keep or read them) are for
    discovery; `max_drop_scopes` and `max_drop_percent` for the drop guard, which acts where both are exceeded.
    """

    tenant: str
    tenant_key: str
    credentials: Credentials
    scopes: ScopeSettings
    base_url: str = DEFAULT_BASE_URL
    max_concurrency: int = 96
    max_requests_per_second: float | None = None
    max_attempts: int = 5
    timeout_seconds: float = 60.0
    patience_seconds: float = 300.0
    run_deadline_minutes: float | None = None
    max_drop_scopes: int = 10
    max_drop_percent: float = 5.0
    lock_wait_seconds: float = 120.0
    publish_read_copy: bool = True
    page_size: int = 2000
    contact_data: bool = False
    gdap_relationships: bool = False
    after_run_command: str | None = None
    after_run_webhook: str | None = field(default=None, repr=False)
    price_list: str | None = None
    sku_catalog: str | None = None
    reseller_scopes: ResellerScopes = "same"
    refresh_marts: bool = False


@dataclass(frozen=True, slots=True)
class MartSettings:
    """What the marts need of the settings, which is neither credentials nor scopes."""

    tenant_key: str
    price_list: str | None = None
    sku_catalog: str | None = None
    reseller_scopes: ResellerScopes = "same"
    lock_wait_seconds: float = 120.0
    publish_read_copy: bool = True


MART_KEYS = (
    "tenant_key",
    "tenant",
    "price_list",
    "sku_catalog",
    "reseller_scopes",
    "lock_wait_seconds",
    "publish_read_copy",
)


def build_settings(
    raw: Mapping[str, Any],
    *,
    unknown: Sequence[str] = (),
    misplaced: Sequence[str] = (),
    tenant_name: str | None = None,
    problems: Sequence[str] = (),
) -> Settings:
    """`Settings` from raw values by key; None counts as missing.

    `unknown` are names that were found where only keys belong, `misplaced` secrets found in a shared file, `problems`
    sentences about what the caller found. `tenant_name` is that of one tenant of several.

    Raises:
        ConfigurationError: one message that names every wrong, missing, contradictory or unknown key.
    """
    found = describe_stray_keys(unknown, misplaced, tenant_name)
    read = {name: read_value(KEYS[name], name, raw.get(name), found) for name in KEYS}
    if read["tenant"] is None and values.is_missing(raw.get("tenant")):
        found.append(_TENANT_MISSING)
    found += _find_credential_problems(raw)
    found += _find_scope_problems(raw)
    refuse(found + list(problems), tenant_name)
    return _assemble(read)


def read_tenant_key(
    raw: Mapping[str, Any], tenant_name: str | None = None, other_problems: Sequence[str] = ()
) -> str:
    """The tenant key from the raw values of `tenant_key` and `tenant`; whatever else is wrong does not matter.

    Raises:
        ConfigurationError: neither is given, or the one that counts is wrong.
    """
    name = "tenant" if values.is_missing(raw.get("tenant_key")) else "tenant_key"
    problems: list[str] = []
    tenant_key: str | None = read_value(KEYS[name], name, raw.get(name), problems)
    if tenant_key is None and not problems:
        problems.append(_TENANT_MISSING)
    refuse([*problems, *other_problems], tenant_name)
    return str(tenant_key).lower()


def read_mart_settings(
    raw: Mapping[str, Any], tenant_name: str | None = None, other_problems: Sequence[str] = ()
) -> MartSettings:
    """`MartSettings` from the raw values of `MART_KEYS`; whatever else is wrong does not matter.

    Raises:
        ConfigurationError: one message that names every key that is wrong or missing.
    """
    problems = list(other_problems)
    read = {name: read_value(KEYS[name], name, raw.get(name), problems) for name in MART_KEYS[2:]}
    refuse(problems, tenant_name)
    return MartSettings(read_tenant_key(raw, tenant_name), **read)


def environment_name(name: str, tenant_name: str | None = None) -> str:
    """The environment variable of key `name`, of one tenant of several where `tenant_name` says so."""
    middle = "" if tenant_name is None else f"TENANTS__{tenant_name.upper()}__"
    return f"SOURCES__COCKPIT__{middle}{name.upper()}"


def describe_stray_keys(
    unknown: Sequence[str], misplaced: Sequence[str], tenant_name: str | None = None
) -> list[str]:
    """A sentence for each name that is no key, and for each secret that stands in a shared file."""
    return [
        *(_describe_unknown(name) for name in unknown),
        *(describe_misplaced(name, environment_name(name, tenant_name)) for name in misplaced),
    ]


def _describe_unknown(name: str) -> str:
    if name == "tenants":
        return f"tenants is no key: each tenant has a table of its own, [{TENANTS_SECTION}.NAME]."
    return values.describe_unknown_key(name, KEYS)


def describe_misplaced(name: str, variable: str) -> str:
    """A sentence about a secret in config.toml; `variable` is where the environment may hold it."""
    return (
        f"{name} stands in config.toml, a file that is meant to be shared. Move it to .dlt/secrets.toml or to "
        f"{variable}; replace the secret if the file was shared already."
    )


def read_value(key: Key, name: str, value: Any, problems: list[str]) -> Any:
    """The checked value of a key, its default where it is missing; None, and a problem more, where it is wrong."""
    try:
        return key.default if values.is_missing(value) else key.read(value)
    except ValueError as error:
        shown = "" if key.secret else f" (got {values.abbreviate(value)})"
        problems.append(f"{name} {error}{shown}. Valid: {key.valid}.")
        return None


def refuse(problems: Sequence[str], tenant_name: str | None = None) -> None:
    """Nothing where there are no problems.

    Raises:
        ConfigurationError: one message with all of them, and where keys may be set.
    """
    if not problems:
        return
    lines = "\n".join(f"  - {problem}" for problem in problems)
    begins, place = "The configuration does not work:", f"[{SECTION}]"
    if tenant_name is not None:
        begins = f"The configuration of tenant {tenant_name} does not work:"
        place = f"[{TENANTS_SECTION}.{tenant_name}], what holds for all tenants under [{SECTION}]"
    raise ConfigurationError(
        f"{begins}\n{lines}\n"
        f"Set keys in .dlt/config.toml (secrets in .dlt/secrets.toml) under {place}, or in the environment, "
        f"for example as {environment_name('tenant', tenant_name)}. `cockpit check` shows which files were read."
    )


def _find_credential_problems(raw: Mapping[str, Any]) -> list[str]:
    given = {name for name in ("client_id", "client_secret", "access_token") if not values.is_missing(raw.get(name))}
    if given in ({"access_token"}, {"client_id", "client_secret"}):
        return []
    if not given:
        return ["client_id and client_secret are missing (or, instead of both, access_token)."]
    if "access_token" in given:
        others = " and ".join(sorted(given - {"access_token"}))
        return [f"access_token is given together with {others}: keep one way to sign in and remove the other."]
    return [f"{'client_secret' if 'client_id' in given else 'client_id'} is missing: the two go together."]


def _find_scope_problems(raw: Mapping[str, Any]) -> list[str]:
    given = {name for name in raw if name in KEYS and not values.is_missing(raw[name])}
    ways: list[str] = [name for name in SCOPE_WAYS if name in given and not _is_off(raw[name])]
    lists = [name for name in SCOPE_LISTS if name in given]
    if lists:
        ways.insert(0, " with ".join(lists))
    if len(ways) > 1:
        return [f"the scopes are given in several ways ({'; '.join(ways)}): keep one and remove the others."]
    if not ways:
        return [
            "no scopes are configured: set discover = true, or customers and provider_instances, or scopes, or "
            "scopes_file, or scopes_query."
        ]
    return [
        f"{name} is missing: it goes together with {other}."
        for name, other in (("customers", "provider_instances"), ("provider_instances", "customers"))
        if lists and name not in given
    ]


def _is_off(value: Any) -> bool:
    """Whether a flag says no; a wrong one does not, since it is complained about elsewhere."""
    return value is False or (isinstance(value, str) and value.strip().lower() == "false")


def _assemble(read: Mapping[str, Any]) -> Settings:
    return Settings(
        tenant=read["tenant"],
        tenant_key=read["tenant_key"] or read["tenant"].lower(),
        base_url=read["base_url"],
        credentials=Credentials(
            **{
                name: read[name]
                for name in ("client_id", "client_secret", "access_token", "token_url", "token_scope")
            }
        ),
        scopes=_assemble_scopes(read),
        **{
            name: read[name]
            for name in (
                "max_concurrency",
                "max_requests_per_second",
                "max_attempts",
                "timeout_seconds",
                "patience_seconds",
                "run_deadline_minutes",
                "max_drop_scopes",
                "max_drop_percent",
                "lock_wait_seconds",
                "publish_read_copy",
                "page_size",
                "contact_data",
                "gdap_relationships",
                "after_run_command",
                "after_run_webhook",
                "price_list",
                "sku_catalog",
                "reseller_scopes",
                "refresh_marts",
            )
        },
    )


def _assemble_scopes(read: Mapping[str, Any]) -> ScopeSettings:
    if read["discover"]:
        return ScopeSettings("discover")
    if read["scopes_file"]:
        return ScopeSettings("file", file=read["scopes_file"])
    if read["scopes_query"]:
        return ScopeSettings("query", query=read["scopes_query"])
    if read["scopes"]:
        return ScopeSettings("tables", rows=tuple(read["scopes"]))
    product = tuple(
        {"customer_id": customer, "provider_instance_id": instance, "reseller_id": reseller}
        for customer in read["customers"]
        for instance in read["provider_instances"]
        for reseller in read["resellers"] or (None,)
    )
    return ScopeSettings("lists", rows=product)


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine, the one case in which plain http is allowed."""
    return values.is_loopback_host(urlsplit(url).hostname or "")
