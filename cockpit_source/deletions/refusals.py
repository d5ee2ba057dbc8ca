"""What a guard says when it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cockpit_source.errors import DeletionRefused


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plan must not be made or carried out; `text` says what to do next. `code` stays the same for programs."""

    code: str
    text: str


def to_refusal(error: DeletionRefused) -> Refusal:
    """The refusal that an error is about, for telling it with others."""
    return Refusal(error.code, str(error))


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raises DeletionRefused with all of them, or does nothing when there is none."""
    if refusals:
        lines = "\n".join(f"  - {refusal.code}: {refusal.text}" for refusal in refusals)
        raise DeletionRefused(refusals[0].code, f"Refused, nothing was sent:\n{lines}")
