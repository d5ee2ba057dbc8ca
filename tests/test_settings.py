"""Every setting: good values from the environment and from TOML, wrong ones, missing ones, all told at once."""

from __future__ import annotations

from typing import Any

import pytest
from support import new_id

from cockpit_source.errors import ConfigurationError
from cockpit_source.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_TOKEN_SCOPE,
    DEFAULT_TOKEN_URL,
    KEYS,
    Settings,
    build_settings,
    is_loopback,
)

COMPLETE: dict[str, Any] = {
    "tenant": "portal.example.com",
    "client_id": "an-id",
    "client_secret": "a-secret",
    "customers": [new_id(1)],
    "provider_instances": [new_id(0)],
}
SCOPE_TABLE = {"customer_id": new_id(1), "provider_instance_id": new_id(0)}

# a value from TOML or the environment, and what it becomes
GOOD: dict[str, list[tuple[Any, Any]]] = {
    "base_url": [
        ("https://api.example.com/", "https://api.example.com"),
        (" https://api.example.com:8443/csp ", "https://api.example.com:8443/csp"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://localhost:8765", "http://localhost:8765"),
        ("http://[::1]:8765", "http://[::1]:8765"),
    ],
    "tenant": [
        ("portal.example.com", "portal.example.com"),
        (" Portal.Example.com:8443 ", "Portal.Example.com:8443"),
    ],
    "tenant_key": [("acme", "acme"), (" ACME.portal ", "acme.portal"), ("münchen", "münchen")],
    "client_id": [("an-id", "an-id"), ("123", "123")],
    "client_secret": [("a-secret", "a-secret"), ("1e5", "1e5"), (" a b ", "a b")],
    "token_url": [("https://login.example.com/token", "https://login.example.com/token")],
    "token_scope": [("api://x/.default", "api://x/.default")],
    "access_token": [("eyJ.a.b", "eyJ.a.b")],
    "customers": [([new_id(1)], [new_id(1)]), (new_id(1), [new_id(1)]), (f'["{new_id(1)}"]', [new_id(1)])],
    "provider_instances": [((new_id(0),), [new_id(0)]), (f"{new_id(0)}, {new_id(9)}", [new_id(0), new_id(9)])],
    "resellers": [(["-"], ["-"]), ("-", ["-"]), (f"-,{new_id(5)}", ["-", new_id(5)])],
    "scopes": [([SCOPE_TABLE], [SCOPE_TABLE]), ('[{"customer_id": "x"}]', [{"customer_id": "x"}])],
    "scopes_file": [("scopes.csv", "scopes.csv")],
    "scopes_query": [("SELECT 1", "SELECT 1")],
    "discover": [(True, True), ("true", True), (" True ", True)],
    "page_size": [(1, 1), (2000, 2000), ("25", 25)],
    "contact_data": [(True, True), (False, False), ("false", False)],
    "gdap_relationships": [(True, True), (False, False), ("TRUE", True)],
    "price_list": [("prices.csv", "prices.csv"), (" /data/prices 2026.csv ", "/data/prices 2026.csv")],
    "sku_catalog": [
        ("names.csv", "names.csv"),
        ("C:\\data\\names.csv", "C:\\data\\names.csv"),
        ("https://example.com/a/names.csv?b=c", "https://example.com/a/names.csv?b=c"),
        ("http://127.0.0.1:80/names.csv", "http://127.0.0.1:80/names.csv"),
    ],
    "reseller_scopes": [("same", "same"), ("parts", "parts"), (" Parts ", "parts")],
    "refresh_marts": [(True, True), ("false", False)],
    "max_concurrency": [(1, 1), (256, 256), ("64", 64), (8.0, 8)],
    "max_requests_per_second": [(0.01, 0.01), (10_000, 10_000.0), ("2.5", 2.5)],
    "max_attempts": [(1, 1), (20, 20), ("3", 3)],
    "timeout_seconds": [(0.1, 0.1), (3600, 3600.0), ("30", 30.0)],
    "patience_seconds": [(0, 0.0), (86_400, 86_400.0), ("60", 60.0)],
    "run_deadline_minutes": [(0.01, 0.01), (10_080, 10_080.0), ("90", 90.0)],
    "max_drop_scopes": [(0, 0), (10_000_000, 10_000_000), ("25", 25)],
    "max_drop_percent": [(0, 0.0), (100, 100.0), ("2.5", 2.5)],
    "lock_wait_seconds": [(0, 0.0), (86_400, 86_400.0), ("0.5", 0.5)],
    "publish_read_copy": [(False, False), ("true", True)],
    "spool_url": [("/srv/spool", "/srv/spool"), ("s3://bucket/a@b", "s3://bucket/a@b")],
    "shard_timeout_seconds": [(1, 1.0), (86_400, 86_400.0), ("90", 90.0)],
    "after_run_command": [("notify --all", "notify --all")],
    "after_run_webhook": [("https://hooks.example.com/a?key=b", "https://hooks.example.com/a?key=b")],
}

_NOT_AN_ADDRESS = "is not an address that begins with https://"
_NOT_A_NUMBER = "is not a number"
_RANGE = "is out of range"
_NO_TEXT = [(5, "is not text"), (True, "is not text"), (["a"], "is not text"), ({"a": 1}, "is not text")]
_URL = [
    *_NO_TEXT,
    ("api.example.com", _NOT_AN_ADDRESS),
    ("ftp://api.example.com", _NOT_AN_ADDRESS),
    ("https://", _NOT_AN_ADDRESS),
    ("https:///path", _NOT_AN_ADDRESS),
    ("https://a.example.com:port", "is not an address"),
    ("https://a.example.com:99999", "is not an address"),
    ("http://api.example.com", "http is allowed for this machine only"),
    ("http://localhost.example.com", "http is allowed for this machine only"),
    ("http://127.0.0.1.example.com", "http is allowed for this machine only"),
    ("https://user@a.example.com", "holds a user, password, query or fragment"),
    ("https://a.example.com?x=1", "holds a user, password, query or fragment"),
    ("https://a.example.com#x", "holds a user, password, query or fragment"),
]
_FLAG = [(5, "is not text"), ("yes", "is neither true nor false"), ([True], "is not text")]
_LIST = [
    (5, "is not a list of texts"),
    (True, "is not a list of texts"),
    ({"a": 1}, "is not a list of texts"),
    ([1, 2], "is not a list of texts"),
    ("[1]", "is not a list of texts"),
    ("[broken", "is not valid JSON"),
    ([], "is an empty list"),
    ("[]", "is an empty list"),
]


def _number(below: Any, above: Any) -> list[tuple[Any, str]]:
    return [
        (below, _RANGE),
        (above, _RANGE),
        (str(above), _RANGE),
        (-1, _RANGE),
        ("many", _NOT_A_NUMBER),
        (True, _NOT_A_NUMBER),
        ([1], _NOT_A_NUMBER),
        ({}, _NOT_A_NUMBER),
        ("nan", _NOT_A_NUMBER),
        ("inf", _NOT_A_NUMBER),
        (10**400, _NOT_A_NUMBER),
    ]


def _whole_number(below: Any, above: Any) -> list[tuple[Any, str]]:
    return [*_number(below, above), (1.5, "is not a whole number"), ("2.5", "is not a whole number")]


WRONG: dict[str, list[tuple[Any, str]]] = {
    "base_url": _URL,
    "tenant": [
        *_NO_TEXT,
        ("https://portal.example.com", "is an address, but the bare domain is wanted"),
        ("portal.example.com/", "is an address, but the bare domain is wanted"),
        ("two words", "is not a domain"),
        ("-portal", "is not a domain"),
        ("portal.example.com:port", "is not a domain"),
        ("portal.example.com\nX-Other: 1", "is not a domain"),
    ],
    "tenant_key": [*_NO_TEXT, ("a|b", "holds a blank or '|'"), ("a b", "holds a blank or '|'")],
    "client_id": _NO_TEXT,
    "client_secret": _NO_TEXT,
    "token_url": _URL,
    "token_scope": _NO_TEXT,
    "access_token": [*_NO_TEXT, ("two words", "a header cannot carry"), ("a\nb", "a header cannot carry")],
    "customers": _LIST,
    "provider_instances": _LIST,
    "resellers": _LIST,
    "scopes": [
        (5, "is not a list of tables"),
        ({"customer_id": "x"}, "is not a list of tables"),
        (["x"], "is not a list of tables"),
        ("x", "is not valid JSON"),
        ('{"customer_id": "x"}', "is not a list of tables"),
        ([], "is an empty list"),
    ],
    "scopes_file": _NO_TEXT,
    "scopes_query": _NO_TEXT,
    "discover": _FLAG,
    "page_size": _whole_number(0, 2001),
    "contact_data": _FLAG,
    "gdap_relationships": _FLAG,
    "price_list": _NO_TEXT,
    "sku_catalog": [
        *_NO_TEXT,
        ("http://example.com/names.csv", "could be changed on its way: http is allowed for this machine only"),
        ("ftp://example.com/names.csv", "is not an address that begins with https://"),
        ("https://[::1/names.csv", "is not an address"),
        ("https://me:pass@example.com/names.csv", "holds a user or a password"),
    ],
    "reseller_scopes": [*_NO_TEXT, ("sum", "is not known")],
    "refresh_marts": _FLAG,
    "max_concurrency": _whole_number(0, 257),
    "max_requests_per_second": _number(0, 10_001),
    "max_attempts": _whole_number(0, 21),
    "timeout_seconds": _number(0.09, 3601),
    "patience_seconds": _number(-0.1, 86_401),
    "run_deadline_minutes": _number(0, 10_081),
    "max_drop_scopes": _whole_number(-1, 10_000_001),
    "max_drop_percent": _number(-0.1, 100.1),
    "lock_wait_seconds": _number(-0.1, 86_401),
    "publish_read_copy": _FLAG,
    "spool_url": [*_NO_TEXT, ("s3://key:secret@bucket/spool", "holds a user or a password")],
    "shard_timeout_seconds": _number(0.9, 86_401),
    "after_run_command": _NO_TEXT,
    "after_run_webhook": [
        *_NO_TEXT,
        ("hooks.example.com", "is not an address that begins with https://"),
        ("http://hooks.example.com/a", "http is allowed for this machine only"),
        ("https://hooks.example.com/a b", "a header cannot carry"),
    ],
}

DEFAULTS: dict[str, Any] = {
    "base_url": DEFAULT_BASE_URL,
    "tenant_key": "portal.example.com",
    "max_concurrency": 96,
    "max_requests_per_second": None,
    "max_attempts": 5,
    "timeout_seconds": 60.0,
    "patience_seconds": 300.0,
    "run_deadline_minutes": None,
    "max_drop_scopes": 10,
    "max_drop_percent": 5.0,
    "lock_wait_seconds": 120.0,
    "publish_read_copy": True,
    "page_size": 2000,
    "contact_data": False,
    "gdap_relationships": False,
    "price_list": None,
    "sku_catalog": None,
    "reseller_scopes": "same",
    "refresh_marts": False,
    "spool_url": None,
    "shard_timeout_seconds": 60.0,
    "after_run_command": None,
    "after_run_webhook": None,
}

_SIGN_IN_KEYS = ("client_id", "client_secret", "access_token")
_LIST_KEYS = ("customers", "provider_instances", "resellers")
_NO_SCOPES = (
    "no scopes are configured: set discover = true, or customers and provider_instances, or scopes, or scopes_file, "
    "or scopes_query."
)
_WAY_KEYS = ("scopes", "scopes_file", "scopes_query", "discover")
_SCOPE_KEYS = (*_LIST_KEYS, *_WAY_KEYS)


def test_every_key_is_tried_with_good_and_wrong_values() -> None:
    assert set(GOOD) == set(WRONG) == set(KEYS)


@pytest.mark.parametrize(
    ("name", "given", "expected"), [(name, *pair) for name, pairs in GOOD.items() for pair in pairs]
)
def test_good_value_is_read(name: str, given: Any, expected: Any) -> None:
    settings = build_settings(_complete_with(name, given))
    if name in _SCOPE_KEYS:
        assert _scope_value(settings, name) == expected
    elif name in (*_SIGN_IN_KEYS, "token_url", "token_scope"):
        assert getattr(settings.credentials, name) == expected
    else:
        assert getattr(settings, name) == expected


@pytest.mark.parametrize(
    ("name", "given", "expected"), [(name, *pair) for name, pairs in WRONG.items() for pair in pairs]
)
def test_wrong_value_names_key_reason_and_valid_values(name: str, given: Any, expected: str) -> None:
    message = _refusal(_complete_with(name, given))
    line = _line_about(message, name)
    assert expected in line
    assert f"Valid: {KEYS[name].valid}" in line
    assert len(line) < 400


@pytest.mark.parametrize("name", sorted(KEYS))
@pytest.mark.parametrize("blank", [None, "", "  \n", "...", "<configure me>"])
def test_blank_or_placeholder_counts_as_missing(name: str, blank: str | None) -> None:
    """Blank values and those of example files leave the default, or are told as missing."""
    raw = COMPLETE | {name: blank}
    if name not in COMPLETE:
        settings = build_settings(raw)
        assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
        assert settings.credentials.token_url == DEFAULT_TOKEN_URL
        assert settings.credentials.token_scope == DEFAULT_TOKEN_SCOPE
        assert settings.credentials.access_token is None
    else:
        assert f"{name} is missing" in _refusal(raw)


def test_everything_missing_is_told_at_once() -> None:
    message = _refusal({})
    assert _problems(message) == [
        "tenant is missing. Valid: the domain of your CloudCockpit portal, such as portal.example.com.",
        "client_id and client_secret are missing (or, instead of both, access_token).",
        _NO_SCOPES,
    ]
    assert "[sources.cockpit]" in message
    assert "SOURCES__COCKPIT__TENANT" in message
    assert ".dlt/secrets.toml" in message


def test_every_wrong_key_is_told_at_once() -> None:
    """One wrong value for each key that does not exclude another; nothing hides anything else."""
    names = [
        name for name in KEYS if name not in ("access_token", "scopes", "scopes_file", "scopes_query", "discover")
    ]
    problems = _problems(_refusal({name: {} for name in names}))
    assert [problem.split()[0] for problem in problems] == names


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.secret])
@pytest.mark.parametrize("given", ["the very secret\nvalue", ["the very secret"], {"a": "the very secret"}])
def test_wrong_secret_is_not_in_the_message(name: str, given: Any) -> None:
    raw = _complete_with(name, given) | {"tenant": "https://wrong"}
    assert "very secret" not in _refusal(raw)


