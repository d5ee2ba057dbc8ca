"""The settings of the deletions, from TOML and the environment; the kill switch; the list of protected customers."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from support import new_id

from cockpit_source.configuration import open_project, resolve_settings
from cockpit_source.deletions.protected import read_protected
from cockpit_source.deletions.settings import (
    KEYS,
    STOP_VARIABLE,
    DeletionSettings,
    environment_name,
    is_stopped,
    resolve_deletion_settings,
)
from cockpit_source.errors import ConfigurationError, DeletionRefused

LOAD = '[sources.cockpit]\ntenant = "portal.example.com"\ntimeout_seconds = 7\n'
LOAD_SECRETS = '[sources.cockpit]\nclient_id = "load-id"\nclient_secret = "load-secret"\n'
SECTION = "[sources.cockpit.deletions]\n"
CONFIG = LOAD + SECTION + 'enabled = true\nprotected_file = "protected.txt"\n'
SECRETS = LOAD_SECRETS + SECTION + 'client_id = "an-id"\nclient_secret = "a-secret"\n'
CREDENTIALS = ("client_id", "client_secret", "access_token")

DEFAULTS: dict[str, Any] = {
    "max_actions": 5,
    "max_percent": 1.0,
    "max_actions_per_day": 20,
    "max_age_hours": 24.0,
    "grace_days": 0.0,
    "plan_lifetime_minutes": 60.0,
    "seconds_between_calls": 10.0,
    "verify_timeout_seconds": 900.0,
}

# a value of TOML or of the environment, and what it becomes
GOOD: dict[str, list[tuple[Any, Any]]] = {
    "enabled": [(True, True), ("true", True), (" TRUE ", True)],
    "client_id": [("other-id", "other-id")],
    "client_secret": [("other secret", "other secret"), ("1e5", "1e5")],
    "access_token": [("eyJ.a.b", "eyJ.a.b")],
    "protected_file": [("a.txt", "{project}/a.txt"), ("lists/a.txt", "{project}/lists/a.txt"), ("/etc/a", "/etc/a")],
    "max_actions": [(0, 0), (100_000, 100_000), ("7", 7), (7.0, 7)],
    "max_percent": [(0, 0.0), (100, 100.0), ("0.5", 0.5)],
    "max_actions_per_day": [(0, 0), (100_000, 100_000), ("7", 7)],
    "max_age_hours": [(0, 0.0), (8760, 8760.0), ("1.5", 1.5)],
    "grace_days": [(0, 0.0), (3650, 3650.0), ("0.5", 0.5)],
    "plan_lifetime_minutes": [(0.01, 0.01), (10_080, 10_080.0), ("5", 5.0)],
    "seconds_between_calls": [(0, 0.0), (3600, 3600.0), ("0.5", 0.5)],
    "verify_timeout_seconds": [(0, 0.0), (86_400, 86_400.0), ("60", 60.0)],
    "stop_file": [("stop", "{project}/stop"), ("~/stop", "{home}/stop"), ("/run/stop", "/run/stop")],
}

_RANGE, _NOT_A_NUMBER = "is out of range", "is not a number"
_NO_TEXT = [(5, "is not text"), (True, "is not text"), (["a"], "is not text")]
_PATH = [
    *_NO_TEXT,
    ("a\0b", "holds a character that no path has"),
    ("~nobody-of-that-name/a", "begins with the home folder of somebody unknown"),
]


def _number(below: Any, above: Any) -> list[tuple[Any, str]]:
    wrong = [("many", _NOT_A_NUMBER), (True, _NOT_A_NUMBER), ([1], _NOT_A_NUMBER), ("nan", _NOT_A_NUMBER)]
    return [(below, _RANGE), (above, _RANGE), (str(above), _RANGE), ("inf", _NOT_A_NUMBER), *wrong]


def _whole_number(below: Any, above: Any) -> list[tuple[Any, str]]:
    return [*_number(below, above), (1.5, "is not a whole number")]


WRONG: dict[str, list[tuple[Any, str]]] = {
    "enabled": [(1, "is not text"), ("yes", "is neither true nor false"), ([True], "is not text")],
    "client_id": _NO_TEXT,
    "client_secret": _NO_TEXT,
    "access_token": [*_NO_TEXT, ("two words", "a header cannot carry")],
    "protected_file": _PATH,
    "max_actions": _whole_number(-1, 100_001),
    "max_percent": _number(-0.1, 100.1),
    "max_actions_per_day": _whole_number(-1, 100_001),
    "max_age_hours": _number(-0.1, 8761),
    "grace_days": _number(-0.1, 3651),
    "plan_lifetime_minutes": _number(0, 10_081),
    "seconds_between_calls": _number(-0.1, 3601),
    "verify_timeout_seconds": _number(-0.1, 86_401),
    "stop_file": _PATH,
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which the deletions are enabled and complete."""
    write_project(tmp_path)
    return tmp_path


