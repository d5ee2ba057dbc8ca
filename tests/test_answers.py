"""Replies become answers or typed errors, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from cockpit_source.answers import read_answer, to_throttled, to_transport_error
from cockpit_source.errors import (
    ApiError,
    CallRecord,
    Forbidden,
    InvalidRequest,
    NotFound,
    ServerFailed,
    Throttled,
    TransportFailed,
    UnusableAnswer,
)
from cockpit_source.transport import AnswerTooLarge, Reply

CALL = CallRecord(correlation_id="ours", attempts=2, duration_ms=15)
HTML = b"<!DOCTYPE html><html><body>Service Unavailable</body></html>"
STATUSES = [
    (201, ServerFailed, False),
    (204, ServerFailed, False),
    (206, ServerFailed, False),
    (302, ServerFailed, False),
    (400, InvalidRequest, False),
    (401, ServerFailed, False),
    (403, Forbidden, False),
    (404, NotFound, False),
    (405, ServerFailed, False),
    (408, ServerFailed, True),
    (409, ServerFailed, False),
    (429, Throttled, True),
    (500, ServerFailed, True),
    (501, ServerFailed, True),
    (503, ServerFailed, True),
    (599, ServerFailed, True),
]


def error_of(status: int, body: bytes | object = b"", headers: dict[str, str] | None = None) -> ApiError:
    """The error that a reply becomes; it is always of a class of ours."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        read_answer(Reply(status, headers or {}, encoded), CALL)
    return caught.value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"[]", []),
        (b' [{"skuId": "a"}] \n', [{"skuId": "a"}]),
        (b"{}", {}),
        (b"null", None),
        (b'"text"', "text"),
        (b"\xef\xbb\xbf[1]", [1]),
        ('["企業"]'.encode("utf-16"), ["企業"]),
        (b'["\\ud800"]', ["\ud800"]),
    ],
)
def test_json_of_a_200_is_the_answer(body: bytes, value: object) -> None:
    answer = read_answer(Reply(200, {}, body), CALL)
    assert (answer.body, answer.call) == (value, CALL)


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        b"  \r\n<html>",
        b"\xef\xbb\xbf<html>",
        b"<?xml version='1.0'?>",
    ],
)
def test_web_page_with_200_is_unusable_for_good(body: bytes) -> None:
    error = error_of(200, body, {"Content-Type": "text/html; charset=utf-8"})
    assert (type(error), error.error_type, error.transient) == (UnusableAnswer, "web_page", False)
    assert error.description == "the API answered 200 with a web page (text/html), probably a sign-in page"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b'[{"skuId":"cbdc14ab',
        b"[1]]",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"\xff\xfe\xfa",
        b"[\x80]",
        b"OK",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" + b"9" * 5_000 + b"]",
    ],
)
def test_body_with_200_that_is_not_json_is_unusable_and_transient(body: bytes) -> None:
    """A body that was cut off looks like this, so another attempt is worth it."""
    error = error_of(200, body, {"Content-Type": "application/json"})
    assert (type(error), error.error_type, error.transient) == (UnusableAnswer, "not_json", True)
    assert error.description == (
        f"the API answered 200 with a body that is not JSON (application/json, {len(body)} bytes)"
    )
    assert error.call is CALL


@pytest.mark.parametrize(("status", "kind", "transient"), STATUSES)
@pytest.mark.parametrize("body", [b"", HTML, b"[]", b"null", b'"text"', b'{"statusCode":'])
def test_status_without_an_error_model_becomes_its_error(
    status: int, kind: type[ApiError], transient: bool, body: bytes
) -> None:
    error = error_of(status, body)
    assert type(error) is kind
    assert (error.error_type, error.transient, error.errors) == (f"http_{status}", transient, ())
    assert error.description
    assert error.call == CALL
    assert "<" not in str(error)


@pytest.mark.parametrize(("status", "kind", "transient"), STATUSES)
def test_status_with_an_error_model_becomes_its_error_with_fields(
    status: int, kind: type[ApiError], transient: bool
) -> None:
    body = {
        "statusCode": status,
        "type": "ValidationError",
        "description": " The request is not valid. ",
        "correlationId": "theirs",
        "errors": [
            {"propertyName": "providerInstanceId", "description": ["not Microsoft", "not active"]},
            {"propertyName": "customerId", "description": "unknown"},
        ],
    }
    error = error_of(status, body)
    assert type(error) is kind
    assert (error.error_type, error.description) == ("ValidationError", "The request is not valid.")
    assert error.errors == (("providerInstanceId", ("not Microsoft", "not active")), ("customerId", ("unknown",)))
    assert error.transient is transient
    assert error.call.server_correlation_id == "theirs"
    assert error.call.correlation_id == "ours"


