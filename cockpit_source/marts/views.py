"""Creates the marts as views in the dataset of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import dlt
from dlt.common.destination.exceptions import DestinationException

from cockpit_source.errors import ConfigurationError, WarehouseError
from cockpit_source.lake import one_committer
from cockpit_source.marts.rendering import Dialect, Mart, MartOptions, is_public, render_marts
from cockpit_source.warehouse import DatasetClient, Warehouse, describe_reason

# the SQL of DuckLake is that of DuckDB
_DIALECTS = {"duckdb": "duckdb", "ducklake": "duckdb", "postgres": "postgres"}


@dataclass(frozen=True, slots=True)
class CreatedMarts:
    """The views that were created, and where."""

    names: tuple[str, ...]
    location: str
    dataset: str

    @property
    def public(self) -> tuple[str, ...]:
        """Without those that only serve others."""
        return tuple(name for name in self.names if is_public(name))


def mart_dialect(pipeline: dlt.Pipeline) -> Dialect:
    """The dialect of the pipeline's destination.

    Raises:
        ConfigurationError: the marts are not written for it.
    """
    destination = pipeline.destination.destination_name
    try:
        return cast(Dialect, _DIALECTS[destination])
    except KeyError:
        raise ConfigurationError(
            f"The marts are written for {', '.join(_DIALECTS)}, not for {destination}. The tables are there; the "
            "SELECTs in cockpit_source/marts/dbt are a dbt package that can be adapted."
        ) from None


def require_tables(pipeline: dlt.Pipeline) -> None:
    """Look whether there is anything to build marts on.

    Raises:
        WarehouseError: nothing was ever loaded.
    """
    with _opened(Warehouse(pipeline), read_only=True):
        pass


def create_marts(pipeline: dlt.Pipeline, options: MartOptions) -> CreatedMarts:
    """Create the views anew, all of them or none. `options.dialect` has to be that of `mart_dialect`.

    Raises:
        WarehouseError: nothing was ever loaded, or the database refuses a view; nothing was changed.
    """
    warehouse = Warehouse(pipeline)
    marts = render_marts(options, naming=lambda name: f"{{{name}}}")
    with one_committer(pipeline), _opened(warehouse, read_only=False) as client:
        try:
            with client.transaction(keep=True):
                _replace(client, marts)
        except DestinationException:
            _create_anew(client, marts, warehouse)
    return CreatedMarts(tuple(mart.name for mart in marts), warehouse.location, warehouse.dataset)


@contextmanager
def _opened(warehouse: Warehouse, *, read_only: bool) -> Iterator[DatasetClient]:
    with warehouse.opened(read_only=read_only) as client:
        if client is None or not client.has_table("runs"):
            raise WarehouseError(
                f"There are no tables yet in dataset {warehouse.dataset} of {warehouse.location}; marts need them. "
                "Run `cockpit load` first."
            )
        yield client


def _replace(client: DatasetClient, marts: Sequence[Mart]) -> None:
    for mart in marts:
        client.execute(f"CREATE OR REPLACE VIEW {{{mart.name}}} AS\n{mart.sql}")


def _create_anew(client: DatasetClient, marts: Sequence[Mart], warehouse: Warehouse) -> None:
    """PostgreSQL replaces no view that had other columns, and drops none that another view reads."""
    try:
        with client.transaction(keep=True):
            for mart in reversed(marts):
                client.execute(f"DROP VIEW IF EXISTS {{{mart.name}}}")
            _replace(client, marts)
    except DestinationException as error:
        raise WarehouseError(
            f"The marts could not be created in dataset {warehouse.dataset} of {warehouse.location}: "
            f"{describe_reason(error)}. Nothing was changed. Where a view of your own reads one of them, drop it, "
            "run `cockpit marts`, and create it again; where a table lacks, `cockpit load` adds it."
        ) from error
