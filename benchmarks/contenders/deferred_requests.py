"""The same load with `@dlt.defer`: `python deferred_requests.py PROJECT_FOLDER DATABASE [LOADER_FILE_FORMAT]`.

What a dlt user writes who leaves `rest_api` because of its pace: a resource that yields one deferred call per scope,
read by `requests` on 64 extract threads with a session each, so that connections are kept. `licenses` is merged by
scope (delete-insert on one scope column, since dlt joins compound merge keys without a separator), and a transformer
on the same answers keeps `license_history` as scd2. A call that fails ends the load; nothing is paced or resumed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import requests
from counting_adapter import CountingAdapter
from sandbox_project import SandboxProject, Scope, read_project

SETTINGS = {
    "EXTRACT__WORKERS": "64",
    "EXTRACT__MAX_PARALLEL_ITEMS": "128",
    "NORMALIZE__WORKERS": "1",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}
TIMEOUT_SECONDS = 60

Rows = list[dict[str, Any]]


class LicenseReader:
    """Reads scopes from any thread, with one session per thread."""

    def __init__(self, project: SandboxProject) -> None:
        self.adapter = CountingAdapter(int(SETTINGS["EXTRACT__WORKERS"]))
        self._project = project
        self._threads = threading.local()
        self._headers = {"X-Tenant": project.tenant, "Authorization": f"Bearer {self._sign_in()}"}

    def read(self, scope: Scope) -> Rows:
        """The licence rows of a scope, with its ids on each."""
        url = f"{self._project.base_url}/v1/Customers/{scope.customer_id}/licenses"
        response = self._session().get(url, params=scope.query(), headers=self._headers, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        ids = {
            "scope_key": scope.key,
            "customer_id": scope.customer_id,
            "provider_instance_id": scope.provider_instance_id,
            "reseller_id": scope.reseller_id,
        }
        return [ids | row for row in response.json()]

    def _sign_in(self) -> str:
        form = self._project.token_form()
        response = self._session().post(self._project.token_url, data=form, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        token: str = response.json()["access_token"]
        return token

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.mount(self._project.base_url, self.adapter)
        return session


@dlt.source(name="deferred")
def license_source(project: SandboxProject, reader: LicenseReader) -> Iterator[Any]:
    """The two tables, from one call per scope."""

    @dlt.defer
    def read(scope: Scope) -> Rows:
        return reader.read(scope)

    @dlt.resource(merge_key="scope_key", write_disposition={"disposition": "merge", "strategy": "delete-insert"})
    def licenses() -> Iterator[Callable[[], Rows]]:
        for scope in project.scopes:
            yield read(scope)

    @dlt.transformer(merge_key="scope_key", write_disposition={"disposition": "merge", "strategy": "scd2"})
    def license_history(rows: Rows) -> Rows:
        return rows

    yield licenses
    yield licenses | license_history


def main() -> None:
    """Load, and print what was loaded."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    folder, database, file_format = [*sys.argv[1:], None][:3]
    project = read_project(Path(folder))
    reader = LicenseReader(project)
    pipeline = dlt.pipeline(
        "deferred_requests", destination=dlt.destinations.duckdb(database), dataset_name="inventory"
    )
    pipeline.run(license_source(project, reader), loader_file_format=file_format)
    rows = pipeline.last_trace.last_normalize_info.row_counts["licenses"]
    print(json.dumps({"scopes": len(project.scopes), "rows": rows, "requests": reader.adapter.requests}))


if __name__ == "__main__":
    main()
