"""The extensions of DuckDB that DuckLake needs: they come from packages, and nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from cockpit_source.errors import ConfigurationError
from cockpit_source.pipeline import create_pipeline
from cockpit_source.warehouse import Warehouse

CREDENTIALS = "DESTINATION__DUCKLAKE__CREDENTIALS"


@pytest.fixture
def local_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake whose catalogue is the SQLite file of this path; the home folder has no extensions yet."""
    monkeypatch.setenv(f"{CREDENTIALS}__GLOBAL_CONFIG", '{"autoinstall_known_extensions": false}')
    monkeypatch.setenv(f"{CREDENTIALS}__CATALOG", f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    monkeypatch.setenv(f"{CREDENTIALS}__STORAGE__BUCKET_URL", str(tmp_path / "files"))
    return tmp_path / "catalog.sqlite"


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        create_pipeline("t", destination="ducklake")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_catalogue_in_a_file_needs_no_server(local_lake: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    catalog = local_lake.with_suffix(f".{kind}")
    monkeypatch.setenv(f"{CREDENTIALS}__CATALOG", f"{kind}:///{catalog}")
    Warehouse(create_pipeline("t", destination="ducklake")).check()
    assert catalog.exists()


def test_extensions_go_where_the_user_wants_them(
    local_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"autoinstall_known_extensions": False, "extension_directory": str(tmp_path / "mine")}
    monkeypatch.setenv(f"{CREDENTIALS}__GLOBAL_CONFIG", json.dumps(config))
    Warehouse(create_pipeline("t", destination="ducklake")).check()
    assert len(list((tmp_path / "mine").rglob("*.duckdb_extension"))) == 2
    assert not (tmp_path / ".duckdb").exists()


def test_missing_extra_says_what_to_install(local_lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cockpit_source.ducklake.find_spec", lambda _: None)
    assert refusal() == (
        f"DuckLake needs the DuckDB extension ducklake for DuckDB {duckdb.__version__}, which is not there. "
        'Install it from the clone: pip install -c constraints.txt ".[ducklake]"'
    )


def test_extension_that_the_user_has_installed_needs_no_package(
    local_lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_pipeline("t", destination="ducklake")
    monkeypatch.setattr("cockpit_source.ducklake.find_spec", lambda _: None)
    Warehouse(create_pipeline("t", destination="ducklake")).check()


def test_home_that_cannot_be_written_is_told(
    local_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    message = refusal()
    assert message.startswith("The DuckDB extension ducklake cannot be installed: ")
    assert message.endswith("set extension_directory under [destination.ducklake.credentials.global_config].")
