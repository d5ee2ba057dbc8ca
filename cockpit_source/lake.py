"""DuckLake: one committer at a time.

Two commits that change one table conflict, and DuckLake, which cannot repeat the later, refuses it. So whoever writes
takes its turn, by an advisory lock of the PostgreSQL that holds the catalogue; it is released when its process dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import dlt

from cockpit_source.postgres import connect, to_key, wait_for_lock
from cockpit_source.warehouse import describe_location, to_warehouse_error


def postgres_catalog(pipeline: dlt.Pipeline) -> Any:
    """The credentials of the PostgreSQL that holds the catalogue of a DuckLake; None for any other destination."""
    if pipeline.destination.destination_name != "ducklake":
        return None
    credentials: Any = pipeline.destination_client().config.credentials
    catalog = credentials.catalog
    return catalog if catalog.drivername.startswith("postgres") else None


def is_shared_lake(pipeline: dlt.Pipeline) -> bool:
    """Whether several may write into the lake of `pipeline`, one after another."""
    return postgres_catalog(pipeline) is not None


@contextmanager
def one_committer(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Be the only writer of the lake while the context lasts; waits for those before. Elsewhere it does nothing.

    Raises:
        WarehouseError: the lock cannot be taken.
    """
    catalog = postgres_catalog(pipeline)
    if catalog is None:
        yield
        return
    psycopg2: Any = import_module("psycopg2")
    try:
        connection = connect(catalog, "commit")
    except psycopg2.Error as error:
        raise to_warehouse_error(error, describe_location(pipeline)) from error
    try:
        connection.autocommit = True
        try:
            wait_for_lock(connection, to_key("commit to the lake"))
        except psycopg2.Error as error:
            raise to_warehouse_error(error, describe_location(pipeline)) from error
        yield
    finally:
        connection.close()
