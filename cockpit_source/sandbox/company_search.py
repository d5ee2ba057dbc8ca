"""Search and order of the lists of companies: customers and resellers take the same parameters."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from cockpit_source.sandbox.query import REQUIRED, Query
from cockpit_source.sandbox.tenant import Customer, Reseller

NAME_FIELD = "Company.Name"
T = TypeVar("T", Customer, Reseller)


class CompanySearch:
    """What is searched in which field, and whether the rows are sorted by name."""

    def __init__(self, query: Query, fields: Sequence[str]) -> None:
        """Reads the parameters; `fields` are those that can be searched."""
        self._searched = query.text("searchValue", longest=255).casefold()
        field = query.choice("searchField", fields)
        if field and not self._searched:
            query.refuse("searchValue", REQUIRED)
        self._field = field or NAME_FIELD
        self._is_sorted = bool(query.choice("sortPropertyName", (NAME_FIELD,)))
        self._ascending = query.flag("ascendingOrder", default=True)

    def arrange(self, rows: Iterable[T], texts: Callable[[T, str], Iterable[str]]) -> list[T]:
        """The rows found, in order; `texts` gives what a row holds in a field other than the name."""
        found = [row for row in rows if self._matches(row, texts)] if self._searched else list(rows)
        if self._is_sorted:
            found.sort(key=lambda row: (row.company_name.casefold(), row.id))
        return found if self._ascending else found[::-1]

    def _matches(self, row: T, texts: Callable[[T, str], Iterable[str]]) -> bool:
        held = [row.company_name] if self._field == NAME_FIELD else texts(row, self._field)
        return any(self._searched in text.casefold() for text in held)
