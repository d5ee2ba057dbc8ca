"""The tables of the dataset: grain, key, write disposition and columns, in one place.

Arrow schemas, dlt hints and the tables in the README all come from here. Every time is UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from cockpit_source.scopes import OUTCOMES

TEXT = pa.string()
COUNT = pa.int64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
DAY = pa.date32()
PRICE = pa.decimal128(18, 4)

MARKER_SKU_ID = ""
LOAD_ID = "_dlt_load_id"

Sync = Literal["merge", "scope delete-insert", "scope scd2", "tenant delete-insert"]

_SCOPED = {
    "source_filter": f"sku_id <> '{MARKER_SKU_ID}'",
    "destination_scope": (
        f"scope_key IN (SELECT m.scope_key FROM {{staging_table}} m WHERE m.sku_id = '{MARKER_SKU_ID}')"
    ),
}
# as above, with one marker for the whole list of a tenant
_BY_TENANT = {
    "source_filter": f"sku_id <> '{MARKER_SKU_ID}'",
    "destination_scope": f"tenant IN (SELECT m.tenant FROM {{staging_table}} m WHERE m.sku_id = '{MARKER_SKU_ID}')",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, whether a value may be missing, and what it says."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `sync` says how a load changes it; `versioned_columns` are what dlt adds to an scd2 table."""

    name: str
    grain: str
    description: str
    key: tuple[str, ...]
    sync: Sync
    columns: tuple[Column, ...]
    versioned_columns: tuple[Column, ...] = ()

    @property
    def arrow_schema(self) -> pa.Schema:
        """The fixed schema of what is yielded to dlt, `_dlt_load_id` included."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    def write_disposition(self, boundary_timestamp: datetime | None) -> dict[str, Any]:
        """dlt's write disposition. `boundary_timestamp` dates new versions; None: the time of the load package."""
        if self.sync == "scope scd2":
            return {
                "disposition": "merge",
                "strategy": "scd2",
                "row_version_column_name": "row_hash",
                "validity_column_names": ["valid_from", "valid_to"],
                # stays in the stored schema, so it is set in every load, also to None
                "boundary_timestamp": boundary_timestamp,
                **_SCOPED,
            }
        replaced = {"scope delete-insert": _SCOPED, "tenant delete-insert": _BY_TENANT}.get(self.sync, {})
        return {"disposition": "merge", "strategy": "delete-insert", **replaced}

    def column_hints(self) -> dict[str, Any]:
        """dlt's column hints, with the descriptions."""
        return {c.name: {"name": c.name, "nullable": c.nullable, "description": c.description} for c in self.columns}


def _column(name: str, type_: pa.DataType, description: str) -> Column:
    return Column(name, type_, description)


def _required(name: str, type_: pa.DataType, description: str) -> Column:
    return Column(name, type_, description, nullable=False)


_TENANT = _required("tenant", TEXT, "tenant_key of the CSP tenant")
_RUN_ID = _required("run_id", TEXT, "run that wrote the row")
_LOAD_ID = _required(LOAD_ID, TEXT, "dlt load package; committed when it stands in _dlt_loads with status 0")
_SCOPE = (
    _TENANT,
    _required("scope_key", TEXT, "tenant_key|customer|provider_instance|reseller, '-' for no reseller"),
    _required("customer_id", TEXT, "CloudCockpit id of the customer, lower case"),
    _required("provider_instance_id", TEXT, "CloudCockpit id of the provider instance, lower case"),
    _column("reseller_id", TEXT, "reseller that the call was narrowed to; null for none"),
)
_SKU_ID = _required("sku_id", TEXT, "Microsoft product SKU, lower case when it is a UUID")
_SKU = (
    _SKU_ID,
    _required("occurrence", COUNT, "0, or the number of the repeat when one answer lists a SKU more than once"),
    _column("sku_name", TEXT, "product name as the API gives it"),
    _column("total_licenses", COUNT, "seats in total; by Microsoft's model active plus warning units"),
    _column("consumed_licenses", COUNT, "seats assigned to users"),
    _column("available_licenses", COUNT, "seats not assigned; may be negative"),
    _column("suspended_licenses", COUNT, "seats of suspended subscriptions"),
)
_ROW_HASH = _required("row_hash", TEXT, "hex BLAKE2b-16 over the values that history keeps")
_OBSERVED_AT = _required("observed_at", TIME, "when the answer was read")

