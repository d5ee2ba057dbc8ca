"""From spool batches (one row per scope) to the rows of each table, in Arrow, without touching Python objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cockpit_source.scopes import GOOD_OUTCOMES
from cockpit_source.tables import (
    LICENSE_HISTORY,
    LICENSES,
    MARKER_SKU_ID,
    REJECTED_ROWS,
    RUNS,
    SCOPE_RUNS,
    SCOPES,
    TIME,
    Table,
)

_SCOPE_COLUMNS = ("scope_key", "customer_id", "provider_instance_id", "reseller_id")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What all rows of a package share.

    `full_list`: the run goes over the full list, so its scopes are listed. `allow_drops`: a scope that reads empty
    gets its marker, so that its rows are retired.
    """

    run_id: str
    tenant_key: str
    load_id: str
    full_list: bool = True
    allow_drops: bool = True

    def to_licenses(self, batch: pa.Table) -> pa.Table:
        """Rows of `licenses`, and a marker row for each scope that was read."""
        return self._with_markers(batch, LICENSES)

    def to_license_history(self, batch: pa.Table) -> pa.Table:
        """The same rows and markers for `license_history`."""
        return self._with_markers(batch, LICENSE_HISTORY)

    def to_scope_runs(self, batch: pa.Table) -> pa.Table:
        return self._complete({name: batch[name] for name in batch.column_names}, batch.num_rows, SCOPE_RUNS)

    def to_scopes(self, batch: pa.Table) -> pa.Table:
        """Rows of `scopes`: what the warehouse knew before the run, moved on by the outcome."""
        good = pc.is_in(batch["outcome"], pa.array(GOOD_OUTCOMES))
        prior = {
            name: pc.struct_field(batch["prior"], name)
            for name in (field.name for field in batch.schema.field("prior").type)
        }
        run_id = pa.repeat(self.run_id, batch.num_rows)
        columns = {
            **{name: batch[name] for name in _SCOPE_COLUMNS},
            "first_seen_at": pc.coalesce(prior["first_seen_at"], batch["observed_at"]),
            "last_listed_run_id": run_id if self.full_list else prior["last_listed_run_id"],
            "last_run_id": run_id,
            "last_outcome": batch["outcome"],
            "last_good_run_id": pc.if_else(good, run_id, prior["last_good_run_id"]),
            "last_good_at": pc.if_else(good, batch["observed_at"], prior["last_good_at"]),
            "failing_runs": pc.if_else(good, 0, pc.add(prior["failing_runs"], 1)),
            "has_active_gdap": prior["has_active_gdap"],
        }
        if not self.full_list:
            columns["delisted_at"] = prior["delisted_at"]
        return self._complete(columns, batch.num_rows, SCOPES)

    def to_delisted_scopes(self, unlisted: pa.Table, delisted_at: Any) -> pa.Table:
        """Rows of `scopes` for known scopes that the full list no longer holds: as they were, with `delisted_at`."""
        columns = {name: unlisted[name] for name in unlisted.column_names}
        columns["delisted_at"] = pa.repeat(pa.scalar(delisted_at, TIME), len(unlisted))
        return self._complete(columns, len(unlisted), SCOPES)

    def to_held_back_scopes(self, unlisted: pa.Table) -> pa.Table:
        """Rows of `scopes` for scopes that left the full list and that the drop guard held back: still listed."""
        columns = {name: unlisted[name] for name in unlisted.column_names}
        columns |= {
            "last_run_id": pa.repeat(self.run_id, len(unlisted)),
            "last_outcome": pa.repeat("quarantined", len(unlisted)),
            "failing_runs": pc.add(unlisted["failing_runs"], 1),
        }
        return self._complete(columns, len(unlisted), SCOPES)

    def to_held_back_scope_runs(self, unlisted: pa.Table, observed_at: Any) -> pa.Table:
        """Their rows of `scope_runs`."""
        held = pc.cast(unlisted["held_licenses"], pa.string())
        columns = {
            **{name: unlisted[name] for name in _SCOPE_COLUMNS},
            "outcome": pa.repeat("quarantined", len(unlisted)),
            "error_type": pa.repeat("drop_guard", len(unlisted)),
            "error_description": pc.binary_join_element_wise(
                "it left the list, and the scope held ", held, " licence rows", ""
            ),
            "attempts": pa.repeat(0, len(unlisted)),
            "duration_ms": pa.repeat(0, len(unlisted)),
            "observed_at": pa.repeat(pa.scalar(observed_at, TIME), len(unlisted)),
        }
        return self._complete(columns, len(unlisted), SCOPE_RUNS)

    def to_rejected_rows(self, batch: pa.Table) -> pa.Table:
        scoped, rejected = _flatten(batch, "rejected")
        return self._complete({**scoped, **rejected}, len(scoped["scope_key"]), REJECTED_ROWS)

    def to_listed(self, table: Table, rows: pa.Table) -> pa.Table:
        """Rows of a table that discovery fills."""
        return self._complete({name: rows[name] for name in rows.column_names}, len(rows), table)

    def to_runs(self, row: Mapping[str, Any]) -> pa.Table:
        return self._complete({name: pa.array([value]) for name, value in row.items()}, 1, RUNS)

    def _with_markers(self, batch: pa.Table, table: Table) -> pa.Table:
        scoped, licenses = _flatten(batch, "licenses")
        rows = self._complete({**scoped, **licenses}, len(scoped["scope_key"]), table)
        outcomes = GOOD_OUTCOMES if self.allow_drops else GOOD_OUTCOMES[:1]
        read = batch.filter(pc.is_in(batch["outcome"], pa.array(outcomes)))
        markers = self._complete(
            {
                **{name: read[name] for name in (*_SCOPE_COLUMNS, "observed_at")},
                "sku_id": pa.repeat(MARKER_SKU_ID, len(read)),
                "occurrence": pa.repeat(0, len(read)),
                "row_hash": pa.repeat(MARKER_SKU_ID, len(read)),
            },
            len(read),
            table,
        )
        return pa.concat_tables([rows, markers])

    def _complete(self, columns: Mapping[str, Any], length: int, table: Table) -> pa.Table:
        """`columns` in the order and types of `table`; the shared ones filled in, missing ones null."""
        shared = {"tenant": self.tenant_key, "run_id": self.run_id, "_dlt_load_id": self.load_id}
        arrays = []
        for field in table.arrow_schema:
            column = columns.get(field.name)
            if column is None and field.name in shared:
                column = pa.repeat(shared[field.name], length)
            arrays.append(pa.nulls(length, field.type) if column is None else column.cast(field.type))
        return pa.table(arrays, schema=table.arrow_schema)


def _flatten(batch: pa.Table, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The elements of list column `name` as columns, and the scope columns repeated beside them."""
    parents = pc.list_parent_indices(batch[name])
    elements = pc.list_flatten(batch[name])
    scoped = {column: batch[column].take(parents) for column in (*_SCOPE_COLUMNS, "observed_at")}
    fields = [field.name for field in batch.schema.field(name).type.value_type]
    return scoped, {field: pc.struct_field(elements, field) for field in fields}
