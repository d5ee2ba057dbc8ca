"""The floor: the same two tables without dlt and without safety, `python floor_aiohttp.py PROJECT_FOLDER DATABASE`.

64 requests at a time on one event loop, answers parsed by orjson, one Arrow table, and one DuckDB transaction that
replaces the rows of every scope read and keeps the versions of a row by their hash. It retries nothing, judges
nothing, records no outcome, holds everything in memory, and one failed call ends it: what is left is what the calls
and the two tables cost at least.

Choices: `aiohttp` with its C parser; uvloop was tried and changed nothing, because 20 ms of latency on 64 connections
bounds the calls; columns are built one by one, which takes half the time of rows; hashes are made by DuckDB.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import orjson
import pyarrow as pa
from sandbox_project import SandboxProject, Scope, read_project

CONNECTIONS = 64

_COLUMNS = {
    "sku_id": ("skuId", pa.string()),
    "sku_name": ("name", pa.string()),
    "total_licenses": ("totalLicenses", pa.int64()),
    "consumed_licenses": ("consumedLicenses", pa.int64()),
    "available_licenses": ("availableLicenses", pa.int64()),
    "suspended_licenses": ("suspendedLicenses", pa.int64()),
    "is_selected": ("isSelected", pa.bool_()),
}
_LOAD = """
CREATE TABLE IF NOT EXISTS licenses AS FROM answered LIMIT 0;
CREATE TABLE IF NOT EXISTS license_history AS
    SELECT *, '' AS row_hash, now() AS valid_from, now() AS valid_to FROM answered LIMIT 0;
BEGIN;
DELETE FROM licenses WHERE scope_key IN (SELECT scope_key FROM scopes);
INSERT INTO licenses FROM answered;
CREATE TEMP TABLE staged AS
    SELECT *, md5(concat_ws('|', scope_key, sku_id, sku_name, total_licenses, consumed_licenses,
                            available_licenses, suspended_licenses)) AS row_hash
    FROM answered;
UPDATE license_history SET valid_to = now()
    WHERE valid_to IS NULL AND scope_key IN (SELECT scope_key FROM scopes)
    AND row_hash NOT IN (SELECT row_hash FROM staged);
INSERT INTO license_history
    SELECT *, now(), NULL FROM staged
    WHERE row_hash NOT IN (SELECT row_hash FROM license_history WHERE valid_to IS NULL);
COMMIT;
"""

Answer = list[dict[str, Any]]


class Fetcher:
    """Reads every scope of a project; `requests` counts what it sent, the sign-in included."""

    def __init__(self, project: SandboxProject) -> None:
        self.requests = 0
        self._project = project

    async def fetch(self) -> list[tuple[Scope, Answer]]:
        """Each scope with its rows, in the order of the answers."""
        answers: list[tuple[Scope, Answer]] = []
        remaining = iter(self._project.scopes)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:
            headers = {"X-Tenant": self._project.tenant, "Authorization": f"Bearer {await self._sign_in(session)}"}
            async with asyncio.TaskGroup() as workers:
                for _ in range(CONNECTIONS):
                    workers.create_task(self._work(session, headers, remaining, answers))
        return answers

    async def _sign_in(self, session: aiohttp.ClientSession) -> str:
        self.requests += 1
        async with session.post(self._project.token_url, data=self._project.token_form()) as response:
            token: str = (await response.json())["access_token"]
            return token

    async def _work(
        self,
        session: aiohttp.ClientSession,
        headers: dict[str, str],
        remaining: Iterator[Scope],
        answers: list[tuple[Scope, Answer]],
    ) -> None:
        for scope in remaining:
            self.requests += 1
            url = f"{self._project.base_url}/v1/Customers/{scope.customer_id}/licenses"
            async with session.get(url, params=scope.query(), headers=headers) as response:
                answers.append((scope, orjson.loads(await response.read())))


def to_tables(answers: list[tuple[Scope, Answer]]) -> tuple[pa.Table, pa.Table]:
    """The scopes that were read, and their licence rows."""
    scopes = pa.table(
        {
            "scope_key": [scope.key for scope, _ in answers],
            "customer_id": [scope.customer_id for scope, _ in answers],
            "provider_instance_id": [scope.provider_instance_id for scope, _ in answers],
            "reseller_id": pa.array([scope.reseller_id for scope, _ in answers], pa.string()),
        }
    )
    rows = list(chain.from_iterable(items for _, items in answers))
    table = scopes.take([number for number, (_, items) in enumerate(answers) for _ in items])
    for name, (field, type_) in _COLUMNS.items():
        table = table.append_column(name, pa.array([row[field] for row in rows], type_))
    return scopes, table


def main() -> None:
    """Load, and print what was loaded."""
    project = read_project(Path(sys.argv[1]))
    fetcher = Fetcher(project)
    scopes, answered = to_tables(asyncio.run(fetcher.fetch()))
    with duckdb.connect(sys.argv[2]) as connection:
        connection.register("scopes", scopes)
        connection.register("answered", answered)
        connection.execute(_LOAD)
    print(json.dumps({"scopes": scopes.num_rows, "rows": answered.num_rows, "requests": fetcher.requests}))


if __name__ == "__main__":
    main()
