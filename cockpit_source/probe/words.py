"""How a probe says what it found: findings, verdict words, and what of the API's own words may be shown.

Nothing that the API sent is shown as it is, except names of members and headers that look like ones, and the values
of a few enumerations. `Redactor` looks over everything once more for what is known to be private.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cockpit_source.probe.observations import json_type
from cockpit_source.redaction import REPLACEMENT, redact

NOT_SEEN = "not seen"
MAX_NAMES = 20

Evidence = dict[str, Any]

_MEMBER_NAME = re.compile(r"(?:@odata\.)?[A-Za-z_$][A-Za-z0-9_$-]{0,39}\Z")
_ENUM_VALUE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,29}\Z")
_MANY_DIGITS = re.compile(r"(?:\d.*){5}")
_MAX_SHAPE = 40
# shorter texts would meet our own words
_MIN_PRIVATE = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer to one question: a word or a few, and the counts behind it (JSON values)."""

    topic: str
    question: str
    verdict: str
    evidence: Evidence


def judge(hits: int, seen: int) -> str:
    """How often something held: always, never, mixed, or not seen where nothing could show it."""
    if not seen:
        return NOT_SEEN
    return "never" if not hits else "always" if hits == seen else "mixed"


def judge_kinds(kinds: Mapping[str, int]) -> str:
    """The one kind that was seen, mixed, or not seen."""
    present = [kind for kind, count in kinds.items() if count]
    if not present:
        return NOT_SEEN
    return present[0] if len(present) == 1 else "mixed"


def show_name(name: str) -> str:
    """The name of a member or header if it looks like one; a map may have ids, domains or people as its keys."""
    looks_safe = _MEMBER_NAME.match(name) and not _MANY_DIGITS.search(name) and redact(name) == name
    return name if looks_safe else f"[name of {len(name)} characters withheld]"


def show_enum_value(value: object) -> str:
    """The text of an enumeration (or of its member `name`) if it is one word, else its type."""
    if isinstance(value, dict):
        value = value.get("name")
    if not isinstance(value, str):
        return json_type(value)
    is_word = _ENUM_VALUE.match(value) and not _MANY_DIGITS.search(value)
    return value if is_word else f"[text of {len(value)} characters withheld]"


def show_shape(text: str) -> str:
    """Text with letters as A or a, digits as 9, and anything beyond ASCII as ?; long text is cut."""
    shape = "".join(map(_mask, text[:_MAX_SHAPE]))
    return shape if len(text) <= _MAX_SHAPE else f"{shape}..."


def count_unknown(objects: Iterable[Mapping[str, Any]], known: Iterable[str]) -> dict[str, dict[str, int]]:
    """Names of members outside `known`, and how often each came with which JSON type.

    Where there are more than 20 names, the objects are maps, and only how many there are is told.
    """
    left_out = frozenset(known)
    found: dict[str, Counter[str]] = {}
    names: set[str] = set()
    for item in objects:
        for name in item.keys() - left_out:
            names.add(name)
            found.setdefault(show_name(name), Counter())[json_type(item[name])] += 1
    if len(names) > MAX_NAMES:
        return {"[too many names to show]": {"names": len(names)}}
    return {name: dict(sorted(types.items())) for name, types in sorted(found.items())}


class Redactor:
    """Replaces every text of a finding that contains one of the `private` texts, very short ones excepted."""

    def __init__(self, private: Iterable[str | None]) -> None:
        self._private = {text.casefold() for text in private if text and len(text) >= _MIN_PRIVATE}

    def redact_finding(self, finding: Finding) -> Finding:
        """The same finding without anything private. The questions are ours, and stay."""
        return Finding(
            finding.topic, finding.question, self._redact_text(finding.verdict), self._redact(finding.evidence)
        )

    def _redact(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, list | tuple):
            return [self._redact(element) for element in value]
        if isinstance(value, dict):
            return {self._redact_text(name): self._redact(element) for name, element in value.items()}
        return value

    def _redact_text(self, text: str) -> str:
        folded = text.casefold()
        return REPLACEMENT if any(private in folded for private in self._private) else redact(text)


def _mask(character: str) -> str:
    if not character.isascii():
        return "?"
    if character.isdigit():
        return "9"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return character if character.isprintable() else "?"
