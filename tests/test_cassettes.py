"""No cassette holds a token, a secret or an address of a person, and the search would find them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cockpit_source.sandbox import CSP_CLIENT, RESELLER_CLIENT, SandboxTenant

TESTS = Path(__file__).parent
CASSETTES = sorted((TESTS / "cassettes").rglob("*.yaml"))

SHAPES = {
    "bearer": re.compile(r"(?i)\bbearer +(?!\[redacted\])\S{4,}"),
    "authorization": re.compile(r"(?i)\bauthorization['\"]?:\s*(?:-\s*)?['\"]?(?!\[redacted\]|['\"\s-])[^\s'\"]+"),
    "jwt": re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}"),
    "token or secret": re.compile(
        r"(?i)(?:access_token|refresh_token|id_token|client_secret|client_id|password)"
        r"\\?[\"']?\s*[=:]\s*\\?[\"']?(?!\[redacted\])[^\s\"'\\&,}]+"
    ),
    "long opaque text": re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{60,}(?![A-Za-z0-9_-])"),
    "cookie": re.compile(r"(?im)^\s*(?:set-)?cookie:"),
    "mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    "tenant": re.compile(r"(?i)\bx-tenant:\s*-\s*['\"]?(?!\[redacted\])[^\s'\"]+"),
    "known secret": re.compile("|".join(map(re.escape, (CSP_CLIENT.secret, RESELLER_CLIENT.secret)))),
    "known tenant": re.compile(re.escape(SandboxTenant().domain)),
}


def find_secrets(text: str) -> set[str]:
    """The kinds of secret that `text` holds, as it stands in the file and with its line breaks folded away."""
    folded = re.sub(r"\n\s+", " ", text)
    return {kind for kind, shape in SHAPES.items() if shape.search(text) or shape.search(folded)}


def test_there_is_a_cassette_for_every_test_that_wants_one_and_no_other() -> None:
    wanted = set()
    for module in TESTS.glob("test_*.py"):
        names = re.findall(r"^@pytest\.mark\.vcr\ndef (\w+)\(", module.read_text(encoding="utf-8"), re.MULTILINE)
        wanted |= {f"{module.stem}/{name}.yaml" for name in names}
    assert len(wanted) > 15
    assert {path.relative_to(TESTS / "cassettes").as_posix() for path in CASSETTES} == wanted


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
def test_cassette_holds_no_secret(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert find_secrets(text) == set()
    for interaction in yaml.safe_load(text)["interactions"]:
        assert interaction["request"]["uri"].startswith("http://127.0.0.1:8765/")
        for part in (interaction["request"]["body"], interaction["response"]["body"]["string"]):
            assert find_secrets(part if isinstance(part, str) else (part or b"").decode("utf-8")) == set()


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("      - Bearer abcdef123", "bearer"),
        ("      Authorization:\n      - Basic c29tZWJvZHk6ZWxzZQ==", "authorization"),
        ("      authorization:\n      - 'opaque-value'", "authorization"),
        ('      string: \'{"note": "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJhcGki.c2ln"}\'', "jwt"),
        ('      string: \'{"token_type": "Bearer", "access_token": "abc"}\'', "token or secret"),
        ('      string: "{\\"access_token\\": \\"abc\\"}"', "token or secret"),
        ("    body: client_id=[redacted]&client_secret=s3cr3t&scope=api", "token or secret"),
        ("    body: client_id=5b0a&client_secret=[redacted]&scope=api", "token or secret"),
        ('      string: \'{"access_token":\n        "abc"}\'', "token or secret"),
        ("      string: " + "aB3_" * 20, "long opaque text"),
        ("      Set-Cookie:\n      - session=abc", "cookie"),
        ("      Cookie:\n      - session=abc", "cookie"),
        ("      string: ask ada.lovelace@example.com for it", "mail address"),
        ("      X-Tenant:\n      - portal.example.com", "tenant"),
        (f"      string: {CSP_CLIENT.secret}", "known secret"),
        (f"      string: {SandboxTenant().domain}", "known tenant"),
    ],
)
def test_secret_that_was_planted_is_found(planted: str, kind: str) -> None:
    clean = CASSETTES[0].read_text(encoding="utf-8")
    assert kind in find_secrets(clean.replace("version: 1\n", planted + "\nversion: 1\n"))


def test_readme_says_where_the_cassettes_come_from() -> None:
    text = (TESTS / "cassettes" / "README.md").read_text(encoding="utf-8")
    assert "recorded from the sandbox of this project, none from a real CloudCockpit tenant" in " ".join(text.split())
    client = (TESTS / "test_client.py").read_text(encoding="utf-8")
    for name in re.findall(r"COCKPIT_RECORD_([A-Z_]+)", text):
        assert re.search(rf'"{name.lower()}"', client), name
