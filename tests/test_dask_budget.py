"""The budget that all workers share, on a clock of its own, and the inbox for their batches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cockpit_source.errors import CallRecord, ConfigurationError
from cockpit_source.fanout.budget import HORIZON_SECONDS, SILENT_SECONDS, SharedBudget
from cockpit_source.fanout.inbox import Inbox, InboxError
from cockpit_source.outcomes import ScopeResult
from cockpit_source.scopes import ListedScope, Scope
from cockpit_source.spool import encode_batch, to_batch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """Members that use every call they are given at its moment and end it a little later, unless they died."""

    def __init__(self, rate: float | None, most: int = 96) -> None:
        self.clock = Clock()
        self.budget = SharedBudget(most, rate, self.clock)
        self.starts: list[float] = []
        self.running: dict[str, list[float]] = {}

    def step(self, name: str, wanted: int, ending: str = "FINE", asked: float | None = None) -> int:
        """One exchange, in which all calls that have run for 20 ms end so; gives how many calls it was given."""
        now = self.clock.now
        calls = self.running.setdefault(name, [])
        ended = [start for start in calls if start <= now - 0.02]
        self.running[name] = [start for start in calls if start > now - 0.02]
        endings = [(now - start, now - start - 0.02, ending, asked) for start in ended]
        grant = self.budget.exchange(name, endings, waiting=wanted, hold_seconds=asked or 0.0 if ended else 0.0)
        given_starts = [now + start for start in grant.starts]
        self.starts += given_starts
        self.running[name] += given_starts
        return len(given_starts)


def _most_in_a_second(starts: list[float]) -> int:
    ordered = sorted(starts)
    return max(sum(1 for other in ordered if start <= other < start + 1.0 - 1e-9) for start in ordered)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(1, 80),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.floats(0, 0.3)), min_size=5, max_size=120),
)
def test_members_together_never_exceed_the_rate(rate: float, steps: list[tuple[str, int, float]]) -> None:
    """Whoever asks when and dies when: in no second more calls may start than the budget allows."""
    workers = Workers(rate)
    for name, wanted, pause in steps:
        workers.step(name, wanted)
        workers.clock.now += pause
    if workers.starts:
        assert _most_in_a_second(workers.starts) <= rate + 1


def test_two_members_reach_the_rate() -> None:
    workers = Workers(40.0)
    for _ in range(200):
        workers.step("a", 20)
        workers.step("b", 20)
        workers.clock.now += 0.05
    assert len([start for start in workers.starts if start < 110.0]) == pytest.approx(400, abs=10)


def test_calls_of_a_dead_member_are_lost_and_free_their_places() -> None:
    """Its moments are not given out again, and what it held counts until it was silent for long enough."""
    workers = Workers(None, most=4)
    assert workers.step("dead", 10) == 4
    assert workers.step("b", 10) == 0
    workers.clock.now += SILENT_SECONDS + 0.1
    assert workers.step("b", 10) == 4


def test_wait_that_one_is_asked_for_holds_all_back() -> None:
    workers = Workers(None)
    for name in "ab":
        workers.step(name, 5)
    workers.clock.now += 0.05
    assert workers.step("a", 5, "THROTTLED", asked=3.0) == 0
    workers.clock.now += 1.0
    assert workers.step("b", 5) == 0
    # given out ahead, and not before the end of the wait
    workers.clock.now += 2.0 - HORIZON_SECONDS / 2
    before = len(workers.starts)
    assert workers.step("b", 5) > 0
    assert min(workers.starts[before:]) >= 103.05


def test_more_members_than_calls_take_turns() -> None:
    workers = Workers(None, most=1)
    given_to = {"a": 0, "b": 0, "c": 0}
    for _ in range(300):
        for name in given_to:
            given_to[name] += workers.step(name, 3)
            workers.clock.now += 0.01
    assert min(given_to.values()) > 50
    assert max(given_to.values()) - min(given_to.values()) <= 2


def test_known_rate_is_reached_though_endings_are_told_late() -> None:
    """Each member keeps to its share of the calls at a time itself, so none waits for the news of another."""
    workers = Workers(40.0, most=4)
    for _ in range(60):
        workers.step("a", 20)
        workers.step("b", 20)
        workers.clock.now += 0.15
    assert len([start for start in workers.starts if start < 109.0]) == pytest.approx(360, abs=10)
    assert workers.budget.exchange("a", waiting=1).most == 2


def _batch(key: str) -> object:
    scope = ListedScope(key, Scope("c", "p", None))
    return to_batch([ScopeResult(scope, "empty", NOW, CallRecord(200))])


@pytest.mark.parametrize("address", ["{tmp}/spool", "file://{tmp}/spool", "memory://spool-{tmp}"])
def test_batch_in_the_inbox_is_whole_or_not_there(tmp_path: Path, address: str) -> None:
    """A file that is cut off, changed, unfinished or of others is no batch."""
    inbox = Inbox(address.format(tmp=tmp_path) + "/run")
    assert inbox.names() == []
    name = inbox.publish("000001", _batch("k"))
    assert inbox.names("000001.") == [name]
    batch = inbox.read(name)
    assert batch is not None
    assert batch["scope_key"].to_pylist() == ["k"]
    content = encode_batch(batch)
    for other in (content[:-10], content.replace(b"k", b"j"), b""):
        inbox.put(name, other)
        assert inbox.read(name) is None
    inbox.put(".000002.x.parquet.tmp", content)
    inbox.put("000002.x.parquet", content)
    assert inbox.names("000002.") == ["000002.x.parquet"]
    assert inbox.read("000002.x.parquet") is None
    inbox.discard(name)
    inbox.discard(name)
    assert inbox.read(name) is None
    inbox.remove()
    assert inbox.names() == []


def test_inbox_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InboxError, match=r"cannot be written: .*Set spool_url to a folder or object store"):
        Inbox(f"{tmp_path}/file/spool").publish("000001", _batch("k"))
    with pytest.raises(ConfigurationError, match=r"spool_url cannot be used: .* fsspec driver"):
        Inbox("nothing://bucket/spool")
