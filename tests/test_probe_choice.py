"""Which scopes a probe reads."""

from __future__ import annotations

import pytest
from support import INSTANCE, new_id

from cockpit_source.probe.choice import MAX_SCOPES, MAX_SIBLINGS, choose_scopes, find_siblings
from cockpit_source.scopes import ListedScope, Scope, scope_key

RESELLER, OTHER = new_id(900), new_id(901)


def listed(customer: int, reseller: str | None = None, instance: str = INSTANCE) -> ListedScope:
    scope = Scope(new_id(customer), instance, reseller)
    return ListedScope(scope_key("t", scope), scope)


@pytest.mark.parametrize("total", [1, 2, 19, 20, 21, 399, 400])
def test_scopes_are_taken_evenly_over_the_list(total: int) -> None:
    scopes = [listed(number) for number in range(total)]
    count = min(total, MAX_SCOPES)
    positions = [-(-stretch * total // count) for stretch in range(count)]
    assert choose_scopes(iter(scopes), total) == [scopes[position] for position in positions]


def test_customer_that_was_met_gives_way_to_another() -> None:
    """Of two scopes of a stretch the second is taken where the customer of the first has one already."""
    scopes = [listed(number if number % 2 else 999, instance=new_id(800 + number)) for number in range(40)]
    assert choose_scopes(iter(scopes), 40) == [scopes[0], *scopes[3::2]]


def test_scopes_of_one_customer_are_taken_where_there_is_no_other() -> None:
    scopes = [listed(1, instance=new_id(800 + number)) for number in range(3)]
    assert choose_scopes(iter(scopes), 3) == scopes


def test_few_scopes_with_a_reseller_are_all_taken() -> None:
    resold = {70, 71, 333}
    scopes = [listed(number, RESELLER if number in resold else None) for number in range(400)]
    chosen = choose_scopes(iter(scopes), 400)
    assert [one for one in chosen if one.scope.reseller_id] == [scopes[70], scopes[333]]
    assert len(chosen) == 20


def test_of_many_scopes_with_a_reseller_ten_are_taken_and_spread() -> None:
    scopes = [listed(number, RESELLER if number % 2 else None) for number in range(400)]
    chosen = choose_scopes(iter(scopes), 400)
    assert [bool(one.scope.reseller_id) for one in chosen] == [True, False] * 10


def test_siblings_are_the_pairs_of_chosen_scopes_under_other_resellers() -> None:
    chosen = [listed(1, RESELLER), listed(2)]
    others = [listed(1), listed(2, OTHER), listed(3, OTHER), listed(1, OTHER)]
    assert find_siblings([*chosen, *others], chosen) == [listed(1, OTHER)]
    many = [listed(1, new_id(910 + number)) for number in range(9)]
    assert find_siblings(many, chosen) == many[:MAX_SIBLINGS]
