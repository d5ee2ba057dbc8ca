"""The dlt pipeline of an inventory: one name, working directory and staging dataset per database and tenant."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import DestinationException

from cockpit_source.configuration import configured_value, project_folder
from cockpit_source.errors import ConfigurationError
from cockpit_source.redaction import redact

DEFAULT_DATABASE = "cockpit.duckdb"
DEFAULT_DATASET = "cockpit"

# the environment wins over these; dlt reads them when it is first used
_RUNTIME_DEFAULTS = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__INTERCEPT_SIGNALS": "false"}


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
    either, it is `destination.duckdb.credentials` of dlt's configuration, else `cockpit.duckdb` in the project
    folder. Its name is made of all of these, so that no other database or tenant ever meets its pending packages
    or staging rows.

    Raises:
        ConfigurationError: the destination is unknown or not configured.
    """
    set_runtime_defaults()
    if database is not None and destination != "duckdb":
        raise ConfigurationError("--database is the path of a DuckDB file; for other destinations configure dlt.")
    options: dict[str, Any] = {"credentials": _database_path(database)} if destination == "duckdb" else {}
    location = _locate(destination, options, dataset)
    identity = "|".join((destination, location, dataset, tenant_key, shard))
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return dlt.pipeline(
        pipeline_name=f"cockpit_{suffix}",
        destination=Destination.from_reference(
            destination, **options, staging_dataset_name_layout=f"%s_staging_{suffix}"
        ),
        dataset_name=dataset,
        pipelines_dir=str(pipelines_dir) if pipelines_dir else None,  # type: ignore[arg-type]
    )


def work_folder(pipeline: dlt.Pipeline) -> Path:
    """The folder of the pipeline's spool: beside dlt's own, which dlt may wipe."""
    return Path(pipeline.pipelines_dir).absolute().parent / "cockpit_spool" / pipeline.pipeline_name


def _database_path(database: str | os.PathLike[str] | None) -> str:
    if database is not None:
        return str(Path(database).expanduser().absolute())
    configured = configured_value("destination.duckdb.credentials")
    if configured is None:
        return str(project_folder() / DEFAULT_DATABASE)
    if not isinstance(configured, str):
        configured = str(configured.get("database", DEFAULT_DATABASE))
    return str((project_folder() / Path(configured.removeprefix("duckdb:///")).expanduser()).absolute())


def _locate(destination: str, options: dict[str, Any], dataset: str) -> str:
    """The address of the destination, without a password."""
    try:
        factory: Any = Destination.from_reference(destination, **options)
        spec = factory.spec()
        if hasattr(spec, "_bind_dataset_name"):
            spec = spec._bind_dataset_name(dataset)
        return str(factory.configuration(spec))
    except (ConfigurationException, DestinationException, ImportError, ValueError) as error:
        reason = redact(str(error).strip().splitlines()[0])
        raise ConfigurationError(
            f"The destination {destination!r} cannot be used: {reason}. Valid: a destination of dlt, such as duckdb "
            "or postgres, with its extra installed and its credentials under [destination] in .dlt/secrets.toml."
        ) from error
