"""The Microsoft products that simulated customers own, with their real SKU ids."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_GRANTED_SEATS = (10_000, 10_000, 50_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Product:
    """One product: `kind` is paid, free or viral (a trial that users start by themselves)."""

    sku_id: str
    part_number: str
    name: str
    kind: str

    @property
    def is_paid(self) -> bool:
        """Whether seats of this product are bought one by one."""
        return self.kind == "paid"

    @property
    def granted_seats(self) -> int:
        """Seats that a tenant gets of a free or viral product, 10,000 or more; the same in every tenant."""
        return _GRANTED_SEATS[int(self.sku_id[:2], 16) % len(_GRANTED_SEATS)]


@cache
def load_products() -> tuple[Product, ...]:
    """All products, the most common first. Two of them share the name "Visio Plan 1" on purpose."""
    text = files(__package__).joinpath("products.csv").read_text(encoding="utf-8")
    return tuple(Product(**row) for row in csv.DictReader(text.splitlines()))
