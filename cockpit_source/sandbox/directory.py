"""What the listings tell about a tenant beyond its licences. Made when asked for, as licences are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cockpit_source.sandbox.draws import Draws, derived_id
from cockpit_source.sandbox.names import draw_company
from cockpit_source.sandbox.tenant import Customer, ProviderInstance, Reseller, SandboxTenant

MICROSOFT = "Microsoft"
OTHER_PROVIDER = "Tresor Backup"
_DELETED_FROM_THE_START = 3


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """A customer in one provider instance.

    `provider_customer_id` is None while creation at the provider is not finished; then no licence scope
    exists. `names_instance` says whether the listed entry repeats the instance id of its key.
    """

    provider_instance_id: str
    provider_customer_id: str | None
    names_instance: bool


class Directory:
    """Listed customers, provider instances and resellers of a tenant. The same tenant has the same ones."""

    def __init__(self, tenant: SandboxTenant) -> None:
        """Customers deleted from the start exist in a tenant with incidents only."""
        self._tenant = tenant
        self.other_instance = ProviderInstance(derived_id(tenant.seed, "instance", OTHER_PROVIDER), OTHER_PROVIDER)
        numbers = range(_DELETED_FROM_THE_START if tenant.incidents else 0)
        self.deleted_customers = tuple(self._make_deleted(number) for number in numbers)
        self._deleted_by_id = {customer.id: customer for customer in self.deleted_customers}
        self.resellers: Mapping[str, Reseller] = {reseller.id: reseller for reseller in tenant.resellers}

    def provider_instances(self) -> list[tuple[ProviderInstance, str]]:
        """Every instance and the name of its provider, sorted by provider."""
        return [(instance, MICROSOFT) for instance in self._tenant.provider_instances] + [
            (self.other_instance, OTHER_PROVIDER)
        ]

    def customer(self, customer_id: str) -> Customer | None:
        """The customer with this id, listed, deleted or still to come."""
        return self._tenant.customer(customer_id) or self._deleted_by_id.get(customer_id)

    def customers(self, day: int) -> Iterator[Customer]:
        """Every customer that joined by that day, also those that left since."""
        for customer in (*self._tenant.customers, *self.deleted_customers):
            if customer.joined_day <= day:
                yield customer

    def entries(self, customer: Customer) -> Iterator[ProviderEntry]:
        """The customer's provider instances; those with licences are those of `tenant.scopes()`."""
        draws = Draws(self._tenant.seed, "entries", customer.id)
        for instance_id in customer.provider_instance_ids:
            yield ProviderEntry(instance_id, self.microsoft_id(customer.id, instance_id), draws.chance(0.8))
        if draws.chance(0.15):
            number = f"TB-{draws.between(10_000, 99_999)}"
            yield ProviderEntry(self.other_instance.id, number, draws.chance(0.8))
        unfinished = draws.chance(0.06)
        for instance in self._tenant.provider_instances:
            if unfinished and instance.id not in customer.provider_instance_ids:
                yield ProviderEntry(instance.id, None, draws.chance(0.8))

    def microsoft_id(self, customer_id: str, provider_instance_id: str) -> str:
        """The customer's tenant id at Microsoft."""
        return derived_id(self._tenant.seed, "microsoft", customer_id, provider_instance_id)

    def reseller_ids(self, customer: Customer) -> tuple[str, ...]:
        """The resellers that the customer has a relation with: none, its own, or its own and another.

        The other one is never the first reseller, whose customers are known by their own reseller id.
        """
        if customer.reseller_id is None:
            return ()
        draws = Draws(self._tenant.seed, "resellers", customer.id)
        others = [reseller.id for reseller in self._tenant.resellers[1:] if reseller.id != customer.reseller_id]
        return (customer.reseller_id, draws.pick(others)) if draws.chance(0.2) else (customer.reseller_id,)

    def _make_deleted(self, number: int) -> Customer:
        seed = self._tenant.seed
        country, name = draw_company(Draws(seed, "deleted", number))
        instance_id = self._tenant.provider_instances[0].id
        customer_id = derived_id(seed, "deleted", number)
        return Customer(customer_id, name, country, "small", None, (instance_id,), left_day=0)
