"""From a query to a stored plan: evidence gathered, every guard checked. Nothing here can delete."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from cockpit_source.deletions import guards
from cockpit_source.deletions.history import History
from cockpit_source.deletions.live import LiveReader
from cockpit_source.deletions.records import (
    ACTIONS,
    Candidate,
    InventoryEvidence,
    InventoryRun,
    Limits,
    LiveEvidence,
    Plan,
    PlanItem,
)
from cockpit_source.deletions.refusals import Refusal, about, refuse, to_refusal
from cockpit_source.deletions.selection import DeletionQuery, select_candidates
from cockpit_source.deletions.session import Session
from cockpit_source.deletions.settings import is_stopped
from cockpit_source.deletions.verifier import settle_from_inventory
from cockpit_source.errors import DeletionRefused
from cockpit_source.version import __version__

# stands for what was not read: the guards take no fact of the API from it
_NOT_READ = LiveEvidence(exists=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the guards look at. `items` were read, in the warehouse and from the API.

    `unread` are those of customers whom the API did not let read, `refusals` say why, and what else was found before;
    their evidence of the API is empty, so they may be judged by the warehouse only, and never get into a plan.
    """

    run: InventoryRun
    customers_live: int
    items: tuple[PlanItem, ...]
    unread: tuple[PlanItem, ...]
    refusals: tuple[Refusal, ...]


def make_plan(session: Session, query: DeletionQuery) -> Plan | None:
    """The plan that was stored, or None where the query selects nothing.

    Raises:
        DeletionRefused: a guard holds, or the query, the inventory or the API cannot be used; nothing was stored but
            the selection that a grace period counts from.
        LedgerUnavailable: the ledger cannot be written, or its two copies differ.
    """
    check_ledger(session)
    check_stop(session)
    settle_from_inventory(session)
    limits = session.limits()
    run = read_usable_run(session, limits)
    candidates = sort_candidates(select_candidates(query, session.pipeline))
    if not candidates:
        check_not_empty(session, run)
        return None
    _warn_of_idle_protection(session)
    inventory = read_inventory(session, candidates, run)
    history = session.history()
    found = find_unknown(candidates, inventory)
    found += guards.check_unsettled(candidates, history)
    if not found:
        history = _record_selection(session, query, candidates, run, history)
        found += check_grace(candidates, history, query.query_hash, run, limits.grace_days)
    facts = gather(session, candidates, inventory, run, limits, history, found=found)
    refuse([*facts.refusals, *guards.check_existence(facts.items), *find_refusals(session, facts)])
    return _store(session, query, facts, limits)


def check_ledger(session: Session) -> None:
    """Nothing is planned or sent while the two copies of the ledger differ. Raises LedgerUnavailable."""
    session.ledger.require_equal()


def check_stop(session: Session) -> None:
    """Raises DeletionRefused while the kill switch is set."""
    if reason := is_stopped(session.settings):
        refuse([Refusal("stopped", f"Deletions are stopped: {reason}. Remove it when they may go on.")])


def read_usable_run(session: Session, limits: Limits) -> InventoryRun:
    """The run that a plan may rest on. Raises DeletionRefused."""
    with session.inventory() as inventory:
        run = inventory.latest_run()
    base_url = session.settings.api.base_url
    refuse(guards.check_inventory(run, base_url, session.clock.now(), limits.max_age_hours))
    assert run is not None  # noqa: S101 - refused above
    return run


def _warn_of_idle_protection(session: Session) -> None:
    """Say which entries of the protected list protect nobody: they may be misspelt."""
    with session.inventory() as inventory:
        unmatched = session.protected().find_unmatched(inventory.names())
    for entry in unmatched:
        session.say(
            f"Warning: the entry {entry!r} of the protected list fits no customer of the inventory, so it protects "
            "nobody. Look whether it is misspelt."
        )


def check_not_empty(session: Session, run: InventoryRun) -> None:
    """An empty selection says something only of an inventory that holds customers. Raises DeletionRefused."""
    with session.inventory() as inventory:
        if inventory.known_customers(1):
            return
    refuse(
        [
            Refusal(
                "no_customers",
                f"The warehouse holds no customer, though run {run.run_id} listed {run.customers_listed}, so an "
                "empty selection tells nothing. Run `cockpit load`, then plan again.",
            )
        ]
    )


