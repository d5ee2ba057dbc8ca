"""The list of customers that are never deleted: a text file that people keep and review."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cockpit_source.deletions.records import hash_text, to_canonical
from cockpit_source.errors import ConfigurationError
from cockpit_source.transforms import is_uuid

# with or without its hyphens
_ID_WITHIN = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ProtectedCustomers:
    """Ids (lower case) and patterns of names, in which `*` and `?` stand for any text and any character.

    A pattern is held against the whole name; case, the way an accent is encoded, and the number of blanks do not
    matter.
    """

    ids: frozenset[str]
    patterns: tuple[str, ...]

    def find(self, customer_id: str, names: Iterable[str | None]) -> str | None:
        """The entry that protects a customer of this id or one of these names; None when none does."""
        if customer_id.lower() in self.ids:
            return customer_id.lower()
        folded = [_fold(name) for name in names if name]
        for pattern in self.patterns:
            glob = _to_glob(pattern)
            if any(fnmatch.fnmatchcase(name, glob) for name in folded):
                return pattern
        return None

    def find_unmatched(self, customers: Iterable[tuple[str, str | None]]) -> list[str]:
        """The entries that fit none of these customers (id, name); patterns first."""
        ids, patterns = set(self.ids), {pattern: _to_glob(pattern) for pattern in self.patterns}
        for customer_id, name in customers:
            ids.discard(customer_id.lower())
            folded = _fold(name) if name and patterns else ""
            for pattern in [p for p, glob in patterns.items() if folded and fnmatch.fnmatchcase(folded, glob)]:
                del patterns[pattern]
        return [*patterns, *sorted(ids)]

    @property
    def content_hash(self) -> str:
        """SHA-256 over the entries, for the plan."""
        return hash_text(to_canonical([sorted(self.ids), sorted(self.patterns)]))


def read_protected(path: Path) -> ProtectedCustomers:
    """The entries of a UTF-8 text file: one customer id or name pattern a line, without blank lines and `#` lines.

    After an id, `#` begins a remark; names may hold that character.

    Raises:
        ConfigurationError: the file is not there or cannot be read, or a line holds an id and something else, which
            would protect nobody. An empty file is a list without entries.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"The list of protected customers {path} cannot be read: {reason}. Write one customer id or name pattern "
            "a line; an empty file protects nobody. It is set as protected_file under [sources.cockpit.deletions]."
        ) from None
    ids, patterns = set(), []
    for number, line in enumerate(lines, start=1):
        entry = " ".join(line.split())
        id_alone = entry.partition("#")[0].strip()
        if is_uuid(id_alone):
            ids.add(id_alone.lower())
        elif _ID_WITHIN.search(entry) and not entry.startswith("#"):
            raise ConfigurationError(
                f"Line {number} of the list of protected customers {path} holds an id and something else: {entry}. "
                "Write the id alone, with its hyphens; a remark may follow after #."
            )
        elif entry and not entry.startswith("#"):
            patterns.append(entry)
    return ProtectedCustomers(frozenset(ids), tuple(patterns))


def _to_glob(pattern: str) -> str:
    # [ is a character like others: names hold it
    return _fold(pattern).replace("[", "[[]")


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())
