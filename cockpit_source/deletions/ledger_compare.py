"""How the two stores of the ledger differ, and what would make them equal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cockpit_source.deletions.ledger_record import LedgerRecord, StoreContent
from cockpit_source.deletions.ledger_rows import Rows, to_rows

Remedy = Literal["none", "complete", "from_file", "from_warehouse", "by_hand"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`records` are those to be shown, `missing` those that one store lacks and the other can give it.

    `remedy`: "none" where the stores are equal; "complete" where only the last write to the warehouse is missing;
    "from_file" and "from_warehouse" where all of a store is in the other one; "by_hand" where neither is.
    """

    remedy: Remedy
    records: list[LedgerRecord]
    missing: list[LedgerRecord]
    difference: str | None = None


def compare(file: StoreContent, warehouse: StoreContent, rows: Rows) -> Comparison:
    """Hold the stores against each other; `rows` are those of which `warehouse` was read."""
    if not file.problem and not warehouse.problem and file.records == warehouse.records:
        return Comparison("none", warehouse.records, [])
    if not file.problem:
        missing = _missing_in_rows(file.records, rows)
        if missing is not None:
            is_last_write = not warehouse.problem and len(file.records) == len(warehouse.records) + 1
            difference = _describe_missing("the warehouse", warehouse, "the file", file)
            return Comparison("complete" if is_last_write else "from_file", file.records, missing, difference)
    held = len(file.records)
    if not file.problem and not warehouse.problem and warehouse.records[:held] == file.records:
        difference = _describe_missing("the file", file, "the warehouse", warehouse)
        return Comparison("from_warehouse", warehouse.records, warehouse.records[held:], difference)
    return Comparison("by_hand", _longest(file, warehouse), [], _describe_contradiction(file, warehouse))


def _missing_in_rows(records: list[LedgerRecord], rows: Rows) -> list[LedgerRecord] | None:
    """The records of which not every row is stored; None where a row is stored that is of none of them."""
    stored = {name: set(some) for name, some in rows.items()}
    if any(len(stored[name]) < len(some) for name, some in rows.items()):
        return None
    if any(stored[name] - set(expected) for name, expected in to_rows(records).items() if name in stored):
        return None
    return [
        record
        for record in records
        if any(row not in stored.get(name, ()) for name, some in to_rows([record]).items() for row in some)
    ]


def _longest(file: StoreContent, warehouse: StoreContent) -> list[LedgerRecord]:
    return file.records if len(file.records) > len(warehouse.records) else warehouse.records


def _describe_missing(lacking: str, less: StoreContent, having: str, more: StoreContent) -> str:
    if not less.is_there:
        return f"{lacking} does not exist, and {having} holds {_count(more)}"
    if less.problem:
        return f"in {lacking}, {less.problem}; {having} holds all of it, {_count(more)}"
    return f"{lacking} holds {_count(less)}, {having} the same and {len(more.records) - len(less.records)} more"


def _describe_contradiction(file: StoreContent, warehouse: StoreContent) -> str:
    problems = [f"in the file, {file.problem}"] if file.problem else []
    problems += [f"in the warehouse, {warehouse.problem}"] if warehouse.problem else []
    if not problems:
        pairs = zip(file.records, warehouse.records, strict=False)
        first = next((one.seq for one, other in pairs if one != other), None)
        problems = [f"record {first} is another in the file than in the warehouse"]
    return "; ".join(problems)


def _count(content: StoreContent) -> str:
    count = len(content.records)
    return f"{count} record{'' if count == 1 else 's'}"
