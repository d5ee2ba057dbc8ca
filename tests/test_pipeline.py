"""The pipeline of an inventory: its name, its database and what it refuses."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from support import Inventory, new_id, sku

from cockpit_source.configuration import open_project
from cockpit_source.errors import ConfigurationError
from cockpit_source.pipeline import create_pipeline, work_folder
from cockpit_source.warehouse import describe_location


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        create_pipeline("t.example", **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def database_of(**options: Any) -> str:
    return describe_location(create_pipeline("t.example", **options)).removeprefix("duckdb:///")


def test_name_is_stable() -> None:
    """A new name would leave pending packages and spools behind, so it may not change by accident."""
    pipeline = create_pipeline("portal.example.com", database="/srv/licences.duckdb", dataset="cockpit")
    identity = "duckdb|duckdb:////srv/licences.duckdb|cockpit|portal.example.com|"
    assert pipeline.pipeline_name == "cockpit_" + hashlib.sha256(identity.encode()).hexdigest()[:10]
    assert pipeline.pipeline_name == "cockpit_c3cd5fb3ed"
    assert pipeline.dataset_name == "cockpit"


def test_names_differ_by_database_dataset_tenant_and_shard(tmp_path: Path) -> None:
    pipelines = [
        create_pipeline("t", database=tmp_path / "a.duckdb"),
        create_pipeline("t", database=tmp_path / "b.duckdb"),
        create_pipeline("t", database=tmp_path / "a.duckdb", dataset="other"),
        create_pipeline("u", database=tmp_path / "a.duckdb"),
        create_pipeline("t", database=tmp_path / "a.duckdb", shard="1of2"),
        create_pipeline("t", database=tmp_path / "a.duckdb", shard="2of2"),
    ]
    for one, other in combinations(pipelines, 2):
        assert one.pipeline_name != other.pipeline_name
        assert one.working_dir != other.working_dir
        assert work_folder(one) != work_folder(other)


def test_spellings_of_one_database_are_one_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    names = {
        create_pipeline("t", database=path).pipeline_name
        for path in (tmp_path / "a.duckdb", "a.duckdb", "x/../a.duckdb", "~/a.duckdb", "link/a.duckdb")
    }
    assert len(names) == 1


def test_staging_dataset_is_its_own(tmp_path: Path) -> None:
    pipeline = create_pipeline("t", database=tmp_path / "a.duckdb")
    suffix = pipeline.pipeline_name.removeprefix("cockpit_")
    assert pipeline.destination.config_params["staging_dataset_name_layout"] == f"%s_staging_{suffix}"


def test_spool_lies_beside_the_working_folder_of_dlt(tmp_path: Path) -> None:
    pipeline = create_pipeline("t", database=tmp_path / "a.duckdb", pipelines_dir=tmp_path / "work" / "pipelines")
    assert work_folder(pipeline) == tmp_path / "work" / "cockpit_spool" / pipeline.pipeline_name


def test_relative_database_starts_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "current").mkdir()
    open_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "current")
    assert database_of(database="a.duckdb") == str(tmp_path / "current" / "a.duckdb")
    assert database_of(database="~/a.duckdb") == str(tmp_path / "a.duckdb")


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ('credentials = "a.duckdb"', "project/a.duckdb"),
        ('credentials = "duckdb:///a.duckdb"', "project/a.duckdb"),
        ('credentials = "duckdb:///sub/a.duckdb"', "project/sub/a.duckdb"),
        ('credentials = "duckdb:///{folder}/a.duckdb"', "a.duckdb"),
        ('credentials = "{folder}/a.duckdb"', "a.duckdb"),
        ('credentials = "~/a.duckdb"', "a.duckdb"),
        ('credentials = {{ database = "a.duckdb" }}', "project/a.duckdb"),
        ("credentials = {{ read_only = false }}", "project/license_inventory.duckdb"),
        ('credentials = ""', "project/license_inventory.duckdb"),
        ('credentials = "..."', "project/license_inventory.duckdb"),
        ("", "project/license_inventory.duckdb"),
    ],
)
def test_configured_database_starts_at_the_project(tmp_path: Path, configured: str, expected: str) -> None:
    _configure(tmp_path / "project", configured.format(folder=tmp_path))
    assert database_of() == str(tmp_path / expected)


def test_database_argument_wins_over_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _configure(tmp_path, 'credentials = "file.duckdb"')
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "environment.duckdb")
    assert database_of() == str(tmp_path / "environment.duckdb")
    assert database_of(database=tmp_path / "argument.duckdb") == str(tmp_path / "argument.duckdb")


@pytest.mark.parametrize("value", ["5", "true", '["a.duckdb"]', "{ database = 5 }"])
def test_configured_database_that_is_no_path_is_refused(tmp_path: Path, value: str) -> None:
    _configure(tmp_path, f"credentials = {value}")
    assert refusal().startswith("destination.duckdb.credentials is not the path of a DuckDB file. Correct it under")


def test_database_with_another_destination_is_refused(tmp_path: Path) -> None:
    message = refusal(destination="postgres", database=tmp_path / "a.duckdb")
    assert message == "--database is the path of a DuckDB file; for other destinations configure dlt."


@pytest.mark.parametrize("dataset", ["", "a b", "a;b", "Cockpit", "_x", "x_", "a__b", "1a", "ä", "a.b", 'a"b', "a\n"])
def test_dataset_that_dlt_would_rename_is_refused(tmp_path: Path, dataset: str) -> None:
    message = refusal(dataset=dataset, database=tmp_path / "a.duckdb")
    assert message.startswith(f"--dataset {dataset!r} does not fit. Valid: lower-case letters, digits and single")


@pytest.mark.parametrize("dataset", ["cockpit", "cockpit_test", "c2", "a_1_b"])
def test_dataset_that_fits_keeps_its_name(tmp_path: Path, dataset: str) -> None:
    pipeline = create_pipeline("t", database=tmp_path / "w.duckdb", dataset=dataset)
    with pipeline.sql_client() as client:
        assert client.fully_qualified_dataset_name(quote=False).split(".")[-1] == dataset


@pytest.mark.parametrize("name", ["cockpit.duckdb", "COCKPIT.db"])
def test_database_named_like_its_dataset_is_refused(tmp_path: Path, name: str) -> None:
    message = refusal(database=tmp_path / name)
    assert message.startswith(f"The DuckDB file {tmp_path / name} is named like its dataset 'cockpit'")
    assert "--database" in message


@pytest.mark.parametrize("destination", ["nosuch", "", "no such", "cockpit_source.nothing"])
def test_unknown_destination_is_refused(destination: str) -> None:
    assert refusal(destination=destination) == (
        f"The destination {destination!r} cannot be used: dlt knows none of this name. Valid: duckdb, postgres, "
        "snowflake, bigquery and the others of dlt."
    )


def test_destination_without_credentials_says_what_is_missing() -> None:
    message = refusal(destination="postgres")
    assert message.startswith("The destination 'postgres' cannot be used: Missing 1 field(s) in configuration")
    assert "`credentials`" in message
    assert "[destination.postgres.credentials] in .dlt/secrets.toml" in message


@pytest.mark.parametrize(
    "credentials", ["postgresql://me:hunter-two@127.0.0.1:port/db", "me:hunter-two@db", "hunter-two"]
)
def test_password_of_wrong_credentials_is_not_shown(monkeypatch: pytest.MonkeyPatch, credentials: str) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", credentials)
    message = refusal(destination="postgres")
    assert message.startswith("The destination 'postgres' cannot be used: ")
    assert "hunter" not in message


def test_destination_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the driver happens to be installed."""
    for name in [name for name in sys.modules if name.startswith("dlt.destinations.impl.postgres.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "dlt.destinations.impl.postgres.sql_client", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://me:hunter-two@127.0.0.1:9/db")
    message = refusal(destination="postgres")
    assert "its driver psycopg2 is not installed. Install the extra of dlt for it" in message
    assert "hunter" not in message


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere"])
def test_working_folder_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / folder))
    message = refusal(database=tmp_path / "a.duckdb")
    assert message.startswith(f"The working folder of dlt cannot be used: {tmp_path / folder}")
    assert message.endswith("Set DLT_DATA_DIR to a folder that can be written.")


