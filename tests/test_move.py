"""A DuckDB file moved to PostgreSQL and DuckLake: equal tables, loads that go on, kills, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from postgres_server import PostgresServer
from rich.console import Console
from support import INSTANCE, Inventory, Row, ScopeIds, day, new_id, sku
from test_discovery import load as load_discovered
from test_warehouses import DAYS, STATUSES

from cockpit_source.errors import CockpitError, ConfigurationError, WarehouseBusy, WarehouseError
from cockpit_source.lock import file_lock
from cockpit_source.move.copying import MoveResult, move_dataset
from cockpit_source.move.report import shown_steps
from cockpit_source.pipeline import create_pipeline
from cockpit_source.reference_data import load_reference_data
from cockpit_source.sandbox import Sandbox, running_sandbox
from cockpit_source.tables import REFERENCE_TABLES, TABLES
from cockpit_source.warehouse import Warehouse

MOVED = (*TABLES, *REFERENCE_TABLES, "_dlt_loads", "_dlt_version")
# what two loads of the same answers do not share
_PER_LOAD = frozenset(
    {
        *("run_id", "last_run_id", "last_listed_run_id", "last_good_run_id", "_dlt_load_id", "load_id"),
        *("correlation_id", "server_correlation_id", "duration_ms", "inserted_at"),
    }
)
# days of answers in the file, and the one that is loaded after the move
_DAYS, _NEXT = 3, 3
PRICES = "sku_id,unit_price,currency,valid_from\ne3,36.1234,EUR,2026-01-01\ne5,0,EUR,2026-02-01\n"
UNNAMED: ScopeIds = (new_id(4), INSTANCE, None)

Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class World:
    """A file with days of history of two tenants, its tables, and what the next day makes of them."""

    inventory: Inventory
    before: Tables
    after: Tables


@pytest.fixture(scope="module")
def api() -> Iterator[Sandbox]:
    """One sandbox for all tests here."""
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[World]]:
    """Where the first test keeps the world for the others; a file keeps its path, by which dlt knows it."""
    return tmp_path_factory.mktemp("move") / "inventory.duckdb", []


@pytest.fixture
def world(api: Sandbox, worlds: tuple[Path, list[World]]) -> World:
    database, made = worlds
    if not made:
        made.append(_make_world(api, database))
    return made[0]


def _make_world(api: Sandbox, database: Path) -> World:
    inventory = Inventory(api, database)
    # an empty name, which a load into PostgreSQL would not keep; its scope is delisted on the second day
    inventory.answer(UNNAMED[0], [sku("e7", name="")])
    for number in range(_DAYS):
        _load_day(inventory, number, [UNNAMED] if number == 0 else [])
    # another tenant, of which a customer is removed, with contacts and relationships, and a price list
    other = Inventory(api, database, tenant_key="other", discover=True, max_attempts=3)
    other.settings |= {"contact_data": True, "gdap_relationships": True}
    for number in (0, 3):
        load_discovered(other, number)
    prices = database.with_name("prices.csv")
    prices.write_text(PRICES)
    load_reference_data(inventory.pipeline(), inventory.resolve([UNNAMED], price_list=str(prices)))
    content = database.read_bytes()
    before = read_tables(inventory)
    _load_day(inventory, _NEXT)
    after = read_tables(inventory, left_out=_PER_LOAD)
    database.write_bytes(content)
    return World(inventory, before, after)


def _load_day(inventory: Inventory, number: int, more: Sequence[ScopeIds] = ()) -> None:
    answers = DAYS[number]
    for (customer, _, _), (outcome, rows) in answers.items():
        inventory.answer(customer, rows, STATUSES[outcome])
    inventory.load([*answers, *more], day(number))


def read_tables(inventory: Inventory, left_out: frozenset[str] = frozenset()) -> Tables:
    """Whole tables with every column but those left out, sorted."""
    with Warehouse(inventory.pipeline()).opened(read_only=False) as client:
        assert client is not None
        return {
            table: sorted(
                (
                    {n: v for n, v in row.items() if n not in left_out}
                    for row in client.rows(f"SELECT * FROM {{{table}}}")
                ),
                key=lambda row: json.dumps(row, default=str, sort_keys=True),
            )
            for table in MOVED
        }


@pytest.fixture(params=["postgres", "ducklake"])
def target(request: pytest.FixtureRequest, api: Sandbox, tmp_path: Path) -> Inventory:
    """An empty warehouse of the parameter, with a folder of its own for dlt, as on another machine."""
    request.getfixturevalue(f"{request.param}_url")
    return Inventory(api, tmp_path / "moved" / "inventory.duckdb", destination=request.param)


@pytest.fixture
def on_postgres(api: Sandbox, tmp_path: Path, postgres_url: str) -> Inventory:
    """An empty PostgreSQL."""
    return Inventory(api, tmp_path / "moved" / "inventory.duckdb", destination="postgres")


def move(database: Path, target: Inventory, *, dataset: str = "cockpit") -> MoveResult:
    def open_source(tenant_key: str) -> Any:
        return create_pipeline(tenant_key, database=database, dataset=dataset)

    def open_target_of(tenant_key: str) -> Any:
        return replace_tenant(target, tenant_key).pipeline()

    return move_dataset(
        database, dataset, open_source=open_source, open_target_of=open_target_of, step=lambda *_: None
    )


def replace_tenant(target: Inventory, tenant_key: str) -> Inventory:
    return Inventory(target.sandbox, target.database, destination=target.destination, tenant_key=tenant_key)


def has_dataset(target: Inventory) -> bool:
    with Warehouse(target.pipeline()).opened(read_only=False) as client:
        assert client is not None
        return client.has_table("_dlt_loads")


def test_moved_tables_are_equal_and_loads_go_on(world: World, target: Inventory) -> None:
    """Every odd value and two tenants; then the same answers make the same tables there as in the file."""
    content = world.inventory.database.read_bytes()
    result = move(world.inventory.database, target)
    assert world.inventory.database.read_bytes() == content
    assert read_tables(target) == world.before
    rows = {table.name: table.rows for table in result.tables}
    assert rows == {name: len(some) for name, some in world.before.items()} | {"_dlt_pipeline_state": 2}
    assert (result.tenants, result.left_out) == (("other", world.inventory.tenant_key), ())
    assert {"", None} < {row["sku_name"] for row in world.before["license_history"]}
    assert all(rows[name] for name in MOVED if name not in ("sku_catalog", "sku_service_plans"))
    assert any(row["removed_at"] for row in world.before["customers"])
    _load_day(target, _NEXT)
    assert read_tables(target, left_out=_PER_LOAD) == world.after


@pytest.mark.parametrize(
    ("target", "step"),
    [("postgres", "comparing runs"), ("ducklake", "copying runs")],
    indirect=["target"],
)
def test_killed_move_leaves_nothing_or_everything(world: World, target: Inventory, step: str) -> None:
    """SIGKILL while a step is being done; then the same command again."""
    command = [sys.executable, "-m", "cockpit_source.cli", "move", "--from", str(world.inventory.database)]
    command += ["--destination", target.destination]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line.strip())
            if seen[-1] == step:
                process.kill()
                break
    assert process.returncode == -9, seen
    assert not has_dataset(target)
    ran = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["equal"] is True
    assert read_tables(target) == world.before


def refusal(database: Path, target: Inventory, kind: type[CockpitError] = ConfigurationError, **options: str) -> str:
    with pytest.raises(kind) as caught:
        move(database, target, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_target_that_holds_a_dataset_is_refused(
    world: World, on_postgres: Inventory, postgres: PostgresServer
) -> None:
    name = os.environ["DESTINATION__POSTGRES__CREDENTIALS"].rsplit("/", 1)[1]
    postgres.execute("CREATE SCHEMA cockpit CREATE VIEW mine AS SELECT 1 AS one", name)
    message = refusal(world.inventory.database, on_postgres)
    assert message.startswith("The dataset 'cockpit' in postgresql://")
    assert "is not empty: it holds mine. A move only fills an empty one" in message
    # a table of the same name says nothing
    postgres.execute("CREATE TABLE cockpit.runs AS SELECT 1 AS id", name)
    assert "is not empty: it holds mine, runs. A move" in refusal(world.inventory.database, on_postgres)
    # an empty one, such as an administrator makes, is filled
    postgres.execute("DROP TABLE cockpit.runs; DROP VIEW cockpit.mine", name)
    move(world.inventory.database, on_postgres)
    assert refusal(world.inventory.database, on_postgres).endswith(
        "holds every run of the file already: it was moved before, and loads go on there. Nothing was changed."
    )
    assert read_tables(on_postgres) == world.before
    # the dataset of another file
    postgres.execute("DELETE FROM cockpit.runs WHERE run_id = (SELECT min(run_id) FROM cockpit.runs)", name)
    assert "is not empty: it holds _dlt_loads, _dlt_pipeline_state, _dlt_version and 13 more." in refusal(
        world.inventory.database, on_postgres
    )


def test_file_that_cannot_be_moved_is_refused(world: World, on_postgres: Inventory, tmp_path: Path) -> None:
    database = world.inventory.database
    assert "There is no DuckDB file" in refusal(tmp_path / "none.duckdb", on_postgres)
    (tmp_path / "w.read.duckdb").touch()
    assert "is the copy for readers" in refusal(tmp_path / "w.read.duckdb", on_postgres)
    assert "holds no run of a load in the dataset 'other'" in refusal(database, on_postgres, dataset="other")
    (tmp_path / "text.duckdb").write_text("no database " * 1000)
    message = refusal(tmp_path / "text.duckdb", on_postgres, WarehouseError)
    assert "text.duckdb cannot be read: IO Error: " in message
    assert not has_dataset(on_postgres)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE cockpit.runs DROP COLUMN customers_listed", "its table runs lacks customers_listed."),
        ("ALTER TABLE cockpit.scopes ADD COLUMN tier TEXT", "its table scopes has tier, which this version does not"),
        ("DROP TABLE cockpit.rejected_rows", "it lacks the table rejected_rows."),
        ("UPDATE cockpit._dlt_version SET engine_version = 99", "a newer dlt wrote it."),
        (
            "UPDATE cockpit.runs SET finished_at = NULL WHERE tenant = 'other' AND run_id = "
            "(SELECT max_by(run_id, started_at) FROM cockpit.runs WHERE tenant = 'other')",
            "of other. It was interrupted",
        ),
    ],
    ids=["older", "newer", "incomplete", "newer dlt", "interrupted"],
)
def test_state_of_the_file_is_checked(
    world: World, on_postgres: Inventory, tmp_path: Path, change: str, expected: str
) -> None:
    database = tmp_path / "changed.duckdb"
    shutil.copy(world.inventory.database, database)
    with duckdb.connect(str(database)) as connection:
        connection.execute(change)
    assert expected in refusal(database, on_postgres)
    assert not has_dataset(on_postgres)


def test_tables_of_others_and_views_stay_behind(world: World, on_postgres: Inventory, tmp_path: Path) -> None:
    database = tmp_path / "more.duckdb"
    shutil.copy(world.inventory.database, database)
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE cockpit.mine AS SELECT 1 AS one; CREATE VIEW cockpit.v AS SELECT 1 AS one")
    assert move(database, on_postgres).left_out == ("mine",)
    assert read_tables(on_postgres) == world.before


def test_file_in_use_is_refused(world: World, on_postgres: Inventory) -> None:
    """By a load, also between two of its packages, and by another program that writes."""
    database = world.inventory.database
    (lock, *_) = database.parent.glob("inventory.duckdb.*.lock")
    with file_lock(lock):
        message = refusal(database, on_postgres, WarehouseBusy)
        assert message.startswith(
            f"A load or prune of the file that is to be moved is running (process {os.getpid()})"
        )
    code = f"import duckdb; c = duckdb.connect({str(database)!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        assert f"is in use by process {writer.pid} (" in refusal(database, on_postgres, WarehouseBusy)
        writer.communicate("\n")
    assert not has_dataset(on_postgres)


# a database that shortens times as they come in
_MEDDLE = """
CREATE FUNCTION public.shorten() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.valid_from := date_trunc('hour', NEW.valid_from + interval '1 hour'); RETURN NEW; END $$;
CREATE FUNCTION public.meddle() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    IF to_regclass('cockpit.license_history') IS NOT NULL THEN
        CREATE OR REPLACE TRIGGER shorten BEFORE INSERT ON cockpit.license_history
            FOR EACH ROW EXECUTE FUNCTION public.shorten();
    END IF; END $$;
