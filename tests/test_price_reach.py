"""How far a price list reaches, by the marts: which of its SKUs are held, and what of the paid seats has a price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from marts_world import Marts, World, at, on
from support import ScopeIds, sku

from cockpit_source.marts.price_reach import PaidReach, PriceReach, read_price_reach
from cockpit_source.pipeline import create_pipeline

A: ScopeIds = ("c1", "p1", None)
B: ScopeIds = ("c2", "p1", None)
FREE = "a403ebcc-fae0-4ca2-8c8c-7a907fd6c235"

MOST = PriceReach(
    listed_skus=6,
    listed_skus_held=4,
    listed_skus_priced_later=2,
    held_skus=7,
    paid=PaidReach(skus=5, priced_skus=2, seats=20_040, priced_seats=20_027),
)
NOTHING_OF_THE_LIST = PriceReach(
    listed_skus=2,
    listed_skus_held=0,
    listed_skus_priced_later=1,
    held_skus=2,
    paid=PaidReach(skus=2, priced_skus=0, seats=11, priced_seats=0),
)


def build_tenants(marts: Marts) -> None:
    """A tenant with prices for most of its seats, one whose list is of other SKUs, and one without a list."""
    most, other, bare = World(), World("other"), World("bare")
    rows = [sku("e3", 20, 5), sku("e5", 4), sku("later", 9), sku("unknown", None, None), sku(FREE, 5)]
    rows += [sku("many", 10_000), sku("many with a price", 20_000)]
    most.run(at(1), {A: [*rows, sku("gone", 3)], B: [sku("e3", 7, 1)]})
    most.run(at(2), {A: rows, B: [sku("e3", 7, 1)]})
    for sku_id, day in (("e3", 1), ("e3", 2), ("later", 3), ("gone", 1), ("many with a price", 2), (FREE, 1)):
        most.price(sku_id, "12.50", "EUR" if sku_id == "e3" else "USD", on(day))
    most.price("listed", "1", "EUR", on(9))
    for world in (other, bare):
        world.run(at(1), {A: [sku("e5", 4)], B: [sku("e3", 7, 1)]})
    other.price("CFQ7TTC0LF8R:0001", "1", "EUR", on(1))
    other.price("E5", "1", "EUR", on(3))
    marts.build(most, other, bare, now=at(2, 12))


def test_reach_of_each_tenant(marts: Marts) -> None:
    build_tenants(marts)
    for with_paid in (True, False):
        wanted = [MOST, NOTHING_OF_THE_LIST, None]
        if not with_paid:
            wanted = [reach and replace(reach, paid=None) for reach in wanted]
        found = [read_price_reach(marts.pipeline, tenant, with_paid=with_paid) for tenant in ("t", "other", "bare")]
        assert found == wanted


def test_reach_on_ducklake(tmp_path: Path, ducklake_url: str) -> None:
    marts = Marts(create_pipeline("t", destination="ducklake", pipelines_dir=tmp_path / "pipelines"))
    build_tenants(marts)
    assert read_price_reach(marts.pipeline, "t", with_paid=True) == MOST


def test_skus_that_are_held_are_those_of_the_mart(marts: Marts) -> None:
    """Also where a customer is read with and without its reseller, was read badly, or left the list."""
    world = World()
    both, left, late = ("c3", "p1", "r1"), ("c4", "p1", None), ("c5", "p1", None)
    world.run(at(1), {A: [sku("e1")], B: [sku("e2")], both: [sku("e3")], left: [sku("e4")], late: "forbidden"})
    world.run(at(2), {A: "failed", B: [], both: [sku("e3")], ("c3", "p1", None): [sku("e5")], late: [sku("e6")]})
    for sku_id in ("e1", "e2", "e3", "e4", "e5", "e6"):
        world.price(sku_id, "1", "EUR", on(1))
    marts.build(world, now=at(2, 12))
    held = set(marts.rows("fct_current_inventory", "sku_id"))
    reach = read_price_reach(marts.pipeline, "t", with_paid=True)
    assert reach is not None
    assert 0 < len(held) < 6
    assert (reach.listed_skus_held, reach.held_skus) == (len(held), len(held))
    assert reach.paid == PaidReach(len(held), len(held), 10 * len(held), 10 * len(held))


@pytest.mark.parametrize(
    ("reach", "told"),
    [
        (
            MOST,
            "Prices: 4 of 6 SKUs on the list are held; 2 of 5 paid SKUs that are held have a price today, 99.9 % of "
            "their seats. On the list with a price from a later day only: 2.",
        ),
        (replace(MOST, paid=None, listed_skus_priced_later=0), "Prices: 4 of 6 SKUs on the list are held."),
        (
            PriceReach(1, 1, 0, 2, PaidReach(1, 1, 5, 5)),
            "Prices: 1 of 1 SKU on the list is held; 1 of 1 paid SKU that is held has a price today, 100.0 % of "
            "their seats.",
        ),
        (
            PriceReach(1200, 1, 0, 2, PaidReach(0, 0, 0, 0)),
            "Prices: 1 of 1,200 SKUs on the list are held; no paid SKU is held.",
        ),
        (PriceReach(3, 0, 0, 0, PaidReach(0, 0, 0, 0)), "Prices: no licence is held now."),
        (
            PriceReach(1, 1, 0, 1, PaidReach(1, 1, 0, 0)),
            "Prices: 1 of 1 SKU on the list is held; 1 of 1 paid SKU that is held has a price today.",
        ),
    ],
)
def test_reach_in_words(reach: PriceReach, told: str) -> None:
    assert (reach.describe(), reach.warning) == (told, None)


@pytest.mark.parametrize(
    ("listed", "begins"),
    [
        (40, "None of the 40 SKUs on the price list is held by a customer, "),
        (1, "The only SKU on the price list is not held by a customer, "),
    ],
)
def test_list_of_which_nothing_is_held_is_warned_of(listed: int, begins: str) -> None:
    warning = PriceReach(listed, 0, 0, 2).warning
    assert warning == begins + (
        "so no seat has a price. The list needs the ids of the column sku_id, as in licenses."
    )
