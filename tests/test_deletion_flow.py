"""From a query to deletions that are proved: against the sandbox, a loaded inventory and the real ledger."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from offboarding_world import ACTOR, Shared, World, new_world, shared_world
from support import read_rows, sku

from cockpit_source.cli import main
from cockpit_source.deletions.ledger_place import LedgerPlace, ledger_place
from cockpit_source.deletions.planner import make_plan
from cockpit_source.deletions.records import Plan
from cockpit_source.deletions.selection import DeletionQuery
from cockpit_source.sandbox import CSP_CLIENT, LoggedRequest

ITEM = (("intent", ""), ("outcome", " accepted"), ("settled", " verified"))
GOOD_STORY = [
    "plan",
    "apply_started unattended",
    *(f"{kind} {item}{result}" for item in (1, 2, 3) for kind, result in ITEM),
    "finished {'verified': 3}",
]
LEFT = """
-- customers that hold no seat, of a list that somebody keeps
WITH gone AS (
    SELECT c.tenant, c.id, c.company_name FROM customers c
    WHERE c.id IN ({ids}) AND NOT EXISTS (
        SELECT 1 FROM licenses l WHERE l.customer_id = c.id AND l.consumed_licenses > 0)
)
SELECT 'delete_customer' AS action, g.id AS customer_id, CAST(NULL AS VARCHAR) AS provider_instance_id,
    g.company_name || ' has left' AS reason
FROM gone g
WHERE g.id = '{deleted}'
UNION ALL
SELECT 'remove_reseller_relationship', s.customer_id, s.provider_instance_id, g.company_name || ' has left'
FROM gone g JOIN scopes s ON s.tenant = g.tenant AND s.customer_id = g.id WHERE s.delisted_at IS NULL
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(params=["duckdb", "postgres"])
def world(request: pytest.FixtureRequest, shared: Shared, tmp_path: Path) -> World:
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    world = new_world(shared, tmp_path, destination=request.param)
    if request.param == "postgres":
        assert world.load().exit_code == 0
    return world


def latest_event(place: LedgerPlace) -> tuple[Any, ...]:
    """What another connection sees, which is what was committed."""
    sql = "SELECT kind, correlation_id FROM cockpit_deletions.deletion_events ORDER BY seq DESC LIMIT 1"
    if place.database is not None:
        with duckdb.connect(str(place.database), config={"threads": 1}) as connection:
            return connection.execute(sql).fetchall()[0]
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"]
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return tuple(cursor.fetchall()[0])


def make_left_plan(world: World) -> Plan:
    query = LEFT.format(ids=f"'{world.a}', '{world.b}'", deleted=world.a)
    with world.session() as session:
        plan = make_plan(session, DeletionQuery("left.sql", query))
    assert plan is not None
    return plan


def test_the_good_way(world: World) -> None:
    place = ledger_place(world.pipeline)
    seen: list[Any] = []

    def look(request: LoggedRequest, _: int) -> None:
        line = json.loads(place.file_in(world.folder).read_text().splitlines()[-1])
        seen.append((request.correlation_id, line["kind"], line["correlation_id"], *latest_event(place)))

    world.gate.on_delete = look
    plan = make_left_plan(world)
    assert world.sent() == []
    applied = world.apply(plan)
    assert (applied.is_done, applied.stop) == (True, None)

    a, b = sorted((world.a, world.b))
    paths = [world.path(a, removes=True), world.path(b, removes=True), world.path(world.a)]
    assert world.sent() == paths
    ids = [request.correlation_id for request in world.requests()]
    assert len(set(ids)) == 3
    assert seen == [(known, "intent", known, "intent", known) for known in ids]
    first, second = world.clock.slept
    assert 8 < first <= 10
    assert 8 < second <= 10

    records = world.records()
    assert world.story() == GOOD_STORY
    assert {record.actor for record in records} == {ACTOR}
    assert {record.plan_id for record in records} == {plan.plan_id}
    assert [record.at for record in records] == sorted(record.at for record in records)
    assert records[0].body == {"plan": plan.to_dict(), "plan_hash": plan.plan_hash}
    assert records[1].body == {
        "approved_by": "boss",
        "mode": "unattended",
        "plan_hash": plan.plan_hash,
        "limits": {
            "max_actions": 5,
            "max_percent": 1.0,
            "max_actions_per_day": 20,
            "max_age_hours": 24.0,
            "grace_days": 0.0,
            "protected_hash": plan.limits.protected_hash,
        },
        "resumed": False,
    }
    for kind, per_item in (("intent", ids), ("outcome", ids), ("settled", [None] * 3)):
        assert [record.correlation_id for record in records if record.kind == kind] == per_item
    assert [record.body for record in records if record.kind == "intent"] == [
        {"method": "DELETE", "path": path, "attempt": 1} for path in paths
    ]
    for record in records:
        if record.kind == "outcome":
            assert record.body == {
                "result": "accepted",
                "http_status": 202,
                "description": "HTTP 202: accepted",
                "server_correlation_id": None,
                "duration_ms": record.body["duration_ms"],
            }
    proofs = [record.body["proof"]["kind"] for record in records if record.kind == "settled"]
    assert proofs == ["audit_log", "audit_log", "not_found"]
    for secret in (CSP_CLIENT.secret, *world.sandbox.tokens._issued):
        assert secret not in world.ledger_text()
        assert secret not in "\n".join(world.said)