def sort_candidates(candidates: Iterable[Candidate]) -> list[Candidate]:
    """In the order of carrying out: relationships are removed before customers are deleted."""
    return sorted(candidates, key=lambda c: (ACTIONS.index(c.action), c.customer_id, c.provider_instance_id or ""))


def read_inventory(
    session: Session, candidates: Sequence[Candidate], run: InventoryRun
) -> dict[str, InventoryEvidence]:
    """The evidence of the warehouse by customer; those that it does not hold are left out."""
    with session.inventory() as inventory:
        return inventory.evidence((candidate.customer_id for candidate in candidates), run.run_id)


def find_unknown(candidates: Iterable[Candidate], inventory: Mapping[str, InventoryEvidence]) -> list[Refusal]:
    """A refusal for each id that the inventory does not hold."""
    return [
        Refusal("unknown_id", _describe_unknown(candidate, inventory.get(candidate.customer_id)), candidate)
        for candidate in candidates
        if not _is_known(candidate, inventory)
    ]


def gather(
    session: Session,
    candidates: Sequence[Candidate],
    inventory: Mapping[str, InventoryEvidence],
    run: InventoryRun,
    limits: Limits,
    history: History,
    *,
    found: Sequence[Refusal] = (),
    done: Collection[tuple[str, str | None]] = (),
    planned: int | None = None,
) -> Facts:
    """The facts of now. The limits come first, so that a wrong query costs no thousand calls.

    `found` are refusals that were found before. `done` are relationships that are removed already, whose scopes are
    not read; `planned` counts the items of a plan that is being carried on.

    Raises:
        DeletionRefused: the listing cannot be read, or a limit holds; with all that is known without the API.
    """
    items = [
        PlanItem(number, candidate, inventory[candidate.customer_id], _NOT_READ)
        for number, candidate in enumerate(candidates, start=1)
        if _is_known(candidate, inventory)
    ]
    session.say("Listing the customers.")
    reader = session.reader
    try:
        customers_live = reader.count_customers()
    except DeletionRefused as refusal:
        refuse([*found, to_refusal(refusal), *_judge(session, items, done)])
        raise
    customers = min(customers_live, run.customers_listed or 0)
    sent_today = history.sent_within_a_day(session.clock.now())
    left = len(candidates)
    if over := guards.check_limits(planned or left, customers, sent_today, limits, left=left):
        refuse([*found, *over, *_judge(session, items, done)])
    live, unreadable = _read_live(session, reader, items, done)
    read = (replace(item, live=live[item.candidate.customer_id]) for item in items if _customer_of(item) in live)
    unread = (item for item in items if _customer_of(item) not in live)
    return Facts(run, customers_live, tuple(read), tuple(unread), (*found, *unreadable))


def _read_live(
    session: Session, reader: LiveReader, items: Sequence[PlanItem], done: Collection[tuple[str, str | None]]
) -> tuple[dict[str, LiveEvidence], list[Refusal]]:
    """What the API says of each customer, and a refusal for each of whom it cannot be read."""
    live: dict[str, LiveEvidence] = {}
    unreadable: list[Refusal] = []
    inventory = {_customer_of(item): item.inventory for item in items}
    for number, (customer_id, evidence) in enumerate(inventory.items(), start=1):
        session.say(f"Reading customer {customer_id} ({number} of {len(inventory)}).")
        try:
            live[customer_id] = reader.read(customer_id, find_scopes(customer_id, evidence, done))
        except DeletionRefused as refusal:
            unreadable.append(to_refusal(refusal))
    return live, unreadable


def _customer_of(item: PlanItem) -> str:
    return item.candidate.customer_id


def find_scopes(
    customer_id: str, evidence: InventoryEvidence, done: Collection[tuple[str, str | None]]
) -> list[tuple[str, str | None]]:
    """Provider instance and reseller of the scopes of a customer whose relationship is not among the removed ones."""
    return [
        (scope.provider_instance_id, scope.reseller_id)
        for scope in evidence.scopes
        if (customer_id, scope.provider_instance_id) not in done
    ]


