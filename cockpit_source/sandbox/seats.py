"""The licences of one customer in one provider instance, moved on day by day."""

from dataclasses import dataclass
from typing import Any

from cockpit_source.sandbox.draws import Draws
from cockpit_source.sandbox.events import EventKind, Script
from cockpit_source.sandbox.products import Product, load_products


@dataclass(slots=True)
class Line:
    """Seats of one product. An absent line is not shown but may come back."""

    product: Product
    total: int
    consumed: int
    suspended: int = 0
    is_present: bool = True

    def as_row(self) -> dict[str, Any]:
        """The licence row as the API names its fields."""
        return {
            "skuId": self.product.sku_id,
            "name": self.product.name,
            "availableLicenses": self.total - self.consumed,
            "isSelected": False,
            "totalLicenses": self.total,
            "consumedLicenses": self.consumed,
            "suspendedLicenses": self.suspended,
        }


class ScopeSeats:
    """Seats of one scope, on day 0 after construction. The same key always lives the same life."""

    def __init__(self, key: str, sku_count: int, typical_seats: int, script: Script = ()) -> None:
        self.day = 0
        self._draws = Draws(key)
        self._typical_seats = typical_seats
        self._script = script
        self._unused = list(load_products())
        self.lines: list[Line] = []
        while len(self.lines) < min(sku_count, len(load_products())):
            self._add_line(paid_only=not self.lines)
        self._play_script()

    def advance_to(self, day: int) -> "ScopeSeats":
        """These seats as they are on a later day."""
        while self.day < day:
            self.day += 1
            self._live_one_day()
            self._play_script()
        return self

    def rows(self) -> list[dict[str, Any]]:
        """Licence rows of the day; their order changes from day to day."""
        rows = [line.as_row() for line in self.lines if line.is_present]
        first = self.day % len(rows) if rows else 0
        return rows[first:] + rows[:first]

    def subject(self, kind: EventKind) -> Line | None:
        """The line that an event of this kind concerns, if it concerns one."""
        if kind is EventKind.SKU_ADDED:
            return self.lines[-1]
        if kind in _LINE_CHANGES:
            return self.lines[0]
        return None

    def _add_line(self, paid_only: bool = False) -> None:
        draws = self._draws
        choice = [p for p in self._unused if p.is_paid or not paid_only]
        product = draws.pick_early(choice)
        self._unused.remove(product)
        if not product.is_paid:
            used = draws.between(0, self._typical_seats)
            self.lines.append(Line(product, product.granted_seats, used))
            return
        total = 1 + draws.early_index(2 * self._typical_seats)
        line = Line(product, total, consumed=int(total * (0.6 + 0.4 * draws.fraction())))
        if draws.chance(0.03):
            line.consumed = total + draws.between(1, 3)
        if draws.chance(0.04):
            line.suspended = draws.between(1, 1 + total // 3)
        self.lines.append(line)

    def _live_one_day(self) -> None:
        for line in self.lines:
            luck = self._draws.fraction()
            if not self._script and luck < (0.003 if line.is_present else 0.06):
                line.is_present = not line.is_present
            elif luck < 0.03 and line.product.is_paid:
                line.total = max(1, line.total + _change(self._draws, line.total))
            elif luck < 0.16:
                moved = line.consumed + _change(self._draws, line.consumed)
                line.consumed = min(max(0, moved), max(line.total, line.consumed))
            elif luck > 0.995:
                line.suspended = 0 if line.suspended else 1 + line.total // 10
        if not self._script and self._unused and self._draws.chance(0.02):
            self._add_line()

    def _play_script(self) -> None:
        for kind, day in self._script:
            if day != self.day:
                continue
            if kind is EventKind.LICENCES_LOST:
                self.lines.clear()
            elif kind is EventKind.SKU_ADDED:
                self._add_line(paid_only=True)
            elif kind in _LINE_CHANGES:
                _LINE_CHANGES[kind](self.lines[0])


def _change(draws: Draws, amount: int) -> int:
    """A step up or down, never 0, of up to a tenth of the amount."""
    step = draws.between(1, 1 + amount // 10)
    return step if draws.chance(0.55) else -step


def _remove(line: Line) -> None:
    line.is_present = False


def _return(line: Line) -> None:
    line.is_present = True


def _over_assign(line: Line) -> None:
    line.total = max(1, line.total // 2)
    line.consumed = max(line.consumed, line.total + 3)


def _suspend(line: Line) -> None:
    moved = (line.total + 1) // 2
    line.total -= moved
    line.suspended += moved


_LINE_CHANGES = {
    EventKind.SKU_REMOVED: _remove,
    EventKind.SKU_RETURNED: _return,
    EventKind.OVER_ASSIGNED: _over_assign,
    EventKind.SEATS_SUSPENDED: _suspend,
}
