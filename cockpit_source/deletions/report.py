"""Plans, their course and the ledger, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from cockpit_source.deletions.history import History, ItemHistory, PlanHistory, count_states
from cockpit_source.deletions.ledger import LedgerRecord
from cockpit_source.deletions.records import (
    DELETE_CUSTOMER,
    InventoryEvidence,
    Plan,
    PlanItem,
    ScopeEvidence,
    read_plan,
)
from cockpit_source.errors import DeletionRefused
from cockpit_source.report import create_table
from cockpit_source.wording import plural

_ACTIONS = {"delete_customer": "delete customer", "remove_reseller_relationship": "remove relationship of customer"}
_SHORT_ACTIONS = _ACTIONS | {"remove_reseller_relationship": "remove relationship"}


def describe_blast_radius(plan: Plan, course: PlanHistory | None = None) -> list[str]:
    """What the plan would do, in lines: how much of what, and that it cannot be undone.

    With the course of a plan that was applied: what was done of it.
    """
    customers = {item.candidate.customer_id for item in plan.items}
    resellers = {item.inventory.reseller_id for item in plan.items} - {None}
    scopes = {scope.scope_key: scope for item in plan.items for scope in _concerned(item)}
    total = sum(sku.total_licenses or 0 for scope in scopes.values() for sku in scope.skus)
    consumed = sum(sku.consumed_licenses or 0 for scope in scopes.values() for sku in scope.skus)
    known = min(plan.customers_live, plan.run.customers_listed or plan.customers_live)
    share = f"{len(customers) / known:.2%} of {known:,}" if known else "of none that are known"
    done = _describe_intention(plan) if course is None or not course.is_started else _describe_done(plan, course)
    return [
        f"{plural(len(customers), 'customer')} ({share}), {plural(total, 'seat')} of which {consumed:,} assigned, "
        f"{plural(len(resellers), 'reseller')}",
        f"{done} This cannot be undone.",
    ]


def _describe_intention(plan: Plan) -> str:
    deleted = sum(item.candidate.action == DELETE_CUSTOMER for item in plan.items)
    removed = len(plan.items) - deleted
    will = []
    if removed:
        will.append(f"{plural(removed, 'reseller relationship')} will be removed.")
    if deleted:
        will.append(f"{plural(deleted, 'customer')} will be deleted from the whole tenant and from Partner Center.")
    return " ".join(will)


def _describe_done(plan: Plan, course: PlanHistory) -> str:
    """Of each kind how many were seen to be done of how many planned, and what became of the rest."""
    gone = {number for number, item in course.items.items() if item.state == "verified"}
    deletions = {item.number for item in plan.items if item.candidate.action == DELETE_CUSTOMER}
    removals = {item.number for item in plan.items} - deletions
    done = []
    if removals:
        done.append(f"{len(gone & removals)} of {plural(len(removals), 'reseller relationship')} removed.")
    if deletions:
        done.append(
            f"{len(gone & deletions)} of {plural(len(deletions), 'customer')} deleted from the whole tenant and "
            "from Partner Center."
        )
    rest = count_states([item for number, item in course.items.items() if number not in gone])
    if rest:
        done.append(f"The rest: {', '.join(f'{count} {state}' for state, count in rest.items())}.")
    return " ".join(done)


def print_summary(plan: Plan, course: PlanHistory | None, console: Console) -> None:
    """A plan in short: the blast radius first, then the items."""
    _say(console, f"[bold]Plan {plan.plan_id}[/bold] for {escape(plan.tenant)} at {escape(plan.base_url)}")
    for line in describe_blast_radius(plan, course):
        _say(console, f"[bold red]{escape(line)}[/bold red]")
    states = course.items if course else {}
    table = create_table("item", "action", "customer", "seats", "assigned", "reseller", "state", right=_NUMBERS)
    for item in plan.items:
        table.add_row(*(escape(cell) for cell in _item_cells(item, states.get(item.number))))
    _say(console, "")
    console.print(table)


def print_plan(plan: Plan, course: PlanHistory, console: Console, *, now: datetime) -> None:
    """A whole plan: the summary, the evidence by customer, and what it rests on."""
    print_summary(plan, course, console)
    for customer_id in dict.fromkeys(item.candidate.customer_id for item in plan.items):
        own = [item for item in plan.items if item.candidate.customer_id == customer_id]
        _print_evidence(own, course.items, console)
    _say(console, "")
    expired = " (expired)" if now >= plan.expires_at and not course.has_ended else ""
    for name, value in (
        ("query", f"{plan.query_name}, SHA-256 {plan.query_hash}"),
        ("inventory", _describe_run(plan)),
        ("limits", ", ".join(f"{name} {value}" for name, value in _limits(plan).items())),
        ("made by", f"{plan.created_by}, {_time(plan.created_at)}"),
        ("good until", f"{_time(plan.expires_at)}{expired}"),
        *([] if course.started_at is None else [("applied", _describe_course(course))]),
        ("hash", plan.plan_hash),
    ):
        _say(console, f"{name:<10}  {escape(value)}")


def plan_to_json(plan: Plan | None, course: PlanHistory | None = None) -> dict[str, Any]:
    """A plan for programs; without one, nothing was selected."""
    if plan is None:
        return {"plan_id": None, "plan_hash": None, "items": []}
    stored = plan.to_dict()
    states = course.items if course else {}
    items = [
        item
        | {
            "state": states[item["number"]].state if item["number"] in states else "planned",
            "state_at": _iso(states[item["number"]].changed_at) if item["number"] in states else None,
        }
        for item in stored["items"]
    ]
    return stored | {"plan_hash": plan.plan_hash, "blast_radius": describe_blast_radius(plan, course), "items": items}


def refusal_to_json(refusal: DeletionRefused) -> dict[str, Any]:
    """What a program gets in place of a result."""
    return {
        "plan_id": None,
        "plan_hash": None,
        "items": [],
        "refusal": {
            "code": refusal.code,
            "text": str(refusal),
            "all": [{"code": code, "text": text} for code, text in refusal.refusals],
        },
    }


def print_states(course: PlanHistory, console: Console) -> None:
    """What became of the items of a plan. Ids are for copying, so no line is folded."""
    width = max(len(item.state) for item in course.items.values())
    for item in stored_plan(course).items:
        state = course.items[item.number]
        _say(console, f"item {item.number}  [bold]{state.state:<{width}}[/bold]  {escape(describe_item(item))}")
        if state.description:
            _say(console, f"        {' ' * width}{escape(state.description)}")


def states_to_json(course: PlanHistory) -> dict[str, Any]:
    """The same for programs."""
    return {
        "plan_id": course.plan_id,
        "plan_hash": course.plan_hash,
        "items": [
            {
                "number": number,
                "key": item.key,
                "state": item.state,
                "description": item.description,
                "correlation_ids": item.correlation_ids,
            }
            for number, item in sorted(course.items.items())
        ],
    }


def print_log(records: Sequence[LedgerRecord], console: Console, *, plan_id: str | None = None) -> None:
    """Who did what, when, why and with which result, in the order of the ledger. No line is folded."""
    history = History(records)
    shown = [record for record in records if plan_id in (None, record.plan_id)]
    if not shown:
        _say(console, "The ledger holds nothing" + (f" of plan {escape(plan_id)}." if plan_id else " yet."))
        return
    width = max(len(record.actor) for record in shown)
    heading: str | None = None
    for record in shown:
        if record.plan_id not in (None, heading):
            heading = record.plan_id
            _say(console, f"[bold]plan {escape(str(heading))}[/bold]")
        item = "" if record.item is None else f", item {record.item}"
        result = describe_result(record)
        what = f"{record.kind}{item}{': ' if result else ''}{result}"
        _say(console, f"{record.seq:>4}  {_time(record.at)}  {escape(record.actor):<{width}}  {escape(what)}")
        if record.kind == "plan":
            for planned in stored_plan(history.plans[str(record.plan_id)]).items:
                _say(console, escape(f"      {planned.number} {describe_item(planned)}: {planned.candidate.reason}"))
    _say(console, "")
    for plan in history.plans.values():
        if plan_id in (None, plan.plan_id):
            counts = ", ".join(f"{count} {state}" for state, count in count_states(list(plan.items.values())).items())
            _say(console, f"plan {plan.plan_id}: {counts}")


def log_to_json(records: Iterable[LedgerRecord], *, plan_id: str | None = None) -> list[dict[str, Any]]:
    """Every record as it stands in the ledger, oldest first."""
    return [json.loads(record.to_text()) for record in records if plan_id in (None, record.plan_id)]


def describe_item(item: PlanItem) -> str:
    """A deletion in words, with the ids."""
    name = item.inventory.company_name or item.live.company_name or "without a name"
    instance = item.candidate.provider_instance_id
    where = f" in provider instance {instance}" if instance else ""
    return f"{_ACTIONS[item.candidate.action]} {item.candidate.customer_id} ({name}){where}"


def describe_result(record: LedgerRecord) -> str:
    """What a record says, in one line."""
    body: Mapping[str, Any] = record.body
    description = str(body.get("description") or "")
    match record.kind:
        case "plan":
            run_id = body["plan"]["run"]["run_id"]
            count = plural(len(body["plan"]["items"]), "deletion")
            return f"{count} by {body['plan']['query_name']} on run {run_id}, hash {body['plan_hash']}"
        case "selection":
            return f"{len(body['keys'])} selected on run {body['run_id']}"
        case "apply_started":
            resumed = ", carried on" if body.get("resumed") else ""
            return f"approved by {body['approved_by']}, {body['mode']}{resumed}"
        case "intent":
            return f"{body['method']} {body['path']}, correlation id {record.correlation_id}"
        case "outcome":
            return f"{body['result']} ({description})"
        case "settled":
            return f"{body['result']}: {description}{_describe_proof(body['proof'], description)}"
        case "stopped":
            return f"{body.get('code')}: {description}"
        case "mended":
            return f"{plural(body['records'], 'record')} copied from the {body['from']}"
        case "moved":
            return f"the ledger goes on at {body['to']}"
        case "finished":
            return ", ".join(f"{count} {state}" for state, count in body["results"].items())
    return description


def _describe_proof(proof: Mapping[str, Any], description: str) -> str:
    """The read that proves it, unless it is named already."""
    correlation_id = proof.get("correlation_id")
    if not correlation_id or correlation_id in description:
        return ""
    return f" (read by {proof.get('method')} {proof.get('path')}, correlation id {correlation_id})"


_NUMBERS = ("item", "seats", "assigned")


def _concerned(item: PlanItem) -> list[ScopeEvidence]:
    instance = item.candidate.provider_instance_id
    return [scope for scope in item.inventory.scopes if instance in (None, scope.provider_instance_id)]


def _item_cells(item: PlanItem, course: ItemHistory | None) -> tuple[str, ...]:
    skus = [sku for scope in _concerned(item) for sku in scope.skus]
    evidence: InventoryEvidence = item.inventory
    return (
        str(item.number),
        _SHORT_ACTIONS[item.candidate.action],
        evidence.company_name or "(no name)",
        f"{sum(sku.total_licenses or 0 for sku in skus):,}",
        f"{sum(sku.consumed_licenses or 0 for sku in skus):,}",
        evidence.reseller_name or evidence.reseller_id or "direct",
        course.state if course else "planned",
    )


def _print_evidence(items: Sequence[PlanItem], states: Mapping[int, ItemHistory], console: Console) -> None:
    """What is known of one customer, for all of its items."""
    first = items[-1]
    inventory, live = first.inventory, first.live
    _say(console, f"\n[bold]customer {first.candidate.customer_id}[/bold] {escape(inventory.company_name or '')}")
    for item in items:
        instance = item.candidate.provider_instance_id
        state = states.get(item.number)
        verb = _find_verb(item, state)
        what = f"{verb} the relationship in provider instance {instance}" if instance else f"{verb} the customer"
        _say(console, f"   item {item.number} {what}, because: {escape(item.candidate.reason)}")
        if state is not None and state.changed_at is not None:
            told = f": {state.description}" if state.description else ""
            _say(console, escape(f"     {state.state}, {_time(state.changed_at)}{told}"))
    skus = {(scope.scope_key, sku.sku_id): sku for item in items for scope in _concerned(item) for sku in scope.skus}
    last_change = _time(inventory.last_change_at) if inventory.last_change_at else "none"
    scopes = plural(len(inventory.scopes), "listed scope")
    _say(console, f"   evidence, inventory: {plural(len(skus), 'product')} in {scopes}, last change {last_change}")
    for sku in skus.values():
        name = escape(sku.sku_name or sku.sku_id)
        _say(console, f"     {name}: {_count(sku.total_licenses)} seats, {_count(sku.consumed_licenses)} assigned")
    if not live.exists:
        _say(console, "   evidence, API: it does not exist any more")
        return
    statuses = Counter(subscription.status or "status not told" for subscription in live.subscriptions)
    told = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())) or "none"
    relationships = plural(len(live.relationships), "relationship")
    _say(console, f"   evidence, API: {relationships}; subscriptions: {escape(told)}")


def _find_verb(item: PlanItem, state: ItemHistory | None) -> str:
    """What the item does, did, or was to do."""
    removes = item.candidate.action != DELETE_CUSTOMER
    if state is None or state.changed_at is None:
        return "removes" if removes else "deletes"
    if state.state == "verified":
        return "removed" if removes else "deleted"
    return "was to remove" if removes else "was to delete"


def _describe_run(plan: Plan) -> str:
    run = plan.run
    return f"run {run.run_id} of {_time(run.started_at)}, {run.customers_listed} customers listed ({run.status})"


def _describe_course(course: PlanHistory) -> str:
    moments = [item.changed_at for item in course.items.values() if item.changed_at is not None]
    begun = "" if course.started_at is None else f"begun {_time(course.started_at)}"
    return f"{begun}, ended {_time(max(moments))}" if course.has_ended else f"{begun}, not at its end"


def _limits(plan: Plan) -> dict[str, Any]:
    names = ("max_actions", "max_percent", "max_actions_per_day", "max_age_hours", "grace_days")
    return {name: f"{getattr(plan.limits, name):g}" for name in names}


def _count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)


def stored_plan(course: PlanHistory) -> Plan:
    """The plan as the ledger holds it."""
    return read_plan(course.body["plan"])
