"""`cockpit marts` as its user sees it, and the load that refreshes the marts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest
from support import INSTANCE, Inventory, ScopeIds, day, every_table, new_id, sku
from typer.testing import CliRunner, Result

from cockpit_source.cli import app
from cockpit_source.errors import CockpitError
from cockpit_source.load import LoadProgress, run_load
from cockpit_source.marts import price_reach
from cockpit_source.publish import read_copy_path
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox, running_sandbox

ROOT = Path(__file__).parents[1]
A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
PRICES = "sku_id,unit_price,currency,valid_from\ne3,36.00,EUR,2026-01-01\n"
RECLAIMABLE = (
    "SELECT sku_id, reclaimable_seats::BIGINT, reclaimable_cost::VARCHAR, currency FROM cockpit.fct_reclaimable_seats"
    " ORDER BY ALL"
)


@pytest.fixture(scope="module")
def api() -> Iterator[Sandbox]:
    """One sandbox for all tests here."""
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def inventory(api: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inventory:
    """A warehouse with one load of two customers, and a project whose settings name it."""
    api.clear()
    made = Inventory(api, tmp_path / "w.duckdb")
    made.answer(A[0], [sku("e3", 25, 22), sku("e5", 5, 5)])
    made.answer(B[0], [sku("e3", 7, 1)])
    made.load([A, B], day(0))
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(f'[sources.cockpit]\ntenant_key = "{made.tenant_key}"\n')
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "work"))
    return made


def run_marts(inventory: Inventory, *arguments: object) -> Result:
    """`cockpit marts` of the project; what it is refused for comes out as `exception`."""
    place = ("--project", inventory.database.parent, "--database", inventory.database)
    return CliRunner().invoke(app, ["marts", *map(str, place), *map(str, arguments)])


def read_copy(inventory: Inventory, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(read_copy_path(inventory.database)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_views_and_prices_are_in_the_read_copy(inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(PRICES)
    ran = run_marts(inventory, "--price-list", tmp_path / "prices.csv")
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert "sku_prices            1  loaded" in ran.stdout
    assert "sku_catalog           0  no list given" in ran.stdout
    assert "views created in " in ran.stdout
    assert "1 of 2 paid SKUs that are held have a price today, 86.4 % of their seats." in ran.stdout
    assert read_copy(inventory, RECLAIMABLE) == [("e3", 3, "108.0000", "EUR"), ("e3", 6, "216.0000", "EUR")]


def test_json_tells_the_same(inventory: Inventory) -> None:
    told = json.loads(run_marts(inventory, "--json").stdout)
    assert {table["name"]: table["state"] for table in told["reference"]["tables"]} == {
        "sku_prices": "created",
        "sku_catalog": "created",
        "sku_service_plans": "created",
    }
    views = read_copy(inventory, "SELECT view_name FROM duckdb_views() WHERE schema_name = 'cockpit'")
    assert {name for (name,) in views} == set(told["names"])
    assert (told["dataset"], told["seconds"] > 0, told["prices"]) == ("cockpit", True, None)
    assert "Prices" not in run_marts(inventory).stdout


def test_a_view_shows_each_later_load_at_once(inventory: Inventory) -> None:
    run_marts(inventory)
    inventory.answer(A[0], [sku("e3", 30, 22)])
    inventory.load([A, B], day(1))
    assert read_copy(inventory, RECLAIMABLE) == [("e3", 6, None, None), ("e3", 8, None, None)]


def test_a_list_that_does_not_fit_changes_nothing(inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(PRICES)
    run_marts(inventory, "--price-list", tmp_path / "prices.csv")
    before = every_table(inventory.database)
    (tmp_path / "prices.csv").write_text(PRICES + "e5,free,EUR,2026-01-01\n")
    ran = run_marts(inventory, "--price-list", tmp_path / "prices.csv")
    assert isinstance(ran.exception, CockpitError)
    assert (ran.exception.exit_code, "line 3" in str(ran.exception)) == (2, True)
    assert every_table(inventory.database) == before
    assert read_copy(inventory, RECLAIMABLE)[0] == ("e3", 3, "108.0000", "EUR")


@pytest.mark.parametrize("exists", [False, True], ids=["no file", "no tables"])
def test_nothing_loaded_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    monkeypatch.setenv("SOURCES__COCKPIT__TENANT", "portal.example.com")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "work"))
    database = tmp_path / "w.duckdb"
    if exists:
        duckdb.connect(str(database)).close()
    ran = CliRunner().invoke(app, ["marts", "--project", str(tmp_path), "--database", str(database)])
    assert isinstance(ran.exception, CockpitError)
    assert "Run `cockpit load` first." in str(ran.exception)
    assert ran.exception.exit_code == 2
    assert database.exists() == exists


def test_prices_of_what_nobody_holds_are_warned_of(inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(PRICES.replace("e3", "E3") + "e7,1.00,EUR,2026-01-01\n")
    ran = run_marts(inventory, "--price-list", tmp_path / "prices.csv")
    warning = "None of the 2 SKUs on the price list is held by a customer, so no seat has a price."
    assert (ran.exit_code, ran.stderr, f"Warning: {warning}" in ran.stdout) == (0, "", True)
    # it stays, and so does the warning
    told = json.loads(run_marts(inventory, "--json").stdout)
    assert [text.startswith(warning) for text in told["warnings"]] == [True]
    assert told["prices"] == {
        "listed_skus": 2,
        "listed_skus_held": 0,
        "listed_skus_priced_later": 0,
        "held_skus": 2,
        "paid": {"skus": 2, "priced_skus": 0, "seats": 37, "priced_seats": 0},
    }
    progress = LoadProgress()
    settings = inventory.resolve([A, B], refresh_marts=True)
    assert run_load(inventory.pipeline(), settings, as_of=day(1), progress=progress).exit_code == 0
    assert [note.startswith(warning) for note in progress.notes] == [True]


def test_prices_that_cannot_be_counted_cost_no_marts(
    inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices.csv").write_text(PRICES)
    monkeypatch.setattr(price_reach, "_DUCKDB_MEMORY", "SET memory_limit = '1kB'")
    ran = run_marts(inventory, "--price-list", tmp_path / "prices.csv")
    assert ran.exit_code == 0
    assert "Warning: How far the prices reach was not counted. The destination " in ran.stdout
    assert "Prices:" not in ran.stdout
    assert read_copy(inventory, RECLAIMABLE)[0] == ("e3", 3, "108.0000", "EUR")


def test_list_of_an_option_is_told_not_to_last_where_another_is_configured(
    inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, price in (("usual", "36.00"), ("other", "99.00")):
        (tmp_path / f"{name}.csv").write_text(PRICES.replace("36.00", price))
    # none is configured: it stays
    assert run_marts(inventory, "--price-list", tmp_path / "other.csv").stderr == ""
    assert read_copy(inventory, "SELECT unit_price::INTEGER FROM cockpit.sku_prices") == [(99,)]
    config = tmp_path / ".dlt" / "config.toml"
    config.write_text(config.read_text() + 'price_list = "usual.csv"\n')
    # it goes by what the names lead to, whatever the current folder
    monkeypatch.chdir(tmp_path / ".dlt")
    assert run_marts(inventory, "--price-list", "../usual.csv").stderr == ""
    monkeypatch.chdir(tmp_path)
    ran = run_marts(inventory, "--price-list", "other.csv")
    assert ran.stderr == (
        f"The configuration names another list than --price-list: {tmp_path}/usual.csv. The next `cockpit marts`, or "
        f"load with refresh_marts, loads it again in place of {tmp_path}/other.csv. To keep this one, name it as "
        "price_list in .dlt/config.toml.\n"
    )
    monkeypatch.setenv("SOURCES__COCKPIT__PRICE_LIST", "usual.csv")
    told = run_marts(inventory, "--price-list", "other.csv", "--json")
    assert told.stderr.endswith("name it as price_list in SOURCES__COCKPIT__PRICE_LIST.\n")
    assert json.loads(told.stdout)["prices"]["paid"]["priced_skus"] == 1
    # as it said
    assert run_marts(inventory).stderr == ""
    assert read_copy(inventory, "SELECT unit_price::INTEGER FROM cockpit.sku_prices") == [(36,)]


def test_catalogue_of_an_option_is_told_of_too(inventory: Inventory, tmp_path: Path) -> None:
    config = tmp_path / ".dlt" / "config.toml"
    config.write_text(config.read_text() + 'sku_catalog = "https://example.com/names.csv?key=secret"\n')
    ran = run_marts(inventory, "--sku-catalog", ROOT / "tests" / "product_names.csv")
    assert ran.stderr.startswith(
        "The configuration names another list than --sku-catalog: https://example.com/names.csv. The next"
    )


def test_a_load_that_runs_is_left_alone(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        stack.enter_context(one_runner(inventory.pipeline()))
        ran = run_marts(inventory)
    assert isinstance(ran.exception, CockpitError)
    assert ran.exception.exit_code == 6


def test_a_load_refreshes_them_where_that_is_set(inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(PRICES)
    settings = inventory.resolve([A, B], refresh_marts=True, price_list=str(tmp_path / "prices.csv"))
    progress = LoadProgress()
    assert run_load(inventory.pipeline(), settings, as_of=day(1), progress=progress).exit_code == 0
    assert progress.notes == []
    assert read_copy(inventory, RECLAIMABLE) == [("e3", 3, "108.0000", "EUR"), ("e3", 6, "216.0000", "EUR")]


def test_marts_that_fail_never_fail_a_load(inventory: Inventory, tmp_path: Path) -> None:
    settings = inventory.resolve([A, B], refresh_marts=True, price_list=str(tmp_path / "none.csv"))
    inventory.answer(B[0], [sku("e3", 9, 1)])
    progress = LoadProgress()
    result = run_load(inventory.pipeline(), settings, as_of=day(1), progress=progress)
    assert (result.exit_code, result.status) == (0, "complete")
    assert [note.split(".")[0] for note in progress.notes] == [
        "The marts were not refreshed; the load is not affected"
    ]
    assert "none.csv" in progress.notes[0]
    totals = "SELECT sum(total_licenses)::BIGINT FROM cockpit.licenses"
    assert read_copy(inventory, totals) == [(39,)]


def test_the_script_does_the_same(inventory: Inventory) -> None:
    command = [sys.executable, str(ROOT / "pipelines" / "marts.py"), str(inventory.database)]
    ran = subprocess.run(command, cwd=inventory.database.parent, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("dataset cockpit\n")
    assert read_copy(inventory, RECLAIMABLE) == [("e3", 3, None, None), ("e3", 6, None, None)]
