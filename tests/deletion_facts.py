"""Small builders of what the deletions judge: every default is harmless, and a test names only what matters to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from support import INSTANCE, new_id

from cockpit_source.deletions.protected import ProtectedCustomers
from cockpit_source.deletions.records import (
    DELETE_CUSTOMER,
    REMOVE_RELATIONSHIP,
    Action,
    Candidate,
    InventoryEvidence,
    InventoryRun,
    Limits,
    LiveEvidence,
    LiveScope,
    Plan,
    PlanItem,
    ScopeEvidence,
    Sku,
    Subscription,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BASE_URL = "https://api.example.com"
TENANT = "portal.example.com"
OTHER_INSTANCE = new_id(9)


def make_candidate(
    customer: int = 1, action: Action = DELETE_CUSTOMER, instance: str | None = None, reason: str = "left"
) -> Candidate:
    """The deletion of customer `customer`, or the removal of its relationship in `instance`."""
    if action == REMOVE_RELATIONSHIP:
        instance = instance or INSTANCE
    return Candidate(action, new_id(customer), instance, reason)


def make_scope(instance: str = INSTANCE, outcome: str | None = "ok", consumed: Iterable[int | None] = (0,)) -> Any:
    """A scope of the inventory with one SKU for each number of assigned seats."""
    skus = tuple(Sku(f"sku-{number}", "Product", 10, count) for number, count in enumerate(consumed))
    return ScopeEvidence(f"scope|{instance}", instance, None, outcome, skus)


def make_evidence(**changes: Any) -> InventoryEvidence:
    """A customer of the inventory without assigned seats."""
    evidence = InventoryEvidence(
        company_name="Contoso",
        reseller_id=None,
        reseller_name=None,
        is_present=True,
        last_change_at=NOW - timedelta(days=100),
        scopes=(make_scope(),),
    )
    return replace(evidence, **changes)


def make_live_scope(instance: str = INSTANCE, consumed: int | None = 0) -> LiveScope:
    return LiveScope(instance, None, 10, consumed)


def make_subscription(status: str | None = "Active", instance: str | None = INSTANCE, **changes: Any) -> Subscription:
    return replace(Subscription(new_id(70), instance, "Product", status), **changes)


def make_live(**changes: Any) -> LiveEvidence:
    """A customer of the API without assigned seats, subscriptions or relationships."""
    live = LiveEvidence(exists=True, company_name="Contoso", scopes=(make_live_scope(),))
    return replace(live, **changes)


def make_item(
    number: int = 1,
    customer: int = 1,
    action: Action = DELETE_CUSTOMER,
    instance: str | None = None,
    inventory: Mapping[str, Any] | None = None,
    live: Mapping[str, Any] | None = None,
) -> PlanItem:
    """An item of a plan that no guard minds; `inventory` and `live` are changes of its evidence."""
    candidate = make_candidate(customer, action, instance)
    relationships = (candidate.provider_instance_id,) if candidate.provider_instance_id else ()
    return PlanItem(
        number,
        candidate,
        make_evidence(**(inventory or {})),
        make_live(**({"relationships": relationships} | dict(live or {}))),
    )


def make_run(**changes: Any) -> InventoryRun:
    """A usable inventory of 1000 customers that began an hour ago."""
    run = InventoryRun(
        run_id="run-1",
        started_at=NOW - timedelta(hours=1),
        finished_at=NOW - timedelta(minutes=50),
        status="complete",
        base_url=BASE_URL,
        customers_listed=1000,
        unread=0,
        earlier_customers_listed=(1000, 1000),
    )
    return replace(run, **changes)


def make_limits(**changes: Any) -> Limits:
    """The limits that are in force when nothing is configured."""
    limits = Limits(
        max_actions=5,
        max_percent=1.0,
        max_actions_per_day=20,
        max_age_hours=24.0,
        grace_days=0.0,
        protected_hash=make_protected().content_hash,
    )
    return replace(limits, **changes)


def make_protected(*patterns: str, ids: Iterable[str] = ()) -> ProtectedCustomers:
    return ProtectedCustomers(frozenset(ids), patterns)


def make_plan(items: Iterable[PlanItem] | None = None, **changes: Any) -> Plan:
    """A plan that deletes one customer, made now."""
    plan = Plan(
        plan_id="plan-1",
        tenant=TENANT,
        tenant_key=TENANT,
        base_url=BASE_URL,
        query_name="query.sql",
        query_text="SELECT 1",
        query_hash="hash of the query",
        run=make_run(),
        customers_live=1000,
        limits=make_limits(),
        created_by="somebody",
        created_at=NOW,
        expires_at=NOW + timedelta(minutes=60),
        version="0",
        items=tuple(items) if items is not None else (make_item(),),
    )
    return replace(plan, **changes)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the ledger, as far as its history looks at it."""

    kind: str
    at: datetime = NOW
    plan_id: str | None = "plan-1"
    item: int | None = None
    correlation_id: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


def plan_entry(plan_id: str = "plan-1", customers: Iterable[int] = (1,), at: datetime = NOW) -> Entry:
    """The record of a plan that deletes these customers, its items numbered from 1."""
    items = [
        {
            "number": number,
            "candidate": {
                "action": DELETE_CUSTOMER,
                "customer_id": new_id(customer),
                "provider_instance_id": None,
                "reason": "left",
            },
        }
        for number, customer in enumerate(customers, start=1)
    ]
    return Entry("plan", at, plan_id, body={"plan": {"items": items}, "plan_hash": f"hash of {plan_id}"})


def intent_entry(item: int = 1, plan_id: str = "plan-1", at: datetime = NOW, correlation_id: str = "c-1") -> Entry:
    return Entry("intent", at, plan_id, item, correlation_id, {"method": "DELETE", "path": "/", "attempt": 1})


def selection_entry(keys: Iterable[str], run: int = 1, day: float = 0, query_hash: str = "query") -> Entry:
    """What a query selected on run number `run`, which began on day `day` after NOW."""
    body = {
        "query_hash": query_hash,
        "run_id": f"run-{run}",
        "run_started_at": (NOW + timedelta(days=day)).isoformat(),
        "keys": list(keys),
    }
    return Entry("selection", NOW, None, body=body)
