"""Microsoft's table "Product names and service plan identifiers for licensing": one line per product and plan.

https://learn.microsoft.com/entra/identity/users/licensing-service-plan-reference links it as CSV (checked
2026-11-24). Ids come in mixed case and with blanks around them, and some ids have several names.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cockpit_source.errors import ConfigurationError
from cockpit_source.reference_csv import Row, find_separator, read_lines
from cockpit_source.transforms import is_uuid

# our name, and Microsoft's as it is compared: letters only, lower case
_COLUMNS = {
    "official_name": "productdisplayname",
    "part_number": "stringid",
    "sku_id": "guid",
    "service_plan_name": "serviceplanname",
    "service_plan_id": "serviceplanid",
    "friendly_name": "serviceplansincludedfriendlynames",
}
_EXPECTED = (
    "Product_Display_Name, String_Id, GUID, Service_Plan_Name, Service_Plan_Id, Service_Plans_Included_Friendly_Names"
)
_LETTERS = re.compile(r"[^a-z]")


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """The rows of `sku_catalog` and `sku_service_plans`, sorted by ids, and how many lines differ from them.

    `unfit_products` are lines whose product has no id, `unfit_plans` those whose plan has none, of a product that
    has; `repeated` tell a product and a plan again, and `renamed` are products with several names.
    """

    products: list[Row]
    plans: list[Row]
    lines: int
    unfit_products: int
    unfit_plans: int
    repeated: int
    renamed: int

    def notes(self) -> list[str]:
        """What was left out or merged, in sentences."""
        told = (
            (self.unfit_products, "lines were left out: their GUID is not one"),
            (self.unfit_plans, "lines name no service plan: their Service_Plan_Id is not a GUID"),
            (self.repeated, "lines tell a product and a service plan again, and were merged"),
            (self.renamed, "products have several names; the others are in other_names"),
        )
        return [f"sku_catalog: {count:,} {what}." for count, what in told if count]


def parse_catalog(content: bytes, where: str) -> CatalogTable:
    """The table in `content`, which is UTF-8 or Windows-1252. `where` is its path or address.

    Raises:
        ConfigurationError: it is not that table.
    """
    text = _decode(content)
    try:
        return _collect(_read_records(text, where), where)
    except csv.Error as error:
        raise _not_the_table(where, f"it is not valid CSV at {error}") from None


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _read_records(text: str, where: str) -> Iterator[dict[str, str]]:
    lines = read_lines(text, find_separator(text))
    _, header = next(lines, (0, []))
    names = [_LETTERS.sub("", cell.lower()) for cell in header]
    missing = [name for name in _COLUMNS.values() if names.count(name) != 1]
    if missing:
        found = ", ".join(header)
        raise _not_the_table(where, f"its first line is {found[:100] or 'missing'}{'...' * (len(found) > 100)}")
    places = {ours: names.index(theirs) for ours, theirs in _COLUMNS.items()}
    for _, cells in lines:
        yield {name: cells[place] if place < len(cells) else "" for name, place in places.items()}


def _not_the_table(where: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} is not Microsoft's table of product names: {reason}. Expected is the CSV of \"Product names and "
        f'service plan identifiers for licensing" with the columns {_EXPECTED}. Correct sku_catalog; nothing was '
        "changed."
    )


class _Names:
    """Spellings of one thing; the most frequent counts, of several the first."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        if name:
            self._counts[name] += 1

    def best(self) -> str | None:
        return max(self._counts, key=self._counts.__getitem__, default=None)

    def others(self) -> list[str]:
        best = self.best()
        return [name for name in self._counts if name != best]


def _collect(records: Iterable[dict[str, str]], where: str) -> CatalogTable:
    names: dict[tuple[str, ...], _Names] = defaultdict(_Names)
    plans: dict[str, set[str]] = {}
    lines = unfit_products = unfit_plans = repeated = 0
    for record in records:
        lines += 1
        sku_id, plan_id = record["sku_id"].lower(), record["service_plan_id"].lower()
        if not is_uuid(sku_id):
            unfit_products += 1
            continue
        of_sku = plans.setdefault(sku_id, set())
        for name in ("official_name", "part_number"):
            names[name, sku_id].add(record[name])
        if not is_uuid(plan_id):
            unfit_plans += 1
            continue
        repeated += plan_id in of_sku
        of_sku.add(plan_id)
        for name in ("service_plan_name", "friendly_name"):
            names[name, sku_id, plan_id].add(record[name])
    if not plans:
        raise _not_the_table(where, "it has no line with the GUID of a product")
    products = [_to_product(sku_id, names, len(plans[sku_id])) for sku_id in sorted(plans)]
    return CatalogTable(
        products,
        [_to_plan(sku_id, plan_id, names) for sku_id in sorted(plans) for plan_id in sorted(plans[sku_id])],
        lines,
        unfit_products,
        unfit_plans,
        repeated,
        sum(product["other_names"] is not None for product in products),
    )


def _to_product(sku_id: str, names: dict[tuple[str, ...], _Names], service_plans: int) -> Row:
    official = names["official_name", sku_id]
    others = official.others()
    return {
        "sku_id": sku_id,
        "part_number": names["part_number", sku_id].best(),
        "official_name": official.best(),
        "other_names": json.dumps(others, ensure_ascii=False) if others else None,
        "service_plans": service_plans,
    }


def _to_plan(sku_id: str, plan_id: str, names: dict[tuple[str, ...], _Names]) -> Row:
    return {
        "sku_id": sku_id,
        "service_plan_id": plan_id,
        "service_plan_name": names["service_plan_name", sku_id, plan_id].best(),
        "friendly_name": names["friendly_name", sku_id, plan_id].best(),
    }
