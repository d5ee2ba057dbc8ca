"""Every fault as a client meets it, and how faults are aimed."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from cockpit_source.sandbox import (
    CSP_CLIENT,
    FAULT_KINDS,
    TOKEN_SCOPE,
    Faults,
    Sandbox,
    SandboxTenant,
    running_sandbox,
)

TENANT = SandboxTenant(customers=30, incidents=False)
SCOPES = list(TENANT.scopes(0))
CUSTOMER_ID = SCOPES[0][0]


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.clear_requests()
    return running


def sign_in(sandbox: Sandbox) -> requests.Response:
    form = {
        "client_id": CSP_CLIENT.id,
        "client_secret": CSP_CLIENT.secret,
        "scope": TOKEN_SCOPE,
        "grant_type": "client_credentials",
    }
    return requests.post(sandbox.token_url, data=form, timeout=5)


def ask(sandbox: Sandbox, number: int = 0, **options: Any) -> requests.Response:
    customer_id, instance_id, _ = SCOPES[number]
    token = sandbox.tokens.issue(CSP_CLIENT)
    return requests.get(
        f"{sandbox.base_url}/v1/Customers/{customer_id}/licenses",
        params={"providerInstanceId": instance_id},
        headers={"Authorization": f"Bearer {token}", "X-Tenant": "sandbox.example"},
        **({"timeout": 5, "allow_redirects": False} | options),
    )


def fail_once(sandbox: Sandbox, kind: str) -> requests.Response:
    sandbox.faults.for_customer(CUSTOMER_ID, kind, 1)
    return ask(sandbox)


@pytest.mark.parametrize(
    ("kind", "status", "content_type"),
    [
        ("throttle", 429, None),
        ("throttle_date", 429, None),
        ("throttle_bare", 429, None),
        ("error_500", 500, "application/json"),
        ("html_503", 503, "text/html; charset=utf-8"),
        ("wrong_shape", 200, "application/json"),
        ("sign_in_page", 200, "text/html; charset=utf-8"),
        ("redirect", 302, None),
        ("expired_token", 401, None),
    ],
)
def test_fault_is_answered_once_then_all_is_well(
    sandbox: Sandbox, kind: str, status: int, content_type: str | None
) -> None:
    answer = fail_once(sandbox, kind)
    assert (answer.status_code, answer.headers.get("Content-Type")) == (status, content_type)
    assert bool(answer.content) == (content_type is not None)
    assert ask(sandbox).json() == TENANT.licenses(*SCOPES[0][:2], 0)
    assert [request.status for request in sandbox.requests] == [status, 200]


def test_throttle_says_how_long_to_wait(sandbox: Sandbox) -> None:
    sandbox.faults.configure(retry_after_seconds=7)
    assert fail_once(sandbox, "throttle").headers["Retry-After"] == "7"
    wait = parsedate_to_datetime(fail_once(sandbox, "throttle_date").headers["Retry-After"]) - datetime.now(UTC)
    assert 6 < wait.total_seconds() <= 8
    assert "Retry-After" not in fail_once(sandbox, "throttle_bare").headers


def test_error_500_has_the_error_body(sandbox: Sandbox) -> None:
    assert fail_once(sandbox, "error_500").json()["statusCode"] == 500


def test_wrong_shapes_come_in_turn(sandbox: Sandbox) -> None:
    shapes = [type(fail_once(sandbox, "wrong_shape").json()) for _ in range(4)]
    assert shapes == [dict, str, type(None), dict]


def test_reset_ends_the_connection_without_an_answer(sandbox: Sandbox) -> None:
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        fail_once(sandbox, "reset")
    assert sandbox.requests[-1].status is None


def test_truncated_breaks_off_in_the_body(sandbox: Sandbox) -> None:
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="more expected"):
        fail_once(sandbox, "truncated")


def test_hang_makes_the_client_run_into_its_timeout(sandbox: Sandbox) -> None:
    sandbox.faults.for_customer(CUSTOMER_ID, "hang", 1)
    with pytest.raises(requests.ReadTimeout):
        ask(sandbox, timeout=0.2)


def test_hang_ends_by_itself_with_a_reset(sandbox: Sandbox) -> None:
    sandbox.faults.configure(hang_seconds=0.2)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        fail_once(sandbox, "hang")


def test_redirect_points_to_another_host_name(sandbox: Sandbox) -> None:
    location = fail_once(sandbox, "redirect").headers["Location"]
    assert location.startswith("http://localhost:")
    assert requests.get(location, timeout=5).headers["Content-Type"].startswith("text/html")
    assert sandbox.requests[-1].path == "/elsewhere"


def test_oversized_is_an_empty_array_of_that_size(sandbox: Sandbox) -> None:
    sandbox.faults.configure(oversized_bytes=200_000)
    answer = fail_once(sandbox, "oversized")
    assert len(answer.content) == 200_002
    assert answer.json() == []


def test_latency_delays_the_answer(sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=150, latency_jitter_ms=50)
    start = time.monotonic()
    assert ask(sandbox).status_code == 200
    assert time.monotonic() - start >= 0.15


def test_targeted_fault_meets_one_customer_so_many_times(sandbox: Sandbox) -> None:
    sandbox.faults.for_customer(CUSTOMER_ID.upper(), "html_503", 2)
    sandbox.faults.for_customer(CUSTOMER_ID, "throttle", 1)
    assert ask(sandbox, 1).status_code == 200
    assert [ask(sandbox).status_code for _ in range(4)] == [503, 503, 429, 200]


def test_targeted_fault_without_a_number_lasts_until_cleared(sandbox: Sandbox) -> None:
    sandbox.faults.for_customer(CUSTOMER_ID, "error_500")
    assert [ask(sandbox).status_code for _ in range(5)] == [500] * 5
    sandbox.clear()
    assert ask(sandbox).status_code == 200


def test_sign_in_fault_meets_the_token_endpoint_only(sandbox: Sandbox) -> None:
    sandbox.faults.for_sign_in("html_503", 1)
    assert ask(sandbox).status_code == 200
    assert [sign_in(sandbox).status_code for _ in range(2)] == [503, 200]


def test_rates_spare_the_token_endpoint(sandbox: Sandbox) -> None:
    sandbox.faults.configure(error_500=1)
    assert sign_in(sandbox).status_code == 200
    assert ask(sandbox).status_code == 500


def draws(faults: Faults, order: list[str], calls: int = 200) -> dict[str, list[str | None]]:
    met: dict[str, list[str | None]] = {key: [] for key in order}
    for _ in range(calls):
        for key in order:
            met[key].append(faults.next_fault(key, key))
    return met


def test_rates_meet_the_same_calls_in_any_order() -> None:
    rates = {"throttle": 0.2, "reset": 0.1}
    first = draws(Faults(seed=3, **rates), ["a", "b", "c"])
    assert first == draws(Faults(seed=3, **rates), ["c", "a", "b"])
    assert first != draws(Faults(seed=4, **rates), ["a", "b", "c"])


def test_rates_are_met_about_so_often() -> None:
    met = draws(Faults(throttle=0.2, reset=0.1), ["a"], calls=4000)["a"]
    assert met.count("throttle") / 4000 == pytest.approx(0.2, abs=0.03)
    assert met.count("reset") / 4000 == pytest.approx(0.1, abs=0.03)
    assert set(met) == {None, "throttle", "reset"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"thunder": 0.1}, "unknown fault 'thunder'; valid are throttle, "),
        ({"reset": -0.1}, "0 or more"),
        ({"reset": True}, "must be a number"),
        ({"reset": float("nan")}, "0 or more"),
        ({"reset": 0.6, "hang": 0.5}, "add up to 1.2"),
    ],
)
def test_configure_with_something_wrong_changes_nothing(wrong: dict[str, Any], message: str) -> None:
    faults = Faults(throttle=0.1)
    before = faults.as_dict()
    with pytest.raises(ValueError, match=message):
        faults.configure(latency_ms=5, **wrong)
    assert faults.as_dict() == before


def test_targeted_fault_of_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="valid are throttle"):
        Faults().for_customer(CUSTOMER_ID, "thunder")


def test_every_kind_of_fault_can_be_carried_out(sandbox: Sandbox) -> None:
    sandbox.faults.configure(hang_seconds=0.05, oversized_bytes=10)
    for kind in FAULT_KINDS:
        sandbox.faults.for_customer(CUSTOMER_ID, kind, 1)
        try:
            ask(sandbox)
        except requests.RequestException:
            assert kind in {"reset", "truncated", "hang"}
    assert ask(sandbox).status_code == 200


def test_scripted_answer_replaces_the_licences_until_cleared(sandbox: Sandbox) -> None:
    sandbox.answer(CUSTOMER_ID.upper(), b'{"items": []}', status=203, content_type="text/json")
    answer = ask(sandbox)
    assert (answer.status_code, answer.content) == (203, b'{"items": []}')
    assert answer.headers["Content-Type"] == "text/json"
    assert ask(sandbox, 1).json() == TENANT.licenses(*SCOPES[1][:2], 0)
    sandbox.clear()
    assert ask(sandbox).json() == TENANT.licenses(*SCOPES[0][:2], 0)


def test_concurrent_calls_are_counted_at_their_peak(sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=300)
    threads = [threading.Thread(target=ask, args=(sandbox, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.peak_in_flight == 4
    assert sorted(sandbox.call_counts().values()) == [1, 1, 1, 1]
