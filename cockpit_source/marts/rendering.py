"""Writes out the SELECTs of the marts as dbt does: `source`, `ref`, `var`, `target` and the macros of the package."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import SimpleNamespace
from typing import Literal

from jinja2 import Environment, StrictUndefined

Dialect = Literal["duckdb", "postgres"]

_SEED = "free_skus"
# in this order: the second calls the first
_MACROS = ("dialect", "rules")


@dataclass(frozen=True, slots=True)
class Mart:
    """One view: its name, and its SELECT with tables and views named as `naming` says."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class MartOptions:
    """What the SELECTs depend on.

    `reseller_scopes`: whether several scopes of one customer hold the "same" licences, of which one is counted, or
    "parts" that add up. `as_of` (with a time zone) is taken as now; None: the clock of the database.
    """

    dialect: Dialect = "duckdb"
    reseller_scopes: Literal["same", "parts"] = "same"
    as_of: datetime | None = None


_DEFAULTS = MartOptions()


class _Renderer:
    """Renders templates of the package; `found` holds the views that the last one names."""

    def __init__(
        self, options: MartOptions, naming: Callable[[str], str], variables: Mapping[str, str] | None = None
    ) -> None:
        self.found: set[str] = set()
        self._naming = naming
        moment = options.as_of
        values = {
            **(variables or {}),
            "reseller_scopes": options.reseller_scopes,
            "as_of": "" if moment is None else moment.isoformat(),
        }
        # SQL for the user's own database: nothing here is HTML
        self._environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
        names = self._environment.globals
        names |= {
            "source": lambda _, name: naming(name),
            "ref": self._ref,
            "var": values.get,
            "target": SimpleNamespace(type=options.dialect),
        }
        for name in _MACROS:
            text = _folder().joinpath("macros", f"{name}.sql").read_text("utf-8")
            macros = vars(self._environment.from_string(text).module)
            names |= {name: macro for name, macro in macros.items() if not name.startswith("_")}

    def render(self, template: str) -> str:
        self.found = set()
        return self._environment.from_string(template).render().strip()

    def _ref(self, name: str) -> str:
        self.found.add(name)
        return self._naming(name)


def render_marts(options: MartOptions, naming: Callable[[str], str]) -> list[Mart]:
    """The views in an order in which they can be created. `naming` makes a name of the dataset out of a plain one."""
    renderer = _Renderer(options, naming)
    sql: dict[str, str] = {}
    needs: dict[str, set[str]] = {}
    for name, template in _models().items():
        sql[name] = renderer.render(template)
        needs[name] = renderer.found - {_SEED}
    return [Mart(_SEED, _seed_sql()), *(Mart(name, sql[name]) for name in _in_order(needs))]


def seat_changes_sql(
    from_date: date, to_date: date, options: MartOptions = _DEFAULTS, naming: Callable[[str], str] = str
) -> str:
    """One SELECT with the columns of `fct_seat_changes` between any two UTC days of `fct_daily_inventory`.

    `naming` makes a name of the dataset out of a plain one; by default it stays plain, as after `USE cockpit`.
    """
    days = {"from_date": from_date.isoformat(), "to_date": to_date.isoformat()}
    template = _folder().joinpath("analyses", "seat_changes_between.sql").read_text("utf-8")
    return _Renderer(options, naming, days).render(template)


def is_public(name: str) -> bool:
    """Whether a view is meant for readers; the others only serve those."""
    return not name.startswith("int_")


def _folder() -> Traversable:
    return files("cockpit_source.marts").joinpath("dbt")


@cache
def _models() -> dict[str, str]:
    found = _folder().joinpath("models").iterdir()
    return {f.name.removesuffix(".sql"): f.read_text("utf-8") for f in found if f.name.endswith(".sql")}


@cache
def _seed_sql() -> str:
    """The seed as a SELECT of its own, so that it needs no table."""
    text = _folder().joinpath("seeds", f"{_SEED}.csv").read_text("utf-8")
    columns, *rows = csv.reader(text.splitlines())
    values = ",\n    ".join("(" + ", ".join(_literal(value) for value in row) + ")" for row in rows)
    names = ", ".join(columns)
    return f"select {names}\nfrom (values\n    {values}\n) seed ({names})"


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _in_order(needs: Mapping[str, set[str]]) -> Iterator[str]:
    done: set[str] = set()
    while len(done) < len(needs):
        ready = [name for name in sorted(needs) if name not in done and needs[name] <= done]
        if not ready:
            raise ValueError(f"the marts {sorted(set(needs) - done)} name each other, or a view that is not there")
        yield from ready
        done.update(ready)
