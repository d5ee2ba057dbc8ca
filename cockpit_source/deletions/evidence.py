"""Whether what is known of a customer is still what the plan rests on."""

from __future__ import annotations

from cockpit_source.deletions.records import LiveEvidence, PlanItem
from cockpit_source.deletions.refusals import Refusal

# customer and provider instance of relationships that are removed
Removed = frozenset[tuple[str, str | None]]


def find_changes(old: PlanItem, new: PlanItem, removed: Removed) -> list[Refusal]:
    """A refusal when an item has other evidence than the plan; what the plan itself removed is left aside."""
    customer_id = old.candidate.customer_id
    gone = {instance for customer, instance in removed if customer == customer_id}
    parts = []
    if _known(old, gone) != _known(new, gone):
        parts.append("inventory")
    if _without_instances(old.live, gone) != _without_instances(new.live, gone):
        parts.append("API")
    if not parts:
        return []
    return [
        Refusal(
            "evidence_changed",
            f"Item {old.number}, customer {customer_id}: what is known from the {' and the '.join(parts)} has "
            "changed since the plan was made. Look at it, then plan again.",
            old.candidate,
        )
    ]


def _known(item: PlanItem, gone: set[str | None]) -> object:
    evidence = item.inventory
    scopes = [scope for scope in evidence.scopes if scope.provider_instance_id not in gone]
    # a removed relationship ends its rows, which is a change in the history
    last_change_at = None if gone else evidence.last_change_at
    return evidence.company_name, evidence.reseller_id, evidence.is_present, last_change_at, scopes


def _without_instances(live: LiveEvidence, gone: set[str | None]) -> LiveEvidence:
    """The evidence without what lies in these provider instances."""
    return LiveEvidence(
        live.exists,
        live.company_name,
        live.reseller_id,
        tuple(instance for instance in live.relationships if instance not in gone),
        tuple(scope for scope in live.scopes if scope.provider_instance_id not in gone),
        tuple(sub for sub in live.subscriptions if sub.provider_instance_id not in gone),
    )
