"""What a guard says when it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cockpit_source.deletions.records import DELETE_CUSTOMER, Candidate
from cockpit_source.errors import DeletionRefused


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plan must not be made or carried out; `text` says what to do next. `code` stays the same for programs.

    `candidate` is the deletion that it is about; None where it is about more than one, or about none.
    """

    code: str
    text: str
    candidate: Candidate | None = None


def about(candidate: Candidate, refusals: Iterable[Refusal]) -> list[Refusal]:
    """The same refusals, as those of one deletion."""
    return [replace(refusal, candidate=candidate) for refusal in refusals]


def to_refusal(error: DeletionRefused) -> Refusal:
    """The refusal that an error is about, for telling it with others."""
    return Refusal(error.code, str(error))


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raises DeletionRefused with all of them, or does nothing when there is none.

    The message says what several deletions of one customer are refused for once.
    """
    if refusals:
        lines = "\n".join(f"  - {refusal.code}: {refusal.text}" for refusal in _merge(refusals))
        message = f"Refused, nothing was sent:\n{lines}"
        raise DeletionRefused(refusals[0].code, message, [(refusal.code, refusal.text) for refusal in refusals])


def _merge(refusals: Iterable[Refusal]) -> list[Refusal]:
    """One deletion's refusals of each customer and code, which then name the others that they hold for."""
    groups: dict[object, list[Refusal]] = {}
    for refusal in refusals:
        own = object() if refusal.candidate is None else (refusal.code, refusal.candidate.customer_id)
        groups.setdefault(own, []).append(refusal)
    return [merged for group in groups.values() for merged in _merge_group(group)]


def _merge_group(group: Sequence[Refusal]) -> list[Refusal]:
    candidates = list(dict.fromkeys(refusal.candidate for refusal in group if refusal.candidate is not None))
    if len(candidates) < 2:
        return list(group)
    # the deletion of the customer tells the most: it is about all of its provider instances
    chosen = min(candidates, key=lambda candidate: candidate.action != DELETE_CUSTOMER)
    told = "; ".join(map(_describe, candidates))
    kept = [refusal for refusal in group if refusal.candidate == chosen]
    suffix = f" (for {len(candidates)} deletions of this customer: {told})"
    return [replace(refusal, text=refusal.text + suffix) for refusal in kept]


def _describe(candidate: Candidate) -> str:
    if candidate.action == DELETE_CUSTOMER:
        return "the customer"
    return f"its relationship in {candidate.provider_instance_id}"