def test_the_plan_holds_its_evidence(world: World) -> None:
    plan = make_left_plan(world)
    assert (plan.tenant, plan.tenant_key) == (world.sandbox.tenant.domain, world.sandbox.tenant.domain)
    assert (plan.base_url, plan.created_by, plan.query_name) == (world.sandbox.base_url, ACTOR, "left.sql")
    assert plan.run.customers_listed == plan.customers_live == len(world.sandbox.tenant.customers)
    assert (plan.expires_at - plan.created_at).total_seconds() == 3600
    assert [item.number for item in plan.items] == [1, 2, 3]
    for item in plan.items:
        customer = world.customer(item.candidate.customer_id)
        assert item.candidate.reason == f"{customer.company_name} has left"
        assert item.inventory.company_name == item.live.company_name == customer.company_name
        assert item.inventory.reseller_id == item.live.reseller_id == customer.reseller_id
        assert item.live.relationships == customer.provider_instance_ids
        (scope,) = item.inventory.scopes
        assert (scope.provider_instance_id, scope.outcome, scope.skus) == (
            customer.provider_instance_ids[0],
            "empty",
            (),
        )
    # the planner reads only
    assert {request.method for request in world.sandbox.requests} <= {"GET", "POST"}


def test_what_is_known_of_a_deleted_customer_stays(world: World) -> None:
    world.inventory.answer(world.a, [sku("e3", 5, 5)])
    world.clock.advance(minutes=1)
    world.load()
    world.inventory.answer(world.a, [sku("e3", 5, 0)])
    world.clock.advance(minutes=1)
    world.load()

    def known() -> list[list[dict[str, Any]]]:
        return [
            [row for row in read_rows(world.inventory, table) if row["customer_id"] == world.a]
            for table in ("licenses", "license_history")
        ]

    before = known()
    assert [len(rows) for rows in before] == [1, 2]
    plan = world.plan(*world.three)
    (held,) = plan.items[-1].inventory.scopes[0].skus
    assert (held.sku_id, held.total_licenses, held.consumed_licenses) == ("e3", 5, 0)
    assert world.apply(plan).is_done
    assert known() == before
    world.clock.advance(minutes=1)
    world.sandbox.clear()
    assert world.load().exit_code == 0
    assert known() == before
    (customer,) = (row for row in read_rows(world.inventory, "customers") if row["id"] == world.a)
    assert customer["removed_at"] is not None


def test_refused_when_the_world_has_changed(world: World) -> None:
    plan = make_left_plan(world)
    world.return_customer(world.b)
    assert world.apply_refused(plan).code == "evidence_changed"
    assert world.plan_refused(*world.three).code == "consumed_seats"
    assert (world.sent(), world.story()) == ([], ["plan"])


def test_not_seen_then_settled_by_the_next_load(world: World) -> None:
    plan = world.plan(*world.three, verify_timeout_seconds=5.0)
    world.sandbox.deletion_delay_seconds = 3600
    applied = world.apply(plan, verify_timeout_seconds=5.0)
    assert applied.states == {1: "accepted_unverified", 2: "planned", 3: "planned"}
    assert world.plan_refused(*world.three).code == "unsettled"
    world.sandbox.deletion_delay_seconds = 0
    world.clock.advance(minutes=1)
    world.load()
    assert world.apply(plan).is_done
    proofs = [record.body["proof"].get("kind") for record in world.records() if record.kind == "settled"]
    assert proofs == [None, "inventory", "audit_log", "not_found"]
    assert len(world.sent()) == 3


def test_the_commands(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    query = LEFT.format(ids=f"'{world.a}', '{world.b}'", deleted=world.a)
    (world.folder / "left.sql").write_text(query)
    (world.folder / ".dlt" / "config.toml").open("a").write("seconds_between_calls = 0\n")
    where = ["--database", "inventory.duckdb"] if world.destination == "duckdb" else ["--destination", "postgres"]

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["cockpit", "deletions", *arguments, *where, "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return json.loads(capsys.readouterr().out)

    plan = run("plan", "--query", "left.sql")
    applied = run("apply", plan["plan_id"], "--hash", plan["plan_hash"], "--approved-by", "boss")
    assert [item["state"] for item in applied["items"]] == ["verified"] * 3
    assert [item["state"] for item in run("show")["items"]] == ["verified"] * 3
    assert run("verify") == []
    assert [record["kind"] for record in run("log")] == [words.split()[0] for words in GOOD_STORY]
