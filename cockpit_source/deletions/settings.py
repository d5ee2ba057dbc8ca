"""The settings of the deletions, `[sources.cockpit.deletions]`: off unless enabled, with credentials of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cockpit_source import values
from cockpit_source.configuration import (
    configured_names,
    configured_value,
    find_misplaced_secrets,
    project_folder,
    refuse_tenants,
    resolve_settings,
)
from cockpit_source.errors import ConfigurationError, DeletionRefused
from cockpit_source.settings import SECTION, Key, Settings, describe_misplaced, read_value
from cockpit_source.tenants import DELETIONS_NEED_ONE, DELETIONS_NEXT_STEP

DELETIONS_SECTION = f"{SECTION}.deletions"
# set to anything, or to nothing, it stops an apply before its next deletion
STOP_VARIABLE = "COCKPIT_DELETIONS_STOP"
DEFAULT_STOP_FILE = "stop_deletions"


def _read_path(value: object) -> Path:
    text = values.read_text(value)
    if "\0" in text:
        raise ValueError("holds a character that no path has")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("begins with the home folder of somebody unknown") from None


KEYS: dict[str, Key] = {
    "enabled": Key(values.read_flag, "true, or false to switch the deletions off", False),
    "client_id": Key(values.read_text, "the client id of an API access of role csp, for the deletions only"),
    "client_secret": Key(values.read_text, "its secret", secret=True),
    "access_token": Key(values.read_header_text, "a token of that access, instead of the two", secret=True),
    "protected_file": Key(_read_path, "the path of a text file of customers that are never deleted"),
    "max_actions": Key(values.whole_number(0, 100_000), "a whole number from 0 to 100000, deletions a plan", 5),
    "max_percent": Key(
        values.number(0, 100),
        "a number from 0 to 100: deletions a plan in percent of all customers; 3 are allowed unless it is 0",
        1.0,
    ),
    "max_actions_per_day": Key(
        values.whole_number(0, 100_000), "a whole number from 0 to 100000, deletions in 24 hours", 20
    ),
    "max_age_hours": Key(values.number(0, 8760), "a number from 0 to 8760, the age of the inventory", 24.0),
    "grace_days": Key(
        values.number(0, 3650), "a number from 0 to 3650: so long must the query have selected it; 0: at once", 0.0
    ),
    "plan_lifetime_minutes": Key(values.number(0.01, 10_080), "a number from 0.01 to 10080", 60.0),
    "seconds_between_calls": Key(values.number(0, 3600), "a number from 0 to 3600, between two deletions", 10.0),
    "verify_timeout_seconds": Key(
        values.number(0, 86_400), "a number from 0 to 86400: how long to wait until a deletion shows", 900.0
    ),
    "stop_file": Key(_read_path, "a path: while this file exists, nothing is deleted", Path(DEFAULT_STOP_FILE)),
}


@dataclass(frozen=True, slots=True)
class DeletionSettings:
    """All settings of the deletions, checked. `api` are those of the API access that deletes; paths are absolute.

    `protected_file` is None only where none is needed, to verify.
    """

    api: Settings
    protected_file: Path | None
    stop_file: Path
    max_actions: int = 5
    max_percent: float = 1.0
    max_actions_per_day: int = 20
    max_age_hours: float = 24.0
    grace_days: float = 0.0
    plan_lifetime_minutes: float = 60.0
    seconds_between_calls: float = 10.0
    verify_timeout_seconds: float = 900.0


def resolve_deletion_settings(*, needs_list: bool = True, **overrides: Any) -> DeletionSettings:
    """The settings from dlt's configuration; a keyword argument that is not None wins over it.

    Tenant, addresses and timeouts are those of the load. Without `needs_list`, `protected_file` may be missing.

    Raises:
        DeletionRefused: the deletions are not enabled.
        ConfigurationError: keys are wrong, missing or unknown; one message names all of them.
    """
    refuse_many_tenants()
    given = {name: value for name, value in overrides.items() if value is not None}
    raw = {name: configured_value(f"{DELETIONS_SECTION}.{name}") for name in KEYS} | given
    problems = [values.describe_unknown_key(name, KEYS) for name in sorted(_find_unknown(given))]
    problems += [
        describe_misplaced(name, environment_name(name))
        for name in sorted(find_misplaced_secrets(DELETIONS_SECTION, KEYS))
    ]
    read = {name: read_value(KEYS[name], name, raw.get(name), problems) for name in KEYS}
    if not problems and not read["enabled"]:
        raise DeletionRefused(
            "not_enabled",
            "Deletions are switched off. They cannot be undone: read docs/deletions.md first, then set enabled = "
            f"true under [{DELETIONS_SECTION}] in .dlt/config.toml.",
        )
    if read["enabled"]:
        problems += _find_credential_problems(raw)
        if needs_list and values.is_missing(raw.get("protected_file")):
            problems.append(f"protected_file is missing. Valid: {KEYS['protected_file'].valid}; it may be empty.")
    if problems:
        raise ConfigurationError(_compose_message(problems))
    return _assemble(read)


def refuse_many_tenants() -> None:
    """Make sure that the project is about one tenant.

    Raises:
        ConfigurationError: it has several.
    """
    refuse_tenants(DELETIONS_NEED_ONE.capitalize(), DELETIONS_NEXT_STEP)


def environment_name(name: str) -> str:
    """The environment variable of key `name`."""
    return f"SOURCES__COCKPIT__DELETIONS__{name.upper()}"


def is_stopped(settings: DeletionSettings) -> str | None:
    """Why nothing may be deleted now: the kill switch in words; None when it is not set."""
    if STOP_VARIABLE in os.environ:
        return f"the environment variable {STOP_VARIABLE} is set"
    # what cannot be looked at counts as there: the folder may be a share that is not mounted now
    try:
        settings.stop_file.parent.stat()
        with suppress(FileNotFoundError):
            settings.stop_file.lstat()
            return f"the stop file {settings.stop_file} exists"
    except OSError as error:
        return f"the stop file {settings.stop_file} cannot be looked at ({error.strerror})"
    return None


def _find_unknown(given: Mapping[str, Any]) -> set[str]:
    prefix = environment_name("")
    in_environment = {name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix)}
    return (set(given) | in_environment | configured_names(DELETIONS_SECTION)) - set(KEYS)


def _find_credential_problems(raw: Mapping[str, Any]) -> list[str]:
    given = {name for name in ("client_id", "client_secret", "access_token") if not values.is_missing(raw.get(name))}
    if given in ({"access_token"}, {"client_id", "client_secret"}):
        return []
    return [
        "the deletions need an API access of their own, of role csp: client_id and client_secret (or, instead of "
        "both, access_token). Those of the load are not used."
    ]


def _compose_message(problems: Sequence[str]) -> str:
    lines = "\n".join(f"  - {problem}" for problem in problems)
    return (
        f"The configuration of the deletions does not work:\n{lines}\n"
        f"Set keys in .dlt/config.toml (secrets in .dlt/secrets.toml) under [{DELETIONS_SECTION}], or in the "
        f"environment, for example as {environment_name('enabled')}."
    )


def _assemble(read: Mapping[str, Any]) -> DeletionSettings:
    # the scopes of the load do not matter here, and may not be configured on the machine that deletes
    load = resolve_settings(
        discover=True,
        client_id=read["client_id"] or "",
        client_secret=read["client_secret"] or "",
        access_token=read["access_token"] or "",
    )
    folder = project_folder()
    return DeletionSettings(
        api=load,
        protected_file=folder / read["protected_file"] if read["protected_file"] else None,
        stop_file=folder / read["stop_file"],
        **{
            name: read[name]
            for name in (
                "max_actions",
                "max_percent",
                "max_actions_per_day",
                "max_age_hours",
                "grace_days",
                "plan_lifetime_minutes",
                "seconds_between_calls",
                "verify_timeout_seconds",
            )
        },
    )
