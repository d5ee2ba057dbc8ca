"""Deletions that were accepted: what becomes of them, and when."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cockpit_source.sandbox.tenant import Customer

DELETE_CUSTOMER = "DeleteCustomer"
REMOVE_RELATIONSHIP = "RemoveResellerRelationship"
PROCESSING = "Processing"
SUCCEEDED = "Succeded"  # as the API spells it


@dataclass(slots=True)
class Deletion:
    """An accepted deletion. `finished_at` is None while it is under way; both times are UTC.

    `provider_instance_id` is None for a customer; `outcome` is what `status` becomes at the end.
    """

    operation: str
    customer: Customer
    provider_instance_id: str | None
    correlation_id: str
    client_id: str
    outcome: str
    accepted_at: datetime
    status: str = PROCESSING
    finished_at: datetime | None = None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Deletions:
    """All deletions so far. They come due by the clock; whoever looks sees those that are due done.

    `now` is that clock; a test that moves the time sets another.
    """

    def __init__(self, delay_seconds: Callable[[], float]) -> None:
        self.now: Callable[[], datetime] = _utc_now
        self._delay_seconds = delay_seconds
        self._accepted: list[Deletion] = []
        self._under_way: list[Deletion] = []
        self._customers: set[str] = set()
        self._relationships: set[tuple[str, str]] = set()

    def accept(
        self,
        operation: str,
        customer: Customer,
        provider_instance_id: str | None,
        correlation_id: str,
        client_id: str,
        outcome: str,
    ) -> None:
        """Note a deletion, to be carried out after the delay."""
        deletion = Deletion(
            operation,
            customer,
            provider_instance_id,
            correlation_id,
            client_id,
            outcome,
            accepted_at=self.now(),
        )
        self._accepted.append(deletion)
        self._under_way.append(deletion)

    def all(self) -> list[Deletion]:
        """Every deletion, in the order of acceptance."""
        self._finish_due()
        return list(self._accepted)

    def has_customer(self, customer_id: str) -> bool:
        """Whether this customer was deleted."""
        self._finish_due()
        return customer_id in self._customers

    def has_relationship(self, customer_id: str, provider_instance_id: str) -> bool:
        """Whether the relationship of this customer in this instance was removed."""
        self._finish_due()
        return (customer_id, provider_instance_id) in self._relationships

    def undo(self) -> None:
        """Forget all deletions; what they deleted is back."""
        for kept in (self._accepted, self._under_way, self._customers, self._relationships):
            kept.clear()

    def _finish_due(self) -> None:
        if not self._under_way:
            return
        latest = self.now() - timedelta(seconds=self._delay_seconds())
        for deletion in [deletion for deletion in self._under_way if deletion.accepted_at <= latest]:
            self._under_way.remove(deletion)
            deletion.status = deletion.outcome
            deletion.finished_at = self.now()
            if deletion.outcome != SUCCEEDED:
                continue
            if deletion.provider_instance_id is None:
                self._customers.add(deletion.customer.id)
            else:
                self._relationships.add((deletion.customer.id, deletion.provider_instance_id))
