"""Settings from dlt's configuration providers: the environment, `.dlt/secrets.toml`, `.dlt/config.toml`.

Only the exact section `[sources.cockpit]` is read, so a variable such as TENANT of another program is never
taken for ours.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs import PluggableRunContext
from dlt.common.configuration.specs.pluggable_run_context import RunContextBase
from dlt.common.runtime.run_context import switch_context

from cockpit_source import values
from cockpit_source.errors import ConfigurationError
from cockpit_source.redaction import redact
from cockpit_source.settings import (
    KEYS,
    MART_KEYS,
    SCOPE_LISTS,
    SCOPE_WAYS,
    SECTION,
    Key,
    MartSettings,
    Settings,
    build_settings,
    environment_name,
    read_mart_settings,
    read_tenant_key,
)

# sections of their own below [sources.cockpit], read by other parts
_SUBSECTIONS = frozenset({"deletions"})
_FILES = ("secrets.toml", "config.toml")


def resolve_settings(**overrides: Any) -> Settings:
    """`Settings` from dlt's configuration; a keyword argument that is not None wins over it.

    A scope list given as an argument (`customers` and `provider_instances`, `scopes`, `scopes_file` or
    `scopes_query`, or `discover`) replaces the configured one, whichever way that was given.

    Raises:
        ConfigurationError: one message that names every wrong, missing, contradictory or unknown key.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - set(KEYS)) + _find_unknown_keys()
    ignored = _SCOPE_KEYS if _SCOPE_KEYS & set(given) else frozenset[str]()
    configured = {name: _read(name) for name in KEYS if name not in ignored}
    misplaced = find_misplaced_secrets(SECTION, KEYS)
    with _hinting_at_project():
        return build_settings({**configured, **misplaced, **given}, unknown=unknown, misplaced=sorted(misplaced))


_SCOPE_KEYS = frozenset({*SCOPE_LISTS, *SCOPE_WAYS})


def resolve_tenant_key() -> str:
    """The tenant key from dlt's configuration, for what only looks at the warehouse.

    Credentials and scopes are not looked at, so they may be missing or wrong.

    Raises:
        ConfigurationError: neither `tenant_key` nor `tenant` is given, or the one that counts is wrong.
    """
    with _hinting_at_project():
        return read_tenant_key({name: _read(name) for name in ("tenant_key", "tenant")})


def resolve_mart_settings(**overrides: Any) -> MartSettings:
    """`MartSettings` from dlt's configuration; a keyword argument that is not None wins over it.

    Raises:
        ConfigurationError: a key of `MART_KEYS` is wrong, or there is no tenant.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    with _hinting_at_project():
        return read_mart_settings({name: _read(name) for name in MART_KEYS} | given)


@contextmanager
def _hinting_at_project() -> Iterator[None]:
    """Where the folder has no configuration at all, an error says that it may be the wrong folder."""
    try:
        yield
    except ConfigurationError as error:
        settings = Path(_run_context().settings_dir).absolute()
        if any((settings / name).is_file() for name in _FILES):
            raise
        raise ConfigurationError(
            f"{error}\nThere is no configuration file in {settings}. Where it is elsewhere, name the folder that "
            "holds .dlt: --project DIR."
        ) from None


def configuration_files() -> list[tuple[Path, bool]]:
    """The files that dlt looks into, in order, each with whether it exists."""
    context = _run_context()
    folders = dict.fromkeys((Path(context.settings_dir), Path(context.global_dir)))
    files = [folder / name for folder in folders for name in _FILES]
    return [(file.absolute(), file.is_file()) for file in files]


def project_folder() -> Path:
    """The folder that holds `.dlt`; relative paths in the configuration start there."""
    return Path(_run_context().run_dir).absolute()


def open_project(folder: Path | None = None) -> None:
    """Make `folder` the one whose `.dlt` is read; without it, read that of the current folder.

    Raises:
        ConfigurationError: there is no such folder, or a file in its `.dlt` cannot be read.
    """
    if folder is None:
        _run_context()
        return
    if not folder.is_dir():
        raise ConfigurationError(f"--project {folder} is not a folder. Give the folder that holds .dlt.")
    with _readable_files():
        switch_context(str(folder.absolute()))


def configured_value(field: str) -> Any:
    """A value of dlt's configuration at the exact path `field`, secrets included, or None."""
    _run_context()
    with suppress(ConfigurationException):
        value: Any = dlt.secrets.get(field)
        return dlt.config.get(field) if value is None else value
    return None


def _read(name: str) -> Any:
    field = f"{SECTION}.{name}"
    if KEYS[name].secret:
        return dlt.secrets.get(field)
    value: Any = dlt.config.get(field)
    # mounted secrets are looked up for secrets only
    return dlt.secrets.get(field) if value is None else value


def configured_names(section: str) -> set[str]:
    """The names that stand in a section of the configuration files."""
    return {name for provider in _providers() for name in _section(provider, section)}


def find_misplaced_secrets(section: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    """Secrets of a section in config.toml, a file that is meant to be shared."""
    return {
        name: value
        for provider in _providers()
        if not provider.supports_secrets
        for name, value in _section(provider, section).items()
        if name in keys and keys[name].secret and not values.is_missing(value)
    }


def _find_unknown_keys() -> list[str]:
    prefix = environment_name("")
    in_environment = {name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix)}
    in_files = {
        name
        for provider in _providers()
        for name, value in _section(provider, SECTION).items()
        if not (name in _SUBSECTIONS and isinstance(value, Mapping))
    }
    # a variable of a section below ours has its own double underscore
    return sorted(name for name in in_environment | in_files if name not in KEYS and "__" not in name)


def _providers() -> Iterator[ConfigProvider]:
    _run_context()
    yield from Container()[PluggableRunContext].providers.providers


def _section(provider: ConfigProvider, section: str) -> Mapping[str, Any]:
    *sections, last = section.split(".")
    with suppress(ConfigurationException):
        value, _ = provider.get_value(last, Mapping, "", *sections)
        if isinstance(value, Mapping):
            return value
    return {}


def _run_context() -> RunContextBase:
    with _readable_files():
        return dlt.current.run_context()


@contextmanager
def _readable_files() -> Iterator[None]:
    """Names the file where dlt finds one of its own that it cannot read."""
    try:
        yield
    except TomlProviderReadException as error:
        raise ConfigurationError(_describe_unreadable(map(Path, error.full_paths), str(error))) from error
    except ConfigurationException as error:
        reason = redact(str(error).strip().splitlines()[0])
        raise ConfigurationError(f"The configuration of dlt does not work: {reason}") from error


def _describe_unreadable(files: Iterable[Path], reason: str) -> str:
    for file in files:
        try:
            tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            return f"The file {file.absolute()} is not UTF-8 text. Save it as UTF-8, then run again."
        except tomllib.TOMLDecodeError as error:
            return f"The file {file.absolute()} is not valid TOML: {error}. Correct it there, then run again."
        except OSError as error:
            return f"The file {file.absolute()} cannot be read: {error.strerror}. Correct that, then run again."
    return f"{redact(reason.replace(chr(10), ' '))}. Correct the file, then run again."
