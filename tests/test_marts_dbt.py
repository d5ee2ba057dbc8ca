"""The marts as a dbt package: `dbt build` in a project of its own tells what the views of `cockpit marts` tell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
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
MARTS_PAGE = Path(__file__).parents[1] / "docs" / "marts.md"
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
    """Days of the simulated tenant and a price list.

    One day has no run, one a customer that cannot be read, and from the second on customers of resellers are read
    without reseller too.
    """
    folder = tmp_path_factory.mktemp("dbt")
    with running_sandbox() as sandbox:
        inventory = Inventory(sandbox, folder / "warehouse.duckdb", max_attempts=1)
        for number in (0, 1, DAYS - 1):
            sandbox.day = number
            sandbox.clear()
            if number == DAYS - 1:
                failing = sandbox.tenant.event(EventKind.OVER_ASSIGNED)
                sandbox.faults.for_customer(failing.customer_id, "html_503")
            listed = set(sandbox.tenant.scopes(number))
            listed |= {(customer, instance, None) for customer, instance, _ in listed}
            settings = {} if number else {"scopes": None, "discover": True}
            inventory.load(sorted(listed, key=str), day(number), settings=settings)
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


def run_dbt(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """dbt in `folder`, where all that it writes goes, with `more` variables."""
    variables = {"materialized": "view", "as_of": AS_OF.isoformat()} | more
    command = [str(Path(sys.executable).with_name("dbt")), *arguments, "--vars", json.dumps(variables)]
    environment = os.environ | {
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_PROFILES_DIR": str(folder),
        "HOME": str(folder),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def found_package() -> str:
    """Where the package lies, by the command of docs/marts.md."""
    command = re.findall(r"^\$ python -c \"(.+)\"$", MARTS_PAGE.read_text("utf-8"), re.MULTILINE)
    return subprocess.run(
        [sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def project(loaded: Inventory) -> Path:
    """A project that uses the package as docs/marts.md says."""
    attached = {"path": str(loaded.database), "alias": "warehouse", "read_only": True}
    settings = {
        "dbt_project.yml": {
            "name": "mine",
            "version": "1.0.0",
            "config-version": 2,
            "profile": "mine",
            "models": {"cockpit_marts": {"+materialized": "{{ var('materialized') }}"}},
        },
        "packages.yml": {"packages": [{"local": found_package()}]},
        "profiles.yml": {
            "mine": {
                "target": "warehouse",
                "outputs": {
                    "warehouse": _output(loaded.database, "built"),
                    "twice": _output(loaded.database, "twice"),
                    "own": _output(own_database(loaded), "built") | {"attach": [attached]},
                },
            }
        },
    }
    folder = loaded.database.parent / "project"
    folder.mkdir()
    for name, content in settings.items():
        (folder / name).write_text(yaml.safe_dump(content))
    run_dbt(folder, "deps")
    return folder


def _output(database: Path, schema: str) -> dict[str, object]:
    return {"type": "duckdb", "path": str(database), "schema": schema, "threads": 2}


def own_database(inventory: Inventory) -> Path:
    """Where dbt writes when it does not write beside the tables."""
    return inventory.database.with_name("own.duckdb")


def results_of(folder: Path) -> dict[str, str]:
    """How each node of the last command went."""
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    return {result["unique_id"]: result["status"] for result in results}


def ask(inventory: Inventory, sql: str) -> list[tuple[object, ...]]:
    """Rows of the catalogs `warehouse` and, where dbt made it, `own`."""
    with duckdb.connect() as connection:
        for database in filter(Path.exists, (inventory.database, own_database(inventory))):
            connection.execute(f"ATTACH '{database}' AS {database.stem} (READ_ONLY)")
        return connection.execute(sql).fetchall()


def rows_of_one_only(inventory: Inventory, name: str, catalog: str) -> list[tuple[object, ...]]:
    """Rows of a view that the dbt model has not, and the other way round."""
    # the measures' own SQL names where the models are
    columns = f"""* REPLACE (replace(sql, '"{catalog}"."built"', '"cockpit"') AS sql)"""
    chosen = columns if name == "metrics" else "*"
    view, model = (f"(SELECT {chosen} FROM {place}.{name})" for place in ("warehouse.cockpit", f"{catalog}.built"))
    return ask(
        inventory,
        f"SELECT 'view', * FROM ({view} EXCEPT ALL {model}) UNION ALL "
        f"SELECT 'dbt', * FROM ({model} EXCEPT ALL {view})",
    )


def files_of(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("target", "variables"),
    [
        ("warehouse", {"reseller_scopes": "same", "materialized": "view"}),
        ("own", {"reseller_scopes": "parts", "materialized": "table", "cockpit_database": "warehouse"}),
    ],
)
def test_dbt_builds_what_the_views_tell(
    loaded: Inventory, project: Path, target: str, variables: dict[str, str]
) -> None:
    create_views(loaded, variables["reseller_scopes"])
    before = files_of(PACKAGE)
    ran = run_dbt(project, "build", "--target", target, **variables)
    assert ran.returncode == 0, ran.stdout
    assert "Deprecat" not in ran.stdout
    assert files_of(PACKAGE) == before
    results = results_of(project)
    assert {name.split(".")[2] for name in results if name.startswith(("model.", "seed."))} == set(NAMES)
    assert set(results.values()) == {"success", "pass"}
    assert sum(name.startswith("test.") for name in results) > 2 * len(NAMES)
    assert {name: rows_of_one_only(loaded, name, target) for name in NAMES} == {name: [] for name in NAMES}
    counted = {name: ask(loaded, f"SELECT count(*) FROM {target}.built.{name}") for name in NAMES}
    assert all(found != [(0,)] for found in counted.values()), counted
    most_scopes = 1 if variables["reseller_scopes"] == "same" else 2
    assert ask(loaded, f"SELECT max(scopes_counted) FROM {target}.built.fct_current_inventory") == [(most_scopes,)]


def test_a_data_test_can_fail(loaded: Inventory, project: Path) -> None:
    """On a table in which every row is twice."""
    create_views(loaded, "same")
    with duckdb.connect(str(loaded.database)) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS twice")
        connection.execute("CREATE TABLE twice.scope_health AS FROM cockpit.scope_health, range(2)")
    ran = run_dbt(project, "test", "--select", "scope_health", "--target", "twice")
    assert ran.returncode == 1
    assert {name.split(".")[2]: status for name, status in results_of(project).items() if status != "pass"} == {
        "grain_scope_health_tenant__scope_key": "fail"
    }


def test_every_column_is_described(loaded: Inventory) -> None:
    create_views(loaded, "same")
    columns = loaded.query(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = 'cockpit' "
        f"AND table_name IN {tuple(NAMES)} ORDER BY table_name, column_index"
    )
    described = documented()
    assert [(name, column) for name in sorted(NAMES) for column in described[name]] == columns
    assert all(text for texts in described.values() for text in texts.values())


def test_sources_are_those_that_a_load_writes() -> None:
    (source,) = yaml.safe_load((PACKAGE / "models" / "sources.yml").read_text("utf-8"))["sources"]
    tables = TABLES | REFERENCE_TABLES
    assert {table["name"]: [column["name"] for column in table["columns"]] for table in source["tables"]} == {
        name: [column.name for column in (*table.columns, *table.versioned_columns)] for name, table in tables.items()
    }


def test_nothing_is_documented_that_is_not_there() -> None:
    assert sorted(documented()) == sorted(NAMES)
