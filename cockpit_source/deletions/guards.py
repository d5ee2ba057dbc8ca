"""What must hold before a deletion may be planned, and again before one is sent.

Pure: facts and the moment in, refusals out. Every guard looks at the whole plan and tells all that it finds; none
makes the plan smaller. A limit of 0 means zero, and what is not told counts as the worst: seats as assigned, a
subscription as active.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from datetime import datetime, timedelta
from fractions import Fraction
from statistics import median

from cockpit_source.deletions.history import History
from cockpit_source.deletions.protected import ProtectedCustomers
from cockpit_source.deletions.records import (
    DELETE_CUSTOMER,
    REMOVE_RELATIONSHIP,
    Candidate,
    InventoryRun,
    Limits,
    PlanItem,
)
from cockpit_source.deletions.refusals import Refusal

MIN_PERCENT_OF_USUAL_CUSTOMERS = 95
# so many are allowed whatever the percentage, unless that is 0
FEW_ACTIONS = 3
GOOD_OUTCOMES = frozenset({"ok", "empty"})
# every other status, and a missing one, counts as active
INACTIVE_STATUSES = frozenset({"suspended", "deleted", "cancelled", "canceled", "expired"})

_LOAD_AGAIN = "Run `cockpit load`, then plan again."


def check_inventory(run: InventoryRun | None, base_url: str, now: datetime, max_age_hours: float) -> list[Refusal]:
    """The inventory is whole, young and of the same API. None: nothing was ever loaded."""
    if run is None:
        return [
            Refusal(
                "no_inventory",
                "The warehouse holds no finished run of this tenant over the full list, so nothing is known of its "
                "customers. Run `cockpit load` with discover = true, then plan again.",
            )
        ]
    refusals = []
    if run.base_url != base_url:
        refusals.append(
            Refusal(
                "other_api",
                f"The inventory comes from {run.base_url}, but base_url is now {base_url}. Load and plan again.",
            )
        )
    if run.customers_listed is None:
        refusals.append(
            Refusal(
                "no_listing",
                f"Run {run.run_id} did not read the customer listing to its end, so it cannot say which customers "
                "there are. Set discover = true and run `cockpit load` (without a scopes file), then plan again.",
            )
        )
    elif run.customers_listed == 0:
        refusals.append(
            Refusal(
                "no_customers",
                f"Run {run.run_id} lists no customer at all. Check the tenant and the role of the API access. "
                f"{_LOAD_AGAIN}",
            )
        )
    if run.finished_at is None or run.status not in ("complete", "partial"):
        refusals.append(
            Refusal("unfinished_run", f"Run {run.run_id} is {run.status}, so its inventory has gaps. {_LOAD_AGAIN}")
        )
    if run.unread:
        refusals.append(
            Refusal(
                "gaps",
                f"Run {run.run_id} skipped, deferred or held back {run.unread} scopes, so its inventory has gaps. "
                f"{_LOAD_AGAIN}",
            )
        )
    return refusals + _check_age(run, now, max_age_hours)


def _check_age(run: InventoryRun, now: datetime, max_age_hours: float) -> list[Refusal]:
    """The run began less than `max_age_hours` ago, so 0 lets none through."""
    hours = (now - run.started_at).total_seconds() / 3600
    if hours < 0:
        return [
            Refusal(
                "future_run",
                f"Run {run.run_id} began {-hours:.1f} hours after now, so a clock is wrong. Set it right. "
                f"{_LOAD_AGAIN}",
            )
        ]
    if hours < max_age_hours:
        return []
    return [
        Refusal(
            "stale",
            f"The inventory of run {run.run_id} is {hours:.1f} hours old; it must be younger than max_age_hours, "
            f"{max_age_hours:g}. {_LOAD_AGAIN}",
        )
    ]


def check_customer_count(run: InventoryRun, customers_live: int) -> list[Refusal]:
    """The API still shows nearly all customers that it used to: a part of them hidden is no reason to delete.

    Usual is the median of the earlier runs; without one, what the run itself lists. The smaller of what the run lists
    and what the API lists now is held against it.
    """
    listed = customers_live if run.customers_listed is None else run.customers_listed
    counts = run.earlier_customers_listed or (listed,)
    usual, visible = median(counts), min(customers_live, listed)
    # in whole numbers, since 0.95 is none that a float holds
    if 100 * visible >= MIN_PERCENT_OF_USUAL_CUSTOMERS * usual:
        return []
    return [
        Refusal(
            "fewer_customers",
            f"Only {visible} customers are visible, {visible / usual:.1%} of the usual {usual:g} (median of "
            f"{len(counts)} runs); at least {MIN_PERCENT_OF_USUAL_CUSTOMERS}% must be. Find out why the others are "
            "gone (role of the API access, tenant), then load and plan again.",
        )
    ]


def check_limits(
    actions: int, customers: int, sent_today: int, limits: Limits, *, left: int | None = None
) -> list[Refusal]:
    """`actions` are all of the plan, `customers` all that are visible, `sent_today` those of 24 hours.

    `left` are those of the plan that are not sent yet, by default all: what was deleted is in `sent_today`, and no
    longer among the customers.
    """
    refusals = []
    left = actions if left is None else left
    allowed = allowed_by_percent(customers, limits.max_percent)
    if customers <= 0:
        refusals.append(
            Refusal(
                "no_customers",
                "No customer is visible, so no share of them may be deleted. Check the tenant and the role of the "
                f"API access. {_LOAD_AGAIN}",
            )
        )
    elif left > allowed:
        refusals.append(
            Refusal(
                "max_percent",
                f"The plan has {left} deletions to send; {allowed} are allowed for {customers} customers "
                f"(max_percent is {limits.max_percent:g}, and {FEW_ACTIONS} are allowed unless it is 0). "
                "Narrow the query, or raise the limit on purpose.",
            )
        )
    if actions > limits.max_actions:
        refusals.append(
            Refusal(
                "max_actions",
                f"The plan has {actions} deletions; max_actions is {limits.max_actions}. Narrow the query, or raise "
                "the limit on purpose.",
            )
        )
    if left + sent_today > limits.max_actions_per_day:
        refusals.append(
            Refusal(
                "max_actions_per_day",
                f"The plan has {left} deletions to send and the ledger {sent_today} of the last 24 hours; "
                f"max_actions_per_day is {limits.max_actions_per_day}. Wait, or narrow the query.",
            )
        )
    return refusals


def allowed_by_percent(customers: int, max_percent: float) -> int:
    """How many deletions `max_percent` allows of so many customers: of the number as written, without rounding up."""
    if not max_percent > 0:
        return 0
    return max(FEW_ACTIONS, math.floor(customers * Fraction(str(max_percent)) / 100))


def check_protected(items: Iterable[PlanItem], protected: ProtectedCustomers) -> list[Refusal]:
    """No customer on the list, by its id or by any of its names."""
    refusals = []
    for item in items:
        names = (item.inventory.company_name, item.live.company_name)
        if (entry := protected.find(item.candidate.customer_id, names)) is not None:
            refusals.append(
                Refusal(
                    "protected",
                    f"{_describe(item)} is protected by the entry {entry!r} of the protected list. Leave it out of "
                    "the query.",
                )
            )
    return refusals


def check_unsettled(candidates: Iterable[Candidate], history: History) -> list[Refusal]:
    """No deletion is planned while an earlier plan may have carried it out already."""
    unsettled = {item.key: item for item in history.open_items()}
    return [
        Refusal(
            "unsettled",
            f"{candidate.action} of customer {candidate.customer_id} is {unsettled[candidate.key].state} in plan "
            f"{unsettled[candidate.key].plan_id}. Run `cockpit deletions verify` until it is settled.",
        )
        for candidate in candidates
        if candidate.key in unsettled
    ]


def check_grace(
    candidates: Iterable[Candidate], history: History, query_hash: str, run: InventoryRun, grace_days: float
) -> list[Refusal]:
    """Each deletion was selected by the same query in runs `grace_days` apart; 0 days: no grace period."""
    if grace_days <= 0:
        return []
    refusals = []
    for candidate in candidates:
        since = history.selected_since(candidate.key, query_hash) or run.started_at
        due = since + timedelta(days=grace_days)
        if run.started_at < due:
            refusals.append(
                Refusal(
                    "grace",
                    f"{candidate.action} of customer {candidate.customer_id} has been selected since "
                    f"{since:%Y-%m-%d %H:%M:%S} UTC; grace_days is {grace_days:g}. Plan again with an inventory of "
                    f"{due:%Y-%m-%d %H:%M:%S} UTC or later.",
                )
            )
    return refusals


def check_existence(items: Iterable[PlanItem]) -> list[Refusal]:
    """Every customer is known to the API: for planning. When a plan is carried out, one that is gone is done."""
    return [
        Refusal("gone", f"{_describe(item)} is not known to the API any more (404). {_LOAD_AGAIN}")
        for item in items
        if not item.live.exists
    ]


def check_items(items: Sequence[PlanItem], removed: Iterable[tuple[str, str | None]] = ()) -> list[Refusal]:
    """What the warehouse and the API say of each item.

    `removed` are customer and provider instance of the relationships that the plan has removed already.
    """
    return [
        refusal
        for item in items
        for refusal in (*_check_inventory_of(item), *check_live(item, removed_before(item, items).union(removed)))
    ]


def removed_before(item: PlanItem, items: Iterable[PlanItem]) -> frozenset[tuple[str, str | None]]:
    """Customer and provider instance of the relationships that a plan of these items removes before `item`."""
    return frozenset(
        (other.candidate.customer_id, other.candidate.provider_instance_id)
        for other in items
        if other.candidate.action == REMOVE_RELATIONSHIP and other.number < item.number
    )


def _check_inventory_of(item: PlanItem) -> list[Refusal]:
    inventory, what = item.inventory, _describe(item)
    refusals = []
    if not inventory.is_present:
        refusals.append(Refusal("not_in_inventory", f"{what} is not in the inventory any more. {_LOAD_AGAIN}"))
    for scope in inventory.scopes:
        if scope.outcome not in GOOD_OUTCOMES:
            how = "was not held by the run" if scope.outcome is None else f"is {scope.outcome} in the run"
            refusals.append(
                Refusal(
                    "unread_scope",
                    f"{what}: its scope in instance {scope.provider_instance_id} {how}, so its seats are not known. "
                    "Mend that (see `cockpit status`), load and plan again.",
                )
            )
    in_scope = [scope for scope in inventory.scopes if _concerns(item, scope.provider_instance_id)]
    # a customer without any is one whose relationships were removed before
    if not in_scope and item.candidate.action == REMOVE_RELATIONSHIP:
        refusals.append(
            Refusal("no_scopes", f"{what} has no listed scope there, so its seats are not known. {_LOAD_AGAIN}")
        )
    consumed = [sku.consumed_licenses for scope in in_scope for sku in scope.skus]
    refusals += _check_consumed(what, consumed, "by the inventory")
    return refusals


def check_live(item: PlanItem, removed: Set[tuple[str, str | None]]) -> list[Refusal]:
    """What the API says of an item now; `removed` are the relationships that the plan removes before it.

    A customer that does not exist any more is no reason to refuse: there is nothing left to delete.
    """
    if not item.live.exists:
        return []
    return [
        *_check_name(item),
        *_check_live_seats(item),
        *_check_subscriptions(item),
        *_check_relationships(item, removed),
    ]


def _check_name(item: PlanItem) -> list[Refusal]:
    name = item.live.company_name
    if name is not None and name == item.inventory.company_name:
        return []
    how = "has no name in the API" if name is None else f"is called {name!r} by the API"
    return [
        Refusal("other_name", f"{_describe(item)} {how}, so it may be another customer than planned. {_LOAD_AGAIN}")
    ]


def _check_live_seats(item: PlanItem) -> list[Refusal]:
    read = [scope for scope in item.live.scopes if _concerns(item, scope.provider_instance_id)]
    instances = {scope.provider_instance_id for scope in read}
    unread = [name for name in item.live.relationships if _concerns(item, name) and name not in instances]
    consumed = [*(scope.consumed_licenses for scope in read), *(None for _ in unread)]
    return _check_consumed(_describe(item), consumed, "by the API")


def _check_subscriptions(item: PlanItem) -> list[Refusal]:
    active = [
        subscription
        for subscription in item.live.subscriptions
        # one that does not tell its instance may be of this one
        if subscription.provider_instance_id is None or _concerns(item, subscription.provider_instance_id)
        if subscription.status is None or subscription.status.casefold() not in INACTIVE_STATUSES
    ]
    if not active:
        return []
    name = active[0].name or active[0].subscription_id or "one without a name"
    return [
        Refusal(
            "active_subscription",
            f"{_describe(item)} has active subscriptions ({len(active)}), such as {name} "
            f"({active[0].status or 'status not told'}). Suspend or cancel them in CloudCockpit first.",
        )
    ]


def _check_relationships(item: PlanItem, removed: Set[tuple[str, str | None]]) -> list[Refusal]:
    if item.candidate.action != DELETE_CUSTOMER:
        if item.candidate.provider_instance_id in item.live.relationships:
            return []
        return [
            Refusal(
                "no_relationship",
                f"{_describe(item)} has no relationship there by the API, so none to remove. {_LOAD_AGAIN}",
            )
        ]
    left = [name for name in item.live.relationships if (item.candidate.customer_id, name) not in removed]
    if not left:
        return []
    return [
        Refusal(
            "relationship_left",
            f"{_describe(item)} still has a relationship in these provider instances: {', '.join(left)}. Let the "
            "plan remove them first (remove_reseller_relationship).",
        )
    ]


def _check_consumed(what: str, consumed: Sequence[int | None], by: str) -> list[Refusal]:
    # a count below zero tells nothing
    told = [count for count in consumed if count is not None and count >= 0]
    refusals = []
    if len(told) < len(consumed):
        refusals.append(
            Refusal(
                "unknown_seats",
                f"{what}: how many seats are assigned is not told {by}, so there may be some. Look it up in "
                "CloudCockpit, and leave the customer out of the query until it is told.",
            )
        )
    if any(told):
        refusals.append(
            Refusal(
                "consumed_seats",
                f"{what} has {sum(told):,} assigned seats {by}. Take its users' licences away first.",
            )
        )
    return refusals


def _concerns(item: PlanItem, provider_instance_id: str) -> bool:
    """Whether what lies in that instance goes with the item: all of a customer, else the one instance."""
    candidate = item.candidate
    return candidate.action == DELETE_CUSTOMER or candidate.provider_instance_id == provider_instance_id


def _describe(item: PlanItem) -> str:
    name = item.inventory.company_name or item.live.company_name or "without a name"
    instance = item.candidate.provider_instance_id
    where = f", provider instance {instance}" if instance else ""
    return f"Customer {item.candidate.customer_id} ({name}){where}"
