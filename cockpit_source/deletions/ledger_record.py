"""One record of the ledger, its text, and its place in the chain of hashes.

A record names the hash of the one before it, so none can be changed, left out, doubled or moved without breaking the
chain. Its text is the same wherever it was read from; a text that says the same in another way is not taken for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from cockpit_source.deletions.records import hash_text, to_canonical

Kind = Literal[
    "plan",
    "selection",
    "apply_started",
    "already_absent",
    "intent",
    "outcome",
    "settled",
    "blocked",
    "stopped",
    "finished",
    "mended",
    "moved",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

# what the first record names as the one before it
FIRST_HASH = "0" * 64
_LARGEST_ITEM = 2**31 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# PostgreSQL has no U+0000, and UTF-8 no lone surrogates
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NAMES = (
    "seq",
    "kind",
    "at",
    "plan_id",
    "item",
    "actor",
    "correlation_id",
    "body",
    "previous_hash",
)


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """A record. `seq` counts from 1, `at` is UTC, `item` is the number in the plan, None for what concerns all of it.

    `record_hash` is the SHA-256 of the text of the other members.
    """

    seq: int
    kind: str
    at: datetime
    plan_id: str | None
    item: int | None
    actor: str
    correlation_id: str | None
    body: Mapping[str, Any]
    previous_hash: str
    record_hash: str

    def to_text(self) -> str:
        """The record as canonical JSON, in one line."""
        return to_text(self._members() | {"record_hash": self.record_hash})

    def compute_hash(self) -> str:
        """What `record_hash` has to be."""
        return hash_text(to_text(self._members()))

    def _members(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NAMES}


@dataclass(frozen=True, slots=True)
class StoreContent:
    """What a store of records holds: the first of them, as far as they are whole, and what is wrong after those.

    `is_there` is False where the store does not exist.
    """

    records: list[LedgerRecord]
    problem: str | None = None
    is_there: bool = True


def make_record(
    previous: LedgerRecord | None,
    kind: str,
    *,
    at: datetime,
    actor: str,
    body: Mapping[str, Any],
    plan_id: str | None = None,
    item: int | None = None,
    correlation_id: str | None = None,
) -> LedgerRecord:
    """The record that follows `previous`; None: the first.

    Raises:
        ValueError: it could not be stored, or not be rebuilt from the tables.
        TypeError: the body has no JSON.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of record")
    if at.tzinfo is None:
        raise ValueError("the time has no zone")
    if item is not None and not _is_number(item):
        raise ValueError(f"{item!r} is not the number of an item")
    if not isinstance(actor, str):
        raise TypeError("the actor is no text")
    body = read_json(to_text(body))
    if kind == "plan":
        _check_plan(plan_id, item, correlation_id, body)
    members: dict[str, Any] = {
        "seq": previous.seq + 1 if previous else 1,
        "kind": kind,
        "at": at.astimezone(UTC),
        "plan_id": clean(plan_id),
        "item": item,
        "actor": clean(actor),
        "correlation_id": clean(correlation_id),
        "body": body,
        "previous_hash": previous.record_hash if previous else FIRST_HASH,
    }
    return LedgerRecord(**members, record_hash=hash_text(to_text(members)))


def read_record(text: str) -> LedgerRecord:
    """The record of which this is the text.

    Raises:
        ValueError: it is not the text of a record, to the letter.
    """
    try:
        members = read_json(text)
        if set(members) != {*_NAMES, "record_hash"}:
            raise ValueError("it has other members than a record")
        record = LedgerRecord(**members | {"at": datetime.fromisoformat(members["at"])})
        written = record.to_text()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"it is not a record: {error}") from None
    if written != text:
        raise ValueError("it is not written as records are")
    return record


def find_break(record: LedgerRecord, previous: LedgerRecord | None) -> str | None:
    """Why `record` cannot follow `previous` (None: be the first), or None where it can."""
    expected = previous.seq + 1 if previous else 1
    if record.seq != expected:
        return f"record {expected} is missing" if record.seq > expected else f"record {record.seq} comes again"
    if record.previous_hash != (previous.record_hash if previous else FIRST_HASH):
        return f"record {record.seq} does not continue the chain of hashes"
    if record.record_hash != record.compute_hash():
        return f"record {record.seq} was changed: its hash is another"
    return None


def clean(text: str | None) -> str | None:
    """`text` with what a warehouse cannot store replaced."""
    return None if text is None else _UNSTORABLE.sub("\ufffd", text)


def to_text(value: Any) -> str:
    """Canonical JSON that UTF-8 can hold: a lone surrogate is written as an escape.

    Raises:
        ValueError: a number is not finite.
    """
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", to_canonical(value))


def read_json(text: str) -> dict[str, Any]:
    """The JSON object of a text.

    Raises:
        ValueError: it is none.
    """
    value = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _check_plan(plan_id: str | None, item: int | None, correlation_id: str | None, body: Mapping[str, Any]) -> None:
    if plan_id is None or item is not None or correlation_id is not None:
        raise ValueError("a plan has an id, no item and no correlation id")
    if set(body) != {"plan", "plan_hash"} or not isinstance(body["plan"], dict):
        raise ValueError("the body of a plan holds plan and plan_hash")
    if not isinstance(body["plan_hash"], str) or clean(body["plan_hash"]) != body["plan_hash"]:
        raise ValueError("the hash of a plan is plain text")
    items = body["plan"].get("items", [])
    numbers = [item.get("number") if isinstance(item, dict) else None for item in _as_list(items)]
    if not all(_is_number(number) for number in numbers):
        raise ValueError("an item of the plan has no number")
    if len(set(numbers)) < len(numbers):
        raise ValueError("two items of the plan have the same number")


def _is_number(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_ITEM


def _as_list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ValueError("the items of a plan are a list")
    return value