def write_project(folder: Path, config: str = CONFIG, secrets: str = SECRETS) -> None:
    (folder / ".dlt").mkdir(parents=True, exist_ok=True)
    (folder / ".dlt" / "config.toml").write_text(config, encoding="utf-8")
    (folder / ".dlt" / "secrets.toml").write_text(secrets, encoding="utf-8")
    open_project(folder)


def refusal(**overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve_deletion_settings(**overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def problems(message: str) -> list[str]:
    return [line.removeprefix("  - ") for line in message.splitlines() if line.startswith("  - ")]


# --- off unless enabled ---


@pytest.mark.parametrize("line", ["", "enabled = false\n", 'enabled = "false"\n', 'enabled = ""\n'])
def test_deletions_are_off_unless_enabled(tmp_path: Path, line: str) -> None:
    write_project(tmp_path, LOAD + SECTION + line)
    with pytest.raises(DeletionRefused) as caught:
        resolve_deletion_settings()
    assert (caught.value.code, caught.value.exit_code) == ("not_enabled", 4)
    assert str(caught.value) == (
        "Deletions are switched off. They cannot be undone: read docs/deletions.md first, then set enabled = true "
        "under [sources.cockpit.deletions] in .dlt/config.toml."
    )


def test_deletions_are_off_without_any_configuration(tmp_path: Path) -> None:
    with pytest.raises(DeletionRefused):
        resolve_deletion_settings()


def test_flag_of_another_section_does_not_enable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt itself would also look into shorter sections; the exact one is what counts."""
    write_project(tmp_path, "enabled = true\n[sources]\nenabled = true\n[deletions]\nenabled = true\n" + LOAD)
    monkeypatch.setenv("ENABLED", "true")
    monkeypatch.setenv("DELETIONS__ENABLED", "true")
    monkeypatch.setenv("SOURCES__ENABLED", "true")
    with pytest.raises(DeletionRefused):
        resolve_deletion_settings()


def test_misspelt_flag_is_told_and_nothing_else_is_asked_for(tmp_path: Path) -> None:
    write_project(tmp_path, LOAD + SECTION + "enable = true\n", "")
    assert problems(refusal()) == ["enable is not a key of this source; did you mean enabled?"]


# --- every key ---


def test_every_key_is_tried_with_good_and_wrong_values() -> None:
    assert set(GOOD) == set(WRONG) == set(KEYS)
    kept = {field.name for field in fields(DeletionSettings)} - {"api"}
    assert kept == set(KEYS) - {"enabled", *CREDENTIALS} == {*DEFAULTS, "protected_file", "stop_file"}


def test_defaults(project: Path) -> None:
    settings = resolve_deletion_settings()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert {field.name: field.default for field in fields(DeletionSettings) if field.name in DEFAULTS} == DEFAULTS
    assert settings.stop_file == project / "stop_deletions"
    assert settings.protected_file == project / "protected.txt"


def value_of(settings: DeletionSettings, name: str) -> Any:
    if name == "enabled":
        return True
    if name in CREDENTIALS:
        return getattr(settings.api.credentials, name)
    return getattr(settings, name)


def clear_sign_in(folder: Path, name: str) -> None:
    """A token goes without the other two."""
    if name == "access_token":
        write_project(folder, CONFIG, LOAD_SECRETS)


@pytest.mark.parametrize(
    ("name", "given", "expected"), [(name, *pair) for name, pairs in GOOD.items() for pair in pairs]
)
@pytest.mark.parametrize("where", ["argument", "environment", "file"])
def test_good_value_is_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: Any, expected: Any, where: str
) -> None:
    clear_sign_in(project, name)
    argument = {}
    if where == "argument":
        argument = {name: given}
    elif where == "environment":
        monkeypatch.setenv(environment_name(name), str(given))
    else:
        lines = (project / ".dlt" / "secrets.toml").read_text().splitlines()
        kept = "\n".join(line for line in lines if f"{name} = " not in line or "load-" in line)
        config = "\n".join(line for line in CONFIG.splitlines() if not line.startswith(f"{name} = "))
        section = "" if SECTION.strip() in kept else SECTION
        toml = str(given).lower() if isinstance(given, bool) else repr(given)
        write_project(project, config, f"{kept}\n{section}{name} = {toml}\n")
    if isinstance(expected, str) and "/" in expected:
        expected = Path(expected.format(project=project, home=project))
    assert value_of(resolve_deletion_settings(**argument), name) == expected


@pytest.mark.parametrize(
    ("name", "given", "expected"), [(name, *pair) for name, pairs in WRONG.items() for pair in pairs]
)
def test_wrong_value_names_key_reason_and_valid_values(project: Path, name: str, given: Any, expected: str) -> None:
    clear_sign_in(project, name)
    message = refusal(**{name: given})
    (problem,) = problems(message)
    assert problem.startswith(f"{name} {expected}" if name != "access_token" else "access_token ")
    assert expected in problem
    assert f"Valid: {KEYS[name].valid}." in problem
    assert "[sources.cockpit.deletions]" in message
    assert "SOURCES__COCKPIT__DELETIONS__ENABLED" in message
    if KEYS[name].secret:
        assert str(given) not in message


def test_every_wrong_key_is_told_at_once(project: Path) -> None:
    wrong = {name: pairs[0][0] for name, pairs in WRONG.items() if name not in ("enabled", "access_token")}
    told = [problem.split()[0] for problem in problems(refusal(**wrong))]
    assert told == list(wrong)


@pytest.mark.parametrize("name", sorted(KEYS))
@pytest.mark.parametrize("blank", ["", "  \n", "...", "<configure me>"])
def test_blank_or_placeholder_counts_as_missing(project: Path, name: str, blank: str) -> None:
    if name == "enabled":
        with pytest.raises(DeletionRefused):
            resolve_deletion_settings(enabled=blank)
    elif name in ("client_id", "client_secret"):
        assert "need an API access of their own" in refusal(**{name: blank})
    elif name == "protected_file":
        assert problems(refusal(protected_file=blank)) == [
            "protected_file is missing. Valid: the path of a text file of customers that are never deleted; it may "
            "be empty."
        ]
    else:
        assert resolve_deletion_settings(**{name: blank}) == resolve_deletion_settings()


@pytest.mark.parametrize("blank", ["", "...", "list.txt"])
def test_list_may_be_missing_where_none_is_needed(project: Path, blank: str) -> None:
    settings = resolve_deletion_settings(needs_list=False, protected_file=blank)
    assert settings.protected_file == (project / blank if blank == "list.txt" else None)
    assert replace(settings, protected_file=None) == replace(resolve_deletion_settings(), protected_file=None)


@pytest.mark.parametrize("where", ["config", "secrets", "environment", "argument"])
def test_unknown_key_is_named_with_the_one_that_was_meant(
    project: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    added = "max_percnt = 5\n"
    write_project(project, CONFIG + added * (where == "config"), SECRETS + added * (where == "secrets"))
    if where == "environment":
        monkeypatch.setenv("SOURCES__COCKPIT__DELETIONS__MAX_PERCNT", "5")
    arguments = {"max_percnt": 5} if where == "argument" else {}
    assert problems(refusal(**arguments)) == ["max_percnt is not a key of this source; did you mean max_percent?"]


def test_key_that_resembles_none_is_told_with_all_of_them(project: Path) -> None:
    (problem,) = problems(refusal(colour="red"))
    assert problem.startswith("colour is not a key of this source; the keys are access_token, client_id,")


@pytest.mark.parametrize("secret", [name for name, key in KEYS.items() if key.secret])
def test_secret_in_the_shared_file_is_refused_without_showing_it(tmp_path: Path, secret: str) -> None:
    write_project(tmp_path, CONFIG + f'{secret} = "hunter-two"\n')
    message = refusal()
    assert f"{secret} stands in config.toml, a file that is meant to be shared." in message
    assert f"SOURCES__COCKPIT__DELETIONS__{secret.upper()}" in message
    assert "hunter" not in message


def test_environment_wins_over_secrets_file_wins_over_config_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(project, CONFIG + "max_actions = 2\n")
    assert resolve_deletion_settings().max_actions == 2
    write_project(project, CONFIG + "max_actions = 2\n", SECRETS + "max_actions = 3\n")
    assert resolve_deletion_settings().max_actions == 3
    monkeypatch.setenv("SOURCES__COCKPIT__DELETIONS__MAX_ACTIONS", "4")
    assert resolve_deletion_settings().max_actions == 4
    assert resolve_deletion_settings(max_actions=0).max_actions == 0
    assert resolve_deletion_settings(max_actions=None).max_actions == 4


# --- credentials of their own ---


def test_credentials_are_their_own_and_the_rest_is_that_of_the_load(project: Path) -> None:
    api = resolve_deletion_settings().api
    assert (api.credentials.client_id, api.credentials.client_secret) == ("an-id", "a-secret")
    assert api.credentials.access_token is None
    assert (api.tenant, api.timeout_seconds) == ("portal.example.com", 7.0)
    load = resolve_settings(discover=True)
    assert (load.credentials.client_id, load.credentials.client_secret) == ("load-id", "load-secret")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"client_id": "x"},
        {"client_secret": "x"},
        {"access_token": "x", "client_id": "y"},
        {"access_token": "x", "client_secret": "y"},
        {"access_token": "x", "client_id": "y", "client_secret": "z"},
    ],
)
def test_credentials_of_the_load_are_never_used(tmp_path: Path, given: dict[str, str]) -> None:
    write_project(tmp_path, CONFIG, LOAD_SECRETS + 'access_token = "load-token"\n')
    assert problems(refusal(**given)) == [
        "the deletions need an API access of their own, of role csp: client_id and client_secret (or, instead of "
        "both, access_token). Those of the load are not used."
    ]


def test_token_of_their_own_wins_over_the_credentials_of_the_load(tmp_path: Path) -> None:
    for load_secrets in (LOAD_SECRETS, '[sources.cockpit]\naccess_token = "load-token"\n'):
        write_project(tmp_path, CONFIG, load_secrets + SECTION + 'access_token = "own-token"\n')
        credentials = resolve_deletion_settings().api.credentials
        assert (credentials.access_token, credentials.client_id, credentials.client_secret) == (
            "own-token",
            None,
            None,
        )
    write_project(tmp_path, CONFIG, '[sources.cockpit]\naccess_token = "load-token"\n' + SECRETS.split("\n", 3)[3])
    credentials = resolve_deletion_settings().api.credentials
    assert (credentials.access_token, credentials.client_id) == (None, "an-id")


def test_load_needs_no_credentials_or_scopes_for_the_deletions(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG, SECRETS.removeprefix(LOAD_SECRETS))
    assert resolve_deletion_settings().api.credentials.client_id == "an-id"


def test_what_is_wrong_in_the_section_of_the_load_is_told(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG.replace("portal.example.com", "https://wrong"))
    assert "tenant is an address, but the bare domain is wanted" in refusal()


def test_secrets_are_not_in_the_repr(project: Path) -> None:
    shown = repr(resolve_deletion_settings())
    assert "a-secret" not in shown
    assert "an-id" not in shown


def test_load_takes_nothing_from_the_section_of_the_deletions(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a setting, not a credential, and what is wrong there does not stop it."""
    write_project(project, CONFIG + 'max_percnt = 5\nmax_actions = "many"\n')
    monkeypatch.setenv("SOURCES__COCKPIT__DELETIONS__TIMEOUT_SECONDS", "1")
    settings = resolve_settings(discover=True)
    assert (settings.timeout_seconds, settings.credentials.client_id) == (7.0, "load-id")
    write_project(project, CONFIG, SECTION + 'client_id = "an-id"\nclient_secret = "a-secret"\n')
    with pytest.raises(ConfigurationError, match="client_id and client_secret are missing"):
        resolve_settings(discover=True)


def test_example_files_of_the_project_leave_the_deletions_off(tmp_path: Path) -> None:
    """As they are; and with their comments taken away they are complete."""
    examples = Path(__file__).parents[1] / ".dlt"
    config = (examples / "config.toml").read_text(encoding="utf-8")
    secrets = (examples / "example.secrets.toml").read_text(encoding="utf-8")
    write_project(tmp_path, config, secrets)
    with pytest.raises(DeletionRefused):
        resolve_deletion_settings()
    start = config.index("# [sources.cockpit.deletions]")
    section = "\n".join(line.removeprefix("# ") for line in config[start:].splitlines())
    start = secrets.index("# [sources.cockpit.deletions]")
    keys = "\n".join(line.removeprefix("# ").replace("...", "x") for line in secrets[start:].splitlines())
    write_project(tmp_path, LOAD + section, keys)
    settings = resolve_deletion_settings()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert settings.api.credentials.client_id == "x"


# --- the list of protected customers ---


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"\xff\xfe", "it is not UTF-8 text"), ("folder", "Is a directory")],
)
def test_list_that_cannot_be_read_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "protected.txt"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_protected(path)
    assert str(caught.value) == (
        f"The list of protected customers {path} cannot be read: {reason}. Write one customer id or name pattern a "
        "line; an empty file protects nobody. It is set as protected_file under [sources.cockpit.deletions]."
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_list_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "protected.txt"
    path.touch(mode=0)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        read_protected(path)


def test_list_of_the_settings_is_found_from_any_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "protected.txt").write_text(f"{new_id(1)}\n", encoding="utf-8")
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    assert read_protected(resolve_deletion_settings().protected_file).ids == {new_id(1)}


