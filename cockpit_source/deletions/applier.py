"""Carrying out a stored plan, one deletion at a time.

The order of things is the safety of it: the guards, the approval, and then for each item the kill switch, a read of
the customer as it is now, an intent that is committed, one DELETE, its outcome committed, and reading until the
deletion shows. What may have reached the API is never sent again; it is only settled by reading.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta

from cockpit_source.deletions import guards
from cockpit_source.deletions.approval import Approval
from cockpit_source.deletions.delete_client import DeleteClient, Delivery
from cockpit_source.deletions.evidence import Removed, find_changes
from cockpit_source.deletions.history import GONE_STATES, OPEN_STATES, UNSENT_STATES, ItemHistory, PlanHistory, State
from cockpit_source.deletions.plan_check import check_plan, find_plan
from cockpit_source.deletions.planner import (
    check_grace,
    check_ledger,
    check_stop,
    find_refusals,
    find_scopes,
    find_unknown,
    gather,
    read_inventory,
    read_usable_run,
    strictest,
)
from cockpit_source.deletions.records import (
    DELETE_CUSTOMER,
    REMOVE_RELATIONSHIP,
    Plan,
    PlanItem,
)
from cockpit_source.deletions.refusals import Refusal, refuse
from cockpit_source.deletions.session import Session
from cockpit_source.deletions.settings import is_stopped
from cockpit_source.deletions.verifier import finish_if_ended, known_customers, settle, settle_open_items
from cockpit_source.errors import DeletionRefused, SignInError

MAX_ATTEMPTS = 3
# after a refused connection; the API has not seen the call
RETRY_AFTER_SECONDS = 5.0
FAILURES_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a plan. `states` are those of its items; `stop` says why the run ended early, None when not."""

    plan: Plan
    states: dict[int, State]
    stop: Refusal | None

    @property
    def is_done(self) -> bool:
        """Whether everything is gone as planned."""
        return all(state in GONE_STATES for state in self.states.values())


