"""The notable things that happen in a simulated tenant, all of them within its first five days."""

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happens. From its day on, unless a later event of the same customer takes it back."""

    NO_GDAP = "no_gdap"  # licence calls answer 403, from the first day on
    FLAKY = "flaky"  # every other licence call, beginning with the first, answers 500
    CUSTOMER_JOINED = "customer_joined"  # listed from this day on; unknown (404) before
    CUSTOMER_LEFT = "customer_left"  # not listed from this day on; licence calls answer 404
    LICENCES_LOST = "licences_lost"  # 200 with an empty array
    SKU_REMOVED = "sku_removed"  # one SKU is missing from the answer
    SKU_RETURNED = "sku_returned"  # the removed SKU is back
    SKU_ADDED = "sku_added"  # a SKU that the customer never had before
    OVER_ASSIGNED = "over_assigned"  # fewer seats than assignments: available is negative
    SEATS_SUSPENDED = "seats_suspended"  # half of the seats of one SKU move to suspended
    GDAP_LOST = "gdap_lost"  # licence calls answer 403, though the licences are still there
    GDAP_RESTORED = "gdap_restored"  # licence calls answer again


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its day (from 0), its scope and, where one SKU is concerned, that SKU."""

    day: int
    kind: EventKind
    customer_id: str
    provider_instance_id: str
    sku_id: str | None = None


Script = tuple[tuple[EventKind, int], ...]
"""What happens to one customer: kinds and days, in the order of the days."""

SCRIPTS: tuple[Script, ...] = (
    ((EventKind.CUSTOMER_LEFT, 2),),
    ((EventKind.LICENCES_LOST, 3),),
    ((EventKind.SKU_REMOVED, 1), (EventKind.SKU_RETURNED, 3)),
    ((EventKind.NO_GDAP, 0),),
    ((EventKind.FLAKY, 0),),
    ((EventKind.SKU_ADDED, 1),),
    ((EventKind.OVER_ASSIGNED, 2),),
    ((EventKind.SEATS_SUSPENDED, 2),),
    ((EventKind.GDAP_LOST, 2), (EventKind.GDAP_RESTORED, 4)),
    ((EventKind.CUSTOMER_JOINED, 1),),
    ((EventKind.NO_GDAP, 0),),
    ((EventKind.NO_GDAP, 0),),
    ((EventKind.NO_GDAP, 0),),
)
"""One script per customer that gets one; a tenant with fewer customers plays the first ones."""
