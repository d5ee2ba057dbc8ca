"""Settings, aimed faults and the request log, from this process and from outside."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from sandbox_api import TENANT, Api

from cockpit_source.sandbox import (
    AIMED_FAULT_KINDS,
    FAULT_KINDS,
    Faults,
    Sandbox,
    SettingValues,
    running_sandbox,
    spawned_sandbox,
)
from cockpit_source.sandbox.rate_limit import RateLimit

DEFAULTS: SettingValues = {
    "deleted_style": "is_deleted",
    "provider_style": "name",
    "reseller_answers": "same",
    "deletion_delay_seconds": 2,
    "deletion_outcome": "Succeded",
    "blocks_active_deletions": False,
    "page_churn": 0,
    "calls_per_second": 0,
    "limit_style": "window",
}
CHANGED: SettingValues = {
    "deleted_style": "status",
    "provider_style": "none",
    "reseller_answers": "parts",
    "deletion_delay_seconds": 0.5,
    "deletion_outcome": "Failed",
    "blocks_active_deletions": True,
    "page_churn": 3,
    "calls_per_second": 2.5,
    "limit_style": "bucket",
}
WRONG = [
    ({"thunder": 1}, "unknown setting 'thunder'; valid are deleted_style, "),
    ({"deleted_style": "gone"}, "must be one of is_deleted, status, none"),
    ({"provider_style": None}, "must be one of name, type, none"),
    ({"reseller_answers": ["same"]}, "must be one of same, parts"),
    ({"deletion_outcome": "Succeeded"}, "must be one of Succeded, Failed"),
    ({"deletion_delay_seconds": -1}, "must be a number, 0 or more"),
    ({"deletion_delay_seconds": float("inf")}, "must be a number, 0 or more"),
    ({"blocks_active_deletions": 1}, "must be true or false"),
    ({"page_churn": 1.5}, "must be a whole number, 0 or more"),
    ({"calls_per_second": -1}, "must be a number, 0 or more"),
    ({"limit_style": "hour"}, "must be one of window, bucket, minute"),
    ({"page_churn": True}, "must be a whole number, 0 or more"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.configure(**DEFAULTS)
    return running


def test_settings_have_their_defaults_and_can_be_changed() -> None:
    sandbox = Sandbox(TENANT)
    assert sandbox.settings() == DEFAULTS
    sandbox.configure(**CHANGED)
    assert sandbox.settings() == Sandbox(TENANT, **CHANGED).settings() == CHANGED
    sandbox.page_churn = 7
    assert (sandbox.page_churn, Sandbox(TENANT).page_churn) == (7, 0)


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_wrong_setting_is_refused_and_changes_nothing(wrong: dict[str, Any], message: str) -> None:
    sandbox = Sandbox(TENANT)
    with pytest.raises(ValueError, match=message):
        sandbox.configure(**{"page_churn": 9} | wrong)
    assert sandbox.settings() == DEFAULTS


def test_wrong_setting_is_refused_where_it_is_assigned() -> None:
    with pytest.raises(ValueError, match="deleted_style is 'gone'"):
        Sandbox(TENANT).deleted_style = "gone"


def test_settings_can_be_changed_over_http(sandbox: Sandbox) -> None:
    url = f"{sandbox.base_url}/_sandbox/settings"
    assert requests.post(url, json=CHANGED, timeout=5).json()["settings"] == sandbox.settings() == CHANGED
    answer = requests.post(url, json={"page_churn": 1, "deleted_style": "gone"}, timeout=5)
    assert answer.status_code == answer.json()["statusCode"] == 400
    assert sandbox.settings() == CHANGED


def test_spawned_sandbox_takes_every_setting() -> None:
    with spawned_sandbox(customers=20, **CHANGED) as sandbox:
        assert sandbox.state()["settings"] == CHANGED
        assert sandbox.configure(page_churn=0, blocks_active_deletions=False)["settings"] == {
            **CHANGED,
            "page_churn": 0,
            "blocks_active_deletions": False,
        }
        with pytest.raises(ValueError, match="unknown fault"):
            sandbox.aim_fault("pageNumber=3", "thunder")
        assert sandbox.aim_fault("pageNumber=3", "forbidden", 1)["deletions"] == 0
        requests.get(f"{sandbox.base_url}/v1/Customers?pageSize=1", headers={"X-Correlation-Id": "a"}, timeout=5)
        (logged,), following = sandbox.requests()
        assert logged.pop("finished_at_seconds") >= logged.pop("received_at_seconds")
        assert (logged, following) == (
            {
                "index": 0,
                "method": "GET",
                "path": "/v1/Customers",
                "query": "pageSize=1",
                "correlation_id": "a",
                "tenant": None,
                "client_id": None,
                "status": 401,
            },
            1,
        )
        assert sandbox.requests(since=following) == ([], 1)


def test_spawned_sandbox_with_a_wrong_setting_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="before it was ready"), spawned_sandbox(deleted_style="gone"):
        pass


def test_request_log_keeps_its_numbers_when_it_is_cleared(sandbox: Sandbox) -> None:
    api = Api(sandbox)
    url = f"{sandbox.base_url}/_sandbox/requests"
    first = requests.get(url, timeout=5).json()["next"]
    api.rows("Resellers")
    sandbox.clear_requests()
    api.rows("Providers/Instances")
    answer = requests.get(url, params={"since": first}, timeout=5).json()
    assert [(row["index"], row["path"], row["client_id"]) for row in answer["requests"]] == [
        (first + 1, "/v1/Providers/Instances", "sandbox-csp")
    ]
    assert answer["next"] == first + 2
    assert requests.get(url, params={"since": "x"}, timeout=5).status_code == 400


def test_fault_for_one_page_meets_that_page_until_cleared(sandbox: Sandbox) -> None:
    api = Api(sandbox)
    sandbox.faults.for_path("pageNumber=3", "error_500")
    numbers = (2, 3, 3, 30, 3)
    assert [api.call("Customers", pageSize=2, pageNumber=n).status_code for n in numbers] == [200, 500, 500, 200, 500]
    sandbox.clear()
    assert api.call("Customers", pageSize=2, pageNumber=3).status_code == 200


def test_fault_for_a_path_comes_so_many_times_and_in_turn(sandbox: Sandbox) -> None:
    api = Api(sandbox)
    sandbox.faults.for_path("/v1/RESELLERS", "forbidden", 2)
    sandbox.faults.for_path("/v1/resellers", "html_503", 1)
    assert api.status("Customers") == (200, True)
    assert [api.status("Resellers") for _ in range(4)] == [(403, False), (403, False), (503, True), (200, True)]


def test_forbidden_can_be_aimed_but_has_no_rate() -> None:
    assert set(AIMED_FAULT_KINDS) - set(FAULT_KINDS) == {"forbidden"}
    with pytest.raises(ValueError, match="unknown fault 'forbidden'"):
        Faults(forbidden=0.1)
    with pytest.raises(ValueError, match=r"unknown fault 'thunder'; valid are throttle, .*, forbidden"):
        Faults().for_path("/v1", "thunder")


@pytest.mark.parametrize(
    "body",
    [{}, {"path": 1, "kind": "reset"}, {"path": "x", "kind": None}, {"path": "x", "kind": "reset", "times": "2"}],
)
def test_aimed_fault_with_a_wrong_body_is_400_and_changes_nothing(sandbox: Sandbox, body: dict[str, Any]) -> None:
    answer = requests.post(f"{sandbox.base_url}/_sandbox/aimed-faults", json=body, timeout=5)
    assert answer.status_code == answer.json()["statusCode"] == 400
    assert not sandbox.faults.are_on


def test_limit_refuses_calls_but_no_sign_in_and_may_change(sandbox: Sandbox) -> None:
    api = Api(sandbox)
    sandbox.configure(calls_per_second=0.05)
    answers = [api.call("Customers", pageSize=1) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert 18 <= int(answers[1].headers["Retry-After"]) <= 20
    Api(sandbox)
    sandbox.configure(calls_per_second=0)
    assert api.call("Customers", pageSize=1).status_code == 200


@pytest.mark.parametrize(
    ("style", "waits"),
    [
        ("window", [None, None, 1, 1, None, None, 1]),
        ("bucket", [None, None, 1, None, None, 1, None]),
        ("minute", [None] * 7),
    ],
)
def test_limit_counts_as_its_style_says(style: str, waits: list[int | None]) -> None:
    """Two calls a second."""
    now = 0.0
    limit = RateLimit(lambda: now)
    seen = []
    for now in (0.0, 0.0, 0.25, 0.5, 1.0, 1.25, 1.5):  # noqa: B007 - the limit reads it
        seen.append(limit.refuse(2, style))
    assert seen == waits


def test_limit_by_minute_starts_anew_after_a_minute() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)
    assert [limit.refuse(0.05, "minute") for _ in range(4)] == [None, None, None, 60]
    now = 59.5
    assert limit.refuse(0.05, "minute") == 1
    now = 60.0
    assert limit.refuse(0.05, "minute") is None