LICENSES = Table(
    "licenses",
    "a SKU held now in a scope",
    "What each scope held when it was last read well.",
    ("scope_key", "sku_id", "occurrence"),
    "scope delete-insert",
    (
        *_SCOPE,
        *_SKU,
        _column("is_selected", FLAG, "screen flag of the API; no meaning for inventory"),
        _column("extra", TEXT, "JSON object of fields that the contract does not know"),
        _ROW_HASH,
        _RUN_ID,
        _OBSERVED_AT,
        _LOAD_ID,
    ),
)
LICENSE_HISTORY = Table(
    "license_history",
    "a version of a row of licenses",
    "Every version of every row, from when to when it held.",
    ("scope_key", "sku_id", "occurrence", "valid_from"),
    "scope scd2",
    (*_SCOPE, *_SKU, _ROW_HASH, _LOAD_ID),
    (
        _column("valid_from", TIME, "when the version was first loaded"),
        _column("valid_to", TIME, "when it was replaced or retired; null for the current version"),
    ),
)
SCOPES = Table(
    "scopes",
    "a scope",
    "Every scope ever listed, how it went last, and when it was last read well.",
    ("scope_key",),
    "merge",
    (
        *_SCOPE,
        _required("first_seen_at", TIME, "when the scope first stood in a list"),
        _column("last_listed_run_id", TEXT, "last run over the full list that held the scope"),
        _required("last_run_id", TEXT, "last run that held the scope, over the full list or not"),
        _required("last_outcome", TEXT, "outcome of the scope in that run"),
        _column("last_good_run_id", TEXT, "last run that read the scope (ok or empty); null: never"),
        _column("last_good_at", TIME, "when that was"),
        _required("failing_runs", COUNT, "runs in a row that did not read the scope; 0 after a good read"),
        _column("delisted_at", TIME, "when a full list first came without the scope; null while it is listed"),
        _column(
            "has_active_gdap",
            FLAG,
            "whether the customer had an active GDAP relationship when the list was made; null: not known",
        ),
        _LOAD_ID,
    ),
)
SCOPE_RUNS = Table(
    "scope_runs",
    "a scope in a run",
    "The outcome of every scope in every run, with what the API said.",
    ("run_id", "scope_key"),
    "merge",
    (
        _RUN_ID,
        *_SCOPE,
        _required("outcome", TEXT, "one of " + ", ".join(OUTCOMES)),
        _column("http_status", COUNT, "status of the last answer; null when none arrived"),
        _column("error_type", TEXT, "the API's type of the error, else ours"),
        _column("error_description", TEXT, "what went wrong, redacted"),
        _column("correlation_id", TEXT, "X-Correlation-Id that we sent with the last attempt"),
        _column("server_correlation_id", TEXT, "correlation id in the API's error body"),
        _required("attempts", COUNT, "HTTP requests made for the scope; 0 when skipped"),
        _required("duration_ms", COUNT, "milliseconds over all attempts and the waits between them"),
        _column("license_count", COUNT, "rows in the answer; null when the scope was not read"),
        _OBSERVED_AT,
        _LOAD_ID,
    ),
)
RUNS = Table(
    "runs",
    "a run",
    "Each run of the load: when, over which list, with which result.",
    ("run_id",),
    "merge",
    (
        _required("run_id", TEXT, "start time in UTC and a random part"),
        _TENANT,
        _required("started_at", TIME, "start of the run"),
        _column("finished_at", TIME, "end of the run; null while it runs, or when it was killed"),
        _required("status", TEXT, "running, complete, partial, guarded, interrupted or failed"),
        _required("base_url", TEXT, "address of the API"),
        _required("scopes_hash", TEXT, "hash over the set of scopes listed"),
        _required("listing_complete", FLAG, "whether the run went over the full list"),
        _column(
            "shard",
            TEXT,
            "part of the list that the run read, such as 3/16; finish: the run that ended shards; null for others",
        ),
        _column("list_begun_at", TIME, "of a run that ended shards, when the first of them began; null for others"),
        _column(
            "customers_listed",
            COUNT,
            "customers, deleted ones left out, of a listing read to its end; null without one, and in older runs",
        ),
        _required("scopes_total", COUNT, "scopes in the list, after merging duplicates"),
        *(_required(f"scopes_{outcome}", COUNT, f"scopes with outcome {outcome}") for outcome in OUTCOMES),
        _column(
            "unlisted_quarantined",
            COUNT,
            "scopes with licences that left the list and that the drop guard held back; null in older runs",
        ),
        _required("license_rows", COUNT, "licence rows read"),
        _required("requests", COUNT, "HTTP requests to the API"),
        _required("throttled", COUNT, "of these, answered with 429"),
        _column("peak_concurrency", COUNT, "most requests at a time; null when none was made"),
        _column(
            "final_concurrency", COUNT, "requests at a time that the pace allowed at the end; null when none was made"
        ),
        _required("version", TEXT, "version of this package"),
        _LOAD_ID,
    ),
)
REJECTED_ROWS = Table(
    "rejected_rows",
    "a row of an answer that does not fit",
    "Rows that could not be taken; their scope is failed and keeps its last good rows.",
    ("run_id", "scope_key", "position"),
    "merge",
    (
        _RUN_ID,
        *_SCOPE,
        _required("position", COUNT, "place of the row in the answer, from 0"),
        _required("reason", TEXT, "why it does not fit"),
        _required("raw", TEXT, "the row as JSON, redacted"),
        _OBSERVED_AT,
        _LOAD_ID,
    ),
)

