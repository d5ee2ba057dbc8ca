"""The scope list of a run: merged, joined with what was known, in the order of the list."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import INSTANCE, new_id

from cockpit_source.errors import ScopeListError
from cockpit_source.scope_list import PRIOR_SCHEMA, ScopeList, write_scope_list
from cockpit_source.scope_sources import iter_scopes
from cockpit_source.scopes import ListedScope, PriorState, Scope, parse_scope, scope_key
from cockpit_source.settings import ScopeSettings

A = Scope(new_id(1), INSTANCE, None)
B = Scope(new_id(2), INSTANCE, new_id(5))
C = Scope(new_id(3), INSTANCE, None)
SEEN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def write(folder: Path, scopes: Sequence[Scope], prior: Sequence[dict[str, Any]] = ()) -> ScopeList:
    folder.mkdir(exist_ok=True)
    return write_scope_list(folder, "t", scopes, [pa.Table.from_pylist([row], schema=PRIOR_SCHEMA) for row in prior])


def prior_row(scope: Scope, **values: Any) -> dict[str, Any]:
    return {"scope_key": scope_key("t", scope), **scope._asdict(), **values}


def listed_scopes(scope_list: ScopeList) -> list[Scope]:
    return [listed.scope for listed in scope_list.iter_scopes()]


def test_list_keeps_its_order_and_merges_duplicates(tmp_path: Path) -> None:
    scope_list = write(tmp_path, [C, A, C, B, A])
    assert listed_scopes(scope_list) == [C, A, B]
    assert (scope_list.total, scope_list.listed) == (3, 5)
    assert [listed.scope_key for listed in scope_list.iter_scopes()] == [
        f"t|{C.customer_id}|{INSTANCE}|-",
        f"t|{A.customer_id}|{INSTANCE}|-",
        f"t|{B.customer_id}|{INSTANCE}|{B.reseller_id}",
    ]


def test_spellings_of_one_scope_are_one(tmp_path: Path) -> None:
    rows = (
        {"customer_id": A.customer_id, "provider_instance_id": INSTANCE},
        {"customer_id": A.customer_id.upper(), "provider_instance_id": f"{{{INSTANCE}}}", "reseller_id": "-"},
        {"customer_id": f" {A.customer_id} ", "provider_instance_id": INSTANCE.upper(), "reseller_id": ""},
    )
    scopes = list(iter_scopes(ScopeSettings("tables", rows=rows), tmp_path, lambda _: iter(())))
    scope_list = write(tmp_path, scopes)
    assert (listed_scopes(scope_list), scope_list.listed) == ([A], 3)


def test_reseller_makes_another_scope(tmp_path: Path) -> None:
    with_reseller = A._replace(reseller_id=new_id(5))
    assert listed_scopes(write(tmp_path, [A, with_reseller])) == [A, with_reseller]


def test_hash_depends_on_the_set_alone(tmp_path: Path) -> None:
    assert write(tmp_path, [A, B, C]).scopes_hash == write(tmp_path, [C, B, A, B]).scopes_hash
    assert write(tmp_path, [A, B]).scopes_hash != write(tmp_path, [A, B, C]).scopes_hash
    # written into runs and spools: another value would end every interrupted run
    assert write(tmp_path, [A]).scopes_hash == "06381410f7f9636e"


def test_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ScopeListError, match=r"The scope list is empty; nothing was loaded and nothing was changed\. Ch"
    ):
        write(tmp_path, [])


def test_wrong_line_at_the_end_leaves_no_list(tmp_path: Path) -> None:
    def scopes() -> Iterator[Scope]:
        yield A
        raise ScopeListError("line 2")

    with pytest.raises(ScopeListError, match="line 2"):
        write_scope_list(tmp_path, "t", scopes())
    assert not (tmp_path / "scopes.parquet").exists()


def test_prior_state_is_joined(tmp_path: Path) -> None:
    known = prior_row(
        A,
        first_seen_at=SEEN,
        last_listed_run_id="r2",
        last_run_id="r2",
        last_outcome="failed",
        last_good_run_id="r1",
        last_good_at=SEEN,
        failing_runs=3,
    )
    delisted = prior_row(B, first_seen_at=SEEN, delisted_at=SEEN, failing_runs=None)
    scope_list = write(tmp_path, [B, A, C], [known, delisted])
    assert list(scope_list.iter_scopes()) == [
        ListedScope(scope_key("t", B), B, PriorState(first_seen_at=SEEN, delisted_at=SEEN)),
        ListedScope(scope_key("t", A), A, PriorState(SEEN, "r2", "r1", SEEN, 3)),
        ListedScope(scope_key("t", C), C, PriorState()),
    ]
    assert pq.read_table(scope_list.unlisted_path).num_rows == 0


def test_unlisted_are_the_known_ones_that_are_not_delisted_yet(tmp_path: Path) -> None:
    unlisted = prior_row(B, first_seen_at=SEEN, last_run_id="r1", last_outcome="ok", failing_runs=0)
    scope_list = write(tmp_path, [A], [prior_row(A), unlisted, prior_row(C, delisted_at=SEEN)])
    rows = pq.read_table(scope_list.unlisted_path).to_pylist()
    assert rows == [dict.fromkeys(PRIOR_SCHEMA.names) | unlisted | {"held_licenses": 0}]
    assert listed_scopes(scope_list) == [A]


def test_prior_of_another_column_order_is_taken(tmp_path: Path) -> None:
    """As a warehouse gives it: other types for times and counts, more columns."""
    names = [*reversed(PRIOR_SCHEMA.names), "extra"]
    types = {"failing_runs": pa.int32(), "delisted_at": pa.timestamp("ms", tz="Europe/Berlin")}
    schema = pa.schema(
        [(name, types.get(name, pa.string() if name == "extra" else PRIOR_SCHEMA.field(name).type)) for name in names]
    )
    table = pa.Table.from_pylist(
        [prior_row(A, failing_runs=2, delisted_at=SEEN.replace(microsecond=0))], schema=schema
    )
    (listed,) = write_scope_list(tmp_path, "t", [A], [table]).iter_scopes()
    assert listed.prior == PriorState(failing_runs=2, delisted_at=SEEN.replace(microsecond=0))


def test_scopes_of_read_batches_are_left_out(tmp_path: Path) -> None:
    batches = [tmp_path / "it's batch 1.parquet", tmp_path / "batch 2.parquet"]
    for path, scopes in zip(batches, ([C], [A, B]), strict=True):
        pq.write_table(pa.table({"scope_key": [scope_key("t", scope) for scope in scopes]}), path)
    scope_list = write(tmp_path, [A, B, C])
    assert [listed.scope for listed in scope_list.iter_scopes(batches[:1])] == [A, B]
    assert list(scope_list.iter_scopes(batches)) == []


def test_folder_with_a_quote_in_its_name_works(tmp_path: Path) -> None:
    assert listed_scopes(write(tmp_path / "it's", [A])) == [A]


def test_many_scopes_are_streamed_in_chunks(tmp_path: Path) -> None:
    """Neither writing nor reading ever holds more than a chunk of the list as Python objects."""
    count = 50_000
    most_alive = 0

    class Counted(str):
        alive = 0
        __slots__ = ()

        def __init__(self, _: str) -> None:
            Counted.alive += 1

        def __del__(self) -> None:
            Counted.alive -= 1

    def scopes() -> Iterator[Scope]:
        nonlocal most_alive
        for number in range(count):
            most_alive = max(most_alive, Counted.alive)
            yield Scope(Counted(f"{number:08x}-0000-4000-8000-000000000000"), INSTANCE, None)

    gc.collect()
    scope_list = write_scope_list(tmp_path, "t", scopes())
    assert (scope_list.total, scope_list.listed) == (count, count)
    assert most_alive <= 2 * 5_000
    read = (listed.scope.customer_id for listed in scope_list.iter_scopes())
    assert all(customer.startswith(f"{number:08x}-") for number, customer in enumerate(read))
    stopped = scope_list.iter_scopes()
    assert next(stopped).scope.customer_id.startswith("00000000-")
    stopped.close()
    assert len(list(scope_list.iter_scopes())) == count


_SCOPES = st.builds(
    Scope,
    st.integers(1, 6).map(new_id),
    st.sampled_from([INSTANCE, new_id(9)]),
    st.one_of(st.none(), st.integers(20, 22).map(new_id)),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scopes=st.lists(_SCOPES, min_size=1, max_size=12), known=st.sets(_SCOPES), delisted=st.sets(_SCOPES))
def test_any_list_is_merged_and_told_apart_from_what_was_known(
    tmp_path: Path, scopes: list[Scope], known: set[Scope], delisted: set[Scope]
) -> None:
    prior = [prior_row(scope, delisted_at=SEEN if scope in delisted else None) for scope in known]
    scope_list = write(tmp_path, scopes, prior)
    assert listed_scopes(scope_list) == list(dict.fromkeys(scopes))
    assert (scope_list.total, scope_list.listed) == (len(set(scopes)), len(scopes))
    assert scope_list.scopes_hash == write(tmp_path / "sorted", sorted(set(scopes), key=str)).scopes_hash
    assert {row["scope_key"] for row in pq.read_table(scope_list.unlisted_path).to_pylist()} == {
        scope_key("t", scope) for scope in known - delisted - set(scopes)
    }


@settings(max_examples=50)
@given(scope=_SCOPES)
def test_scope_is_the_same_after_writing_it_as_a_line(scope: Scope) -> None:
    assert parse_scope(scope._asdict()) == scope
    assert parse_scope({name: value and value.upper() for name, value in scope._asdict().items()}) == scope
