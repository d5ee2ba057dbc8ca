"""Reading many scopes at once, over HTTP against the sandbox: one result each, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from support import INSTANCE, new_id, sku

from cockpit_source.answers import Answer
from cockpit_source.client import CockpitClient
from cockpit_source.errors import CallRecord, SignInRefused, UnusableAnswer
from cockpit_source.fetch import MAX_FAILURES_IN_A_ROW, Fetcher
from cockpit_source.outcomes import ScopeResult, judge_answer
from cockpit_source.pacing import Pacer
from cockpit_source.sandbox import CSP_CLIENT, FAULT_KINDS, TOKEN_SCOPE, Sandbox, SandboxTenant, running_sandbox
from cockpit_source.scopes import ListedScope, Scope, scope_key
from cockpit_source.settings import build_settings
from cockpit_source.transport import Transport

TENANT = SandboxTenant(customers=45, incidents=False)
SCOPES = [Scope(*ids) for ids in TENANT.scopes(0)]
MOMENT = datetime(2026, 3, 1, 6, tzinfo=UTC)
# those of the runs of a test
TRANSPORTS: list[Transport] = []


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox without faults; waits between attempts are short, and no worker may be left at the end."""
    monkeypatch.setattr("cockpit_source.pacing.BACKOFF_BASE_SECONDS", 0.01)
    running.clear()
    running.tokens.revoke_all()
    running.clear_requests()
    yield running
    assert workers_alive() == []
    TRANSPORTS.clear()


@dataclass
class Run:
    """A fetcher on the sandbox, and what came out of it."""

    sandbox: Sandbox
    max_concurrency: int = 8
    deadline_seconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        raw = {
            "tenant": TENANT.domain,
            "base_url": self.sandbox.base_url,
            "token_url": self.sandbox.token_url,
            "token_scope": TOKEN_SCOPE,
            "client_id": CSP_CLIENT.id,
            "client_secret": CSP_CLIENT.secret,
            "customers": [new_id(1)],
            "provider_instances": [INSTANCE],
            "max_concurrency": self.max_concurrency,
            "max_attempts": 1,
            "timeout_seconds": 5,
        }
        settings = build_settings(raw | self.settings)
        self.pacer = Pacer(settings.max_requests_per_second)
        transport = Transport(settings.timeout_seconds, settings.max_concurrency)
        TRANSPORTS.append(transport)
        self.client = CockpitClient(settings, pacer=self.pacer, transport=transport)
        self.fetcher = Fetcher(
            self.client,
            self.pacer,
            max_concurrency=settings.max_concurrency,
            deadline_seconds=self.deadline_seconds,
            now=lambda: MOMENT,
        )

    def results(self, scopes: Iterable[Scope], meanwhile: Callable[[int], object] | None = None) -> list[ScopeResult]:
        """All results; `meanwhile` is called with the number of results so far, from 1, after each."""
        results = []
        with self.client:
            for result in self.fetcher.fetch(map(listed, scopes)):
                results.append(result)
                if meanwhile is not None:
                    meanwhile(len(results))
        assert self.client.calls.in_flight == 0
        return results


def listed(scope: Scope) -> ListedScope:
    return ListedScope(scope_key("t", scope), scope)


def workers_alive() -> list[str]:
    """The workers of any fetch that have not ended, of every run of this test."""
    tasks = (task for transport in TRANSPORTS for task in asyncio.all_tasks(transport._loop))
    return [task.get_name() for task in tasks if "Fetcher.fetch" in task.get_coro().__qualname__]


def made_up(count: int) -> list[Scope]:
    """Scopes that the tenant does not have; the sandbox answers them as scripted, else with 404."""
    return [Scope(new_id(number), INSTANCE, None) for number in range(count)]


def outcomes(results: Iterable[ScopeResult]) -> dict[str, int]:
    return dict(Counter(result.outcome for result in results))


