"""One page of a page list, and the walk over all of them.

The envelope: https://developer.cloudcockpit.com/operation/operation-get-v1-customers (checked 2026-11-24 against the
project's contract notes): items or null, totalCount, hasNextPage. What happens to rows that change while pages are
read is not documented, so one walk proves nothing about completeness; see `discovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cockpit_source.answers import Answer
from cockpit_source.errors import UnusableAnswer

# at 2000 rows a page, 20 million rows; beyond that the API is taken to repeat itself
_MAX_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page. `total_count` is the API's number of rows over all pages, None where it gives none."""

    items: list[Any]
    has_next: bool
    total_count: int | None


def read_page(answer: Answer) -> Page:
    """The page that `answer` holds; a bare array is taken as the only one.

    Raises:
        UnusableAnswer: it is not a page.
    """
    body = answer.body
    if isinstance(body, list):
        return Page(body, False, None)
    items = body.get("items", ()) if isinstance(body, dict) else ()
    has_next = body.get("hasNextPage") if isinstance(body, dict) else None
    if not isinstance(items, list | None) or not isinstance(has_next, bool):
        raise UnusableAnswer("wrong_shape", "the answer is not a page with items and hasNextPage", answer.call)
    total = body.get("totalCount")
    return Page(items or [], has_next, total if isinstance(total, int) and not isinstance(total, bool) else None)


def iter_pages(get_page: Callable[[int], Answer]) -> Iterator[Page]:
    """All pages, from number 1 until one says that none follows.

    Raises:
        ApiError: a page could not be read, or the API gives one page again and again.
    """
    previous: list[Any] = []
    for number in range(1, _MAX_PAGES + 1):
        answer = get_page(number)
        page = read_page(answer)
        if page.has_next and (not page.items or page.items == previous):
            what = "repeats the one before it" if page.items else "is empty, but another is said to follow"
            raise UnusableAnswer("endless_listing", f"page {number} {what}", answer.call)
        yield page
        if not page.has_next:
            return
        previous = page.items
    raise UnusableAnswer("endless_listing", f"the listing has more than {_MAX_PAGES} pages", answer.call)