_ID = "CloudCockpit id, lower case"
# how long a listing has held an object, and what wrote the row
_LISTED = (
    _required("first_seen_at", TIME, "when a listing first held it"),
    _column(
        "removed_at",
        TIME,
        "when a complete listing first came without it, or told that it is deleted; null while it is",
    ),
    _RUN_ID,
    _LOAD_ID,
)
_CONTACT = tuple(
    _column(name, TEXT, f"{text}; null unless contact_data is set")
    for name, text in (
        ("address_line1", "address"),
        ("address_line2", "address"),
        ("city", "city"),
        ("state", "state"),
        ("zip", "postal code"),
        ("first_name", "first name of the contact"),
        ("middle_name", "middle name of the contact"),
        ("last_name", "last name of the contact"),
        ("email", "mail address of the contact"),
        ("phone", "telephone number of the contact"),
        ("tax_id", "tax id"),
    )
)
CONTACT_COLUMNS = tuple(column.name for column in _CONTACT)

CUSTOMERS = Table(
    "customers",
    "a customer",
    "Every customer that discovery ever saw.",
    ("tenant", "id"),
    "merge",
    (
        _TENANT,
        _required("id", TEXT, _ID),
        _column("company_name", TEXT, "name of the company"),
        _column("country", TEXT, "ISO 3166-1 alpha-2"),
        _column("reseller_id", TEXT, "reseller of the customer; null for a direct relation with the CSP"),
        _column("internal_identifier", TEXT, "the CSP's own identifier"),
        _column("provider_customers", TEXT, "JSON object: provider instance id to the customer's id at the provider"),
        *_CONTACT,
        *_LISTED,
    ),
)
PROVIDER_INSTANCES = Table(
    "provider_instances",
    "a provider instance",
    "Every provider instance that discovery ever saw.",
    ("tenant", "id"),
    "merge",
    (
        _TENANT,
        _required("id", TEXT, _ID),
        _column("alias", TEXT, "its name in CloudCockpit"),
        _column("instance_provider_id", TEXT, "its id at the provider; for Microsoft the CSP's own tenant id"),
        _column("provider", TEXT, "JSON of the provider as the API gives it, redacted"),
        _column("is_microsoft", FLAG, "whether it is Microsoft's; null where the answers do not tell"),
        *_LISTED,
    ),
)
RESELLERS = Table(
    "resellers",
    "a reseller",
    "Every reseller that discovery ever saw.",
    ("tenant", "id"),
    "merge",
    (
        _TENANT,
        _required("id", TEXT, _ID),
        _column("company_name", TEXT, "name of the company"),
        _column("country", TEXT, "ISO 3166-1 alpha-2"),
        _column("internal_identifier", TEXT, "the CSP's own identifier"),
        *_CONTACT,
        *_LISTED,
    ),
)
GDAP_RELATIONSHIPS = Table(
    "gdap_relationships",
    "a GDAP relationship of a customer in a provider instance",
    "Delegated admin relationships, where gdap_relationships is set.",
    ("tenant", "customer_id", "provider_instance_id", "relationship_id"),
    "merge",
    (
        _TENANT,
        _required("customer_id", TEXT, _ID),
        _required("provider_instance_id", TEXT, _ID),
        _required("relationship_id", TEXT, "id of the relationship"),
        _column("display_name", TEXT, "its name"),
        _column("status", TEXT, "its status as the API gives it; null on older answers"),
        _column("duration", TEXT, "ISO 8601 duration"),
        _column("auto_extend_duration", TEXT, "ISO 8601 duration by which it is extended"),
        *_LISTED,
    ),
)

