"""How far the prices of a tenant reach: which SKUs of the list are held, and what of the paid seats has a price."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import dlt

from cockpit_source.marts.views import mart_dialect
from cockpit_source.warehouse import DatasetClient, Warehouse

# the SKUs of fct_current_inventory, told without its rows: a load, which keeps to little memory, counts them too
_LIST = """
WITH held AS (
    SELECT DISTINCT l.sku_id
    FROM {licenses} l INNER JOIN {int_counted_scopes} s ON s.scope_key = l.scope_key
    WHERE s.tenant = %s
),
listed AS (SELECT DISTINCT sku_id FROM {sku_prices} WHERE tenant = %s),
priced AS (SELECT sku_id FROM {int_sku_prices} WHERE tenant = %s)
SELECT
    COUNT(*) AS listed_skus,
    COUNT(h.sku_id) AS listed_skus_held,
    COUNT(CASE WHEN p.sku_id IS NULL THEN 1 END) AS listed_skus_priced_later,
    (SELECT COUNT(*) FROM held) AS held_skus
FROM listed l
LEFT JOIN held h ON h.sku_id = l.sku_id
LEFT JOIN priced p ON p.sku_id = l.sku_id
"""
_PAID = """
WITH paid AS (
    SELECT sku_id, COALESCE(SUM(total_seats), 0) AS seats
    FROM {fct_current_inventory} WHERE tenant = %s AND NOT is_free GROUP BY sku_id
),
priced AS (SELECT sku_id FROM {int_sku_prices} WHERE tenant = %s)
SELECT
    COUNT(*) AS skus,
    COUNT(p.sku_id) AS priced_skus,
    COALESCE(SUM(h.seats), 0) AS seats,
    COALESCE(SUM(CASE WHEN p.sku_id IS NOT NULL THEN h.seats END), 0) AS priced_seats
FROM paid h LEFT JOIN priced p ON p.sku_id = h.sku_id
"""
# half of it is enough for a million licences
_DUCKDB_MEMORY = "SET memory_limit = '1GB'"


@dataclass(frozen=True, slots=True)
class PaidReach:
    """Paid SKUs that are held now and their seats; `priced` are those with a price that holds today."""

    skus: int
    priced_skus: int
    seats: int
    priced_seats: int

    def describe(self) -> str:
        """The numbers as a part of a sentence."""
        if not self.skus:
            return "no paid SKU is held"
        verbs = "is held has" if self.skus == 1 else "are held have"
        told = f"{_of(self.priced_skus, self.skus, 'paid SKU')} that {verbs} a price today"
        # never rounded up to all of them
        share = math.floor(1000 * self.priced_seats / self.seats) / 10 if self.seats else None
        return told if share is None else f"{told}, {share:.1f} % of their seats"


@dataclass(frozen=True, slots=True)
class PriceReach:
    """SKUs of the price list, those of them that customers hold now, and those without a price until a later day.

    `held_skus` are all that are held, free ones too. `paid` is None where that was not counted. Currencies do not
    matter here.
    """

    listed_skus: int
    listed_skus_held: int
    listed_skus_priced_later: int
    held_skus: int
    paid: PaidReach | None = None

    @property
    def warning(self) -> str | None:
        """What is wrong with a list of which nothing is held, though there are licences."""
        if self.listed_skus_held or not self.held_skus:
            return None
        none = f"None of the {self.listed_skus:,} SKUs" if self.listed_skus > 1 else "The only SKU"
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
        told = f"Prices: {_of(self.listed_skus_held, self.listed_skus, 'SKU')} on the list {verb} held"
        if self.paid:
            told += f"; {self.paid.describe()}"
        if self.listed_skus_priced_later:
            told += f". On the list with a price from a later day only: {self.listed_skus_priced_later:,}"
        return f"{told}."

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values, for JSON."""
        return asdict(self)


def read_price_reach(pipeline: dlt.Pipeline, tenant_key: str, *, with_paid: bool) -> PriceReach | None:
    """How far the prices of the tenant reach, by the views as they are now; None without a price list.

    `with_paid` also counts the paid SKUs and their seats, which takes memory with the number of licences.

    Raises:
        WarehouseError: the warehouse cannot be read, or lacks the views.
    """
    with Warehouse(pipeline).opened(read_only=True) as client:
        if client is None:
            return None
        reach = PriceReach(**_read_numbers(client, _LIST, tenant_key))
        if not reach.listed_skus:
            return None
        if with_paid:
            if mart_dialect(pipeline) == "duckdb":
                client.execute(_DUCKDB_MEMORY)
            reach = replace(reach, paid=PaidReach(**_read_numbers(client, _PAID, tenant_key)))
    return reach


def _read_numbers(client: DatasetClient, sql: str, tenant_key: str) -> dict[str, Any]:
    (row,) = client.rows(sql, *[tenant_key] * sql.count("%s"))
    return {name: int(value) for name, value in row.items()}


def _of(part: int, whole: int, noun: str) -> str:
    return f"{part:,} of {whole:,} {noun}{'s' * (whole != 1)}"
