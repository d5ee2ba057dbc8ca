"""The dlt pipeline of an inventory: one name, working directory and staging dataset per database and tenant."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination, DestinationCapabilitiesContext
from dlt.common.destination.exceptions import DestinationException, UnknownDestinationModule
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from cockpit_source.configuration import configured_value, project_folder
from cockpit_source.ducklake import install_extensions
from cockpit_source.errors import ConfigurationError
from cockpit_source.redaction import redact
from cockpit_source.values import is_missing

DEFAULT_DATABASE = "license_inventory.duckdb"
DEFAULT_DATASET = "cockpit"

# names that dlt leaves as they are, so that two spellings never meet in one schema
_DATASET = re.compile(r"[a-z](?:_?[a-z0-9])*\Z")

# merge strategies that the tables need
_STRATEGIES = {"delete-insert", "scd2"}

# of the loading connection only: a merge needs no more, and spills to disk beside the database if it ever does
_DUCKDB_CONFIG = {"threads": 1, "memory_limit": "100MB"}

# of dlt's connections to PostgreSQL: the merge of the history looks every current version up in the rows that came
# (NOT IN), which is a scan for each where they do not fit into working memory. A package with 6,000 changes to
# 300,000 versions takes 2 s so, and 138 s with the server's usual 4 MB; switching jit off gained nothing
_POSTGRES_OPTIONS = {"work_mem": "256MB"}

# the environment wins over these; dlt reads them when it is first used
_RUNTIME_DEFAULTS = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__INTERCEPT_SIGNALS": "false"}


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the name of a pipeline was made of, as far as its hash does not tell."""

    ordinary_name: str
    shard: str


# by name of the pipeline: the same for whoever makes it
_origins: dict[str, _Origin] = {}


def set_runtime_defaults() -> None:
    """Switch dlt's telemetry and its signal handlers off, unless the environment says otherwise."""
    for name, value in _RUNTIME_DEFAULTS.items():
        os.environ.setdefault(name, value)


def create_pipeline(
    tenant_key: str,
    *,
    destination: str = "duckdb",
    database: str | os.PathLike[str] | None = None,
    dataset: str = DEFAULT_DATASET,
    shard: str = "",
    pipelines_dir: str | os.PathLike[str] | None = None,
) -> dlt.Pipeline:
    """The pipeline that loads tenant `tenant_key` into `dataset` of a destination.

    `destination` is a dlt destination with its own configuration; `database` is the path of a DuckDB file. Without
    either, it is `destination.duckdb.credentials` of dlt's configuration, else `license_inventory.duckdb` in the
    project folder. `shard` is the part of the scope list that the pipeline loads, such as 3/16, empty for all of it.
    Its name is made of all of these, so that no other database, tenant or shard ever meets its pending packages or
    staging rows.

    Raises:
        ConfigurationError: the destination is unknown or not configured, the dataset's name does not fit, the
            DuckDB file is named like the dataset, which DuckDB cannot tell apart, dlt has no merge for the
            destination, or cannot write its folder.
    """
    set_runtime_defaults()
    if database is not None and destination != "duckdb":
        raise ConfigurationError("--database is the path of a DuckDB file; for other destinations configure dlt.")
    options: dict[str, Any] = {}
    if destination == "duckdb":
        path = _database_path(database)
        _check_names(path, dataset)
        options["credentials"] = _duckdb_credentials(path)
    _check_dataset(dataset)
    configuration, capabilities = _configure(destination, options, dataset)
    if configuration.destination_type == "postgres":
        options["credentials"] = _with_session_options(configuration.credentials)
    elif configuration.destination_type == "ducklake":
        install_extensions(configuration.credentials)
    if capabilities.supports_transactions is None and capabilities.supports_ddl_transactions:
        # dlt 1.31 leaves it unset for nearly all databases, and would merge a table statement by statement
        options["supports_transactions"] = True
    location = str(configuration)
    ordinary, suffix = (_to_suffix(destination, location, dataset, tenant_key, part) for part in ("", shard))
    _origins[f"cockpit_{suffix}"] = _Origin(f"cockpit_{ordinary}", shard)
    try:
        return dlt.pipeline(
            pipeline_name=f"cockpit_{suffix}",
            destination=Destination.from_reference(
                destination, **options, staging_dataset_name_layout=f"%s_staging_{suffix}"
            ),
            dataset_name=dataset,
            pipelines_dir=str(pipelines_dir) if pipelines_dir else None,  # type: ignore[arg-type]
        )
    except OSError as error:
        raise ConfigurationError(
            f"The working folder of dlt cannot be used: {error.filename}: {error.strerror}. "
            "Set DLT_DATA_DIR to a folder that can be written."
        ) from error
    except ValueError as error:
        # JSON that is cut off, such as after a power failure
        folder = Path(pipelines_dir or get_dlt_pipelines_dir()) / f"cockpit_{suffix}"
        raise ConfigurationError(
            f"The working folder of dlt {folder} is damaged: {error}. Remove that folder, then run again: dlt makes "
            "it anew from the database, and nothing is lost."
        ) from error


