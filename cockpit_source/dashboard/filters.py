"""What the reader chose to see, as conditions of SQL. Values are always passed beside the SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Kind = Literal["paid", "free", "all"]

DIRECT = "-"
"""The choice of customers without a reseller."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The choices; None or an empty text leaves a filter out. `day` None is the inventory of now."""

    tenant: str | None = None
    reseller: str | None = None
    instance: str | None = None
    customer: str = ""
    sku: str | None = None
    kind: Kind = "paid"
    day: date | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether totals of whole days do not fit, since only some rows are wanted."""
        return any((self.reseller, self.instance, self.customer.strip(), self.sku))

    @property
    def values(self) -> dict[str, Any]:
        """The values of all conditions, by name."""
        return {
            "tenant": self.tenant,
            "reseller": "" if self.reseller == DIRECT else self.reseller,
            "instance": self.instance,
            "customer": self.customer.strip().lower(),
            "sku": self.sku,
            "day": self.day,
        }

    def where(self, *columns: str, extra: Iterable[str] = ()) -> str:
        """A WHERE clause of the filters whose columns the rows have, and of `extra` conditions.

        `columns` are of reseller_id, provider_instance_id, customer_id, customer_name, sku_id, is_free.
        """
        conditions = [*extra]
        if self.tenant:
            conditions.append("tenant = $tenant")
        if self.reseller and "reseller_id" in columns:
            conditions.append(_RESELLER)
        if self.instance and "provider_instance_id" in columns:
            conditions.append("provider_instance_id = $instance")
        if self.customer.strip() and "customer_id" in columns:
            conditions.append(_customer_condition("customer_name" in columns))
        if self.sku and "sku_id" in columns:
            conditions.append("sku_id = $sku")
        if self.kind != "all" and "is_free" in columns:
            conditions.append("is_free" if self.kind == "free" else "NOT is_free")
        return "WHERE " + " AND ".join(conditions) if conditions else ""


# of the scope; where that has none, of the customer
_RESELLER = """(reseller_id = $reseller OR reseller_id IS NULL
    AND (tenant, customer_id) IN (
        SELECT (tenant, customer_id) FROM dim_customers WHERE coalesce(reseller_id, '') = $reseller))"""


def _customer_condition(has_name: bool) -> str:
    """By a part of the name, or the whole id."""
    if has_name:
        return "(customer_id = $customer OR contains(lower(customer_name), $customer))"
    return (
        "(tenant, customer_id) IN (SELECT (tenant, customer_id) FROM dim_customers "
        "WHERE customer_id = $customer OR contains(lower(customer_name), $customer))"
    )
