"""The drop guard: scopes that lost all licences in one run, let through together or held back together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cockpit_source.scope_list import ScopeList
from cockpit_source.settings import Settings

QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class DropGuard:
    """Holds drops back that exceed `max_scopes`, `max_percent` of the scopes that held licences, and `accepted`.

    `accepted` is what the person who runs the load has looked at (`--accept-drop`). A guard that is not `final` is
    that of a shard, which knows only a part of the list: it holds all drops back for the run that ends the shards.
    """

    max_scopes: int
    max_percent: float
    accepted: int = 0
    is_final: bool = True

    @classmethod
    def of(cls, settings: Settings, accepted: int = 0) -> DropGuard:
        return cls(settings.max_drop_scopes, settings.max_drop_percent, accepted)

    @classmethod
    def of_shard(cls) -> DropGuard:
        return cls(0, 0.0, is_final=False)

    def holds_back(self, count: int, holding: int) -> bool:
        """Whether `count` drops are too many where `holding` scopes of the list held licences."""
        if not self.is_final:
            return count > 0
        return count > self.max_scopes and 100 * count > self.max_percent * holding and count > self.accepted


@dataclass(frozen=True, slots=True)
class Drops:
    """What a run would take away, and whether the guard lets it.

    `emptied` scopes held licences when the run began and read empty, `unlisted` ones held licences and left the full
    list, `holding` ones of the list held licences.
    """

    guard: DropGuard
    emptied: int
    unlisted: int
    holding: int

    @property
    def are_held_back(self) -> bool:
        return self.guard.holds_back(self.emptied + self.unlisted, self.holding)

    @property
    def are_guarded(self) -> bool:
        """Whether they are held back because they are too many."""
        return self.are_held_back and self.guard.is_final

    @property
    def waiting(self) -> int:
        """Emptied scopes of a shard, about which the run that ends the shards decides."""
        return 0 if self.guard.is_final else self.emptied

    def describe(self) -> str:
        """What was held back, why, and how to accept it."""
        count = self.emptied + self.unlisted
        kinds = (
            (self.emptied, f"{self.emptied} that now read empty"),
            (self.unlisted, f"{self.unlisted} that left the list"),
        )
        share = f"{100 * count / self.holding:.1f} % of the {self.holding}" if self.holding else "against none"
        accepted = self.guard.accepted
        too_few = f" --accept-drop {accepted} is less than that." if accepted else ""
        return (
            f"The drop guard held back {count} scopes that held licences: "
            f"{' and '.join(text for number, text in kinds if number)} ({share} of this list that held licences; let "
            f"through without a question: up to {self.guard.max_scopes} scopes or {self.guard.max_percent:g} %)."
            f"{too_few} Their rows stay as they were; the others are loaded. Look at them (`cockpit status`, outcome "
            f"quarantined); if they are right, `cockpit load --accept-drop {count}` lets them through, with the "
            "other options of this load, and of several tenants with --tenant NAME."
        )


def count_drops(guard: DropGuard, scope_list: ScopeList, held_batches: Sequence[Path], *, full_list: bool) -> Drops:
    """The drops of a run, from its scope list and the batches of emptied scopes in its spool."""
    emptied = sum(
        int(pc.sum(pc.equal(pq.read_table(path, columns=["outcome"])["outcome"], "empty")).as_py() or 0)
        for path in held_batches
    )
    unlisted = scope_list.count_unlisted_holding() if full_list else 0
    return Drops(guard, emptied, unlisted, scope_list.count_holding())


def mark_emptied(batch: pa.Table) -> pa.ChunkedArray:
    """Of each row, as in the spool, whether the scope held licences when the run began and reads empty now."""
    held_before = pc.fill_null(pc.struct_field(batch["prior"], "held_licenses"), 0)
    return pc.and_(pc.equal(batch["outcome"], "empty"), pc.greater(held_before, 0))


def quarantine(batch: pa.Table, drops: Drops) -> pa.Table:
    """`batch`, rows as in the spool, with its emptied scopes held back; what held nothing before stays empty."""
    is_emptied = mark_emptied(batch)
    held = pc.cast(pc.struct_field(batch["prior"], "held_licenses"), pa.string())
    until = "" if drops.guard.is_final else "; the run that ends the shards decides"
    description = pc.binary_join_element_wise(
        "the answer was empty, and the scope held ", held, f" licence rows{until}", ""
    )
    for name, value in (("outcome", QUARANTINED), ("error_type", "drop_guard"), ("error_description", description)):
        batch = _replace(batch, name, pc.if_else(is_emptied, value, batch[name]))
    return batch


def _replace(batch: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    index = batch.schema.get_field_index(name)
    return batch.set_column(index, batch.schema.field(name), column)