def test_secrets_are_not_in_the_repr() -> None:
    settings = build_settings(COMPLETE)
    assert "a-secret" not in repr(settings)
    assert "an-id" not in repr(settings)


def test_long_wrong_value_is_shortened() -> None:
    line = _line_about(_refusal(COMPLETE | {"tenant": "x " * 5_000}), "tenant")
    assert line.startswith('tenant is not a domain (got "x x x')
    assert len(line) < 200


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"client_id": "x"}, "client_secret is missing: the two go together."),
        ({"client_secret": "x"}, "client_id is missing: the two go together."),
        (
            {"access_token": "x", "client_secret": "y"},
            "access_token is given together with client_secret: keep one way to sign in and remove the other.",
        ),
        (
            {"access_token": "x", "client_id": "i", "client_secret": "y"},
            "access_token is given together with client_id and client_secret: "
            "keep one way to sign in and remove the other.",
        ),
    ],
)
def test_half_or_double_sign_in_is_refused(given: dict[str, Any], expected: str) -> None:
    rest = {name: value for name, value in COMPLETE.items() if name not in _SIGN_IN_KEYS}
    assert _problems(_refusal(rest | given)) == [expected]


def test_access_token_alone_is_enough() -> None:
    rest = {name: value for name, value in COMPLETE.items() if name not in _SIGN_IN_KEYS}
    credentials = build_settings(rest | {"access_token": "eyJ"}).credentials
    assert (credentials.access_token, credentials.client_id, credentials.client_secret) == ("eyJ", None, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"customers": ["a"]}, "provider_instances is missing: it goes together with customers."),
        ({"provider_instances": ["a"]}, "customers is missing: it goes together with provider_instances."),
        (
            {"scopes_file": "a.csv", "scopes_query": "SELECT 1"},
            "the scopes are given in several ways (scopes_file; scopes_query): keep one and remove the others.",
        ),
        (
            {"customers": ["a"], "resellers": ["-"], "scopes": [SCOPE_TABLE]},
            "the scopes are given in several ways (customers with resellers; scopes): "
            "keep one and remove the others.",
        ),
        (
            {name: GOOD[name][0][0] for name in _SCOPE_KEYS},
            "the scopes are given in several ways (customers with provider_instances with resellers; scopes; "
            "scopes_file; scopes_query; discover): keep one and remove the others.",
        ),
        ({"discover": False}, _NO_SCOPES),
        ({"discover": "false"}, _NO_SCOPES),
        (
            {"discover": "true", "scopes_file": "a.csv"},
            "the scopes are given in several ways (scopes_file; discover): keep one and remove the others.",
        ),
    ],
)
def test_half_or_contradictory_scopes_are_refused(given: dict[str, Any], expected: str) -> None:
    rest = {name: value for name, value in COMPLETE.items() if name not in _SCOPE_KEYS}
    assert _problems(_refusal(rest | given)) == [expected]