class _Stop(Exception):
    """The run ends here."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.refusal = Refusal(code, text)


def apply_plan(session: Session, plan_id: str, approve: Callable[[Plan], Approval]) -> Applied:
    """Carry out a plan, or carry on with it. `approve` is asked when nothing stands against it.

    Raises:
        DeletionRefused: a guard holds, or it was not approved; nothing was sent.
        LedgerUnavailable: the ledger cannot be written; nothing is sent without it.
        SignInError: there is no usable token.
    """
    check_ledger(session)
    check_stop(session)
    history, plan = find_plan(session, plan_id)
    check_plan(session, history, plan)
    for item, state in settle_open_items(session):
        session.say(f"Plan {item.plan_id}, item {item.number}, of an earlier run is {state}.")
    history, plan = find_plan(session, plan_id)
    if not any(item.is_unsent for item in history.items.values()):
        return _conclude(history, plan)
    _check_evidence(session, history, plan)
    known = known_customers(session)
    approval = approve(plan)
    with DeleteClient(session.settings.api) as deleter:
        deleter.prepare()
        session.record(
            "apply_started",
            plan_id=plan_id,
            body={
                "approved_by": approval.approved_by,
                "mode": approval.mode,
                "plan_hash": plan.plan_hash,
                "limits": asdict(session.limits()),
                "resumed": history.is_started,
            },
        )
        return _Run(session, plan, deleter, known).carry_out()


def _conclude(history: PlanHistory, plan: Plan) -> Applied:
    """A plan that has nothing left to send."""
    states = {number: item.state for number, item in history.items.items()}
    waits = [number for number, item in history.items.items() if item.is_open]
    text = f"Items {waits} were sent and are not settled. Run `cockpit deletions verify` until they are."
    return Applied(plan, states, Refusal("unsettled", text) if waits else None)


def _check_evidence(session: Session, history: PlanHistory, plan: Plan) -> None:
    """Every guard again, on what is known now, for the items that were not sent; and that it is still the same."""
    left = [item for item in plan.items if history.items[item.number].is_unsent]
    limits = strictest(plan.limits, session.limits())
    all_history = session.history()
    run = read_usable_run(session, limits)
    waiting = (_find_waiting(item, plan, history, allowed=GONE_STATES | UNSENT_STATES) for item in left)
    refuse([refusal for refusal in waiting if refusal is not None])
    candidates = [item.candidate for item in left]
    removed = _removed(plan, history)
    inventory = read_inventory(session, candidates, run)
    found = [
        *find_unknown(candidates, inventory),
        *check_grace(candidates, all_history, plan.query_hash, run, limits.grace_days),
    ]
    facts = gather(
        session,
        candidates,
        inventory,
        run,
        limits,
        all_history,
        found=found,
        done=removed,
        planned=len(plan.items),
    )
    planned = {item.candidate.key: item for item in left}
    changed = [
        refusal
        for new in facts.items
        if new.live.exists
        for refusal in find_changes(planned[new.candidate.key], new, removed)
    ]
    refuse([*facts.refusals, *changed, *find_refusals(session, facts, done=removed)])


def _find_waiting(item: PlanItem, plan: Plan, history: PlanHistory, *, allowed: frozenset[State]) -> Refusal | None:
    """A refusal when a relationship of the customer that `item` deletes is, by the plan, in none of the states."""
    for other in plan.items if item.candidate.action == DELETE_CUSTOMER else ():
        is_its_own = other.candidate.customer_id == item.candidate.customer_id
        state = history.items[other.number].state
        if is_its_own and other.candidate.action == REMOVE_RELATIONSHIP and state not in allowed:
            return Refusal(
                "relationship_left",
                f"Item {item.number} waits for item {other.number}, the removal of a relationship, which is {state}. "
                "Run `cockpit deletions verify`, then apply again or plan anew.",
            )
    return None


def _removed(plan: Plan, history: PlanHistory) -> Removed:
    """Customer and instance of the relationships that this plan has removed."""
    return frozenset(
        (item.candidate.customer_id, item.candidate.provider_instance_id)
        for item in plan.items
        if item.candidate.action == REMOVE_RELATIONSHIP and history.items[item.number].state in GONE_STATES
    )


class _Run:
    """One run over the items of a plan."""

    def __init__(self, session: Session, plan: Plan, deleter: DeleteClient, known: frozenset[str]) -> None:
        self._session = session
        self._plan = plan
        self._deleter = deleter
        self._known = known
        self._failures = 0
        self._sent = 0

    def carry_out(self) -> Applied:
        """Every item that was not sent, until one of them stops the run."""
        stop: Refusal | None = None
        try:
            for item in self._plan.items:
                if self._state(item).is_unsent:
                    self._carry_out(item)
        except _Stop as reason:
            stop = reason.refusal
            self._record("stopped", code=stop.code, description=stop.text)
        except SignInError as error:
            self._record("stopped", code="sign_in", description=str(error))
            raise
        history = self._history()
        finish_if_ended(self._session, history)
        return Applied(self._plan, {number: item.state for number, item in history.items.items()}, stop)

    def _carry_out(self, item: PlanItem) -> None:
        self._check_relationships(item)
        delivery = self._send(item)
        if delivery is None:
            return
        state = self._settle(item, delivery)
        self._sent += 1
        self._judge(item, delivery, state)

    def _check_relationships(self, item: PlanItem) -> None:
        """A customer is deleted only after its relationships in this plan are seen to be gone."""
        if refusal := _find_waiting(item, self._plan, self._history(), allowed=GONE_STATES):
            raise _Stop(refusal.code, refusal.text)

    def _check_switch(self) -> None:
        if reason := is_stopped(self._session.settings):
            raise _Stop("stopped", f"Stopped before the next deletion: {reason}.")

    def _wait_for_turn(self) -> None:
        """Hold the distance between two calls, also to those of an earlier run."""
        sent = [item.sent_at for plan in self._session.history().plans.values() for item in plan.items.values()]
        latest = max((moment for moment in sent if moment is not None), default=None)
        if latest is None:
            return
        due = latest + timedelta(seconds=self._session.settings.seconds_between_calls)
        wait = (due - self._session.clock.now()).total_seconds()
        # a clock that was set back is no reason to wait for longer
        wait = min(wait, self._session.settings.seconds_between_calls)
        if wait > 0:
            self._session.say(f"Waiting {wait:.0f} s before the next deletion.")
            self._session.clock.sleep(wait)
            self._check_switch()

    def _is_absent(self, item: PlanItem) -> bool:
        """Read the item as it is now; whether there is nothing left to delete, which is recorded."""
        removed = _removed(self._plan, self._history())
        customer_id = item.candidate.customer_id
        scopes = find_scopes(customer_id, item.inventory, removed)
        try:
            live = self._session.reader.read(customer_id, scopes)
        except DeletionRefused as refusal:
            self._block(item, str(refusal))
        if not live.exists:
            proof = {"kind": "not_found", "read_at": self._session.clock.now()}
            self._record("already_absent", item, proof=proof, description="the API does not know it any more")
            self._session.say(f"Item {item.number} is absent already.")
            return True
        now = PlanItem(item.number, item.candidate, item.inventory, live)
        if refusals := [*find_changes(item, now, removed), *guards.check_items([now], removed)]:
            self._block(item, " ".join(refusal.text for refusal in refusals))
        return False

    def _block(self, item: PlanItem, text: str) -> None:
        self._record("blocked", item, description=text)
        raise _Stop("blocked", f"Item {item.number} was not sent: {text}")

    def _send(self, item: PlanItem) -> Delivery | None:
        """One DELETE, its intent committed before; again only where the API is known not to have taken it.

        None: there is nothing left to delete.
        """
        delivery: Delivery | None = None
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if not self._get_ready(item):
                return None
            was_renewed = delivery is not None and delivery.result == "unauthorized"
            delivery = self._send_once(item, attempt)
            if attempt == MAX_ATTEMPTS:
                break
            if delivery.result == "unauthorized" and not was_renewed:
                self._deleter.renew()
            elif delivery.result in ("throttled", "not_delivered"):
                self._back_off(item, delivery)
            else:
                break
        return delivery

    def _get_ready(self, item: PlanItem) -> bool:
        """What comes before every DELETE, also before one that is sent again; False: it is absent already."""
        self._check_switch()
        self._wait_for_turn()
        # a token that lasts, so that nothing comes between the intent and the DELETE
        self._deleter.prepare()
        return not self._is_absent(item)

    def _back_off(self, item: PlanItem, delivery: Delivery) -> None:
        """Wait as long as the API asks, or before connecting again."""
        patience = self._session.settings.api.patience_seconds
        seconds = RETRY_AFTER_SECONDS if delivery.result == "not_delivered" else delivery.retry_after_seconds or 0.0
        if seconds > patience:
            raise _Stop(
                "throttled",
                f"Item {item.number} was not taken: the API asks to wait {seconds:.0f} s, and patience_seconds is "
                f"{patience:g}. Apply again after that, or plan anew.",
            )
        if seconds:
            self._session.clock.sleep(seconds)

    def _send_once(self, item: PlanItem, attempt: int) -> Delivery:
        correlation_id = str(uuid.uuid4())
        path = self._deleter.path_of(item.candidate)
        self._record("intent", item, correlation_id=correlation_id, method="DELETE", path=path, attempt=attempt)
        number = f"Item {item.number} of {len(self._plan.items)}"
        self._session.say(f"{number}: DELETE {path}.")
        delivery = self._deleter.send(item.candidate, correlation_id)
        self._record(
            "outcome",
            item,
            correlation_id=correlation_id,
            result=delivery.result,
            http_status=delivery.http_status,
            description=delivery.description,
            server_correlation_id=delivery.server_correlation_id,
            duration_ms=delivery.duration_ms,
        )
        self._session.say(f"{number}: {delivery.result} ({delivery.description}).")
        return delivery

    def _settle(self, item: PlanItem, delivery: Delivery) -> State:
        state = self._state(item)
        if state.state not in OPEN_STATES:
            return state.state
        # after an answer that nobody expected the run stops at once; verify goes on reading
        patience = 0.0 if delivery.is_outside_contract else self._session.settings.verify_timeout_seconds
        return settle(self._session, state, self._known, wait_seconds=patience)

    def _judge(self, item: PlanItem, delivery: Delivery, state: State) -> None:
        """Stop the run where going on would not be safe."""
        is_gone = state in GONE_STATES
        self._failures = 0 if is_gone else self._failures + 1
        what = f"Item {item.number} is {state} ({delivery.description})"
        if delivery.http_status == 403:
            raise _Stop("forbidden", f"{what}: these credentials may not delete. Check that they have the role csp.")
        if delivery.is_outside_contract:
            raise _Stop(
                "outside_contract", f"{what}: the contract does not know this answer. Ask CloudCockpit support."
            )
        if self._sent == 1 and not is_gone:
            raise _Stop(
                "first_not_verified",
                f"{what}, and the first deletion must be seen to be done before the next is sent. Run "
                "`cockpit deletions verify`, then apply again.",
            )
        if self._failures >= FAILURES_IN_A_ROW:
            raise _Stop("failures_in_a_row", f"{what}, the second failure in a row. Find out why, then plan again.")

    def _history(self) -> PlanHistory:
        return self._session.history().plans[self._plan.plan_id]

    def _state(self, item: PlanItem) -> ItemHistory:
        return self._history().items[item.number]

    def _record(
        self, kind: str, item: PlanItem | None = None, *, correlation_id: str | None = None, **body: object
    ) -> None:
        self._session.record(
            kind,
            plan_id=self._plan.plan_id,
            item=item.number if item else None,
            correlation_id=correlation_id,
            body=body,
        )
