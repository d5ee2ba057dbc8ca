"""docs/postgresql.md and docs/ducklake.md, word for word, on a real PostgreSQL: roles, grants, and the move."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from postgres_server import PostgresServer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import ledger_documents
import update_readme
from update_readme import POSTGRESQL_PAGE, Trial

DUCKLAKE_PAGE = ROOT / "docs" / "ducklake.md"
ROLES = ("cockpit_loader", "cockpit_reader", "cockpit_deleter")
DESTINATION = "DESTINATION__POSTGRES__CREDENTIALS"
# as the page writes it
PASSWORD = "..."


class Licences:
    """The database of the page, and whoever connects to it."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def url(self, role: str, database: str = "licences") -> str:
        return f"postgresql://{role}:{PASSWORD}@127.0.0.1:{self._server.port}/{database}"

    def run_block(self, name: str, page: Path = POSTGRESQL_PAGE, database: str = "licences") -> None:
        self._server.execute(update_readme.read_code(name, page), database)

    def drop_dataset(self) -> None:
        self._server.execute("DROP SCHEMA cockpit CASCADE", "licences")
        self.run_block("grants.sql")

    def query(self, role: str, sql: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.url(role))) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
            connection.commit()
            return rows

    def require_denied(self, role: str, statements: Sequence[str]) -> None:
        for statement in statements:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                self.query(role, statement)

    def objects(self, role: str) -> dict[str, int]:
        """The rows of each table and view of the dataset, as a role reads them."""
        names = self._server.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'cockpit'", "licences"
        )
        return {name: self.query(role, f"SELECT count(*) FROM cockpit.{name}")[0][0] for (name,) in names}


@pytest.fixture
def licences(postgres: PostgresServer) -> Iterator[Licences]:
    """The database with its roles, as the page makes them."""
    made = Licences(postgres)
    made.run_block("create.sql", database="postgres")
    try:
        for name in ("roles.sql", "grants.sql", "ledger.sql"):
            made.run_block(name)
        yield made
    finally:
        postgres.execute("DROP DATABASE licences WITH (FORCE)")
        for role in ROLES:
            postgres.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
def trial() -> Iterator[Trial]:
    with update_readme.start_trial() as started:
        yield started


def run(trial: Trial, command: str, expected_code: int = 0, **environment: str) -> str:
    """What a command of a page prints, with `--project` as everywhere and the environment of its role."""
    trial._options["env"].update(environment)
    trial.lines = []
    trial.run(f"{command} --project trial")
    text = "\n".join(trial.lines)
    assert text.endswith(f"(exit code {expected_code})"), text
    return text


def follow_page(trial: Trial, page: Path, **environment: str) -> str:
    """The commands of a page, in their order; what the move printed."""
    printed = {}
    for line in update_readme.read_code("move", page).splitlines():
        command = line.removeprefix("$ ").replace("license_inventory.duckdb", "trial/license_inventory.duckdb")
        printed[command.split()[1]] = run(trial, command, **environment)
    assert list(printed) == ["check", "move", "marts", "status"]
    return printed["move"]


def test_roles_of_the_page_can_what_it_says_and_no_more(licences: Licences, trial: Trial) -> None:
    """From a DuckDB file over the move and a load to a deletion, each as its role."""
    update_readme._prepare_deletions(trial)
    run(trial, "cockpit load", 3)
    as_loader = {DESTINATION: licences.url("cockpit_loader")}
    run(trial, "cockpit move --destination postgres", **as_loader)
    # thrown away, as the page says, and begun anew
    licences.drop_dataset()
    moved = follow_page(trial, POSTGRESQL_PAGE, **as_loader)
    assert "Every table equals the file's, row by row." in moved
    query = update_readme.read_code("compare.sql", POSTGRESQL_PAGE)
    with duckdb.connect(str(trial.project / "license_inventory.duckdb"), read_only=True) as connection:
        assert connection.execute(query).fetchall()[0][0] == licences.query("cockpit_reader", query)[0][0] > 0
    run(trial, "cockpit load --destination postgres", 3, **as_loader)
    # what is made later can be read as well
    licences.query("cockpit_loader", "CREATE TABLE cockpit.later AS SELECT 1 AS one")
    licences.query("cockpit_loader", "CREATE VIEW cockpit.later_view AS SELECT * FROM cockpit.later")
    for reader in ("cockpit_reader", "cockpit_deleter"):
        read = licences.objects(reader)
        assert {"license_history", "scopes", "fct_current_inventory", "later", "later_view"} <= read.keys()
        assert read["fct_current_inventory"]
        licences.require_denied(reader, _WRITES)
    as_reader = {DESTINATION: licences.url("cockpit_reader")}
    for command in ("check", "load"):
        told = run(trial, f"cockpit {command} --destination postgres", 2, **as_reader)
        assert "The role cockpit_reader may not write into dataset cockpit of postgresql://" in told
        assert "sign-in" not in told
    told = run(trial, "cockpit maintain --destination postgres", 2, **as_reader)
    assert "belongs to cockpit_loader. Run `cockpit maintain` as cockpit_loader. Nothing was done." in told
    told = run(trial, "cockpit maintain --destination postgres", **as_loader)
    assert "ANALYZE of " in told
    licences.require_denied("cockpit_reader", ["SELECT * FROM cockpit_deletions.deletion_events"])
    licences.require_denied("cockpit_loader", ["SELECT * FROM cockpit_deletions.deletion_events"])
    _delete_as_deleter(licences, trial)


