"""The subscriptions behind the licences of a tenant."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from cockpit_source.sandbox.draws import derived_id
from cockpit_source.sandbox.products import Product, load_products
from cockpit_source.sandbox.tenant import Customer, SandboxTenant

ACTIVE, SUSPENDED = "Active", "Suspended"


class Subscription(NamedTuple):
    """One paid product of a customer in one instance, on one day.

    `quantity` counts all seats bought, suspended ones too. It is Suspended when at least as many seats are
    suspended as are left.
    """

    id: str
    customer: Customer
    provider_instance_id: str
    product: Product
    quantity: int
    assigned: int
    status: str


def all_subscriptions(tenant: SandboxTenant, day: int) -> Iterator[Subscription]:
    """Every subscription of the customers listed that day."""
    for customer_id, instance_id, _reseller_id in tenant.scopes(day):
        customer = tenant.customer(customer_id)
        if customer is not None:
            yield from subscriptions_of(tenant, customer, instance_id, day)


def subscriptions_of(
    tenant: SandboxTenant, customer: Customer, provider_instance_id: str, day: int
) -> Iterator[Subscription]:
    """The subscriptions of a customer in one instance, on a day on which it is listed there."""
    for row in tenant.licenses(customer.id, provider_instance_id, day):
        product = _products()[row["skuId"]]
        if product.is_paid:
            total, suspended = row["totalLicenses"], row["suspendedLicenses"]
            yield Subscription(
                derived_id(tenant.seed, "subscription", customer.id, provider_instance_id, product.sku_id),
                customer,
                provider_instance_id,
                product,
                total + suspended,
                row["consumedLicenses"],
                SUSPENDED if suspended >= total else ACTIVE,
            )


@cache
def _products() -> dict[str, Product]:
    return {product.sku_id: product for product in load_products()}
