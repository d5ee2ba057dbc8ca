"""Settings from dlt's configuration providers: the environment, `.dlt/secrets.toml`, `.dlt/config.toml`.

Only the exact section `[sources.cockpit]` is read, so a variable such as TENANT of another program is never
taken for ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs import PluggableRunContext

from cockpit_source.errors import ConfigurationError
from cockpit_source.settings import KEYS, SECTION, Settings, build_settings, environment_name

# sections of their own below [sources.cockpit], read by other parts
_SUBSECTIONS = frozenset({"deletions"})


def resolve_settings(**overrides: Any) -> Settings:
    """`Settings` from dlt's configuration; a keyword argument that is not None wins over it.

    A scope list given as an argument (`customers` and `provider_instances`, `scopes`, `scopes_file` or
    `scopes_query`) replaces the configured one, whichever way that was given.

    Raises:
        ConfigurationError: one message that names every wrong, missing, contradictory or unknown key.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - set(KEYS)) + _find_unknown_keys()
    ignored = _SCOPE_KEYS if _SCOPE_KEYS & set(given) else frozenset[str]()
    configured = {name: _read(name) for name in KEYS if name not in ignored}
    return build_settings({**configured, **given}, unknown=unknown)


_SCOPE_KEYS = frozenset({"customers", "provider_instances", "resellers", "scopes", "scopes_file", "scopes_query"})


def configuration_files() -> list[tuple[Path, bool]]:
    """The files that dlt looks into, in order, each with whether it exists."""
    context = dlt.current.run_context()
    folders = dict.fromkeys((Path(context.settings_dir), Path(context.global_dir)))
    files = [folder / name for folder in folders for name in ("secrets.toml", "config.toml")]
    return [(file.absolute(), file.is_file()) for file in files]


def project_folder() -> Path:
    """The folder that holds `.dlt`; relative paths in the configuration start there."""
    return Path(dlt.current.run_context().run_dir).absolute()


def configured_value(field: str) -> Any:
    """A value of dlt's configuration at the exact path `field`, secrets included, or None."""
    with suppress(ConfigurationException):
        value: Any = dlt.secrets.get(field)
        return dlt.config.get(field) if value is None else value
    return None


def _read(name: str) -> Any:
    field = f"{SECTION}.{name}"
    value: Any
    if KEYS[name].secret:
        value = dlt.secrets.get(field)
        if value is None and dlt.config.get(field) is not None:
            raise ConfigurationError(
                f"{name} stands in config.toml, a file that is meant to be shared. "
                f"Move it to .dlt/secrets.toml, or set {environment_name(name)}; replace it if it was shared already."
            )
        return value
    value = dlt.config.get(field)
    return dlt.secrets.get(field) if value is None else value


def _find_unknown_keys() -> list[str]:
    prefix = environment_name("")
    in_environment = {name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix)}
    in_files = {
        name
        for provider in _providers()
        for name, value in _section(provider).items()
        if not (name in _SUBSECTIONS and isinstance(value, Mapping))
    }
    # a variable of a section below ours has its own double underscore
    return sorted(name for name in in_environment | in_files if name not in KEYS and "__" not in name)


def _providers() -> Iterator[ConfigProvider]:
    yield from Container()[PluggableRunContext].providers.providers


def _section(provider: ConfigProvider) -> Mapping[str, Any]:
    *sections, last = SECTION.split(".")
    with suppress(ConfigurationException):
        value, _ = provider.get_value(last, Mapping, "", *sections)
        if isinstance(value, Mapping):
            return value
    return {}
