"""The page envelope that every list but the bare arrays has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response

from cockpit_source.sandbox.answers import json_answer
from cockpit_source.sandbox.query import Query

T = TypeVar("T")
LARGEST_PAGE = 2000
_LAST_NUMBER = 999_999_999


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for: `number` from 1, `size` in rows."""

    number: int
    size: int


def read_page(query: Query) -> PageRequest:
    """The page that the query asks for; the first 25 rows when it asks for none."""
    number = query.integer("pageNumber", default=1, low=1, high=_LAST_NUMBER)
    return PageRequest(number, query.integer("pageSize", default=25, low=1, high=LARGEST_PAGE))


def page_answer(page: PageRequest, rows: Sequence[T], as_item: Callable[[T], dict[str, Any]]) -> Response:
    """One page of `rows`; only its own rows are made into items. A page after the last is empty."""
    first = (page.number - 1) * page.size
    total_pages = -(-len(rows) // page.size)
    return json_answer(
        {
            "items": [as_item(row) for row in rows[first : first + page.size]],
            "paginationParameters": {"pageNumber": page.number, "pageSize": page.size},
            "totalPages": total_pages,
            "totalCount": len(rows),
            "hasPreviousPage": page.number > 1,
            "hasNextPage": page.number < total_pages,
            "continuationToken": None,
        }
    )
