"""What a load came to, for people, programs and the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cockpit_source.drop_guard import QUARANTINED, Drops
from cockpit_source.errors import (
    EXIT_ALL_READ,
    EXIT_FAILED,
    EXIT_GUARDED,
    EXIT_SOME_NOT_READ,
    SignInError,
)
from cockpit_source.scopes import GOOD_OUTCOMES


@dataclass(frozen=True, slots=True)
class UnreadScope:
    """A scope that was not read, and why."""

    customer_id: str
    provider_instance_id: str
    reseller_id: str | None
    outcome: str
    http_status: int | None
    error_type: str | None
    error_description: str | None
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of one run. `outcomes` counts all scopes by outcome; `unread_scopes` holds the first
    that were tried and not read, those that were skipped left out.

    `carried_on`: the run began in an earlier process that was interrupted. `stop_reason`: why it ended early, None
    when every scope was tried. `drops`: what lost all its licences, and whether the drop guard held it back.
    `listing_problem`: why discovery may lack scopes, None when it does not. `is_full_list`: the run was over all
    scopes, not a part. `shard` as in `runs`. `seconds` is wall time of this process.
    """

    run_id: str
    status: str
    scopes_total: int
    scopes_listed: int
    outcomes: Mapping[str, int]
    license_rows: int
    delisted: int
    requests: int
    throttled: int
    packages: int
    seconds: float
    carried_on: bool
    location: str
    dataset: str
    unread_scopes: tuple[UnreadScope, ...] = ()
    stop_reason: str | None = None
    sign_in_error: SignInError | None = None
    drops: Drops | None = None
    listing_problem: str | None = None
    is_full_list: bool = True
    shard: str | None = None

    @property
    def good(self) -> int:
        """Scopes that were read."""
        return sum(self.outcomes.get(outcome, 0) for outcome in GOOD_OUTCOMES)

    @property
    def guard_message(self) -> str | None:
        """What the drop guard held back and how to accept it, or None."""
        return self.drops.describe() if self.drops is not None and self.drops.are_guarded else None

    @property
    def waiting(self) -> int:
        """Scopes of a shard that were read and are emptied: the run that ends the shards decides about them."""
        return self.drops.waiting if self.drops is not None else 0

    @property
    def exit_code(self) -> int:
        """The exit code of `cockpit load`, the first that applies."""
        if self.sign_in_error is not None:
            return self.sign_in_error.exit_code
        if not self.good and not self.outcomes.get(QUARANTINED):
            return EXIT_FAILED
        if self.guard_message is not None:
            return EXIT_GUARDED
        all_read = self.good + self.waiting == self.scopes_total and self.listing_problem is None
        return EXIT_ALL_READ if all_read else EXIT_SOME_NOT_READ

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        record = asdict(self)
        record["sign_in_error"] = None if self.sign_in_error is None else str(self.sign_in_error)
        record["drops"] = (
            None if self.drops is None else {"emptied": self.drops.emptied, "unlisted": self.drops.unlisted}
        )
        record["guard"] = self.guard_message
        record["waiting"] = self.waiting
        record["exit_code"] = self.exit_code
        return record
