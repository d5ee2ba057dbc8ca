"""What the warehouse knows: the run that a plan rests on, and the evidence about a customer.

A row that a run wrote counts only when its load package was committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import dlt

from cockpit_source.deletions.records import (
    DELETE_CUSTOMER,
    Candidate,
    InventoryEvidence,
    InventoryRun,
    ScopeEvidence,
    Sku,
)
from cockpit_source.deletions.refusals import Refusal, refuse
from cockpit_source.scopes import GOOD_OUTCOMES
from cockpit_source.warehouse import DatasetClient, Warehouse

EARLIER_RUNS = 7
USABLE_STATUSES = ("complete", "partial")
_UNREAD = "scopes_skipped + scopes_deferred + scopes_quarantined + coalesce(unlisted_quarantined, 0)"
_RUN = f"""
SELECT run_id, started_at, finished_at, status, base_url, customers_listed, {_UNREAD} AS unread
FROM {{runs}} r
WHERE tenant = %s AND _dlt_load_id IN (SELECT load_id FROM {{_dlt_loads}} WHERE status = 0)
"""
_CUSTOMERS = """
SELECT c.id, c.company_name, c.reseller_id, r.company_name AS reseller_name, c.removed_at
FROM {customers} c LEFT JOIN {resellers} r ON r.tenant = c.tenant AND r.id = c.reseller_id
WHERE c.tenant = %s"""
_SCOPES = """
SELECT s.customer_id, s.scope_key, s.provider_instance_id, s.reseller_id, s.last_outcome, r.outcome
FROM {scopes} s LEFT JOIN (
    SELECT scope_key, outcome FROM {scope_runs}
    WHERE run_id = %s AND _dlt_load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
) r ON r.scope_key = s.scope_key
WHERE s.delisted_at IS NULL AND s.tenant = %s"""
_LICENSES = """
SELECT customer_id, scope_key, sku_id, occurrence, sku_name, total_licenses, consumed_licenses
FROM {licenses} WHERE tenant = %s"""
_CHANGES = """
SELECT customer_id, max(valid_from) AS latest_from, max(valid_to) AS latest_to
FROM {license_history} WHERE tenant = %s"""


class Inventory:
    """The inventory of one tenant, on an open connection."""

    def __init__(self, client: DatasetClient, tenant_key: str) -> None:
        self._client = client
        self._tenant_key = tenant_key

    def latest_run(self) -> InventoryRun | None:
        """The latest run that read the customer listing to its end, else the latest; None before the first."""
        runs = sorted(self._client.rows(_RUN, self._tenant_key), key=lambda row: row["started_at"])
        if not runs:
            return None
        with_listing = [row for row in runs if row["customers_listed"] is not None]
        latest = (with_listing or runs)[-1]
        earlier = [
            int(row["customers_listed"])
            for row in with_listing
            if row["started_at"] < latest["started_at"] and _is_usable(row) and row["base_url"] == latest["base_url"]
        ]
        return InventoryRun(**latest, earlier_customers_listed=tuple(earlier[-EARLIER_RUNS:]))

    def evidence(self, customer_ids: Iterable[str], run_id: str) -> dict[str, InventoryEvidence]:
        """What is known of these customers, by id; those that the inventory does not hold are left out."""
        ids = sorted(set(customer_ids))
        if not ids:
            return {}
        changes = {row["customer_id"]: _latest(row) for row in self._select(_CHANGES, ids, group=True)}
        skus: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._select(_LICENSES, ids):
            skus[row["scope_key"]].append(row)
        scopes: defaultdict[str, list[ScopeEvidence]] = defaultdict(list)
        for row in self._select(_SCOPES, ids, run_id):
            scopes[row["customer_id"]].append(_to_scope(row, skus[row["scope_key"]]))
        return {
            row["id"]: InventoryEvidence(
                row["company_name"],
                row["reseller_id"],
                row["reseller_name"],
                row["removed_at"] is None,
                changes.get(row["id"]),
                tuple(sorted(scopes[row["id"]], key=lambda scope: scope.scope_key)),
            )
            for row in self._select(_CUSTOMERS, ids, column="c.id")
        }

    def missing_since(self, candidate: Candidate, moment: datetime, base_url: str) -> Mapping[str, Any] | None:
        """The proof that a run begun after `moment` read the whole listing without what was deleted, or None.

        Of a relationship: the scopes of the customer in that instance have left the list. Where a run of another API
        began since, the inventory proves nothing.
        """
        runs = [row for row in self._client.rows(_RUN, self._tenant_key) if row["started_at"] > moment]
        listed = [row for row in runs if (row["customers_listed"] or 0) > 0 and _is_usable(row)]
        if not listed or any(row["base_url"] != base_url for row in runs):
            return None
        latest = max(listed, key=lambda row: row["started_at"])
        gone_at = self._gone_at(candidate)
        if gone_at is None or gone_at <= moment:
            return None
        return {
            "kind": "inventory",
            "run_id": latest["run_id"],
            "run_started_at": latest["started_at"],
            "customers_listed": latest["customers_listed"],
            "gone_at": gone_at,
        }

    def known_customers(self, limit: int) -> frozenset[str]:
        """Ids of some customers that the last listing held."""
        rows = self._client.rows(
            f"SELECT id FROM {{customers}} WHERE tenant = %s AND removed_at IS NULL ORDER BY id LIMIT {limit}",
            self._tenant_key,
        )
        return frozenset(row["id"] for row in rows)

    def names(self) -> list[tuple[str, str | None]]:
        """Id and name of every customer that the inventory holds, those that have left included."""
        rows = self._client.rows("SELECT id, company_name FROM {customers} WHERE tenant = %s", self._tenant_key)
        return [(row["id"], row["company_name"]) for row in rows]

    def _gone_at(self, candidate: Candidate) -> datetime | None:
        if candidate.action == DELETE_CUSTOMER:
            sql = "SELECT removed_at AS gone_at FROM {customers} WHERE tenant = %s AND id = %s"
            values = [self._tenant_key, candidate.customer_id]
        else:
            sql = (
                "SELECT delisted_at AS gone_at FROM {scopes} "
                "WHERE tenant = %s AND customer_id = %s AND provider_instance_id = %s"
            )
            values = [self._tenant_key, candidate.customer_id, str(candidate.provider_instance_id)]
        moments = [row["gone_at"] for row in self._client.rows(sql, *values)]
        return max(moments) if moments and None not in moments else None

    def _select(
        self, sql: str, ids: list[str], *before: Any, column: str = "customer_id", group: bool = False
    ) -> list[dict[str, Any]]:
        condition = f" AND {column} IN ({', '.join(['%s'] * len(ids))})"
        return self._client.rows(
            sql + condition + (f" GROUP BY {column}" if group else ""), *before, self._tenant_key, *ids
        )


@contextmanager
def open_inventory(pipeline: dlt.Pipeline, tenant_key: str) -> Iterator[Inventory]:
    """The inventory, read only.

    Raises:
        DeletionRefused: there is none.
        WarehouseError: it cannot be opened or read, or lacks a column; WarehouseBusy while a load runs.
    """
    warehouse = Warehouse(pipeline)
    with warehouse.opened(read_only=True) as client:
        if client is None or not client.has_table("runs"):
            refuse(
                [
                    Refusal(
                        "no_inventory",
                        f"There is no inventory in {warehouse.location}, dataset {warehouse.dataset}. Run "
                        "`cockpit load` with discover = true, then plan again.",
                    )
                ]
            )
        assert client is not None  # noqa: S101 - refused above
        yield Inventory(client, tenant_key)


def _is_usable(run: Mapping[str, Any]) -> bool:
    return run["finished_at"] is not None and run["status"] in USABLE_STATUSES and not run["unread"]


def _latest(row: Mapping[str, Any]) -> datetime | None:
    return max((row[name] for name in ("latest_from", "latest_to") if row[name] is not None), default=None)


def _to_scope(row: Mapping[str, Any], skus: list[dict[str, Any]]) -> ScopeEvidence:
    # a later run, of failed scopes or a part of them, may have met a scope that it could not read
    outcome = row["outcome"] if row["last_outcome"] in GOOD_OUTCOMES else row["last_outcome"]
    held = sorted(skus, key=lambda sku: (sku["sku_id"], sku["occurrence"]))
    return ScopeEvidence(
        row["scope_key"],
        row["provider_instance_id"],
        row["reseller_id"],
        outcome,
        tuple(Sku(sku["sku_id"], sku["sku_name"], sku["total_licenses"], sku["consumed_licenses"]) for sku in held),
    )
