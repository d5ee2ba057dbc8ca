"""Settings from dlt's configuration providers: the environment, `.dlt/secrets.toml`, `.dlt/config.toml`.

Only the exact section `[sources.cockpit]` is read, so a variable such as TENANT of another program is never
taken for ours.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
    SECTION,
    TENANTS_SECTION,
    Key,
    MartSettings,
    Settings,
    build_settings,
    describe_stray_keys,
    environment_name,
    read_mart_settings,
    read_tenant_key,
    refuse,
)
from cockpit_source.tenants import (
    SCOPE_KEYS,
    describe_loose,
    describe_nameless,
    describe_nested,
    describe_unknown_tenant,
    find_problems,
    merge_raw,
    raw_tenant_key,
    require_name,
)

# sections of their own below [sources.cockpit]
_SUBSECTIONS = frozenset({"deletions", "tenants"})
_FILES = ("secrets.toml", "config.toml")


def configured_tenants() -> list[str]:
    """The names of the tenants that have a table `[sources.cockpit.tenants.NAME]`, or variables in the environment.

    In the order of the files; empty where `[sources.cockpit]` itself is about the one tenant. Whether the settings of
    a tenant work, and its name too, only `resolve_settings` says.
    """
    # config.toml first
    providers = sorted(_providers(), key=lambda provider: provider.supports_secrets)
    in_files = [
        name
        for provider in providers
        for name, table in _section(provider, TENANTS_SECTION).items()
        if isinstance(table, Mapping)
    ]
    prefix = environment_name("TENANTS__")
    in_environment = sorted(
        name.removeprefix(prefix).partition("__")[0].lower() for name in os.environ if name.startswith(prefix)
    )
    return list(dict.fromkeys((*in_files, *in_environment)))


def pick_tenants(wanted: Sequence[str] | None) -> list[str]:
    """The names `wanted`, each once; without any all of `configured_tenants()`.

    Raises:
        ConfigurationError: one of them is not configured.
    """
    names = configured_tenants()
    for name in wanted or ():
        if name not in names:
            raise describe_unknown_tenant(name, names)
    return list(dict.fromkeys(wanted)) if wanted else names


def resolve_settings(tenant_name: str | None = None, **overrides: Any) -> Settings:
    """`Settings` from dlt's configuration; a keyword argument that is not None wins over it.

    `tenant_name` is one of `configured_tenants()`; without it, the settings are those of `[sources.cockpit]` alone.
    A scope list given as an argument (`customers` and `provider_instances`, `scopes`, `scopes_file` or
    `scopes_query`, or `discover`) replaces the configured one, whichever way that was given.

    Raises:
        ConfigurationError: one message that names every wrong, missing, contradictory or unknown key; or there are
            tenants, and neither `tenant_name` nor `tenant` says which.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    with _hinting_at_project():
        if tenant_name is not None:
            check_common_keys()
        elif "tenant" not in given:
            _refuse_nameless()
        ignored = SCOPE_KEYS if SCOPE_KEYS & set(given) else frozenset[str]()
        raw = _read_tenant(tenant_name, [name for name in KEYS if name not in ignored], given)
        misplaced = find_misplaced_secrets(_section_of(tenant_name), KEYS)
        return build_settings(
            {**raw.merged, **misplaced, **given},
            unknown=sorted(set(given) - set(KEYS)) + _find_unknown_keys(tenant_name),
            misplaced=sorted(misplaced),
            tenant_name=tenant_name,
            problems=raw.problems,
        )


def check_common_keys() -> None:
    """Look at `[sources.cockpit]` where there are tenants, for which it holds what they have in common.

    Raises:
        ConfigurationError: it has unknown keys, or secrets in config.toml; or keys stand in
            `[sources.cockpit.tenants]` itself.
    """
    loose = {
        name
        for provider in _providers()
        for name, table in _section(provider, TENANTS_SECTION).items()
        if not isinstance(table, Mapping)
    }
    stray = describe_stray_keys(_find_unknown_keys(), sorted(find_misplaced_secrets(SECTION, KEYS)))
    refuse([*stray, *describe_loose(sorted(loose))])


