"""What stands against a stored plan as such, before anything is read for it."""

from __future__ import annotations

from cockpit_source.deletions.history import PlanHistory
from cockpit_source.deletions.records import Plan, hash_text, read_plan, to_canonical
from cockpit_source.deletions.refusals import Refusal, refuse
from cockpit_source.deletions.session import Session
from cockpit_source.errors import DeletionRefused


def find_plan(session: Session, plan_id: str) -> tuple[PlanHistory, Plan]:
    """A plan of the ledger, unchanged since it was made. Raises DeletionRefused."""
    history = session.history().plans.get(plan_id)
    if history is None:
        raise DeletionRefused(
            "no_plan", f"There is no plan {plan_id} in the ledger. `cockpit deletions log` lists them."
        )
    if hash_text(to_canonical(history.body["plan"])) != history.plan_hash:
        raise DeletionRefused("changed", f"Plan {plan_id} was changed after it was made. Plan again.")
    return history, read_plan(history.body["plan"])


def check_plan(session: Session, history: PlanHistory, plan: Plan) -> None:
    """What stands against the plan as such. Expiry is judged here, at the start."""
    api, now = session.settings.api, session.clock.now()
    latest = session.history().latest
    refusals = []
    if history.is_finished or history.has_ended:
        refusals.append(Refusal("already_applied", _describe_end(history)))
    if latest is not None and latest.plan_id != plan.plan_id:
        refusals.append(
            Refusal("superseded", f"Plan {plan.plan_id} is superseded by plan {latest.plan_id}, which is later.")
        )
    if now >= plan.expires_at or now < plan.created_at:
        refusals.append(
            Refusal(
                "expired", f"Plan {plan.plan_id} was good until {plan.expires_at:%Y-%m-%d %H:%M} UTC. Plan again."
            )
        )
    if (plan.tenant, plan.tenant_key) != (api.tenant, api.tenant_key):
        refusals.append(
            Refusal(
                "other_tenant", f"Plan {plan.plan_id} is of tenant {plan.tenant}, but tenant is now {api.tenant}."
            )
        )
    if plan.base_url != api.base_url:
        refusals.append(
            Refusal("other_api", f"Plan {plan.plan_id} is of {plan.base_url}, but base_url is now {api.base_url}.")
        )
    refuse(refusals)


def _describe_end(history: PlanHistory) -> str:
    done = f"Plan {history.plan_id} was carried out already."
    if history.is_finished or not history.is_started:
        return done
    return (
        f"{done} Its end is not recorded yet, since that run was ended just before. Run `cockpit deletions verify`, "
        "which records it."
    )