def check_one_each(results: Sequence[ScopeResult], scopes: Sequence[Scope]) -> None:
    """Exactly one result per scope, with the tenant's rows where it was read and none where it was not."""
    assert Counter(result.listed.scope for result in results) == Counter(scopes)
    for result in results:
        assert result.observed_at == MOMENT
        if result.outcome in ("ok", "empty"):
            seats = {row.sku_id: row.total_licenses for row in result.rows}
            assert seats == expected_seats(result.listed.scope)
            assert result.license_count == len(result.rows)
            assert result.error_type is None
        else:
            assert (result.rows, result.license_count) == ((), None)
            assert result.error_type
            assert result.error_description


def expected_seats(scope: Scope) -> dict[str, int]:
    rows = TENANT.licenses(scope.customer_id, scope.provider_instance_id, 0)
    return {row["skuId"]: row["totalLicenses"] for row in rows}


def token_requests(sandbox: Sandbox) -> int:
    return sum(request.method == "POST" for request in sandbox.requests)


@pytest.mark.parametrize("max_concurrency", [1, 8])
def test_calls_in_flight_reach_the_limit_and_stay_within(sandbox: Sandbox, max_concurrency: int) -> None:
    sandbox.faults.configure(latency_ms=40)
    scopes = SCOPES[: 3 * max_concurrency]
    results = Run(sandbox, max_concurrency=max_concurrency).results(scopes)
    check_one_each(results, scopes)
    assert sandbox.peak_in_flight <= max_concurrency
    assert sandbox.peak_in_flight >= max_concurrency - 1
    assert token_requests(sandbox) == 1


