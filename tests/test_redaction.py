"""What must never be printed or stored is replaced, and other text is left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cockpit_source.redaction import REPLACEMENT, redact, redact_tree

JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJhcGk6Ly9iOTJhMzZhNCJ9.c2lnbmF0dXJl_-"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {JWT}, twice {JWT}", "token [redacted], twice [redacted]"),
        (f"cut off {JWT[:70]}", "cut off [redacted]"),
        ("Authorization: Bearer abcDEF123_-~+/=", "Authorization: Bearer [redacted]"),
        ("bearer abcdefgh is refused", "bearer [redacted] is refused"),
        ("client_secret=s3cr3t&scope=api", "[redacted]&scope=api"),
        ("https://host/token?client_secret=s3cr3t", "https://host/token?[redacted]"),
        ('{"access_token": "abc.def", "expires_in": 3599}', '{"[redacted]", "expires_in": 3599}'),
        ('{"clientSecret":"abc"}', '{"[redacted]"}'),
        ("password: hunter2", "[redacted]"),
        ("api-version=1 apikey=abc", "api-version=1 [redacted]"),
        ("write to ada.lovelace+csp@mail.example.co.uk!", "write to [redacted]!"),
        ("jörg@exämple.de", "[redacted]"),
    ],
)
def test_secret_or_address_in_text_is_replaced(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET /v1/Customers/6fd2c87f-b296-42f0-b197-1e91e994b900/licenses",
        "AADSTS7000215: Invalid client secret provided for app 'x'.",
        "token_type Bearer",
        "5 @ 3 seats, a@b",
        "Office 365 E3",
    ],
)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_redacted_text_stays_as_it_is_the_second_time(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize("unit", ["a", "a@", "a.", "@", "ey", "password"])
def test_long_text_takes_time_in_proportion(unit: str) -> None:
    """An error body may be long; the worker that redacts it must not be lost to it."""
    started = time.perf_counter()
    redact(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 3


def test_tree_is_redacted_in_texts_names_and_secret_members() -> None:
    tree = {
        "note": ["ask ada@example.com", 1, None, True, 2.5],
        "clientSecret": "abc",
        "tokens": ["abc"],
        "Authorization": {"scheme": "Basic", "value": "abc"},
        "tokenCount": 5,
        "password": None,
        "ada@example.com": {"inner": f"Bearer {JWT}"},
    }
    assert redact_tree(tree) == {
        "note": ["ask [redacted]", 1, None, True, 2.5],
        "clientSecret": REPLACEMENT,
        "tokens": REPLACEMENT,
        "Authorization": REPLACEMENT,
        "tokenCount": 5,
        "password": None,
        REPLACEMENT: {"inner": "Bearer [redacted]"},
    }


def test_tree_that_was_given_is_not_changed() -> None:
    tree = {"secret": ["abc"], "mail": "ada@example.com"}
    redact_tree(tree)
    assert tree == {"secret": ["abc"], "mail": "ada@example.com"}