# --- the kill switch ---


def test_nothing_stops_unless_it_is_set(project: Path) -> None:
    assert is_stopped(resolve_deletion_settings()) is None


@pytest.mark.parametrize(("value", "stops"), [("1", True), ("0", True), ("false", True), (" ", True), ("", True)])
def test_environment_stops(project: Path, monkeypatch: pytest.MonkeyPatch, value: str, stops: bool) -> None:
    monkeypatch.setenv("COCKPIT_DELETIONS_STOP", value)
    expected = "the environment variable COCKPIT_DELETIONS_STOP is set" if stops else None
    assert is_stopped(resolve_deletion_settings()) == expected
    assert STOP_VARIABLE == "COCKPIT_DELETIONS_STOP"


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_stop_file_stops_whatever_it_is(project: Path, kind: str) -> None:
    path = project / "stop_deletions"
    settings = resolve_deletion_settings()
    if kind == "file":
        path.touch(mode=0)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(project / "nowhere")
    assert is_stopped(settings) == f"the stop file {path} exists"
    path.rmdir() if kind == "folder" else path.unlink()
    assert is_stopped(settings) is None


@pytest.mark.parametrize(
    ("stop_file", "reason"),
    [
        ("missing/stop", "No such file or directory"),
        ("protected.txt/stop", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("loop/stop", "Too many levels of symbolic links"),
    ],
)
def test_stop_file_that_cannot_be_looked_at_counts_as_there(project: Path, stop_file: str, reason: str) -> None:
    (project / "protected.txt").touch()
    (project / "loop").symlink_to(project / "loop")
    settings = resolve_deletion_settings(stop_file=stop_file)
    assert is_stopped(settings) == f"the stop file {project / stop_file} cannot be looked at ({reason})"