def test_limit_of_requests_per_second_is_kept_by_all_workers_together(sandbox: Sandbox) -> None:
    started = time.monotonic()
    results = Run(sandbox, settings={"max_requests_per_second": 40}).results(SCOPES[:30])
    check_one_each(results, SCOPES[:30])
    # the first may be followed at once by one more
    assert time.monotonic() - started >= 28 / 40


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_scope_has_one_result_when_a_third_of_the_calls_fail(
    sandbox: Sandbox, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cockpit_source.transport.MAX_ANSWER_BYTES", 300_000)
    sandbox.faults.configure(**{kind: 0.3}, retry_after_seconds=0, oversized_bytes=300_000)
    settings = {"max_attempts": 2, "timeout_seconds": 0.5 if kind == "hang" else 10}
    run = Run(sandbox, max_concurrency=16, settings=settings)
    results = run.results(SCOPES)
    check_one_each(results, SCOPES)
    counts = outcomes(results)
    if kind == "expired_token":
        # a token that is refused although it was just issued ends the run
        assert isinstance(run.fetcher.sign_in_error, SignInRefused)
        assert counts["skipped"] > 0
    else:
        assert run.fetcher.stop_reason is None
        assert counts["ok"] >= len(SCOPES) // 2
        failed = "deferred" if kind.startswith("throttle") else "failed"
        assert counts.keys() <= {"ok", "empty", failed}
    retried = sum(result.call.attempts == 2 for result in results)
    assert bool(retried) == (kind not in ("wrong_shape", "sign_in_page", "redirect", "oversized"))


def test_every_scope_has_one_result_with_all_faults_at_once(sandbox: Sandbox) -> None:
    kinds = [kind for kind in FAULT_KINDS if kind not in ("oversized", "expired_token", "throttle_date")]
    sandbox.faults.configure(**dict.fromkeys(kinds, 0.05), retry_after_seconds=0)
    run = Run(sandbox, max_concurrency=16, settings={"max_attempts": 3, "timeout_seconds": 0.5})
    results = run.results(SCOPES)
    check_one_each(results, SCOPES)
    assert run.fetcher.stop_reason is None
    assert outcomes(results)["ok"] > len(SCOPES) // 2


def test_each_status_has_its_outcome(sandbox: Sandbox) -> None:
    answers = {
        "ok": (200, b'[{"skuId":"e3","totalLicenses":1}]'),
        "empty": (200, b"[]"),
        "invalid": (400, b"{}"),
        "forbidden": (403, b""),
        "not_found": (404, b""),
        "failed": (418, b""),
        "deferred": (429, b""),
    }
    scopes = made_up(len(answers))
    for scope, (status, body) in zip(scopes, answers.values(), strict=True):
        sandbox.answer(scope.customer_id, body, status)
    results = Run(sandbox).results(scopes)
    assert {result.listed.scope: result.outcome for result in results} == dict(zip(scopes, answers, strict=True))
    assert {result.call.http_status for result in results} == {200, 400, 403, 404, 418, 429}


def test_50_failures_in_a_row_stop_the_run(sandbox: Sandbox) -> None:
    sandbox.faults.configure(error_500=1)
    scopes = made_up(120)
    run = Run(sandbox, max_concurrency=4)
    results = run.results(scopes)
    check_one_each(results, scopes)
    counts = outcomes(results)
    assert MAX_FAILURES_IN_A_ROW <= counts["failed"] <= MAX_FAILURES_IN_A_ROW + 3
    reason = "50 scopes in a row failed, the last with InternalServerError: The sandbox was told to fail."
    assert run.fetcher.stop_reason == reason
    skipped = [result for result in results if result.outcome == "skipped"]
    assert {(result.error_type, result.error_description) for result in skipped} == {("run_stopped", reason)}
    assert {result.call for result in skipped} == {CallRecord()}
    # what was in flight at the stop is not judged
    assert len(sandbox.requests) <= 1 + counts["failed"] + 3


@pytest.mark.parametrize(
    ("pattern", "failed", "skipped"),
    [
        ("f" * 49 + "r", 49, 0),
        ("f" * 50 + "r", 50, 1),
        ("f" * 49 + "o" + "f" * 49, 98, 0),
        ("f" * 49 + "x" + "f" * 49, 98, 0),
        ("f" * 25 + "o" + "f" * 50 + "r" * 5, 75, 5),
    ],
)
def test_failures_count_only_while_nothing_else_comes_between(
    sandbox: Sandbox, pattern: str, failed: int, skipped: int
) -> None:
    """f fails, o is read, x is forbidden, and r is read unless the run has stopped before."""
    scopes = made_up(len(pattern))
    answers = {"f": (b"", 500), "o": (b"[]", 200), "x": (b"", 403), "r": (b"[]", 200)}
    for scope, letter in zip(scopes, pattern, strict=True):
        sandbox.answer(scope.customer_id, *answers[letter])
    counts = outcomes(Run(sandbox, max_concurrency=1).results(scopes))
    assert (counts["failed"], counts.get("skipped", 0)) == (failed, skipped)


def test_sign_in_refused_at_the_start_skips_everything_after_one_request(sandbox: Sandbox) -> None:
    run = Run(sandbox, settings={"client_secret": "wrong"})
    results = run.results(SCOPES)
    check_one_each(results, SCOPES)
    assert outcomes(results) == {"skipped": len(SCOPES)}
    assert isinstance(run.fetcher.sign_in_error, SignInRefused)
    assert run.fetcher.stop_reason == "the sign-in failed"
    assert [request.status for request in sandbox.requests] == [401]


def test_sign_in_refused_in_the_middle_skips_the_rest_at_once(sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=5)

    def refuse(number: int) -> None:
        if number == 10:
            sandbox.faults.for_sign_in("expired_token")
            sandbox.tokens.revoke_all()

    run = Run(sandbox, max_concurrency=4)
    results = run.results(SCOPES, refuse)
    check_one_each(results, SCOPES)
    counts = outcomes(results)
    assert counts.keys() == {"ok", "skipped"}
    assert 10 <= counts["ok"] <= 30
    assert isinstance(run.fetcher.sign_in_error, SignInRefused)
    assert {r.error_description for r in results if r.outcome == "skipped"} == {"the sign-in failed"}
    assert token_requests(sandbox) == 2


def test_token_that_expires_in_the_middle_is_renewed_and_costs_no_scope(sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=5)
    run = Run(sandbox, max_concurrency=8)
    results = run.results(SCOPES, lambda number: number == 10 and sandbox.tokens.revoke_all())
    check_one_each(results, SCOPES)
    assert outcomes(results).keys() <= {"ok", "empty"}
    assert 401 in {request.status for request in sandbox.requests}
    assert token_requests(sandbox) == 2


def test_deadline_lets_calls_finish_and_skips_the_rest(sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=100)
    started = time.monotonic()
    results = Run(sandbox, max_concurrency=2, deadline_seconds=0.5).results(SCOPES)
    assert time.monotonic() - started < 3
    check_one_each(results, SCOPES)
    counts = outcomes(results)
    assert counts.keys() == {"ok", "skipped"}
    assert counts["ok"] <= 12
    skipped = {result.error_description for result in results if result.outcome == "skipped"}
    assert skipped == {"run_deadline_minutes was reached"}


def test_deadline_that_has_passed_makes_no_request(sandbox: Sandbox) -> None:
    results = Run(sandbox, deadline_seconds=0).results(SCOPES)
    assert outcomes(results) == {"skipped": len(SCOPES)}
    assert sandbox.requests == []


def test_wait_beyond_patience_defers_the_scope_and_no_other(sandbox: Sandbox) -> None:
    sandbox.faults.configure(retry_after_seconds=3600)
    sandbox.faults.for_customer(SCOPES[3].customer_id, "throttle")
    scopes = [scope for scope in SCOPES if scope.customer_id != SCOPES[3].customer_id] + [SCOPES[3]]
    results = Run(sandbox, settings={"max_attempts": 5, "patience_seconds": 60}).results(scopes)
    check_one_each(results, scopes)
    (deferred,) = [result for result in results if result.outcome not in ("ok", "empty")]
    assert (deferred.outcome, deferred.listed.scope) == ("deferred", SCOPES[3])
    assert deferred.error_description == "the API asked to wait 3600 s, longer than patience_seconds"
    assert deferred.call.attempts == 1


def test_stop_by_the_reader_skips_the_rest_for_the_first_reason(sandbox: Sandbox) -> None:
    run = Run(sandbox, max_concurrency=2)

    def stop(number: int) -> None:
        if number == 5:
            run.fetcher.stop("the disk is full")
            run.fetcher.stop("another reason")

    sandbox.faults.configure(latency_ms=5)
    results = run.results(SCOPES, stop)
    check_one_each(results, SCOPES)
    assert 5 <= outcomes(results)["ok"] <= 5 + 20
    assert {r.error_description for r in results if r.outcome == "skipped"} == {"the disk is full"}


def test_scope_whose_retries_were_cut_short_by_a_stop_is_skipped_not_failed(sandbox: Sandbox) -> None:
    sandbox.faults.configure(retry_after_seconds=100)
    sandbox.faults.for_customer(SCOPES[0].customer_id, "throttle")
    run = Run(sandbox, max_concurrency=2, settings={"max_attempts": 5})
    threading.Timer(0.3, run.fetcher.stop, ["interrupted"]).start()
    started = time.monotonic()
    results = run.results(SCOPES[:1])
    assert time.monotonic() - started < 5
    assert [(result.outcome, result.error_description) for result in results] == [("skipped", "interrupted")]
    assert len(sandbox.requests) == 2


def test_reader_that_leaves_early_ends_all_workers_and_calls(sandbox: Sandbox) -> None:
    sandbox.faults.configure(latency_ms=20)
    run = Run(sandbox, max_concurrency=8)
    results = run.fetcher.fetch(map(listed, SCOPES))
    with run.client:
        assert next(results).outcome == "ok"
        assert len(workers_alive()) == 8
        results.close()
        assert workers_alive() == []
        made = len(sandbox.requests)
        assert made < 1 + 3 * 8
        time.sleep(0.1)
        assert len(sandbox.requests) == made
    assert run.fetcher.stop_reason == "the reader of the results stopped"


def test_reader_that_leaves_early_ends_workers_that_wait_for_another_attempt(sandbox: Sandbox) -> None:
    sandbox.faults.configure(retry_after_seconds=100)
    sandbox.answer(SCOPES[0].customer_id, b"[]")
    sandbox.faults.for_customer(SCOPES[1].customer_id, "throttle")
    run = Run(sandbox, max_concurrency=1, settings={"max_attempts": 5})
    results = run.fetcher.fetch(map(listed, SCOPES))
    with run.client:
        next(results)
        started = time.monotonic()
        results.close()
    assert time.monotonic() - started < 5
    assert workers_alive() == []


def test_generator_that_is_never_read_starts_nothing(sandbox: Sandbox) -> None:
    run = Run(sandbox)
    run.fetcher.fetch(map(listed, SCOPES)).close()
    assert workers_alive() == []
    assert sandbox.requests == []


def test_error_in_the_scope_list_is_raised_after_the_results(sandbox: Sandbox) -> None:
    def broken() -> Iterator[Scope]:
        yield from SCOPES[:5]
        raise LookupError("the scope list broke off")

    run = Run(sandbox, max_concurrency=4)
    seen: list[ScopeResult] = []
    with pytest.raises(LookupError, match="the scope list broke off"):
        seen.extend(run.fetcher.fetch(map(listed, broken())))
    assert Counter(result.listed.scope for result in seen) == Counter(SCOPES[:5])
    assert run.fetcher.stop_reason == "an unexpected error: the scope list broke off"
    assert workers_alive() == []


def test_error_that_nobody_expected_is_raised_and_ends_the_run(sandbox: Sandbox) -> None:
    run = Run(sandbox, max_concurrency=2)
    scopes = [*SCOPES[:3], Scope("not-an-id", INSTANCE, None), *SCOPES[3:]]
    with pytest.raises(ValueError, match="'not-an-id' is not a UUID"):
        run.results(scopes)
    assert workers_alive() == []


def test_slow_reader_holds_the_workers_back(sandbox: Sandbox) -> None:
    """A list of any length costs bounded memory: scopes are taken from it as results are read."""
    taken: list[int] = []

    def endless() -> Iterator[Scope]:
        for number in itertools.count():
            taken.append(number)
            yield Scope(new_id(1), INSTANCE, None)

    sandbox.answer(new_id(1), b"[]")
    run = Run(sandbox, max_concurrency=4)
    results = run.fetcher.fetch(map(listed, endless()))
    with run.client:
        next(results)
        before = 0
        while before < len(taken):
            before = len(taken)
            time.sleep(0.3)
        # the one that was read, those that wait for the reader, and one in the hands of each worker
        assert len(taken) <= 1 + 256 + 4
        results.close()
    assert workers_alive() == []


def test_no_scopes_give_no_results_and_no_requests(sandbox: Sandbox) -> None:
    assert Run(sandbox).results([]) == []
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (None, "null"),
        ("text", "text"),
        (True, "true or false"),
        (7, "a number"),
        (1.5, "a number"),
        ({}, "an object with no members"),
        ({"b": 1, "a": 2}, "an object with a, b"),
        (dict.fromkeys("gfedcba"), "an object with a, b, c, d, e"),
        ({"items": [1], "hasNextPage": True}, "one page of several"),
        ({"ada@example.com": 1, "\ud800": 2}, "an object with [redacted], \ufffd"),
        ({"x" * 10_000: 1}, "an object with " + "x" * 100),
    ],
)
def test_answer_of_another_shape_is_unusable_and_named(body: object, shape: str) -> None:
    with pytest.raises(UnusableAnswer) as caught:
        judge_answer(listed(SCOPES[0]), Answer(body, CallRecord(200)), MOMENT)
    assert caught.value.error_type == "wrong_shape"
    assert caught.value.description == f"the answer is {shape}, not an array of licence rows"
    assert not caught.value.transient


def test_answer_with_a_row_that_does_not_fit_fails_as_a_whole() -> None:
    items = [sku("a"), {"skuId": None}, sku("b", totalLicenses="12")]
    result = judge_answer(listed(SCOPES[0]), Answer(items, CallRecord(200)), MOMENT)
    assert (result.outcome, result.rows, result.license_count) == ("failed", (), None)
    assert (result.error_type, result.error_description) == (
        "unfit_rows",
        "2 of 3 rows do not fit; row 1: skuId is missing",
    )
    assert [(reject.position, reject.reason) for reject in result.rejected] == [
        (1, "skuId is missing"),
        (2, "totalLicenses is not a whole number"),
    ]
