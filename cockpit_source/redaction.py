"""What may never be printed, stored or recorded: tokens, secrets and contact details."""

from __future__ import annotations

import re
import traceback

REPLACEMENT = "[redacted]"

_SECRET_NAME = re.compile(r"(?i)secret|token|password|api_?key|authorization")

_PATTERNS = (
    # JSON Web Tokens, wherever they stand
    re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)(?<![a-z0-9])(?:client_?secret|access_?token|refresh_?token|password|api_?key)"
        r"[\"']?\s*[=:]\s*[\"']?[^\s\"'&,}]+"
    ),
    # addresses of people; 64 is the longest a local part may be, and without a limit long text takes quadratic time
    re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
)


def redact(text: str) -> str:
    """`text` with every token, secret and mail address replaced by `[redacted]`."""
    for pattern in _PATTERNS:
        text = pattern.sub(REPLACEMENT, text)
    return text


def describe_defect() -> str:
    """The message about the exception that is handled now, which nothing of the program expects."""
    report = redact(traceback.format_exc())
    return f"This is a defect of cockpit, not of your set-up. Please report it with these lines:\n{report}"


def redact_tree(value: object) -> object:
    """A JSON value with the same replacements in all its text, names included, and members of a secret name replaced.

    Numbers, true, false and null are kept whatever their name.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_tree(element) for element in value]
    if isinstance(value, dict):
        return {
            redact(name): REPLACEMENT if _is_secret(name, element) else redact_tree(element)
            for name, element in value.items()
        }
    return value


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str | list | dict) and _SECRET_NAME.search(name) is not None
