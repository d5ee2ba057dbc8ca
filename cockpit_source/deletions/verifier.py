"""Settling what may have been deleted, by reading: from the inventory, from the API, or not at all yet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cockpit_source.deletions.history import ItemHistory, PlanHistory, State, count_states
from cockpit_source.deletions.proof import Verdict, find_proof
from cockpit_source.deletions.records import DELETE_CUSTOMER, Candidate
from cockpit_source.deletions.session import Session
from cockpit_source.errors import DeletionRefused

# a removal takes minutes; what is still there after so long was not deleted
STILL_THERE_AFTER = timedelta(hours=24)
FIRST_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 60.0
KNOWN_CUSTOMERS = 20

_UNSETTLED: dict[State, State] = {"accepted": "accepted_unverified", "sending": "unknown"}


def settle(session: Session, item: ItemHistory, known: frozenset[str], *, wait_seconds: float) -> State:
    """Read until it is proved what became of an item, or `wait_seconds` have passed; the state that is recorded.

    `known` are customers that a listing must hold before an absence in it counts.

    Raises:
        LedgerUnavailable: what was found cannot be recorded.
        SignInError: nothing can be read.
    """
    candidate = candidate_of(item)
    give_up_at = session.clock.now() + timedelta(seconds=wait_seconds)
    wait = FIRST_WAIT_SECONDS
    while True:
        verdict = _judge(session, item, candidate, known - {candidate.customer_id})
        left = (give_up_at - session.clock.now()).total_seconds()
        if verdict.result is not None or left <= 0:
            return _record(session, item, verdict)
        session.say(
            f"The deletion of item {item.number} does not show yet; reading again in {min(wait, left):.0f} s."
        )
        session.clock.sleep(min(wait, left))
        wait = min(2 * wait, MAX_WAIT_SECONDS)


def settle_from_inventory(session: Session) -> int:
    """Settle what the last loads prove, without a call of the API; how many items."""
    open_items = [item for item in session.history().open_items() if _is_from_here(session, item)]
    if not open_items:
        return 0
    settled = 0
    base_url = session.settings.api.base_url
    with session.inventory() as inventory:
        for item in open_items:
            proof = inventory.missing_since(candidate_of(item), item.sent_at, base_url) if item.sent_at else None
            if proof is not None:
                text = f"run {proof['run_id']} read the whole listing, and it is not there any more"
                _record(session, item, Verdict("verified", proof, text))
                settled += 1
    return settled


def settle_open_items(session: Session, *, wait_seconds: float = 0.0) -> Iterator[tuple[ItemHistory, State]]:
    """Settle every open item of every plan as far as can be; each with its state afterwards.

    Those of another tenant or API are left as they are.
    """
    settle_from_inventory(session)
    open_items = session.history().open_items()
    known = known_customers(session) if open_items else frozenset[str]()
    for item in open_items:
        if not _is_from_here(session, item):
            session.say(
                f"Plan {item.plan_id}, item {item.number}, was sent to another tenant or API, so nothing here proves "
                "it. Run `cockpit deletions verify` with the tenant and base_url of that plan."
            )
            continue
        yield item, settle(session, item, known, wait_seconds=wait_seconds)
    for plan in session.history().plans.values():
        finish_if_ended(session, plan)


def _is_from_here(session: Session, item: ItemHistory) -> bool:
    """Whether it was sent to the tenant and API of now; in another everything is absent, which proves nothing."""
    api = session.settings.api
    plan = session.history().plans[item.plan_id].body["plan"]
    return bool((plan["tenant"], plan["tenant_key"], plan["base_url"]) == (api.tenant, api.tenant_key, api.base_url))


def finish_if_ended(session: Session, plan: PlanHistory) -> bool:
    """Record the end of a plan all of whose items have ended; whether they have."""
    if plan.is_started and not plan.is_finished and plan.has_ended:
        results = count_states(list(plan.items.values()))
        session.record("finished", plan_id=plan.plan_id, body={"results": results})
    return plan.has_ended


def known_customers(session: Session) -> frozenset[str]:
    """Some customers of the inventory that no plan was ever to delete."""
    planned = {candidate_of(i).customer_id for plan in session.history().plans.values() for i in plan.items.values()}
    with session.inventory() as inventory:
        return inventory.known_customers(len(planned) + KNOWN_CUSTOMERS) - planned


def candidate_of(item: ItemHistory) -> Candidate:
    """The deletion that an item stands for."""
    action, customer_id, instance_id = item.key.split("|")
    return Candidate(action, customer_id, None if instance_id == "-" else instance_id, "")  # type: ignore[arg-type]


def _judge(session: Session, item: ItemHistory, candidate: Candidate, known: frozenset[str]) -> Verdict:
    verdict = find_proof(
        session.client,
        candidate,
        item.correlation_ids,
        item.sent_at,
        known,
        now=session.clock.now,
        page_size=session.settings.api.page_size,
    )
    if verdict.result is not None or item.sent_at is None:
        return verdict
    age = session.clock.now() - item.sent_at
    if age >= STILL_THERE_AFTER and _is_still_there(session, candidate):
        hours = age.total_seconds() / 3600
        text = f"it was still there {hours:.0f} hours later"
        return Verdict("failed", {"kind": "still_there", "read_at": session.clock.now(), "hours": hours}, text)
    return verdict


def _is_still_there(session: Session, candidate: Candidate) -> bool:
    """Whether the API shows it; False where it cannot be read."""
    try:
        live = session.reader.read(candidate.customer_id, ())
    except DeletionRefused:
        return False
    if candidate.action == DELETE_CUSTOMER:
        return live.exists
    return candidate.provider_instance_id in live.relationships


def _record(session: Session, item: ItemHistory, verdict: Verdict) -> State:
    state: State = verdict.result or _UNSETTLED.get(item.state, item.state)
    if state != item.state:
        body = {"result": state, "proof": dict(verdict.proof), "description": verdict.description}
        session.record("settled", plan_id=item.plan_id, item=item.number, body=body)
    return state
