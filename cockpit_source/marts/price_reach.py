"""How far the prices of a tenant reach: which SKUs of the list are held, and what of the paid seats has a price."""

from __future__ import annotations

import math
from dataclasses import dataclass

import dlt

from cockpit_source.warehouse import Warehouse

# what is held comes from the marts, so that it is counted as they count it
_REACH = """
WITH held AS (
    SELECT sku_id, MAX(CASE WHEN is_free THEN 0 ELSE 1 END) AS paid,
        SUM(CASE WHEN is_free THEN 0 ELSE total_seats END) AS seats
    FROM {fct_current_inventory} WHERE tenant = %s GROUP BY sku_id
),
listed AS (SELECT DISTINCT sku_id FROM {sku_prices} WHERE tenant = %s),
priced AS (SELECT sku_id FROM {int_sku_prices} WHERE tenant = %s),
skus AS (SELECT sku_id FROM held UNION SELECT sku_id FROM listed)
SELECT
    COUNT(l.sku_id) AS listed_skus,
    COUNT(CASE WHEN h.sku_id IS NOT NULL THEN l.sku_id END) AS listed_skus_held,
    COUNT(CASE WHEN p.sku_id IS NULL THEN l.sku_id END) AS listed_skus_priced_later,
    COUNT(h.sku_id) AS held_skus,
    COALESCE(SUM(h.paid), 0) AS paid_skus,
    COALESCE(SUM(CASE WHEN p.sku_id IS NOT NULL THEN h.paid END), 0) AS priced_skus,
    COALESCE(SUM(h.seats), 0) AS paid_seats,
    COALESCE(SUM(CASE WHEN p.sku_id IS NOT NULL THEN h.seats END), 0) AS priced_seats
FROM skus s
LEFT JOIN held h ON h.sku_id = s.sku_id
LEFT JOIN listed l ON l.sku_id = s.sku_id
LEFT JOIN priced p ON p.sku_id = s.sku_id
"""


@dataclass(frozen=True, slots=True)
class PriceReach:
    """SKUs of the price list (`listed`), those that customers hold now (`held`), and of these the paid ones.

    `priced` are paid ones with a price that holds today, `listed_skus_priced_later` those that have none until a
    later day. Seats are those of paid SKUs; of a currency nothing is said.
    """

    listed_skus: int
    listed_skus_held: int
    listed_skus_priced_later: int
    held_skus: int
    paid_skus: int
    priced_skus: int
    paid_seats: int
    priced_seats: int

    @property
    def warning(self) -> str | None:
        """What is wrong with a list of which nothing is held, though there are licences."""
        if self.listed_skus_held or not self.held_skus:
            return None
        none = f"None of the {self.listed_skus} SKUs" if self.listed_skus > 1 else "The only SKU"
        held = "is held" if self.listed_skus > 1 else "is not held"
        return (
            f"{none} on the price list {held} by a customer, so no seat has a price. The list needs the ids of the "
            "column sku_id, as in licenses."
        )

    def describe(self) -> str:
        """The numbers as sentences."""
        if not self.held_skus:
            return "Prices: no licence is held now."
        verb = "is" if self.listed_skus == 1 else "are"
        told = f"Prices: {_of(self.listed_skus_held, self.listed_skus, 'SKU')} on the list {verb} held; "
        if self.paid_skus:
            verbs = "is held has" if self.paid_skus == 1 else "are held have"
            told += f"{_of(self.priced_skus, self.paid_skus, 'paid SKU')} that {verbs} a price today{self._share()}."
        else:
            told += "no paid SKU is held."
        if self.listed_skus_priced_later:
            told += f" On the list with a price from a later day only: {self.listed_skus_priced_later:,}."
        return told

    def _share(self) -> str:
        """Never rounded up to all of them."""
        if not self.paid_seats:
            return ""
        return f", {math.floor(1000 * self.priced_seats / self.paid_seats) / 10:.1f} % of their seats"


def read_price_reach(pipeline: dlt.Pipeline, tenant_key: str) -> PriceReach | None:
    """How far the prices of the tenant reach, by the views as they are now; None without a price list.

    Raises:
        WarehouseError: the warehouse cannot be read, or lacks the views.
    """
    with Warehouse(pipeline).opened(read_only=True) as client:
        if client is None:
            return None
        (row,) = client.rows(_REACH, tenant_key, tenant_key, tenant_key)
    reach = PriceReach(**{name: int(value) for name, value in row.items()})
    return reach if reach.listed_skus else None


def _of(part: int, whole: int, noun: str) -> str:
    return f"{part:,} of {whole:,} {noun}{'s' * (whole != 1)}"
