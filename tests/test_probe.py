"""`cockpit check --probe` over real HTTP: what it reads, what it finds, and that nothing private gets out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from support import INSTANCE, Inventory, ScopeIds, new_id, sku

import cockpit_source.sandbox.server as sandbox_server
from cockpit_source.cli import main
from cockpit_source.probe.report import to_json
from cockpit_source.probe.run import ProbeReport, run_probe
from cockpit_source.sandbox import CSP_CLIENT, RESELLER_CLIENT, TOKEN_SCOPE, Sandbox, running_sandbox
from cockpit_source.scope_list import write_scope_list
from cockpit_source.scopes import Scope
from cockpit_source.version import __version__

A: ScopeIds = (new_id(1), INSTANCE, None)
B: ScopeIds = (new_id(2), INSTANCE, None)
RESELLER, OTHER = new_id(900), new_id(901)
UUIDS = [new_id(number) for number in range(100, 110)]
CUSTOMERS, INSTANCES, RESELLERS = "/v1/customers", "/v1/providers/instances", "/v1/resellers"

Told = dict[str, tuple[str, dict[str, Any]]]


class Front:
    """Stands before a sandbox: answers what is scripted here, and adds headers to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.headers: dict[str, str] = {}
        self.script: Callable[[str, Mapping[str, str]], Any] = lambda _path, _query: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = {name: values[-1] for name, values in parse_qs(scope.get("query_string", b"").decode()).items()}
        answer = self.script(scope.get("path", "").lower(), query)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in self.headers.items()]
                message = message | {"headers": [*message["headers"], *added]}
            await send(message)

        if answer is None:
            await self.app(scope, receive, send_with_headers)
            return
        headers = [(b"content-type", b"application/json")]
        await send_with_headers({"type": "http.response.start", "status": 200, "headers": headers})
        await send_with_headers({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterable[tuple[Front, Sandbox]]:
    fronts: list[Front] = []
    create_app = sandbox_server.create_app

    def create_with_front(sandbox: Sandbox) -> Any:
        fronts.append(Front(create_app(sandbox)))
        return fronts[-1]

    monkeypatch.setattr(sandbox_server, "create_app", create_with_front)
    with running_sandbox() as sandbox:
        yield fronts[0], sandbox


def probe(inventory: Inventory, ids: list[ScopeIds], max_calls: int = 60, **settings: Any) -> ProbeReport:
    resolved = inventory.resolve(ids, **settings)
    folder = inventory.database.parent / "list"
    folder.mkdir(exist_ok=True)
    listed = write_scope_list(folder, resolved.tenant_key, [Scope(*one) for one in ids])
    return run_probe(resolved, listed, max_calls=max_calls)


def told(report: ProbeReport, topic: str) -> Told:
    """Verdict and evidence of every question of a topic."""
    return {one.question: (one.verdict, one.evidence) for one in report.findings if one.topic == topic}


# --- what is read ----------------------------------------------------------------------------------------------


def test_probe_reads_scopes_and_their_pairs_and_changes_nothing(inventory: Inventory) -> None:
    sandbox = inventory.sandbox
    scopes = list(sandbox.tenant.scopes(0))
    report = probe(inventory, scopes)
    counts = sandbox.call_counts()
    own = {ids for ids in counts if ids in scopes}
    resold = {ids for ids in own if ids[2]}
    assert len(own) == 20
    assert set(counts) == own | {(customer, instance, None) for customer, instance, _ in resold}
    assert {(request.method, request.path.endswith("/licenses")) for request in sandbox.requests} == {
        ("GET", True),
        ("POST", False),
    }
    # and one with an invalid token
    assert report.calls == counts.total() == 20 + len(resold) + 1
    assert (report.exit_code, report.max_calls, report.host) == (0, 60, sandbox.base_url.removeprefix("http://"))
    end = {
        "calls": report.calls,
        "at_most": 60,
        "scopes": 20,
        "customers": 20,
        "with_reseller": len(resold),
        "read_for_comparison": len(resold),
    }
    assert told(report, "probe") == {"ran to its end": ("yes", end)}


def test_scopes_are_numbered_with_what_became_of_them(inventory: Inventory) -> None:
    resold, refused, gone = (new_id(1), INSTANCE, RESELLER), (new_id(2), INSTANCE, None), (new_id(3), INSTANCE, None)
    inventory.answer(new_id(1), [sku(UUIDS[0])])
    inventory.answer(new_id(2), [], status=403)
    inventory.sandbox.faults.for_customer(new_id(1), "throttle_bare", times=1)
    usual = {"without_reseller": [], "under_other_resellers": {}, "has_reseller": False, "attempts": 1}
    assert told(probe(inventory, [resold, refused, gone], max_attempts=2), "scopes") == {
        "scope 1": (
            "ok",
            usual | {"http_status": 200, "attempts": 2, "has_reseller": True, "without_reseller": ["ok"]},
        ),
        "scope 2": ("forbidden", usual | {"http_status": 403}),
        "scope 3": ("not_found", usual | {"http_status": 404}),
    }


def test_probe_stops_at_its_last_call(inventory: Inventory) -> None:
    scopes = list(inventory.sandbox.tenant.scopes(0))
    report = probe(inventory, scopes, max_calls=7)
    assert report.calls == inventory.sandbox.call_counts().total() == 7
    verdict, evidence = told(report, "probe")["ran to its end"]
    assert (verdict, evidence["calls"], evidence["scopes"]) == ("no: it had made 7 calls", 7, 7)
    assert report.exit_code == 0


def test_retries_count_as_calls(inventory: Inventory) -> None:
    inventory.sandbox.faults.for_customer(A[0], "error_500")
    report = probe(inventory, [A, B], max_calls=2, max_attempts=9)
    assert report.calls == inventory.sandbox.call_counts().total() == 2
    assert told(report, "scopes")["scope 1"][1]["attempts"] == 2


def test_refused_sign_in_ends_the_probe_with_what_was_seen(inventory: Inventory) -> None:
    inventory.answer(A[0], [sku(UUIDS[0])])
    inventory.sandbox.faults.for_customer(B[0], "expired_token")
    report = probe(inventory, [A, B, (new_id(3), INSTANCE, None)])
    assert report.exit_code == 5
    assert told(report, "probe")["ran to its end"][0] == "no: sign-in was refused"
    assert list(told(report, "scopes")) == ["scope 1"]
    assert told(report, "error bodies")["body of 401"][1]["replies"] == 2
    assert report.calls == 3


# --- what is found ---------------------------------------------------------------------------------------------


def test_plain_rows_are_told_whole(inventory: Inventory) -> None:
    inventory.answer(A[0], [sku(UUIDS[0]), sku(UUIDS[1], 5, 7), sku(UUIDS[2], suspendedLicenses=3)])
    inventory.answer(B[0], [sku(UUIDS[0])])
    report = probe(inventory, [A, B])
    seen = {"answers": 2, "rows": 4}
    nulls = ("never", {"rows": 4, "null": 0, "missing": 0})
    fields = ("totalLicenses", "consumedLicenses", "availableLicenses", "suspendedLicenses")
    assert {topic: told(report, topic) for topic in ("SKU id", "SKU name", "counts", "totals", "row", "answer")} == {
        "SKU id": {
            "format": (
                "lower-case UUID",
                seen | {"formats": {"lower-case UUID": 4}, "with_blanks_around": 0, "shapes_of_other_text": {}},
            ),
            "comes twice in an answer": (
                "never",
                seen | {"answers_with_one": 0, "skus_repeated": 0, "of_these_with_equal_rows": 0},
            ),
        },
        "SKU name": {
            "null, blank or missing": ("never", seen | {"values": {"text": 4}}),
            "differs between answers for one SKU": (
                "never",
                {"skus": 3, "skus_in_several_answers": 1, "with_several_names": 0},
            ),
        },
        "counts": {f"{field} is null or missing": nulls for field in fields}
        | {
            "not whole": ("never", {"counts": 16, "types": {}}),
            "negative": ("mixed", {"counts": 16, "fields": {"availableLicenses": 1}}),
        },
        "totals": {
            "available = total - consumed": ("always", {"rows": 4, "holds": 4}),
            "consumed <= total": ("mixed", {"rows": 4, "holds": 3}),
            "where suspended > 0: total = consumed + available": ("always", {"rows": 1, "holds": 1}),
            "where suspended > 0: total = consumed + available + suspended": ("never", {"rows": 1, "holds": 0}),
            "where suspended > 0: suspended > total, so total leaves them out": ("never", {"rows": 1, "holds": 0}),
        },
        "row": {
            "isSelected": ("always false", seen | {"values": {"false": 4}}),
            "has fields that the contract does not know": ("never", seen | {"names": {}}),
            "lacks fields that the contract names": ("never", seen | {"missing": {}}),
        },
        "answer": {
            "shape of the body": (
                "bare array",
                {
                    "answers": 2,
                    "shapes": {"bare array": 2},
                    "saying_that_a_page_follows": 0,
                    "other_members": {},
                },
            ),
            "empty": ("never", {"answers": 2, "empty": 0}),
            "has rows that are no objects": ("never", {"rows": 4, "no_objects": 0}),
            "rows are sorted": (
                _order(UUIDS[:3]),
                {
                    "answers_of_three_rows_or_more": 1,
                    "by_sku_id": int(UUIDS[:3] == sorted(UUIDS[:3])),
                    "by_name": int(UUIDS[:3] == sorted(UUIDS[:3])),
                },
            ),
        },
    }


def _order(skus: list[str]) -> str:
    return "always by SKU id" if skus == sorted(skus) else "never"


def test_odd_rows_are_told_whole(inventory: Inventory) -> None:
    rows: list[Any] = [
        sku(UUIDS[0], name="One"),
        sku(UUIDS[0], name="One"),
        sku(UUIDS[0].upper(), 3, name="Two"),
        sku(" CFQ7TTC0LGZT:0001 ", name=None),
        sku("", totalLicenses=None, isSelected=True),
        sku("é", totalLicenses=1.5, consumedLicenses="7", availableLicenses=2.0, name=" "),
        {"skuId": 7, "productId": UUIDS[1], "isSelected": None},
        sku(UUIDS[1][:9] + UUIDS[1][9:].upper(), isSelected="yes", **{"a@b.example": 1, UUIDS[5]: {}}),
        "no object",
    ]
    inventory.answer(A[0], {"items": rows, "hasNextPage": True, "nextLink": "x"})
    inventory.answer(B[0], [])
    report = probe(inventory, [A, B])
    seen = {"answers": 2, "rows": 8}
    formats = {
        "lower-case UUID": 2,
        "upper-case UUID": 1,
        "other text": 2,
        "blank": 1,
        "integer": 1,
        "mixed-case UUID": 1,
    }
    shapes = {" AAA9AAA9AAAA:9999 ": 1, "?": 1}
    assert told(report, "SKU id") == {
        "format": (
            "mixed",
            seen | {"formats": formats, "with_blanks_around": 1, "shapes_of_other_text": shapes},
        ),
        "comes twice in an answer": (
            "always",
            seen | {"answers_with_one": 1, "skus_repeated": 1, "of_these_with_equal_rows": 0},
        ),
    }
    assert told(report, "SKU name") == {
        "null, blank or missing": ("mixed", seen | {"values": {"text": 5, "null": 2, "blank": 1}}),
        "differs between answers for one SKU": (
            "not seen",
            {"skus": 4, "skus_in_several_answers": 0, "with_several_names": 0},
        ),
    }
    assert told(report, "counts") == {
        "totalLicenses is null or missing": ("mixed", {"rows": 8, "null": 1, "missing": 1}),
        "consumedLicenses is null or missing": ("mixed", {"rows": 8, "null": 0, "missing": 1}),
        "availableLicenses is null or missing": ("mixed", {"rows": 8, "null": 0, "missing": 1}),
        "suspendedLicenses is null or missing": ("mixed", {"rows": 8, "null": 0, "missing": 1}),
        "not whole": ("mixed", {"counts": 27, "types": {"number": 2, "text": 1}}),
        "negative": ("mixed", {"counts": 24, "fields": {"availableLicenses": 1}}),
    }
    names = {
        "[name of 11 characters withheld]": {"integer": 1},
        "[name of 36 characters withheld]": {"object": 1},
        "productId": {"text": 1},
    }
    lacking = dict.fromkeys(
        ("availableLicenses", "consumedLicenses", "name", "suspendedLicenses", "totalLicenses"), 1
    )
    assert told(report, "row") == {
        "isSelected": ("mixed", seen | {"values": {"false": 5, "true": 1, "null": 1, "text": 1}}),
        "has fields that the contract does not know": ("mixed", seen | {"names": names}),
        "lacks fields that the contract names": ("mixed", seen | {"missing": lacking}),
    }
    answers = told(report, "answer")
    assert answers["shape of the body"] == (
        "mixed",
        {
            "answers": 2,
            "shapes": {"object with items": 1, "bare array": 1},
            "saying_that_a_page_follows": 1,
            "other_members": {"nextLink": {"text": 1}},
        },
    )
    assert answers["empty"] == ("mixed", {"answers": 2, "empty": 1})
    assert answers["has rows that are no objects"] == ("mixed", {"rows": 9, "no_objects": 1})


@pytest.mark.parametrize(
    ("plain", "resold", "verdict", "results"),
    [
        ([sku("x", 5), sku("y", 6)], [sku("y", 6), sku("x", 5)], "equal", {"equal": 1}),
        ([sku("x", 5)], [sku("x", 5, 0)], "equal totals, other counts differ", None),
        ([sku("x", 5), sku("y", 6), sku("z", 1)], [sku("y", 4), sku("x", 5)], "part", {"part": 1}),
        ([sku("x", 5)], [], "empty under the reseller", None),
        ([sku("x", 5)], [sku("x", 6)], "other", {"other": 1}),
        ([sku("x", 5)], [sku("z", 1)], "other", {"other": 1}),
        ([], [], "not seen", {"both empty": 1}),
    ],
)
def test_rows_under_a_reseller_are_compared_with_those_without(
    front: tuple[Front, Sandbox],
    tmp_path: Path,
    plain: list[Any],
    resold: list[Any],
    verdict: str,
    results: dict[str, int] | None,
) -> None:
    front[0].script = lambda path, query: (resold if "resellerId" in query else plain) if "licenses" in path else None
    report = probe(Inventory(front[1], tmp_path / "x.duckdb"), [(new_id(1), INSTANCE, RESELLER)])
    assert told(report, "reseller")["rows under a reseller, against the rows without"] == (
        verdict,
        {"pairs_tried": 1, "results": results or {verdict: 1}},
    )


def test_rows_of_several_resellers_are_added_up(front: tuple[Front, Sandbox], tmp_path: Path) -> None:
    answers = {None: [sku("x", 5), sku("y", 6)], RESELLER: [sku("x", 2), sku("y", 6)], OTHER: [sku("x", 3)]}
    front[0].script = lambda path, query: answers.get(query.get("resellerId")) if "licenses" in path else None
    scopes: list[ScopeIds] = [(new_id(1), INSTANCE, reseller) for reseller in (RESELLER, OTHER)]
    question = "rows of several resellers add up to the rows without"
    evidence = {"pairs_with_several_resellers": 1, "compared": 1, "equal": 1}
    inventory = Inventory(front[1], tmp_path / "x.duckdb")
    assert told(probe(inventory, scopes), "reseller")[question] == ("always", evidence)
    answers[None] = [sku("x", 5), sku("y", 7)]
    assert told(probe(inventory, scopes), "reseller")[question] == ("never", evidence | {"equal": 0})


def test_reseller_that_is_refused_is_not_compared(inventory: Inventory) -> None:
    tenant = inventory.sandbox.tenant
    customer = next(one for one in tenant.customers if one.reseller_id and one.has_gdap and not one.script)
    stranger = next(one.id for one in tenant.resellers if one.id != customer.reseller_id)
    report = probe(inventory, [(customer.id, customer.provider_instance_ids[0], stranger)], max_attempts=2)
    assert told(report, "reseller")["rows under a reseller, against the rows without"] == (
        "not seen",
        {"pairs_tried": 1, "results": {"reseller forbidden, without ok": 1}},
    )


def test_refusals_are_told_without_their_words(inventory: Inventory) -> None:
    """A body in the API's error model, ones that are not, an empty one, and a page."""
    gone, broken, page = ((new_id(number), INSTANCE, None) for number in (404, 500, 503))
    inventory.sandbox.answer(A[0], b'{"type": "Secret Words", "correlationId": null, "hint": {}}', status=400)
    inventory.sandbox.answer(broken[0], b"[1]", status=500)
    inventory.sandbox.answer(page[0], b"<html>", status=503, content_type="text/html")
    inventory.answer(B[0], [])
    report = probe(inventory, [A, B, gone, broken, page])
    errors = told(report, "error bodies")
    usual = {
        "replies": 1,
        "provoked_by": [],
        "content_types": {"application/json": 1},
        "members": {},
        "other_members": [],
    }
    model = dict.fromkeys(("statusCode", "type", "description", "correlationId", "errors"), 1)
    refused = {"provoked_by": ["call with an invalid token"], "content_types": {"none": 1}}
    (length,) = errors["body of 404"][1]["bytes"]
    assert errors == {
        "body of 400": (
            "object",
            usual
            | {"bodies": {"object": 1}, "bytes": [59], "members": {"type": 1, "correlationId": 1}}
            | {"other_members": ["hint"]},
        ),
        "body of 401": ("empty", usual | refused | {"bodies": {"empty": 1}, "bytes": [0]}),
        "body of 403": ("not seen", {"replies": 0}),
        "body of 404": ("object", usual | {"bodies": {"object": 1}, "bytes": [length], "members": model}),
        "body of 500": ("array", usual | {"bodies": {"array": 1}, "bytes": [3]}),
        "body of 503": (
            "not JSON",
            usual | {"bodies": {"not JSON": 1}, "bytes": [6], "content_types": {"text/html": 1}},
        ),
    }
    assert told(report, "correlation id") == {
        "ours comes back in the error body": ("mixed", {"error_objects": 2, "echoed": 1}),
        "ours comes back in a header": ("never", {"replies": 7, "headers": {}}),
    }
    assert "Secret Words" not in json.dumps(to_json(report))


def test_403_is_provoked_only_where_none_was_seen(inventory: Inventory) -> None:
    tenant = inventory.sandbox.tenant
    good = next(one for one in tenant.customers if one.has_gdap and not one.script and not one.is_flaky)
    scopes: list[ScopeIds] = [(good.id, good.provider_instance_ids[0], None)]
    report = probe(inventory, scopes)
    replies = told(report, "replies")
    assert told(report, "error bodies")["body of 403"][1]["provoked_by"] == ["call with an unknown reseller"]
    assert replies["call with an unknown reseller"] == ("HTTP 403", {"replies": 1})
    assert replies["call with an invalid token"] == ("HTTP 401", {"replies": 1})
    assert replies["HTTP status"] == ("200", {"replies": 1, "no_reply": 0, "statuses": {"200": 1}})
    inventory.answer(A[0], [], status=403)
    report = probe(inventory, [*scopes, A])
    assert told(report, "error bodies")["body of 403"][1]["provoked_by"] == []
    assert told(report, "replies")["call with an unknown reseller"] == ("not seen", {"replies": 0})


def test_calls_without_a_reply_and_throttled_ones_are_counted(inventory: Inventory) -> None:
    inventory.answer(A[0], [])
    inventory.sandbox.faults.for_customer(A[0], "throttle_bare", times=1)
    inventory.sandbox.faults.for_customer(B[0], "reset")
    replies = told(probe(inventory, [A, B], max_attempts=2), "replies")
    statuses = {"200": 1, "429": 1}
    assert replies["HTTP status"] == ("mixed", {"replies": 2, "no_reply": 2, "statuses": statuses})
    assert replies["429"] == ("mixed", {"replies": 2, "throttled": 1})


def test_headers_are_told_by_name_and_numbers(front: tuple[Front, Sandbox], tmp_path: Path) -> None:
    inventory = Inventory(front[1], tmp_path / "x.duckdb")
    inventory.answer(A[0], [])
    front[0].headers = {
        "X-RateLimit-Remaining": "41",
        "x-ms-request-id": new_id(7),
        "X-Quota-Of-12345": "5",
        "Server": "Microsoft-IIS/10.0 (secret-host)",
        "X-Other": "not shown",
    }
    report = probe(inventory, [A])
    headers = told(report, "headers")
    skew, evidence = headers.pop("server clock against this one")
    assert re.fullmatch(r"[+-]\d s", skew)
    assert evidence["replies"] == 3
    limits = {
        "x-ratelimit-remaining": {"replies": 3, "min": 41.0, "max": 41.0},
        "x-ms-request-id": {"replies": 3},
        "[name of 16 characters withheld]": {"replies": 3, "min": 5.0, "max": 5.0},
    }
    assert headers == {
        "throttling and limits": ("always", {"replies": 3, "headers": limits}),
        "content type of a 200": ("application/json", {"replies": 2, "values": {"application/json": 2}}),
        "content encoding of a 200": ("none", {"replies": 2, "values": {"none": 2}}),
        "server": ("Microsoft-IIS", {"replies": 3, "values": {"Microsoft-IIS": 3}}),
        "HTTP version": ("HTTP/1.1", {"replies": 3, "values": {"HTTP/1.1": 3}}),
    }


# --- discovery -------------------------------------------------------------------------------------------------


def customer(number: int, **others: Any) -> dict[str, Any]:
    entry = {"providerInstanceId": INSTANCE, "providerCustomerId": new_id(600 + number), "margin": {}}
    fields = {"id": new_id(number), "companyName": f"Company {number}", "email": f"{number}@mail.example"}
    return fields | {"resellerId": None, "providerCustomers": {INSTANCE: entry}} | others


def page(items: list[Any], query: Mapping[str, str], **others: Any) -> dict[str, Any]:
    size = int(query["pageSize"])
    return {"items": items[:size], "totalCount": len(items), "hasNextPage": len(items) > size} | others


def test_listings_are_told_with_discovery(front: tuple[Front, Sandbox], tmp_path: Path) -> None:
    customers = [customer(number, customerStatus={"name": "Active"}) for number in range(1, 8)]
    customers[0] |= {"customerStatus": {"name": "Deleted"}, "state": "Sachsen", "tags": []}
    customers[1]["providerCustomers"] = {new_id(77): {"providerInstanceId": INSTANCE, "state": "Failed"}}
    instances = [
        {"id": INSTANCE, "alias": "Microsoft Alias", "provider": {"name": "Microsoft", "key": new_id(3)}},
        {"id": new_id(8), "alias": "Else", "provider": {"name": "Contoso Reseller Ltd"}, "region": 4},
    ]
    listings = {
        CUSTOMERS: lambda query: page(customers, query, paginationParameters={"pageSize": int(query["pageSize"])}),
        INSTANCES: lambda query: page(instances, query, next=None),
        RESELLERS: lambda _query: [{"id": RESELLER, "companyName": "Company"}],
    }
    front[0].script = lambda path, query: listings[path](query) if path in listings else None
    inventory = Inventory(front[1], tmp_path / "x.duckdb")
    inventory.answer(A[0], [])
    report = probe(inventory, [A], scopes=None, discover=True)
    topics = {one.topic for one in report.findings if one.topic.startswith(("listing", "custom", "provider"))}
    items = {"items": "array", "totalCount": "integer", "hasNextPage": "boolean"}
    parameters = {"items": "array", "paginationParameters": "object", "totalCount": "integer"}
    missing = ["totalPages", "hasPreviousPage", "continuationToken"]
    every_member = ["items", "paginationParameters", "totalPages", "totalCount", "hasPreviousPage", "hasNextPage"]
    every_member.append("continuationToken")
    envelope = {"members": parameters | items, "missing": missing, "unknown": {}}
    sizes = {"said_by_the_page": 2000, "has_next_page": False}
    assert {topic: told(report, topic) for topic in topics} == {
        "customers": {
            "customers have members that nobody documented": (
                "always",
                {"objects": 7, "names": {"customerStatus": {"object": 7}, "tags": {"array": 1}}},
            ),
            "something tells deleted ones": (
                "yes",
                {
                    "customers": 7,
                    "deleted_by_what_the_load_looks_at": 1,
                    "members": {"customerStatus": {"object": 7}},
                    "values": {"customerStatus": {"Active": 6, "Deleted": 1}},
                },
            ),
            "key of providerCustomers is its providerInstanceId": (
                "mixed",
                {"customers": 7, "types": {"object": 7}, "entries": 7, "with_an_id_inside": 7, "same": 6},
            ),
            "entry lacks a providerCustomerId": ("mixed", {"entries": 7, "without": 1}),
            "entries of providerCustomers have members that nobody documented": (
                "mixed",
                {"objects": 7, "names": {"state": {"text": 1}}},
            ),
        },
        "listing of customers": {
            "page of 2000": ("page", {"items": 7} | envelope),
            "page size 2000 is honoured": ("not seen", {"asked": 2000, "items": 7} | sizes),
            "page of 5": ("page", {"items": 5} | envelope),
            "page size 5 is honoured": (
                "always",
                {"asked": 5, "items": 5, "said_by_the_page": 5, "has_next_page": True},
            ),
        },
        "listing of provider instances": {
            "page of 2000": (
                "page",
                {
                    "items": 2,
                    "members": items,
                    "missing": ["paginationParameters", *missing],
                    "unknown": {"next": {"null": 1}},
                },
            ),
            "page size 2000 is honoured": (
                "not seen",
                {"asked": 2000, "items": 2, "said_by_the_page": "null", "has_next_page": False},
            ),
        },
        "listing of resellers": {
            "page of 2000": ("JSON array", {"items": 1, "members": {}, "missing": every_member, "unknown": {}}),
            "page size 2000 is honoured": (
                "not seen",
                {"asked": 2000, "items": 1, "said_by_the_page": "null", "has_next_page": "null"},
            ),
        },
        "provider instances": {
            "provider instances have members that nobody documented": (
                "mixed",
                {"objects": 2, "names": {"region": {"integer": 1}}},
            ),
            "provider tells Microsoft from others": (
                "always",
                {
                    "instances": 2,
                    "microsoft": 1,
                    "others": 1,
                    "not_told": 0,
                    "provider_types": {"object": 2},
                    "members": {"key": {"text": 1}, "name": {"text": 2}},
                    "values": {"name": {"Microsoft": 1, "[text of 20 characters withheld]": 1}},
                },
            ),
        },
    }
    text = json.dumps(to_json(report))
    for private in ("Company", "mail.example", "Contoso", "Sachsen", "Alias", new_id(601), new_id(77), INSTANCE):
        assert private not in text


def test_listing_that_is_refused_is_told(front: tuple[Front, Sandbox], tmp_path: Path) -> None:
    front[0].script = lambda path, _query: {CUSTOMERS: "text", INSTANCES: {"items": None}}.get(path)
    inventory = Inventory(front[1], tmp_path / "x.duckdb", client_id=RESELLER_CLIENT.id)
    settings = {"client_secret": RESELLER_CLIENT.secret, "scopes": None, "discover": True}
    report = probe(inventory, [A], **settings)
    assert told(report, "listing of customers")["page of 5"][0] == "JSON text"
    assert told(report, "listing of provider instances")["page of 2000"][0] == "JSON object"
    verdict, evidence = told(report, "listing of resellers")["page of 2000"]
    assert verdict in ("HTTP 403", "HTTP 404")
    assert evidence == {"pages": 0}
    assert told(report, "customers")["something tells deleted ones"][0] == "not seen"


# --- the command -----------------------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    """Runs `cockpit check` in a project of the sandbox's own scopes; exit code, stdout and stderr."""
    lines = [",".join(part or "" for part in ids) for ids in inventory.sandbox.tenant.scopes(0)]
    (tmp_path / "scopes.csv").write_text("\n".join(["customer_id,provider_instance_id,reseller_id", *lines]))
    given = inventory.connection() | {"scopes_file": "scopes.csv", "max_attempts": 1}
    for name, value in given.items():
        monkeypatch.setenv(f"SOURCES__COCKPIT__{name.upper()}", str(value))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cockpit", "check", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def private_texts(sandbox: Sandbox) -> set[str]:
    """Everything of the sandbox's tenant that a report must not hold."""
    tenant = sandbox.tenant
    texts = {tenant.domain, CSP_CLIENT.id, CSP_CLIENT.secret, TOKEN_SCOPE, *sandbox.tokens._issued}
    texts |= {text for one in tenant.customers for text in (one.id, one.company_name)}
    texts |= {text for one in tenant.resellers for text in (one.id, one.company_name)}
    texts |= {text for one in tenant.provider_instances for text in (one.id, one.alias)}
    rows = [row for customer, instance, _ in tenant.scopes(0) for row in tenant.licenses(customer, instance, 0)]
    return texts | {text for row in rows for text in (row["skuId"], row["name"])}


@pytest.mark.parametrize("arguments", [("--probe",), ("--probe", "--json")])
def test_nothing_private_is_in_the_report(check: Command, inventory: Inventory, arguments: tuple[str, ...]) -> None:
    """Also where the API puts ids, names and secrets into places that nobody expects."""
    sandbox = inventory.sandbox
    tenant = sandbox.tenant
    odd = {tenant.customers[1].id: "a", tenant.domain: 1, "someone@example.org": {}, "client_secret=abcdef12": None}
    refusal = {"type": tenant.domain, "description": tenant.customers[2].company_name, CSP_CLIENT.secret: 1}
    answers = [
        (200, [sku(tenant.resellers[0].company_name, **odd), sku(f"x{CSP_CLIENT.secret}", name=tenant.domain)]),
        (200, {tenant.domain: 1, tenant.provider_instances[0].id: 2, "sandboxCspSecret": CSP_CLIENT.secret}),
        (400, refusal),
        (403, [tenant.customers[3].company_name]),
    ]
    for number, (customer, _, _) in enumerate(tenant.scopes(0)):
        if number % 5:
            status, body = answers[number % 5 - 1]
            sandbox.answer(customer, json.dumps(body).encode(), status=status)
    code, out, _ = check(*arguments)
    assert code == 0
    folded = out.casefold()
    assert {text for text in private_texts(sandbox) if text.casefold() in folded} == set()
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", folded)
    assert "@" not in out
    assert "abcdef12" not in out
    assert sandbox.base_url.removeprefix("http://") in out
    assert out.count("withheld") > 3


def test_json_is_one_object_and_alone_on_stdout(check: Command, inventory: Inventory) -> None:
    code, out, err = check("--probe", "--json")
    report = json.loads(out)
    assert code == 0
    assert list(report) == ["version", "made_at", "host", "calls", "findings"]
    assert report["version"] == __version__
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["made_at"])
    assert {tuple(finding) for finding in report["findings"]} == {("topic", "question", "verdict", "evidence")}
    questions = [(finding["topic"], finding["question"]) for finding in report["findings"]]
    assert len(questions) == len(set(questions))
    # that of the checks is not among the probe's calls
    assert report["calls"] == inventory.sandbox.call_counts().total() - 1
    assert "ok         one call: " in err
    assert "probe: reading 20 of " in err


def test_text_is_a_block_of_aligned_lines_a_topic(check: Command, inventory: Inventory) -> None:
    code, out, _ = check("--probe")
    head, *blocks, end = out.strip().split("\n\n")
    assert code == 0
    assert re.fullmatch(
        rf"Probe of {inventory.sandbox.base_url[7:]} with cockpit {re.escape(__version__)}, "
        r"20\d\d-\d\d-\d\d \d\d:\d\d UTC, \d+ calls of at most 60",
        head,
    )
    titles = ["probe", "scopes", "SKU id", "SKU name", "counts", "totals", "row", "answer", "reseller", "replies"]
    assert [block.split("\n")[0] for block in blocks] == [*titles, "error bodies", "correlation id", "headers"]
    for block in blocks:
        lines = block.split("\n")[1:]
        assert all(re.match(r"  \S.*?: +\S", line) for line in lines)
        assert len({line.index("  (") for line in lines}) == 1
    assert "  429:" in out
    assert end.endswith("To send it with a bug report: cockpit check --probe --json > probe.json")


def test_probe_runs_although_the_one_call_was_refused(check: Command, inventory: Inventory) -> None:
    first = next(iter(inventory.sandbox.tenant.scopes(0)))
    inventory.answer(first[0], [], status=403)
    code, out, err = check("--probe", "--json")
    assert code == 0
    assert "failed     one call: " in err
    scope = next(one for one in json.loads(out)["findings"] if one["question"] == "scope 1")
    assert scope["verdict"] == "forbidden"
    assert check()[0] == 3


@pytest.mark.parametrize("arguments", [("--probe",), ("--probe", "--json")])
def test_probe_does_not_run_where_a_check_failed_before_it(
    check: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SOURCES__COCKPIT__CLIENT_SECRET", "wrong")
    code, out, err = check(*arguments)
    assert (code, out) == (5, "")
    assert "failed     sign-in: " in err


def test_json_without_probe_is_refused(check: Command, inventory: Inventory) -> None:
    code, out, err = check("--json")
    assert (code, out) == (2, "")
    assert err == "Error: --json goes with --probe: cockpit check --probe --json\n"
    assert inventory.sandbox.requests == []
