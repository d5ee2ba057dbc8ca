"""Many tenants in one installation: what a tenant takes from the settings of all, and what it may not set itself.

Each has a table `[sources.cockpit.tenants.NAME]`. Its keys win over those of `[sources.cockpit]`, which hold for all
tenants, with two groups that never mix: how the scopes are listed, and the credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cockpit_source import values
from cockpit_source.errors import ConfigurationError
from cockpit_source.settings import KEYS, SCOPE_LISTS, SCOPE_WAYS, SECTION, TENANTS_SECTION, environment_name

# as in a variable of the environment, where two underscores part the names
_NAME = re.compile(r"[a-z0-9](?:_?[a-z0-9])*\Z")

SCOPE_KEYS = frozenset({*SCOPE_LISTS, *SCOPE_WAYS})
CREDENTIAL_KEYS = frozenset({"client_id", "client_secret", "access_token"})
# where credentials are sent, or for whom they stand
_ADDRESS_KEYS = frozenset({"tenant", "base_url", "token_url", "token_scope"})
DELETIONS_NEED_ONE = "deletions are carried out for one tenant"
DELETIONS_NEXT_STEP = (
    "Use a project folder of one tenant for them, with its settings under [sources.cockpit] and the same destination."
)
# the dataset and its file, of which there is one for all tenants
DATASET_KEYS = frozenset({"reseller_scopes", "refresh_marts", "publish_read_copy", "lock_wait_seconds"})


def merge_raw(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The raw values of a tenant: its own, and of `[sources.cockpit]` what it does not set itself.

    One way of listing scopes replaces the other. The credentials of `[sources.cockpit]` belong to the portal and the
    addresses that stand there: a tenant that sets one of these, or one of its own credentials, gets none of them.
    """
    given = _given(own)
    left_out: frozenset[str] = frozenset()
    if given.keys() & SCOPE_KEYS:
        left_out |= SCOPE_KEYS
    if given.keys() & (CREDENTIAL_KEYS | _ADDRESS_KEYS):
        left_out |= CREDENTIAL_KEYS
    return {name: value for name, value in common.items() if name not in left_out} | given


def find_problems(
    name: str,
    common: Mapping[str, Any],
    own: Mapping[str, Any],
    merged: Mapping[str, Any],
    tenant_keys: Mapping[str, str | None],
) -> Iterator[str]:
    """Sentences about what does not work for tenant `name` among all, whose `tenant_keys` stand by name.

    `common` are the raw values of `[sources.cockpit]`, `own` those of its table, `merged` what came of both.
    """
    for key in sorted(_given(own).keys() & DATASET_KEYS & common.keys()):
        yield f"{key} is about the dataset, which all tenants share: set it under [{SECTION}] only."
    if not _given(merged).keys() & CREDENTIAL_KEYS and _given(common).keys() & CREDENTIAL_KEYS:
        yield (
            f"the credentials under [{SECTION}] are not used here: they are sent only for tenants that set none of "
            f"{', '.join(sorted(_ADDRESS_KEYS))} themselves. Give this tenant its own."
        )
    tenant_key = raw_tenant_key(merged)
    others = [other for other, key in tenant_keys.items() if other != name and key == tenant_key]
    if tenant_key is not None and others:
        yield (
            f"tenant_key {tenant_key} is also that of {_join(others)}, so their rows could not be told apart. Give "
            "each a tenant of its own, or a tenant_key of its own where they share a portal."
        )


def raw_tenant_key(raw: Mapping[str, Any]) -> str | None:
    """The tenant key of raw values as it would be if they are right; None where neither key is text."""
    for name in ("tenant_key", "tenant"):
        if not values.is_missing(raw.get(name)):
            value = raw[name]
            return value.strip().lower() if isinstance(value, str) else None
    return None


def require_name(name: str, names: Sequence[str]) -> None:
    """Make sure that tenant `name` is configured, and called so that the environment can name it too.

    Raises:
        ConfigurationError: it is not.
    """
    if name not in names:
        raise describe_unknown_tenant(name, names)
    if not _NAME.match(name):
        raise ConfigurationError(
            f"The name of a tenant does not fit: {values.abbreviate(name)} in [{TENANTS_SECTION}.NAME]. Valid: "
            "lower-case letters, digits and single underscores, such as contoso_eu, since the environment names it "
            f"too: {environment_name('client_secret', 'contoso_eu')}. The domain of the portal is the key tenant."
        )


def describe_unknown_tenant(name: str, names: Sequence[str]) -> ConfigurationError:
    """The error where no tenant of `names` is called `name`."""
    configured = (
        f"Configured are {_join(names)}, each under [{TENANTS_SECTION}.NAME]."
        if names
        else f"No tenant has a table [{TENANTS_SECTION}.NAME]: all settings are those of [{SECTION}]. Leave it out."
    )
    return ConfigurationError(f"There is no tenant {values.abbreviate(name)}. {configured}")


def describe_nameless(names: Sequence[str], what: str, next_step: str) -> ConfigurationError:
    """The error where something is about one tenant, and there are several."""
    return ConfigurationError(
        f"{what}, and this project has tenants of its own ({_join(names)}, under [{TENANTS_SECTION}.NAME]). "
        f"{next_step}"
    )


def describe_loose(names: Iterable[str]) -> Iterator[str]:
    """A sentence for each name in `[sources.cockpit.tenants]` that is no table."""
    for name in names:
        place = f"a table [{TENANTS_SECTION}.NAME]" + (f", or under [{SECTION}] for all" if name in KEYS else "")
        yield f"{name} stands in [{TENANTS_SECTION}] itself. It belongs into {place}."


def describe_nested(name: str, tables: Iterable[str]) -> Iterator[str]:
    """A sentence for each table inside the table of tenant `name`."""
    for table in tables:
        if table == "deletions":
            yield (f"[{TENANTS_SECTION}.{name}.deletions] cannot be: {DELETIONS_NEED_ONE}. {DELETIONS_NEXT_STEP}")
        else:
            yield (
                f"[{TENANTS_SECTION}.{name}.{table}] is a table inside of a tenant's. A NAME has no dots; the domain "
                "of the portal is the key tenant."
            )


def _given(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if not values.is_missing(value)}


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
