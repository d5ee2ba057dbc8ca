"""Discovery: every customer that the API lists, in every Microsoft provider instance in which it exists.

Rows can move from page to page while a listing is read, so a listing of several pages is read again until two walks
in a row saw the same ids, as many as the API says there are. Only then it is complete, and only a complete listing
delists or marks anything as removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from cockpit_source.answers import Answer
from cockpit_source.client import CockpitClient
from cockpit_source.errors import ApiError
from cockpit_source.listing_rows import (
    UnfitObject,
    has_active_gdap,
    iter_scopes,
    to_customer,
    to_gdap_relationship,
    to_provider_instance,
    to_reseller,
)
from cockpit_source.listing_store import ListingStore, prior_columns
from cockpit_source.pagination import iter_pages
from cockpit_source.scopes import Scope
from cockpit_source.settings import Settings
from cockpit_source.tables import CUSTOMERS, GDAP_RELATIONSHIPS, LISTED_TABLES, PROVIDER_INSTANCES, RESELLERS, Table
from cockpit_source.transforms import find_items
from cockpit_source.wording import plural

MAX_WALKS = 6

_GDAP_AT_ONCE = 500

Say = Callable[[str], None]
# table and columns -> what the warehouse holds of the tenant
ReadPrior = Callable[[str, Iterable[str]], Iterator[pa.Table]]


@dataclass(slots=True)
class Discovery:
    """What was found. `problem` says why the customer listing is not complete, None when it is.

    `gdap_pairs` is a Parquet file of the pairs whose relationships were read, None when they were not asked for.
    """

    problem: str | None = None
    customers: int = 0
    scopes: int = 0
    left_out: list[str] = field(default_factory=list)
    gdap_pairs: Path | None = None

    def describe(self) -> str:
        """One sentence for the log."""
        left_out = f" Left out: {', '.join(self.left_out)}." if self.left_out else ""
        return f"Discovered {self.customers} customers in {self.scopes} scopes.{left_out}"


class Discoverer:
    """Reads the listings into `store`. `note` is told what the user should know, `show_stage` what is being done."""

    def __init__(
        self, client: CockpitClient, settings: Settings, store: ListingStore, note: Say, show_stage: Say
    ) -> None:
        self._client = client
        self._settings = settings
        self._store = store
        self._note = note
        self._show_stage = show_stage
        self._unfit: Counter[str] = Counter()
        self._unfinished_entries = 0

    def discover(self, folder: Path, read_prior: ReadPrior, moment: datetime) -> Discovery:
        """Read all listings; write the files of `read_listed` into `folder`. `moment` dates what is new or gone.

        Raises:
            SignInError: no usable token.
        """
        found = Discovery()
        problems = {
            PROVIDER_INSTANCES: self._read(PROVIDER_INSTANCES, self._client.list_provider_instances),
            RESELLERS: self._read(RESELLERS, self._client.list_resellers),
            CUSTOMERS: self._read(CUSTOMERS, self._client.list_customers),
        }
        found.problem = problems[CUSTOMERS]
        for table, problem in problems.items():
            if problem is not None:
                self._note(f"The {_to_words(table)} could not be listed to the end: {problem}")
        found.left_out = self._leave_out()
        found.customers, found.scopes = self._store.customer_count(), self._store.scope_count()
        if self._settings.gdap_relationships:
            self._read_gdap()
            found.gdap_pairs = folder / "gdap_pairs.parquet"
            self._store.write_gdap_pairs(found.gdap_pairs)
        for table in LISTED_TABLES:
            self._store.write(
                table,
                folder / f"{table.name}.parquet",
                read_prior(table.name, prior_columns(table)),
                moment,
                is_complete=problems.get(table, "") is None,
                contact_data=self._settings.contact_data,
            )
        return found

    def _read(self, table: Table, list_page: Callable[[int, int], Answer]) -> str | None:
        """Walk over a listing until it is complete; why it is not, or None."""
        problem = None
        for walk in range(MAX_WALKS):
            self._unfit.clear()
            self._show_stage(f"listing {_to_words(table)}{f', walk {walk + 1}' if walk else ''}")
            try:
                pages, total = self._walk(table, list_page, walk)
            except ApiError as error:
                self._store.keep_latest(table)
                return error.summary
            seen = self._store.count(table, walk)
            problem = self._judge(table, walk, pages, seen, total)
            if problem is None:
                self._store.forget_before(table, walk)
                break
            if self._unfit and (walk or pages == 1):
                # another walk would meet the same entries
                break
        self._store.keep_latest(table)
        return problem

    def _judge(self, table: Table, walk: int, pages: int, seen: int, total: int | None) -> str | None:
        if self._unfit:
            reason, count = self._unfit.most_common(1)[0]
            return f"{self._unfit.total()} of its entries cannot be used ({count} times: {reason})"
        if total is not None and total != seen:
            return f"the API counts {total}, but lists {seen}"
        if pages > 1 and not (walk and self._store.is_same(table, walk, walk - 1)):
            return "it kept changing while it was read"
        return None

    def _walk(self, table: Table, list_page: Callable[[int, int], Answer], walk: int) -> tuple[int, int | None]:
        """Read all pages once; how many there were, and how many rows the last one counts."""
        pages, total = 0, None
        self._unfinished_entries = 0
        for page in iter_pages(lambda number: list_page(number, self._settings.page_size)):
            pages, total = pages + 1, page.total_count
            self._store.add(table, [row for item in page.items if (row := self._to_row(table, item))], walk)
            if table is CUSTOMERS:
                scopes = [scope for item in page.items for scope in self._to_scopes(item)]
                self._store.add_scopes(scopes, walk)
            self._show_stage(f"listing {_to_words(table)}: {self._store.count(table, walk)}")
        return pages, total

    def _to_row(self, table: Table, item: Any) -> Mapping[str, Any] | None:
        contact_data = self._settings.contact_data
        try:
            if table is PROVIDER_INSTANCES:
                return to_provider_instance(item)
            return (to_customer if table is CUSTOMERS else to_reseller)(item, contact_data=contact_data)
        except UnfitObject as error:
            self._unfit[str(error)] += 1
            return None

    def _to_scopes(self, item: Any) -> list[Scope]:
        if not isinstance(item, dict):
            return []
        scopes: list[Scope] = []
        try:
            for scope in iter_scopes(item):
                if scope is None:
                    self._unfinished_entries += 1
                else:
                    scopes.append(scope)
        except UnfitObject as error:
            self._unfit[str(error)] += 1
        return scopes

    def _leave_out(self) -> list[str]:
        excluded = self._store.excluded_instances()
        deleted, scopes = self._store.leave_out([instance_id for instance_id, _ in excluded])
        aliases = ", ".join(alias for _, alias in excluded)
        unfinished = self._unfinished_entries
        parts = {
            plural(deleted, "deleted customer"): deleted,
            f"{plural(unfinished, 'entry', 'entries')} without a customer id at the provider": unfinished,
            f"{plural(scopes, 'scope')} of provider instances that are not Microsoft's ({aliases})": scopes,
        }
        return [text for text, count in parts.items() if count]

    def _read_gdap(self) -> None:
        pairs = self._store.iter_pairs()
        read = failed = 0
        self._show_stage("reading GDAP relationships")
        with ThreadPoolExecutor(self._settings.max_concurrency, thread_name_prefix="gdap") as pool:
            while some := list(islice(pairs, _GDAP_AT_ONCE)):
                answers = list(zip(some, pool.map(self._read_gdap_pair, some), strict=True))
                self._store.add(GDAP_RELATIONSHIPS, [row for _, rows in answers for row in rows or ()])
                self._store.add_gdap_pairs(
                    (*pair, has_active_gdap(rows)) for pair, rows in answers if rows is not None
                )
                read += len(some)
                failed += sum(rows is None for _, rows in answers)
                if failed == read:
                    self._note("Reading GDAP relationships was given up: none could be read.")
                    break
                self._show_stage(f"reading GDAP relationships: {read}")
        self._store.keep_latest(GDAP_RELATIONSHIPS)
        if failed:
            self._note(f"The GDAP relationships of {failed} scopes could not be read; what was known of them stays.")

    def _read_gdap_pair(self, pair: tuple[str, str]) -> list[dict[str, Any]] | None:
        """All relationships of a customer in a provider instance; None when they could not be read."""
        try:
            items = find_items(self._client.list_delegated_admin_relationships(*pair).body)
            return None if items is None else [to_gdap_relationship(item, *pair) for item in items]
        except (ApiError, UnfitObject):
            return None


def _to_words(table: Table) -> str:
    return table.name.replace("_", " ")
