"""What a plan is made of. All of it is immutable, and all of it goes into the hash of the plan.

Ids are lower case. Times are UTC. Counts of seats are None where the API did not tell one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

Action = Literal["delete_customer", "remove_reseller_relationship"]

DELETE_CUSTOMER: Action = "delete_customer"
REMOVE_RELATIONSHIP: Action = "remove_reseller_relationship"
ACTIONS: tuple[Action, ...] = (REMOVE_RELATIONSHIP, DELETE_CUSTOMER)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the query. `provider_instance_id` is None for a customer."""

    action: Action
    customer_id: str
    provider_instance_id: str | None
    reason: str

    @property
    def key(self) -> str:
        """What the same deletion is recognised by, in whichever plan."""
        return f"{self.action}|{self.customer_id}|{self.provider_instance_id or '-'}"


@dataclass(frozen=True, slots=True)
class Sku:
    """A product that a scope holds."""

    sku_id: str
    sku_name: str | None
    total_licenses: int | None
    consumed_licenses: int | None


@dataclass(frozen=True, slots=True)
class ScopeEvidence:
    """A listed scope of a customer: how the inventory's run read it (None: it did not hold it), and what it holds."""

    scope_key: str
    provider_instance_id: str
    reseller_id: str | None
    outcome: str | None
    skus: tuple[Sku, ...]


@dataclass(frozen=True, slots=True)
class InventoryEvidence:
    """What the warehouse knows of a customer. `last_change_at` is the latest change in its history."""

    company_name: str | None
    reseller_id: str | None
    reseller_name: str | None
    is_present: bool
    last_change_at: datetime | None
    scopes: tuple[ScopeEvidence, ...]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription of a customer as the API lists it; `status` is None where it does not tell."""

    subscription_id: str | None
    provider_instance_id: str | None
    name: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class LiveScope:
    """A scope of a customer as its licences read now. `consumed_licenses` is None where a row does not tell."""

    provider_instance_id: str
    reseller_id: str | None
    total_licenses: int | None
    consumed_licenses: int | None


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """What the API says of a customer now. `exists` is False after an explicit 404; the rest is then empty.

    `relationships` are the provider instances in which the customer still exists, sorted.
    """

    exists: bool
    company_name: str | None = None
    reseller_id: str | None = None
    relationships: tuple[str, ...] = ()
    scopes: tuple[LiveScope, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()


@dataclass(frozen=True, slots=True)
class InventoryRun:
    """The run of the load that a plan rests on.

    `customers_listed` is None where the run did not read the customer listing to its end. `unread` counts the scopes
    that it skipped, deferred or held back. `earlier_customers_listed` are those of up to 7 usable runs before it.
    """

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    status: str
    base_url: str
    customers_listed: int | None
    unread: int
    earlier_customers_listed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force."""

    max_actions: int
    max_percent: float
    max_actions_per_day: int
    max_age_hours: float
    grace_days: float
    protected_hash: str


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One deletion, numbered from 1 in the order in which it is carried out, with its evidence."""

    number: int
    candidate: Candidate
    inventory: InventoryEvidence
    live: LiveEvidence


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it is stored. `customers_live` counts the customers that the API listed when it was made."""

    plan_id: str
    tenant: str
    tenant_key: str
    base_url: str
    query_name: str
    query_text: str
    query_hash: str
    run: InventoryRun
    customers_live: int
    limits: Limits
    created_by: str
    created_at: datetime
    expires_at: datetime
    version: str
    items: tuple[PlanItem, ...]

    def to_dict(self) -> dict[str, Any]:
        """The plan as a JSON object, times as text in UTC."""
        stored: dict[str, Any] = json.loads(self.canonical())
        return stored

    def canonical(self) -> str:
        """The plan as the JSON text that is hashed and stored: members sorted, no blanks, times in UTC."""
        return to_canonical(asdict(self))

    @property
    def plan_hash(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hash_text(self.canonical())


def read_plan(stored: Mapping[str, Any]) -> Plan:
    """The plan from its stored form."""
    plan: Plan = _build(Plan, stored)
    return plan


def _build(kind: Any, value: Any) -> Any:
    """A value of this type from JSON."""
    if value is None:
        return None
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return tuple(_build(arguments[0], element) for element in value)
    if isinstance(kind, UnionType):
        return _build(next(argument for argument in arguments if argument is not NoneType), value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: _build(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    return datetime.fromisoformat(value) if kind is datetime else value


def to_canonical(value: Any) -> str:
    """JSON with sorted members and no blanks. A time becomes ISO 8601 in UTC with microseconds.

    Raises:
        TypeError: a value of another type, such as a time without a zone.
        ValueError: a number that JSON does not know.
    """
    return json.dumps(
        value, default=_to_text, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def hash_text(text: str) -> str:
    """SHA-256 of the text in UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _to_text(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    raise TypeError(f"{type(value).__name__} has no canonical form")
