"""A believable tenant of a cloud reseller: invented customers, real products, day after day."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cockpit_source.sandbox.draws import Draws, derived_id
from cockpit_source.sandbox.events import SCRIPTS, Event, EventKind, Script
from cockpit_source.sandbox.names import draw_company
from cockpit_source.sandbox.seats import ScopeSeats

DOMAIN = "sandbox.example"
_SIZES = {"small": ((1, 5), (3, 25)), "medium": ((6, 14), (30, 300)), "large": ((22, 28), (1500, 9000))}
_RESELLER_NAMES = (
    "Kaffee & Kabel",
    "Nordlicht IT",
    "Segelboot Systems",
    "Δελφίνι Cloud",
    "Śnieg Serwis",
    "雲の橋",
)


@dataclass(frozen=True, slots=True)
class ProviderInstance:
    """A Microsoft provider instance of the tenant."""

    id: str
    alias: str


@dataclass(frozen=True, slots=True)
class Reseller:
    """A reseller of the tenant."""

    id: str
    company_name: str


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer. `reseller_id` is None when it buys from the tenant itself.

    `size` is small, medium or large. The customer is listed from `joined_day` until the day before
    `left_day`. `script` is what happens to it.
    """

    id: str
    company_name: str
    country: str
    size: str
    reseller_id: str | None
    provider_instance_ids: tuple[str, ...]
    has_gdap: bool = True
    is_flaky: bool = False
    joined_day: int = 0
    left_day: int | None = None
    script: Script = ()

    def is_listed(self, day: int) -> bool:
        """Whether the API knows the customer on that day."""
        return self.joined_day <= day and (self.left_day is None or day < self.left_day)

    def has_gdap_on(self, day: int) -> bool:
        """Whether licence calls are allowed on that day."""
        gdap = self.has_gdap
        for kind, event_day in self.script:
            if event_day <= day and kind in (EventKind.GDAP_LOST, EventKind.GDAP_RESTORED):
                gdap = kind is EventKind.GDAP_RESTORED
        return gdap


