"""Who approves a plan, and what they have to give for it: words and the beginning of its hash, or all of the hash."""

from __future__ import annotations

from dataclasses import dataclass

from cockpit_source.deletions.records import DELETE_CUSTOMER, Plan
from cockpit_source.errors import DeletionRefused

HASH_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Approval:
    """Who approved the plan, and how: interactive (the words were typed) or unattended (the whole hash was given)."""

    approved_by: str
    mode: str


def approve_unattended(plan: Plan, given_hash: str, approved_by: str) -> Approval:
    """The approval of a run without a person. Raises DeletionRefused unless the hash is that of the plan, whole."""
    if given_hash.strip().lower() != plan.plan_hash:
        raise DeletionRefused(
            "hash_differs",
            f"--hash is not that of plan {plan.plan_id}. Take all 64 characters of it from `cockpit deletions show`.",
        )
    if not approved_by.strip():
        raise DeletionRefused("not_approved", "--approved-by names nobody. Give the name of who approved the plan.")
    return Approval(approved_by.strip(), "unattended")


def confirmation_words(plan: Plan) -> str:
    """What a person types: "delete 3 customers from portal.example.com"."""
    deleted = sum(item.candidate.action == DELETE_CUSTOMER for item in plan.items)
    removed = len(plan.items) - deleted
    parts = [f"delete {deleted} customer{'s' * (deleted != 1)}"] if deleted else []
    parts += [f"remove {removed} relationship{'s' * (removed != 1)}"] if removed else []
    return f"{' and '.join(parts)} from {plan.tenant}"


def approve_interactive(plan: Plan, typed_words: str, typed_hash: str, actor: str) -> Approval:
    """The approval of a person. Raises DeletionRefused unless words and hash were typed as they should be."""
    if " ".join(typed_words.split()) != confirmation_words(plan) or len(typed_hash.strip()) < HASH_CHARACTERS:
        raise DeletionRefused("not_approved", "Those are not the words, so nothing was sent.")
    if not plan.plan_hash.startswith(typed_hash.strip().lower()):
        raise DeletionRefused("hash_differs", "That is not the beginning of the plan's hash, so nothing was sent.")
    return Approval(actor, "interactive")