_WRITES = (
    "INSERT INTO cockpit.later VALUES (2)",
    "UPDATE cockpit.scopes SET failing_runs = 0",
    "DELETE FROM cockpit.license_history",
    "TRUNCATE cockpit.runs",
    "CREATE TABLE cockpit.mine AS SELECT 1",
    "CREATE TABLE public.mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE SCHEMA mine",
    "DROP VIEW cockpit.later_view",
)


def _delete_as_deleter(licences: Licences, trial: Trial) -> None:
    """A plan of the DuckDB file moved, and another carried out; then nothing of the records can be changed."""
    run(trial, "cockpit deletions plan --query trial/offboard.sql")
    as_deleter = {DESTINATION: licences.url("cockpit_deleter")}
    for line in update_readme.read_code("move-ledger", POSTGRESQL_PAGE).splitlines():
        command = line.removeprefix("$ ").replace("license_inventory.duckdb", "trial/license_inventory.duckdb")
        printed = run(trial, command, **as_deleter)
    assert "moved: the ledger goes on at postgresql://" in printed
    run(trial, "cockpit deletions plan --query trial/offboard.sql", 4)
    run(trial, "cockpit deletions plan --query trial/offboard.sql --destination postgres")
    plan_id, plan_hash = licences.query(
        "cockpit_deleter", "SELECT plan_id, plan_hash FROM cockpit_deletions.deletion_plans ORDER BY seq"
    )[-1]
    run(
        trial,
        f"cockpit deletions apply {plan_id} --hash {plan_hash} --approved-by change --destination postgres",
    )
    events = licences.query("cockpit_deleter", "SELECT kind FROM cockpit_deletions.deletion_events ORDER BY seq")
    assert events[-1] == ("finished",)
    tables = ("deletion_plans", "deletion_plan_items", "deletion_events")
    licences.require_denied(
        "cockpit_deleter",
        [
            statement.format(f"cockpit_deletions.{table}")
            for table in tables
            for statement in ("UPDATE {} SET seq = 0", "DELETE FROM {}", "TRUNCATE {}")
        ],
    )
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        licences.query("cockpit_deleter", "DROP TABLE cockpit_deletions.deletion_events")


def test_lake_of_the_page_takes_the_file(postgres: PostgresServer, trial: Trial, tmp_path: Path) -> None:
    statements = update_readme.read_code("catalog.sql", DUCKLAKE_PAGE).split(";\n")
    try:
        for statement in filter(None, statements):
            postgres.execute(statement)
        run(trial, "cockpit load", 3)
        prefix = "DESTINATION__DUCKLAKE__CREDENTIALS"
        moved = follow_page(
            trial,
            DUCKLAKE_PAGE,
            **{
                f"{prefix}__DUCKLAKE_NAME": "licences",
                f"{prefix}__CATALOG": f"postgresql://cockpit_lake:{PASSWORD}@127.0.0.1:{postgres.port}/lake",
                f"{prefix}__STORAGE__BUCKET_URL": str(tmp_path / "lake"),
                f"{prefix}__GLOBAL_CONFIG": '{"autoinstall_known_extensions": false}',
            },
        )
        assert "Every table equals the file's, row by row." in moved
        assert list((tmp_path / "lake").rglob("*.parquet"))
    finally:
        postgres.execute("DROP DATABASE IF EXISTS lake WITH (FORCE)")
        postgres.execute("DROP ROLE IF EXISTS cockpit_lake")


def test_ledger_of_the_page_is_that_of_the_code() -> None:
    """`make readme` fills it in."""
    page = POSTGRESQL_PAGE.read_text(encoding="utf-8")
    assert update_readme.read_block("ledger.sql", page) == ledger_documents.render_ledger_sql()