def test_error_as_text_names_status_details_id_and_next_step() -> None:
    body = {"type": "Bad", "description": "no", "errors": [{"propertyName": "p", "description": ["x", "y"]}]}
    reply = Reply(400, {}, json.dumps(body).encode())
    with pytest.raises(InvalidRequest) as caught:
        read_answer(reply, CallRecord(400, "ours"))
    assert str(caught.value) == (
        "HTTP 400, Bad: no; p: x, y (correlation id ours). "
        "Check that the ids belong together and that the provider instance is a Microsoft one."
    )


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("type", 7),
        ("type", None),
        ("type", "  "),
        ("type", ["a"]),
        ("description", {"a": 1}),
        ("description", False),
        ("correlationId", 7),
        ("correlationId", {}),
        ("errors", "text"),
        ("errors", 7),
        ("errors", {"propertyName": "p"}),
        ("errors", [None, 1, "text", []]),
    ],
)
def test_member_of_the_error_model_of_a_wrong_type_counts_as_missing(member: str, value: object) -> None:
    error = error_of(500, {"statusCode": "500", member: value})
    assert (error.error_type, error.description) == ("http_500", "the API could not answer")
    assert error.errors == ()
    assert error.call.server_correlation_id is None


def test_details_of_a_wrong_type_are_left_out() -> None:
    entries = [{"propertyName": 7, "description": [1, None, "kept", ""]}, {}, {"description": {"a": 1}}]
    assert error_of(400, {"errors": entries}).errors == (("", ("kept",)), ("", ()), ("", ()))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(201, 599),
    st.dictionaries(
        st.sampled_from(["type", "description", "correlationId", "errors"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(st.characters(exclude_categories=())),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["propertyName", "description"]), inner)
            ),
            max_leaves=8,
        ),
    ),
)
def test_error_model_of_any_content_becomes_an_error_that_can_be_stored(status: int, body: Any) -> None:
    error = error_of(status, body)
    str(error).encode("utf-8")
    assert "\x00" not in str(error)


def test_texts_of_an_error_are_redacted_and_cut() -> None:
    long = "x" * 3_000_000
    error = error_of(
        500,
        {
            "type": "y" * 500,
            "description": f"ask ada@example.com, Bearer abcdefgh12345 {long}",
            "correlationId": "z" * 500,
            "errors": [{"propertyName": "p", "description": ["client_secret=abc"] * 50}] * 50,
        },
    )
    assert error.description.startswith("ask [redacted], Bearer [redacted] xxx")
    assert (len(error.description), len(error.error_type)) == (1_000, 200)
    assert len(error.call.server_correlation_id or "") == 100
    assert error.errors == (("p", ("[redacted]",) * 20),) * 20


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("NaN", None), ("-1", 0.0)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_on_the_error(status: int, header: str, seconds: float | None) -> None:
    assert error_of(status, b"", {"Retry-After": header}).retry_after_seconds == seconds


def test_redirect_says_that_it_is_not_followed() -> None:
    assert "redirect, which is not followed" in error_of(302, b"", {"Location": "https://elsewhere"}).description


def test_success_without_licences_says_so() -> None:
    assert error_of(204).description == "the API answered 204, but only a 200 carries licences"


@pytest.mark.parametrize(
    ("raised", "name"),
    [
        (requests.ConnectTimeout("slow"), "timeout"),
        (requests.ReadTimeout("slow"), "timeout"),
        (requests.ConnectionError("refused"), "connection_error"),
        (requests.exceptions.SSLError("certificate"), "tls_error"),
        (requests.exceptions.ProxyError("proxy"), "proxy_error"),
        (requests.exceptions.ChunkedEncodingError("cut"), "truncated"),
        (requests.exceptions.InvalidURL("odd"), "connection_error"),
    ],
)
def test_exchange_without_an_answer_is_transient(raised: requests.RequestException, name: str) -> None:
    error = to_transport_error(raised, CALL)
    assert (type(error), error.error_type, error.transient) == (TransportFailed, name, True)
    assert (error.description, error.call) == (str(raised), CALL)


def test_answer_that_is_too_large_is_unusable_for_good() -> None:
    error = to_transport_error(AnswerTooLarge("the answer is larger than 32 MiB"), CALL)
    assert (type(error), error.error_type, error.transient) == (UnusableAnswer, "too_large", False)


def test_text_of_a_transport_error_is_redacted_and_storable() -> None:
    error = to_transport_error(requests.ConnectionError("at ?client_secret=abc\x00\ud800"), CALL)
    assert error.description == "at ?[redacted]"


def test_throttled_beyond_patience_keeps_what_the_api_said() -> None:
    said = ServerFailed("Busy", "later", CALL, (("p", ("x",)),), transient=True, retry_after_seconds=900.0)
    error = to_throttled(said, 900.0)
    assert (type(error), error.error_type, error.outcome, error.transient) == (Throttled, "Busy", "deferred", False)
    assert error.description == "the API asked to wait 900 s, longer than patience_seconds"
    assert (error.call, error.errors) == (said.call, said.errors)