def test_resellers_alone_say_what_is_missing() -> None:
    rest = {name: value for name, value in COMPLETE.items() if name not in _SCOPE_KEYS}
    assert _problems(_refusal(rest | {"resellers": ["-"]})) == [
        "customers is missing: it goes together with provider_instances.",
        "provider_instances is missing: it goes together with customers.",
    ]


def test_lists_become_their_product_customers_first() -> None:
    lists = {"customers": ["a", "b"], "provider_instances": ["p", "q"], "resellers": ["-", "r"]}
    scopes = build_settings(COMPLETE | lists).scopes
    rows = [(row["customer_id"], row["provider_instance_id"], row["reseller_id"]) for row in scopes.rows]
    assert scopes.origin == "lists"
    assert rows == [(c, p, r) for c in "ab" for p in "pq" for r in ("-", "r")]


def test_lists_without_resellers_have_none() -> None:
    assert build_settings(COMPLETE).scopes.rows == (
        {"customer_id": new_id(1), "provider_instance_id": new_id(0), "reseller_id": None},
    )


def test_unknown_key_suggests_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_settings(COMPLETE, unknown=["max_concurency", "colour"])
    near, far = _problems(str(caught.value))
    assert near == "max_concurency is not a key of this source; did you mean max_concurrency?"
    assert far.startswith("colour is not a key of this source; the keys are access_token, after_run_command,")


