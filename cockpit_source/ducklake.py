"""The DuckDB extensions of the destination `ducklake`, installed from Python packages: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb

from cockpit_source.errors import ConfigurationError
from cockpit_source.redaction import redact

# what reads the catalogue, by the name of its driver; one in a DuckDB file needs nothing more
_CATALOG_EXTENSIONS = {
    "postgres": "postgres_scanner",
    "postgresql": "postgres_scanner",
    "sqlite": "sqlite_scanner",
    "mysql": "mysql_scanner",
}
_IN_OUR_EXTRA = {"ducklake", "postgres_scanner", "sqlite_scanner"}


def install_extensions(credentials: Any) -> None:
    """Put what `credentials` of the destination `ducklake` need where DuckDB looks for it; quick when it is there.

    Raises:
        ConfigurationError: an extension is neither installed nor in a package, or its folder cannot be written.
    """
    needed = ["ducklake"]
    if catalog_extension := _CATALOG_EXTENSIONS.get(credentials.catalog.drivername):
        needed.append(catalog_extension)
    folder = (credentials.global_config or {}).get("extension_directory")
    config: dict[str, Any] = {} if folder is None else {"extension_directory": str(folder)}
    with duckdb.connect(":memory:", config=config) as connection:
        for name in _find_missing(connection, needed):
            _install(connection, name)


def install_postgres_extension(connection: duckdb.DuckDBPyConnection) -> None:
    """Put what reads and writes PostgreSQL where DuckDB looks for it; quick when it is there.

    Raises:
        ConfigurationError: it is neither installed nor in a package, or its folder cannot be written.
    """
    for name in _find_missing(connection, ["postgres_scanner"]):
        _install(connection, name, "A move to PostgreSQL", "move")


def _find_missing(connection: duckdb.DuckDBPyConnection, names: Iterable[str]) -> list[str]:
    rows = connection.execute("SELECT extension_name FROM duckdb_extensions() WHERE installed").fetchall()
    installed = {name for (name,) in rows}
    return [name for name in names if name not in installed]


def _install(
    connection: duckdb.DuckDBPyConnection, name: str, what: str = "DuckLake", extra: str = "ducklake"
) -> None:
    path = _find_packaged(name)
    if path is None:
        raise ConfigurationError(_describe_missing(name, what, extra))
    try:
        connection.execute(f"INSTALL '{str(path).replace(chr(39), chr(39) * 2)}'")
    except duckdb.Error as error:
        raise ConfigurationError(
            f"The DuckDB extension {name} cannot be installed: {redact(str(error).splitlines()[0]).rstrip('.')}. "
            "DuckDB keeps extensions in .duckdb below the home folder: make that writable, or set "
            "extension_directory under [destination.ducklake.credentials.global_config]."
        ) from error


def _find_packaged(name: str) -> Path | None:
    """The file of an extension in its Python package, for the version of DuckDB that runs."""
    spec = find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if path.exists():
            return path
    return None


def _describe_missing(name: str, what: str, extra: str) -> str:
    if name in _IN_OUR_EXTRA:
        install = f'Install it from the clone: pip install -c constraints.txt ".[{extra}]"'
    else:
        package = f"duckdb-extension-{name.replace('_', '-')}"
        install = f'Install it: pip install "{package}=={duckdb.__version__}"'
    return f"{what} needs the DuckDB extension {name} for DuckDB {duckdb.__version__}, which is not there. {install}"