def _configure(folder: Path, line: str) -> None:
    (folder / ".dlt").mkdir(parents=True)
    (folder / ".dlt" / "config.toml").write_text(f"[destination.duckdb]\n{line}\n", encoding="utf-8")
    open_project(folder)


def test_damaged_working_folder_is_named_and_can_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    place = {"database": tmp_path / "a.duckdb", "pipelines_dir": folder}
    created = create_pipeline("a.example", **place)
    state = Path(created.working_dir) / "state.json"
    state.write_text(state.read_text()[:20])
    with pytest.raises(ConfigurationError, match="is damaged") as refused:
        create_pipeline("a.example", **place)
    assert "Remove that folder, then run again" in str(refused.value)
    assert created.working_dir in str(refused.value)
    shutil.rmtree(created.working_dir)
    assert create_pipeline("a.example", **place).pipeline_name == created.pipeline_name


def test_destination_on_which_dlt_would_append_is_refused() -> None:
    """A plain filesystem has no merge; dlt would append there without a word."""
    assert refusal(destination="filesystem").endswith(
        "dlt has no delete-insert and no scd2 merge for it. Valid: a database, such as duckdb or postgres, or "
        "ducklake for Parquet files."
    )


def test_script_loads_like_the_command(inventory: Inventory, tmp_path: Path) -> None:
    """`pipelines/license_inventory.py` in a project folder, with settings from the environment."""
    inventory.answer(new_id(1), [sku("e3", 25, 22)])
    settings = inventory.connection() | {"customers": f'["{new_id(1)}"]', "provider_instances": f'["{new_id(0)}"]'}
    environment = {f"SOURCES__COCKPIT__{name.upper()}": str(value) for name, value in settings.items()}
    script = Path(__file__).parent.parent / "pipelines" / "license_inventory.py"
    command = [sys.executable, str(script), "inventory.duckdb"]
    for _ in range(2):
        ended = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (0, "complete: 1 of 1 scopes, 1 licence rows\n"), ended.stderr
    assert [row["total_licenses"] for row in inventory.rows("licenses")] == [25]
    refused = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | environment | {"SOURCES__COCKPIT__CLIENT_SECRET": "wrong"},
        capture_output=True,
        text=True,
    )
    assert (refused.returncode, "Traceback" in refused.stderr) == (5, False)
