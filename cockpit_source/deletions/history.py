"""What the ledger says of a plan and its items. Pure: records in, states out.

In doubt an item counts as open, that is, as perhaps deleted: an intent makes it so whatever it was before, and only
the outcome of that request or a settlement by reading makes it something else. What no request was sent for is the
only thing that may be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from cockpit_source.deletions.records import Candidate
from cockpit_source.errors import LedgerUnavailable

State = Literal[
    "planned",
    "blocked",
    "sending",
    "unknown",
    "accepted",
    "accepted_unverified",
    "verified",
    "already_absent",
    "failed",
]

# nothing more will be done
END_STATES: frozenset[State] = frozenset({"verified", "already_absent", "failed"})
# it is not there any more
GONE_STATES: frozenset[State] = frozenset({"verified", "already_absent"})
# a DELETE may have reached the API: it is never sent again, only settled by reading
OPEN_STATES: frozenset[State] = frozenset({"sending", "unknown", "accepted", "accepted_unverified"})
# no DELETE has reached the API
UNSENT_STATES: frozenset[State] = frozenset({"planned", "blocked"})

# every other result leaves it unknown, also one that this version does not know
_AFTER_OUTCOME: Mapping[str, State] = {
    "accepted": "accepted",
    "refused": "failed",
    # the API did not take it
    "not_delivered": "planned",
    "throttled": "planned",
    "unauthorized": "planned",
}
_AFTER_SETTLING: Mapping[str, State] = {
    "verified": "verified",
    "failed": "failed",
    "accepted_unverified": "accepted_unverified",
}
_DAY = timedelta(hours=24)


class Record(Protocol):
    """A record of the ledger, as far as it matters here; see `ledger.LedgerRecord`."""

    @property
    def kind(self) -> str: ...

    @property
    def at(self) -> datetime: ...

    @property
    def plan_id(self) -> str | None: ...

    @property
    def item(self) -> int | None: ...

    @property
    def correlation_id(self) -> str | None: ...

    @property
    def body(self) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class ItemHistory:
    """One item of a plan. `key` names the deletion in whichever plan; `correlation_ids` are those of its requests.

    `changed_at` is when its state was recorded; None before anything was.
    """

    plan_id: str
    number: int
    key: str
    state: State = "planned"
    correlation_ids: list[str] = field(default_factory=list)
    sent_at: datetime | None = None
    description: str = ""
    proof: Mapping[str, Any] | None = None
    changed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def is_unsent(self) -> bool:
        return self.state in UNSENT_STATES


@dataclass(slots=True)
class PlanHistory:
    """One plan: its stored form, hash and items by number. `started_at` is when it was first applied."""

    plan_id: str
    created_at: datetime
    body: Mapping[str, Any]
    items: dict[int, ItemHistory]
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def plan_hash(self) -> str:
        return str(self.body["plan_hash"])

    @property
    def is_started(self) -> bool:
        return self.started_at is not None

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    @property
    def has_ended(self) -> bool:
        """Whether every item has come to its end."""
        return all(item.state in END_STATES for item in self.items.values())


@dataclass(frozen=True, slots=True)
class Selection:
    """What a query selected on one inventory, for the grace period."""

    query_hash: str
    run_id: str
    run_started_at: datetime
    keys: frozenset[str]


class History:
    """Everything that the records say.

    Raises:
        LedgerUnavailable: a record is about a plan or an item that no record before it made, or makes one again.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.plans: dict[str, PlanHistory] = {}
        self.selections: list[Selection] = []
        self._sent: list[tuple[datetime, str, int]] = []
        for record in records:
            self._add(record)

    @property
    def latest(self) -> PlanHistory | None:
        """The plan that was made last; it supersedes those before it."""
        return next(reversed(self.plans.values()), None)

    def open_items(self) -> list[ItemHistory]:
        """Items, of any plan, whose DELETE may have reached the API and is not settled."""
        return [item for plan in self.plans.values() for item in plan.items.values() if item.is_open]

    def sent_within_a_day(self, now: datetime) -> int:
        """How many items had a DELETE sent in the 24 hours before `now`, those that did not arrive included.

        One sent exactly 24 hours ago still counts, and so does one of a later time (a clock was set back).
        """
        return len({(plan_id, number) for at, plan_id, number in self._sent if at >= now - _DAY})

    def selected_since(self, key: str, query_hash: str) -> datetime | None:
        """Start of the first run of the latest unbroken row of runs in which this query selected this deletion.

        Of runs that it was not asked about, nothing is known: they break no row. None: the latest did not select it.
        """
        since: datetime | None = None
        latest_of_run = {s.run_id: s for s in self.selections if s.query_hash == query_hash}
        for selection in sorted(latest_of_run.values(), key=lambda s: s.run_started_at, reverse=True):
            if key not in selection.keys:
                break
            since = selection.run_started_at
        return since

    def _add(self, record: Record) -> None:
        if record.kind == "selection":
            self.selections.append(_to_selection(record.body))
            return
        if record.plan_id is None:
            return
        plan = self.plans.get(record.plan_id)
        if record.kind == "plan" and plan is None:
            self.plans[record.plan_id] = _to_plan(record)
        elif record.kind == "plan" or plan is None or (record.item is not None and record.item not in plan.items):
            raise LedgerUnavailable(
                f"The ledger contradicts itself: its record {record.kind} of plan {record.plan_id}, item "
                f"{record.item}, does not fit those before it. Nothing is sent. Keep both copies of the ledger, and "
                "find out what wrote to them."
            )
        elif record.item is not None:
            self._add_to_item(plan.items[record.item], record)
        elif record.kind == "apply_started":
            plan.started_at = plan.started_at or record.at
        elif record.kind == "finished":
            plan.finished_at = record.at

    def _add_to_item(self, item: ItemHistory, record: Record) -> None:
        body = record.body
        item.description = str(body.get("description") or "")
        item.changed_at = record.at
        match record.kind:
            case "intent":
                item.state = "sending"
                item.sent_at = record.at
                if record.correlation_id is not None:
                    item.correlation_ids.append(record.correlation_id)
                self._sent.append((record.at, item.plan_id, item.number))
            case "outcome" if item.state == "sending":
                item.state = _AFTER_OUTCOME.get(body["result"], "unknown")
            case "settled" if item.is_open:
                item.state = _AFTER_SETTLING.get(body["result"], "unknown")
                item.proof = body.get("proof")
            case "already_absent" if item.is_unsent:
                item.state = "already_absent"
                item.proof = body.get("proof")
            case "blocked" if item.is_unsent:
                item.state = "blocked"


def _to_plan(record: Record) -> PlanHistory:
    plan_id = str(record.plan_id)
    items = {}
    for item in record.body["plan"]["items"]:
        key = Candidate(**item["candidate"]).key
        items[item["number"]] = ItemHistory(plan_id, item["number"], key)
    return PlanHistory(plan_id, record.at, record.body, items)


def _to_selection(body: Mapping[str, Any]) -> Selection:
    return Selection(
        body["query_hash"],
        body["run_id"],
        datetime.fromisoformat(body["run_started_at"]),
        frozenset(body["keys"]),
    )


def count_states(items: Sequence[ItemHistory]) -> dict[str, int]:
    """How many items are in each state, those without any left out."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.state] = counts.get(item.state, 0) + 1
    return counts
