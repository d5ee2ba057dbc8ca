"""The list of customers that are never deleted: a text file that people keep and review."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cockpit_source.deletions.records import hash_text, to_canonical
from cockpit_source.errors import ConfigurationError
from cockpit_source.transforms import is_uuid


@dataclass(frozen=True, slots=True)
class ProtectedCustomers:
    """Ids (lower case) and patterns of names, in which `*` and `?` stand for any text and any character."""

    ids: frozenset[str]
    patterns: tuple[str, ...]

    def find(self, customer_id: str, names: Iterable[str | None]) -> str | None:
        """The entry that protects a customer of this id or one of these names; None when none does."""
        if customer_id.lower() in self.ids:
            return customer_id.lower()
        folded = [" ".join(name.casefold().split()) for name in names if name]
        for pattern in self.patterns:
            if any(fnmatch.fnmatchcase(name, pattern.casefold()) for name in folded):
                return pattern
        return None

    @property
    def content_hash(self) -> str:
        """SHA-256 over the entries, for the plan."""
        return hash_text(to_canonical([sorted(self.ids), sorted(self.patterns)]))


def read_protected(path: Path) -> ProtectedCustomers:
    """The entries of a UTF-8 text file: one customer id or name pattern a line, without blank lines and `#` lines.

    Raises:
        ConfigurationError: the file is not there or cannot be read. An empty one is a list without entries.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"The list of protected customers {path} cannot be read: {reason}. Write one customer id or name pattern "
            "a line; an empty file protects nobody. It is set as protected_file under [sources.cockpit.deletions]."
        ) from None
    entries = [" ".join(line.split()) for line in lines if line.strip() and not line.strip().startswith("#")]
    return ProtectedCustomers(
        frozenset(entry.lower() for entry in entries if is_uuid(entry)),
        tuple(entry for entry in entries if not is_uuid(entry)),
    )