CREATE EVENT TRIGGER meddle ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.meddle();
"""


def test_what_came_out_different_is_not_kept(world: World, on_postgres: Inventory, postgres: PostgresServer) -> None:
    name = os.environ["DESTINATION__POSTGRES__CREDENTIALS"].rsplit("/", 1)[1]
    postgres.execute(_MEDDLE, name)
    message = refusal(world.inventory.database, on_postgres, WarehouseError)
    assert message.startswith("The table license_history came out different in postgresql://")
    assert not has_dataset(on_postgres)


def test_missing_permission_is_told_without_the_password(
    world: World, on_postgres: Inventory, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"]
    postgres.execute(f"CREATE ROLE reader_of_{url[-8:]} LOGIN PASSWORD 'hunter-two'")
    monkeypatch.setenv(
        "DESTINATION__POSTGRES__CREDENTIALS",
        re.sub("//.*@", f"//reader_of_{url[-8:]}:hunter-two@", url),
    )
    message = refusal(world.inventory.database, on_postgres, WarehouseError)
    assert "permission denied for database" in message
    assert "hunter" not in message


def test_steps_are_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    shown = {}
    for is_terminal in (True, False):
        console = Console(file=StringIO(), force_terminal=is_terminal, width=100)
        with shown_steps(console) as step:
            step("copying runs", 50, 200)
        shown[is_terminal] = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown[False] == "copying runs\n"
    assert "copying runs" in shown[True]
    assert "25 %" in shown[True]