def resolve_tenant_key(tenant_name: str | None = None) -> str:
    """The tenant key from dlt's configuration, for what only looks at the warehouse.

    Credentials and scopes are not looked at, so they may be missing or wrong. `tenant_name` as in `resolve_settings`.

    Raises:
        ConfigurationError: neither `tenant_key` nor `tenant` is given, or the one that counts is wrong.
    """
    with _hinting_at_project():
        if tenant_name is None:
            _refuse_nameless()
        raw = _read_tenant(tenant_name, ("tenant_key", "tenant"))
        return read_tenant_key(raw.merged, tenant_name, raw.problems)


def resolve_mart_settings(tenant_name: str | None = None, **overrides: Any) -> MartSettings:
    """`MartSettings` from dlt's configuration; a keyword argument that is not None wins over it.

    `tenant_name` as in `resolve_settings`.

    Raises:
        ConfigurationError: a key of `MART_KEYS` is wrong, or there is no tenant.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    with _hinting_at_project():
        if tenant_name is None:
            _refuse_nameless()
        raw = _read_tenant(tenant_name, MART_KEYS, given)
        return read_mart_settings(raw.merged, tenant_name, raw.problems)


def configured_list(name: str, tenant_name: str | None = None) -> Any:
    """The configured value of `price_list` or `sku_catalog`, unchecked; None where there is none."""
    return _read_tenant(tenant_name, (name,)).merged.get(name)


def refuse_tenants(what: str, next_step: str) -> None:
    """Make sure that `[sources.cockpit]` itself is about the one tenant.

    Raises:
        ConfigurationError: there are tenants; it begins with `what`, and ends with `next_step`.
    """
    if names := configured_tenants():
        raise describe_nameless(names, what, next_step)


def _refuse_nameless() -> None:
    refuse_tenants("This is about one tenant", "Say which: --tenant NAME, or resolve_settings(NAME) in Python.")


@dataclass(frozen=True, slots=True)
class _RawTenant:
    """Raw values of a tenant by key, and sentences about it among the others."""

    merged: Mapping[str, Any]
    problems: Sequence[str] = ()


def _read_tenant(tenant_name: str | None, keys: Iterable[str], given: Mapping[str, Any] | None = None) -> _RawTenant:
    """The raw values of `keys`; those `given` as arguments win."""
    common = {key: _read(key) for key in keys}
    if tenant_name is None:
        return _RawTenant(common | dict(given or {}))
    names = configured_tenants()
    require_name(tenant_name, names)
    # whichever keys are wanted, what a tenant sets decides what it inherits
    own = {key: _read(key, tenant_name) for key in KEYS}
    merged = {key: value for key, value in merge_raw(common, own).items() if key in common} | dict(given or {})
    identity = {key: _read(key) for key in ("tenant", "tenant_key")}
    tenant_keys = {
        other: raw_tenant_key(merge_raw(identity, {key: _read(key, other) for key in identity})) for other in names
    }
    problems = [*find_problems(tenant_name, common, own, merged, tenant_keys)]
    return _RawTenant(merged, (*problems, *describe_nested(tenant_name, _find_nested(tenant_name))))


def _find_nested(tenant_name: str) -> list[str]:
    return sorted(
        name
        for provider in _providers()
        for name, value in _section(provider, _section_of(tenant_name)).items()
        if name not in KEYS and isinstance(value, Mapping)
    )


def _section_of(tenant_name: str | None) -> str:
    return SECTION if tenant_name is None else f"{TENANTS_SECTION}.{tenant_name}"


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


def _read(name: str, tenant_name: str | None = None) -> Any:
    field = f"{_section_of(tenant_name)}.{name}"
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


def _find_unknown_keys(tenant_name: str | None = None) -> list[str]:
    prefix = environment_name("", tenant_name)
    in_environment = {name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix)}
    if tenant_name is None:
        # a variable of a section below ours has its own double underscore
        in_environment = {name for name in in_environment if "__" not in name}
    in_files = {
        name
        for provider in _providers()
        for name, value in _section(provider, _section_of(tenant_name)).items()
        if not (isinstance(value, Mapping) and (tenant_name is not None or name in _SUBSECTIONS))
    }
    return sorted((in_environment | in_files) - KEYS.keys())


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
