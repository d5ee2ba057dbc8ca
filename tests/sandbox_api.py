"""A client of the sandbox's API for its tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests

from cockpit_source.sandbox import CSP_CLIENT, ApiClient, Sandbox, SandboxTenant

TENANT = SandboxTenant()
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
PAGE_MEMBERS = {
    "items",
    "paginationParameters",
    "totalPages",
    "totalCount",
    "hasPreviousPage",
    "hasNextPage",
    "continuationToken",
}

Row = dict[str, Any]


class Api:
    """Calls to one sandbox as one client, signed in."""

    def __init__(self, sandbox: Sandbox, client: ApiClient = CSP_CLIENT) -> None:
        self._base_url = sandbox.base_url
        self._session = requests.Session()
        self._session.headers.update(
            {"Authorization": f"Bearer {sandbox.tokens.issue(client)}", "X-Tenant": sandbox.tenant.domain}
        )

    def call(
        self, path: str, method: str = "GET", correlation_id: str | None = None, **query: Any
    ) -> requests.Response:
        """The answer of `/v1/` + path."""
        headers = {"X-Correlation-Id": correlation_id}
        return self._session.request(method, f"{self._base_url}/v1/{path}", params=query, headers=headers, timeout=5)

    def json(self, path: str, **query: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.call(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, path: str, method: str = "GET", **query: Any) -> tuple[int, bool]:
        """Status, and whether there is a body."""
        answer = self.call(path, method, **query)
        return answer.status_code, bool(answer.content)

    def wrong_parameters(self, path: str, method: str = "GET", **query: Any) -> list[str]:
        """What the error body of a 400 names."""
        answer = self.call(path, method, **query)
        assert answer.status_code == answer.json()["statusCode"] == 400
        return [error["propertyName"] for error in answer.json()["errors"]]

    def pages(self, path: str, size: int, **query: Any) -> Iterator[Row]:
        """Pages as a naive reader walks them: until there is no next one."""
        number, has_next = 1, True
        while has_next:
            page = self.json(path, pageNumber=number, pageSize=size, **query)
            assert page.keys() == PAGE_MEMBERS
            yield page
            number, has_next = number + 1, page["hasNextPage"]

    def rows(self, path: str, size: int = 2000, **query: Any) -> list[Row]:
        """The items of all pages."""
        return [item for page in self.pages(path, size, **query) for item in page["items"]]


def quiet_customer_ids(sandbox: Sandbox) -> list[str]:
    """Customers to whom nothing happens."""
    return [customer.id for customer in sandbox.tenant.customers if not customer.script]
