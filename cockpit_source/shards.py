"""Shards: parts of a scope list that processes load side by side, told apart by a hash of the scope's key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa

from cockpit_source.errors import ConfigurationError

# every layout of shards is made of these, so that two layouts know where they overlap
BUCKETS = 64
# what `--shard` calls the run that ends a sharded one
FINISH = "finish"

_SPELLING = re.compile(r"(\d{1,3})/(\d{1,3})\Z")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 1) of `count`; written as `3/16`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def buckets(self) -> tuple[int, ...]:
        """The buckets that the shard is made of."""
        return tuple(range(self.index - 1, BUCKETS, self.count))

    def holds(self, scope_key: str) -> bool:
        """Whether the scope belongs to the shard."""
        return bucket_of(scope_key) % self.count == self.index - 1

    def select(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """`tables`, which have a column `scope_key`, with the rows of the shard only."""
        for table in tables:
            yield table.filter(pa.array([self.holds(key) for key in table["scope_key"].to_pylist()], pa.bool_()))


def parse_shard(text: str) -> Shard:
    """The shard that `text` names, such as `3/16`.

    Raises:
        ConfigurationError: it names none.
    """
    found = _SPELLING.match(text.strip())
    index, count = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= index <= count <= BUCKETS:
        raise ConfigurationError(
            f"--shard {text!r} does not fit. Valid: I/N with I from 1 to N and N up to {BUCKETS}, such as 3/16; "
            f"or {FINISH}, once all shards have ended."
        )
    return Shard(index, count)


def bucket_of(scope_key: str) -> int:
    """The bucket of a scope, from 0; the same on every machine and in every version."""
    return int.from_bytes(blake2b(scope_key.encode(), digest_size=8).digest(), "big") % BUCKETS


def overlap(one: str | None, other: str | None) -> bool:
    """Whether two runs may read the same scope, by their shards as in `runs`; None and `finish`: the whole list."""
    whole = (None, FINISH)
    if one in whole or other in whole:
        return True
    mine, others = parse_shard(str(one)), parse_shard(str(other))
    return bool(set(mine.buckets) & set(others.buckets))
