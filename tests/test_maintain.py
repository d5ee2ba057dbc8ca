"""`cockpit maintain`: no row changes, whoever reads or loads meanwhile, and whenever it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from support import INSTANCE, Inventory, Model, Row, ScopeIds, day, new_id, sku

from cockpit_source.errors import WarehouseBusy, WarehouseError
from cockpit_source.maintain import Maintenance, maintain
from cockpit_source.maintain_report import print_maintenance
from cockpit_source.report import create_console
from cockpit_source.runner_lock import one_runner
from cockpit_source.sandbox import Sandbox
from cockpit_source.tables import TABLES

SCOPES: list[ScopeIds] = [(new_id(number), INSTANCE, None) for number in range(20)]

_MAINTAIN = """
import sys
from datetime import timedelta
from pathlib import Path
from cockpit_source import create_pipeline
from cockpit_source.maintain import maintain
pipeline = create_pipeline(sys.argv[1], destination="ducklake", pipelines_dir=sys.argv[2])
print("begun", flush=True)
maintain(pipeline, keep_days=0, delete_orphans=True, orphaned_after=timedelta(0))
"""


class Lake(Inventory):
    """Twenty scopes that change every day, in a DuckLake, and the model of its tables."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        super().__init__(sandbox, folder / "inventory.duckdb", destination="ducklake")
        self.model = Model(self.tenant_key)
        self.days = 0

    def load_day(self) -> None:
        answers = {}
        for place, scope in enumerate(SCOPES):
            rows = [sku("e3", 10 + self.days * (place % 3)), sku(f"e{self.days % 2}")]
            self.answer(scope[0], rows)
            answers[scope] = ("ok", rows)
        result = self.load(SCOPES, day(self.days))
        self.model.run(result.run_id, day(self.days), answers)
        self.days += 1

    def tables(self) -> dict[str, list[Row]]:
        with closing(self.attached()) as reader:
            return {
                table: reader.execute(f"SELECT * FROM lake.cockpit.{table} ORDER BY ALL").to_arrow_table().to_pylist()
                for table in TABLES
            }

    def start_maintaining(self) -> subprocess.Popen[str]:
        """In a process of its own, which keeps and spares nothing."""
        folder = self.database.parent / "work" / "pipelines"
        child = subprocess.Popen(
            [sys.executable, "-c", _MAINTAIN, self.tenant_key, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        return child

    def maintain(self, **options: Any) -> Maintenance:
        return maintain(self.pipeline(), **options)

    def files(self) -> int:
        """Files below the data path."""
        folder = Path(os.environ["DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL"])
        return sum(path.is_file() for path in folder.rglob("*"))

    def attached(self) -> duckdb.DuckDBPyConnection:
        """A reader of the lake that is no part of this project."""
        connection = duckdb.connect()
        catalog = os.environ["DESTINATION__DUCKLAKE__CREDENTIALS__CATALOG"]
        connection.execute(f"ATTACH 'ducklake:postgres:{catalog}' AS lake (METADATA_SCHEMA 'lake', READ_ONLY)")
        return connection


@pytest.fixture
def lake(sandbox: Sandbox, tmp_path: Path, ducklake_url: str) -> Lake:
    made = Lake(sandbox, tmp_path)
    for _ in range(2):
        made.load_day()
    return made


def test_lake_shrinks_and_no_row_changes(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader in an open transaction, and one that asks for an earlier snapshot, go on reading what they read."""
    before = lake.tables()
    query = "SELECT * FROM lake.cockpit.license_history ORDER BY ALL"
    earlier = "SELECT * FROM lake.cockpit.licenses AT (VERSION => {}) ORDER BY ALL"
    with closing(lake.attached()) as reader, closing(lake.attached()) as traveller:
        reader.execute("BEGIN")
        read = reader.execute(query).fetchall()
        ((version,),) = traveller.execute("SELECT max(snapshot_id) - 3 FROM lake.snapshots()").fetchall()
        seen = traveller.execute(earlier.format(version)).fetchall()
        kept = lake.maintain()
        assert (kept.done["snapshots expired"], kept.done["files deleted"]) == (0, 0)
        assert kept.done["files merged"] > 0
        assert kept.waiting > 0
        assert reader.execute(query).fetchall() == read
        assert traveller.execute(earlier.format(version)).fetchall() == seen
    assert lake.tables() == before
    files = lake.files()
    result = lake.maintain(keep_days=0)
    assert result.before is not None
    assert result.after is not None
    assert (result.after.snapshots, result.after.files) < (result.before.snapshots, result.before.files + 1)
    assert result.after.snapshots <= 2
    assert lake.files() < files
    assert lake.tables() == before
    print_maintenance(result, create_console())
    assert "snapshots expired" in capsys.readouterr().out
    lake.load_day()
    lake.model.check(lake)


def test_maintenance_that_is_killed_is_made_good(lake: Lake) -> None:
    """At instants of its life, then beside a load; after each, tables are whole, and at last nothing is left over."""
    before = lake.tables()
    for seconds in (0.3, 1.2):
        child = lake.start_maintaining()
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert lake.tables() == before
    child = lake.start_maintaining()
    lake.load_day()
    child.communicate()
    assert child.returncode == 0
    lake.model.check(lake)
    result = lake.maintain(keep_days=0, delete_orphans=True, orphaned_after=timedelta(0))
    assert (result.waiting, result.orphans) == (0, 0)
    assert result.after is not None
    assert lake.files() == result.after.files_kept
    lake.model.check(lake)


def test_postgres_is_analyzed(sandbox: Sandbox, tmp_path: Path, postgres_url: str) -> None:
    inventory = Inventory(sandbox, tmp_path / "inventory.duckdb", destination="postgres")
    inventory.answer(SCOPES[0][0], [sku("e3")])
    with pytest.raises(WarehouseError, match="nothing to maintain"):
        maintain(inventory.pipeline())
    inventory.load(SCOPES[:1], day(0))
    before = inventory.rows("licenses")
    result = maintain(inventory.pipeline())
    sizes = {size.name: size for size in result.tables}
    assert set(TABLES) <= set(sizes)
    assert sizes["licenses"].bytes > 0
    assert inventory.rows("licenses") == before
    with closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_user_tables WHERE last_analyze IS NOT NULL AND schemaname = 'cockpit'"
        )
        assert cursor.fetchone() == (len(sizes),)
    assert result.to_dict()["done"] == {"tables analyzed": len(sizes)}


def test_duckdb_file_takes_its_log_in(inventory: Inventory) -> None:
    inventory.answer(SCOPES[0][0], [sku("e3")])
    inventory.load(SCOPES[:1], day(0))
    with duckdb.connect(str(inventory.database)) as connection:
        connection.execute("SET wal_autocheckpoint = '1GB'; PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE cockpit.other AS SELECT range AS n FROM range(100000)")
    log = inventory.database.with_name(f"{inventory.database.name}.wal")
    assert log.stat().st_size > 0
    result = maintain(inventory.pipeline())
    assert result.bytes_before is not None
    assert not log.exists() or log.stat().st_size == 0
    assert inventory.query("SELECT count(*) FROM cockpit.other") == [(100_000,)]
    with one_runner(inventory.pipeline()), pytest.raises(WarehouseBusy):
        maintain(inventory.pipeline())
