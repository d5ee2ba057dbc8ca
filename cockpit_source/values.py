"""Readers of single setting values: text from the environment or typed values from TOML in, checked values out.

Each raises ValueError with words that complete the sentence "KEY ...".
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any
from urllib.parse import SplitResult, urlsplit

_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?::\d{1,5})?\Z")
_TENANT_KEY = re.compile(r"[^\s|\x00-\x1f]+\Z")
_HEADER_TEXT = re.compile(r"[\x21-\x7e]+\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_PLACEHOLDERS = frozenset({"...", "<configure me>", "please set me up!"})


def is_missing(value: object) -> bool:
    """Whether a raw value counts as not given: None, blank text, or the placeholder of an example file."""
    return value is None or (isinstance(value, str) and (not value.strip() or value.strip() in _PLACEHOLDERS))


def abbreviate(value: object) -> str:
    """`value` as one short line for a message."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def describe_unknown_key(name: str, known: Iterable[str]) -> str:
    """A sentence about a key that nothing reads, with the one that was probably meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    meant = f"; did you mean {close[0]}?" if close else f"; the keys are {', '.join(sorted(known))}."
    return f"{name} is not a key of this source{meant}"


def is_loopback_host(host: str) -> bool:
    """Whether `host` (a name or an address, without port) is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not text")
    return value.strip()


def read_header_text(value: object) -> str:
    text = read_text(value)
    if not _HEADER_TEXT.match(text):
        raise ValueError("holds blanks, line breaks or other characters that a header cannot carry")
    return text


def read_date(value: object) -> date:
    text = read_text(value)
    if not _DATE.match(text):
        raise ValueError("is not a date such as 2026-01-31")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a day of the calendar") from None


def read_domain(value: object) -> str:
    text = read_text(value)
    if "//" in text or "/" in text:
        raise ValueError("is an address, but the bare domain is wanted")
    if not _DOMAIN.match(text):
        raise ValueError("is not a domain")
    return text


def read_tenant_key(value: object) -> str:
    text = read_text(value).lower()
    if not _TENANT_KEY.match(text):
        raise ValueError("holds a blank or '|'")
    return text


def read_url(value: object) -> str:
    text = read_text(value).rstrip("/")
    parts = _split_url(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("holds a user, password, query or fragment, which does not belong there")
    return text


def read_webhook(value: object) -> str:
    """An address that may carry its secret in its path or query."""
    text = read_header_text(value)
    _split_url(text)
    return text


def _split_url(text: str, danger: str = "would send credentials unencrypted") -> SplitResult:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not an address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("is not an address that begins with https://")
    if parts.scheme == "http" and not is_loopback_host(host):
        raise ValueError(f"{danger}: http is allowed for this machine only")
    return parts


def read_place(value: object) -> str:
    """The path of a file, or an address from which it is fetched."""
    text = read_text(value)
    if "://" not in text:
        return text
    parts = _split_url(text, "could be changed on its way")
    if parts.username or parts.password:
        raise ValueError("holds a user or a password, which does not belong there")
    return text


def one_of(*choices: str) -> Callable[[Any], str]:
    """A reader of one of a few words, in either case."""

    def read(value: Any) -> str:
        text = read_text(value).lower()
        if text not in choices:
            raise ValueError("is not known")
        return text

    return read


def read_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = read_text(value).lower()
    if text not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text == "true"


def read_list(value: object) -> list[str]:
    """A list of texts, from a TOML array, a JSON array, or text with commas."""
    if isinstance(value, str):
        text = value.strip()
        value = _parse_json(text) if text.startswith("[") else [part.strip() for part in text.split(",")]
    if not isinstance(value, list | tuple) or not all(isinstance(element, str) for element in value):
        raise ValueError("is not a list of texts")
    if not value:
        raise ValueError("is an empty list")
    return [element.strip() for element in value]


def read_tables(value: object) -> list[Mapping[str, Any]]:
    """A list of tables, from a TOML array of tables or a JSON array of objects."""
    if isinstance(value, str):
        value = _parse_json(value)
    if not isinstance(value, list | tuple) or not all(isinstance(element, Mapping) for element in value):
        raise ValueError("is not a list of tables")
    if not value:
        raise ValueError("is an empty list")
    return list(value)


def whole_number(minimum: int, maximum: int) -> Callable[[Any], int]:
    """A reader of whole numbers in [minimum, maximum]."""

    def read(value: Any) -> int:
        read_value = _parse_number(value)
        if not read_value.is_integer():
            raise ValueError("is not a whole number")
        _check_range(read_value, minimum, maximum)
        return int(read_value)

    return read


def number(minimum: float, maximum: float) -> Callable[[Any], float]:
    """A reader of numbers in [minimum, maximum]."""

    def read(value: Any) -> float:
        read_value = _parse_number(value)
        _check_range(read_value, minimum, maximum)
        return read_value

    return read


def _parse_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is not a number")
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        raise ValueError("is not a number") from None
    if not math.isfinite(parsed):
        raise ValueError("is not a number")
    return parsed


def _check_range(value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise ValueError("is out of range")


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("is not valid JSON") from None
