"""Settings from the environment, secrets.toml and config.toml, as dlt reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dlt
import pytest
from support import new_id

from cockpit_source.configuration import (
    configuration_files,
    configured_value,
    open_project,
    project_folder,
    resolve_settings,
)
from cockpit_source.errors import ConfigurationError
from cockpit_source.settings import KEYS, Settings

CONFIG = f"""
[sources.cockpit]
tenant = "portal.example.com"
client_id = "an-id"
customers = ["{new_id(1)}"]
provider_instances = ["{new_id(0)}"]
"""
SECRETS = '[sources.cockpit]\nclient_secret = "a-secret"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose settings are complete."""
    write_project(tmp_path)
    return tmp_path


def write_project(folder: Path, config: str = CONFIG, secrets: str = SECRETS) -> None:
    (folder / ".dlt").mkdir(parents=True, exist_ok=True)
    (folder / ".dlt" / "config.toml").write_text(config, encoding="utf-8")
    (folder / ".dlt" / "secrets.toml").write_text(secrets, encoding="utf-8")
    open_project(folder)


def refusal(**overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve_settings(**overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_files_are_read(project: Path) -> None:
    settings = resolve_settings()
    assert (settings.tenant, settings.credentials.client_id, settings.credentials.client_secret) == (
        "portal.example.com",
        "an-id",
        "a-secret",
    )
    assert [row["customer_id"] for row in settings.scopes.rows] == [new_id(1)]


def test_environment_wins_over_secrets_file_wins_over_config_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_settings().max_attempts == 5
    write_project(project, CONFIG + "max_attempts = 2\n")
    assert resolve_settings().max_attempts == 2
    write_project(project, CONFIG + "max_attempts = 2\n", SECRETS + "max_attempts = 3\n")
    assert resolve_settings().max_attempts == 3
    monkeypatch.setenv("SOURCES__COCKPIT__MAX_ATTEMPTS", "4")
    assert resolve_settings().max_attempts == 4
    assert resolve_settings(max_attempts=6).max_attempts == 6
    assert resolve_settings(max_attempts=None).max_attempts == 4


def test_environment_wins_for_the_secret_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__COCKPIT__CLIENT_SECRET", "another")
    assert resolve_settings().credentials.client_secret == "another"


def test_every_key_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "base_url": "https://api.example.com",
        "tenant": "123",
        "tenant_key": "1e5",
        "client_id": "true",
        "client_secret": "0123",
        "token_url": "https://login.example.com/token",
        "token_scope": "api://x/.default",
        "scopes_query": "SELECT 1",
        "max_concurrency": "7",
        "max_requests_per_second": "1.5",
        "max_attempts": "2",
        "timeout_seconds": "3",
        "patience_seconds": "0",
        "run_deadline_minutes": "5",
        "max_drop_scopes": "8",
        "max_drop_percent": "2.5",
        "lock_wait_seconds": "0",
        "publish_read_copy": "false",
        "page_size": "100",
        "contact_data": "true",
        "gdap_relationships": "false",
        "price_list": "prices.csv",
        "sku_catalog": "https://example.com/names.csv",
        "reseller_scopes": "parts",
        "refresh_marts": "true",
        "after_run_command": "notify",
        "after_run_webhook": "https://hooks.example.com/x",
        "spool_url": "s3://bucket/spool",
        "shard_timeout_seconds": "90",
    }
    others = {"access_token", "customers", "provider_instances", "resellers", "scopes", "scopes_file", "discover"}
    assert set(texts) | others == set(KEYS)
    for name, text in texts.items():
        monkeypatch.setenv(f"SOURCES__COCKPIT__{name.upper()}", text)
    settings = resolve_settings()
    read = {name: getattr(settings, name) for name in Settings.__dataclass_fields__ if name in texts}
    assert read == {
        "base_url": "https://api.example.com",
        "tenant": "123",
        "tenant_key": "1e5",
        "max_concurrency": 7,
        "max_requests_per_second": 1.5,
        "max_attempts": 2,
        "timeout_seconds": 3.0,
        "patience_seconds": 0.0,
        "run_deadline_minutes": 5.0,
        "max_drop_scopes": 8,
        "max_drop_percent": 2.5,
        "lock_wait_seconds": 0.0,
        "publish_read_copy": False,
        "page_size": 100,
        "contact_data": True,
        "gdap_relationships": False,
        "price_list": "prices.csv",
        "sku_catalog": "https://example.com/names.csv",
        "reseller_scopes": "parts",
        "refresh_marts": True,
        "after_run_command": "notify",
        "after_run_webhook": "https://hooks.example.com/x",
        "spool_url": "s3://bucket/spool",
        "shard_timeout_seconds": 90.0,
    }
    credentials = settings.credentials
    assert (credentials.client_id, credentials.client_secret) == ("true", "0123")
    assert (credentials.token_url, credentials.token_scope) == (texts["token_url"], texts["token_scope"])
    assert settings.scopes.query == "SELECT 1"


@pytest.mark.parametrize("text", [f"{new_id(1)},{new_id(2)}", json.dumps([new_id(1), new_id(2)])])
def test_list_comes_from_the_environment_with_commas_or_as_json(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SOURCES__COCKPIT__CUSTOMERS", text)
    assert [row["customer_id"] for row in resolve_settings().scopes.rows] == [new_id(1), new_id(2)]


def test_scopes_come_as_array_of_tables(tmp_path: Path) -> None:
    tables = "".join(
        f'\n[[sources.cockpit.scopes]]\ncustomer_id = "{new_id(n)}"\nprovider_instance_id = "{new_id(0)}"\n'
        for n in (1, 2)
    )
    write_project(tmp_path, f'[sources.cockpit]\ntenant = "t.example"\nclient_id = "i"\n{tables}reseller_id = "-"\n')
    assert resolve_settings().scopes.rows == (
        {"customer_id": new_id(1), "provider_instance_id": new_id(0)},
        {"customer_id": new_id(2), "provider_instance_id": new_id(0), "reseller_id": "-"},
    )


def test_scopes_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_project(tmp_path, '[sources.cockpit]\ntenant = "t.example"\nclient_id = "i"\n')
    rows = [{"customer_id": new_id(1), "provider_instance_id": new_id(0), "reseller_id": None}]
    monkeypatch.setenv("SOURCES__COCKPIT__SCOPES", json.dumps(rows))
    assert resolve_settings().scopes.rows == tuple(rows)


def test_scope_argument_replaces_the_configured_way(project: Path) -> None:
    settings = resolve_settings(scopes_file="other.csv")
    assert (settings.scopes.origin, settings.scopes.file, settings.scopes.rows) == ("file", "other.csv", ())


def test_unknown_argument_is_named(project: Path) -> None:
    assert "max_attemps is not a key of this source; did you mean max_attempts?" in refusal(max_attemps=3)


@pytest.mark.parametrize("secret", ["client_secret", "access_token"])
def test_secret_in_the_shared_file_is_refused_without_showing_it(tmp_path: Path, secret: str) -> None:
    """Told beside everything else that is wrong, and not as missing."""
    config = f'[sources.cockpit]\ntenant = "https://x"\n{secret} = "hunter-two"\nscopes_file = "a.csv"\n'
    config += 'client_id = "i"\n' if secret == "client_secret" else ""
    write_project(tmp_path, config, "")
    message = refusal()
    assert f"{secret} stands in config.toml, a file that is meant to be shared." in message
    assert f"SOURCES__COCKPIT__{secret.upper()}" in message
    assert "tenant is an address" in message
    assert "missing" not in message
    assert "hunter-two" not in message


def test_secret_in_the_shared_file_is_refused_although_another_wins(project: Path) -> None:
    write_project(project, CONFIG + 'client_secret = "hunter-two"\n')
    assert "client_secret stands in config.toml" in refusal()


def test_placeholder_of_a_secret_in_the_shared_file_is_harmless(project: Path) -> None:
    write_project(project, CONFIG + 'client_secret = "..."\n')
    assert resolve_settings().credentials.client_secret == "a-secret"


def test_example_files_of_the_project_say_what_is_missing(tmp_path: Path) -> None:
    """Copied and not filled in, they are a configuration without anything, not one of placeholders."""
    examples = Path(__file__).parents[1] / ".dlt"
    write_project(
        tmp_path,
        (examples / "config.toml").read_text(encoding="utf-8"),
        (examples / "example.secrets.toml").read_text(encoding="utf-8"),
    )
    message = refusal()
    assert "tenant is missing." in message
    assert "client_id and client_secret are missing" in message
    assert "no scopes are configured" in message
    assert "not a key" not in message


@pytest.mark.parametrize("where", ["config", "secrets", "environment"])
def test_unknown_key_is_named_wherever_it_stands(project: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "environment":
        monkeypatch.setenv("SOURCES__COCKPIT__TENNANT", "x")
    else:
        added = 'tennant = "x"\n'
        write_project(project, CONFIG + added * (where == "config"), SECRETS + added * (where == "secrets"))
    assert "tennant is not a key of this source; did you mean tenant?" in refusal()


def test_section_of_deletions_is_no_unknown_key(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(project, CONFIG + "[sources.cockpit.deletions]\nenabled = false\n")
    monkeypatch.setenv("SOURCES__COCKPIT__DELETIONS__MAX_PERCENT", "5")
    assert resolve_settings().tenant == "portal.example.com"
    write_project(project, CONFIG + "deletions = false\n")
    assert "deletions is not a key of this source" in refusal()


@pytest.mark.parametrize("name", ["TENANT", "COCKPIT__TENANT", "SOURCES__TENANT", "SOURCES__OTHER__TENANT"])
def test_variable_of_another_program_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_project(tmp_path, CONFIG.replace("tenant", "# tenant"))
    monkeypatch.setenv(name, "elsewhere.example.com")
    assert "tenant is missing" in refusal()


@pytest.mark.parametrize("section", ["sources", "sources.other", "cockpit", "sources.cockpit.cockpit"])
def test_key_of_another_section_is_not_taken(tmp_path: Path, section: str) -> None:
    config = CONFIG.replace("tenant", "# tenant") + f'[{section}]\ntenant = "elsewhere.example.com"\n'
    write_project(tmp_path, config)
    assert "tenant is missing" in refusal()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"tenant = = 1", "is not valid TOML: Invalid value (at line 1, column 10)"),
        (b"[sources.cockpit\n", "is not valid TOML"),
        (b"a = 1\na = 2\n", "is not valid TOML"),
        (b"client_secret = hunter-two", "is not valid TOML"),
        (b"\xff\xfea", "is not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("name", ["config.toml", "secrets.toml"])
def test_file_that_is_not_toml_is_named(project: Path, name: str, content: bytes, expected: str) -> None:
    (project / ".dlt" / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        open_project(project)
    message = str(caught.value)
    assert message.startswith(f"The file {project / '.dlt' / name} ")
    assert expected in message
    assert "hunter" not in message
    assert "\n" not in message


def test_setting_of_dlt_that_does_not_fit_is_told(project: Path) -> None:
    (project / ".dlt" / "config.toml").write_text('[runtime]\ndlthub_telemetry = "perhaps"\n', encoding="utf-8")
    os.environ.pop("RUNTIME__DLTHUB_TELEMETRY", None)
    try:
        with pytest.raises(ConfigurationError, match=r"The configuration of dlt does not work: .*dlthub_telemetry"):
            open_project(project)
    finally:
        os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"


def test_project_folder_says_where_everything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "one", CONFIG.replace("portal", "one"))
    write_project(tmp_path / "two", CONFIG.replace("portal", "two"))
    assert resolve_settings().tenant == "two.example.com"
    open_project(tmp_path / "one")
    assert resolve_settings().tenant == "one.example.com"
    assert project_folder() == tmp_path / "one"
    assert Path.cwd() == tmp_path
    monkeypatch.chdir(tmp_path / "two")
    open_project(Path("../one"))
    assert resolve_settings().tenant == "one.example.com"
    assert project_folder().resolve() == (tmp_path / "one").resolve()


@pytest.mark.parametrize("folder", ["nowhere", "file.txt"])
def test_project_that_is_no_folder_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file.txt").touch()
    with pytest.raises(ConfigurationError, match=f"--project .*{folder} is not a folder"):
        open_project(tmp_path / folder)


def test_configuration_files_say_which_exist(project: Path) -> None:
    (project / ".dlt" / "secrets.toml").unlink()
    found = dict(configuration_files())
    assert found[project / ".dlt" / "config.toml"] is True
    assert found[project / ".dlt" / "secrets.toml"] is False


def test_configured_value_is_found_at_its_exact_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(project, CONFIG + '[destination.duckdb]\ncredentials = "a.duckdb"\n')
    assert configured_value("destination.duckdb.credentials") == "a.duckdb"
    assert configured_value("destination.postgres.credentials") is None
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "b.duckdb")
    assert configured_value("destination.duckdb.credentials") == "b.duckdb"


def test_nothing_is_read_from_the_section_of_another_source(project: Path) -> None:
    """dlt itself would also look into shorter sections; the exact one is what counts."""
    with dlt.config.values({"tenant": "elsewhere.example.com", "sources.tenant": "elsewhere.example.com"}):
        assert resolve_settings().tenant == "portal.example.com"