def find_refusals(session: Session, facts: Facts, *, done: Collection[tuple[str, str | None]] = ()) -> list[Refusal]:
    """What the guards say of the gathered facts; the limits were checked when they were gathered."""
    items = sorted((*facts.items, *facts.unread), key=lambda item: item.number)
    return [*guards.check_customer_count(facts.run, facts.customers_live), *_judge(session, items, done)]


def _judge(session: Session, items: Sequence[PlanItem], done: Collection[tuple[str, str | None]]) -> list[Refusal]:
    """What stands against each item, of those that were not read as far as the warehouse tells."""
    protected = session.protected()
    listed = [about(item.candidate, guards.check_protected([item], protected)) for item in items]
    judged = [
        about(item.candidate, guards.check_items([item], guards.removed_before(item, items).union(done)))
        for item in items
    ]
    return [refusal for refusals in (*listed, *judged) for refusal in refusals]


def check_grace(
    candidates: Iterable[Candidate], history: History, query_hash: str, run: InventoryRun, grace_days: float
) -> list[Refusal]:
    """The guard of the grace period, for each deletion."""
    return [
        refusal
        for candidate in candidates
        for refusal in about(candidate, guards.check_grace([candidate], history, query_hash, run, grace_days))
    ]


def _describe_unknown(candidate: Candidate, evidence: InventoryEvidence | None) -> str:
    if evidence is not None and not evidence.is_present:
        return (
            f"Customer {candidate.customer_id} has left the listing already, or is deleted. Let the query leave out "
            "customers whose removed_at is set."
        )
    where = f" in provider instance {candidate.provider_instance_id}" if candidate.provider_instance_id else ""
    return f"The inventory holds no customer {candidate.customer_id}{where}. Correct the query."


def _is_known(candidate: Candidate, evidence: Mapping[str, InventoryEvidence]) -> bool:
    found = evidence.get(candidate.customer_id)
    if found is None or not found.is_present:
        return False
    instances = {scope.provider_instance_id for scope in found.scopes}
    return candidate.provider_instance_id is None or candidate.provider_instance_id in instances


def _record_selection(
    session: Session, query: DeletionQuery, candidates: Sequence[Candidate], run: InventoryRun, history: History
) -> History:
    """Note what the query selects on this inventory, where a grace period is counted from it."""
    if session.settings.grace_days <= 0:
        return history
    body = {
        "query_hash": query.query_hash,
        "run_id": run.run_id,
        "run_started_at": run.started_at,
        "keys": [candidate.key for candidate in candidates],
    }
    session.record("selection", body=body)
    return session.history()


def _store(session: Session, query: DeletionQuery, facts: Facts, limits: Limits) -> Plan:
    now = session.clock.now()
    plan = Plan(
        plan_id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        tenant=session.settings.api.tenant,
        tenant_key=session.tenant_key,
        base_url=session.settings.api.base_url,
        query_name=query.name,
        query_text=query.text,
        query_hash=query.query_hash,
        run=facts.run,
        customers_live=facts.customers_live,
        limits=limits,
        created_by=session.actor,
        created_at=now,
        expires_at=now + timedelta(minutes=session.settings.plan_lifetime_minutes),
        version=__version__,
        items=facts.items,
    )
    session.record("plan", plan_id=plan.plan_id, body={"plan": plan.to_dict(), "plan_hash": plan.plan_hash})
    return plan


def strictest(planned: Limits, current: Limits) -> Limits:
    """The stricter of each limit: of those in force when the plan was made and of those in force now."""
    return replace(
        current,
        max_actions=min(planned.max_actions, current.max_actions),
        max_percent=min(planned.max_percent, current.max_percent),
        max_actions_per_day=min(planned.max_actions_per_day, current.max_actions_per_day),
        max_age_hours=min(planned.max_age_hours, current.max_age_hours),
        grace_days=max(planned.grace_days, current.grace_days),
    )
