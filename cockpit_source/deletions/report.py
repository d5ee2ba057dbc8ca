"""Plans, their course and the ledger, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from cockpit_source.deletions.history import History, ItemHistory, PlanHistory, count_states
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

_ACTIONS = {"delete_customer": "delete customer", "remove_reseller_relationship": "remove relationship"}


def describe_blast_radius(plan: Plan) -> list[str]:
    """What the plan would do, in lines: how much of what, and that it cannot be undone."""
    customers = {item.candidate.customer_id for item in plan.items}
    deleted = {item.candidate.customer_id for item in plan.items if item.candidate.action == DELETE_CUSTOMER}
    resellers = {item.inventory.reseller_id for item in plan.items} - {None}
    scopes = {scope.scope_key: scope for item in plan.items for scope in _concerned(item)}
    total = sum(sku.total_licenses or 0 for scope in scopes.values() for sku in scope.skus)
    consumed = sum(sku.consumed_licenses or 0 for scope in scopes.values() for sku in scope.skus)
    known = min(plan.customers_live, plan.run.customers_listed or plan.customers_live)
    share = f"{len(customers) / known:.2%} of {known:,} customers" if known else "of no known customers"
    return [
        f"{len(customers)} customers ({share}), {total:,} seats of which {consumed:,} assigned, "
        f"{len(resellers)} resellers",
        f"{len(deleted)} customers are deleted for the whole tenant and from Partner Center, "
        f"{len(plan.items) - len(deleted)} reseller relationships are removed. None of it can be undone.",
    ]


def print_plan(plan: Plan, course: PlanHistory | None, console: Console, *, now: datetime) -> None:
    """A plan: the blast radius first, then the items with their evidence, and what it rests on."""
    _say(console, f"[bold]Plan {plan.plan_id}[/bold] for {escape(plan.tenant)} at {escape(plan.base_url)}")
    for line in describe_blast_radius(plan):
        _say(console, f"[bold red]{escape(line)}[/bold red]")
    _say(console, "")
    states = course.items if course else {}
    table = create_table("item", "action", "customer", "seats", "assigned", "reseller", "state", right=_NUMBERS)
    for item in plan.items:
        table.add_row(*(escape(cell) for cell in _item_cells(item, states.get(item.number))))
    console.print(table)
    for item in plan.items:
        _print_evidence(item, states.get(item.number), console)
    _say(console, "")
    facts = [
        ("query", f"{plan.query_name}, SHA-256 {plan.query_hash}"),
        ("inventory", _describe_run(plan)),
        ("limits", ", ".join(f"{name} {value}" for name, value in _limits(plan).items())),
        ("made by", f"{plan.created_by}, {_time(plan.created_at)}"),
        ("good until", f"{_time(plan.expires_at)}{' (expired)' if now >= plan.expires_at else ''}"),
        ("hash", plan.plan_hash),
    ]
    facts_table = create_table("", "")
    facts_table.show_header = False
    for name, value in facts:
        facts_table.add_row(name, escape(value))
    console.print(facts_table)


def plan_to_json(plan: Plan | None, course: PlanHistory | None = None) -> dict[str, Any]:
    """A plan for programs; without one, nothing was selected."""
    if plan is None:
        return {"plan_id": None, "plan_hash": None, "items": []}
    stored = plan.to_dict()
    states = course.items if course else {}
    items = [
        item | {"state": states[item["number"]].state if item["number"] in states else "planned"}
        for item in stored["items"]
    ]
    return stored | {"plan_hash": plan.plan_hash, "blast_radius": describe_blast_radius(plan), "items": items}


def refusal_to_json(refusal: DeletionRefused) -> dict[str, Any]:
    """What a program gets in place of a result."""
    return {
        "plan_id": None,
        "plan_hash": None,
        "items": [],
        "refusal": {"code": refusal.code, "text": str(refusal)},
    }


def print_states(course: PlanHistory, console: Console) -> None:
    """What became of the items of a plan."""
    table = create_table("item", "deletion", "state", "why")
    for number, item in sorted(course.items.items()):
        table.add_row(str(number), escape(item.key.replace("|", " ")), item.state, escape(item.description))
    console.print(table)


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


def print_log(records: Sequence[Any], console: Console, *, plan_id: str | None = None) -> None:
    """Who did what, when, why and with which result, in the order of the ledger."""
    history = History(records)
    shown = [record for record in records if plan_id in (None, record.plan_id)]
    if not shown:
        _say(console, "The ledger holds nothing" + (f" of plan {escape(plan_id)}." if plan_id else " yet."))
        return
    table = create_table("seq", "when (UTC)", "who", "plan", "item", "what", "result", right=("seq", "item"))
    for record in shown:
        cells = (
            str(record.seq),
            f"{record.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            record.actor,
            record.plan_id or "",
            "" if record.item is None else str(record.item),
            _describe_kind(record, history),
            describe_result(record),
        )
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    for plan in history.plans.values():
        if plan_id in (None, plan.plan_id):
            counts = ", ".join(f"{count} {state}" for state, count in count_states(list(plan.items.values())).items())
            _say(console, f"plan {plan.plan_id}: {counts}; hash {plan.plan_hash}")


def log_to_json(records: Iterable[Any], *, plan_id: str | None = None) -> list[dict[str, Any]]:
    """Every record as it stands in the ledger, oldest first."""
    return [json.loads(record.to_text()) for record in records if plan_id in (None, record.plan_id)]


def describe_result(record: Any) -> str:
    """What a record says of the result, in one line."""
    body: Mapping[str, Any] = record.body
    status = f" (HTTP {body['http_status']})" if body.get("http_status") else ""
    ids = f"; correlation id {record.correlation_id}" if record.correlation_id else ""
    match record.kind:
        case "plan":
            return f"{len(body['plan']['items'])} items, query {body['plan']['query_name']}"
        case "selection":
            return f"{len(body['keys'])} selected on run {body['run_id']}"
        case "apply_started":
            return f"approved by {body['approved_by']}, {body['mode']}"
        case "intent":
            return f"{body['method']} {body['path']}{ids}"
        case "outcome":
            return f"{body['result']}{status}: {body.get('description') or ''}{ids}"
        case "settled":
            return f"{body['result']}: {body.get('description') or ''}"
    return str(body.get("description") or "")


def _describe_kind(record: Any, history: History) -> str:
    if record.item is None or record.plan_id is None:
        return str(record.kind)
    item = history.plans[record.plan_id].items[record.item]
    action, customer_id, instance_id = item.key.split("|")
    where = "" if instance_id == "-" else f" in {instance_id}"
    return f"{record.kind}: {_ACTIONS[action]} {customer_id}{where}"


_NUMBERS = ("item", "seats", "assigned")


def _concerned(item: PlanItem) -> list[ScopeEvidence]:
    instance = item.candidate.provider_instance_id
    return [scope for scope in item.inventory.scopes if instance in (None, scope.provider_instance_id)]


def _item_cells(item: PlanItem, course: ItemHistory | None) -> tuple[str, ...]:
    skus = [sku for scope in _concerned(item) for sku in scope.skus]
    evidence: InventoryEvidence = item.inventory
    return (
        str(item.number),
        _ACTIONS[item.candidate.action],
        evidence.company_name or "(no name)",
        f"{sum(sku.total_licenses or 0 for sku in skus):,}",
        f"{sum(sku.consumed_licenses or 0 for sku in skus):,}",
        evidence.reseller_name or evidence.reseller_id or "direct",
        course.state if course else "planned",
    )


def _print_evidence(item: PlanItem, course: ItemHistory | None, console: Console) -> None:
    candidate, evidence = item.candidate, item.inventory
    where = f", provider instance {candidate.provider_instance_id}" if candidate.provider_instance_id else ""
    _say(console, f"\n[bold]{item.number}[/bold] customer {candidate.customer_id}{where}")
    _say(console, f"   why: {escape(candidate.reason)}")
    last_change = _time(evidence.last_change_at) if evidence.last_change_at else "none"
    _say(console, f"   last change of its licences: {last_change}; listed scopes: {len(evidence.scopes)}")
    for sku in (sku for scope in _concerned(item) for sku in scope.skus):
        name = escape(sku.sku_name or sku.sku_id)
        _say(console, f"   {name}: {_count(sku.total_licenses)} seats, {_count(sku.consumed_licenses)} assigned")
    statuses: dict[str, int] = {}
    for subscription in item.live.subscriptions:
        status = subscription.status or "not told"
        statuses[status] = statuses.get(status, 0) + 1
    told = ", ".join(f"{count} {escape(status)}" for status, count in sorted(statuses.items())) or "none"
    if item.live.exists:
        _say(console, f"   subscriptions by the API: {told}; relationships: {len(item.live.relationships)}")
    else:
        _say(console, "   the API does not know it any more")
    if course is not None and course.description:
        _say(console, f"   {course.state}: {escape(course.description)}")


def _describe_run(plan: Plan) -> str:
    run = plan.run
    return f"run {run.run_id} of {_time(run.started_at)}, {run.customers_listed} customers listed ({run.status})"


def _limits(plan: Plan) -> dict[str, Any]:
    names = ("max_actions", "max_percent", "max_actions_per_day", "max_age_hours", "grace_days")
    return {name: f"{getattr(plan.limits, name):g}" for name in names}


def _count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)


def stored_plan(course: PlanHistory) -> Plan:
    """The plan as the ledger holds it."""
    return read_plan(course.body["plan"])