def test_misplaced_secret_says_where_it_belongs_without_showing_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_settings(COMPLETE, misplaced=["client_secret"])
    (problem,) = _problems(str(caught.value))
    assert problem.startswith("client_secret stands in config.toml, a file that is meant to be shared.")
    assert ".dlt/secrets.toml" in problem
    assert "SOURCES__COCKPIT__CLIENT_SECRET" in problem
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("tenant", ["Portal.Example.com", "PORTAL.EXAMPLE.COM"])
def test_tenant_key_is_the_tenant_in_lower_case(tenant: str) -> None:
    settings = build_settings(COMPLETE | {"tenant": tenant})
    assert (settings.tenant, settings.tenant_key) == (tenant, "portal.example.com")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1", True),
        ("http://127.8.9.1", True),
        ("http://[::1]", True),
        ("https://example.com", False),
        ("http://localhost.example.com", False),
        ("nonsense", False),
    ],
)
def test_loopback_is_this_machine_only(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def _complete_with(name: str, value: Any) -> dict[str, Any]:
    """Settings that work but for `name`, other ways to sign in or to list scopes left out."""
    raw = dict(COMPLETE)
    if name == "access_token":
        raw = {key: kept for key, kept in raw.items() if key not in _SIGN_IN_KEYS}
    if name in _WAY_KEYS:
        raw = {key: kept for key, kept in raw.items() if key not in _SCOPE_KEYS}
    return raw | {name: value}


def _scope_value(settings: Settings, name: str) -> Any:
    scopes = settings.scopes
    if name == "scopes":
        return list(scopes.rows)
    if name in _WAY_KEYS:
        return {"scopes_file": scopes.file, "scopes_query": scopes.query, "discover": scopes.origin == name}[name]
    column = {"customers": "customer_id", "provider_instances": "provider_instance_id", "resellers": "reseller_id"}
    return [row[column[name]] for row in scopes.rows]


def _refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build_settings(raw)
    assert caught.value.exit_code == 2
    return str(caught.value)


def _problems(message: str) -> list[str]:
    return [line.removeprefix("  - ") for line in message.splitlines() if line.startswith("  - ")]


def _line_about(message: str, name: str) -> str:
    (line,) = (problem for problem in _problems(message) if problem.split()[0] == name)
    return line
