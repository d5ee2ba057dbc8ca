"""The locks themselves, without the allow-list in front: on a real DuckDB file and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from bare_inventory import BareInventory
from postgres_server import PostgresServer
from support import new_id

from cockpit_source.deletions import locked_run
from cockpit_source.deletions.locked_run import open_locked, run_locked
from cockpit_source.errors import ConfigurationError, DeletionRefused, WarehouseBusy

_SECRET = "the content of a file"

ON_DUCKDB = [
    "INSERT INTO cockpit.customers (id) VALUES ('x')",
    "DELETE FROM cockpit.customers",
    "CREATE TABLE cockpit.t AS SELECT 1 AS a",
    "CREATE TEMP TABLE t AS SELECT 1 AS a",
    "DROP TABLE cockpit.customers",
    "COPY cockpit.customers TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet'",
    "EXPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/out.duckdb'",
    "ATTACH ':memory:' AS other",
    "SELECT * FROM read_text('{folder}/secret.txt')",
    "SELECT * FROM read_csv('{folder}/secret.txt')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET python_enable_replacements = true",
    "RESET lock_configuration",
    "SET memory_limit = '8GB'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CALL pragma_version()",
    "PRAGMA enable_profiling",
    "CHECKPOINT",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE cockpit.customers",
    "SELECT * FROM local_rows",
]

# of these, what the connection allows changes its own memory only
_IN_MEMORY = ("ATTACH ':memory:'", "CREATE TEMP", "CHECKPOINT", "CALL", "PRAGMA", "SELECT 1; SELECT 2")

ON_POSTGRES = [
    "INSERT INTO cockpit.customers (id) VALUES ('x')",
    "DELETE FROM cockpit.customers",
    "WITH gone AS (DELETE FROM cockpit.customers RETURNING id) SELECT * FROM gone",
    "SELECT * INTO cockpit.t FROM cockpit.customers",
    "CREATE TABLE cockpit.t (a int)",
    "DROP TABLE cockpit.customers",
    "SELECT * FROM cockpit.customers FOR UPDATE",
    "SELECT nextval('cockpit.numbers')",
    "COPY cockpit.customers TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO PROGRAM 'cat > {folder}/out.csv'",
    "SELECT pg_read_file('{folder}/secret.txt')",
    "SELECT pg_ls_dir('{folder}')",
    "SELECT lo_import('{folder}/secret.txt')",
    "SELECT query_to_xml('DELETE FROM cockpit.customers', true, true, '')",
    "SELECT * FROM cockpit.gone()",
    "SET ROLE postgres",
    "SET TRANSACTION READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "CREATE EXTENSION dblink",
    "ALTER SYSTEM SET work_mem = '1MB'",
]


@pytest.fixture
def on_duckdb(tmp_path: Path) -> BareInventory:
    inventory = BareInventory(tmp_path)
    inventory.insert("customers", id=new_id(1))
    for name in ("secret.txt", "secret.csv"):
        (tmp_path / name).write_text(_SECRET)
    return inventory


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> BareInventory:
    inventory = BareInventory(tmp_path, postgres_url)
    inventory.insert("customers", id=new_id(1))
    inventory.execute("CREATE SEQUENCE cockpit.numbers")
    inventory.execute(
        "CREATE FUNCTION cockpit.gone() RETURNS SETOF varchar LANGUAGE sql AS "
        "'DELETE FROM cockpit.customers RETURNING id'"
    )
    return inventory


@pytest.mark.parametrize("sql", ON_DUCKDB)
def test_duckdb_is_locked(on_duckdb: BareInventory, sql: str) -> None:
    """Nothing that writes, reads files or unlocks; also not the variables of this program."""
    before, files = on_duckdb.content_hash, _files(on_duckdb.folder)
    sql = sql.format(folder=on_duckdb.folder)
    local_rows = duckdb.sql("SELECT 1 AS a").to_arrow_table()
    assert local_rows.num_rows == 1
    with pytest.raises(DeletionRefused) as refused:
        run_locked(sql, on_duckdb.pipeline())
    assert refused.value.code == "query_failed"
    assert _SECRET not in str(refused.value)
    assert (on_duckdb.content_hash, _files(on_duckdb.folder)) == (before, files)


@pytest.mark.parametrize("sql", [sql for sql in ON_DUCKDB if not sql.startswith(_IN_MEMORY)])
def test_duckdb_is_locked_by_its_connection_alone(on_duckdb: BareInventory, sql: str) -> None:
    """Also without the look that `select` has at the statement."""
    before, files = on_duckdb.content_hash, _files(on_duckdb.folder)
    with open_locked(on_duckdb.pipeline()) as connection:
        raw = connection._connection  # type: ignore[attr-defined]
        with pytest.raises(duckdb.Error):
            raw.execute(sql.format(folder=on_duckdb.folder)).fetchall()
    assert (on_duckdb.content_hash, _files(on_duckdb.folder)) == (before, files)


@pytest.mark.parametrize("sql", ON_POSTGRES)
def test_postgres_is_locked(on_postgres: BareInventory, sql: str) -> None:
    """The configured role is a superuser."""
    on_postgres.folder.chmod(0o777)
    (on_postgres.folder / "secret.txt").write_text(_SECRET)
    before, files = on_postgres.every_row(), _files(on_postgres.folder)
    with pytest.raises(DeletionRefused) as refused:
        run_locked(sql.format(folder=on_postgres.folder), on_postgres.pipeline())
    assert refused.value.code == "query_failed"
    assert _SECRET not in str(refused.value)
    assert (on_postgres.every_row(), _files(on_postgres.folder)) == (before, files)


def test_postgres_keeps_nothing(on_postgres: BareInventory) -> None:
    """PostgreSQL 15 lets a read-only transaction create a large object; it goes with the transaction."""
    with contextlib.suppress(DeletionRefused):
        run_locked("SELECT lo_create(4711)", on_postgres.pipeline())
    assert on_postgres.execute("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


@pytest.fixture(params=["duckdb", "postgres"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> BareInventory:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return BareInventory(tmp_path, url)


def test_names_without_dataset_are_found(bare: BareInventory) -> None:
    bare.insert("customers", id=new_id(1))
    selected = run_locked("SELECT id, removed_at FROM customers", bare.pipeline())
    assert (selected.columns, selected.rows) == (("id", "removed_at"), [(new_id(1), None)])
    assert run_locked("SELECT id AS x FROM customers WHERE 1 = 0", bare.pipeline()).columns == ("x",)


def test_too_many_rows(bare: BareInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked_run, "MAX_ROWS", 2)
    for number in range(2):
        bare.insert("customers", id=new_id(number))
    assert len(run_locked("SELECT id FROM customers", bare.pipeline()).rows) == 2
    bare.insert("customers", id=new_id(2))
    with pytest.raises(DeletionRefused, match="more than 2 rows"):
        run_locked("SELECT id FROM customers", bare.pipeline())


def test_query_without_end(bare: BareInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked_run, "MAX_SECONDS", 1)
    endless = "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT 1 FROM a) SELECT count(*) FROM a"
    with pytest.raises(DeletionRefused, match=r"longer than 1 seconds") as refused:
        run_locked(endless, bare.pipeline())
    assert refused.value.code == "query_failed"


def test_table_that_is_not_there(bare: BareInventory) -> None:
    bare.execute("DROP TABLE cockpit.resellers")
    with pytest.raises(DeletionRefused, match="resellers") as refused:
        run_locked("SELECT id FROM resellers", bare.pipeline())
    assert refused.value.code == "query_failed"


def test_duckdb_file_that_is_missing_broken_or_empty(tmp_path: Path) -> None:
    """It is not created, and never read as empty."""
    inventory = BareInventory(tmp_path)
    pipeline = inventory.pipeline()
    inventory.database.unlink()
    for content in (None, b"no database" * 1000):
        if content:
            inventory.database.write_bytes(content)
        with pytest.raises(DeletionRefused) as refused:
            run_locked("SELECT 1", pipeline)
        assert refused.value.code == "inventory_unreadable"
        assert inventory.database.exists() == (content is not None)
    inventory.database.unlink()
    inventory.execute("CREATE TABLE x (a int)")
    with pytest.raises(DeletionRefused) as refused:
        run_locked("SELECT 1", pipeline)
    assert refused.value.code == "inventory_unreadable"


def test_duckdb_file_that_a_load_has_open(tmp_path: Path) -> None:
    inventory = BareInventory(tmp_path)
    program = (
        "import duckdb, sys\n"
        f"connection = duckdb.connect({str(inventory.database)!r})\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(WarehouseBusy, match=f"process {holder.pid}"):
            run_locked("SELECT 1", inventory.pipeline())
    finally:
        holder.communicate()
    assert run_locked("SELECT 1 AS one", inventory.pipeline()).rows == [(1,)]


def test_postgres_that_cannot_be_reached(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = postgres_url.replace("postgres:", "postgres:not", 1)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", wrong)
    inventory = BareInventory(tmp_path, postgres_url)
    with pytest.raises(DeletionRefused, match="password") as refused:
        run_locked("SELECT 1", inventory.pipeline())
    assert refused.value.code == "inventory_unreadable"
    assert wrong.split("@")[0].rpartition(":")[2] not in str(refused.value)


def test_postgres_without_the_dataset(postgres_url: str, tmp_path: Path) -> None:
    inventory = BareInventory(tmp_path, postgres_url)
    inventory.execute("DROP SCHEMA cockpit CASCADE")
    with pytest.raises(DeletionRefused, match="no schema cockpit") as refused:
        run_locked("SELECT 1", inventory.pipeline())
    assert refused.value.code == "inventory_unreadable"


def test_postgres_with_a_role_that_may_only_read(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = BareInventory(tmp_path, postgres_url)
    inventory.insert("customers", id=new_id(1))
    role = postgres_url.rpartition("/")[2] + "_reader"
    inventory.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'reader'")
    try:
        inventory.execute(f"GRANT USAGE ON SCHEMA cockpit TO {role}")
        inventory.execute(f"GRANT SELECT ON cockpit.customers TO {role}")
        address = postgres_url.replace(f"postgres:{postgres.password}", f"{role}:reader")
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)
        assert run_locked("SELECT id FROM customers", inventory.pipeline()).rows == [(new_id(1),)]
        with pytest.raises(DeletionRefused, match="permission denied"):
            run_locked("SELECT id FROM resellers", inventory.pipeline())
    finally:
        inventory.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_other_destinations(tmp_path: Path, ducklake_url: str) -> None:
    pipeline = BareInventory(tmp_path).pipeline(destination="ducklake", database=None)
    with pytest.raises(ConfigurationError, match="ducklake"):
        run_locked("SELECT 1", pipeline)


def _files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "pipelines" not in path.parts}
