"""Which scopes a probe reads: spread over the list by position, of different customers, some with a reseller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cockpit_source.scopes import ListedScope

MAX_SCOPES = 20
MAX_RESOLD = 10
MAX_SIBLINGS = 5


@dataclass(slots=True)
class _Stretch:
    """What a stretch of the list has to offer: its first scope, and the first ones of customers not met before."""

    first: ListedScope
    direct: ListedScope | None = None
    resold: ListedScope | None = None

    def keep(self, listed: ListedScope) -> bool:
        """Keep a scope that is the first of its kind; whether it was."""
        if listed.scope.reseller_id:
            is_first, self.resold = self.resold is None, self.resold or listed
        else:
            is_first, self.direct = self.direct is None, self.direct or listed
        return is_first

    def choose(self, *, prefer_resold: bool) -> ListedScope:
        wanted = (self.resold, self.direct) if prefer_resold else (self.direct, self.resold)
        return wanted[0] or wanted[1] or self.first


def choose_scopes(scopes: Iterable[ListedScope], total: int) -> list[ListedScope]:
    """Up to 20 of the `total` scopes, in the order of the list: one from each of as many stretches of equal length.

    Up to 10 of the stretches give a scope with a reseller where they have one, the others one without.
    """
    stretches = list(_cut(scopes, total))
    with_resold = [number for number, stretch in enumerate(stretches) if stretch.resold]
    wanted = min(MAX_RESOLD, len(with_resold))
    resold = {with_resold[step * len(with_resold) // wanted] for step in range(wanted)}
    return [stretch.choose(prefer_resold=number in resold) for number, stretch in enumerate(stretches)]


def find_siblings(scopes: Iterable[ListedScope], chosen: Iterable[ListedScope]) -> list[ListedScope]:
    """Up to 5 other scopes of the list in the pairs of those chosen with a reseller: the same under another one."""
    taken = {listed.scope_key for listed in chosen}
    pairs = {listed.scope[:2] for listed in chosen if listed.scope.reseller_id}
    siblings: list[ListedScope] = []
    for listed in scopes:
        if listed.scope[:2] in pairs and listed.scope.reseller_id and listed.scope_key not in taken:
            siblings.append(listed)
            if len(siblings) == MAX_SIBLINGS:
                break
    return siblings


def _cut(scopes: Iterable[ListedScope], total: int) -> Iterator[_Stretch]:
    count = min(MAX_SCOPES, total)
    stretch: _Stretch | None = None
    number = -1
    met: set[str] = set()
    for position, listed in enumerate(scopes):
        if position * count // total != number:
            if stretch:
                yield stretch
            stretch, number = _Stretch(listed), number + 1
        assert stretch is not None  # noqa: S101 - the first position begins one
        if listed.scope.customer_id not in met and stretch.keep(listed):
            met.add(listed.scope.customer_id)
    if stretch:
        yield stretch