class SandboxTenant:
    """The simulated tenant. The same arguments give the same tenant on every machine.

    Licence rows are made when asked for, so a tenant of 40,000 customers is cheap to hold.
    """

    def __init__(
        self,
        seed: int = 7,
        customers: int = 120,
        mean_skus: float | None = None,
        incidents: bool = True,
        moving_share: float = 1,
        domain: str = DOMAIN,
    ) -> None:
        """`mean_skus` (1 to 20) sets the mean number of rows per scope on day 0; otherwise it is near 5.

        `incidents=False` leaves out the scripted events: every customer then stays and always answers. The seats of
        customers beyond `moving_share` (0 to 1) stay as they are on day 0; of the others about one row in six changes
        from day to day. `domain` is the tenant's name, whose case does not count.
        """
        if customers < 1:
            raise ValueError(f"customers is {customers}; it must be 1 or more")
        if mean_skus is not None and not 1 <= mean_skus <= 20:
            raise ValueError(f"mean_skus is {mean_skus}; it must be from 1 to 20")
        if not 0 <= moving_share <= 1:
            raise ValueError(f"moving_share is {moving_share}; it must be from 0 to 1")
        self.seed = seed
        self.domain = domain.lower()
        self.mean_skus = mean_skus
        self.incidents = incidents
        self.moving_share = moving_share
        self.provider_instances = tuple(
            ProviderInstance(derived_id(seed, "instance", alias), alias)
            for alias in ("Microsoft CSP Europe", "Microsoft CSP Overseas")
        )
        self.resellers = tuple(Reseller(derived_id(seed, "reseller", name), name) for name in _RESELLER_NAMES)
        scripts = _assign_scripts(seed, customers) if incidents else {}
        self.customers = tuple(self._make_customer(number, scripts.get(number, ())) for number in range(customers))
        self._offboarded: set[str] = set()
        self._by_id = {customer.id: customer for customer in self.customers}
        self.events = tuple(sorted(self._find_events(), key=lambda event: (event.day, event.kind, event.customer_id)))

    def customer(self, customer_id: str) -> Customer | None:
        """The customer with this id (lower case), listed or not."""
        return self._by_id.get(customer_id)

    def event(self, kind: EventKind | str) -> Event:
        """The first event of a kind. Raises LookupError in a tenant too small to have one."""
        for event in self.events:
            if event.kind == kind:
                return event
        raise LookupError(f"no event {kind!r} in this tenant; it has {sorted({e.kind for e in self.events})}")

    def scopes(self, day: int) -> Iterator[tuple[str, str, str | None]]:
        """Customer, provider instance and reseller id (None: direct) of every scope listed that day."""
        for customer in self.customers:
            if customer.is_listed(day):
                for instance_id in customer.provider_instance_ids:
                    yield customer.id, instance_id, customer.reseller_id

    def offboard(self, customer_id: str) -> None:
        """Take all licences and subscriptions of a customer away, on every day. Raises LookupError without it."""
        if customer_id not in self._by_id:
            raise LookupError(f"there is no customer {customer_id}")
        self._offboarded.add(customer_id)

    def restore(self, *customer_ids: str) -> None:
        """Undo `offboard` for these customers, or for all."""
        self._offboarded = self._offboarded.difference(customer_ids) if customer_ids else set()

    def licenses(self, customer_id: str, provider_instance_id: str, day: int) -> list[dict[str, Any]]:
        """Licence rows of one scope as the customer owns them, whether or not the API would show them.

        Raises LookupError when the pair is not listed on that day.
        """
        customer = self.customer(customer_id)
        if (
            customer is None
            or not customer.is_listed(day)
            or provider_instance_id not in customer.provider_instance_ids
        ):
            raise LookupError(f"customer {customer_id} in instance {provider_instance_id} is not listed on day {day}")
        if customer_id in self._offboarded:
            return []
        return self._seats(customer, provider_instance_id).advance_to(day if self._moves(customer) else 0).rows()

    def _moves(self, customer: Customer) -> bool:
        return bool(customer.script) or Draws(self.seed, "moves", customer.id).fraction() < self.moving_share

    def _make_customer(self, number: int, script: Script) -> Customer:
        draws = Draws(self.seed, "customer", number)
        country, name = draw_company(draws)
        first, second = (instance.id for instance in self.provider_instances)
        instances = ((first,), (first,), (first,), (second,), (first, second))[draws.early_index(5)]
        reseller = self.resellers[draws.early_index(len(self.resellers))].id if draws.chance(0.7) else None
        size = "large" if number % 40 == 4 else "medium" if draws.chance(0.17) or script else "small"
        days = dict(script)
        return Customer(
            id=derived_id(self.seed, "customer", number),
            company_name=name,
            country=country,
            size=size,
            reseller_id=reseller,
            provider_instance_ids=instances[:1] if script else instances,
            has_gdap=EventKind.NO_GDAP not in days,
            is_flaky=EventKind.FLAKY in days,
            joined_day=days.get(EventKind.CUSTOMER_JOINED, 0),
            left_day=days.get(EventKind.CUSTOMER_LEFT),
            script=script,
        )

    def _seats(self, customer: Customer, instance_id: str) -> ScopeSeats:
        draws = Draws(self.seed, "size", customer.id, instance_id)
        sku_range, seat_range = _SIZES[customer.size]
        count = draws.between(*sku_range)
        if self.mean_skus is not None:
            count = 1 + int(draws.fraction() * (2 * self.mean_skus - 1))
        if customer.script:
            count = max(count, 3)
        key = f"{self.seed}|seats|{customer.id}|{instance_id}"
        return ScopeSeats(key, count, draws.between(*seat_range), customer.script)

    def _find_events(self) -> Iterator[Event]:
        for customer in self.customers:
            if not customer.script:
                continue
            instance_id = customer.provider_instance_ids[0]
            seats = self._seats(customer, instance_id)
            for kind, day in customer.script:
                line = seats.advance_to(day).subject(kind)
                yield Event(day, kind, customer.id, instance_id, line.product.sku_id if line else None)


def _assign_scripts(seed: int, customers: int) -> dict[int, Script]:
    """Customer numbers and their scripts, spread over the tenant."""
    draws = Draws(seed, "scripts")
    free = list(range(min(customers, 400)))
    return {free.pop(int(draws.fraction() * len(free))): script for script in SCRIPTS[:customers]}
