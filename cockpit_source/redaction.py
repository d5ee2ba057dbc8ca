"""What may never be printed, stored or recorded: tokens, secrets and contact details."""

from __future__ import annotations

import re

REPLACEMENT = "[redacted]"

_SECRET_NAME = re.compile(r"(?i)secret|token|password|api_?key|authorization")

_PATTERNS = (
    # JSON Web Tokens, wherever they stand
    re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)(?<=[\"'&? ])(?:client_secret|access_token|refresh_token|password|api_?key)"
        r"[\"']?\s*[=:]\s*[\"']?[^\s\"'&,}]+"
    ),
    # addresses of people
    re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+"),
)


def redact(text: str) -> str:
    """`text` with every token, secret and mail address replaced by `[redacted]`."""
    for pattern in _PATTERNS:
        text = pattern.sub(REPLACEMENT, text)
    return text


def redact_tree(value: object) -> object:
    """A JSON value with the same replacements in all its text, and with members of a secret name replaced."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_tree(element) for element in value]
    if isinstance(value, dict):
        return {
            name: REPLACEMENT if _SECRET_NAME.search(name) and isinstance(element, str) else redact_tree(element)
            for name, element in value.items()
        }
    return value
