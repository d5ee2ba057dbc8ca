"""A scope: the slice that one call of the licence endpoint covers completely."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from cockpit_source.transforms import is_uuid

NO_RESELLER = "-"
ID_COLUMNS = ("customer_id", "provider_instance_id", "reseller_id")

OUTCOMES = (
    "ok",
    "empty",
    "forbidden",
    "not_found",
    "invalid",
    "failed",
    "deferred",
    "skipped",
    "quarantined",
)
GOOD_OUTCOMES = ("ok", "empty")


class Scope(NamedTuple):
    """One customer in one provider instance, narrowed to one reseller or not. Ids are lower-case UUIDs."""

    customer_id: str
    provider_instance_id: str
    reseller_id: str | None


class PriorState(NamedTuple):
    """What was known of a scope when the run began; None where nothing was.

    All from the warehouse but `has_active_gdap`, which discovery finds out. `held_licenses` counts the rows of
    `licenses`; the drop guard asks it.
    """

    first_seen_at: datetime | None = None
    last_listed_run_id: str | None = None
    last_good_run_id: str | None = None
    last_good_at: datetime | None = None
    failing_runs: int = 0
    delisted_at: datetime | None = None
    has_active_gdap: bool | None = None
    held_licenses: int = 0


class ListedScope(NamedTuple):
    """A scope of this run's list, with its key and its prior state."""

    scope_key: str
    scope: Scope
    prior: PriorState = PriorState()


def scope_key(tenant_key: str, scope: Scope) -> str:
    """`tenant_key|customer|provider_instance|reseller`, lower case, `-` for no reseller."""
    reseller = scope.reseller_id or NO_RESELLER
    return f"{tenant_key}|{scope.customer_id}|{scope.provider_instance_id}|{reseller}".lower()


def parse_scope(record: Mapping[str, Any]) -> Scope:
    """The scope of one line of a list.

    `reseller_id` may be missing, blank or `-` for none. Other columns are ignored.

    Raises:
        ValueError: an id is missing or not a UUID; the message names the column.
    """
    return Scope(
        _parse_id(record, "customer_id"),
        _parse_id(record, "provider_instance_id"),
        None if _is_no_reseller(record.get("reseller_id")) else _parse_id(record, "reseller_id"),
    )


def _is_no_reseller(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ("", NO_RESELLER))


def _parse_id(record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    text = "" if value is None else str(value).strip().strip("{}")
    if not text:
        raise ValueError(f"{column} is missing")
    if not is_uuid(text):
        raise ValueError(f"{column} is not a UUID")
    return text.lower()
