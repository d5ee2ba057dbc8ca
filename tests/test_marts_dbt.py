"""The marts as a dbt package: `dbt build` in a project of its own tells what the views of `cockpit marts` tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
import yaml
from support import FIRST_DAY, Inventory, day

from cockpit_source.marts import MartOptions, render_marts
from cockpit_source.marts.refresh import refresh_marts
from cockpit_source.sandbox import EventKind, running_sandbox
from cockpit_source.settings import MartSettings
from cockpit_source.tables import REFERENCE_TABLES, TABLES

PACKAGE = Path(__file__).parents[1] / "cockpit_source" / "marts" / "dbt"
DAYS = 4
# neither the end of a run nor the end of a day
AS_OF = day(DAYS - 1) + timedelta(hours=3)
NAMES = [mart.name for mart in render_marts(MartOptions(), str)]
SKU_CATALOG = Path(__file__).parent / "product_names.csv"


def documented() -> dict[str, dict[str, str]]:
    """What `marts.yml` says of the columns of each model and seed."""
    parsed = yaml.safe_load((PACKAGE / "models" / "marts.yml").read_text("utf-8"))
    return {
        model["name"]: {column["name"]: column["description"] for column in model["columns"]}
        for model in (*parsed["models"], *parsed["seeds"])
    }


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """Days of the simulated tenant, one without a run, one with a customer that cannot be read, and a price list."""
    folder = tmp_path_factory.mktemp("dbt")
    with running_sandbox() as sandbox:
        inventory = Inventory(sandbox, folder / "warehouse.duckdb", max_attempts=1)
        for number in (0, 1, DAYS - 1):
            sandbox.day = number
            sandbox.clear()
            if number == DAYS - 1:
                failing = sandbox.tenant.event(EventKind.OVER_ASSIGNED)
                sandbox.faults.for_customer(failing.customer_id, "html_503")
            inventory.load((), day(number), settings={"scopes": None, "discover": True})
    skus = inventory.query("SELECT DISTINCT sku_id FROM cockpit.licenses ORDER BY 1 LIMIT 20")
    prices = [f"{sku_id},{number}.25,EUR,{FIRST_DAY:%Y-%m-%d}" for number, (sku_id,) in enumerate(skus)]
    (folder / "prices.csv").write_text("\n".join(["sku_id,unit_price,currency,valid_from", *prices]))
    return inventory


def create_views(inventory: Inventory, reseller_scopes: str) -> None:
    settings = MartSettings(
        inventory.tenant_key,
        price_list=str(inventory.database.parent / "prices.csv"),
        sku_catalog=str(SKU_CATALOG),
        reseller_scopes=reseller_scopes,
        publish_read_copy=False,
    )
    refresh_marts(inventory.pipeline(), settings, as_of=AS_OF, note=print)


def run_dbt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """dbt in `folder`, where all that it writes goes."""
    command = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", *arguments]
    environment = os.environ | {
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_PROFILES_DIR": str(folder),
        "HOME": str(folder),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def write_project(folder: Path, database: Path, reseller_scopes: str) -> None:
    """A project that uses the package as docs/marts.md says."""
    settings = {
        "dbt_project.yml": {
            "name": "mine",
            "version": "1.0.0",
            "config-version": 2,
            "profile": "mine",
            "vars": {"reseller_scopes": reseller_scopes, "as_of": AS_OF.isoformat()},
        },
        "packages.yml": {"packages": [{"local": str(PACKAGE)}]},
        "profiles.yml": {
            "mine": {
                "target": "here",
                "outputs": {"here": {"type": "duckdb", "path": str(database), "schema": "built", "threads": 2}},
            }
        },
    }
    folder.mkdir()
    for name, content in settings.items():
        (folder / name).write_text(yaml.safe_dump(content))


def results_of(folder: Path) -> dict[str, str]:
    """How each node of the last command went."""
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    return {result["unique_id"]: result["status"] for result in results}


def rows_of_one_only(database: Path, name: str) -> list[tuple[object, ...]]:
    """Rows of a view that the dbt model has not, and the other way round."""
    # the measures' own SQL names the schema
    columns = "* REPLACE (replace(replace(sql, '\"warehouse\".', ''), '\"built\"', '\"cockpit\"') AS sql)"
    chosen = columns if name == "metrics" else "*"
    view, model = (f"(SELECT {chosen} FROM {schema}.{name})" for schema in ("cockpit", "built"))
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(
            f"SELECT 'view', * FROM ({view} EXCEPT ALL {model}) UNION ALL "
            f"SELECT 'dbt', * FROM ({model} EXCEPT ALL {view})"
        ).fetchall()


def files_of(folder: Path) -> Sequence[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("reseller_scopes", ["same", "parts"])
def test_dbt_builds_what_the_views_tell(loaded: Inventory, tmp_path: Path, reseller_scopes: str) -> None:
    create_views(loaded, reseller_scopes)
    project = tmp_path / "project"
    write_project(project, loaded.database, reseller_scopes)
    before = files_of(PACKAGE)
    for command in ("deps", "build"):
        ran = run_dbt(project, command)
        assert ran.returncode == 0, ran.stdout
        assert "Deprecat" not in ran.stdout
    assert files_of(PACKAGE) == before
    results = results_of(project)
    assert {name.split(".")[2] for name in results if name.startswith(("model.", "seed."))} == set(NAMES)
    assert set(results.values()) == {"success", "pass"}
    assert sum(name.startswith("test.") for name in results) > 2 * len(NAMES)
    assert {name: rows_of_one_only(loaded.database, name) for name in NAMES} == {name: [] for name in NAMES}
    counted = {name: loaded.query(f"SELECT count(*) FROM built.{name}") for name in NAMES}
    assert all(found != [(0,)] for found in counted.values()), counted
    # a test that cannot fail proves nothing
    with duckdb.connect(str(loaded.database)) as connection:
        connection.execute("CREATE OR REPLACE VIEW built.scope_health AS FROM cockpit.scope_health, range(2)")
    assert run_dbt(project, "test", "--select", "scope_health").returncode == 1
    assert {name.split(".")[2]: status for name, status in results_of(project).items() if status != "pass"} == {
        "grain_scope_health_tenant__scope_key": "fail"
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_described(loaded: Inventory, name: str) -> None:
    create_views(loaded, "same") if name == NAMES[0] else None
    columns = loaded.query(
        f"SELECT column_name FROM duckdb_columns() WHERE schema_name = 'cockpit' AND table_name = '{name}' "
        "ORDER BY column_index"
    )
    assert list(documented()[name]) == [column for (column,) in columns]
    assert all(documented()[name].values())


def test_sources_are_those_that_a_load_writes() -> None:
    (source,) = yaml.safe_load((PACKAGE / "models" / "sources.yml").read_text("utf-8"))["sources"]
    tables = TABLES | REFERENCE_TABLES
    assert {table["name"]: [column["name"] for column in table["columns"]] for table in source["tables"]} == {
        name: [column.name for column in (*table.columns, *table.versioned_columns)] for name, table in tables.items()
    }


def test_nothing_is_documented_that_is_not_there() -> None:
    assert sorted(documented()) == sorted(NAMES)
