"""The same load with dlt's `rest_api`: `python rest_api_source.py PROJECT_FOLDER DATABASE [LOADER_FILE_FORMAT]`.

What a dlt user writes first: a list of scopes, and a dependent resource with one call per scope. It has 32 extract
workers and is `parallelized`, without which the calls run one after another. Sign-in is dlt's own client credentials.
`licenses` is merged by scope (delete-insert on one scope column, since dlt joins compound merge keys without a
separator), and a transformer on the same answers keeps `license_history` as scd2. The ids of the scope come by
`include_from_parent`, so their columns are called `_scopes_customer_id` and so on. A scope without a reseller is
asked for with an empty `resellerId`, because the source cannot leave a parameter out of some of its calls.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import dlt
import requests
from counting_adapter import CountingAdapter
from dlt.extract import DltResource, DltSource
from dlt.sources.helpers.requests import Client
from dlt.sources.helpers.rest_client.auth import OAuth2ClientCredentials
from dlt.sources.rest_api import RESTAPIConfig, rest_api_source
from sandbox_project import SandboxProject, read_project

SETTINGS = {
    "EXTRACT__WORKERS": "32",
    "EXTRACT__MAX_PARALLEL_ITEMS": "64",
    "NORMALIZE__WORKERS": "1",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}
_SCOPE_KEY = "_scopes_scope_key"


def license_source(project: SandboxProject, session: requests.Session) -> DltSource:
    """The two tables, from one call per scope."""
    config: RESTAPIConfig = {
        "client": {
            "base_url": project.base_url,
            "headers": {"X-Tenant": project.tenant},
            "auth": _credentials(project, session),
            "paginator": "single_page",
            "session": session,
        },
        "resources": [
            _scopes(project),
            {
                "name": "licenses",
                "parallelized": True,
                "include_from_parent": ["scope_key", "customer_id", "provider_instance_id", "reseller_id"],
                "merge_key": _SCOPE_KEY,
                "write_disposition": {"disposition": "merge", "strategy": "delete-insert"},
                "endpoint": {
                    "path": "/v1/Customers/{resources.scopes.customer_id}/licenses",
                    "params": {
                        "providerInstanceId": "{resources.scopes.provider_instance_id}",
                        "resellerId": "{resources.scopes.reseller_parameter}",
                    },
                    "data_selector": "$",
                },
            },
        ],
    }
    source = rest_api_source(config)
    source.resources["license_history"] = _history(source.licenses)
    return source


def _credentials(project: SandboxProject, session: requests.Session) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials(
        access_token_url=project.token_url,
        client_id=project.client_id,
        client_secret=project.client_secret,
        access_token_request_data={"scope": project.token_scope},
        session=session,
    )


def _scopes(project: SandboxProject) -> DltResource:
    rows = [
        {
            "scope_key": scope.key,
            "customer_id": scope.customer_id,
            "provider_instance_id": scope.provider_instance_id,
            "reseller_id": scope.reseller_id,
            "reseller_parameter": scope.reseller_id or "",
        }
        for scope in project.scopes
    ]
    return dlt.resource([rows], name="scopes", selected=False)


def _history(licenses: DltResource) -> DltResource:
    @dlt.transformer(
        data_from=licenses,
        merge_key=_SCOPE_KEY,
        write_disposition={"disposition": "merge", "strategy": "scd2"},
    )
    def license_history(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return rows

    return license_history


def main() -> None:
    """Load, and print what was loaded."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    folder, database, file_format = [*sys.argv[1:], None][:3]
    project = read_project(Path(folder))
    adapter = CountingAdapter(int(os.environ["EXTRACT__WORKERS"]))
    session = Client(raise_for_status=False).session
    session.mount(project.base_url, adapter)
    pipeline = dlt.pipeline(
        "rest_api_source", destination=dlt.destinations.duckdb(database), dataset_name="inventory"
    )
    pipeline.run(license_source(project, session), loader_file_format=file_format)
    rows = pipeline.last_trace.last_normalize_info.row_counts["licenses"]
    print(json.dumps({"scopes": len(project.scopes), "rows": rows, "requests": adapter.requests}))


if __name__ == "__main__":
    main()
