"""The simulated tenant: the same everywhere, believable, and eventful in its first five days."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from cockpit_source.sandbox import EventKind, SandboxTenant, load_products

ROW_FIELDS = {
    "skuId",
    "name",
    "totalLicenses",
    "consumedLicenses",
    "availableLicenses",
    "suspendedLicenses",
    "isSelected",
}
TENANT = SandboxTenant()


def rows_on(tenant: SandboxTenant, day: int) -> list[dict[str, Any]]:
    return [row for scope in tenant.scopes(day) for row in tenant.licenses(scope[0], scope[1], day)]


def test_tenant_same_seed_is_the_same_tenant() -> None:
    """Compared with literal values, so that a change of Python or of the code cannot go unseen."""
    again = SandboxTenant()
    assert again.customers == TENANT.customers
    assert again.events == TENANT.events
    for customer_id, instance_id, _ in TENANT.scopes(3):
        assert again.licenses(customer_id, instance_id, 3) == TENANT.licenses(customer_id, instance_id, 3)
    assert TENANT.event(EventKind.CUSTOMER_LEFT).customer_id == "aaf4817c-6b0d-4f29-bba5-fc316c2232c1"
    assert TENANT.customers[0].company_name == "Wolkenknödel Verlag GmbH"
    assert sum(row["totalLicenses"] for row in rows_on(TENANT, 4)) == 37_855_051


def test_tenant_other_seed_shares_no_ids() -> None:
    other = SandboxTenant(seed=8)
    assert {customer.id for customer in other.customers}.isdisjoint(c.id for c in TENANT.customers)


def test_tenant_asked_for_an_earlier_day_answers_as_before() -> None:
    customer_id, instance_id, _ = next(TENANT.scopes(0))
    before = TENANT.licenses(customer_id, instance_id, 0)
    TENANT.licenses(customer_id, instance_id, 40)
    assert TENANT.licenses(customer_id, instance_id, 0) == before


def test_tenant_default_has_customers_of_every_sort() -> None:
    customers = TENANT.customers
    assert Counter(customer.size for customer in customers)["large"] >= 3
    assert {len(customer.provider_instance_ids) for customer in customers} == {1, 2}
    assert len({customer.reseller_id for customer in customers}) == 7
    assert sum(not customer.has_gdap for customer in customers) == 4
    assert sum(customer.is_flaky for customer in customers) == 1
    assert max(len(TENANT.licenses(c, i, 0)) for c, i, _ in TENANT.scopes(0)) >= 20


def test_tenant_rows_add_up_on_every_day() -> None:
    for day in range(6):
        for row in rows_on(TENANT, day):
            assert row.keys() == ROW_FIELDS
            assert row["availableLicenses"] == row["totalLicenses"] - row["consumedLicenses"]
            assert min(row["totalLicenses"], row["consumedLicenses"], row["suspendedLicenses"]) >= 0


def test_tenant_never_shows_a_sku_twice_in_one_scope() -> None:
    for customer_id, instance_id, _ in TENANT.scopes(30):
        counts = Counter(row["skuId"] for row in TENANT.licenses(customer_id, instance_id, 30))
        assert set(counts.values()) <= {1}


def test_tenant_with_mean_skus_has_so_many_rows_per_scope() -> None:
    tenant = SandboxTenant(customers=1000, mean_skus=12.5, incidents=False)
    scopes = list(tenant.scopes(0))
    assert len(rows_on(tenant, 0)) / len(scopes) == pytest.approx(12.5, rel=0.05)
    assert tenant.events == ()


def test_tenant_with_moving_share_keeps_the_other_customers_as_they_are() -> None:
    still = SandboxTenant(customers=1000, incidents=False, moving_share=0.1)
    lively = SandboxTenant(customers=1000, incidents=False)

    def movers(tenant: SandboxTenant) -> int:
        return sum(
            sorted(map(str, tenant.licenses(customer, instance, 0)))
            != sorted(map(str, tenant.licenses(customer, instance, 9)))
            for customer, instance, _ in tenant.scopes(0)
        )

    assert 0 < movers(still) < 0.15 * movers(lively)


@pytest.mark.parametrize(
    "wrong", [{"customers": 0}, {"mean_skus": 0.5}, {"mean_skus": 21}, {"moving_share": -0.1}, {"moving_share": 2}]
)
def test_tenant_size_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it must be"):
        SandboxTenant(**wrong)


def test_tenant_all_events_happen_within_five_days() -> None:
    assert {event.kind for event in TENANT.events} == set(EventKind)
    assert all(0 <= event.day <= 4 for event in TENANT.events)


def test_tenant_of_one_customer_still_works() -> None:
    assert [event.kind for event in SandboxTenant(customers=1).events] == [EventKind.CUSTOMER_LEFT]


def test_products_free_ones_have_many_seats() -> None:
    products = load_products()
    assert len({product.sku_id for product in products}) == len(products) >= 40
    assert {product.kind for product in products} == {"paid", "free", "viral"}
    for row in rows_on(TENANT, 0):
        product = next(product for product in products if product.sku_id == row["skuId"])
        assert product.is_paid or row["totalLicenses"] == product.granted_seats >= 10_000


def test_import_of_the_sandbox_leaves_dlt_alone() -> None:
    code = "import sys, cockpit_source.sandbox; sys.exit('dlt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", [EventKind.CUSTOMER_JOINED, EventKind.CUSTOMER_LEFT])
def test_scopes_list_a_customer_only_while_it_is_there(kind: EventKind) -> None:
    event = TENANT.event(kind)
    listed = [event.customer_id in {scope[0] for scope in TENANT.scopes(day)} for day in range(5)]
    joined = kind is EventKind.CUSTOMER_JOINED
    assert listed == [(day >= event.day) == joined for day in range(5)]
    with pytest.raises(LookupError, match="not listed on day"):
        TENANT.licenses(event.customer_id, event.provider_instance_id, 0 if joined else 4)


def test_event_that_a_tenant_lacks_is_named() -> None:
    with pytest.raises(LookupError, match="flaky"):
        SandboxTenant(customers=1).event("flaky")