SKU_PRICES = Table(
    "sku_prices",
    "a price of a SKU from a day on",
    "The price list that `price_list` names; empty without one.",
    ("tenant", "sku_id", "valid_from"),
    "tenant delete-insert",
    (
        _TENANT,
        _SKU_ID,
        _required("unit_price", PRICE, "price of one seat, as the list gives it; 0 is a price"),
        _required("currency", TEXT, "ISO 4217 code, upper case; one for all prices of a SKU"),
        _required("valid_from", DAY, "first day on which the price holds, until the next one of the SKU"),
        _LOAD_ID,
    ),
)
SKU_CATALOG = Table(
    "sku_catalog",
    "a SKU in Microsoft's table of product names",
    "Microsoft's product names, from the table that `sku_catalog` names; empty without one.",
    ("tenant", "sku_id"),
    "tenant delete-insert",
    (
        _TENANT,
        _required("sku_id", TEXT, "Microsoft product SKU, lower case"),
        _column("part_number", TEXT, "Microsoft's String_Id, such as SPE_E3"),
        _column("official_name", TEXT, "the name on most lines of the SKU, of several the first in the table"),
        _column("other_names", TEXT, "JSON list of its other names, in the order of the table; null for none"),
        _required("service_plans", COUNT, "service plans in the SKU"),
        _LOAD_ID,
    ),
)
SKU_SERVICE_PLANS = Table(
    "sku_service_plans",
    "a service plan in a SKU",
    "The service plans of each SKU, from the same table as sku_catalog.",
    ("tenant", "sku_id", "service_plan_id"),
    "tenant delete-insert",
    (
        _TENANT,
        _required("sku_id", TEXT, "Microsoft product SKU, lower case"),
        _required("service_plan_id", TEXT, "Microsoft's id of the service plan, lower case"),
        _column("service_plan_name", TEXT, "Microsoft's technical name of the plan, such as EXCHANGE_S_ENTERPRISE"),
        _column("friendly_name", TEXT, "its name for people"),
        _LOAD_ID,
    ),
)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        LICENSES,
        LICENSE_HISTORY,
        SCOPES,
        SCOPE_RUNS,
        RUNS,
        REJECTED_ROWS,
        CUSTOMERS,
        PROVIDER_INSTANCES,
        RESELLERS,
        GDAP_RELATIONSHIPS,
    )
}
# filled by discovery, not from the outcomes of scopes
LISTED_TABLES = (CUSTOMERS, PROVIDER_INSTANCES, RESELLERS, GDAP_RELATIONSHIPS)
# filled by what users supply, in runs of their own
REFERENCE_TABLES: Mapping[str, Table] = {table.name: table for table in (SKU_PRICES, SKU_CATALOG, SKU_SERVICE_PLANS)}
