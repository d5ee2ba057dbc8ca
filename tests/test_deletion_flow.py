"""From a query to deletions that are proved: against the sandbox, a loaded inventory and the real ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from offboarding_world import Shared, World, new_world, shared_world

from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.sandbox import LoggedRequest


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: Shared, tmp_path: Path) -> World:
    return new_world(shared, tmp_path)


def test_the_good_way(world: World) -> None:
    place = ledger_place(world.inventory.pipeline())
    seen: list[tuple[Any, Any, Any]] = []

    def look(request: LoggedRequest, _: int) -> None:
        line = json.loads(place.file_in(world.folder).read_text().splitlines()[-1])
        with duckdb.connect(str(place.database), config={"threads": 1}) as connection:
            stored = connection.execute(
                "SELECT kind, correlation_id FROM cockpit_deletions.deletion_events ORDER BY seq DESC LIMIT 1"
            ).fetchone()
        seen.append((request.correlation_id, (line["kind"], line["correlation_id"]), stored))

    world.gate.on_delete = look
    plan = world.plan(*world.three)
    assert world.sent() == []
    applied = world.apply(plan)
    assert (applied.is_done, applied.stop) == (True, None)
    a, b = sorted((world.a, world.b))
    assert world.sent() == [world.path(a, removes=True), world.path(b, removes=True), world.path(world.a)]
    ids = [request.correlation_id for request in world.requests()]
    assert len(set(ids)) == 3
    assert seen == [(known, ("intent", known), ("intent", known)) for known in ids]
    assert world.story() == [
        "plan",
        "apply_started unattended",
        *(f"{kind} {item}{what}" for item in (1, 2, 3) for kind, what in ITEM),
        "finished {'verified': 3}",
    ]


ITEM = (("intent", ""), ("outcome", " accepted"), ("settled", " verified"))
