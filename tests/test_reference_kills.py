"""Reference loads that are killed for real, and loads of licences around them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict

import psycopg2
import pytest
from support import INSTANCE, Inventory, Model, ScopeIds, day, new_id, sku
from test_recovery import SCOPES, TRIGGERS, _answer_slowly, _answers, _kill_load
from test_reference_data import HEADER, prices_of, states, supply
from test_sku_catalog_file import NAMES_FILE, PLANS, PRODUCTS

from cockpit_source.settings import MartSettings

TRIALS = 4
SCOPE: ScopeIds = (new_id(1), INSTANCE, None)

_CHILD = """
import json, sys
from cockpit_source.pipeline import create_pipeline
from cockpit_source.reference_data import load_reference_data
from cockpit_source.settings import MartSettings
order = json.load(sys.stdin)
pipeline = create_pipeline(**order["pipeline"])
print("ready", flush=True)
load_reference_data(pipeline, MartSettings(**order["settings"]))
"""


def price_list(day_number: int) -> str:
    """So many prices that a kill meets them in the making."""
    lines = (f"SKU {number},{number}.{day_number},EUR,2026-01-01\n" for number in range(5_000))
    return HEADER + "".join(lines)


def start(inventory: Inventory, prices: str) -> subprocess.Popen[str]:
    """A reference load in a process of its own, which is about to begin."""
    path = inventory.database.with_name("child.csv")
    path.write_text(prices)
    settings = MartSettings(inventory.tenant_key, price_list=str(path), sku_catalog=str(NAMES_FILE))
    order = {
        "pipeline": {
            "tenant_key": inventory.tenant_key,
            "destination": inventory.destination,
            "database": str(inventory.database) if inventory.destination == "duckdb" else None,
            "pipelines_dir": str(inventory.database.parent / "work" / "pipelines"),
        },
        "settings": asdict(settings),
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(order))
    child.stdin.close()
    assert child.stdout.readline() == "ready\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def check_both(inventory: Inventory, model: Model, number: int) -> None:
    """The next load of licences is exact, and so is the next of the lists."""
    rows = [sku("e3", number)]
    inventory.answer(SCOPE[0], rows)
    result = inventory.load([SCOPE], day(number))
    assert result.exit_code == 0
    model.run(result.run_id, day(number), {SCOPE: ("ok", rows)})
    model.check(inventory)
    after = supply(inventory, price_list(number), NAMES_FILE.read_bytes())
    assert {name: rows for name, (rows, _) in states(after).items()} == {
        "sku_prices": 5_000,
        "sku_catalog": len(PRODUCTS),
        "sku_service_plans": len(PLANS),
    }
    for name in ("sku_prices", "sku_catalog", "sku_service_plans"):
        keys = {tuple(row.values()) for row in inventory.rows(name)}
        assert len(keys) == len(inventory.rows(name)) == states(after)[name][0]
    assert {str(price) for _, price, _, _ in prices_of(inventory)} == {
        f"{sku_number}.{number}000" for sku_number in range(5_000)
    }


def test_killed_at_random_instants_it_damages_nothing(inventory: Inventory) -> None:
    """Each list is there as it was before or as it is after, and nothing of it is left in the way."""
    model, draws = Model(inventory.tenant_key), random.Random(7)
    child = start(inventory, price_list(0))
    began = time.monotonic()
    assert child.wait(timeout=60) == 0
    seconds = time.monotonic() - began
    for number in range(1, 1 + TRIALS):
        child = start(inventory, price_list(number))
        time.sleep(draws.uniform(0, seconds))
        kill(child)
        seen = {str(price).partition(".")[2] for _, price, _, _ in prices_of(inventory)}
        assert seen in ({f"{number - 1}000"}, {f"{number}000"})
        assert len(inventory.rows("sku_prices")) == 5_000
        check_both(inventory, model, number)


def test_killed_while_it_merges_in_postgres_it_damages_nothing(inventory: Inventory, postgres_url: str) -> None:
    """The rows are staged, and the merge waits for a lock when the process dies."""
    inventory.destination = "postgres"
    model = Model(inventory.tenant_key)
    supply(inventory, price_list(0), NAMES_FILE.read_bytes())
    with closing(psycopg2.connect(postgres_url)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE cockpit.sku_prices IN SHARE MODE")
        child = start(inventory, price_list(1))
        _wait_for_waiting(postgres_url)
        kill(child)
    assert {str(price).partition(".")[2] for _, price, _, _ in prices_of(inventory)} == {"0000"}
    check_both(inventory, model, 1)


@pytest.mark.parametrize("moment", ["the first package is extracted", "the first package is loading"])
def test_load_that_was_killed_is_carried_on_after_the_lists_were_loaded(inventory: Inventory, moment: str) -> None:
    """Its unfinished package is put away for theirs, and its rows come from the spool."""
    supply(inventory, price_list(0))
    _answer_slowly(inventory)
    _kill_load(inventory, TRIGGERS[moment])
    assert states(supply(inventory, price_list(1)))["sku_prices"] == (5_000, "loaded")
    result = inventory.load(SCOPES, day(0))
    assert result.carried_on
    model = Model(inventory.tenant_key)
    model.run(result.run_id, day(0), _answers(SCOPES))
    model.check(inventory)
    assert {str(price).partition(".")[2] for _, price, _, _ in prices_of(inventory)} == {"1000"}


def _wait_for_waiting(url: str) -> None:
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at:
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone() != (0,):
                return
        time.sleep(0.02)
    pytest.fail("the merge never began")