def shard_of(pipeline: dlt.Pipeline) -> str:
    """The shard that `create_pipeline` was given for `pipeline`; empty for none."""
    origin = _origins.get(pipeline.pipeline_name)
    return origin.shard if origin else ""


def ordinary_name(pipeline: dlt.Pipeline) -> str:
    """The name that `pipeline` would have without its shard."""
    origin = _origins.get(pipeline.pipeline_name)
    return origin.ordinary_name if origin else pipeline.pipeline_name


def locate_database(database: str | os.PathLike[str] | None, dataset: str) -> Path:
    """The DuckDB file that `create_pipeline` would load into, for what only reads its copy and needs no tenant.

    Raises ConfigurationError as `create_pipeline` does.
    """
    path = _database_path(database)
    _check_names(path, dataset)
    _check_dataset(dataset)
    return Path(path)


def work_folder(pipeline: dlt.Pipeline) -> Path:
    """The folder of the pipeline's spool: beside dlt's own, which dlt may wipe."""
    return Path(pipeline.pipelines_dir).absolute().parent / "cockpit_spool" / pipeline.pipeline_name


def _to_suffix(*identity: str) -> str:
    return hashlib.sha256("|".join(identity).encode()).hexdigest()[:10]


def _check_strategies(destination: str, capabilities: DestinationCapabilitiesContext) -> None:
    """Refuse destinations on which dlt would silently append where it should merge."""
    missing = _STRATEGIES - set(capabilities.supported_merge_strategies or ())
    if missing:
        raise ConfigurationError(
            f"The destination {destination!r} cannot keep the tables exact: dlt has no "
            f"{' and no '.join(sorted(missing))} merge for it. "
            "Valid: a database, such as duckdb or postgres, or ducklake for Parquet files."
        )


def _duckdb_credentials(path: str) -> DuckDbCredentials:
    credentials = DuckDbCredentials(path)
    credentials.global_config = _DUCKDB_CONFIG | (configured_value("destination.duckdb.global_config") or {})
    return credentials


def _check_dataset(dataset: str) -> None:
    if not _DATASET.match(dataset):
        raise ConfigurationError(
            f"--dataset {dataset!r} does not fit. Valid: lower-case letters, digits and single underscores, with a "
            "letter first, such as cockpit or cockpit_test."
        )


def _check_names(path: str, dataset: str) -> None:
    if Path(path).stem.lower() == dataset.lower():
        raise ConfigurationError(
            f"The DuckDB file {path} is named like its dataset {dataset!r}, and DuckDB could not "
            "tell the two apart. Name the file otherwise with --database, or the dataset with --dataset."
        )


def _database_path(database: str | os.PathLike[str] | None) -> str:
    if database is not None:
        return _to_location(Path(database))
    configured = configured_value("destination.duckdb.credentials")
    if isinstance(configured, Mapping):
        configured = configured.get("database")
    if is_missing(configured):
        return _to_location(project_folder() / DEFAULT_DATABASE)
    if not isinstance(configured, str):
        raise ConfigurationError(
            "destination.duckdb.credentials is not the path of a DuckDB file. Correct it under [destination.duckdb], "
            f'for example credentials = "{DEFAULT_DATABASE}", or give --database.'
        )
    return _to_location(project_folder() / Path(configured.removeprefix("duckdb:///")).expanduser())


def _to_location(path: Path) -> str:
    """The same text for the same file, whichever way it was written."""
    return str(path.expanduser().resolve())


def _with_session_options(credentials: Any) -> Any:
    """`credentials` of PostgreSQL, with our options of a session unless they set their own."""
    query = dict(credentials.query or {})
    options = str(query.get("options") or "")
    ours = [f"-c {name}={value}" for name, value in _POSTGRES_OPTIONS.items() if f"{name}=" not in options]
    credentials.query = query | {"options": " ".join([options, *ours]).strip()}
    return credentials


def _configure(destination: str, options: dict[str, Any], dataset: str) -> tuple[Any, DestinationCapabilitiesContext]:
    """The destination's configuration, which as text is its address without a password, and what it can do."""
    try:
        factory: Any = Destination.from_reference(destination, **options)
        capabilities = factory.capabilities()
        _check_strategies(destination, capabilities)
        spec = factory.spec()
        if hasattr(spec, "_bind_dataset_name"):
            spec = spec._bind_dataset_name(dataset)
        configuration = factory.configuration(spec)
        # imports the driver
        _ = factory.client_class
        return configuration, capabilities
    except (ConfigurationException, DestinationException, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"The destination {destination!r} cannot be used: {_explain(destination, error)}"
        ) from error


def _explain(destination: str, error: Exception) -> str:
    if isinstance(error, UnknownDestinationModule):
        return "dlt knows none of this name. Valid: duckdb, postgres, snowflake, bigquery and the others of dlt."
    if isinstance(error, ModuleNotFoundError):
        install = f'pip install "dlt[{destination}]"'
        return f"its driver {error.name} is not installed. Install the extra of dlt for it: {install}."
    reason = redact(" ".join(str(error).strip().split("\n")[0].split())).rstrip(".!")
    return (
        f"{reason}. Configure it as dlt wants it, under [destination.{destination}.credentials] in .dlt/secrets.toml."
    )
