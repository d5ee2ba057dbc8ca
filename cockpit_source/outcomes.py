"""What became of one scope in one run: exactly one outcome, whatever happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cockpit_source.answers import Answer
from cockpit_source.errors import ApiError, CallRecord, UnusableAnswer
from cockpit_source.redaction import redact
from cockpit_source.scopes import ListedScope
from cockpit_source.transforms import LicenseRow, RejectedRow, clean_text, find_items, to_license_rows


@dataclass(frozen=True, slots=True)
class ScopeResult:
    """The outcome of a scope. `rows` are complete when the outcome is ok, and empty with every other outcome."""

    listed: ListedScope
    outcome: str
    observed_at: datetime
    call: CallRecord
    rows: tuple[LicenseRow, ...] = ()
    rejected: tuple[RejectedRow, ...] = ()
    error_type: str | None = None
    error_description: str | None = None

    @property
    def license_count(self) -> int | None:
        """Rows in the answer; None when the scope was not read."""
        return len(self.rows) if self.outcome in ("ok", "empty") else None

    @property
    def is_emptied(self) -> bool:
        """Whether the scope held licences when the run began and reads empty now."""
        return self.outcome == "empty" and self.listed.prior.held_licenses > 0


def judge_answer(listed: ListedScope, answer: Answer, observed_at: datetime) -> ScopeResult:
    """The outcome of a scope that was answered with JSON: ok, empty, or failed when a row does not fit.

    Raises:
        UnusableAnswer: the JSON is neither an array nor an object whose `items` is one.
    """
    items = find_items(answer.body)
    if items is None:
        description = f"the answer is {_name_shape(answer.body)}, not an array of licence rows"
        raise UnusableAnswer("wrong_shape", description, answer.call)
    rows, rejected = to_license_rows(listed.scope_key, items)
    if rejected:
        first = rejected[0]
        return ScopeResult(
            listed,
            "failed",
            observed_at,
            answer.call,
            rejected=tuple(rejected),
            error_type="unfit_rows",
            error_description=(
                f"{len(rejected)} of {len(items)} rows do not fit; row {first.position}: {first.reason}"
            ),
        )
    return ScopeResult(listed, "ok" if rows else "empty", observed_at, answer.call, rows=tuple(rows))


def judge_error(listed: ListedScope, error: ApiError, observed_at: datetime) -> ScopeResult:
    """The outcome of a scope whose call gave nothing that can be used."""
    description = "; ".join(
        [error.description, *(f"{name}: {', '.join(messages)}" for name, messages in error.errors)]
    )
    return ScopeResult(
        listed,
        error.outcome,
        observed_at,
        error.call,
        error_type=error.error_type,
        error_description=description,
    )


def skip(listed: ListedScope, reason: str, observed_at: datetime) -> ScopeResult:
    """The outcome of a scope that the run did not get to."""
    return ScopeResult(
        listed, "skipped", observed_at, CallRecord(), error_type="run_stopped", error_description=reason
    )


def _name_shape(body: object) -> str:
    if isinstance(body, dict):
        if isinstance(body.get("items"), list):
            return "one page of several"
        names = (redact(clean_text(name[:100])) for name in sorted(body)[:5])
        return "an object with " + (", ".join(names) or "no members")
    return {str: "text", bool: "true or false", type(None): "null"}.get(type(body), "a number")
