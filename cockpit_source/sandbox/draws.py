"""Random draws that come out the same on every machine and Python version."""

import random
from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


class Draws:
    """Draws for one key, such as a customer. Different keys do not influence each other.

    Only `Random.random` is used: it is the one method whose sequence Python promises to keep.
    """

    def __init__(self, *key: object) -> None:
        self.fraction = random.Random("|".join(map(str, key))).random

    def chance(self, probability: float) -> bool:
        """True with the given probability, 0 to 1."""
        return self.fraction() < probability

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.fraction() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self.fraction() * len(items))]

    def pick_early(self, items: Sequence[T]) -> T:
        """One of the items, the first ones more likely."""
        return items[self.early_index(len(items))]

    def early_index(self, count: int) -> int:
        """An index below `count`, small ones more likely."""
        fraction = self.fraction()
        return int(fraction * fraction * count)


def derived_id(*key: object) -> str:
    """A UUID, lower case, that depends on nothing but the key."""
    digest = sha256("|".join(map(str, key)).encode()).digest()
    return str(UUID(bytes=digest[:16], version=4))
